//! Events that several things listen to: each counts once for an instance, and whom it is for is never guessed.

use super::*;

const RELEASE: &str = r#"
saga: release
version: 1
start: {on: {exchange: in, key: release.asked}, business_key: =event.data.id}
cancel: {on: {exchange: in, key: release.revoked}, business_key: =event.data.id}
on_cancel_refused: {emit: {exchange: out, key: release.not_revoked}}
steps:
  - {wait: first_eye, on: {exchange: desk, key: release.approved}, timeout: 1h, output: {by: =event.data.by}}
  - {step: note, command: {exchange: notes, key: note}, compensate: none}
  - {wait: second_eye, on: {exchange: desk, key: release.approved}, timeout: 1h, output: {by: =event.data.by}}
  - {step: open, kind: pivot, command: {exchange: doors, key: open}}
  - {wait: closed, on: {exchange: desk, key: release.closed}, timeout: 1h}
"#;

/// Both steps are answered by the same kind of event.
const PURCHASE: &str = r#"
saga: purchase
version: 1
start: {on: {exchange: in, key: purchase.begun}, business_key: =event.data.id}
retry: {soon: {attempts: 3, initial: 1s, jitter: none}}
steps:
  - step: authorise
    command: {exchange: pay, key: card.authorise}
    timeout: 10s
    retry: soon
    replies:
      - {on: {exchange: ev, key: card.handled}, when: =has(reply.data.busy), outcome: retry}
      - {on: {exchange: ev, key: card.handled}, outcome: success}
    compensate: none
  - step: capture
    command: {exchange: pay, key: card.capture}
    replies: [{on: {exchange: ev, key: card.handled}, outcome: success}]
    compensate: none
"#;

fn world(definitions: &[&str]) -> World {
    let folder = tempfile::tempdir().unwrap();
    let (mut engine, store, _) = open(&folder, definitions);
    engine.listen(true, Timestamp(1_000_000));
    World { engine, store, folder, now: Timestamp(1_000_000), tag: 0 }
}

impl World {
    /// Delivers an event, and commits what follows.
    fn hear(&mut self, exchange: &str, key: &str, id: Option<&str>, data: Value) -> Release {
        self.deliver(Queue::Events, Ok(Message { id: id.map(str::to_owned), ..event(exchange, key, data) }));
        self.commit()
    }

    fn approve(&mut self, id: Option<&str>, by: &str) -> Release {
        self.hear("desk", "release.approved", id, json!({"id": "R-1", "by": by}))
    }

    fn instance_of(&self, saga: &str, key: &str) -> Instance {
        self.store.reader().instance(InstanceId::new(saga, key)).unwrap().unwrap()
    }

    fn statuses(&self, saga: &str, key: &str) -> Vec<&'static str> {
        self.instance_of(saga, key).steps.iter().map(|step| step.status.as_str()).collect()
    }

    /// What became of messages that changed nothing of an instance.
    fn ignored(&self, saga: &str, key: &str) -> Vec<&'static str> {
        let history = self.store.reader().history(InstanceId::new(saga, key)).unwrap();
        let facts = history.iter().flat_map(|entry| &entry.facts);
        facts
            .filter_map(|recorded| match &recorded.fact {
                Fact::Ignored { what, .. } => Some(what.as_str()),
                _ => None,
            })
            .collect()
    }

    fn release() -> (Self, Outgoing) {
        let mut world = world(&[RELEASE]);
        world.hear("in", "release.asked", Some("S-1"), json!({"id": "R-1"}));
        let note = world.approve(Some("E-1"), "ann").outgoing.remove(0);
        (world, note)
    }
}

#[test]
fn an_approval_that_comes_again_is_not_the_second_one() {
    for id in [Some("E-1"), None] {
        let mut world = world(&[RELEASE]);
        world.hear("in", "release.asked", Some("S-1"), json!({"id": "R-1"}));
        let note = world.approve(id, "ann").outgoing.remove(0);
        // Before the second wait has its turn, and after it.
        world.approve(id, "ann");
        world.reply(&note, "success");
        world.commit();
        assert_eq!(world.statuses("release", "R-1")[..3], ["succeeded", "succeeded", "dispatched"]);
        world.approve(id, "ann");
        assert_eq!(world.statuses("release", "R-1")[2], "dispatched", "{id:?}");
        assert_eq!(world.ignored("release", "R-1"), ["duplicate_reply", "duplicate_reply"]);
        world = world.restart_with(&[RELEASE]).0;
        world.approve(id, "ann");
        assert_eq!(world.statuses("release", "R-1")[2], "dispatched", "also after a restart");
    }
}

