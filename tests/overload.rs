//! Overload: far more sagas are to start than can pass. The prefetch is the only inflow: what is too much
//! stays with the broker.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/port.rs"]
mod port;
#[expect(dead_code, reason = "the tests of the command line use the rest")]
#[path = "cli/process.rs"]
mod process;
mod support;

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind, PublisherConfirm,
};
use process::{PATIENCE, Site};
use sagamq::throwaway::Node;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::timeout;

/// The password of no broker here.
const CANARY: &str = "unused";

/// Exchange and prefix.
const LOAD: &str = "load";
/// What its participants and its ends are called.
const QUEUES: [(&str, &str); 2] = [("load.commands", "step.*"), ("load.completed", "completed")];
/// Three steps that nobody has to undo.
const SAGA: &str = "
saga: load
version: 1
start: {on: {exchange: load, key: start}, business_key: =event.data.number}
steps:
  - {step: one, command: {exchange: load, key: step.one}, timeout: 10m, compensate: none}
  - {step: two, command: {exchange: load, key: step.two}, timeout: 10m, compensate: none}
  - {step: three, command: {exchange: load, key: step.three}, timeout: 10m, compensate: none}
on_completed: {emit: {exchange: load, key: completed, body: {number: =saga.business_key}}}
";

/// Deliveries of a queue that may be out. No other consumer here has as many.
const PREFETCH: u64 = 73;
/// How many of them the last consumer of a channel has: those before it have eight.
const LAST: u64 = PREFETCH - 8;
/// Bytes in the body of a start event, more or less.
const BODY: usize = 1000;
/// Sagas that show what passes, and how many of them are under way at a time.
const LIGHT: u64 = 1000;
const UNDER_WAY: u64 = 100;
/// How many seconds' worth of sagas are to start at once.
const SECONDS: u64 = 15;
/// How many of these still wait when the last one is there.
const BEHIND: u64 = 10;
/// How long the API may take to answer.
const PROMPT: Duration = Duration::from_secs(1);
/// Between questions to the API.
const PAUSE: Duration = Duration::from_millis(50);
/// How much larger the process may be than with a light load, in KiB: the 20,000 instances and the 32 MiB of
/// journal that it keeps in memory at most, with all that belongs to them.
const MAX_GROWTH: u64 = 224 << 10;
/// Page cache of the store. It fills up under any load, and would hide what else grows.
const CACHE_MIB: &str = "8";

/// Everybody but the orchestrator: who starts sagas, who does their steps, who sees them end.
struct Others {
    runtime: Runtime,
    channel: Channel,
    ends: Arc<Mutex<HashMap<String, u32>>>,
    ended: watch::Receiver<u64>,
    _connections: [Connection; 2],
}

impl Others {
    fn connect(url: &str) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let ends = Arc::new(Mutex::new(HashMap::new()));
        let (count, ended) = watch::channel(0);
        let (_connections, channel) = runtime.block_on(async {
            let connect = async || Connection::connect(url, ConnectionProperties::default()).await.unwrap();
            let [inbound, outbound] = [connect().await, connect().await];
            let channel = outbound.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            make_queues(&channel).await;
            let answers = outbound.create_channel().await.unwrap();
            tokio::spawn(answer(inbound.create_channel().await.unwrap(), answers));
            tokio::spawn(note(inbound.create_channel().await.unwrap(), Arc::clone(&ends), count));
            ([inbound, outbound], channel)
        });
        Self { runtime, channel, ends, ended, _connections }
    }

    /// Starts the sagas with these numbers, so many at a time; returns once the broker has them all.
    fn start(&self, numbers: Range<u64>, under_way: u64) {
        let (channel, mut ended) = (&self.channel, self.ended.clone());
        let padding = "x".repeat(BODY);
        let starting = async {
            let mut confirms = Vec::new();
            for number in numbers {
                ended.wait_for(|ended| number < ended.saturating_add(under_way)).await.unwrap();
                let body = format!(r#"{{"number":"{number}","padding":"{padding}"}}"#);
                confirms.push(publish(channel, LOAD, "start", body.as_bytes(), properties()).await);
            }
            for confirm in confirms {
                assert!(matches!(confirm.await.unwrap(), Confirmation::Ack(None)), "no queue takes it");
            }
        };
        self.runtime
            .block_on(async { timeout(PATIENCE, starting).await })
            .expect("the broker takes start events in time");
    }

    /// Waits until so many sagas have ended.
    fn wait_for(&self, sagas: u64) {
        let mut ended = self.ended.clone();
        let waiting = async { timeout(PATIENCE, ended.wait_for(|ended| *ended >= sagas)).await.is_ok() };
        assert!(self.runtime.block_on(waiting), "{} of {sagas} sagas ended in time", *self.ended.borrow());
    }

    /// How many messages wait in a queue.
    fn waiting(&self, queue: &str) -> u64 {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let asked = self.channel.queue_declare(queue.into(), passive, FieldTable::default());
        self.runtime.block_on(asked).unwrap().message_count().into()
    }
}

