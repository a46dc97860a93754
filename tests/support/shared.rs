//! Sagas that share their events: two that start with one event, waits that listen to the same kind of event, steps
//! that participants answer by the same kind of event. Their keys have 21 digits, of which doubles keep 16, and their
//! amounts end in a zero.

use sagamq::checker::evidence::Placing;
use sagamq::simulate::Planned;

/// The exchange at which participants answer by events, and the key of these.
pub(crate) const HERALDS: (&str, &str) = ("cards", "card.handled");

pub(crate) const RELEASE: &str = r#"
saga: release
version: 1
start: {on: {exchange: desk, key: release.asked}, business_key: =event.data.number}
cancel: {on: {exchange: desk, key: release.revoked}, business_key: =event.data.number}
deadline: {after: 5m}
retry: {soon: {attempts: 3, initial: 1s}, undo: {attempts: 50, initial: 1s, max: 30s}}
steps:
  - step: note
    command: {exchange: notes, key: note.open, body: {number: =input.number, amount: =input.amount}}
    timeout: 5s
    retry: soon
    compensate: {command: {exchange: notes, key: note.close, body: {amount: =input.amount}}, timeout: 5s, retry: undo}
  - {wait: noticed, on: {exchange: desk, key: release.noticed}, timeout: 1m, on_timeout: continue, output: {mark: =event.data.mark}}
  - {wait: first_eye, on: {exchange: desk, key: release.approved}, timeout: 1m, output: {mark: =event.data.mark, upto: =event.data.upto}}
  - step: authorise
    command: {exchange: cards, key: card.authorise, body: {number: =input.number, upto: =steps.first_eye.output.upto}}
    timeout: 5s
    retry: soon
    replies:
      - {on: {exchange: cards, key: card.handled}, when: '=reply.data.says == "retry"', outcome: retry}
      - {on: {exchange: cards, key: card.handled}, when: '=reply.data.says == "failure"', outcome: failure, error: REFUSED}
      - {on: {exchange: cards, key: card.handled}, outcome: success}
    output: {mark: =reply.data.mark}
    compensate: {command: {exchange: cards, key: card.release, body: {number: =input.number}}, timeout: 5s, retry: undo}
  - {wait: second_eye, on: {exchange: desk, key: release.approved}, timeout: 1m, output: {mark: =event.data.mark, upto: =event.data.upto}}
  - step: capture
    kind: pivot
    command: {exchange: cards, key: card.capture, body: {number: =input.number, amount: =input.amount}}
    timeout: 5s
    retry: soon
    replies:
      - {on: {exchange: cards, key: card.handled}, when: '=reply.data.says == "retry"', outcome: retry}
      - {on: {exchange: cards, key: card.handled}, when: '=reply.data.says == "failure"', outcome: failure, error: REFUSED}
      - {on: {exchange: cards, key: card.handled}, outcome: success}
    output: {mark: =reply.data.mark}
on_completed: {emit: {exchange: desks, key: release.done, body: {number: =input.number, amount: =input.amount, upto: =steps.second_eye.output.upto}}}
on_compensated: {emit: {exchange: desks, key: release.off, body: {number: =input.number, not_undone: =saga.not_undone}}}
"#;

/// Listens to whatever happens to a release, also to what starts it.
pub(crate) const AUDIT: &str = r#"
saga: audit
version: 1
start: {on: {exchange: desk, key: release.asked}, business_key: =event.data.number}
steps:
  - {wait: first_word, on: {exchange: desk, key: "release.*"}, timeout: 2m, on_timeout: continue, output: {mark: =event.data.mark}}
  - {wait: second_word, on: {exchange: desk, key: "release.*"}, timeout: 2m, on_timeout: continue, output: {mark: =event.data.mark}}
  - {step: file, command: {exchange: notes, key: note.file, body: {number: =input.number, amount: =input.amount}}, timeout: 5s, retry: {attempts: 3}, compensate: none}
"#;

/// What one release goes through: asked for twice, approved by two, and revoked if its number is even. Every other
/// event is repeated, every third has no id, and one names the first release and carries the correlation of the second.
pub(crate) fn release(number: usize) -> Vec<Planned> {
    let approved = || event(number, "approved", &["answer release", "answer audit"]);
    let mut events = vec![
        event(number, "asked", &["start release", "start audit"]),
        approved(),
        event(number, "noticed", &["answer release", "answer audit"]),
        event(number, "asked", &["start release", "start audit", "answer audit"]),
        approved(),
    ];
    if number.is_multiple_of(2) {
        events.push(event(number, "revoked", &["cancel release", "answer audit"]));
    }
    // What the second one is told of, and by which the first one is named.
    if number == 1 {
        events[2].correlated_with = Some(("release".to_owned(), key(2)));
    } else {
        events.remove(2);
    }
    for (index, event) in events.iter_mut().enumerate() {
        let mark = format!("release-{number}-{index}");
        let said = String::from_utf8_lossy(&event.body).replace("MARK", &mark);
        event.body = said.into_bytes();
        event.mark = Some(mark);
        event.repeats = if event.correlated_with.is_some() { 2 } else { index % 2 };
        event.is_unnamed = (index + number) % 3 == 1;
    }
    events
}

fn event(number: usize, kind: &str, whom: &[&str]) -> Planned {
    let key = key(number);
    let (field, amount) =
        if kind == "asked" { ("amount", "12.50") } else { ("upto", "1000000000000000000.10") };
    let body = format!("{{\"number\": {key}, \"{field}\": {amount}, \"mark\": \"MARK\"}}");
    let placing = |whom: &&str| {
        let (what, saga) = whom.split_once(' ').unwrap();
        let (saga, business_key) = (saga.to_owned(), key.clone());
        match what {
            "start" => Placing::Start { saga, business_key },
            "cancel" => Placing::Cancel { saga, business_key },
            _ => Placing::Answer { saga, business_key },
        }
    };
    let what: Vec<_> = whom.iter().map(placing).collect();
    let event = Planned::new("desk", &format!("release.{kind}"), body, what[0].clone());
    Planned { what, numbers: vec![key, amount.to_owned()], ..event }
}

/// A double keeps 16 of its digits, and so not the one that matters.
fn key(number: usize) -> String {
    format!("90071992547409930000{number}")
}
