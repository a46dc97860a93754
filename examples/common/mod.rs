//! What the sample services share: a queue that is taken up again for ever, the loop over commands
//! with a participant's duties, and the [`ledger`]. Plain lapin, tokio and serde_json: a participant
//! needs no SDK, in any language.
//!
//! # A participant's duties
//! 1. **A command that was answered is answered the same again.** The command id (header
//!    `x-saga-command-id`) stays the same over attempts, redeliveries and restarts. It is kept
//!    together with the effect and the answer, in one write, before the answer leaves and before the
//!    command is acked.
//! 2. **To undo what was never done succeeds, and is remembered.** A compensation says in
//!    `x-saga-compensates` which command it undoes; that command may never have arrived, or may
//!    still be on its way.
//! 3. **A command that comes after its own undoing is refused**, here with the error `UNDONE`.
//!
//! # How the samples misbehave
//! The data of an order decides, so that every run is the same:
//!
//! | order | service | what it does |
//! |---|---|---|
//! | product `SOLD-OUT` | inventory | has none: refuses with `OUT_OF_STOCK` |
//! | product `SLOW` | inventory | reserves at once, but answers the first attempt after 7 s |
//! | product `FLAKY` | inventory | asks for a `retry` on attempts 1 and 2, then succeeds |
//! | customer `declined…` | payment | publishes `payment.processed` with status `FAILED` |
//! | customer `silent…` | payment | takes the money and never says so, on no attempt |
//! | customer `nowhere…` | shipping | refuses with `UNDELIVERABLE` |
//!
//! # Settings, from the environment
//! `AMQP_URL` (default `amqp://guest:guest@127.0.0.1:5672/%2f`), `LEDGER` (a file, default
//! `<service>.ledger`), and for inventory `STOCK` (units of each product, default 1000).
#![allow(dead_code, reason = "each service uses its part of this")]

pub(crate) mod ledger;

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, BasicRejectOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use uuid::Uuid;

use ledger::{Answer, Effect, Entry, Ledger, negated};

/// Commands or events in work at a time.
const PREFETCH: u16 = 32;
/// Pause before the broker is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// A service that takes commands.
pub(crate) struct Participant {
    /// Its name; its queue is `<name>.commands`.
    pub(crate) name: &'static str,
    /// The exchange that its commands come by.
    pub(crate) exchange: &'static str,
    /// Their routing keys. Not a pattern where the exchange also carries the service's own events.
    pub(crate) keys: &'static [&'static str],
}

/// A command as it arrived.
pub(crate) struct Command {
    /// The idempotency key.
    pub(crate) id: String,
    /// On a compensation: the id of the command to undo.
    pub(crate) compensates: Option<String>,
    /// Which sending this is, from 1.
    pub(crate) attempt: u32,
    /// The routing key.
    pub(crate) key: String,
    /// The payload.
    pub(crate) body: Value,
    reply_to: String,
    correlation_id: String,
}

/// What a service makes of a command that it has not seen before.
pub(crate) enum Decision {
    /// Settled for good: kept in the ledger, and answered the same for ever.
    Settled {
        /// What changes.
        effect: Effect,
        /// What is answered.
        answer: Answer,
        /// How long the first answer is held back.
        delay: Duration,
    },
    /// Not now: another attempt, please. Not kept.
    Retry,
}

/// An event as it arrived.
pub(crate) struct Event {
    /// The id that its sender gave it.
    pub(crate) id: String,
    /// The routing key.
    pub(crate) key: String,
    /// The payload.
    pub(crate) data: Value,
}