#[test]
fn approvals_of_two_people_both_count_also_before_their_turn() {
    for ids in [(Some("E-1"), Some("E-2")), (None, None)] {
        let (mut world, note) = World::release();
        world.approve(ids.1, "bob");
        assert_eq!(world.ignored("release", "R-1").len(), 0);
        world.reply(&note, "success");
        assert_eq!(&*world.commit().outgoing[0].key, "open");
        let by: Vec<_> =
            world.instance_of("release", "R-1").steps.iter().map(|step| step.output.clone()).collect();
        assert_eq!(by[0].as_deref(), Some(&json!({"by": "ann"})));
        assert_eq!(by[2].as_deref(), Some(&json!({"by": "bob"})));
    }
}

#[test]
fn two_approvals_that_both_come_before_any_turn_both_count() {
    const EARLY: &str = r#"
saga: early
version: 1
start: {on: {exchange: in, key: asked}, business_key: =event.data.id}
steps:
  - {step: ask, command: {exchange: desk, key: ask}, compensate: none}
  - {wait: first_eye, on: {exchange: desk, key: approved}, timeout: 1h}
  - {wait: second_eye, on: {exchange: desk, key: approved}, timeout: 1h}
"#;
    let mut world = world(&[EARLY]);
    let ask = world.hear("in", "asked", Some("S"), json!({"id": "1"})).outgoing.remove(0);
    for id in ["E-1", "E-1", "E-2", "E-2"] {
        world.hear("desk", "approved", Some(id), json!({"id": "1"}));
    }
    assert_eq!(world.ignored("early", "1"), ["duplicate_reply", "duplicate_reply"]);
    world.reply(&ask, "success");
    world.commit();
    assert_eq!(world.instance_of("early", "1").status, Status::Completed);
}

#[test]
fn cloud_events_of_one_id_and_two_sources_are_two_events() {
    let approved = |source: &str| Message {
        id: Some("1".to_owned()),
        source: Some(source.to_owned()),
        is_cloud_event: true,
        ..event("desk", "release.approved", json!({"id": "R-1", "by": source}))
    };
    let mut other = world(&[RELEASE]);
    other.hear("in", "release.asked", Some("S-1"), json!({"id": "R-1"}));
    for source in ["/ann", "/ann", "/bob"] {
        other.deliver(Queue::Events, Ok(approved(source)));
    }
    other.commit();
    let early = other.instance_of("release", "R-1").steps[2].early.is_some();
    assert!(early, "the one of /bob counts, the second one of /ann does not");
    assert_eq!(other.ignored("release", "R-1"), ["duplicate_reply"]);
}

#[test]
fn an_event_settles_one_step_and_not_the_next_one_too() {
    for id in [Some("E-1"), None] {
        let mut world = world(&[PURCHASE]);
        world.hear("in", "purchase.begun", Some("S-1"), json!({"id": "P-1"}));
        let sent = world.hear("ev", "card.handled", id, json!({"id": "P-1"}));
        assert_eq!(&*sent.outgoing[0].key, "card.capture");
        let again = world.hear("ev", "card.handled", id, json!({"id": "P-1"}));
        assert!(again.outgoing.is_empty() && again.settlement.reject.is_empty());
        assert_eq!(world.statuses("purchase", "P-1"), ["succeeded", "dispatched"]);
        world.hear("ev", "card.handled", Some("E-2"), json!({"id": "P-1"}));
        assert_eq!(world.instance_of("purchase", "P-1").status, Status::Completed);
    }
}

#[test]
fn an_event_that_fails_one_attempt_does_not_fail_the_next_one() {
    let mut world = world(&[PURCHASE]);
    world.hear("in", "purchase.begun", Some("S-1"), json!({"id": "P-1"}));
    let busy = json!({"id": "P-1", "busy": true});
    for attempt in 1..=2 {
        world.hear("ev", "card.handled", Some("E-1"), busy.clone());
        world.now = world.now + Duration::from_secs(1);
        world.engine.tick(world.now).unwrap();
        world.commit();
        assert_eq!(world.instance_of("purchase", "P-1").steps[0].action.attempt, 2, "after {attempt}");
    }
    assert_eq!(world.ignored("purchase", "P-1"), ["duplicate_reply"]);
}

#[test]
fn a_cancellation_that_comes_again_is_refused_once() {
    let (mut world, note) = World::release();
    world.reply(&note, "success");
    world.commit();
    let open = world.approve(Some("E-2"), "bob").outgoing.remove(0);
    world.reply(&open, "success");
    world.commit();
    for (id, told) in [("C-1", 1), ("C-1", 0), ("C-2", 1), ("C-2", 0)] {
        let sent = world.hear("in", "release.revoked", Some(id), json!({"id": "R-1"})).outgoing;
        assert_eq!(sent.len(), told, "{id}");
    }
}

