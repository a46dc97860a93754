//! Functions of our own, which no source can name: they stand for operators, or around their operands, so that
//! no number is rounded in silence.

use std::collections::HashMap;

use cel::common::types::{
    CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt, DYN_TYPE, Kind,
};
use cel::common::value::{CowVal, Val};
use cel::{Env, ExecutionError};

use super::value::{Written, double, null};
use crate::number::{self, Operation};
use crate::saga::expression::ExpressionError;

/// What a loop goes over, in order.
pub(in crate::saga) const IN_ORDER: &str = "~in_order";
/// A value to be computed with: its numbers as doubles.
pub(in crate::saga) const COMPUTABLE: &str = "~computable";
/// The argument of `string()`: a number with the digits that it is written with.
pub(in crate::saga) const TEXT: &str = "~text";
/// The argument of `double()`, if a double stands for it.
pub(in crate::saga) const HELD: &str = "~held";
/// A field or an item; null if it is not there.
pub(in crate::saga) const GET: &str = "~get";
/// Whether there is a field.
pub(in crate::saga) const HAS: &str = "~has";
/// The operators of decimals.
pub(in crate::saga) const ADD: &str = "~add";
pub(in crate::saga) const SUBTRACT: &str = "~subtract";
pub(in crate::saga) const MULTIPLY: &str = "~multiply";
pub(in crate::saga) const DIVIDE: &str = "~divide";

/// Names the function of an error that tells of a number.
const INEXACT: &str = "~inexact";
/// Names the function of an error that tells of an operation.
const ENDLESS: &str = "~endless";

type Outcome<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;
type Arguments<'b, 'v> = Vec<CowVal<'b, 'v>>;

/// Adds them to those of CEL.
pub(super) fn add_to(env: &mut Env) {
    let mut add = |name: &str, arity: usize, function: cel::common::functions::Function| {
        env.add_overload(name, name, (0..arity).map(|_| DYN_TYPE).collect(), function)
            .expect("CEL has no function of that name");
    };
    add(IN_ORDER, 1, in_order);
    add(COMPUTABLE, 1, |args| unary(args, |value| computable(value)));
    add(TEXT, 1, |args| unary(args, |value| Ok(text(value))));
    add(HELD, 1, |args| unary(args, held));
    add(GET, 2, get);
    add(HAS, 2, has);
    add(ADD, 2, |args| compute(args, Operation::Add));
    add(SUBTRACT, 2, |args| compute(args, Operation::Subtract));
    add(MULTIPLY, 2, |args| compute(args, Operation::Multiply));
    add(DIVIDE, 2, |args| compute(args, Operation::Divide));
}

/// What an error of these functions says.
pub(super) fn told(function: &str, message: &str) -> Option<ExpressionError> {
    match function {
        INEXACT => Some(ExpressionError::inexact(message)),
        ENDLESS => Some(ExpressionError::NotHeld(message.to_owned())),
        _ => None,
    }
}

fn error(function: &str, message: &str) -> ExecutionError {
    ExecutionError::FunctionError { function: function.to_owned(), message: message.to_owned() }
}

/// Puts another value in the place of an argument, where there is one.
fn unary<'b, 'v>(
    args: Arguments<'b, 'v>,
    other: impl Fn(&(dyn Val + 'v)) -> Result<Option<Box<dyn Val + 'v>>, ExecutionError>,
) -> Outcome<'b, 'v> {
    let Some(value) = args.into_iter().next() else { return Ok(null()) };
    Ok(match other(value.as_ref())? {
        Some(other) => CowVal::Owned(other),
        None => value,
    })
}

fn as_double(written: &Written) -> Result<CelDouble, ExecutionError> {
    double(&written.0).map_err(|_| error(INEXACT, written.0.as_str()))
}

/// The value with doubles for its numbers, where that is another one.
fn computable<'v>(value: &(dyn Val + 'v)) -> Result<Option<Box<dyn Val + 'v>>, ExecutionError> {
    if let Some(written) = value.downcast_ref::<Written>() {
        return Ok(Some(Box::new(as_double(written)?)));
    }
    #[expect(clippy::borrowed_box, reason = "lists and maps hold boxes, and only a box can be cloned")]
    let part = |part: &Box<dyn Val + 'v>| Ok(computable(part.as_ref())?.unwrap_or_else(|| part.clone()));
    Ok(match value.get_type().kind() {
        Kind::NullType => Some(Box::new(CelNull)),
        Kind::List => match value.downcast_ref::<CelList<'v>>() {
            Some(list) => {
                let items = list.inner().iter().map(part).collect::<Result<Vec<_>, ExecutionError>>()?;
                Some(Box::new(CelList::from(items)))
            }
            None => None,
        },
        Kind::Map => match value.downcast_ref::<CelMap<'v>>() {
            Some(map) => {
                let mut fields = HashMap::with_capacity(map.inner().len());
                for (key, field) in map.inner() {
                    fields.insert(key.clone(), part(field)?);
                }
                Some(Box::new(CelMap::from(fields)))
            }
            None => None,
        },
        _ => None,
    })
}

