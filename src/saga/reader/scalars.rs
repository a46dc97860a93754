//! Scalars that do not say what they seem to say: numbers that YAML reads in another way than people do, and
//! conditions that are left empty.

use serde_json::Value;

use crate::saga::code::Code;
use crate::saga::problem::Finding;
use crate::saga::yaml::{Located, Misread, Node};

/// Fields whose values are free: a name in them is no field of the language.
const FREE: [&str; 5] = ["body", "input", "output", "with", "attributes"];

/// What is wrong with a number that would lose what is written.
pub(super) fn misread(Misread { written, number, at }: &Misread) -> Finding {
    let digits = written.trim_start_matches(['-', '+']);
    let has_leading_zero = digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit());
    let (message, hint) = match has_leading_zero {
        true => (
            format!("`{written}` is a number with a leading zero, which would be lost"),
            format!("quote it, \"{written}\", or leave the zero out"),
        ),
        false => (
            format!("`{written}` is a number that JSON writes in another way"),
            format!("write it as JSON does, such as `{number}`, or quote it"),
        ),
    };
    Finding { code: Code::WrongForm, at: *at, message, hint: Some(hint) }
}

/// A `when` without a condition.
pub(super) fn empty_condition(node: &Located<Node>, is_free: bool) -> Option<Finding> {
    match &node.value {
        Node::Scalar(_) => None,
        Node::List(items) => items.iter().find_map(|item| empty_condition(item, is_free)),
        Node::Map(entries) => entries.0.iter().find_map(|(name, value)| {
            if !is_free && name.value == "when" && matches!(value.value, Node::Scalar(Value::Null)) {
                return Some(Finding {
                    code: Code::WrongForm,
                    at: name.at,
                    message: "`when` must be a condition, found nothing".to_owned(),
                    hint: Some(
                        "write an expression, such as `=input.total > 0`, or leave `when` out".to_owned(),
                    ),
                });
            }
            empty_condition(value, is_free || FREE.contains(&name.as_str()))
        }),
    }
}