#[test]
fn a_start_event_that_comes_again_answers_nothing_of_what_it_started() {
    const SELF: &str = r#"
saga: self
version: 1
start: {on: {exchange: in, key: asked}, business_key: =event.data.id}
steps:
  - {wait: again, on: {exchange: in, key: asked}, timeout: 1h}
"#;
    for id in [Some("S-1"), None] {
        let mut world = world(&[SELF]);
        for _ in 0..3 {
            world.hear("in", "asked", id, json!({"id": "1"}));
        }
        assert_eq!(world.instance_of("self", "1").status, Status::Running, "{id:?}");
        world.hear("in", "asked", Some("S-2"), json!({"id": "1"}));
        assert_eq!(world.instance_of("self", "1").status, Status::Completed);
    }
}

#[test]
fn an_event_with_a_correlation_answers_the_instance_that_it_names_and_no_other() {
    const STOCK: &str = r#"
saga: stock
version: 1
start: {on: {exchange: in, key: stock.wanted}, business_key: =event.data.id}
steps:
  - step: reserve
    command: {exchange: p, key: reserve}
    replies: [{on: {exchange: ev, key: reserved}, outcome: success}]
    compensate: none
  - {wait: checked, on: {exchange: ev, key: checked}, timeout: 1h}
"#;
    for (key, step) in [("reserved", 0), ("checked", 1)] {
        let mut world = world(&[STOCK]);
        world.hear("in", "stock.wanted", Some("S-1"), json!({"id": "one"}));
        let two = world.hear("in", "stock.wanted", Some("S-2"), json!({"id": "two"})).outgoing.remove(0);
        let named = event("ev", key, json!({"id": "one"}));
        let named = Message { id: Some("E-1".to_owned()), correlation_id: two.correlation_id(), ..named };
        world.deliver(Queue::Events, Ok(named));
        world.commit();
        let pending = ["dispatched", "pending"][step];
        assert_eq!(world.statuses("stock", "one")[step], pending, "{key}");
        let state = world.instance_of("stock", "two").steps[step].clone();
        assert!(state.status == StepStatus::Succeeded || state.early.is_some(), "{key}: {state:?}");
    }
}

#[test]
fn an_event_with_a_correlation_that_comes_again_answers_no_other_instance() {
    const VISIT: &str = r#"
saga: visit
version: 1
start: {on: {exchange: in, key: visit.asked}, business_key: =event.data.id}
steps:
  - {step: tell, command: {exchange: p, key: tell}, compensate: none}
  - {wait: seen, on: {exchange: ev, key: seen}, timeout: 1h}
  - {step: close, command: {exchange: p, key: close}, compensate: none}
"#;
    for id in [Some("E-1"), None] {
        let mut world = world(&[VISIT]);
        world.hear("in", "visit.asked", Some("S-1"), json!({"id": "one"}));
        let two = world.hear("in", "visit.asked", Some("S-2"), json!({"id": "two"})).outgoing.remove(0);
        world.reply(&two, "success");
        let named = event("ev", "seen", json!({"id": "one"}));
        let named = Message { id: id.map(str::to_owned), correlation_id: two.correlation_id(), ..named };
        for _ in 0..2 {
            world.deliver(Queue::Events, Ok(named.clone()));
            world.commit();
        }
        assert_eq!(world.statuses("visit", "two"), ["succeeded", "succeeded", "dispatched"]);
        assert!(world.instance_of("visit", "one").steps[1].early.is_none(), "{id:?}");
    }
}

