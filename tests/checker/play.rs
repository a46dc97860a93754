//! A run in memory: the transition function, honest participants with ledgers, a tap, a log of acks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sagamq::checker::Evidence;
use sagamq::checker::evidence::{Acked, Dead, Entry, Observed, Placed, Placing, Seen, Settled};
use sagamq::saga::command;
use sagamq::saga::compile::load;
use sagamq::saga::fact::{Failure, HistoryEntry};
use sagamq::saga::id::{EventKey, Phase, StoreId};
use sagamq::saga::instance::{Instance, Status};
use sagamq::saga::message::{Message, Outgoing, Part};
use sagamq::saga::order::{Order, Verb};
use sagamq::saga::plan::Plan;
use sagamq::saga::reply::Outcome;
use sagamq::saga::time::Timestamp;
use sagamq::saga::transition::{Decision, Event, start, transition};
use sagamq::store::DeadLetter;
use serde_json::{Value, json};

/// What every order says beside its id: numbers of which doubles would make others.
pub(crate) const NUMBERS: [&str; 2] = ["90071992547409930001", "12.50"];

pub(crate) const RESERVE: usize = 0;
pub(crate) const CHARGE: usize = 1;
pub(crate) const SHIP: usize = 2;
pub(crate) const INVOICE: usize = 3;

pub(crate) const DEFINITION: &str = r#"
saga: order
version: 1
start:
  on: {exchange: orders, key: order.placed}
  business_key: =event.data.order_id
deadline: {after: 1h, then: compensate}
retry:
  normal: {attempts: 3, initial: 1s, factor: 2, max: 60s, jitter: none}
  undo: {attempts: 2, initial: 1s, jitter: none}
steps:
  - step: reserve
    command: {exchange: inventory, key: stock.reserve, body: {order: =saga.business_key}}
    timeout: 10s
    retry: normal
    output: {reservation: =reply.data.reservation}
    compensate:
      command: {exchange: inventory, key: stock.release, body: {reservation: =steps.reserve.output.reservation}}
      timeout: 10s
      retry: undo
  - step: charge
    command: {exchange: payments, key: payment.charge, body: {order: =saga.business_key}}
    timeout: 10s
    retry: normal
    compensate:
      command: {exchange: payments, key: payment.refund, body: {order: =saga.business_key}}
      timeout: 10s
      retry: undo
  - step: ship
    kind: pivot
    command: {exchange: shipping, key: shipment.create, body: {order: =saga.business_key}}
    timeout: 10s
    retry: normal
  - step: invoice
    kind: retriable
    when: =input.invoice
    command: {exchange: billing, key: invoice.send, body: {order: =saga.business_key}}
    timeout: 10s
    retry: undo
on_completed: {emit: {exchange: orders, key: order.completed, body: {order: =saga.business_key}}}
on_compensated: {emit: {exchange: orders, key: order.rejected, body: {reason: =saga.error}}}
on_parked: {emit: {exchange: orders, key: order.parked, body: {reason: =saga.error}}}
"#;

/// One instance and everything around it. [`Play::end`] adds it to the evidence.
pub(crate) struct Play {
    pub(crate) plan: Arc<Plan>,
    pub(crate) instance: Instance,
    pub(crate) history: Vec<HistoryEntry>,
    pub(crate) now: Timestamp,
    pub(crate) evidence: Evidence,
    /// What the participants answered, by command id.
    answers: HashMap<String, bool>,
    replies: usize,
}

impl Play {
    /// Places a start event; the instance begins.
    pub(crate) fn start(mut evidence: Evidence, order: &str) -> Self {
        let plan = Arc::new(load("order.yaml", DEFINITION).unwrap());
        evidence.plans.insert(plan.hash.clone(), Arc::clone(&plan));
        let now = Timestamp(1_700_000_000_000);
        let id = format!("start-{order}");
        let [serial, weight] = NUMBERS;
        let data = format!(
            "{{\"order_id\": \"{order}\", \"invoice\": true, \"serial\": {serial}, \"weight\": {weight}}}"
        );
        let data = serde_json::from_str(&data).unwrap();
        let event = Message { id: Some(id.clone()), data, ..Message::default() };
        let (instance, decision) = start(&plan, order.to_owned(), &event, StoreId::default(), now).unwrap();
        let mut play =
            Self { plan, instance, history: Vec::new(), now, evidence, answers: HashMap::new(), replies: 0 };
        play.place(&id, |saga, business_key| Placing::Start { saga, business_key });
        play.keep(decision, Some(id.clone()));
        play.ack("sagamq.events", &id);
        play
    }

