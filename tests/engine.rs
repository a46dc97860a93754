//! The engine over a real store: what is released, and when.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "engine/arrivals.rs"]
mod arrivals;
#[path = "engine/calls.rs"]
mod calls;
#[path = "engine/events.rs"]
mod events;
#[path = "engine/extras.rs"]
mod extras;
#[path = "engine/limits.rs"]
mod limits;

use std::time::Duration;

use sagamq::catalog::{Catalog, CatalogError};
use sagamq::config::StoreConfig;
use sagamq::definitions::Loaded;
use sagamq::delivery::{Delivery, Queue, Rejected, Release, Report, Token, Verdict};
use sagamq::engine::{Engine, Recovered};
use sagamq::saga::compile::load;
use sagamq::saga::fact::Fact;
use sagamq::saga::id::InstanceId;
use sagamq::saga::instance::{Awaiting, Instance, Status, StepStatus};
use sagamq::saga::message::{Message, Outgoing, Poison};
use sagamq::saga::time::Timestamp;
use sagamq::store::{Query, Store};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const DEFINITION: &str = include_str!("../sagas/order.yaml");

struct World {
    engine: Engine,
    store: Store,
    folder: TempDir,
    now: Timestamp,
    tag: u64,
}

impl World {
    fn new() -> Self {
        Self::of(DEFINITION)
    }

    fn of(definition: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (engine, store, _) = open(&folder, &[definition]);
        Self { engine, store, folder, now: Timestamp(1_000_000), tag: 0 }
    }

    /// As after a SIGKILL: what was not committed is gone.
    fn restart(self) -> (Self, Recovered) {
        self.restart_with(&[DEFINITION])
    }

    fn restart_with(self, definitions: &[&str]) -> (Self, Recovered) {
        let Self { engine, store, folder, now, tag } = self;
        drop((engine, store));
        let (engine, store, recovered) = open(&folder, definitions);
        (Self { engine, store, folder, now, tag }, recovered)
    }

    fn deliver(&mut self, queue: Queue, content: Result<Message, Rejected>) -> Token {
        self.tag += 1;
        let token = Token { queue, epoch: 1, tag: self.tag };
        self.engine
            .handle_delivery(Delivery { token, content: content.map_err(Box::new) }, self.now)
            .unwrap();
        token
    }

    fn place(&mut self, order: &str) -> Token {
        let data = json!({"order_id": order, "customer_id": "c-1", "customer_email": "c@example.com", "items": [], "total_amount": 10.0});
        self.deliver(Queue::Events, Ok(event("orders", "order.placed", data)))
    }

    fn reply(&mut self, to: &Outgoing, outcome: &str) -> Token {
        let message = Message {
            correlation_id: to.correlation_id(),
            data: json!({"reservation_id": "r-1"}),
            headers: Map::from_iter([("x-saga-outcome".to_owned(), Value::from(outcome))]),
            ..Message::default()
        };
        self.deliver(Queue::Replies, Ok(message))
    }

    fn published(&mut self, outgoing: &Outgoing) {
        let report = Report { origin: outgoing.origin, verdict: Verdict::Published };
        self.engine.handle_report(report, self.now).unwrap();
    }

    /// Commits what was gathered, and returns what may happen then.
    fn commit(&mut self) -> Release {
        let Some(gathered) = self.engine.take() else { return Release::default() };
        self.store.commit(gathered.batch.clone()).unwrap();
        self.engine.committed(&gathered);
        gathered.release
    }

    fn instance(&self, order: &str) -> Instance {
        self.store.reader().instance(InstanceId::new("order", order)).unwrap().unwrap()
    }
}

fn open(folder: &TempDir, definitions: &[&str]) -> (Engine, Store, Recovered) {
    let mut store = Store::open(&StoreConfig { path: folder.path().join("store"), cache_mib: 16 }).unwrap();
    let (catalog, batch) = Catalog::adopt(&loaded(definitions), &store.reader()).unwrap();
    store.commit(batch).unwrap();
    let mut engine = Engine::new(store.reader(), catalog);
    let recovered = engine.recover().unwrap();
    (engine, store, recovered)
}