#[test]
fn an_event_settles_nothing_by_a_header_or_by_a_correlation_that_was_made_up() {
    let mut world = world(&[PURCHASE]);
    let sent = world.hear("in", "purchase.begun", Some("S-1"), json!({"id": "P-1"})).outgoing.remove(0);
    let outcome = |word: &str| Map::from_iter([("x-saga-outcome".to_owned(), Value::from(word))]);
    let forged = |correlation: Option<String>| Message {
        correlation_id: correlation,
        headers: outcome("success"),
        ..event("anywhere", "at.all", json!({}))
    };
    world.deliver(Queue::Events, Ok(forged(sent.correlation_id())));
    // The step's own rule counts, and not what the header says.
    let handled = event("ev", "card.handled", json!({"id": "P-1", "busy": true}));
    world.deliver(Queue::Events, Ok(Message { headers: outcome("success"), ..handled }));
    world.commit();
    assert_eq!(world.statuses("purchase", "P-1"), ["dispatched", "pending"]);
    // The message id is a function of public names; neither it nor a correlation with another MAC is a way in.
    let mut made_up = sent.correlation_id().unwrap();
    let last = if made_up.pop() == Some('A') { 'B' } else { 'A' };
    made_up.push(last);
    for correlation in [sent.message_id.to_string(), made_up] {
        let token = world
            .deliver(Queue::Replies, Ok(Message { exchange: String::new(), ..forged(Some(correlation)) }));
        assert_eq!(world.commit().settlement.reject, [token]);
    }
    assert_eq!(world.statuses("purchase", "P-1"), ["dispatched", "pending"]);
    assert_eq!(world.instance_of("purchase", "P-1").heard.len(), 1, "the event that failed the attempt");
}

#[test]
fn an_event_that_carries_the_headers_of_a_command_on_answers_its_step() {
    let mut world = world(&[PURCHASE]);
    let sent = world.hear("in", "purchase.begun", Some("S-1"), json!({"id": "P-1"})).outgoing.remove(0);
    let headers =
        ["x-saga-id", "x-saga-command-id"].map(|name| (name.to_owned(), Value::from(sent.headers.get(name))));
    let handled = event("ev", "card.handled", json!({"id": "another"}));
    world.deliver(Queue::Events, Ok(Message { headers: Map::from_iter(headers), ..handled }));
    world.commit();
    assert_eq!(world.statuses("purchase", "P-1"), ["succeeded", "dispatched"]);
}

const PICKY: &str = r#"
saga: picky
version: 1
start: {on: {exchange: in, key: picky.go}, business_key: =event.data.id}
steps:
  - wait: ok
    events: [{on: {exchange: ev, key: "order.#"}, business_key: =event.data.reference, when: '=event.data.kind == "ok"'}]
    timeout: 1h
"#;
const EASY: &str = r#"
saga: easy
version: 1
start: {on: {exchange: in, key: easy.go}, business_key: =event.data.id}
steps: [{wait: moved, on: {exchange: ev, key: "order.#"}, timeout: 1h}]
"#;
const STARTS: &str = r#"
saga: starts
version: 1
start: {on: {exchange: ev, key: order.placed}, business_key: =event.data.id}
steps: [{step: s, command: {exchange: p, key: do}, compensate: none}]
"#;

#[test]
fn what_one_saga_cannot_read_is_on_record_although_another_takes_it() {
    let mut world = world(&[PICKY, EASY]);
    world.hear("in", "picky.go", Some("S-1"), json!({"id": "A-1"}));
    world.hear("in", "easy.go", Some("S-2"), json!({"id": "B-1"}));
    let moved = world.hear("ev", "order.moved", Some("E-1"), json!({"id": "B-1", "reference": "A-1"}));
    assert_eq!(world.instance_of("easy", "B-1").status, Status::Completed);
    assert_eq!(moved.settlement.reject.len(), 1, "a dead letter for the other");
    assert_eq!(world.ignored("picky", "A-1"), ["unreadable_reply"]);
    let letter = world.store.reader().dead_letters(1, None).unwrap().items.remove(0);
    let about = (letter.saga.as_deref(), letter.business_key.as_deref());
    assert_eq!(about, (Some("picky"), Some("A-1")), "{letter:?}");
}

#[test]
fn a_start_event_that_another_saga_cannot_read_is_one_instance_and_no_dead_letter() {
    let mut world = world(&[PICKY, STARTS]);
    let placed = world.hear("ev", "order.placed", Some("E-1"), json!({"id": "1"}));
    assert_eq!((placed.outgoing.len(), placed.settlement.reject.len()), (1, 0));
    // Nor where it names an instance; but there it is on the history.
    world.hear("in", "picky.go", Some("S-1"), json!({"id": "A-1"}));
    let placed = world.hear("ev", "order.placed", Some("E-2"), json!({"id": "2", "reference": "A-1"}));
    assert_eq!((placed.outgoing.len(), placed.settlement.reject.len()), (1, 0));
    assert_eq!(world.ignored("picky", "A-1"), ["unreadable_reply"]);
}

