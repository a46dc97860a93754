//! Participants: services in this process that take commands and keep a ledger, with the duties of a
//! participant, and the misbehaviour that an order's data asks for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

use crate::evidence::{Lines, now};
use crate::peer::{self, Brokers, Peer};

/// Pause before the broker is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// What a service does with an action that is new to it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Behaviour {
    /// Does it and says so.
    #[default]
    Success,
    /// Refuses for good.
    Failure,
    /// Asks for another attempt, this many times, and then does it.
    Retry(u32),
    /// Does it and never says so, on no attempt.
    Silent,
    /// Does it at once and says so this many milliseconds later.
    Late(u64),
    /// Does it and says so twice.
    Duplicate,
    /// Does it, answers what nobody can read, and then says so.
    Garbage,
    /// Refuses for good, after somebody else has said that it is done.
    Forged,
}

/// One service, and its place at the broker.
pub(crate) struct Service {
    /// Its name; its exchange is `<prefix>.<name>`, its queue `<prefix>.<name>.commands`.
    pub(crate) name: &'static str,
    /// First part of all names.
    pub(crate) prefix: String,
    /// The broker, past the proxy.
    pub(crate) brokers: Brokers,
    /// False while it takes no commands.
    pub(crate) working: watch::Receiver<bool>,
    /// Where garbage is told of, once the broker has it.
    pub(crate) placed: Arc<Lines>,
}

/// What was settled, in a file that survives a power cut, and in memory.
struct Ledger {
    lines: Lines,
    settled: HashMap<String, Settled>,
    undone: HashSet<String>,
}

/// A command that is settled for good.
#[derive(Clone, Copy)]
struct Settled {
    answer: Answer,
    effect: i64,
}

/// What is answered; to every repeat the same.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Success,
    Failure,
    Undone,
    Retry,
    Silence,
}

/// A command as it arrived.
struct Command {
    id: String,
    compensates: Option<String>,
    attempt: u32,
    key: String,
    order_id: String,
    behaviour: Behaviour,
    message_id: String,
    reply_to: String,
    correlation_id: String,
}

impl Service {
    /// Takes commands for ever.
    pub(crate) async fn serve(self, folder: &Path) {
        let lines = Lines::open(&folder.join(format!("{}.ledger", self.name)));
        let mut ledger = Ledger { lines, settled: HashMap::new(), undone: HashSet::new() };
        loop {
            // Whatever it ends with is the broker's doing, and tried again.
            let _ = self.session(&mut ledger).await;
            sleep(PAUSE).await;
        }
    }

    async fn session(&self, ledger: &mut Ledger) -> lapin::Result<()> {
        let Self { name, prefix, .. } = self;
        let (queue, exchange) = (format!("{prefix}.{name}.commands"), format!("{prefix}.{name}"));
        let peer = Arc::new(self.brokers.connect().await?);
        peer.make_queue(&queue, &[(exchange, "#")]).await?;
        let mut deliveries = peer.consume(&queue).await?;
        let mut working = self.working.clone();
        while let Some(delivery) = deliveries.next().await {
            let delivery = delivery?;
            // The sender lives as long as the test.
            let _ = working.wait_for(|working| *working).await;
            let Some(command) = Command::read(&delivery) else {
                delivery.reject(BasicRejectOptions { requeue: false }).await?;
                continue;
            };
            let (answer, manner) = ledger.settle(&command);
            let (peer, placed) = (Arc::clone(&peer), Arc::clone(&self.placed));
            let reply = async move {
                command.reply(&peer, &placed, answer, manner).await?;
                delivery.ack(BasicAckOptions::default()).await.map(drop)
            };
            // Side by side, as a service that is worth its name would. Should it fail, the channel is
            // closed, and the command comes again.
            tokio::spawn(reply);
        }
        Ok(())
    }
}

impl Ledger {
    /// The answer to a command, and the manner in which it is given.
    fn settle(&mut self, command: &Command) -> (Answer, Behaviour) {
        if let Some(settled) = self.settled.get(&command.id) {
            return (settled.answer, Behaviour::Success);
        }
        let behaviour = command.behaviour;
        let (effect, answer) = if let Some(action) = &command.compensates {
            let standing = self.settled.get(action).filter(|_| !self.undone.contains(action));
            let effect = standing.map_or(0, |action| -action.effect);
            (effect, if matches!(behaviour, Behaviour::Silent) { Answer::Silence } else { Answer::Success })
        } else if self.undone.contains(&command.id) {
            (0, Answer::Undone)
        } else {
            match behaviour {
                Behaviour::Failure | Behaviour::Forged => (0, Answer::Failure),
                Behaviour::Retry(times) if command.attempt <= times => return (Answer::Retry, behaviour),
                Behaviour::Silent => (1, Answer::Silence),
                _ => (1, Answer::Success),
            }
        };
        self.lines.add_durably(&json!({
            "command_id": command.id, "compensates": command.compensates, "key": command.key,
            "order_id": command.order_id, "effect": BTreeMap::from([("units", effect)]), "answer": answer,
            "at": now(),
        }));
        self.undone.extend(command.compensates.clone());
        self.settled.insert(command.id.clone(), Settled { answer, effect });
        (answer, behaviour)
    }
}