fn loaded(definitions: &[&str]) -> Vec<Loaded> {
    let load = |source: &&str| Loaded {
        file: "order.yaml".into(),
        source: (*source).to_owned(),
        plan: load("order.yaml", source).unwrap().into(),
    };
    definitions.iter().map(load).collect()
}

fn event(exchange: &str, key: &str, data: Value) -> Message {
    Message {
        id: data["event_id"].as_str().map(str::to_owned),
        exchange: exchange.to_owned(),
        key: key.to_owned(),
        data,
        ..Message::default()
    }
}

#[test]
fn a_start_releases_its_ack_and_its_command_together_with_the_batch() {
    let mut world = World::new();
    let token = world.place("A-1");
    let gathered = world.engine.take().unwrap();
    assert_eq!(gathered.release.settlement.ack, [token]);
    assert_eq!(gathered.release.outgoing.len(), 1);
    assert!(!gathered.batch.is_empty());
    let reader = world.store.reader();
    assert!(
        reader.instance(InstanceId::new("order", "A-1")).unwrap().is_none(),
        "nothing is stored before the commit"
    );
    world.store.commit(gathered.batch.clone()).unwrap();
    assert_eq!(world.instance("A-1").status, Status::Running);
}

#[test]
fn a_group_of_deliveries_is_acked_by_its_highest_tag_only() {
    let mut world = World::new();
    world.place("A-1");
    world.place("A-2");
    let last = world.place("A-3");
    assert_eq!(world.commit().settlement.ack, [last]);
}

#[test]
fn the_same_start_twice_in_one_batch_starts_one_instance() {
    let mut world = World::new();
    world.place("A-1");
    let again = world.place("A-1");
    let release = world.commit();
    assert_eq!(release.outgoing.len(), 1);
    assert_eq!(release.settlement.ack, [again]);
    assert_eq!(world.instance("A-1").ignored, 1);
}

#[test]
fn a_redelivered_start_after_a_restart_sends_nothing_new() {
    let mut world = World::new();
    world.place("A-1");
    world.commit();
    let (mut world, _) = world.restart();
    world.place("A-1");
    assert!(world.commit().outgoing.is_empty());
}

#[test]
fn what_was_not_committed_comes_again_as_if_never_received() {
    let mut world = World::new();
    world.place("A-1");
    let lost = world.engine.take().unwrap().release.outgoing;
    let (mut world, recovered) = world.restart();
    assert_eq!(recovered.instances, 0);
    world.place("A-1");
    assert_eq!(world.commit().outgoing, lost, "the same bytes");
}

#[test]
fn an_unconfirmed_command_goes_out_again_byte_for_byte_after_a_restart() {
    let mut world = World::new();
    world.place("A-1");
    let sent = world.commit().outgoing;
    let (_, recovered) = world.restart();
    let again: Vec<_> = sent.into_iter().map(|outgoing| Outgoing { repeated: true, ..outgoing }).collect();
    assert_eq!(recovered.outgoing, again);
}

#[test]
fn a_confirmed_mark_rides_with_the_next_entry_of_its_instance() {
    let mut world = World::new();
    world.place("A-1");
    let sent = world.commit().outgoing;
    world.published(&sent[0]);
    let gathered = world.engine.take().unwrap();
    assert!(gathered.batch.is_empty(), "a mark needs no commit of its own");
    world.reply(&sent[0], "success");
    world.commit();
    assert_eq!(world.instance("A-1").revision, 2);
}

