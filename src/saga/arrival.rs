//! By which binding an event came into our queue.
//!
//! A message carries the name of the exchange that it was published to. It may have come to the one that a
//! definition names by a binding between the two, or because that one is the other's alternate: then its own
//! exchange says nothing, and the broker does not tell by which binding it came into the queue.

use super::message::Message;
use super::plan::Subscription;

/// What an event counts as.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// A definition names the exchange that it was published to.
    Direct,
    /// It came through this exchange: no other binding lets it through.
    Through(&'a str),
    /// It came through one of these exchanges, and nobody can tell through which.
    Unclear(Vec<&'a str>),
    /// No binding lets it through.
    Unasked,
}

/// By which of the bindings in `heard` an event came.
///
/// One that is meant as it was published is not looked at further, though a copy may also have come by another
/// exchange: the broker hands a queue one copy of a message, and the sender named that exchange.
pub fn arrival<'a>(
    heard: impl IntoIterator<Item = &'a Subscription> + Clone,
    message: &Message,
) -> Arrival<'a> {
    if heard.clone().into_iter().any(|on| on.hears(message)) {
        return Arrival::Direct;
    }
    let mut through: Vec<&str> = Vec::new();
    for on in heard.into_iter().filter(|on| on.lets_through(message)) {
        if !through.contains(&&*on.exchange) {
            through.push(&on.exchange);
        }
    }
    match through[..] {
        [] => Arrival::Unasked,
        [exchange] => Arrival::Through(exchange),
        _ => Arrival::Unclear(through),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(heard: &[(&str, &str)], exchange: &str, key: &str) -> String {
        let heard: Vec<_> =
            heard.iter().map(|(exchange, pattern)| Subscription::topic(*exchange, *pattern)).collect();
        let message = Message { exchange: exchange.to_owned(), key: key.to_owned(), ..Message::default() };
        format!("{:?}", arrival(&heard, &message))
    }

    #[test]
    fn an_event_counts_as_of_the_one_exchange_by_which_it_can_have_come() {
        let heard = [("domain", "order.*"), ("domain", "order.placed"), ("stock", "stock.#")];
        for (exchange, key, expected) in [
            ("domain", "order.placed", "Direct"),
            ("team", "order.placed", "Through(\"domain\")"),
            ("team", "stock.low.eu", "Through(\"stock\")"),
            // It is named, but not for this key.
            ("stock", "order.placed", "Through(\"domain\")"),
            ("domain", "stock.low", "Through(\"stock\")"),
            ("team", "invoice.sent", "Unasked"),
            ("domain", "order", "Unasked"),
        ] {
            assert_eq!(came(&heard, exchange, key), expected, "{key} on {exchange}");
        }
    }

    #[test]
    fn where_bindings_of_several_exchanges_let_it_through_nobody_guesses() {
        let heard = [("domain", "order.*"), ("audit", "#")];
        assert_eq!(came(&heard, "team", "order.placed"), "Unclear([\"domain\", \"audit\"])");
        assert_eq!(came(&heard, "team", "invoice.sent"), "Through(\"audit\")");
        assert_eq!(came(&heard, "audit", "order.placed"), "Direct");
    }
}
