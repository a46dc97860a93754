//! The CEL interpreter, bounded: what an expression costs is limited before it is run.
//!
//! Every path that begins with a name in scope (`input.customer.name`) is replaced by one variable
//! when the expression is compiled. An evaluation then converts only the values at those paths, a
//! path through null is null, and a missing field is a variable that is not there.

pub(super) mod functions;
mod literal;
mod value;
mod walk;

use std::sync::{Arc, LazyLock};

use cel::common::ast::IdedExpr;
use cel::common::types::{CelBool, CelNull};
use cel::common::value::Val;
use cel::parser::PrattParser;
use cel::{Context, Env, ExecutionError, Value as CelValue};
use serde_json::Value;

use self::value::{from_cel, to_cel};
use self::walk::{Slot, Use, Walk};
use super::cost::{Cost, MAX_CONSTANT_WORK, MAX_WORK};
use super::expression::ExpressionError;
use super::scope::{Found, Scope};

/// Longest source of an expression, in bytes.
pub(super) const MAX_SOURCE: usize = 4096;
/// Deepest nesting of an expression, and longest path.
pub(super) const MAX_DEPTH: usize = 32;
/// Most that an evaluation converts: one for each value, and one more for every 16 bytes of text.
const MAX_WEIGHT: usize = 100_000;

/// Names that CEL itself defines.
const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];
/// Functions and macros that may be called by name.
pub(super) const FUNCTIONS: [&str; 18] = [
    "all",
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "has",
    "int",
    "map",
    "size",
    "startsWith",
    "string",
    "type",
    "uint",
];

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::default().with_optional_support(false).with_stdlib();
    functions::add_to(&mut env);
    Arc::new(env)
});

/// What a source turns out to be.
pub(super) enum Parsed {
    /// Nothing but a path.
    Path(Vec<String>),
    /// Anything else.
    Program(Program),
}

/// An expression that is ready to run.
#[derive(Debug)]
pub(super) struct Program {
    source: String,
    root: IdedExpr,
    slots: Vec<Slot>,
    compared: Vec<(Vec<String>, String)>,
}

/// Parses and bounds an expression.
pub(super) fn parse(source: &str) -> Result<Parsed, ExpressionError> {
    if source.len() > MAX_SOURCE {
        return Err(ExpressionError::TooLong(source.len()));
    }
    // The parser's own limit keeps brackets from exhausting the stack, the walk below bounds chains.
    let parser = PrattParser::new().max_recursion_depth(MAX_DEPTH as u16);
    let mut root = parser.parse(source).map_err(|errors| match errors.errors.into_iter().next() {
        Some(first) if first.msg.contains("recursion limit") => ExpressionError::TooDeep,
        Some(first) => ExpressionError::Syntax {
            message: first.msg.strip_prefix("Syntax error: ").unwrap_or(&first.msg).to_owned(),
            column: usize::try_from(first.pos.1).unwrap_or(0).max(1),
        },
        None => ExpressionError::Syntax { message: "not an expression".to_owned(), column: 1 },
    })?;
    let mut walk = Walk::default();
    if let Some(path) = walk.path(&root)? {
        return Ok(Parsed::Path(path));
    }
    literal::check(source)?;
    walk.expression(&mut root, false, 0)?;
    Ok(Parsed::Program(Program {
        source: source.to_owned(),
        root,
        slots: walk.slots,
        compared: walk.compared,
    }))
}