    /// The instance is over, and stays as it is.
    pub(crate) fn end(mut self) -> Evidence {
        self.evidence.instances.push(Observed { instance: self.instance, history: self.history });
        self.evidence
    }

    /// Publishes what is to be published, and has the broker confirm it.
    pub(crate) fn publish(&mut self) -> &mut Self {
        for part in self.instance.unconfirmed().collect::<Vec<_>>() {
            self.send(part);
            self.event(Event::Published(part), None);
        }
        self
    }

    /// Publishes what is to be published; the confirm is lost.
    pub(crate) fn send_all(&mut self) -> &mut Self {
        for part in self.instance.unconfirmed().collect::<Vec<_>>() {
            self.send(part);
        }
        self
    }

    pub(crate) fn send(&mut self, part: Part) {
        let outgoing: Outgoing = command::render(&self.plan, &self.instance, part).unwrap().unwrap();
        self.evidence.messages.push(Seen {
            message_id: outgoing.message_id.to_string(),
            exchange: outgoing.exchange.to_string(),
            key: outgoing.key.to_string(),
            headers: outgoing.header_texts().collect(),
            body: String::from_utf8(outgoing.body).unwrap(),
            at: self.now,
        });
    }

    /// The participant does the step, or refuses to, and answers.
    pub(crate) fn answer(&mut self, step: usize, phase: Phase, is_success: bool) -> &mut Self {
        let is_success = self.book(step, phase, is_success);
        self.reply(step, phase, is_success)
    }

    /// The participant does the step, or refuses to, unless it has settled that command before; what it
    /// will answer is returned.
    pub(crate) fn book(&mut self, step: usize, phase: Phase, is_success: bool) -> bool {
        let name = self.instance.steps[step].name.clone();
        let id = |phase| self.instance.attempt_id(&name, phase, 1).to_string();
        let (command_id, action) = (id(phase), id(Phase::Action));
        if let Some(known) = self.answers.get(&command_id) {
            return *known;
        }
        let is_undone = self.answers.contains_key(&id(Phase::Compensation));
        let was_done = self.answers.get(&action).copied().unwrap_or(false);
        let (amount, is_success) = match phase {
            Phase::Action if is_undone => (0, false),
            Phase::Action => (i64::from(is_success), is_success),
            Phase::Compensation => (-i64::from(was_done && is_success), is_success),
        };
        self.answers.insert(command_id.clone(), is_success);
        self.evidence.entries.push(Entry {
            participant: name.clone(),
            command_id,
            compensates: (phase == Phase::Compensation).then_some(action),
            effect: if amount == 0 { BTreeMap::new() } else { BTreeMap::from([(name, amount)]) },
            answer: if is_success { "success" } else { "failure" }.into(),
            at: self.now,
        });
        is_success
    }

    /// What the participant said arrives.
    pub(crate) fn reply(&mut self, step: usize, phase: Phase, is_success: bool) -> &mut Self {
        let outcome = if is_success {
            Outcome::Success(Ok(json!({"reservation": "r-1"})))
        } else {
            Outcome::Failure(failure(&self.instance.steps[step].name))
        };
        self.tell(step, phase, None, outcome);
        self
    }

    /// An answer arrives, and is acked.
    pub(crate) fn tell(&mut self, step: usize, phase: Phase, attempt: Option<u32>, outcome: Outcome) {
        self.replies += 1;
        let name = &self.instance.steps[step].name;
        let answered = self.instance.attempt_id(name, phase, attempt.unwrap_or(1));
        let id = format!("reply-{}-{answered}", self.replies);
        let event = Event::Reply { step, phase, attempt, outcome, message_id: Some(id.clone()), event: None };
        self.event(event, Some(id.clone()));
        self.ack("sagamq.replies", &id);
    }

