//! The sample services keep a participant's duties over a real broker.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ExchangeKind,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

#[tokio::test(flavor = "multi_thread")]
async fn participants_answer_once_and_undo_in_any_order() {
    let mut node = support::broker();
    let folder = tempfile::tempdir().unwrap();
    let mut inventory = Service::start("inventory", &node.url(), folder.path());
    let mut saga = Orchestrator::connect(&node.url()).await;

    // A repeat gets the stored answer, also after a SIGKILL of the service and a restart of the broker.
    let reserved = saga.send("inventory", "stock.reserve", "a", None, order("A", "BOOK", "alice")).await;
    assert_eq!(reserved.outcome, "success");
    assert!(reserved.data["reservation_id"].is_string());
    inventory.kill();
    node.restart().unwrap();
    inventory = Service::start("inventory", &node.url(), folder.path());
    saga = Orchestrator::connect(&node.url()).await;
    let again = saga.send("inventory", "stock.reserve", "a", None, order("A", "BOOK", "alice")).await;
    assert_eq!(again, reserved);

    // Undoing, twice and by two commands, takes back once.
    for undo in ["undo-a", "undo-a", "undo-a-2"] {
        let undone = saga.send("inventory", "stock.release", undo, Some("a"), json!({"order_id": "A"})).await;
        assert_eq!(undone.outcome, "success");
    }
    assert_eq!(balance(folder.path(), "inventory", "BOOK"), 0);

    // What is undone before it comes is refused when it comes.
    let early = saga.send("inventory", "stock.release", "undo-b", Some("b"), json!({"order_id": "B"})).await;
    assert_eq!(early.outcome, "success");
    let late = saga.send("inventory", "stock.reserve", "b", None, order("B", "BOOK", "alice")).await;
    assert_eq!((late.outcome.as_str(), late.code.as_str()), ("failure", "UNDONE"));
    assert_eq!(balance(folder.path(), "inventory", "BOOK"), 0);

    // The data of an order decides how a service misbehaves.
    let sold_out = saga.send("inventory", "stock.reserve", "c", None, order("C", "SOLD-OUT", "alice")).await;
    assert_eq!((sold_out.outcome.as_str(), sold_out.code.as_str()), ("failure", "OUT_OF_STOCK"));
    let flaky = saga.send("inventory", "stock.reserve", "d", None, order("D", "FLAKY", "alice")).await;
    assert_eq!(flaky.outcome, "retry");
    let garbage = saga.send("inventory", "stock.reserve", "e", None, json!({"items": 7})).await;
    assert_eq!(garbage.code, "INVALID_COMMAND");

    // Payment and shipping answer with events that carry no saga header.
    let payment = Service::start("payment", &node.url(), folder.path());
    let shipping = Service::start("shipping", &node.url(), folder.path());
    let paid = saga.send("payments", "payment.charge", "f", None, order("F", "BOOK", "alice")).await;
    assert_eq!((paid.outcome.as_str(), &paid.data["status"]), ("", &json!("SUCCESS")));
    assert_eq!(saga.send("payments", "payment.charge", "f", None, order("F", "BOOK", "alice")).await, paid);
    let declined = saga.send("payments", "payment.charge", "g", None, order("G", "BOOK", "declined-1")).await;
    assert_eq!(declined.data["status"], "FAILED");
    assert_eq!(balance(folder.path(), "payment", "cents"), 5997);
    let refund = saga.send("payments", "payment.refund", "undo-f", Some("f"), json!({"order_id": "F"})).await;
    assert_eq!(refund.outcome, "success");
    assert_eq!(balance(folder.path(), "payment", "cents"), 0);
    let shipped = saga.send("shipping", "shipment.create", "h", None, order("H", "BOOK", "alice")).await;
    assert!(shipped.data["tracking_number"].is_string());
    let nowhere = saga.send("shipping", "shipment.create", "i", None, order("I", "BOOK", "nowhere-1")).await;
    assert_eq!((nowhere.outcome.as_str(), nowhere.code.as_str()), ("failure", "UNDELIVERABLE"));

    for service in [inventory, payment, shipping] {
        service.stop();
    }
}

/// One body that serves all three commands.
fn order(order_id: &str, product: &str, customer: &str) -> Value {
    json!({
        "order_id": order_id,
        "customer_id": customer,
        "amount": 59.97,
        "items": [{"product_id": product, "product_name": product, "quantity": 3, "price": 19.99}],
    })
}

