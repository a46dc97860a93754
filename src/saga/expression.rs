//! Expressions: the values of a definition that begin with `=`.
//!
//! They are CEL without I/O, clock or randomness, bounded in length, depth and cost. A plain path
//! (`=input.items`) is looked up directly, without the interpreter.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use super::code::Code;
use super::interpreter::{self, FUNCTIONS, MAX_DEPTH, MAX_SOURCE, Parsed, Program};
use super::problem::closest;
use super::scope::{Found, ROOTS, type_name};

pub use super::scope::Scope;
pub use super::template::Template;
use crate::{json, number};

/// Longest business key, in bytes.
pub const MAX_KEY: usize = 1024;
/// Largest result of a body, an input or an output, in bytes of JSON text.
pub(super) const MAX_RESULT: usize = 4 << 20;
/// Deepest nesting of a result: what is kept must be readable again, and JSON readers stop at 128.
const MAX_RESULT_DEPTH: usize = 96;

/// Most characters of a number that an error tells.
const MAX_TOLD: usize = 60;

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    form: Form,
    references: Vec<Vec<String>>,
}

#[derive(Debug)]
enum Form {
    Literal(Value),
    /// The only reference of the expression.
    Path,
    Cel(Program),
}

impl Expression {
    /// Compiles a CEL expression, given without the `=` before it. One that names nothing in scope
    /// is evaluated here and now.
    ///
    /// # Errors
    ///
    /// It does not parse, goes beyond a bound, or names something that is never in scope.
    pub fn compile(source: &str) -> Result<Self, ExpressionError> {
        Ok(match interpreter::parse(source)? {
            Parsed::Path(path) => Self { form: Form::Path, references: vec![path] },
            Parsed::Program(program) => {
                let references: Vec<_> = program.paths().cloned().collect();
                if references.is_empty() {
                    Self::literal(program.run(&Scope::default())?)
                } else {
                    Self { form: Form::Cel(program), references }
                }
            }
        })
    }

    /// Compiles a text of a definition: an expression where it begins with `=`, else itself. A
    /// text that must begin with `=` is written with two.
    ///
    /// # Errors
    ///
    /// Those of [`Expression::compile`].
    pub fn from_text(text: &str) -> Result<Self, ExpressionError> {
        match text.strip_prefix('=') {
            Some(literal) if literal.starts_with('=') => Ok(Self::literal(Value::from(literal))),
            Some(source) => Self::compile(source),
            None => Ok(Self::literal(Value::from(text))),
        }
    }

    /// An expression that is always the same value.
    pub fn literal(value: Value) -> Self {
        Self { form: Form::Literal(value), references: Vec::new() }
    }

    /// Its value, where it does not depend on anything.
    pub fn constant(&self) -> Option<&Value> {
        match &self.form {
            Form::Literal(value) => Some(value),
            Form::Path | Form::Cel(_) => None,
        }
    }

    /// The paths that it names, each from a root name (`["input", "items"]`).
    pub fn references(&self) -> &[Vec<String>] {
        &self.references
    }

    /// The paths of which it asks whether they are there.
    pub(crate) fn asked(&self) -> Vec<&[String]> {
        match &self.form {
            Form::Cel(program) => program.asked().map(Vec::as_slice).collect(),
            Form::Literal(_) | Form::Path => Vec::new(),
        }
    }

    /// Paths that it compares with a text, and the texts.
    pub(super) fn compared(&self) -> &[(Vec<String>, String)] {
        match &self.form {
            Form::Cel(program) => program.compared(),
            Form::Literal(_) | Form::Path => &[],
        }
    }

    /// The path that it is, where it is a plain one.
    pub fn path(&self) -> Option<&[String]> {
        match &self.form {
            Form::Path => Some(&self.references[0]),
            Form::Literal(_) | Form::Cel(_) => None,
        }
    }