    /// Somebody places a cancellation.
    pub(crate) fn cancel(&mut self) -> &mut Self {
        let id = format!("cancel-{}-{}", self.instance.business_key, self.evidence.placed.len());
        self.place(&id, |saga, business_key| Placing::Cancel { saga, business_key });
        self.event(Event::Cancel { event_id: Some(id.clone()), event: None }, Some(id.clone()));
        self.ack("sagamq.events", &id);
        self
    }

    /// A person has the instance go on without what it is parked for.
    pub(crate) fn skip(&mut self) -> &mut Self {
        let (actor, reason) = ("ann".to_owned(), "refused for good".to_owned());
        let order = Order { verb: Verb::Skip, step: None, output: Value::Null, actor, reason };
        self.event(Event::Ordered(order), None);
        self
    }

    /// An event says that a step is done, and is acked.
    pub(crate) fn hear(&mut self, step: usize, id: &str) -> &mut Self {
        self.book(step, Phase::Action, true);
        self.place(id, |saga, business_key| Placing::Answer { saga, business_key });
        let outcome = Outcome::Success(Ok(json!({"reservation": "r-1", "mark": id})));
        let (phase, message_id) = (Phase::Action, Some(id.to_owned()));
        let event = Some(EventKey::of(&[id.as_bytes()]));
        let answer =
            Event::Reply { step, phase, attempt: None, outcome, message_id: message_id.clone(), event };
        self.event(answer, message_id);
        self.ack("sagamq.events", id);
        self
    }

    /// The same order is placed again, under another id.
    pub(crate) fn place_again(&mut self) -> &mut Self {
        let id = format!("start-{}-{}", self.instance.business_key, self.evidence.placed.len());
        self.place(&id, |saga, business_key| Placing::Start { saga, business_key });
        self.event(Event::StartedAgain { event_id: Some(id.clone()) }, Some(id.clone()));
        self.ack("sagamq.events", &id);
        self
    }

    /// Goes to the next time at which something is due.
    pub(crate) fn wait(&mut self) -> &mut Self {
        if let Some(due) = self.instance.next_due() {
            self.now = self.now.max(due);
            self.event(Event::Tick, None);
        }
        self
    }

    pub(crate) fn event(&mut self, event: Event, cause: Option<String>) {
        self.now = self.now + Duration::from_millis(1);
        let decision = transition(&self.plan, &mut self.instance, event, self.now);
        self.keep(decision, cause);
    }

    fn keep(&mut self, decision: Decision, causation_id: Option<String>) {
        if !decision.facts.is_empty() {
            self.instance.revision += 1;
            let revision = self.instance.revision;
            self.history.push(HistoryEntry { revision, causation_id, user: None, facts: decision.facts });
        }
    }

    fn place(&mut self, id: &str, what: impl Fn(String, String) -> Placing) {
        let what = what("order".to_owned(), self.instance.business_key.clone());
        let numbers = match what {
            Placing::Start { .. } => NUMBERS.map(str::to_owned).to_vec(),
            _ => Vec::new(),
        };
        self.evidence.placed.push(Placed { numbers, ..Placed::new(id, what, self.now) });
    }

    fn ack(&mut self, queue: &str, id: &str) {
        self.evidence.acks.push(Acked {
            queue: queue.to_owned(),
            message_id: Some(id.to_owned()),
            verdict: Settled::Acked,
            by: Some("store 1".to_owned()),
            at: self.now,
        });
    }
}

/// Garbage is placed, and dead-lettered as it must be.
pub(crate) fn garbage(evidence: &mut Evidence, id: &str) {
    let at = Timestamp(1_700_000_000_000);
    evidence.placed.push(Placed::new(id, Placing::Garbage, at));
    evidence.acks.push(Acked {
        queue: "sagamq.events".to_owned(),
        message_id: Some(id.to_owned()),
        verdict: Settled::Rejected,
        by: Some("store 1".to_owned()),
        at,
    });
    evidence.dead.push(Dead { message_id: id.to_owned(), reason: Some("rejected".to_owned()), at });
    evidence.letters.push(DeadLetter {
        at,
        queue: "events".to_owned(),
        exchange: "orders".to_owned(),
        key: "order.placed".to_owned(),
        message_id: Some(id.to_owned()),
        reason: "body is not JSON".to_owned(),
        preview: String::new(),
        size: 7,
        ..DeadLetter::default()
    });
}

