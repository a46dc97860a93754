//! Messages: where they go, what they carry, and what is listened to.

use serde_json::Value;

use super::*;
use crate::saga::definition::{Exchange, Match, Node as Written, Subscription as On, Users};
use crate::saga::exchange::{ExchangeKind, Matching, TableValue, is_pattern};

/// What the names of all headers of ours begin with, and the two that others have given their names.
const OWN_PREFIX: &str = "x-saga-";
const OWN_TRACE: [&str; 2] = ["traceparent", "tracestate"];

/// Arguments that an exchange has at most.
const MAX_ARGUMENTS: usize = 32;

impl Lint<'_> {
    /// A message.
    pub(super) fn command(&mut self, command: &Located<Command>) {
        match (&command.queue, &command.exchange, &command.key) {
            (Some(queue), None, None) => self.short_string("queue", queue),
            (None, Some(exchange), Some(key)) => {
                self.short_string("exchange", exchange);
                self.short_string("key", key);
                self.no_pattern(key);
            }
            (Some(_), Some(other), _) | (Some(_), None, Some(other)) => {
                let hint = "say `queue` alone: it is sent there by the default exchange";
                self.refuse(Code::OneOfTwo, other.at, "there is a `queue` already", Some(hint));
            }
            (None, Some(exchange), None) => {
                self.refuse(Code::MissingField, exchange.at, "missing field \"key\"", Some("add `key:`"));
            }
            (None, None, key) => {
                let at = key.as_ref().map_or(command.at, |key| key.at);
                let hint = "add `exchange:`, or send it to a `queue` alone";
                self.refuse(Code::MissingField, at, "missing field \"exchange\"", Some(hint));
            }
        }
        for (name, _) in &command.headers.0 {
            self.header(name);
        }
        if let Some(expires) = &command.expires {
            self.not_zero(expires);
        }
        for (what, text) in [("content type", &command.content_type), ("type", &command.kind)] {
            if let Some(text) = text {
                self.property(what, text);
            }
        }
    }

    /// Whose messages count.
    pub(super) fn users(&mut self, users: Option<&Located<Users>>) {
        let Some(users) = users else { return };
        if users.0.is_empty() {
            let hint = "name a user, or leave `from_user` out: then everybody's messages count";
            self.refuse(Code::InvalidAddress, users.at, "nobody is named", Some(hint));
        }
        for name in &users.0 {
            self.short_string("user", &Located { at: users.at, value: name.clone() });
        }
    }

    fn header(&mut self, name: &Located<String>) {
        let lower = name.to_ascii_lowercase();
        if lower.starts_with(OWN_PREFIX) || OWN_TRACE.contains(&&*lower) {
            let message = format!("header {:?} is sagamq's own", name.value);
            let hint = "participants rely on it: choose another name";
            self.refuse(Code::OwnHeader, name.at, message, Some(hint));
        } else if name.is_empty() || name.len() > MAX_SHORT_STRING {
            let message = format!("the name of a header must have 1 to {MAX_SHORT_STRING} bytes");
            self.refuse(Code::InvalidProperty, name.at, message, None);
        }
    }

    fn property(&mut self, what: &str, text: &Located<String>) {
        let (message, hint) = if text.is_empty() || text.len() > MAX_SHORT_STRING {
            (format!("the {what} must have 1 to {MAX_SHORT_STRING} bytes"), None)
        } else if text.starts_with('=') {
            let hint = "put what varies into a header or the body";
            (format!("the {what} cannot be an expression"), Some(hint))
        } else {
            return;
        };
        self.refuse(Code::InvalidProperty, text.at, message, hint);
    }

    pub(super) fn subscription(&mut self, on: &Located<On>) {
        self.short_string("exchange", &on.exchange);
        let described = self.definition.exchanges.find(&on.exchange);
        let kind = described.map(|described| described.kind()).unwrap_or_default();
        match (&on.key, kind) {
            (Some(key), _) => {
                self.short_string("key", key);
                if kind == ExchangeKind::Topic {
                    self.whole_words(key);
                }
                if kind == ExchangeKind::Direct && is_pattern(key) {
                    let message = format!("exchange {:?} is direct, and takes no pattern", on.exchange.value);
                    let hint = "write the whole key; where there are several, a rule or an event for each";
                    self.refuse(Code::NotOfItsType, key.at, message, Some(hint));
                }
            }
            (None, ExchangeKind::Topic | ExchangeKind::Direct) => {
                let hint = "add `key:`; it is left out only where `exchanges` says `type: fanout` or `type: headers`";
                self.refuse(Code::MissingField, on.exchange.at, "missing field \"key\"", Some(hint));
            }
            (None, ExchangeKind::Fanout | ExchangeKind::Headers) => {}
        }
        let first = on.headers.0.first().map(|(name, _)| name.at);
        let said = first.or(on.matching.as_ref().map(|matching| matching.at));
        if let (true, Some(at)) = (kind != ExchangeKind::Headers, said) {
            let message = format!(
                "exchange {:?} is a {} exchange, and disregards headers",
                on.exchange.value,
                kind.as_str()
            );
            let hint = "say `type: headers` under `exchanges`, or test for the header in a `when`";
            return self.refuse(Code::NotOfItsType, at, message, Some(hint));
        }
        if let Some(any) = on.matching.as_ref().filter(|how| how.value == Match::Any)
            && on.headers.is_empty()
        {
            let message = "without `headers`, no message has any of them";
            self.refuse(Code::NotOfItsType, any.at, message, Some("add `headers`, or leave `match` out"));
        }
        for (name, value) in &on.headers.0 {
            self.wanted_header(name, value);
        }
    }

    /// A header by which an exchange hands messages on.
    fn wanted_header(&mut self, name: &Located<String>, value: &Located<Written>) {
        if name.to_ascii_lowercase().starts_with("x-") {
            let message = format!("header {:?} begins with `x-`: the broker disregards it here", name.value);
            let hint = "test for it in a `when`, or have the sender set another";
            return self.refuse(Code::NotOfItsType, name.at, message, Some(hint));
        }
        if name.is_empty() || name.len() > MAX_SHORT_STRING {
            let message = format!("the name of a header must have 1 to {MAX_SHORT_STRING} bytes");
            return self.refuse(Code::InvalidProperty, name.at, message, None);
        }
        if !fits_a_table(value) {
            let message = "the broker compares headers with a text, a whole number, `true` or `false`";
            self.refuse(Code::NotOfItsType, value.at, message, Some("write one of these, and no expression"));
        }
    }

    /// What is said of how exchanges are made.
    pub(super) fn exchanges(&mut self) {
        for (name, exchange) in &self.definition.exchanges.0 {
            self.short_string("exchange", name);
            self.make(exchange);
        }
    }

    fn make(&mut self, Exchange { declare, durable, arguments, kind: _ }: &Exchange) {
        let durable_at = durable.as_ref().map(|durable| durable.at);
        let said = durable_at.or(arguments.0.first().map(|(name, _)| name.at));
        if let (true, Some(at)) = (declare.as_ref().is_some_and(|declare| !declare.value), said) {
            let message = "with `declare: false`, it is never made";
            let hint = "leave `durable` and `arguments` out: they are its owner's to say";
            self.refuse(Code::UnfitMake, at, message, Some(hint));
        }
        if let Some((name, _)) = arguments.0.get(MAX_ARGUMENTS) {
            let message = format!("an exchange has at most {MAX_ARGUMENTS} arguments");
            self.refuse(Code::UnfitMake, name.at, message, None);
        }
        for (name, value) in &arguments.0 {
            if name.is_empty() || name.len() > MAX_SHORT_STRING {
                let message = format!("the name of an argument must have 1 to {MAX_SHORT_STRING} bytes");
                self.refuse(Code::UnfitMake, name.at, message, None);
            }
            if !fits_a_table(value) {
                let message = "an argument is a text, a whole number, `true` or `false`";
                self.refuse(
                    Code::UnfitMake,
                    value.at,
                    message,
                    Some("write one of these, and no expression"),
                );
            } else if let Written::Scalar(Value::String(text)) = &value.value
                && text.len() > MAX_SHORT_STRING
            {
                let message = format!("the text of an argument has at most {MAX_SHORT_STRING} bytes");
                self.refuse(Code::UnfitMake, value.at, message, None);
            }
        }
    }

    /// Whether something that the saga publishes itself is what a subscription means.
    pub(super) fn hears(&self, on: &On, own: &Command) -> bool {
        let (exchange, key) = own.address();
        let on = on.compiled(&self.definition.exchanges);
        match &on.matching {
            Matching::Headers { any, headers } => {
                let mut names = headers.keys();
                let has = |name: &String| own.headers.find(name).is_some();
                on.exchange == exchange && if *any { names.any(has) } else { names.all(has) }
            }
            _ => on.matches(exchange, key),
        }
    }
}

/// Whether a value stands in a table of AMQP as it is written.
fn fits_a_table(value: &Located<Written>) -> bool {
    match &value.value {
        Written::Scalar(Value::String(text)) if text.starts_with('=') => false,
        Written::Scalar(value) => TableValue::of(value).is_some(),
        Written::List(_) | Written::Map(_) => false,
    }
}