#[test]
fn a_confirmed_mark_goes_with_any_commit_after_a_second_and_has_one_of_its_own_after_two() {
    let unconfirmed = |world: World| {
        let (_, recovered) = world.restart();
        recovered.outgoing.len()
    };
    let marked = || {
        let mut world = World::new();
        world.place("A-1");
        let sent = world.commit().outgoing;
        world.published(&sent[0]);
        world
    };
    for (age_ms, left) in [(999, 2), (1000, 1)] {
        let mut world = marked();
        world.now = world.now + Duration::from_millis(age_ms);
        world.place("A-2");
        world.engine.take_along(world.now);
        world.commit();
        assert_eq!(unconfirmed(world), left, "after {age_ms} ms, beside another instance");
    }
    for (age_ms, left) in [(1999, 1), (2000, 0)] {
        let mut world = marked();
        world.now = world.now + Duration::from_millis(age_ms);
        assert_eq!(world.engine.next_due().is_some_and(|due| due <= world.now), left == 0);
        world.engine.take_along(world.now);
        world.engine.tick(world.now).unwrap();
        world.commit();
        assert_eq!(unconfirmed(world), left, "after {age_ms} ms, alone");
    }
}

#[test]
fn the_last_mark_of_an_instance_goes_with_the_very_next_commit() {
    let mut world = World::new();
    world.place("A-1");
    let sent = world.commit().outgoing;
    world.reply(&sent[0], "failure");
    let notice = world.commit().outgoing;
    world.published(&notice[0]);
    world.engine.take_along(world.now);
    let gathered = world.engine.take().unwrap();
    assert!(gathered.batch.is_empty(), "a mark needs no commit of its own");
    world.place("A-2");
    world.engine.take_along(world.now);
    world.commit();
    let (_, recovered) = world.restart();
    assert_eq!(recovered.instances, 1, "A-2 alone is open");
}

#[test]
fn a_reply_that_comes_before_the_confirm_is_taken_and_the_confirm_changes_nothing() {
    let mut world = World::new();
    world.place("A-1");
    let sent = world.commit().outgoing;
    world.reply(&sent[0], "success");
    let next = world.commit().outgoing;
    assert_eq!(&*next[0].key, "payment.charge");
    let before = world.instance("A-1");
    world.published(&sent[0]);
    world.commit();
    assert_eq!(world.instance("A-1"), before);
}

#[test]
fn a_plain_event_answers_the_step_whose_rule_matches() {
    let mut world = World::new();
    world.place("A-1");
    let sent = world.commit().outgoing;
    world.reply(&sent[0], "success");
    world.commit();
    let data = json!({"order_id": "A-1", "payment_id": "p-1", "status": "SUCCESS"});
    world.deliver(Queue::Events, Ok(event("payments", "payment.processed", data)));
    assert_eq!(&*world.commit().outgoing[0].key, "shipment.create");

    let data = json!({"order_id": "A-1", "tracking_number": "t-1", "carrier": "DHL"});
    world.deliver(Queue::Events, Ok(event("shipping", "order.shipped", data)));
    let outgoing = world.commit().outgoing;
    assert_eq!(&*outgoing[0].key, "order.completed");
    let body: Value = serde_json::from_slice(&outgoing[0].body).unwrap();
    assert_eq!(body["tracking_number"], "t-1");
    assert_eq!(world.instance("A-1").status, Status::Completed);
}

#[test]
fn a_declined_payment_releases_the_stock_and_tells_why() {
    let mut world = World::new();
    world.place("A-1");
    let sent = world.commit().outgoing;
    world.reply(&sent[0], "success");
    world.commit();
    let data = json!({"order_id": "A-1", "status": "FAILED"});
    world.deliver(Queue::Events, Ok(event("payments", "payment.processed", data)));
    let release = world.commit().outgoing;
    assert_eq!(&*release[0].key, "stock.release");
    world.reply(&release[0], "success");
    let outgoing = world.commit().outgoing;
    let body: Value = serde_json::from_slice(&outgoing[0].body).unwrap();
    assert_eq!((&*outgoing[0].key, &body["reason"]["code"]), ("order.rejected", &json!("PAYMENT_DECLINED")));
}