fn text<'v>(value: &(dyn Val + 'v)) -> Option<Box<dyn Val + 'v>> {
    let Written(number) = value.downcast_ref()?;
    Some(Box::new(CelString::from(number.as_str().to_owned())))
}

fn held<'v>(value: &(dyn Val + 'v)) -> Result<Option<Box<dyn Val + 'v>>, ExecutionError> {
    let whole = value.downcast_ref::<CelInt>().map(|int| int.inner().to_string());
    let whole = whole.or_else(|| value.downcast_ref::<CelUInt>().map(|uint| uint.inner().to_string()));
    let text = whole.or_else(|| {
        // What is no number at all is left to the function.
        let text = value.downcast_ref::<CelString<'v>>()?.inner();
        number::of_text(text).map(|number| number.as_str().to_owned())
    });
    match text {
        Some(text) if number::exact_double(&text).is_none() => Err(error(INEXACT, &text)),
        _ => match value.downcast_ref::<Written>() {
            Some(written) => Ok(Some(Box::new(as_double(written)?))),
            None => Ok(None),
        },
    }
}

/// What a loop goes over: a list, or the keys of a map in their order, where CEL's own order is random.
fn in_order<'b, 'v>(args: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    unary(args, |range| {
        let Some(map) = range.downcast_ref::<CelMap<'v>>() else { return Ok(None) };
        let mut keys: Vec<&CelMapKey<'v>> = map.inner().keys().collect();
        keys.sort();
        let keys = keys.into_iter().map(|key| key.inner().clone_as_boxed());
        Ok(Some(Box::new(CelList::from(keys.collect::<Vec<_>>()))))
    })
}

fn get<'b, 'v>(args: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let [from, key] = args.as_slice() else { return Ok(null()) };
    let found = from.as_indexer().and_then(|indexer| indexer.get(key.as_ref()).ok());
    Ok(found.map_or_else(null, |found| CowVal::Owned(found.into_owned())))
}

fn has<'b, 'v>(args: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let [from, key] = args.as_slice() else { return Ok(null()) };
    let map = from.downcast_ref::<CelMap<'v>>();
    let is_there =
        map.is_some_and(|map| map.as_indexer().is_some_and(|indexer| indexer.get(key.as_ref()).is_ok()));
    Ok(CowVal::owned(cel::common::types::CelBool::from(is_there)))
}

/// An operator, which is that of CEL where it is not about decimals.
fn compute<'b, 'v>(args: Arguments<'b, 'v>, operation: Operation) -> Outcome<'b, 'v> {
    let mut args = args.into_iter();
    let (Some(left), Some(right)) = (args.next(), args.next()) else { return Ok(null()) };
    let number = |value: CowVal<'b, 'v>| -> Outcome<'b, 'v> {
        Ok(match value.downcast_ref::<Written>() {
            Some(written) => CowVal::owned(as_double(written)?),
            None => value,
        })
    };
    let (left, right) = (number(left)?, number(right)?);
    if let (Some(a), Some(b)) = (left.downcast_ref::<CelDouble>(), right.downcast_ref::<CelDouble>()) {
        let result = number::compute(operation, *a.inner(), *b.inner());
        let told = || {
            let sign = match operation {
                Operation::Add => '+',
                Operation::Subtract => '-',
                Operation::Multiply => '*',
                Operation::Divide => '/',
            };
            error(ENDLESS, &format!("{:?} {sign} {:?}", a.inner(), b.inner()))
        };
        return result.map(|result| CowVal::owned(CelDouble::from(result))).ok_or_else(told);
    }
    let (left, right): (&(dyn Val + 'v), &(dyn Val + 'v)) = (left.as_ref(), right.as_ref());
    let result = match operation {
        Operation::Add => left.as_adder().map(|left| left.add(right)),
        Operation::Subtract => left.as_subtractor().map(|left| left.sub(right)),
        Operation::Multiply => left.as_multiplier().map(|left| left.mul(right)),
        Operation::Divide => left.as_divider().map(|left| left.div(right)),
    };
    let name = match operation {
        Operation::Add => "add",
        Operation::Subtract => "sub",
        Operation::Multiply => "mul",
        Operation::Divide => "div",
    };
    let unsupported = || {
        let value = |value: &(dyn Val + 'v)| value.try_into().unwrap_or(cel::Value::Null);
        ExecutionError::UnsupportedBinaryOperator(name, value(left), value(right))
    };
    Ok(CowVal::Owned(result.ok_or_else(unsupported)??.into_owned()))
}