/// A run that is right, with an instance of every fate:
///
/// | order | fate |
/// |---|---|
/// | `done` | completed; placed twice |
/// | `undone` | shipping refuses, and the first attempt to reserve is not answered in time: compensated |
/// | `late` | the charge is made and never answered: compensated |
/// | `cancelled` | cancelled while stock is reserved, and that confirm is lost: compensated |
/// | `refused` | the charge is refused, and so is the release of the stock: parked |
/// | `left` | the same, and a person has the stock left reserved: compensated |
/// | `heard` | the stock is reserved by an event, which comes once more: completed |
pub(crate) fn right() -> Evidence {
    use Phase::{Action, Compensation};
    let mut evidence = Evidence::default();
    garbage(&mut evidence, "garbage-1");

    let mut done = Play::start(evidence, "done");
    for step in [RESERVE, CHARGE, SHIP, INVOICE] {
        done.publish().answer(step, Action, true);
    }
    done.publish().place_again();
    assert_eq!(done.instance.status, Status::Completed);

    let mut undone = Play::start(done.end(), "undone");
    undone.publish().wait().wait().publish().answer(RESERVE, Action, true);
    undone.publish().answer(CHARGE, Action, true).publish().answer(SHIP, Action, false);
    undone.publish().answer(CHARGE, Compensation, true);
    undone.publish().answer(RESERVE, Compensation, true).publish();
    assert_eq!(undone.instance.status, Status::Compensated);

    let mut late = Play::start(undone.end(), "late");
    late.publish().answer(RESERVE, Action, true).publish().book(CHARGE, Action, true);
    while late.instance.status == Status::Running {
        late.wait().publish();
    }
    late.answer(CHARGE, Compensation, true).publish();
    late.answer(RESERVE, Compensation, true).publish();
    assert_eq!(late.instance.status, Status::Compensated);

    let mut cancelled = Play::start(late.end(), "cancelled");
    cancelled.send_all().cancel().answer(RESERVE, Action, true);
    cancelled.publish().answer(RESERVE, Compensation, true).publish();
    assert_eq!(cancelled.instance.status, Status::Compensated);

    let mut refused = Play::start(cancelled.end(), "refused");
    refused.publish().answer(RESERVE, Action, true).publish().answer(CHARGE, Action, false);
    refused.publish().answer(RESERVE, Compensation, false).publish();
    assert_eq!(refused.instance.status, Status::Parked);

    let mut left = Play::start(refused.end(), "left");
    left.publish().answer(RESERVE, Action, true).publish().answer(CHARGE, Action, false);
    left.publish().answer(RESERVE, Compensation, false).publish().skip().publish();
    assert_eq!(left.instance.status, Status::Compensated);

    let mut heard = Play::start(left.end(), "heard");
    heard.publish().hear(RESERVE, "event-1").publish().hear(CHARGE, "event-1").publish();
    heard.answer(CHARGE, Action, true);
    for step in [SHIP, INVOICE] {
        heard.publish().answer(step, Action, true);
    }
    heard.publish();
    assert_eq!(heard.instance.status, Status::Completed);

    let mut evidence = heard.end();
    evidence.replayed_at = Some(evidence.entries.len());
    evidence.faults.insert("broker_kill".to_owned(), 1);
    evidence
}

pub(crate) fn failure(step: &str) -> Failure {
    Failure { step: Some(step.to_owned()), code: "NO".to_owned(), message: "no".to_owned() }
}

/// A value as a line of a file.
pub(crate) fn line(value: &impl serde::Serialize) -> String {
    let value: Value = serde_json::to_value(value).unwrap();
    format!("{value}\n")
}