#[test]
fn an_ended_instance_stays_open_until_its_notice_is_confirmed() {
    let mut world = World::new();
    world.place("A-1");
    let sent = world.commit().outgoing;
    world.reply(&sent[0], "failure");
    let notice = world.commit().outgoing;
    let (mut world, recovered) = world.restart();
    assert_eq!(recovered.outgoing.len(), 1);
    assert_eq!(recovered.outgoing[0].message_id, notice[0].message_id);
    world.published(&notice[0]);
    world.engine.store_marks();
    world.commit();
    let (_, recovered) = world.restart();
    assert_eq!(recovered.instances, 0);
}

#[test]
fn what_can_never_be_understood_is_rejected_after_its_reason_is_stored() {
    let mut world = World::new();
    let rejected = Rejected {
        poison: Poison::NotJson("expected value at line 1 column 1".to_owned()),
        exchange: "orders".to_owned(),
        key: "order.placed".to_owned(),
        message_id: None,
        correlation_id: None,
        kind: None,
        headers: Default::default(),
        size: 7,
        preview: "garbage".to_owned(),
    };
    let poison = world.deliver(Queue::Events, Err(rejected));
    let keyless =
        world.deliver(Queue::Events, Ok(event("orders", "order.placed", json!({"customer_id": "c"}))));
    let placed = world.place("A-1");
    let sent = world.commit();
    assert_eq!(
        (sent.settlement.reject.as_slice(), sent.settlement.ack.as_slice()),
        ([poison, keyless].as_slice(), [placed].as_slice())
    );

    let mute = world.reply(&Outgoing { ..sent.outgoing[0].clone() }, "maybe");
    assert_eq!(world.commit().settlement.reject, [mute]);
    let reasons: Vec<String> = world
        .store
        .reader()
        .dead_letters(10, None)
        .unwrap()
        .items
        .into_iter()
        .map(|letter| letter.reason)
        .collect();
    assert!(reasons[0].contains("x-saga-outcome"), "{reasons:?}");
    assert!(reasons[1].contains("order_id"), "{reasons:?}");
    assert!(reasons[2].contains("not JSON"), "{reasons:?}");
    assert_eq!(world.instance("A-1").steps[0].action.attempt, 1);
}

#[test]
fn messages_for_nobody_change_nothing() {
    let mut world = World::new();
    let foreign = world.deliver(Queue::Events, Ok(event("orders", "order.archived", json!({}))));
    let other = json!({"order_id": "not-ours", "status": "SUCCESS"});
    let unknown = world.deliver(Queue::Events, Ok(event("payments", "payment.processed", other)));
    let id = InstanceId::new("order", "nobody");
    let message = Message { correlation_id: Some(id.to_string()), ..Message::default() };
    let reply = world.deliver(Queue::Replies, Ok(message));
    let release = world.commit();
    assert!(release.outgoing.is_empty());
    // No binding of ours lets the first one through.
    assert_eq!((release.settlement.ack, release.settlement.reject), (vec![unknown], vec![foreign, reply]));
}

/// A-1 with its charge out.
fn charging(definition: &str) -> (World, Outgoing) {
    let mut world = World::of(definition);
    world.place("A-1");
    let reserve = world.commit().outgoing.remove(0);
    world.reply(&reserve, "success");
    let charge = world.commit().outgoing.remove(0);
    (world, charge)
}

#[test]
fn a_command_that_is_heard_again_is_the_answer_to_none() {
    let (mut world, charge) = charging(DEFINITION);
    let mut heard = event("payments", "payment.processed", json!({"order_id": "A-1", "status": "SUCCESS"}));
    heard.correlation_id = charge.correlation_id();
    heard.is_command = true;
    world.deliver(Queue::Events, Ok(heard));
    let release = world.commit();
    assert!(release.outgoing.is_empty() && release.settlement.reject.is_empty());
}