    /// Evaluates it. A path through null is null.
    ///
    /// # Errors
    ///
    /// A field is missing, an operation does not fit its operands, or the values are too large to
    /// compute with.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, ExpressionError> {
        self.value(scope).and_then(bounded).map(Cow::into_owned)
    }

    /// Evaluates a condition.
    ///
    /// # Errors
    ///
    /// Those of [`Expression::evaluate`], or it is neither true nor false.
    pub fn evaluate_bool(&self, scope: &Scope<'_>) -> Result<bool, ExpressionError> {
        match &*self.value(scope)? {
            Value::Bool(value) => Ok(*value),
            other => Err(ExpressionError::NotABoolean(type_name(other))),
        }
    }

    /// Evaluates a business key: a string or a number, as text.
    ///
    /// # Errors
    ///
    /// Those of [`Expression::evaluate`], or it is anything else, empty, or over [`MAX_KEY`] bytes.
    pub fn evaluate_key(&self, scope: &Scope<'_>) -> Result<String, ExpressionError> {
        let key = match &*self.value(scope)? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number::canonical(number).into_owned(),
            other => return Err(ExpressionError::NotAKey(type_name(other))),
        };
        match key.len() {
            // Whoever has no key sends an empty one, or blanks: all of them would be one and the same.
            1..=MAX_KEY if key.trim().is_empty() => Err(ExpressionError::NotAKey("a string of blanks")),
            0 => Err(ExpressionError::NotAKey("an empty string")),
            1..=MAX_KEY => Ok(key),
            _ => Err(ExpressionError::NotAKey("over 1024 bytes long")),
        }
    }

    /// Its value, which is not copied where it stands in the scope or in the definition.
    pub(super) fn value<'a>(&'a self, scope: &Scope<'a>) -> Result<Cow<'a, Value>, ExpressionError> {
        match (&self.form, self.references.as_slice()) {
            (Form::Literal(value), _) => Ok(Cow::Borrowed(value)),
            (Form::Cel(program), _) => program.run(scope).map(Cow::Owned),
            (Form::Path, paths) => match scope.find(&paths[0]) {
                Found::Value(value) => Ok(value),
                Found::BehindNull => Ok(Cow::Owned(Value::Null)),
                other => Err(ExpressionError::not_found(&paths[0], other)),
            },
        }
    }
}

/// As it is written after the `=`; what is always the same, as that value.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.form {
            Form::Literal(value) => write!(f, "{value}"),
            Form::Path => f.write_str(&path_text(&self.references[0])),
            Form::Cel(program) => f.write_str(program.source()),
        }
    }
}

/// Why an expression does not compile or has no value. Contains no data of a message but numbers that cannot be
/// computed with.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ExpressionError {
    /// The source is over the limit.
    #[error("expression of {0} bytes is over the limit of {MAX_SOURCE}")]
    TooLong(usize),
    /// The source nests too deep, or a path is too long.
    #[error("expression nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A loop in a loop.
    #[error("a loop inside of a loop is not allowed")]
    NestedLoop,
    /// A typed struct literal.
    #[error("structs are not supported, write a map")]
    NoStructs,
    /// The source is not CEL.
    #[error("expression does not parse: {message}")]
    Syntax {
        /// What the parser says.
        message: String,
        /// Where, in characters from 1, on the line of the source.
        column: usize,
    },
    /// A path begins with a name that is never in scope.
    #[error("unknown name {0:?}")]
    UnknownName(String),
    /// There is no such function.
    #[error("unknown function {0:?}")]
    UnknownFunction(String),
    /// A name is in scope elsewhere, but not here.
    #[error("{path}: {name:?} is not available here")]
    Unavailable {
        /// The whole path.
        path: String,
        /// Its first name.
        name: String,
    },
    /// A field is not there.
    #[error("{path}: there is no field {field:?}")]
    Missing {
        /// The whole path.
        path: String,
        /// The field.
        field: String,
    },
    /// A field of something that has no fields.
    #[error("{path}: there is no field {field:?} in {parent}")]
    NoFields {
        /// The whole path.
        path: String,
        /// The field.
        field: String,
        /// What stands before it.
        parent: &'static str,
    },
    /// Not a condition.
    #[error("expected true or false, found {0}")]
    NotABoolean(&'static str),
    /// Not a business key.
    #[error("a business key must be a string or a number of 1 to {MAX_KEY} bytes, this one is {0}")]
    NotAKey(&'static str),
    /// The result cannot be written as JSON.
    #[error("the result is {0}, which JSON cannot express")]
    NotJson(&'static str),
    /// The result nests too deep to be kept.
    #[error("the result nests deeper than {MAX_RESULT_DEPTH} levels")]
    ResultTooDeep,
    /// The result is too large to be kept or sent.
    #[error("the result takes more than {MAX_RESULT} bytes of JSON")]
    ResultTooLarge,
    /// The values are too large to compute with.
    #[error("the values are too large to compute with, pass them on by a plain path")]
    TooMuch,
    /// A number that cannot be computed with as it is.
    #[error(
        "{0} has more digits than can be computed with: hand it on by a plain path, or have it sent as a text"
    )]
    Inexact(String),
    /// A result that would have to be rounded.
    #[error("the result of {0} has more digits than can be held, about 16: compute with fewer digits")]
    NotHeld(String),
    /// A name that no field may have.
    #[error("a field must not be named {}", json::RESERVED)]
    ReservedName,
    /// The interpreter gave up.
    #[error("{0}")]
    Failed(String),
}

