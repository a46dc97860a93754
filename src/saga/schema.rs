//! The JSON Schema of the definition language, for editors. It follows from the types of
//! [`definition`](super::definition); here is what cannot be derived.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::definition::{Compensate, Compensation, Definition, Policy, Retry};
use super::yaml::{Attempts, Entries, Located, Node, Period};

/// The JSON Schema of a definition file; `sagas/saga.schema.json` is a copy of it.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Definition).to_value()
}

/// Stands in the schema for a text that must be an expression.
pub(super) struct ExpressionText;

impl JsonSchema for ExpressionText {
    fn schema_name() -> Cow<'static, str> {
        "Expression".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"description": "A CEL expression, with = before it.", "type": "string", "pattern": "^=[^=]"})
    }
}

/// Stands in the schema for a condition.
pub(super) struct ConditionText;

impl JsonSchema for ConditionText {
    fn schema_name() -> Cow<'static, str> {
        "Condition".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [generator.subschema_for::<ExpressionText>(), {"type": "boolean"}]})
    }
}

/// Stands in the schema for a time, or an expression that gives one.
pub(super) struct MomentText;

impl JsonSchema for MomentText {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            generator.subschema_for::<ExpressionText>(),
            {"description": "An RFC 3339 time.", "type": "string", "format": "date-time",
             "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]"}
        ]})
    }
}

impl JsonSchema for Retry {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Retry".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "string"}, generator.subschema_for::<Policy>()]})
    }
}

impl JsonSchema for Compensate {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Compensate".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"const": "none"}, generator.subschema_for::<Compensation>()]})
    }
}

impl<T: JsonSchema> JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: JsonSchema> JsonSchema for Entries<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("EntriesOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "additionalProperties": generator.subschema_for::<T>()})
    }
}

impl JsonSchema for Node {
    fn schema_name() -> Cow<'static, str> {
        "Value".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Any value. A text that begins with = is a CEL expression, wherever it stands; \
                            one that must begin with = is written with two."
        })
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A whole number and a unit: 500ms, 30s, 15m, 2h, 7d.",
            "type": "string",
            "pattern": "^[0-9]+(ms|s|m|h|d)$"
        })
    }
}

impl JsonSchema for Attempts {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Attempts".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 10000}, {"const": "unlimited"}]})
    }
}
