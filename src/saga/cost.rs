//! What an expression costs at most, told from its form and the sizes of its variables, before it is run.
//!
//! Loops do not nest, but each may go over what the one before it made: a few of them in a row could make
//! of one value as many as there are atoms. The body of a loop joins and copies the item that it is at,
//! and cannot multiply two of them, so what it makes is so much for each round, and so many times the
//! item. All items together are as large as what the loop goes over.

use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::interpreter::functions;

/// Largest size of a value that an expression may make.
const MAX_SIZE: usize = 1_000_000;
/// Most work that it may take: values that it touches.
pub(super) const MAX_WORK: usize = 10_000_000;
/// The same of one that names nothing in scope. A definition may hold thousands of them, and each is
/// evaluated when the definition is loaded.
pub(super) const MAX_CONSTANT_WORK: usize = 5_000;

/// Bytes of text that count as one value.
const BYTES: usize = 16;
/// Size of a number as a text, at most.
const NUMBER: usize = 24;

/// A bound on a value and on what it takes to make it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// Values in it, itself included.
    size: Amount,
    /// Items that a loop over it has.
    items: usize,
    /// Values that are touched to make it.
    work: Amount,
}

/// So many, and so many times the size of the item that a loop is at.
#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    fixed: usize,
    share: usize,
}

/// The size of a text.
pub(super) fn of_text(text: &str) -> usize {
    1 + text.len() / BYTES
}

impl Cost {
    /// The cost of a variable.
    pub(super) fn of_variable(items: usize, size: usize) -> Self {
        Self { items, ..Self::leaf(size) }
    }

    /// The cost of an expression with these variables.
    pub(super) fn of(node: &IdedExpr, variable: &dyn Fn(&str) -> Self) -> Self {
        match &node.expr {
            Expr::Ident(name) => variable(name),
            Expr::Literal(LiteralValue::String(text)) => Self::leaf(of_text(text.inner())),
            Expr::Literal(LiteralValue::Bytes(bytes)) => Self::leaf(1 + bytes.inner().len() / BYTES),
            Expr::Literal(_) | Expr::Unspecified | Expr::Struct(_) => Self::leaf(1),
            Expr::Select(select) => Self::of(&select.operand, variable).unknown_part(),
            Expr::List(list) => {
                Self { items: list.elements.len(), ..Self::sum(&list.elements, variable).and(Self::leaf(1)) }
            }
            Expr::Map(map) => {
                let entries = map.entries.iter().map(|entry| match &entry.expr {
                    EntryExpr::MapEntry(entry) => {
                        Self::of(&entry.key, variable).and(Self::of(&entry.value, variable))
                    }
                    EntryExpr::StructField(field) => Self::of(&field.value, variable),
                });
                Self { items: map.entries.len(), ..entries.fold(Self::leaf(1), Self::and) }
            }
            Expr::Call(call) => {
                let target = call.target.as_ref().map(|target| Self::of(target, variable));
                let args: Vec<_> = call.args.iter().map(|arg| Self::of(arg, variable)).collect();
                let all = args.iter().fold(target.unwrap_or_default(), |all, arg| all.and(*arg));
                let work = all.work.and(all.size).and(Amount::of(1));
                match (call.func_name.as_str(), args.as_slice()) {
                    // One of the two, and not the condition.
                    (operators::CONDITIONAL, [_, either, or]) => Self { work, ..either.and(*or) },
                    ("string", _) => Self { work, size: all.size.and(Amount::of(NUMBER)), items: 0 },
                    (operators::INDEX | functions::GET, _) => Self { work, ..all.unknown_part() },
                    (name, _) if is_scalar(name) => Self { work, ..Self::leaf(1) },
                    _ => Self { work, ..all },
                }
            }
            Expr::Comprehension(each) => Self::of_loop(each, variable),
        }
    }

    fn of_loop(each: &ComprehensionExpr, variable: &dyn Fn(&str) -> Self) -> Self {
        let range = Self::of(&each.iter_range, variable);
        let in_round = |name: &str| match name {
            // What is gathered is what the rounds add to it.
            name if name == each.accu_var => Self { work: Amount::of(1), ..Self::default() },
            name if name == each.iter_var || Some(name) == each.iter_var2.as_deref() => {
                Self { size: Amount { fixed: 0, share: 1 }, ..Self::leaf(1) }
            }
            name => variable(name),
        };
        let step = Self::of(&each.loop_step, &in_round);
        let work_of_round = Self::of(&each.loop_cond, &in_round).work.and(step.work);
        let all = |amount: Amount| {
            let shares = amount.share.saturating_mul(range.size.fixed);
            Amount::of(amount.fixed.saturating_mul(range.items).saturating_add(shares))
        };
        let size = all(step.size).and(Amount::of(1));
        let work = range.work.and(range.size).and(all(work_of_round)).and(size);
        Self { size, items: step.items.saturating_mul(range.items), work }
    }

    /// Whether it makes nothing too large, with at most so much work.
    pub(super) fn is_within(self, max_work: usize) -> bool {
        self.size.fixed <= MAX_SIZE && self.work.fixed <= max_work
    }

    fn leaf(size: usize) -> Self {
        Self { size: Amount::of(size), items: 0, work: Amount::of(1) }
    }

    fn and(self, other: Self) -> Self {
        Self {
            size: self.size.and(other.size),
            items: self.items.saturating_add(other.items),
            work: self.work.and(other.work),
        }
    }

    fn sum(nodes: &[IdedExpr], variable: &dyn Fn(&str) -> Self) -> Self {
        nodes.iter().map(|node| Self::of(node, variable)).fold(Self::default(), Self::and)
    }

    /// Something in it, which may be nearly all of it.
    fn unknown_part(self) -> Self {
        Self { items: self.size.fixed, ..self }
    }
}

impl Amount {
    fn of(fixed: usize) -> Self {
        Self { fixed, share: 0 }
    }

    fn and(self, other: Self) -> Self {
        Self { fixed: self.fixed.saturating_add(other.fixed), share: self.share.saturating_add(other.share) }
    }
}

/// Whether a function gives a single number or boolean, however large its arguments are.
fn is_scalar(name: &str) -> bool {
    use operators::{
        DIVIDE, EQUALS, GREATER, GREATER_EQUALS, IN, LESS, LESS_EQUALS, LOGICAL_AND, LOGICAL_NOT, LOGICAL_OR,
        MODULO, MULTIPLY, NEGATE, NOT_EQUALS, NOT_STRICTLY_FALSE, SUBSTRACT,
    };
    let operators = [
        DIVIDE,
        EQUALS,
        GREATER,
        GREATER_EQUALS,
        IN,
        LESS,
        LESS_EQUALS,
        LOGICAL_AND,
        LOGICAL_NOT,
        LOGICAL_OR,
        MODULO,
        MULTIPLY,
        NEGATE,
        NOT_EQUALS,
        NOT_STRICTLY_FALSE,
        SUBSTRACT,
        functions::SUBTRACT,
        functions::MULTIPLY,
        functions::DIVIDE,
        functions::HAS,
        functions::HELD,
    ];
    let functions = ["contains", "startsWith", "endsWith", "size", "bool", "int", "uint", "double"];
    operators.contains(&name) || functions.contains(&name)
}