/// Takes commands until SIGTERM. `decide` is asked about actions that are new; repeats and undoing
/// are seen to here. It is the pure part of a service: what it decides happens when the ledger has it.
///
/// What a signal or a crash interrupts is delivered again, and then answered from the ledger.
///
/// # Errors
/// The ledger cannot be read or written. The service must not go on then: it could forget what it
/// did. A broker that is away is no error, it is tried again for ever.
pub(crate) async fn serve(
    participant: Participant,
    decide: impl Fn(&Ledger, &Command) -> serde_json::Result<Decision>,
) -> io::Result<()> {
    let mut ledger = Ledger::open(&ledger::path(participant.name))?;
    let bindings: Vec<_> = participant.keys.iter().map(|key| (participant.exchange, *key)).collect();
    let queue = format!("{}.commands", participant.name);
    until_stopped(participant.name, async || {
        let mut inbox = Inbox::open(&queue, &bindings).await?;
        while let Some(delivery) = inbox.consumer.next().await {
            let delivery = delivery?;
            let Some(command) = Command::read(&delivery) else {
                println!("{}: {} is not a command, rejected", participant.name, delivery.routing_key);
                delivery.reject(BasicRejectOptions { requeue: false }).await?;
                continue;
            };
            let (answer, delay) = match settle(&mut ledger, &command, &decide) {
                Ok(settled) => settled,
                Err(error) => return Ok(Err(error)),
            };
            println!("{}: {} attempt {}: {answer}", participant.name, command.subject(), command.attempt);
            let channel = inbox.channel.clone();
            let reply = async move {
                sleep(delay).await;
                command.answer(&channel, &answer).await?;
                delivery.ack(BasicAckOptions::default()).await
            };
            if delay.is_zero() {
                reply.await?;
            } else {
                // Should it fail, the connection is gone, and the command comes again.
                tokio::spawn(reply);
            }
        }
        Err(io::Error::other("the queue is gone").into())
    })
    .await
}

/// Takes events of `bindings` (exchange, key) until SIGTERM. An event may come more than once.
///
/// # Errors
/// What `on_event` fails with.
pub(crate) async fn listen(
    name: &str,
    bindings: &[(&str, &str)],
    mut on_event: impl FnMut(Event) -> io::Result<()>,
) -> io::Result<()> {
    let queue = format!("{name}.events");
    until_stopped(name, async || {
        let mut inbox = Inbox::open(&queue, bindings).await?;
        while let Some(delivery) = inbox.consumer.next().await {
            let delivery = delivery?;
            if let Some(event) = Event::read(&delivery)
                && let Err(error) = on_event(event)
            {
                return Ok(Err(error));
            }
            delivery.ack(BasicAckOptions::default()).await?;
        }
        Err(io::Error::other("the queue is gone").into())
    })
    .await
}

/// Connects to `AMQP_URL`.
pub(crate) async fn connect() -> lapin::Result<Connection> {
    let url =
        std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned());
    Connection::connect(&url, ConnectionProperties::default()).await
}

/// Declares a durable topic exchange. To declare what is there changes nothing.
pub(crate) async fn declare_exchange(channel: &Channel, exchange: &str) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare(exchange.into(), ExchangeKind::Topic, options, FieldTable::default()).await
}

/// The current time, RFC 3339.
pub(crate) fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// An id that is the same whenever `command` is decided: `what` tells several apart.
pub(crate) fn derived_id(command: &Command, what: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{what} {}", command.id).as_bytes()).to_string()
}

