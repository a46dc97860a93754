//! Templates: the bodies, inputs and outputs of a definition.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::expression::{Expression, ExpressionError, MAX_RESULT, bounded, take_room};
use super::scope::Scope;
use crate::json;

/// A JSON value with expressions in it.
#[derive(Debug)]
pub enum Template {
    /// Always the same.
    Literal(Value),
    /// Computed.
    Expression(Expression),
    /// An object.
    Map(Vec<(String, Template)>),
    /// A list.
    List(Vec<Template>),
}

impl Template {
    /// An object; a literal if all its fields are.
    pub fn map(fields: Vec<(String, Template)>) -> Self {
        if fields.iter().all(|(_, field)| matches!(field, Template::Literal(_))) {
            let fields = fields.into_iter().filter_map(|(name, field)| match field {
                Template::Literal(value) => Some((name, value)),
                _ => None,
            });
            return Template::Literal(Value::Object(fields.collect()));
        }
        Template::Map(fields)
    }

    /// A list; a literal if all its items are.
    pub fn list(items: Vec<Template>) -> Self {
        if items.iter().all(|item| matches!(item, Template::Literal(_))) {
            let items = items.into_iter().filter_map(|item| match item {
                Template::Literal(value) => Some(value),
                _ => None,
            });
            return Template::Literal(items.collect());
        }
        Template::List(items)
    }

    /// Evaluates every expression in it.
    ///
    /// # Errors
    ///
    /// Those of [`Expression::evaluate`]; the first one ends it.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, ExpressionError> {
        self.value(scope, &mut { MAX_RESULT }).and_then(bounded).map(Cow::into_owned)
    }

    /// Evaluates it to JSON text, without spaces and with the fields of objects in order.
    ///
    /// # Errors
    ///
    /// Those of [`Template::evaluate`].
    pub fn render(&self, scope: &Scope<'_>) -> Result<Vec<u8>, ExpressionError> {
        Ok(to_bytes(&*self.value(scope, &mut { MAX_RESULT }).and_then(bounded)?))
    }

    /// The names of the fields of an object; `None` where that is not known before it is evaluated.
    pub fn fields(&self) -> Option<Vec<&str>> {
        match self {
            Template::Literal(Value::Object(fields)) => Some(fields.keys().map(String::as_str).collect()),
            Template::Map(fields) => Some(fields.iter().map(|(name, _)| name.as_str()).collect()),
            Template::Literal(_) | Template::Expression(_) | Template::List(_) => None,
        }
    }

    /// The paths that it names.
    pub fn references(&self) -> Vec<&[String]> {
        self.expressions().into_iter().flat_map(Expression::references).map(Vec::as_slice).collect()
    }

    /// The expressions in it.
    pub fn expressions(&self) -> Vec<&Expression> {
        match self {
            Template::Literal(_) => Vec::new(),
            Template::Expression(expression) => vec![expression],
            Template::Map(fields) => fields.iter().flat_map(|(_, field)| field.expressions()).collect(),
            Template::List(items) => items.iter().flat_map(Template::expressions).collect(),
        }
    }

    /// The value, of which each part is copied only if there is room for it.
    fn value<'a>(&'a self, scope: &Scope<'a>, room: &mut usize) -> Result<Cow<'a, Value>, ExpressionError> {
        Ok(match self {
            Template::Literal(value) => Cow::Borrowed(value),
            Template::Expression(expression) => {
                let value = expression.value(scope)?;
                take_room(&value, room)?;
                value
            }
            Template::Map(fields) => {
                let mut object = Map::new();
                for (name, field) in fields {
                    object.insert(name.clone(), field.value(scope, room)?.into_owned());
                }
                Cow::Owned(Value::Object(object))
            }
            Template::List(items) => {
                let items = items.iter().map(|item| item.value(scope, room).map(Cow::into_owned));
                Cow::Owned(items.collect::<Result<_, _>>()?)
            }
        })
    }
}

/// JSON text, without spaces and with the fields of objects in order.
pub(super) fn to_bytes(value: &Value) -> Vec<u8> {
    json::text(value)
}

impl From<Expression> for Template {
    fn from(expression: Expression) -> Self {
        match expression.constant() {
            Some(value) => Template::Literal(value.clone()),
            None => Template::Expression(expression),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_result_is_bounded_also_where_it_is_made_of_parts_that_are_not_too_large() {
        let part = || Template::from(Expression::from_text("=input").unwrap());
        let input = json!("x".repeat(MAX_RESULT / 3));
        let scope = Scope { input: Some(&input), ..Scope::default() };
        assert!(Template::list(vec![part(), part()]).evaluate(&scope).is_ok());
        let three = Template::map(vec![("a".to_owned(), Template::list(vec![part(), part(), part()]))]);
        assert_eq!(three.evaluate(&scope), Err(ExpressionError::ResultTooLarge));
        assert_eq!(three.render(&scope), Err(ExpressionError::ResultTooLarge));
    }

    #[test]
    fn constant_parts_of_templates_are_folded() {
        let literal = || Template::Literal(json!(1));
        let text = |text: &str| Template::from(Expression::from_text(text).unwrap());
        let folded = Template::map(vec![("a".to_owned(), Template::list(vec![literal(), text("=1 + 1")]))]);
        assert!(matches!(folded, Template::Literal(value) if value == json!({"a": [1, 2]})));
        assert!(matches!(text("==x"), Template::Literal(value) if value == json!("=x")));
        let computed = Template::map(vec![("a".to_owned(), literal()), ("b".to_owned(), text("=input"))]);
        let input = json!(5);
        let scope = Scope { input: Some(&input), ..Scope::default() };
        assert_eq!(computed.evaluate(&scope), Ok(json!({"a": 1, "b": 5})));
    }
}