#[test]
fn a_rule_of_another_step_does_not_get_in_the_way_of_the_one_in_flight() {
    let refund_rule = "replies: [{on: {exchange: payments, key: payment.processed}, when: '=reply.data.refund.ok', \
                       outcome: success}]\n      timeout: 5s\n      retry: undo\n\n  # The pivot";
    let definition = DEFINITION.replace("timeout: 5s\n      retry: undo\n\n  # The pivot", refund_rule);
    assert!(definition != DEFINITION);
    let (mut world, _) = charging(&definition);
    let data = json!({"order_id": "A-1", "payment_id": "p-1", "status": "SUCCESS"});
    world.deliver(Queue::Events, Ok(event("payments", "payment.processed", data)));
    assert_eq!(&*world.commit().outgoing[0].key, "shipment.create");
}

#[test]
fn an_event_that_carries_a_correlation_on_still_answers_by_its_business_key() {
    let (mut world, _) = charging(DEFINITION);
    world.place("A-2");
    let other = world.commit().outgoing.remove(0);
    let data = json!({"order_id": "A-1", "payment_id": "p-1", "status": "SUCCESS"});
    let mut processed = event("payments", "payment.processed", data);
    processed.correlation_id = other.correlation_id();
    world.deliver(Queue::Events, Ok(processed));
    let release = world.commit();
    assert_eq!(&*release.outgoing[0].key, "shipment.create");
    assert!(release.settlement.reject.is_empty());
}

#[test]
fn an_event_that_the_step_in_flight_cannot_read_is_refused_and_not_taken_for_another_instance() {
    let second = DEFINITION.replace("saga: order", "saga: invoice");
    let folder = tempfile::tempdir().unwrap();
    let (engine, store, _) = open(&folder, &[DEFINITION, &second]);
    let mut world = World { engine, store, folder, now: Timestamp(1_000_000), tag: 0 };
    world.place("A-1");
    for reserve in world.commit().outgoing {
        world.reply(&reserve, "success");
    }
    world.commit();
    let weird = json!({"order_id": "A-1", "status": "WEIRD"});
    let token = world.deliver(Queue::Events, Ok(event("payments", "payment.processed", weird)));
    assert_eq!(world.commit().settlement.reject, [token]);
    let mute = json!({"order_id": "A-1"});
    let token = world.deliver(Queue::Events, Ok(event("payments", "payment.processed", mute)));
    assert_eq!(world.commit().settlement.reject, [token]);
}

#[test]
fn an_event_that_came_by_no_exchange_is_refused_rather_than_lost() {
    let mut world = World::new();
    let token = world.deliver(Queue::Events, Ok(event("", "sagamq.events", json!({"order_id": "A-1"}))));
    assert_eq!(world.commit().settlement.reject, [token]);
}

#[test]
fn timers_wait_while_nothing_can_be_heard_and_a_moment_longer() {
    let (mut world, charge) = charging(DEFINITION);
    world.engine.listen(true, world.now);
    world.published(&charge);
    world.engine.listen(false, world.now);
    world.now = world.now + Duration::from_secs(60);
    world.engine.tick(world.now).unwrap();
    assert_eq!(world.commit().outgoing, [], "a minute without a broker is nobody's silence");
    world.engine.listen(true, world.now);
    world.engine.tick(world.now).unwrap();
    assert_eq!(world.commit().outgoing, [], "answers that came in meanwhile are taken first");
    world.now = world.engine.next_due().unwrap();
    world.engine.tick(world.now).unwrap();
    world.commit();
    assert_ne!(world.instance("A-1").steps[1].action.awaiting, Awaiting::Nothing);
    assert!(world.store.reader().history(world.instance("A-1").id).unwrap().iter().any(|entry| {
        entry.facts.iter().any(|recorded| matches!(recorded.fact, Fact::TimedOut { step: 1, .. }))
    }));
}

#[test]
fn timers_wait_after_a_time_in_which_nothing_was_heard_for_as_long_as_that_was() {
    let (mut world, charge) = charging(DEFINITION);
    world.engine.listen(true, world.now);
    world.published(&charge);
    let timed_out = |world: &mut World| {
        world.engine.tick(world.now).unwrap();
        world.commit();
        matches!(world.instance("A-1").steps[1].action.awaiting, Awaiting::Retry(_))
    };
    let stall = Duration::from_secs(60);
    world.now = world.now + stall;
    world.engine.unheard(stall, world.now);
    assert!(!timed_out(&mut world), "answers that came in meanwhile are taken first");
    world.now = world.now + stall;
    assert!(timed_out(&mut world));
}