impl Command {
    fn read(delivery: &Delivery) -> Option<Self> {
        let properties = &delivery.properties;
        let text = |property: &Option<lapin::types::ShortString>| {
            property.as_ref().map(ToString::to_string).unwrap_or_default()
        };
        let body: Value = serde_json::from_slice(&delivery.data).ok()?;
        let key = delivery.routing_key.to_string();
        Some(Self {
            id: header(delivery, "x-saga-command-id")?,
            compensates: header(delivery, "x-saga-compensates"),
            attempt: header(delivery, "x-saga-attempt")?.parse().ok()?,
            order_id: body["order_id"].as_str()?.to_owned(),
            behaviour: Behaviour::deserialize(&body["behaviour"][&key]).unwrap_or_default(),
            key,
            message_id: text(properties.message_id()),
            reply_to: text(properties.reply_to()),
            correlation_id: text(properties.correlation_id()),
        })
    }

    /// Sends the answer, and returns once the broker has it.
    async fn reply(
        &self,
        peer: &Peer,
        placed: &Lines,
        answer: Answer,
        manner: Behaviour,
    ) -> lapin::Result<()> {
        let copies = match manner {
            Behaviour::Late(millis) => {
                sleep(Duration::from_millis(millis)).await;
                1
            }
            Behaviour::Garbage => {
                self.send_garbage(peer, placed).await?;
                1
            }
            Behaviour::Forged => {
                self.send_forged(peer, placed).await?;
                1
            }
            Behaviour::Duplicate => 2,
            _ => 1,
        };
        let Some((outcome, code)) = answer.outcome() else { return Ok(()) };
        let message_id = format!("reply-{}", self.message_id);
        let mut headers = FieldTable::default();
        let mut set = |name: &str, value: &str| {
            headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
        };
        set("x-saga-outcome", outcome);
        set("x-saga-command-id", &self.id);
        code.inspect(|code| set("x-saga-error-code", code));
        let properties = self.properties(&message_id).with_headers(headers);
        let body = json!({"receipt": message_id}).to_string();
        for _ in 0..copies {
            peer.publish("", &self.reply_to, properties.clone(), body.as_bytes()).await?;
        }
        Ok(())
    }

    /// Sends an answer that cannot be read, with an id of its own each time.
    async fn send_garbage(&self, peer: &Peer, placed: &Lines) -> lapin::Result<()> {
        let name = format!("garbage {} {}", self.message_id, now());
        let message_id = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string();
        peer.publish("", &self.reply_to, self.properties(&message_id), b"{\"receipt\": ").await?;
        placed.add(&json!({"message_id": message_id, "what": "garbage", "at": now()}));
        Ok(())
    }

    /// Somebody says that it is done, by a correlation that is not quite the command's, and once more by the command's
    /// own id.
    async fn send_forged(&self, peer: &Peer, placed: &Lines) -> lapin::Result<()> {
        let mut changed = self.correlation_id.clone();
        let place = changed.len().saturating_sub(6)..changed.len().saturating_sub(4);
        let other = if &changed[place.clone()] == "kk" { "mm" } else { "kk" };
        changed.replace_range(place, other);
        for (kind, correlation) in [("changed", changed.as_str()), ("named", self.message_id.as_str())] {
            let message_id = format!("forged-{kind}-{}", self.message_id);
            let mut headers = FieldTable::default();
            headers.insert("x-saga-outcome".into(), AMQPValue::LongString("success".into()));
            let properties = peer::json(&message_id).with_correlation_id(correlation.into());
            let body = json!({"receipt": message_id}).to_string();
            placed.add(&json!({"message_id": message_id, "what": "forged", "at": now()}));
            peer.publish("", &self.reply_to, properties.with_headers(headers), body.as_bytes()).await?;
        }
        Ok(())
    }

    fn properties(&self, message_id: &str) -> BasicProperties {
        peer::json(message_id).with_correlation_id(self.correlation_id.as_str().into())
    }
}

impl Answer {
    /// Outcome and error code, unless nothing is said.
    fn outcome(self) -> Option<(&'static str, Option<&'static str>)> {
        match self {
            Answer::Success => Some(("success", None)),
            Answer::Failure => Some(("failure", Some("REFUSED"))),
            Answer::Undone => Some(("failure", Some("UNDONE"))),
            Answer::Retry => Some(("retry", None)),
            Answer::Silence => None,
        }
    }
}

/// The value of a header that is text.
fn header(delivery: &Delivery, name: &str) -> Option<String> {
    let value = delivery.properties.headers().as_ref()?.inner().get(name)?;
    Some(String::from_utf8_lossy(value.as_long_string()?.as_bytes()).into_owned())
}