async fn make_queues(channel: &Channel) {
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let none = FieldTable::default;
    channel.exchange_declare(LOAD.into(), ExchangeKind::Topic, durable, none()).await.unwrap();
    for (queue, key) in QUEUES {
        channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), none()).await.unwrap();
        let options = QueueBindOptions::default();
        channel.queue_bind(queue.into(), LOAD.into(), key.into(), options, none()).await.unwrap();
    }
}

/// Answers each command with success, for ever.
async fn answer(inbound: Channel, outbound: Channel) {
    inbound.basic_qos(500, BasicQosOptions::default()).await.unwrap();
    let (queue, options) = (QUEUES[0].0.into(), BasicConsumeOptions::default());
    let mut commands = inbound.basic_consume(queue, "".into(), options, FieldTable::default()).await.unwrap();
    while let Some(Ok(Delivery { properties: of_command, acker, .. })) = commands.next().await {
        let reply_to = of_command.reply_to().clone().unwrap();
        let mut headers = FieldTable::default();
        headers.insert("x-saga-outcome".into(), AMQPValue::LongString("success".into()));
        let properties = properties()
            .with_headers(headers)
            .with_correlation_id(of_command.correlation_id().clone().unwrap());
        publish(&outbound, "", reply_to.as_str(), b"{}", properties).await;
        acker.ack(BasicAckOptions::default()).await.unwrap();
    }
}

/// Counts how often each saga ends, for ever.
async fn note(channel: Channel, ends: Arc<Mutex<HashMap<String, u32>>>, count: watch::Sender<u64>) {
    let (queue, options) = (QUEUES[1].0.into(), BasicConsumeOptions { no_ack: true, ..Default::default() });
    let mut events = channel.basic_consume(queue, "".into(), options, FieldTable::default()).await.unwrap();
    while let Some(Ok(event)) = events.next().await {
        let event: Value = serde_json::from_slice(&event.data).unwrap();
        let number = event["number"].as_str().unwrap().to_owned();
        *ends.lock().unwrap().entry(number).or_default() += 1;
        count.send_modify(|count| *count += 1);
    }
}

async fn publish(
    channel: &Channel,
    exchange: &str,
    key: &str,
    body: &[u8],
    properties: BasicProperties,
) -> PublisherConfirm {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    channel.basic_publish(exchange.into(), key.into(), options, body, properties).await.unwrap()
}

fn properties() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into())
}

/// What was seen of the orchestrator, at worst.
#[derive(Debug, Default)]
struct Seen {
    /// The slowest answer of the API.
    answer: Duration,
    /// How many there were.
    answers: u64,
    /// Deliveries of one queue that were out.
    unacked: u64,
}