#[test]
fn a_retry_without_delay_is_sent_at_once() {
    let definition = DEFINITION.replace("initial: 500ms, factor: 2, max: 10s, jitter: full", "initial: 1ms");
    assert!(definition != DEFINITION);
    let mut world = World::of(&definition);
    world.engine.listen(true, world.now);
    for order in 0..20 {
        world.place(&format!("A-{order}"));
    }
    for command in world.commit().outgoing {
        world.reply(&command, "retry");
    }
    world.commit();
    world.now = world.now + Duration::from_millis(2);
    world.engine.tick(world.now).unwrap();
    assert_eq!(world.commit().outgoing.len(), 20);
}

#[test]
fn a_definition_that_was_replaced_is_still_listened_to_while_an_instance_of_it_is_parked() {
    let (mut world, _) =
        charging(&DEFINITION.replace("kind: pivot\n", "kind: pivot\n    on_timeout: park\n"));
    let data = json!({"order_id": "A-1", "payment_id": "p-1", "status": "SUCCESS"});
    world.deliver(Queue::Events, Ok(event("payments", "payment.processed", data)));
    let ship = world.commit().outgoing.remove(0);
    world.engine.listen(true, world.now);
    world.published(&ship);
    world.now = world.now + Duration::from_secs(30);
    world.engine.tick(world.now).unwrap();
    let notice = world.commit().outgoing.remove(0);
    world.published(&notice);
    world.engine.store_marks();
    world.commit();
    assert_eq!(world.instance("A-1").status, Status::Parked);

    let World { engine, store, folder, now, .. } = world;
    drop((engine, store));
    let second =
        DEFINITION.replace("\nversion: 1", "\nversion: 2").replace("key: order.shipped", "key: order.sent");
    let (engine, store, _) = open(&folder, &[&second]);
    let mut world = World { engine, store, folder, now, tag: 0 };
    let data = json!({"order_id": "A-1", "tracking_number": "t-1", "carrier": "DHL"});
    world.deliver(Queue::Events, Ok(event("shipping", "order.shipped", data)));
    assert_eq!(&*world.commit().outgoing[0].key, "order.completed");
}

/// A saga that waits for what starts it, too.
const LISTENING: &str = "
saga: claim
version: 1
start: {on: {exchange: claims, key: claim.*}, business_key: =event.data.id}
steps:
  - step: open
    command: {exchange: desk, key: open}
    replies: [{on: {exchange: claims, key: claim.*}, outcome: success}]
    compensate: none
  - {wait: documents, on: {exchange: claims, key: claim.*}, timeout: 7d}
";

#[test]
fn an_event_that_starts_an_instance_is_no_answer_to_it_not_even_when_it_comes_again() {
    let mut world = World::of(LISTENING);
    let of_claim = |id: &str, key: &str| event("claims", key, json!({"event_id": id, "id": "C-1"}));
    let claim =
        |world: &World| world.store.reader().instance(InstanceId::new("claim", "C-1")).unwrap().unwrap();
    for _ in 0..2 {
        world.deliver(Queue::Events, Ok(of_claim("e-1", "claim.made")));
        assert!(world.commit().settlement.reject.is_empty());
        let statuses: Vec<_> = claim(&world).steps.iter().map(|step| step.status).collect();
        assert_eq!(statuses, [StepStatus::Dispatched, StepStatus::Pending]);
    }
    world.deliver(Queue::Events, Ok(of_claim("e-2", "claim.opened")));
    world.deliver(Queue::Events, Ok(of_claim("e-3", "claim.documented")));
    world.commit();
    assert_eq!(claim(&world).status, Status::Completed);
}

