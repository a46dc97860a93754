//! Short texts that pictures and sentences share.

use crate::saga::duration;
use crate::saga::exchange::Matching;
use crate::saga::plan::{Call, Plan, Subscription};

/// Longest line of a label, in characters.
pub(super) const LONGEST: usize = 80;

/// Text of a definition in one line. What a terminal or XML would not bear is replaced.
pub(super) fn printable(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let bearable = |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    line.chars().map(|c| if bearable(c) { c } else { '\u{fffd}' }).collect()
}

/// The text with at most `longest` characters.
pub(super) fn shortened(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    text.chars().take(longest.saturating_sub(1)).chain(['…']).collect()
}

/// Name and version of a saga.
pub(super) fn title(plan: &Plan) -> String {
    format!("{} v{}", plan.saga, plan.version)
}

/// An exchange and a routing key, or a queue.
pub(super) fn place(exchange: &str, key: &str) -> String {
    printable(&if exchange.is_empty() { format!("queue {key}") } else { format!("{exchange} / {key}") })
}

/// An exchange, and which of its messages are meant.
pub(super) fn heard(on: &Subscription) -> String {
    match &on.matching {
        Matching::Pattern | Matching::Key => place(&on.exchange, &on.pattern),
        Matching::Headers { any, headers } if !headers.is_empty() => {
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| format!("{name}: {}", value.to_json())).collect();
            printable(&format!("{} / {}", on.exchange, headers.join(if *any { " or " } else { ", " })))
        }
        Matching::Anything | Matching::Headers { .. } => printable(&format!("{} / all", on.exchange)),
    }
}

/// How long an answer is awaited and how often it is asked for.
pub(super) fn patience(call: &Call) -> String {
    let timeout = duration::format(call.timeout);
    match call.retry.attempts {
        None => format!("{timeout}, unlimited attempts"),
        Some(1) => format!("{timeout}, 1 attempt"),
        Some(attempts) => format!("{timeout}, {attempts} attempts"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_printable_in_one_line() {
        assert_eq!(printable("a\n  b\u{1b}[31m\u{ffff}"), "a b\u{fffd}[31m\u{fffd}");
        assert_eq!(shortened("déjà vu", 7), "déjà vu");
        assert_eq!(shortened("déjà vu!", 7), "déjà v…");
    }
}