/// Looks at the orchestrator from outside for as long as `meanwhile` takes.
fn look_on<T>(port: u16, broker: &Node, meanwhile: impl FnOnce() -> T) -> (T, Seen) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut slowest, mut answers) = (Duration::ZERO, 0);
            while !over.load(Ordering::SeqCst) {
                for path in ["/readyz", "/api/v1/sagas"] {
                    let begin = Instant::now();
                    let answer = ureq::get(format!("http://127.0.0.1:{port}{path}")).call();
                    answer.unwrap().body_mut().read_to_vec().unwrap();
                    slowest = slowest.max(begin.elapsed());
                    answers += 1;
                }
                thread::sleep(PAUSE);
            }
            (slowest, answers)
        });
        let counting = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::SeqCst) {
                most = most.max(unacked(broker));
            }
            most
        });
        // What fails meanwhile must not leave the others looking on for ever.
        let done = catch_unwind(AssertUnwindSafe(meanwhile));
        over.store(true, Ordering::SeqCst);
        let (answer, answers) = asking.join().unwrap();
        let seen = Seen { answer, answers, unacked: counting.join().unwrap() };
        (done.unwrap_or_else(|panic| resume_unwind(panic)), seen)
    })
}

/// The most deliveries that are out on one of the orchestrator's two channels that consume.
fn unacked(broker: &Node) -> u64 {
    let channels = broker.ctl(&["list_channels", "prefetch_count", "messages_unacknowledged", "--silent"]);
    let channels = channels.unwrap();
    let counts = channels.lines().filter_map(|line| line.split_once('\t'));
    let ours = counts.filter(|(prefetch, _)| *prefetch == LAST.to_string());
    ours.map(|(_, unacked)| unacked.parse().unwrap()).max().unwrap_or(0)
}

/// A figure of a process in KiB.
fn memory(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn ten_times_what_passes_waits_at_the_broker_and_memory_and_answers_stay_bounded() {
    let broker = support::broker();
    let others = Others::connect(&broker.url());
    let mut site = Site::with_broker(SAGA, &broker.url(), LOAD);
    site.set("STORE__CACHE_MIB", CACHE_MIB);
    site.set("BROKER__PREFETCH", &PREFETCH.to_string());
    let mut orchestrator = site.run_until_ready();

    let begin = Instant::now();
    others.start(0..LIGHT, UNDER_WAY);
    others.wait_for(LIGHT);
    let passes = (LIGHT as f64 / begin.elapsed().as_secs_f64()) as u64;
    let light = memory(orchestrator.pid(), "VmHWM:");

    let all = LIGHT + SECONDS * passes;
    let begin = Instant::now();
    let (behind, seen) = look_on(site.port, &broker, || {
        others.start(LIGHT..all, u64::MAX);
        let behind = others.waiting("load.events");
        others.wait_for(all);
        behind
    });
    let drained = begin.elapsed();
    let most = memory(orchestrator.pid(), "VmHWM:");
    let at_once = all - LIGHT;
    println!("{passes} sagas/s pass; {at_once} at once took {drained:?}; {light} and {most} KiB; {seen:?}");

    assert!(behind >= BEHIND * passes, "only {behind} wait, and {passes} a second pass");
    // The few that were out first are out still when as many as may are asked for.
    assert!((1..=PREFETCH + 8).contains(&seen.unacked), "{} deliveries are out", seen.unacked);
    assert!(most <= light + MAX_GROWTH, "it grew from {light} to {most} KiB");
    assert!(seen.answers > 0 && seen.answer <= PROMPT, "{seen:?}");
    let ends = others.ends.lock().unwrap();
    let once = |number: u64| ends.get(&number.to_string()) == Some(&1);
    assert!((0..all).all(once) && ends.len() as u64 == all, "not every saga ended once");
    assert_eq!(
        site.json(&["list", "--status", "running,compensating,parked,compensated", "--json"])["items"],
        json!([])
    );
    assert_eq!(site.printed(&["dead-letters"]), "no dead letters\n");
    orchestrator.stop();
}