/// Runs `session` until a signal; again and again where it is the broker that fails.
async fn until_stopped(
    name: &str,
    mut session: impl AsyncFnMut() -> lapin::Result<io::Result<()>>,
) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let sessions = async {
        loop {
            match session().await {
                Ok(end) => return end,
                Err(error) => println!("{name}: no broker, trying again: {error}"),
            }
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        end = sessions => end,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// A durable queue that is being consumed.
struct Inbox {
    consumer: Consumer,
    channel: Channel,
    _connection: Connection,
}

impl Inbox {
    async fn open(queue: &str, bindings: &[(&str, &str)]) -> lapin::Result<Self> {
        let connection = connect().await?;
        let channel = connection.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await?;
        for (exchange, key) in bindings {
            declare_exchange(&channel, exchange).await?;
            let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
            channel.queue_bind(queue.into(), (*exchange).into(), (*key).into(), options, arguments).await?;
        }
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel.basic_consume(queue.into(), "".into(), options, arguments).await?;
        Ok(Self { consumer, channel, _connection: connection })
    }
}

/// The duties: what is answered to a command, and how long that is held back.
fn settle(
    ledger: &mut Ledger,
    command: &Command,
    decide: impl Fn(&Ledger, &Command) -> serde_json::Result<Decision>,
) -> io::Result<(Answer, Duration)> {
    if let Some(answer) = ledger.answer(&command.id) {
        return Ok((answer.clone(), Duration::ZERO));
    }
    let refused = |code: &str, message: &str| (Effect::new(), Answer::failure(code, message), Duration::ZERO);
    let (effect, answer, delay) = if let Some(action) = &command.compensates {
        (negated(ledger.standing_effect(action)), Answer::Success { data: json!({}) }, Duration::ZERO)
    } else if ledger.is_undone(&command.id) {
        refused("UNDONE", "it was undone before it arrived")
    } else {
        match decide(ledger, command) {
            Ok(Decision::Settled { effect, answer, delay }) => (effect, answer, delay),
            Ok(Decision::Retry) => return Ok((Answer::Retry, Duration::ZERO)),
            Err(error) => refused("INVALID_COMMAND", &error.to_string()),
        }
    };
    ledger.record(Entry {
        command_id: command.id.clone(),
        compensates: command.compensates.clone(),
        key: command.key.clone(),
        order_id: command.order_id().to_owned(),
        effect,
        answer: answer.clone(),
    })?;
    Ok((answer, delay))
}

impl Command {
    /// The payload as the service's own type.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        T::deserialize(&self.body)
    }

    fn read(delivery: &Delivery) -> Option<Self> {
        let properties = &delivery.properties;
        let text = |property: &Option<lapin::types::ShortString>| {
            property.as_ref().map_or_else(String::new, |text| text.as_str().to_owned())
        };
        Some(Self {
            id: header(delivery, "x-saga-command-id")?,
            compensates: header(delivery, "x-saga-compensates"),
            attempt: header(delivery, "x-saga-attempt").and_then(|text| text.parse().ok()).unwrap_or(1),
            key: delivery.routing_key.as_str().to_owned(),
            body: serde_json::from_slice(&delivery.data).ok()?,
            reply_to: text(properties.reply_to()),
            correlation_id: text(properties.correlation_id()),
        })
    }

    fn order_id(&self) -> &str {
        self.body["order_id"].as_str().unwrap_or_default()
    }

    fn subject(&self) -> String {
        format!("{} of order {}", self.key, self.order_id())
    }

    /// Sends the answer, and returns once the broker has it.
    async fn answer(&self, channel: &Channel, answer: &Answer) -> lapin::Result<()> {
        let (outcome, code, message, data) = match answer {
            Answer::Silence => return Ok(()),
            // A plain event, with nothing in it that knows of sagas.
            Answer::Event { exchange, key, data } => {
                let id = data["event_id"].as_str().unwrap_or_default();
                return publish(channel, exchange, key, properties().with_message_id(id.into()), data).await;
            }
            Answer::Success { data } => ("success", None, None, data),
            Answer::Failure { code, message } => ("failure", Some(code), Some(message), &Value::Null),
            Answer::Retry => ("retry", None, None, &Value::Null),
        };
        let mut headers = FieldTable::default();
        let mut set = |name: &str, value: &str| {
            headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
        };
        set("x-saga-outcome", outcome);
        set("x-saga-command-id", &self.id);
        code.inspect(|code| set("x-saga-error-code", code));
        message.inspect(|message| set("x-saga-error-message", message));
        let properties =
            properties().with_headers(headers).with_correlation_id(self.correlation_id.as_str().into());
        // A queue's name is its routing key on the default exchange.
        publish(channel, "", &self.reply_to, properties, data).await
    }
}

impl Event {
    fn read(delivery: &Delivery) -> Option<Self> {
        let data: Value = serde_json::from_slice(&delivery.data).ok()?;
        let id = match delivery.properties.message_id() {
            Some(id) => id.as_str().to_owned(),
            None => data["event_id"].as_str()?.to_owned(),
        };
        Some(Self { id, key: delivery.routing_key.as_str().to_owned(), data })
    }
}

/// The value of a header that is text.
fn header(delivery: &Delivery, name: &str) -> Option<String> {
    let value = delivery.properties.headers().as_ref()?.inner().get(name)?;
    Some(String::from_utf8_lossy(value.as_long_string()?.as_bytes()).into_owned())
}

/// Persistent JSON.
pub(crate) fn properties() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into())
}

async fn publish(
    channel: &Channel,
    exchange: &str,
    key: &str,
    properties: BasicProperties,
    data: &Value,
) -> lapin::Result<()> {
    let (body, options) = (data.to_string(), BasicPublishOptions::default());
    let send =
        || channel.basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties.clone());
    // A broker that could not keep it says so, and is asked again.
    while !send().await?.await?.is_ack() {
        sleep(PAUSE).await;
    }
    Ok(())
}