fn balance(folder: &Path, service: &str, account: &str) -> i64 {
    let text = std::fs::read_to_string(folder.join(service)).unwrap();
    let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    entries.filter_map(|entry| entry["effect"][account].as_i64()).sum()
}

/// A sample service as a process; killed with the value.
struct Service(Child);

impl Service {
    fn start(name: &str, url: &str, folder: &Path) -> Self {
        let mut program = std::env::current_exe().unwrap();
        program.pop();
        program.pop();
        program.push(format!("examples/{name}"));
        assert!(program.exists(), "{} is missing: run `cargo build --examples`", program.display());
        let mut command = Command::new(program);
        command.env("AMQP_URL", url).env("LEDGER", folder.join(name)).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Ends it by SIGTERM, which it must obey with exit code 0.
    fn stop(mut self) {
        let id = self.0.id().to_string();
        assert!(Command::new("/bin/sh").args(["-c", "kill -TERM $0", &id]).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Debug, PartialEq)]
struct Reply {
    outcome: String,
    code: String,
    data: Value,
}

/// Sends commands as the orchestrator does, one at a time, and awaits what comes back: a reply, or
/// a plain event.
struct Orchestrator {
    replies: Consumer,
    channel: Channel,
    _connection: Connection,
}

impl Orchestrator {
    async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let none = FieldTable::default;
        channel.queue_declare("replies".into(), QueueDeclareOptions::durable(), none()).await.unwrap();
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        for exchange in ["inventory", "payments", "shipping"] {
            let declared = channel.exchange_declare(exchange.into(), ExchangeKind::Topic, options, none());
            declared.await.unwrap();
        }
        for (exchange, event) in [("payments", "payment.processed"), ("shipping", "order.shipped")] {
            let options = QueueBindOptions::default();
            channel
                .queue_bind("replies".into(), exchange.into(), event.into(), options, none())
                .await
                .unwrap();
        }
        let consumed =
            channel.basic_consume("replies".into(), "".into(), BasicConsumeOptions::default(), none());
        Self { replies: consumed.await.unwrap(), channel, _connection: connection }
    }

    async fn send(
        &mut self,
        exchange: &str,
        key: &str,
        id: &str,
        undoes: Option<&str>,
        body: Value,
    ) -> Reply {
        let mut headers = FieldTable::default();
        headers.insert("x-saga-command-id".into(), AMQPValue::LongString(id.into()));
        headers.insert("x-saga-attempt".into(), AMQPValue::LongString("1".into()));
        if let Some(action) = undoes {
            headers.insert("x-saga-compensates".into(), AMQPValue::LongString(action.into()));
        }
        let properties = BasicProperties::default()
            .with_headers(headers)
            .with_correlation_id(id.into())
            .with_reply_to("replies".into());
        let deadline = Instant::now() + Duration::from_secs(30);
        // A service that has just started may not have its queue yet: the command is returned.
        loop {
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            let body = body.to_string();
            let (exchange, key, properties) = (exchange.into(), key.into(), properties.clone());
            let sent = self.channel.basic_publish(exchange, key, options, body.as_bytes(), properties).await;
            if let Confirmation::Ack(None) = sent.unwrap().await.unwrap() {
                break;
            }
            assert!(Instant::now() < deadline, "nobody takes {id}");
            sleep(Duration::from_millis(50)).await;
        }
        // What an earlier command is answered once more, after a crash, is passed over.
        loop {
            let (reply, answers) = timeout(Duration::from_secs(30), self.receive()).await.unwrap();
            if answers.is_none_or(|answers| answers == id) {
                return reply;
            }
        }
    }

    /// The next answer, and for a reply the command that it answers.
    async fn receive(&mut self) -> (Reply, Option<String>) {
        let delivery = self.replies.next().await.unwrap().unwrap();
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        let text = |name: &str| -> String {
            let headers = delivery.properties.headers().as_ref();
            let value =
                headers.and_then(|headers| headers.inner().get(name)).and_then(AMQPValue::as_long_string);
            value.map(|text| text.to_string()).unwrap_or_default()
        };
        let reply = Reply {
            outcome: text("x-saga-outcome"),
            code: text("x-saga-error-code"),
            data: serde_json::from_slice(&delivery.data).unwrap(),
        };
        (reply, delivery.properties.correlation_id().as_ref().map(ToString::to_string))
    }
}