impl Program {
    /// As it is written.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// The paths that it names, without repeats.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Vec<String>> {
        self.slots.iter().map(|slot| &slot.path)
    }

    /// The paths of which it asks whether they are there.
    pub(super) fn asked(&self) -> impl Iterator<Item = &Vec<String>> {
        let is_asked = |slot: &&Slot| matches!(slot.of, Use::Presence | Use::IfThere);
        self.slots.iter().filter(is_asked).map(|slot| &slot.path)
    }

    /// Paths that it compares with a text, and the texts.
    pub(super) fn compared(&self) -> &[(Vec<String>, String)] {
        &self.compared
    }

    /// Runs it.
    pub(super) fn run(&self, scope: &Scope<'_>) -> Result<Value, ExpressionError> {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        let mut weight = 0;
        let mut costs = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let before = weight;
            let found = scope.find(&slot.path);
            let (value, items): (Box<dyn Val>, _) = match (found, slot.of) {
                (Found::Unavailable, _) => return Err(ExpressionError::unavailable(&slot.path)),
                (found, Use::Presence) => (Box::new(CelBool::from(matches!(found, Found::Value(_)))), 0),
                (Found::Value(value), of) => match to_cel(&value, of == Use::Computable, &mut weight) {
                    Ok(made) => (made, items_in(&value)),
                    // It counts only where it is needed.
                    Err(ExpressionError::Inexact(_)) => continue,
                    Err(error) => return Err(error),
                },
                (Found::BehindNull, _) | (Found::Missing { .. }, Use::IfThere) => (Box::new(CelNull), 0),
                (Found::Missing { .. }, Use::Value | Use::Computable) => continue,
            };
            costs.push((slot.variable.as_str(), Cost::of_variable(items, weight - before)));
            context.add_variable_as_val(slot.variable.as_str(), value);
        }
        // A variable that is not there ends the evaluation where it is needed.
        let cost = |name: &str| costs.iter().find(|(known, _)| *known == name).map(|(_, cost)| *cost);
        let max_work = if self.slots.is_empty() { MAX_CONSTANT_WORK } else { MAX_WORK };
        if !Cost::of(&self.root, &|name| cost(name).unwrap_or_default()).is_within(max_work) {
            return Err(ExpressionError::TooMuch);
        }
        let result = CelValue::resolve_val(&self.root, &context);
        from_cel(result.map_err(|error| self.explain(error, scope))?.as_ref())
    }

    /// An error of the interpreter without the values that it happened to, which are nobody's
    /// business in a log.
    fn explain(&self, error: ExecutionError, scope: &Scope<'_>) -> ExpressionError {
        let failed = |message: &str| ExpressionError::Failed(message.to_owned());
        match error {
            ExecutionError::UndeclaredReference(name) => {
                match self.slots.iter().find(|slot| slot.variable == *name) {
                    Some(slot) => match scope.find(&slot.path) {
                        Found::Value(value) => {
                            let inexact = to_cel(&value, true, &mut { 0 }).err();
                            inexact.unwrap_or_else(|| failed("it cannot be evaluated"))
                        }
                        found => ExpressionError::not_found(&slot.path, found),
                    },
                    None => failed(&format!("there is no {name:?}")),
                }
            }
            ExecutionError::NoSuchOverload(error) => {
                failed(&does_not_work(error.function(), error.argument_types(), error.is_member_function()))
            }
            ExecutionError::NoSuchKey(key) => failed(&format!("there is no field {key:?}")),
            ExecutionError::UnsupportedBinaryOperator(operator, left, right) => failed(&format!(
                "{operator} does not work on {} and {}; use double(), int() or string() on one of them",
                type_name(&left),
                type_name(&right)
            )),
            ExecutionError::ValuesNotComparable(left, right) => {
                failed(&format!("{} cannot be compared to {}", type_name(&left), right.type_of()))
            }
            ExecutionError::UnexpectedType { got, want } => {
                let want = if want == "iterable" { "a list or a map" } else { &want };
                failed(&format!("expected {want}, found {got}"))
            }
            // What the library says of it may hold the value.
            ExecutionError::FunctionError { function, message } => functions::told(&function, &message)
                .unwrap_or_else(|| {
                    failed(&format!("{function}() cannot make anything of the value that it is given"))
                }),
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                failed("division by zero")
            }
            ExecutionError::Overflow(operator, ..) => failed(&format!("{operator} overflows")),
            ExecutionError::IndexOutOfBounds(_) => failed("the index is out of bounds"),
            ExecutionError::DuplicateKey(_) => failed("a map has the same key twice"),
            ExecutionError::UnsupportedKeyType(_) => failed("the value cannot be the key of a map"),
            ExecutionError::UnsupportedIndex(..) => failed("the value cannot be an index"),
            _ => failed("it cannot be evaluated"),
        }
    }
}

/// An operator or a function that there is not for what it is applied to.
fn does_not_work(function: &str, types: &[String], on_the_first: bool) -> String {
    let is_operator = !function.starts_with(|c: char| c.is_ascii_alphabetic());
    match types {
        _ if is_operator => {
            let operator = function.replace(['_', '@'], " ");
            format!("`{}` does not work on {}", operator.trim(), types.join(" and "))
        }
        [first, others @ ..] if on_the_first && !others.is_empty() => {
            format!("{function}() does not work on {first} with {}", others.join(" and "))
        }
        [] => format!("{function}() needs a value to work on"),
        types => format!("{function}() does not work on {}", types.join(" and ")),
    }
}

/// The name of a type as CEL spells it.
fn type_name(value: &CelValue) -> String {
    match value {
        CelValue::Float(_) => "double".to_owned(),
        other => other.type_of().to_string(),
    }
}

/// How many items a loop over a value has.
fn items_in(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        _ => 0,
    }
}