impl ExpressionError {
    /// What kind of problem it is where a definition is checked.
    pub fn code(&self) -> Code {
        match self {
            Self::Syntax { .. } => Code::Syntax,
            Self::TooLong(_) | Self::TooDeep | Self::TooMuch | Self::ResultTooDeep | Self::ResultTooLarge => {
                Code::BeyondBound
            }
            Self::UnknownName(_) => Code::UnknownName,
            Self::UnknownFunction(_) => Code::UnknownFunction,
            Self::NestedLoop | Self::NoStructs => Code::LeftOutOfCel,
            Self::Unavailable { .. } => Code::NotInScope,
            Self::Missing { .. }
            | Self::NoFields { .. }
            | Self::NotABoolean(_)
            | Self::NotAKey(_)
            | Self::NotJson(_)
            | Self::Inexact(_)
            | Self::NotHeld(_)
            | Self::ReservedName
            | Self::Failed(_) => Code::AlwaysFails,
        }
    }

    /// The same as [`ExpressionError::hint`], by what stands in the expression.
    pub fn hint_in(&self, source: &str) -> Option<String> {
        let advice = match self {
            Self::Syntax { .. } => operator(source).map(str::to_owned),
            Self::UnknownName(name) => minus(source, name),
            _ => None,
        };
        advice.or_else(|| self.hint())
    }

    /// What to do about it, where that can be told.
    pub fn hint(&self) -> Option<String> {
        let roots = || format!("the names are {}", ROOTS.join(", "));
        Some(match self {
            Self::UnknownName(name) => match closest(name, ROOTS) {
                Some(root) => format!("did you mean `{root}`?"),
                None => format!("{}; a text is written in quotes", roots()),
            },
            Self::UnknownFunction(name) => match closest(name, FUNCTIONS) {
                Some(function) => format!("did you mean `{function}`?"),
                None => format!("the functions are {}", FUNCTIONS.join(", ")),
            },
            Self::Syntax { .. } => {
                "a value that begins with `=` is a CEL expression; write `==` for a text that begins with `=`"
                    .to_owned()
            }
            _ => return None,
        })
    }

    /// A number that no double stands for. One of endless digits is told by the first of them.
    pub(super) fn inexact(number: &str) -> Self {
        let is_long = number.len() > MAX_TOLD;
        let told: String = number.chars().take(MAX_TOLD).collect();
        Self::Inexact(if is_long { told + "..." } else { told })
    }

    pub(super) fn unavailable(path: &[String]) -> Self {
        Self::Unavailable { path: path_text(path), name: path.first().cloned().unwrap_or_default() }
    }

    pub(super) fn not_found(path: &[String], found: Found<'_>) -> Self {
        let Found::Missing { at, parent } = found else {
            return Self::unavailable(path);
        };
        let (path, field) = (path_text(path), path.get(at).cloned().unwrap_or_default());
        match parent {
            Some(parent) => Self::NoFields { path, field, parent },
            None => Self::Missing { path, field },
        }
    }
}

