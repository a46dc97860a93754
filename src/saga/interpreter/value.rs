//! JSON values as the interpreter sees them, and back.
//!
//! What is only handed on keeps its digits: a number that is no `int` and no `uint` is [`Written`], which is a
//! double only where something is computed with it. A null has every field, and each is null.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};

use cel::common::traits::Indexer;
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelType, CelUInt,
    DOUBLE_TYPE, Kind, NULL_TYPE, Type,
};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{ExecutionError, Value as CelValue};
use serde_json::{Number, Value};

use super::MAX_WEIGHT;
use crate::number;
use crate::saga::cost;
use crate::saga::expression::ExpressionError;

/// A number with the digits that it is written with.
#[derive(Clone, Debug)]
pub(super) struct Written(pub(super) Number);

/// A null that stands in a value. A path through it is null.
#[derive(Clone, Copy, Debug)]
struct Nothing;

impl Val for Written {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        &DOUBLE_TYPE
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Self>().is_some_and(|other| number::is_same(&self.0, &other.0))
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Written {}

impl Val for Nothing {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        &NULL_TYPE
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn into_indexer<'v>(self: Box<Self>) -> Option<Box<dyn Indexer + 'v>>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.get_type().kind() == Kind::NullType
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Nothing {}

impl Indexer for Nothing {
    fn get<'b, 'v>(&'b self, _field: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        Ok(CowVal::Borrowed(self))
    }

    fn steal<'v>(self: Box<Self>, _field: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        Ok(self)
    }
}

/// A null.
pub(super) fn null<'b, 'v>() -> CowVal<'b, 'v> {
    CowVal::Borrowed(&Nothing)
}

/// The double that a number stands for.
pub(super) fn double(number: &Number) -> Result<CelDouble, ExpressionError> {
    let inexact = || ExpressionError::inexact(number.as_str());
    number::exact_double(number.as_str()).map(CelDouble::from).ok_or_else(inexact)
}

/// A value of a variable: to be handed on, or to be computed with.
pub(super) fn to_cel(
    value: &Value,
    to_compute: bool,
    weight: &mut usize,
) -> Result<Box<dyn Val>, ExpressionError> {
    *weight += match value {
        Value::String(text) => cost::of_text(text),
        Value::Number(number) => cost::of_text(number.as_str()),
        _ => 1,
    };
    if *weight > MAX_WEIGHT {
        return Err(ExpressionError::TooMuch);
    }
    Ok(match value {
        Value::Null if to_compute => Box::new(CelNull),
        Value::Null => Box::new(Nothing),
        Value::Bool(value) => Box::new(CelBool::from(*value)),
        Value::String(text) => Box::new(CelString::from(text.clone())),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) if int != 0 || number.as_str() == "0" => Box::new(CelInt::from(int)),
            (None, Some(uint)) => Box::new(CelUInt::from(uint)),
            _ if to_compute => Box::new(double(number)?),
            _ => Box::new(Written(number.clone())),
        },
        Value::Array(items) => {
            let items = items.iter().map(|item| to_cel(item, to_compute, weight));
            Box::new(CelList::from(items.collect::<Result<Vec<_>, _>>()?))
        }
        Value::Object(fields) => {
            let mut map = HashMap::with_capacity(fields.len());
            for (name, field) in fields {
                map.insert(CelMapKey::from(name.clone()), to_cel(field, to_compute, weight)?);
            }
            Box::new(CelMap::from(map))
        }
    })
}

/// What an expression gives.
pub(super) fn from_cel(value: &dyn Val) -> Result<Value, ExpressionError> {
    if let Some(Written(number)) = value.downcast_ref() {
        return Ok(Value::Number(number.clone()));
    }
    if let Some(list) = value.downcast_ref::<CelList<'_>>() {
        return Ok(Value::Array(
            list.inner().iter().map(|item| from_cel(item.as_ref())).collect::<Result<_, _>>()?,
        ));
    }
    if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
        // Sorted, so that the same expression always gives the same bytes.
        let mut fields = BTreeMap::new();
        for (key, field) in map.inner() {
            let CelMapKey::String(name) = key else {
                return Err(ExpressionError::NotJson("a map with keys that are no strings"));
            };
            fields.insert(name.inner().to_owned(), from_cel(field.as_ref())?);
        }
        return Ok(Value::Object(fields.into_iter().collect()));
    }
    match value.get_type().kind() {
        Kind::NullType => return Ok(Value::Null),
        Kind::Type => {
            return Ok(value.downcast_ref::<CelType>().map_or(Value::Null, |of| Value::from(of.name())));
        }
        _ => {}
    }
    Ok(match CelValue::try_from(value) {
        Ok(CelValue::Bool(value)) => Value::Bool(value),
        Ok(CelValue::Int(int)) => Value::from(int),
        Ok(CelValue::UInt(uint)) => Value::from(uint),
        Ok(CelValue::Float(double)) => match number::of_double(double) {
            Some(number) => Value::Number(number),
            None => return Err(ExpressionError::NotJson("an infinite or undefined number")),
        },
        Ok(CelValue::String(text)) => Value::String(text.as_ref().clone()),
        Ok(CelValue::Bytes(_)) => return Err(ExpressionError::NotJson("bytes")),
        _ => return Err(ExpressionError::NotJson("a type or a function")),
    })
}
