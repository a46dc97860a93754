//! Payloads as schemas: what templates make, and what expressions read. Of the rest nothing is known.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::depict::words::printable;
use crate::saga::expression::Expression;
use crate::saga::template::Template;

/// What a template makes: its fields and constants, and of an expression what it says.
pub(super) fn made(template: &Template) -> Value {
    match template {
        Template::Literal(value) => json!({"const": value}),
        Template::Expression(expression) => {
            let mut schema = expression.path().map_or_else(|| json!({}), known);
            schema["description"] = format!("`{}`", written(expression)).into();
            schema
        }
        Template::Map(fields) => {
            let names = fields.iter().map(|(name, _)| name.as_str()).collect();
            let properties: Map<_, _> =
                fields.iter().map(|(name, field)| (name.clone(), made(field))).collect();
            object(properties, names)
        }
        Template::List(items) => {
            let (count, items) = (items.len(), items.iter().map(made).collect::<Vec<_>>());
            json!({"type": "array", "items": items, "minItems": count, "maxItems": count})
        }
    }
}

/// An object with these properties.
pub(super) fn object(properties: Map<String, Value>, required: Vec<&str>) -> Value {
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

/// What is known of a path without any message.
fn known(path: &[String]) -> Value {
    match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["saga", "id"] => json!({"type": "string", "format": "uuid"}),
        ["saga", "name" | "business_key" | "status"] | ["steps", _, "status"] => json!({"type": "string"}),
        ["saga", "version"] => json!({"type": "integer"}),
        ["saga", "started_at"] => json!({"type": "string", "format": "date-time"}),
        ["saga", "not_undone"] => json!({"type": "array", "items": {"type": "string"}}),
        ["saga", "error"] | ["steps", _, "error"] => {
            let text = json!({"type": "string"});
            let properties = json!({"step": {"type": ["string", "null"]}, "code": text, "message": text});
            json!({"type": ["object", "null"], "properties": properties})
        }
        ["saga" | "steps", .., "error", "step" | "code" | "message"] => json!({"type": ["string", "null"]}),
        _ => json!({}),
    }
}

fn written(expression: &Expression) -> String {
    printable(&format!("={expression}"))
}

/// The fields of a message that expressions read.
#[derive(Default)]
pub(super) struct Read {
    fields: BTreeMap<String, Read>,
    by: BTreeSet<String>,
    kind: Kind,
}

/// What is demanded of a field.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum Kind {
    /// Nothing: it may be missing somewhere, or only sometimes be read.
    #[default]
    Optional,
    /// It is there.
    Required,
    /// It is there, and names an instance.
    Key,
}

impl Read {
    /// Notes what an expression reads of `root`. What a path names must be there; what an expression with
    /// operators names may be asked for by `has`.
    pub(super) fn expression(&mut self, expression: &Expression, root: &str, kind: Kind) {
        let kind = if expression.path().is_some() { kind } else { Kind::Optional };
        for path in expression.references() {
            if let Some((first, path)) = path.split_first()
                && first == root
            {
                self.path(path, expression, kind);
            }
        }
    }

    /// Notes that an expression reads what is at a path.
    pub(super) fn path(&mut self, path: &[String], by: &Expression, kind: Kind) {
        let mut read = self;
        for word in path {
            read = read.fields.entry(word.clone()).or_default();
            if read.kind == Kind::Optional {
                read.kind = kind;
            }
        }
        read.by.insert(format!("`{}`", written(by)));
    }

    /// The schema of one of its fields.
    pub(super) fn schema_of(&self, field: &str) -> Value {
        self.fields.get(field).map_or_else(|| json!({}), Read::schema)
    }

    /// The headers, as far as they are read.
    pub(super) fn headers(&self) -> Map<String, Value> {
        let headers = self.fields.get("headers").into_iter().flat_map(|headers| &headers.fields);
        headers.map(|(name, header)| (name.clone(), header.schema())).collect()
    }

    fn schema(&self) -> Value {
        if self.fields.is_empty() {
            let by = self.by.iter().cloned().collect::<Vec<_>>().join(", ");
            let mut schema = json!({"description": format!("Read by {by}.")});
            if self.kind == Kind::Key {
                schema["type"] = json!(["string", "number"]);
            }
            return schema;
        }
        let field = |(name, field): (&String, &Read)| {
            let mut schema = field.schema();
            // A path that leads through null is null.
            if schema["type"] == "object" {
                schema["type"] = json!(["object", "null"]);
            }
            (name.clone(), schema)
        };
        let required = self.fields.iter().filter(|(_, field)| field.kind != Kind::Optional);
        object(self.fields.iter().map(field).collect(), required.map(|(name, _)| name.as_str()).collect())
    }
}

/// Where in the event a path of `input` comes from, where the input is taken over from there.
pub(super) fn origin(input: &Template, path: &[String]) -> Option<Vec<String>> {
    match (input, path) {
        (Template::Expression(expression), _) => {
            let (root, from) = expression.path()?.split_first()?;
            (root == "event").then(|| [from, path].concat())
        }
        (Template::Map(fields), [name, rest @ ..]) => {
            let (_, field) = fields.iter().find(|(field, _)| field == name)?;
            origin(field, rest)
        }
        _ => None,
    }
}
