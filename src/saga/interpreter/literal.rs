//! The decimals that an expression itself holds: the parser makes doubles of them, which must be what is written.

use super::super::expression::ExpressionError;
use crate::number;

/// Refuses a decimal of which a double would be another number.
pub(super) fn check(source: &str) -> Result<(), ExpressionError> {
    for text in decimals(source) {
        let as_in_json = if text.starts_with('.') { format!("0{text}") } else { text.to_owned() };
        if number::of_text(&as_in_json).is_some() && number::exact_double(&as_in_json).is_none() {
            return Err(ExpressionError::inexact(text));
        }
    }
    Ok(())
}

/// The literals with a point or an exponent.
fn decimals(source: &str) -> Vec<&str> {
    let bytes = source.as_bytes();
    let is_of_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' | b'\'' => at = after_text(bytes, at),
            b'0'..=b'9' | b'.' => {
                let start = at;
                while bytes.get(at).is_some_and(|&byte| {
                    let is_sign =
                        matches!(byte, b'+' | b'-') && matches!(bytes[at - 1], b'e' | b'E') && at > start;
                    is_of_word(byte) || byte == b'.' || is_sign
                }) {
                    at += 1;
                }
                let text = &source[start..at];
                if text.contains(['.', 'e', 'E']) && text.contains(|c: char| c.is_ascii_digit()) {
                    found.push(text);
                }
            }
            byte if is_of_word(byte) => {
                while bytes.get(at).is_some_and(|&byte| is_of_word(byte)) {
                    at += 1;
                }
            }
            _ => at += 1,
        }
    }
    found
}

/// The index behind a text in quotes.
fn after_text(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_what_is_written_or_refused() {
        for source in [
            "input.x * 1.19",
            "input.a1.b2 > .5 && 1e3 > 2.50",
            "'0.12345678901234567890'",
            "input.items[0].a",
            "'\\'1.00000000000000000001'",
        ] {
            assert_eq!(check(source), Ok(()), "{source}");
        }
        for source in [
            "input.x * 1.00000000000000000001",
            "'a' + string(.12345678901234567890)",
            "1e400",
            "1e-400 > 1.0",
        ] {
            assert!(matches!(check(source), Err(ExpressionError::Inexact(_))), "{source}");
        }
    }
}
