//! What reads definitions and expressions, as functions of arbitrary bytes. See [`crate::fuzzing`].

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::compile;
use super::expression::{Expression, ExpressionError, MAX_KEY, Scope};
use super::message::Message;
use super::template::to_bytes;

/// Longest input that has to be decided in time.
const MAX_INPUT: usize = 64 << 10;
/// How long that may take, on a slow machine and without optimization.
const IN_TIME: Duration = Duration::from_secs(10);
/// Bytes that a problem may have as text, with its line and its hint.
const MAX_PROBLEM: usize = 16 << 10;

/// A file in a folder of definitions, in any state.
///
/// # Panics
/// Reading, checking or compiling is broken, or takes too long.
pub fn definition(data: &[u8]) {
    let source = String::from_utf8_lossy(&data[..data.len().min(MAX_INPUT)]);
    let began = Instant::now();
    match compile::load("fuzz.yaml", &source) {
        Ok(plan) => {
            let again = compile::reload("fuzz.yaml", &source).expect("what is accepted can be read again");
            assert_eq!(again.hash, plan.hash);
            assert!(!plan.steps.is_empty() && plan.version > 0);
        }
        Err(problems) => {
            assert!((1..=100).contains(&problems.len()), "{} problems", problems.len());
            assert!(problems.is_sorted_by_key(|problem| (problem.line, problem.column)));
            for problem in &problems {
                let text = problem.to_string();
                assert!(text.len() <= MAX_PROBLEM, "a problem of {} bytes", text.len());
                assert!(!text.replace('\n', "").contains(char::is_control), "{text:?}");
                let breaks = source.matches(['\n', '\r']).count();
                assert!(problem.line as usize <= breaks + 1, "{text}");
            }
        }
    }
    assert_in_time(began, "definition");
}

/// The text of an expression, compiled and evaluated over a few values.
///
/// # Panics
/// The compiler or the interpreter is broken, or takes too long.
pub fn expression(data: &[u8]) {
    let source = String::from_utf8_lossy(&data[..data.len().min(MAX_INPUT)]);
    let began = Instant::now();
    for compiled in [Expression::compile(&source), Expression::from_text(&source)] {
        match compiled {
            Ok(expression) => evaluated(&expression),
            Err(error) => assert_told(&error),
        }
    }
    assert_in_time(began, "expression");
}

fn evaluated(expression: &Expression) {
    let input = json!({
        "a": [1, -2.5, "x", null, true, {"b": [[], {}]}],
        "items": vec![json!({"sku": "A", "n": 2, "price": 1.5}); 20],
        "text": "a text with é and \u{1f600}",
        "numbers": [0, -1, i64::MIN, u64::MAX, 1e308],
        "nothing": null,
    });
    let reply = Message { data: input.clone(), ..Message::default() };
    let scope = Scope { input: Some(&input), reply: Some(&reply), event: Some(&reply), ..Scope::default() };
    let outcome = expression.evaluate(&scope);
    match &outcome {
        Ok(value) => {
            let again: Value = serde_json::from_slice(&to_bytes(value)).expect("a result can be read again");
            assert_eq!(&again, value, "a result is read again as it was");
        }
        Err(error) => assert_told(error),
    }
    assert_eq!(expression.evaluate(&scope), outcome, "the same expression gives the same value");
    if let Ok(key) = expression.evaluate_key(&scope) {
        assert!((1..=MAX_KEY).contains(&key.len()), "a business key of {} bytes", key.len());
    }
    let _ = expression.evaluate_bool(&scope);
    // Outside of an instance nothing is available but constants.
    if expression.evaluate(&Scope::default()).is_ok() {
        assert!(outcome.is_ok() && expression.constant().is_some() || !expression.references().is_empty());
    }
}

fn assert_told(error: &ExpressionError) {
    let length = error.to_string().len() + error.hint().map_or(0, |hint| hint.len());
    assert!(length <= MAX_INPUT, "an error of {length} bytes");
}

fn assert_in_time(began: Instant, what: &str) {
    let took = began.elapsed();
    assert!(took < IN_TIME, "the {what} took {took:?}");
}