#[test]
fn a_wrong_reply_is_on_the_history_of_its_instance_and_in_its_dead_letter() {
    let mut world = World::new();
    world.place("A-1");
    let reserve = world.commit().outgoing.remove(0);
    world.reply(&reserve, "maybe");
    world.commit();
    let rejected = Rejected {
        poison: Poison::NotJson("expected value at line 1 column 1".to_owned()),
        exchange: String::new(),
        key: "sagamq.replies".to_owned(),
        message_id: Some("m-1".to_owned()),
        correlation_id: reserve.correlation_id(),
        kind: None,
        headers: Default::default(),
        size: 7,
        preview: "garbage".to_owned(),
    };
    world.deliver(Queue::Replies, Err(rejected));
    world.commit();
    assert_eq!(world.ignored("order", "A-1"), ["unreadable_reply", "unreadable_reply"]);
    let letters = world.store.reader().dead_letters(10, None).unwrap().items;
    for letter in &letters {
        let about = [&letter.saga, &letter.business_key, &letter.step].map(|field| field.as_deref());
        assert_eq!(about, [Some("order"), Some("A-1"), Some("reserve_stock")]);
        assert_eq!(letter.correlation_id, reserve.correlation_id());
    }
    assert_eq!(letters.len(), 2);
    // The timeout that follows tells of it.
    world.engine.listen(true, world.now);
    world.published(&reserve);
    world.now = world.now + Duration::from_secs(60);
    world.engine.tick(world.now).unwrap();
    world.commit();
    let step = world.instance("A-1").steps[0].clone();
    assert!(step.misread.unwrap().contains("not JSON"), "what is told with the timeout");
}

const GUARDED: &str = r#"
saga: guarded
version: 1
start: {on: {exchange: in, key: go}, business_key: =event.data.id, from_user: shop}
cancel: {on: {exchange: in, key: stop}, business_key: =event.data.id, from_user: [shop, desk]}
steps:
  - {step: charge, command: {exchange: pay, key: charge}, from_user: payments, compensate: none}
  - {wait: approval, on: {exchange: desk, key: approved}, timeout: 1h, from_user: desk, output: {by: =event.user}}
"#;

#[test]
fn only_messages_of_the_users_that_are_named_count_and_who_sent_them_is_on_the_history() {
    let mut world = world(&[GUARDED]);
    let from = |user: Option<&str>, message: Message| Message { user: user.map(str::to_owned), ..message };
    let id = || json!({"id": "G-1"});
    let reasons = |world: &World| -> Vec<String> {
        let letters = world.store.reader().dead_letters(100, None).unwrap().items;
        letters.into_iter().map(|letter| letter.reason).rev().collect()
    };
    for user in [None, Some("mallory")] {
        world.deliver(Queue::Events, Ok(from(user, event("in", "go", id()))));
        world.commit();
    }
    assert_eq!(
        reasons(&world),
        [
            "saga guarded: start event: it has no user_id, and counts only from \"shop\": have the sender set that property",
            "saga guarded: start event: it comes from user \"mallory\", and counts only from \"shop\"",
        ]
    );
    world.deliver(Queue::Events, Ok(from(Some("shop"), event("in", "go", id()))));
    let charge = world.commit().outgoing.remove(0);
    let reply = |user: &str| Message {
        correlation_id: charge.correlation_id(),
        headers: Map::from_iter([("x-saga-outcome".to_owned(), Value::from("success"))]),
        ..from(Some(user), Message::default())
    };
    world.deliver(Queue::Replies, Ok(reply("shop")));
    world.deliver(Queue::Events, Ok(from(Some("payments"), event("desk", "approved", id()))));
    world.deliver(Queue::Events, Ok(from(Some("payments"), event("in", "stop", id()))));
    world.commit();
    assert_eq!(world.statuses("guarded", "G-1"), ["dispatched", "pending"]);
    assert_eq!(world.ignored("guarded", "G-1"), ["unreadable_reply"; 3]);
    assert_eq!(
        reasons(&world)[2..],
        [
            "answer to step \"charge\": it comes from user \"shop\", and counts only from \"payments\"",
            "event for step \"approval\": it comes from user \"payments\", and counts only from \"desk\"",
            "cancellation: it comes from user \"payments\", and counts only from \"shop\" or \"desk\"",
        ]
    );
    world.deliver(Queue::Replies, Ok(reply("payments")));
    world.deliver(Queue::Events, Ok(from(Some("desk"), event("desk", "approved", id()))));
    world.commit();
    let instance = world.instance_of("guarded", "G-1");
    assert_eq!(
        (instance.status, instance.steps[1].output.as_deref()),
        (Status::Completed, Some(&json!({"by": "desk"})))
    );
    let history = world.store.reader().history(instance.id).unwrap();
    let users: Vec<_> = history.iter().filter_map(|entry| entry.user.as_deref()).collect();
    assert_eq!(users, ["shop", "shop", "payments", "payments", "payments", "desk"]);
}
