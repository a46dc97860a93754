//! The services of the trip saga, in this process: each takes commands, keeps a ledger, and keeps a
//! participant's duties. The test says how they treat which trip.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::process::eventually;

/// The services, by the exchanges that their commands come by.
pub(crate) const SERVICES: [&str; 6] =
    ["hotels", "flights", "cars", "insurances", "payments", "notifications"];

/// How a service treats a command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Manner {
    /// Refuses it for good.
    Refuse,
    /// Does it, and says nothing until [`Agencies::speak`].
    Silent,
}

/// All services.
pub(crate) struct Agencies {
    runtime: Runtime,
    channel: Channel,
    books: Arc<Mutex<Books>>,
    _connection: Connection,
}

/// What the services have in mind.
#[derive(Default)]
struct Books {
    /// By trip and routing key.
    manners: HashMap<(String, String), Manner>,
    ledgers: BTreeMap<&'static str, Vec<Entry>>,
    /// What was answered, by command id; to every repeat the same.
    settled: HashMap<String, &'static str>,
    undone: HashSet<String>,
    /// Answers that wait for [`Agencies::speak`].
    unsaid: Vec<(Command, &'static str)>,
    /// Undoings that were refused, and so are not settled.
    refused: Vec<(&'static str, Command)>,
}

/// A line of a ledger: a command that is settled, and how many bookings it made or took back.
struct Entry {
    command_id: String,
    compensates: Option<String>,
    trip: String,
    effect: i64,
    answer: &'static str,
}

#[derive(Clone)]
struct Command {
    id: String,
    compensates: Option<String>,
    key: String,
    trip: String,
    reply_to: String,
    correlation_id: String,
}

impl Agencies {
    /// Opens all of them, at exchanges whose names end in `suffix`.
    pub(crate) fn open(url: &str, suffix: &str) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let books = Arc::<Mutex<Books>>::default();
        let (_connection, channel) = runtime.block_on(async {
            let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            (connection, channel)
        });
        for service in SERVICES {
            let exchange = format!("{service}{suffix}");
            let commands = runtime.block_on(inbox(&channel, &exchange)).unwrap();
            runtime.spawn(serve(service, commands, channel.clone(), Arc::clone(&books)));
        }
        Self { runtime, channel, books, _connection }
    }

    /// Says how the commands with this routing key are treated that are for this trip.
    pub(crate) fn treat(&self, trip: &str, key: &str, manner: Manner) {
        self.books.lock().unwrap().manners.insert((trip.to_owned(), key.to_owned()), manner);
    }

    /// Ends a silence: says what was not said, as soon as there is such a thing.
    pub(crate) fn speak(&self, trip: &str, key: &str) {
        let is_this = |command: &Command| command.trip == trip && command.key == key;
        eventually(&format!("{key} of {trip} has come"), || {
            self.books.lock().unwrap().unsaid.iter().any(|(command, _)| is_this(command))
        });
        let unsaid: Vec<_> = {
            let mut books = self.books.lock().unwrap();
            books.manners.remove(&(trip.to_owned(), key.to_owned()));
            books.unsaid.extract_if(.., |(command, _)| is_this(command)).collect()
        };
        for (command, answer) in unsaid {
            self.runtime.block_on(reply(&self.channel, &command, answer)).unwrap();
        }
    }

    /// Has a person do what a service refused to undo.
    pub(crate) fn undo_by_hand(&self, trip: &str, key: &str) {
        let mut books = self.books.lock().unwrap();
        let refused = |(_, command): &(&str, Command)| command.trip == trip && command.key == key;
        let (service, command) = books.refused.iter().find(|one| refused(one)).cloned().unwrap();
        books.undo(service, &command);
    }

    /// How many bookings a service made for a trip, and how many it took back.
    pub(crate) fn booked(&self, service: &str, trip: &str) -> (i64, i64) {
        let books = self.books.lock().unwrap();
        let entries = books.ledgers.get(service).into_iter().flatten().filter(|entry| entry.trip == trip);
        entries.fold((0, 0), |(made, taken), entry| match entry.effect {
            effect if effect < 0 => (made, taken - effect),
            effect => (made + effect, taken),
        })
    }

    /// Writes the ledgers into a folder, in the form in which `sagamq verify` reads them.
    pub(crate) fn write_ledgers(&self, folder: &Path) {
        let line = |entry: &Entry| {
            json!({
                "command_id": entry.command_id, "compensates": entry.compensates, "answer": entry.answer,
                "effect": {"bookings": entry.effect},
            })
        };
        for (service, entries) in &self.books.lock().unwrap().ledgers {
            let text: String = entries.iter().map(|entry| format!("{}\n", line(entry))).collect();
            std::fs::write(folder.join(format!("{service}.ledger")), text).unwrap();
        }
    }
}

/// A queue with all that comes by an exchange.
async fn inbox(channel: &Channel, exchange: &str) -> lapin::Result<Consumer> {
    let queue = format!("{exchange}.commands");
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let none = FieldTable::default;
    channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, none()).await?;
    channel.queue_declare(queue.as_str().into(), QueueDeclareOptions::durable(), none()).await?;
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.as_str().into(), exchange.into(), "#".into(), options, none()).await?;
    channel.basic_consume(queue.as_str().into(), "".into(), BasicConsumeOptions::default(), none()).await
}