#[test]
fn an_event_that_starts_an_instance_is_no_dead_letter_where_it_is_no_answer_that_can_be_read() {
    let other_key = LISTENING.replace("timeout: 7d", "timeout: 7d, business_key: =event.data.reference");
    let rule = "    replies: [{on: {exchange: claims, key: claim.*}, outcome: success}]\n";
    let mut world = World::of(&other_key.replace(rule, ""));
    let of_claim = |id: &str| event("claims", "claim.made", json!({"event_id": id, "id": "C-1"}));
    for _ in 0..2 {
        let token = world.deliver(Queue::Events, Ok(of_claim("e-1")));
        assert_eq!(world.commit().settlement.ack, [token]);
    }
}

#[test]
fn a_cancellation_undoes_the_instance_that_it_names() {
    let mut world = World::new();
    world.place("A-1");
    let sent = world.commit().outgoing;
    world.deliver(Queue::Events, Ok(event("orders", "order.cancelled", json!({"order_id": "A-1"}))));
    world.commit();
    world.reply(&sent[0], "success");
    assert_eq!(&*world.commit().outgoing[0].key, "stock.release");
}

#[test]
fn a_version_never_changes_and_an_instance_keeps_its_own() {
    let mut world = World::new();
    world.place("A-1");
    let sent = world.commit().outgoing;
    let World { engine, store, folder, .. } = world;
    let changed = DEFINITION.replace("key: payment.charge\n", "key: payment.take\n");
    assert!(changed != DEFINITION);
    let refused = Catalog::adopt(&loaded(&[&changed]), &store.reader());
    assert!(matches!(refused, Err(CatalogError::Changed(_))), "{refused:?}");
    drop((engine, store));

    let second = changed.replace("\nversion: 1", "\nversion: 2");
    let (engine, store, _) = open(&folder, &[&second]);
    let mut world = World { engine, store, folder, now: Timestamp(2_000_000), tag: 0 };
    world.reply(&sent[0], "success");
    world.place("A-2");
    let release = world.commit().outgoing;
    assert_eq!(&*release[0].key, "payment.charge", "A-1 goes on as version 1");
    world.reply(&release[1], "success");
    assert_eq!(&*world.commit().outgoing[0].key, "payment.take", "A-2 is version 2");
}

#[test]
fn a_definition_is_needed_until_the_end_of_its_last_instance_is_durable_also_over_a_restart() {
    let needed = |engine: &Engine| {
        let mut versions: Vec<_> = engine.catalog().needed().map(|plan| plan.version).collect();
        versions.sort_unstable();
        versions
    };
    let mut world = World::new();
    world.place("A-1");
    let sent = world.commit().outgoing;
    let second = loaded(&[&DEFINITION.replace("\nversion: 1", "\nversion: 2")]);
    world.engine.define(&second).unwrap();
    world.commit();
    world.engine.adopt(&second);
    assert_eq!(needed(&world.engine), [1, 2]);

    let World { engine, store, folder, now, .. } = world;
    drop((engine, store));
    let (engine, store, _) = open(&folder, &[&second[0].source]);
    assert_eq!(needed(&engine), [1, 2], "the instance is taken up");
    let mut world = World { engine, store, folder, now, tag: 0 };
    world.reply(&sent[0], "failure");
    let gathered = world.engine.take().unwrap();
    assert_eq!(needed(&world.engine), [1, 2], "the end is not durable");
    world.store.commit(gathered.batch.clone()).unwrap();
    world.engine.committed(&gathered);
    let notices = gathered.release.outgoing;
    assert_eq!(needed(&world.engine), [1, 2], "the end is not told");
    notices.iter().for_each(|notice| world.published(notice));
    world.now = world.now + Duration::from_secs(2);
    world.engine.tick(world.now).unwrap();
    world.commit();
    assert_eq!(needed(&world.engine), [2]);
}

#[test]
fn a_second_writer_on_one_history_is_found_out() {
    let mut world = World::new();
    world.place("A-1");
    let gathered = world.engine.take().unwrap();
    world.store.commit(gathered.batch.clone()).unwrap();
    assert!(world.store.commit(gathered.batch.clone()).is_err(), "the same revision twice");
}