/// Which operator of CEL was meant by one of other languages.
fn operator(source: &str) -> Option<&'static str> {
    // Without its first sign, and without texts in quotes.
    let mut quote = None;
    let bare: String = source
        .strip_prefix('=')
        .unwrap_or(source)
        .chars()
        .map(|c| {
            match quote {
                None if c == '"' || c == '\'' => quote = Some(c),
                Some(open) if open == c => quote = None,
                None => return c,
                Some(_) => {}
            }
            ' '
        })
        .collect();
    let has_word = |word: &str| {
        let is_of_name = |c: char| !c.is_alphanumeric() && c != '_' && c != '.';
        bare.split(is_of_name).any(|of| of.eq_ignore_ascii_case(word))
    };
    let doubled = |sign: &str| bare.replace(&sign.repeat(2), " ").contains(sign);
    let assigned = ["==", "!=", "<=", ">="].iter().fold(bare.clone(), |rest, sign| rest.replace(sign, " "));
    match () {
        () if assigned.contains('=') => Some("use `==` to compare"),
        () if has_word("and") || doubled("&") => Some("use `&&` for `and`"),
        () if has_word("or") || doubled("|") => Some("use `||` for `or`"),
        () if has_word("not") => Some("use `!` for `not`"),
        () => None,
    }
}

/// What to do about a name that was meant to go on behind a `-`.
fn minus(source: &str, name: &str) -> Option<String> {
    let is_of_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    source.match_indices(&format!("-{name}")).find_map(|(at, _)| {
        let from = source[..at].rfind(|c| !is_of_name(c)).map_or(0, |dot| dot + 1);
        let before = source[..from].strip_suffix('.')?;
        let root = before.rfind(|c: char| !is_of_name(c) && c != '.').map_or(0, |edge| edge + 1);
        let end = source[at..].find(|c| !is_of_name(c)).map_or(source.len(), |end| at + end);
        Some(format!("`-` is minus: write `{}[\"{}\"]`", &before[root..], &source[from..end]))
    })
}

/// A path as it is written in an expression.
pub(crate) fn path_text(path: &[String]) -> String {
    let mut text = String::new();
    for segment in path {
        let word = segment.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && segment.starts_with(|c: char| !c.is_ascii_digit());
        match (word, text.is_empty()) {
            (true, true) => text.push_str(segment),
            (true, false) => {
                text.push('.');
                text.push_str(segment);
            }
            (false, _) => text.push_str(&format!("[{segment:?}]")),
        }
    }
    text
}

/// Takes the room that a value needs as JSON text, about, from what is left of a result's bound.
pub(super) fn take_room(value: &Value, room: &mut usize) -> Result<(), ExpressionError> {
    let own = match value {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(number) => number.as_str().len(),
        Value::String(text) => text.len() + 2,
        Value::Array(_) | Value::Object(_) => 2,
    };
    *room = room.checked_sub(own).ok_or(ExpressionError::ResultTooLarge)?;
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| take_room(item, room)),
        Value::Object(fields) => fields.iter().try_for_each(|(name, field)| {
            *room = room.checked_sub(name.len() + 4).ok_or(ExpressionError::ResultTooLarge)?;
            take_room(field, room)
        }),
        _ => Ok(()),
    }
}

