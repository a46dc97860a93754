//! Channels: an exchange with a routing key or a pattern, each with an id that is fit for a reference.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::REPLIES;
use super::operation::{Operation, Reply};
use crate::depict::words::place;
use crate::saga::exchange::ExchangeKind;

/// Version of the AMQP bindings.
pub(super) const BINDING: &str = "0.3.0";

/// Channels, and what is known of their exchanges.
pub(super) struct Channels<'a> {
    /// Their ids, by exchange and by routing key or pattern.
    ids: BTreeMap<(String, String), String>,
    kinds: BTreeMap<String, ExchangeKind>,
    /// Exchanges that do not outlive a restart of the broker.
    transient: BTreeSet<&'a str>,
}

impl<'a> Channels<'a> {
    pub(super) fn of(operations: &[Operation], transient: BTreeSet<&'a str>) -> Self {
        let places: BTreeSet<_> = operations.iter().map(place_of).collect();
        let mut taken = BTreeSet::new();
        let mut id = |(exchange, key): &(String, String)| {
            let id = fit(&format!("{}.{key}", if exchange.is_empty() { "queue" } else { exchange }));
            let others = (2..).map(|number| format!("{id}_{number}"));
            let free = [id.clone()].into_iter().chain(others).find(|id| taken.insert(id.clone()));
            free.expect("there is always another number")
        };
        let ids = places.into_iter().map(|place| (place.clone(), id(&place))).collect();
        let kinds = operations.iter().map(|operation| (operation.exchange.clone(), operation.kind));
        // What one says that it is no topic exchange counts for all.
        let said = kinds.clone().filter(|(_, kind)| *kind != ExchangeKind::Topic);
        Self { ids, kinds: kinds.chain(said).collect(), transient }
    }

    pub(super) fn id(&self, operation: &Operation) -> &str {
        &self.ids[&place_of(operation)]
    }

    /// All channels, each with the messages that go over it.
    pub(super) fn described(&self, operations: &[Operation]) -> Map<String, Value> {
        let channel = |((exchange, key), id): (&(String, String), &String)| {
            let channel = if exchange.is_empty() { queue(key) } else { self.channel(exchange, key) };
            (id.clone(), channel)
        };
        let mut channels: Map<_, _> = self.ids.iter().map(channel).collect();
        let reference = |id: &str| json!({"$ref": format!("#/components/messages/{id}")});
        for operation in operations {
            channels[self.id(operation)]["messages"][&operation.id] = reference(&operation.id);
            for Reply { id, .. } in &operation.replies {
                let replies = channels.entry(REPLIES).or_insert_with(replies);
                replies["messages"][id] = reference(id);
            }
        }
        channels
    }

    fn channel(&self, exchange: &str, key: &str) -> Value {
        let (address, parameters) = address(key);
        let (kind, durable) = (self.kinds[exchange].as_str(), !self.transient.contains(exchange));
        let mut channel = json!({
            // An exchange that does not go by keys has one channel.
            "title": if key.is_empty() { exchange.to_owned() } else { place(exchange, key) },
            "address": if key.is_empty() { Value::Null } else { address.into() },
            "messages": {},
            "bindings": {"amqp": {
                "is": "routingKey",
                "exchange": {"name": exchange, "type": kind, "durable": durable, "autoDelete": false},
                "bindingVersion": BINDING,
            }},
        });
        if !parameters.is_empty() {
            channel["parameters"] = parameters.into();
        }
        channel
    }
}

fn place_of(operation: &Operation) -> (String, String) {
    (operation.exchange.clone(), operation.key.clone())
}

/// A queue that messages are sent to straight.
fn queue(name: &str) -> Value {
    json!({
        "title": place("", name),
        "address": name,
        "messages": {},
        "bindings": {"amqp": {"is": "queue", "queue": {"name": name}, "bindingVersion": BINDING}},
    })
}

/// Each command says where its answer goes, so the channel itself has no address.
fn replies() -> Value {
    json!({
        "title": "The orchestrator's reply queue",
        "description": "The queue in `reply_to`, by the default exchange: its name is the routing key.",
        "address": null,
        "messages": {},
        "bindings": {"amqp": {
            "is": "routingKey",
            "exchange": {"name": "", "type": "default"},
            "bindingVersion": BINDING,
        }},
    })
}

/// A routing key or a pattern as an address. Words that stand for others, or that an address cannot have,
/// are parameters.
fn address(key: &str) -> (String, Map<String, Value>) {
    let mut parameters = Map::new();
    let word = |(index, word): (usize, &str)| {
        let (name, parameter) = match word {
            "*" => (format!("word_{}", index + 1), json!({"description": "One word."})),
            "#" => {
                let what = "Any number of words with `.` between them, none included.";
                (format!("words_{}", index + 1), json!({"description": what}))
            }
            _ if word.contains(['{', '}', '?', '#']) => {
                (format!("word_{}", index + 1), json!({"enum": [word]}))
            }
            _ => return word.to_owned(),
        };
        let written = format!("{{{name}}}");
        parameters.insert(name, parameter);
        written
    };
    let address = key.split('.').enumerate().map(word).collect::<Vec<_>>().join(".");
    (address, parameters)
}

/// The text with nothing in it that an id cannot have.
fn fit(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    text.chars().map(|c| if fits(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_addresses_with_parameters() {
        let parameters = |key: &str| {
            let (address, parameters) = address(key);
            (address, parameters.keys().cloned().collect::<Vec<_>>())
        };
        assert_eq!(parameters("order.placed"), ("order.placed".to_owned(), vec![]));
        assert_eq!(parameters("status.*"), ("status.{word_2}".to_owned(), vec!["word_2".to_owned()]));
        assert_eq!(
            parameters("#.eu.*"),
            ("{words_1}.eu.{word_3}".to_owned(), vec!["word_3".to_owned(), "words_1".to_owned()])
        );
        assert_eq!(address("a.b?c").1["word_2"], json!({"enum": ["b?c"]}));
    }

    #[test]
    fn keys_that_look_alike_have_ids_of_their_own() {
        let operation = |exchange: &str, key: &str| Operation {
            id: String::new(),
            participant: String::new(),
            action: super::super::operation::Action::Send,
            exchange: exchange.to_owned(),
            kind: ExchangeKind::Topic,
            key: key.to_owned(),
            summary: String::new(),
            message: Value::Null,
            replies: Vec::new(),
        };
        let operations = [operation("a", "b/c"), operation("a", "b c"), operation("a.b", "c")];
        let channels = Channels::of(&operations, BTreeSet::new());
        let ids: Vec<_> = channels.ids.values().cloned().collect();
        assert_eq!(ids, ["a.b_c", "a.b_c_2", "a.b.c"]);
    }
}