/// Takes commands until the connection ends with the test.
async fn serve(
    service: &'static str,
    mut commands: Consumer,
    channel: Channel,
    books: Arc<Mutex<Books>>,
) -> lapin::Result<()> {
    while let Some(delivery) = commands.next().await {
        let delivery = delivery?;
        let command = Command::read(&delivery).expect("what comes is a command");
        let answer = books.lock().unwrap().settle(service, &command);
        if let Some(answer) = answer {
            reply(&channel, &command, answer).await?;
        }
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

async fn reply(channel: &Channel, command: &Command, outcome: &str) -> lapin::Result<()> {
    let headers = [("x-saga-outcome", outcome), ("x-saga-error-code", "REFUSED")];
    let headers = headers.map(|(name, value)| (ShortString::from(name), AMQPValue::LongString(value.into())));
    let properties = BasicProperties::default()
        .with_correlation_id(command.correlation_id.as_str().into())
        .with_headers(BTreeMap::from(headers).into());
    let body = json!({"booking_id": format!("{}-{}", command.key, command.trip), "price": 120.5}).to_string();
    let (to, options) = (command.reply_to.as_str().into(), BasicPublishOptions::default());
    channel.basic_publish("".into(), to, options, body.as_bytes(), properties).await.map(drop)
}

impl Books {
    /// Does what a command asks for, and says what is answered, if anything is.
    fn settle(&mut self, service: &'static str, command: &Command) -> Option<&'static str> {
        let manner = self.manners.get(&(command.trip.clone(), command.key.clone())).copied();
        let answer = match self.settled.get(&command.id) {
            Some(answer) => *answer,
            None if command.compensates.is_some() && manner == Some(Manner::Refuse) => {
                self.refused.push((service, command.clone()));
                return Some("failure");
            }
            None if command.compensates.is_some() => self.undo(service, command),
            None if manner == Some(Manner::Refuse) || self.undone.contains(&command.id) => {
                self.record(service, command, 0, "failure")
            }
            None => self.record(service, command, 1, "success"),
        };
        if manner == Some(Manner::Silent) {
            self.unsaid.push((command.clone(), answer));
            return None;
        }
        Some(answer)
    }

    /// Takes back what stands of a command. What never was done is undone as well.
    fn undo(&mut self, service: &'static str, command: &Command) -> &'static str {
        let action = command.compensates.clone().expect("it is a compensation");
        let entries = self.ledgers.get(service).into_iter().flatten();
        let done: i64 = entries.filter(|entry| entry.command_id == action).map(|entry| entry.effect).sum();
        let effect = if self.undone.insert(action) { -done } else { 0 };
        self.record(service, command, effect, "success")
    }

    fn record(
        &mut self,
        service: &'static str,
        command: &Command,
        effect: i64,
        answer: &'static str,
    ) -> &'static str {
        self.settled.insert(command.id.clone(), answer);
        self.ledgers.entry(service).or_default().push(Entry {
            command_id: command.id.clone(),
            compensates: command.compensates.clone(),
            trip: command.trip.clone(),
            effect,
            answer,
        });
        answer
    }
}

impl Command {
    fn read(delivery: &Delivery) -> Option<Self> {
        let properties = &delivery.properties;
        let headers = properties.headers().as_ref()?.inner();
        let header = |name: &str| headers.get(name)?.as_long_string().map(ToString::to_string);
        let body: Value = serde_json::from_slice(&delivery.data).ok()?;
        Some(Self {
            id: header("x-saga-command-id")?,
            compensates: header("x-saga-compensates"),
            key: delivery.routing_key.to_string(),
            trip: body["trip_id"].as_str()?.to_owned(),
            reply_to: properties.reply_to().as_ref()?.to_string(),
            correlation_id: properties.correlation_id().as_ref()?.to_string(),
        })
    }
}
