//! The CEL interpreter, bounded: what an expression costs is limited before it is run.
//!
//! Every path that begins with a name in scope (`input.customer.name`) is replaced by one variable
//! when the expression is compiled. An evaluation then converts only the values at those paths, a
//! path through null is null, and a missing field is a variable that is not there.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::objects::Key;
use cel::parser::PrattParser;
use cel::{Context, Env, ExecutionError, Value as CelValue};
use serde_json::Value;

use super::cost::{self, Cost, MAX_CONSTANT_WORK, MAX_WORK};
use super::expression::{ExpressionError, path_text};
use super::scope::{Found, ROOTS, Scope};

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

/// Our function that makes loops go in order; no source can spell its name.
const IN_ORDER: &str = "@in_order";

static ENVIRONMENT: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));

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
    has_loop: bool,
}

/// A variable that stands for a path, or for whether there is something at it.
#[derive(Debug)]
struct Slot {
    variable: String,
    path: Vec<String>,
    presence: bool,
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
    walk.expression(&mut root, 0)?;
    Ok(Parsed::Program(Program {
        source: source.to_owned(),
        root,
        slots: walk.slots,
        has_loop: walk.has_loop,
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

    /// Runs it.
    pub(super) fn run(&self, scope: &Scope<'_>) -> Result<Value, ExpressionError> {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        let mut weight = 0;
        let mut costs = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let before = weight;
            let value = match (scope.find(&slot.path), slot.presence) {
                (Found::Unavailable, _) => return Err(ExpressionError::unavailable(&slot.path)),
                (found, true) => CelValue::Bool(matches!(found, Found::Value(_))),
                (Found::Value(value), false) => to_cel(&value, &mut weight)?,
                (Found::BehindNull, false) => CelValue::Null,
                (Found::Missing { .. }, false) => continue,
            };
            costs.push((slot.variable.as_str(), Cost::of_variable(&value, weight - before)));
            context.add_variable_from_value(slot.variable.as_str(), value);
        }
        if self.has_loop {
            context.add_function(IN_ORDER, in_order).expect("CEL has no function of that name");
        }
        // A variable that is not there ends the evaluation where it is needed.
        let cost = |name: &str| costs.iter().find(|(known, _)| *known == name).map(|(_, cost)| *cost);
        let max_work = if self.slots.is_empty() { MAX_CONSTANT_WORK } else { MAX_WORK };
        if !Cost::of(&self.root, &|name| cost(name).unwrap_or_default()).is_within(max_work) {
            return Err(ExpressionError::TooMuch);
        }
        let result = CelValue::resolve(&self.root, &context).map_err(|error| self.explain(error, scope))?;
        from_cel(&result)
    }

    /// An error of the interpreter without the values that it happened to, which are nobody's
    /// business in a log.
    fn explain(&self, error: ExecutionError, scope: &Scope<'_>) -> ExpressionError {
        let failed = |message: &str| ExpressionError::Failed(message.to_owned());
        match error {
            ExecutionError::UndeclaredReference(name) => {
                match self.slots.iter().find(|slot| slot.variable == *name) {
                    Some(slot) => ExpressionError::not_found(&slot.path, scope.find(&slot.path)),
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
            ExecutionError::FunctionError { function, .. } => {
                failed(&format!("{function}() cannot make anything of the value that it is given"))
            }
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

/// Replaces paths by variables and refuses what is not allowed.
#[derive(Default)]
struct Walk {
    slots: Vec<Slot>,
    /// Variables of the loop that the walk is in. They hide names in scope.
    bound: Vec<String>,
    has_loop: bool,
}

impl Walk {
    fn expression(&mut self, node: &mut IdedExpr, depth: usize) -> Result<(), ExpressionError> {
        if depth > MAX_DEPTH {
            return Err(ExpressionError::TooDeep);
        }
        if let Some(path) = self.path(node)? {
            node.expr = self.slot(path, false);
            return Ok(());
        }
        if let Expr::Select(select) = &node.expr
            && select.test
            && let Some(mut path) = self.path(&select.operand)?
        {
            path.push(select.field.clone());
            node.expr = self.slot(path, true);
            return Ok(());
        }
        self.parts(&mut node.expr, depth + 1)
    }

    fn parts(&mut self, expr: &mut Expr, depth: usize) -> Result<(), ExpressionError> {
        match expr {
            Expr::Ident(_) | Expr::Literal(_) => Ok(()),
            Expr::Select(select) => self.expression(&mut select.operand, depth),
            Expr::Call(call) => {
                known_function(&call.func_name)?;
                let target = call.target.iter_mut().map(|target| &mut **target);
                target.chain(&mut call.args).try_for_each(|part| self.expression(part, depth))
            }
            Expr::List(list) => list.elements.iter_mut().try_for_each(|item| self.expression(item, depth)),
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.expression(&mut entry.key, depth)?;
                    self.expression(&mut entry.value, depth)
                }
                EntryExpr::StructField(_) => Err(ExpressionError::NoStructs),
            }),
            Expr::Comprehension(each) => {
                if !self.bound.is_empty() {
                    return Err(ExpressionError::NestedLoop);
                }
                self.has_loop = true;
                self.expression(&mut each.iter_range, depth)?;
                let range = std::mem::take(&mut each.iter_range);
                let args = vec![range];
                let in_order = CallExpr { func_name: IN_ORDER.to_owned(), target: None, args };
                each.iter_range.expr = Expr::Call(in_order);
                self.expression(&mut each.accu_init, depth)?;
                self.bound = vec![each.iter_var.clone(), each.accu_var.clone()];
                self.bound.extend(each.iter_var2.clone());
                self.expression(&mut each.loop_cond, depth)?;
                self.expression(&mut each.loop_step, depth)?;
                self.expression(&mut each.result, depth)?;
                self.bound.clear();
                Ok(())
            }
            Expr::Struct(_) | Expr::Unspecified => Err(ExpressionError::NoStructs),
        }
    }

    /// The path that a node spells, if it begins with a name in scope; an error if it begins with
    /// a name that means nothing. Not recursive, so that a long chain does no harm.
    fn path(&self, node: &IdedExpr) -> Result<Option<Vec<String>>, ExpressionError> {
        let mut segments = Vec::new();
        let mut node = node;
        let root = loop {
            node = match &node.expr {
                Expr::Ident(name) => break name,
                Expr::Select(select) if !select.test => {
                    segments.push(select.field.clone());
                    &select.operand
                }
                Expr::Call(call) => match constant_index(call) {
                    Some((operand, field)) => {
                        segments.push(field.to_owned());
                        operand
                    }
                    None => return Ok(None),
                },
                _ => return Ok(None),
            };
        };
        if self.bound.contains(root) || (segments.is_empty() && TYPES.contains(&root.as_str())) {
            return Ok(None);
        }
        if !ROOTS.contains(&root.as_str()) {
            return Err(ExpressionError::UnknownName(root.clone()));
        }
        if segments.len() >= MAX_DEPTH {
            return Err(ExpressionError::TooDeep);
        }
        segments.push(root.clone());
        segments.reverse();
        Ok(Some(segments))
    }

    fn slot(&mut self, path: Vec<String>, presence: bool) -> Expr {
        let text = path_text(&path);
        let variable = if presence { format!("has({text})") } else { text };
        if self.slots.iter().all(|slot| slot.variable != variable) {
            self.slots.push(Slot { variable: variable.clone(), path, presence });
        }
        Expr::Ident(variable)
    }
}

/// What a loop goes over: a list, or the keys of a map in their order, where CEL's own order is random.
fn in_order(range: CelValue) -> CelValue {
    let CelValue::Map(map) = &range else { return range };
    let mut keys: Vec<&Key> = map.map.keys().collect();
    keys.sort();
    CelValue::List(Arc::new(keys.into_iter().map(CelValue::from).collect()))
}

/// `operand["field"]`.
fn constant_index(call: &CallExpr) -> Option<(&IdedExpr, &str)> {
    match (call.func_name.as_str(), &call.target, call.args.as_slice()) {
        (operators::INDEX, None, [operand, index]) => match &index.expr {
            Expr::Literal(LiteralValue::String(field)) => Some((operand, field.inner())),
            _ => None,
        },
        _ => None,
    }
}

fn known_function(name: &str) -> Result<(), ExpressionError> {
    // Operators have names that no source can spell.
    let is_operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
    if is_operator || FUNCTIONS.contains(&name) {
        Ok(())
    } else {
        Err(ExpressionError::UnknownFunction(name.to_owned()))
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

fn to_cel(value: &Value, weight: &mut usize) -> Result<CelValue, ExpressionError> {
    *weight += value.as_str().map_or(1, cost::of_text);
    if *weight > MAX_WEIGHT {
        return Err(ExpressionError::TooMuch);
    }
    Ok(match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(int), ..) => CelValue::Int(int),
            (None, Some(uint), _) => CelValue::UInt(uint),
            (None, None, double) => CelValue::Float(double.unwrap_or(f64::NAN)),
        },
        Value::Array(items) => {
            let items = items.iter().map(|item| to_cel(item, weight)).collect::<Result<Vec<_>, _>>()?;
            CelValue::List(Arc::new(items))
        }
        Value::Object(fields) => {
            let mut map = std::collections::HashMap::with_capacity(fields.len());
            for (name, field) in fields {
                map.insert(name.clone(), to_cel(field, weight)?);
            }
            CelValue::from(map)
        }
    })
}

fn from_cel(value: &CelValue) -> Result<Value, ExpressionError> {
    Ok(match value {
        CelValue::Null => Value::Null,
        CelValue::Bool(value) => Value::Bool(*value),
        CelValue::Int(int) => Value::from(*int),
        CelValue::UInt(uint) => Value::from(*uint),
        CelValue::Float(double) if double.is_finite() => Value::from(*double),
        CelValue::Float(_) => return Err(ExpressionError::NotJson("an infinite or undefined number")),
        CelValue::String(text) => Value::String(text.as_ref().clone()),
        CelValue::List(items) => Value::Array(items.iter().map(from_cel).collect::<Result<_, _>>()?),
        CelValue::Map(map) => {
            // Sorted, so that the same expression always gives the same bytes.
            let mut fields = BTreeMap::new();
            for (key, field) in map.map.iter() {
                let Key::String(name) = key else {
                    return Err(ExpressionError::NotJson("a map with keys that are no strings"));
                };
                fields.insert(name.as_ref().clone(), from_cel(field)?);
            }
            Value::Object(fields.into_iter().collect())
        }
        CelValue::Bytes(_) => return Err(ExpressionError::NotJson("bytes")),
        _ => return Err(ExpressionError::NotJson("a type or a function")),
    })
}