/// The value, if it can be kept.
pub(super) fn bounded(value: Cow<'_, Value>) -> Result<Cow<'_, Value>, ExpressionError> {
    fn check(value: &Value, depth: usize) -> Result<(), ExpressionError> {
        let depth = depth.checked_sub(1).ok_or(ExpressionError::ResultTooDeep)?;
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| check(item, depth)),
            Value::Object(fields) => {
                fields.iter().try_for_each(|(name, field)| match name == json::RESERVED {
                    true => Err(ExpressionError::ReservedName),
                    false => check(field, depth),
                })
            }
            _ => Ok(()),
        }
    }
    check(&value, MAX_RESULT_DEPTH)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::saga::message::Message;

    fn reply() -> Message {
        let data =
            json!({"status": "SUCCESS", "customer": null, "items": [{"sku": "a", "n": 2}, {"sku": "b"}]});
        let headers = json!({"x-foo": "bar"});
        Message {
            id: Some("m-1".to_owned()),
            data,
            headers: headers.as_object().cloned().unwrap_or_default(),
            key: "order.placed".to_owned(),
            ..Message::default()
        }
    }

    fn evaluated(source: &str) -> Result<Value, ExpressionError> {
        let (reply, input) =
            (reply(), json!({"decimal": 59.97, "whole": 60, "point": 60.0, "big": u64::MAX}));
        let scope = Scope { reply: Some(&reply), input: Some(&input), ..Scope::default() };
        Expression::compile(source)?.evaluate(&scope)
    }

    #[test]
    fn paths_are_looked_up_without_the_interpreter() {
        for (source, value) in [
            ("reply.data.status", json!("SUCCESS")),
            ("reply.headers[\"x-foo\"]", json!("bar")),
            ("reply.id", json!("m-1")),
            ("reply.source", json!(null)),
            ("reply.data.customer.name.first", json!(null)),
            (" reply.key ", json!("order.placed")),
        ] {
            let expression = Expression::compile(source).unwrap();
            assert!(matches!(expression.form, Form::Path), "{source}");
            assert_eq!(evaluated(source), Ok(value), "{source}");
        }
    }

    #[test]
    fn a_loop_over_a_map_goes_in_the_order_of_its_keys() {
        let keys = json!(["big", "decimal", "point", "whole"]);
        assert_eq!(evaluated("input.map(key, key)"), Ok(keys));
        assert_eq!(evaluated("input.exists(key, key == 'big')"), Ok(json!(true)));
    }

    #[test]
    fn a_missing_field_is_an_error_that_names_the_path() {
        let message = |source: &str| evaluated(source).unwrap_err().to_string();
        assert_eq!(message("reply.data.statsu"), "reply.data.statsu: there is no field \"statsu\"");
        assert_eq!(message("reply.data.statsu == 'x'"), "reply.data.statsu: there is no field \"statsu\"");
        assert_eq!(
            message("reply.data.status.code"),
            "reply.data.status.code: there is no field \"code\" in a string"
        );
        assert_eq!(message("event.data"), "event.data: \"event\" is not available here");
        assert_eq!(
            message("steps.ship.output.x + 1"),
            "steps.ship.output.x: \"steps\" is not available here"
        );
    }

    #[test]
    fn cel_sees_only_what_it_names() {
        for (source, value) in [
            ("input.decimal > 0 && input.whole > 0 && input.point > 0 && input.big > 0", json!(true)),
            ("input.whole == input.point", json!(true)),
            ("reply.data.status == \"SUCCESS\" ? 'yes' : 'no'", json!("yes")),
            (
                "has(reply.data.status) && !has(reply.data.statsu) && !has(reply.data.customer.name)",
                json!(true),
            ),
            ("reply.data.customer.name == null", json!(true)),
            ("has(reply.data.gone) ? reply.data.gone : 7", json!(7)),
            ("reply.data.items[0].sku", json!("a")),
            ("reply.data.items.filter(i, has(i.n)).map(i, i.n * 2)", json!([4])),
            ("reply.data.items.all(reply, reply.sku != 'c')", json!(true)),
            ("'x-foo' in reply.headers", json!(true)),
            ("{'b': 1, 'a': [1.5, null]}", json!({"a": [1.5, null], "b": 1})),
        ] {
            assert_eq!(evaluated(source), Ok(value), "{source}");
        }
        let error = evaluated("input.decimal * input.whole").unwrap_err().to_string();
        assert_eq!(
            error,
            "mul does not work on double and int; use double(), int() or string() on one of them"
        );
        let references =
            Expression::compile("has(input.a.b) || input.items.exists(i, i.x == input.y)").unwrap();
        let paths: Vec<_> = references.references().iter().map(|path| path.join(".")).collect();
        assert_eq!(paths, ["input.a.b", "input.items", "input.y"]);
    }

    /// What an expression makes of an input, both as JSON text.
    fn text_of(source: &str, input: &str) -> Result<String, String> {
        let input = json::read(input.as_bytes()).unwrap();
        let scope = Scope { input: Some(&input), ..Scope::default() };
        let value = Expression::compile(source).and_then(|expression| expression.evaluate(&scope));
        value.map(|value| value.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_number_that_is_only_handed_on_keeps_its_digits() {
        for number in
            ["12.50", "7.0", "-0", "1e+2", "123456789012345678901", "0.1234567890123456789", "1e+400"]
        {
            let input = format!(r#"{{"x":{number},"ok":true,"none":null,"list":[{{"x":{number}}}]}}"#);
            for source in [
                "input.x",
                "input.ok ? input.x : 0",
                "input.none == null ? input.x : input.none",
                "input.list[0].x",
                "input.list.map(i, i.x)[0]",
                "[input.x, 1][0]",
                "(input.list + input.list)[1].x",
                "dyn(input.x)",
            ] {
                assert_eq!(text_of(source, &input).as_deref(), Ok(number), "{source}");
            }
            assert_eq!(text_of("'n ' + string(input.x)", &input), Ok(format!("\"n {number}\"")));
            let whole = format!(r#"[{{"x":{number}}},{{"x":{number}}}]"#);
            assert_eq!(text_of("[input.list.filter(i, has(i.x))[0], {'x': input.x}]", &input), Ok(whole));
        }
    }

    #[test]
    fn what_cannot_be_computed_with_is_refused_by_name_and_only_where_it_is_needed() {
        let input = r#"{"id": 123456789012345678901, "fine": 0.1234567890123456789, "n": 9007199254740993, "ok": true}"#;
        for (source, number) in [
            ("input.id + 1.0", "123456789012345678901"),
            ("input.id > 5", "123456789012345678901"),
            ("input.id == input.id", "123456789012345678901"),
            ("input.fine * 2.0", "0.1234567890123456789"),
            ("-input.fine", "0.1234567890123456789"),
            ("[1.5, input.fine].exists(x, x == 1.0)", "0.1234567890123456789"),
            ("input.fine in [1.0]", "0.1234567890123456789"),
            ("int(input.id)", "123456789012345678901"),
            ("double(input.n)", "9007199254740993"),
            ("double('0.1234567890123456789')", "0.1234567890123456789"),
            ("1.00000000000000000001", "1.00000000000000000001"),
        ] {
            let error = text_of(source, input).unwrap_err();
            assert!(
                error.starts_with(&format!("{number} has more digits than can be computed with")),
                "{source}: {error}"
            );
        }
        assert_eq!(
            text_of("input.ok ? input.id : input.id + 1.0", input).as_deref(),
            Ok("123456789012345678901")
        );
    }

    #[test]
    fn decimals_are_computed_to_the_last_digit_or_refused() {
        let input = r#"{"price": 19.99, "n": 3, "tenth": 0.1, "large": 99999999.99, "padded": 2.50}"#;
        for (source, value) in [
            ("input.price * double(input.n)", "59.97"),
            ("input.tenth + 0.2", "0.3"),
            ("input.tenth + 0.2 == 0.3", "true"),
            ("input.padded + 1.0", "3.5"),
            ("input.padded == 2.5 && 2.5 == input.padded && 2 < input.padded", "true"),
            ("[input.padded] == [2.5]", "true"),
            ("input.price / double(input.n)", "6.663333333333333"),
            ("7 / 2", "3"),
            ("'a' + 'b'", "\"ab\""),
        ] {
            assert_eq!(text_of(source, input).as_deref(), Ok(value), "{source}");
        }
        let error = text_of("input.large * input.large", input).unwrap_err();
        assert!(error.starts_with("the result of 99999999.99 * 99999999.99 has more digits"), "{error}");
    }

    #[test]
    fn nulls_and_missing_fields_behave_alike_behind_an_index_and_in_loops() {
        let input = r#"{"lines": [{"discount": null}, {}, {"discount": {"code": "X"}}], "none": null, "at": 0, "text": "t"}"#;
        for (source, value) in [
            ("has(input.lines[0].discount.code)", "false"),
            ("has(input.lines[1].discount.code)", "false"),
            ("has(input.lines[2].discount.code)", "true"),
            ("has(input.lines[0].discount)", "true"),
            ("has(input.lines[1].discount)", "false"),
            ("has(input.lines[9].discount.code)", "false"),
            ("has(input.gone[0].code)", "false"),
            ("has(input.none[0].code)", "false"),
            ("has(input.text[0].code)", "false"),
            ("has(input.lines[input.at].discount.code)", "false"),
            ("has(input.lines[2]['discount'].code)", "true"),
            ("input.lines.filter(l, has(l.discount.code)).size()", "1"),
            ("input.lines.map(l, has(l.discount.code))", "[false,false,true]"),
            ("input.lines[0].discount.code", "null"),
            ("input.lines[0].discount.code == null", "true"),
            ("null == input.lines[0].discount.code", "true"),
            ("input.lines.filter(l, has(l.discount)).map(l, l.discount.code)", "[null,\"X\"]"),
        ] {
            assert_eq!(text_of(source, input).as_deref(), Ok(value), "{source}");
        }
        assert_eq!(
            text_of("input.lines[1].discount.code", input),
            Err("there is no field \"discount\"".to_owned())
        );
        assert_eq!(text_of("input.lines[9].x", input), Err("the index is out of bounds".to_owned()));
    }

    #[test]
    fn a_number_is_one_key_whatever_it_is_written_as() {
        let key = |number: &str| {
            let input = json::read(format!(r#"{{"id": {number}}}"#).as_bytes()).unwrap();
            let scope = Scope { input: Some(&input), ..Scope::default() };
            Expression::compile("input.id").unwrap().evaluate_key(&scope)
        };
        for (number, text) in [
            ("-0", "0"),
            ("0.0", "0"),
            ("7.0", "7"),
            ("1e2", "100"),
            ("123456789012345678901", "123456789012345678901"),
            ("123456789012345678902", "123456789012345678902"),
        ] {
            assert_eq!(key(number).as_deref(), Ok(text));
        }
    }

    #[test]
    fn no_result_has_a_field_that_would_be_taken_for_a_number() {
        let source = format!("{{'a': {{'{}': '5'}}}}", json::RESERVED);
        assert!(matches!(
            Expression::compile(&source).and_then(|e| e.evaluate(&Scope::default())),
            Err(ExpressionError::ReservedName)
        ));
    }

    #[test]
    fn an_expression_shows_as_it_is_written() {
        for source in ["input.a", "reply.headers[\"x-region\"]", "input.a  > 1 ? 'x' : \"y\"", "true"] {
            assert_eq!(Expression::compile(source).unwrap().to_string(), source);
        }
        assert_eq!(Expression::from_text("=1 + 1").unwrap().to_string(), "2");
    }

    #[test]
    fn what_cannot_hold_is_refused_when_compiled() {
        let message = |source: &str| Expression::compile(source).unwrap_err().to_string();
        for (source, part) in [
            ("inputt.a == 1", "unknown name \"inputt\""),
            ("foo", "unknown name \"foo\""),
            ("input.a.startWith('x')", "unknown function \"startWith\""),
            ("input.a.matches('x')", "unknown function \"matches\""),
            ("input.a ==", "does not parse"),
            ("", "does not parse"),
            ("input.?a", "does not parse"),
            ("input.a{b: 1}", "structs are not supported"),
            ("1 / 0", "division by zero"),
            ("0.0 / 0.0", "JSON cannot express"),
            ("b'x'", "JSON cannot express"),
            ("{1: 2}", "JSON cannot express"),
            ("input.a.map(x, input.b.map(y, x + y))", "loop inside of a loop"),
        ] {
            assert!(message(source).contains(part), "{source}: {}", message(source));
        }
        assert_eq!(
            Expression::compile("inputt.a").unwrap_err().hint().as_deref(),
            Some("did you mean `input`?")
        );
    }

    #[test]
    fn what_does_not_work_is_told_by_its_sign_and_its_types() {
        for (source, message) in [
            ("1 < 'a'", "`<` does not work on int and string"),
            ("!1", "`!` does not work on int"),
            ("-'a'", "`-` does not work on string"),
            ("1 in 2", "`in` does not work on int and int"),
            ("'a' && true", "`&&` does not work on string and bool"),
            ("size(1)", "size() does not work on int"),
            ("'a'.startsWith(2)", "startsWith() does not work on string with int"),
            ("1.map(x, x)", "expected a list or a map, found int"),
            ("int('x')", "int() cannot make anything of the value that it is given"),
        ] {
            assert_eq!(Expression::compile(source).unwrap_err().to_string(), message, "{source}");
        }
    }

    #[test]
    fn hostile_sources_are_refused_at_once() {
        use ExpressionError::{Syntax, TooDeep};

        let sources = [
            "(".repeat(4096),
            "[".repeat(4096),
            "-".repeat(4000) + "input.a",
            "!".repeat(4000) + "input.a",
            "1".to_owned() + &"+1".repeat(2000),
            "input".to_owned() + &".a".repeat(2000),
            "input".to_owned() + &"[0]".repeat(1300),
            "input.a".to_owned() + &".map(x,x)".repeat(400),
            "has(".repeat(1000),
            "true?1:".repeat(500) + "1",
        ];
        for source in sources {
            match Expression::compile(&source) {
                // Double signs cancel each other out.
                Ok(short) => assert_eq!(short.references().len(), 1, "{}...", &source[..20]),
                Err(error) => {
                    assert!(matches!(error, TooDeep | Syntax { .. }), "{}...: {error}", &source[..20])
                }
            }
        }
        assert_eq!(Expression::compile(&" ".repeat(4097)).unwrap_err(), ExpressionError::TooLong(4097));
    }

    #[test]
    fn large_values_are_passed_on_but_not_computed_with() {
        let input = json!({"items": vec![1; 100_000], "text": "x".repeat(1 << 20)});
        let scope = Scope { input: Some(&input), ..Scope::default() };
        let evaluated = |source: &str| Expression::compile(source).unwrap().evaluate(&scope);
        assert!(evaluated("input.items").is_ok());
        assert_eq!(evaluated("input.text.size()"), Ok(json!(1 << 20)));
        assert_eq!(evaluated("input.items.size()"), Err(ExpressionError::TooMuch));

        let input = json!({"items": vec![1; 10_000]});
        let scope = Scope { input: Some(&input), ..Scope::default() };
        let evaluated = |source: &str| Expression::compile(source).unwrap().evaluate(&scope);
        assert_eq!(evaluated("input.items.all(i, i == 1)"), Ok(json!(true)));
        assert_eq!(evaluated("input.items.all(i, i in input.items)"), Err(ExpressionError::TooMuch));
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_run() {
        let wide = |times: usize| format!(".map(x, [{}])", vec!["x"; times].join(", "));
        let input = json!({"items": [1, 2, 3], "text": "x".repeat(1 << 20)});
        let scope = Scope { input: Some(&input), ..Scope::default() };
        for source in [
            format!("[1]{}", wide(4).repeat(13)),
            format!("['a']{}.size()", ".map(x, x + x + x + x)".repeat(13)),
            format!("input.items{}", wide(100).repeat(8)),
            format!("input.items{} == [1]", wide(30).repeat(8)),
            vec!["(input.text + input.text + input.text + input.text)"; 20].join(" + "),
        ] {
            let outcome = Expression::compile(&source).and_then(|expression| expression.evaluate(&scope));
            assert_eq!(outcome, Err(ExpressionError::TooMuch), "{source}");
        }
        // What people write is far from it.
        let input = json!({"items": vec![json!({"sku": "a-sku", "n": 2, "price": 1.5}); 5_000]});
        let scope = Scope { input: Some(&input), ..Scope::default() };
        let line = "{'sku': i.sku, 'sum': double(i.n) * i.price}";
        let source = format!("input.items.filter(i, i.n > 1 && i.sku != '').map(i, {line}).map(i, i.sum)");
        let sums = Expression::compile(&source).and_then(|expression| expression.evaluate(&scope));
        assert!(sums == Ok(json!(vec![3.0; 5_000])));
    }

    #[test]
    fn keys_and_conditions_have_their_types() {
        let input = json!({"id": "A-1", "number": 7, "empty": "", "long": "x".repeat(1025), "list": [], "blank": " \t\u{a0}"});
        let scope = Scope { input: Some(&input), ..Scope::default() };
        let key = |source: &str| Expression::compile(source).unwrap().evaluate_key(&scope);
        assert_eq!(key("input.id"), Ok("A-1".to_owned()));
        assert_eq!(key("input.number"), Ok("7".to_owned()));
        for source in ["input.empty", "input.blank", "input.long", "input.list", "input.id.nothing", "null"] {
            assert!(key(source).is_err(), "{source}");
        }
        let condition = Expression::compile("input.number").unwrap();
        assert_eq!(condition.evaluate_bool(&scope), Err(ExpressionError::NotABoolean("a number")));
    }

    proptest! {
        #[test]
        fn no_source_makes_it_panic(source in "[a-z0-9.()\\[\\]{}'\"\\\\+*/<>=!&|?:, é-]{0,40}") {
            let input = json!({"a": [1, "x", null, {"b": 1.5}]});
            let scope = Scope { input: Some(&input), ..Scope::default() };
            for source in [source.clone(), format!("input.a{source}"), format!("input.a.map(x, {source})")] {
                if let Ok(expression) = Expression::compile(&source) {
                    let _ = expression.evaluate(&scope);
                }
            }
        }
    }
}
