//! Texts that stand for themselves, and look as if they were meant to be expressions.

use super::{Code, Compiler, Finding, Located};
use crate::saga::expression::Expression;
use crate::saga::scope::{MESSAGE_FIELDS, ROOTS, SAGA_FIELDS};

impl Compiler<'_> {
    /// The code of a rule, which is a text.
    pub(super) fn error_code(&mut self, error: Option<&Located<String>>) -> Option<String> {
        let error = error?;
        if error.starts_with('=') {
            let message = "an error code stands for itself, and this looks like an expression".to_owned();
            let hint = "write a rule for each code; without `error`, a reply says it by `x-saga-error-code`";
            let code = Code::LooksLikeExpression;
            self.doubts.push(Finding { code, at: error.at, message, hint: Some(hint.to_owned()) });
        }
        Some(error.value.clone())
    }
}

/// What is written before an expression within a text in other languages, or here at the beginning of a value.
const MARKS: [&str; 4] = ["${", "#{", "{{", "="];

/// What to write instead, where a text looks like an expression.
pub(super) fn hint(text: &str) -> Option<String> {
    if text.starts_with('=') {
        return None;
    }
    if is_expression(text) {
        return Some(format!("write `={text}`; as a text it may be written `=\"{text}\"`"));
    }
    let is_marked =
        MARKS.iter().any(|mark| text.match_indices(mark).any(|(at, _)| begins(&text[at + mark.len()..])));
    is_marked.then(|| {
        "an expression is a whole value that begins with `=`, and joins texts by `+`: `=\"Dear \" + input.name`".to_owned()
    })
}

/// Whether it would be an expression over something that may be in scope.
fn is_expression(text: &str) -> bool {
    let names_field = |path: &Vec<String>| match path.as_slice() {
        [root, field, ..] if root == "event" || root == "reply" => MESSAGE_FIELDS.contains(&field.as_str()),
        [root, field, ..] if root == "saga" => SAGA_FIELDS.contains(&field.as_str()),
        path => path.len() > 1,
    };
    let compiled = Expression::compile(text);
    compiled.is_ok_and(|of| !of.references().is_empty() && of.references().iter().all(names_field))
}

/// Whether a path begins here.
fn begins(text: &str) -> bool {
    let text = text.trim_start();
    ROOTS.iter().any(|root| text.strip_prefix(root).is_some_and(|rest| rest.starts_with(['.', '['])))
}

#[cfg(test)]
mod tests {
    use super::super::warnings;
    use super::*;

    #[test]
    fn texts_that_look_like_expressions_are_told_from_others() {
        for text in [
            "event.data.email",
            "steps.pay.output.id",
            "input.lines[0].sku",
            "input.amount * 2",
            "saga.business_key",
            "${event.data.x}",
            "Dear =input.email",
            "Dear {{ input.email }},",
            "#{steps.pay.output}",
        ] {
            assert!(hint(text).is_some(), "{text}");
        }
        for text in [
            "event",
            "=input.email",
            "==input.email",
            "event.created",
            "saga.parked",
            "reply.to.me",
            "mail.input.email",
            "input and output",
            "input-output",
            "9",
            "a = b",
            "${name}",
            "see event.data.email",
            "",
        ] {
            assert_eq!(hint(text), None, "{text}");
        }
    }

    #[test]
    fn an_error_code_that_looks_like_an_expression_is_told_with_its_place() {
        let source = include_str!("../../../sagas/order.yaml");
        assert_eq!(warnings("order.yaml", source), []);
        let told =
            warnings("order.yaml", &source.replacen("error: PAYMENT_DECLINED", "error: =reply.data.code", 1));
        assert_eq!(told.iter().map(|one| one.code).collect::<Vec<_>>(), [Code::LooksLikeExpression]);
        assert!(told[0].to_string().starts_with("warning[S0311]: an error code"), "{}", told[0]);
        assert!(told[0].snippet.contains("error: =reply.data.code"), "{}", told[0]);
    }
}
