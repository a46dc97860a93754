//! A plan in plain English: what an instance does, in the order in which it does it.
//!
//! What is said here is what [`crate::saga::transition`] decides; `docs/definitions.md` has it as tables.

use std::time::Duration;

use super::graph::has_pivot;
use super::words::{printable, title};
use crate::saga::duration;
use crate::saga::exchange::Matching;
use crate::saga::expression::Expression;
use crate::saga::plan::{
    AtDeadline, Call, Delay, Each, Emission, Extras, Kind, Limit, OnTimeout, OutcomeKind, Plan, ReplyRule,
    Step, SubSaga, Subscription, Wait, Work,
};
use crate::saga::retry::{Jitter, RetryPolicy};
use crate::saga::template::Template;

/// Delays between attempts that are told one by one.
const DELAYS_TOLD: u32 = 4;

/// The explanation: sections of a heading and of sentences, each on a line of its own.
pub fn explanation(plan: &Plan) -> String {
    let mut sections = vec![("Start".to_owned(), start(plan))];
    sections.extend(plan.steps.iter().enumerate().map(|(number, of)| (heading(plan, number), step(of))));
    sections.push(("Point of no return".to_owned(), no_return(plan)));
    sections.push(("Time limit".to_owned(), deadline(plan)));
    sections.push(("Cancellation".to_owned(), cancellation(plan)));
    sections.push(("Ends".to_owned(), ends(plan)));
    let section = |(heading, sentences): &(String, Vec<String>)| {
        let sentences: String = sentences.iter().map(|sentence| format!("  {sentence}\n")).collect();
        format!("\n{heading}\n{sentences}")
    };
    format!("{}\n{}", title(plan), sections.iter().map(section).collect::<String>())
}

fn start(plan: &Plan) -> Vec<String> {
    let mut said = match &plan.start {
        Some(start) => {
            let key = code(&start.business_key.to_string());
            vec![
                format!("An event {} starts an instance.", event(&start.on)),
                format!(
                    "Its business key is {key}; an event with a key that has an instance starts nothing."
                ),
                format!("It keeps {} as its input.", value(&start.input)),
            ]
        }
        None => vec!["Only other sagas start it, by calling it.".to_owned()],
    };
    if !plan.attributes.is_empty() {
        let attribute = |(name, from): &(String, Expression)| format!("{name} ({})", code(&from.to_string()));
        said.push(format!("It can be found by {}.", list(plan.attributes.iter().map(attribute), "and")));
    }
    said
}

fn heading(plan: &Plan, number: usize) -> String {
    let step = &plan.steps[number];
    let kind = match step.kind {
        Kind::Compensatable => "",
        Kind::Pivot => " (pivot)",
        Kind::Retriable => " (retriable)",
    };
    let earlier = step.requires.iter().map(|&earlier| plan.steps[earlier].name.clone());
    let after = match number {
        _ if !step.requires.is_empty() => format!(", after {}", list(earlier, "and")),
        0 => String::new(),
        _ => ", from the start".to_owned(),
    };
    format!("{}. {}{kind}{after}", number + 1, step.name)
}

fn step(step: &Step) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(when) = &step.when {
        said.push(format!("Done only if {}; else it is skipped.", code(&when.to_string())));
    }
    match &step.work {
        Work::Command(action) => {
            said.extend(call(action, "Sends"));
            said.extend(step.limit.map(limited));
            said.extend(patience(action, step.on_timeout));
            if let Some(output) = &step.output {
                let kept = value(output);
                said.push(format!(
                    "Keeps {kept} of the reply that says success; if that has no such thing, it is given up."
                ));
            }
            said.extend(failures(step).map(str::to_owned));
        }
        Work::Wait(wait) => said.extend(waiting(step, wait)),
        Work::Delay(Delay::For(time)) => said.push(format!("Waits {}.", duration::format(*time))),
        Work::Delay(Delay::Until(until)) => {
            said.push(format!("Waits until {}, an RFC 3339 time.", code(&until.to_string())));
        }
        Work::Saga(called) => said.extend(calling(step, called)),
        Work::Each(each) => said.extend(for_each(step, each)),
        Work::Emit(emission) => {
            said.push(format!("Emits {}; nobody answers that.", emitted(emission)));
            said.push("It is done when the broker has confirmed it, or has no queue for it.".to_owned());
        }
    }
    if let Some(undo) = &step.compensation {
        said.extend(call(undo, "Undone by"));
        said.extend(patience(undo, OnTimeout::Retry));
        said.push("If the undoing is refused or given up, the instance is parked.".to_owned());
    }
    said
}

/// Which saga is called, and what follows from its end.
fn calling(step: &Step, called: &SubSaga) -> Vec<String> {
    let undone = match step.kind {
        Kind::Compensatable => [
            "If that is compensated, the instance turns back.",
            "Undone by the called saga itself, which turns back too.",
        ],
        Kind::Pivot => {
            ["If that is compensated, the instance turns back.", "Once it is completed, it is not undone."]
        }
        Kind::Retriable => ["If that is compensated, the instance is parked.", "Nothing is undone."],
    };
    let calls = format!("Calls saga {} with {}, and waits for its end.", called.saga, value(&called.input));
    let keeps = "Keeps what the `output` of that saga says.".to_owned();
    [calls, keeps].into_iter().chain(undone.map(str::to_owned)).collect()
}

/// What is done for each item of a list.
fn for_each(step: &Step, each: &Each) -> Vec<String> {
    let names = list(each.body.steps.iter().map(|step| step.name.clone()), "and");
    let mut said = vec![
        format!(
            "For each item of {}, of which there are at most {}, does {names}; {} at a time.",
            code(&each.items.to_string()),
            each.max_items,
            each.max_in_flight
        ),
        format!(
            "Each is an instance of saga {}, which has the item as {}.",
            each.body.saga,
            code(&format!("input.{}", each.name))
        ),
        "Keeps a list of what each of them gives.".to_owned(),
    ];
    said.push(match step.kind {
        Kind::Retriable => {
            "If one is compensated, no further ones begin, and the instance is parked.".to_owned()
        }
        Kind::Compensatable | Kind::Pivot => {
            "If one is compensated, the others turn back too, and the instance turns back.".to_owned()
        }
    });
    if step.is_undoable() {
        said.push("Undone by each item that ran turning back.".to_owned());
    }
    for (number, of) in each.body.steps.iter().enumerate() {
        said.push(format!("- {}", heading(&each.body, number)));
        said.extend(self::step(of).into_iter().map(|sentence| format!("  {sentence}")));
    }
    said
}

/// What is waited for, and what follows when it does not come.
fn waiting(step: &Step, wait: &Wait) -> Vec<String> {
    let mut said = vec![format!(
        "Waits {} for the first event that matches, which may have come before:",
        duration::format(wait.timeout)
    )];
    said.extend(wait.events.iter().map(rule));
    if let Some(output) = &step.output {
        said.push(format!("Keeps {} of the event that says success.", value(output)));
    }
    said.push(
        match step.kind {
            Kind::Retriable => "If it is refused, the instance is parked.",
            Kind::Compensatable | Kind::Pivot => "If it is refused, the instance turns back.",
        }
        .to_owned(),
    );
    said.push(
        match step.on_timeout {
            OnTimeout::Continue => "If none comes in time, the step is skipped.",
            OnTimeout::Park => "If none comes in time, the instance is parked; the event still takes it on.",
            OnTimeout::Compensate | OnTimeout::Retry => "If none comes in time, the instance turns back.",
        }
        .to_owned(),
    );
    said
}

/// What follows when a step is refused, and when it is given up.
fn failures(step: &Step) -> impl Iterator<Item = &'static str> {
    let (refused, given_up) = match (step.kind, &step.compensation) {
        (Kind::Compensatable, Some(_)) => (
            "If it is refused, or given up before any attempt can have arrived, the instance turns back without \
             undoing it.",
            "If it is given up otherwise, the instance turns back and undoes it too, as it may have happened.",
        ),
        (Kind::Compensatable, None) => {
            ("If it is refused or given up, the instance turns back.", "It has nothing to undo.")
        }
        (Kind::Pivot, _) => (
            "If it is refused, or given up before any attempt can have arrived, the instance turns back.",
            "If it is given up otherwise, the instance is parked, because what happened is not known.",
        ),
        (Kind::Retriable, _) => {
            ("If it is refused or given up, the instance is parked.", "Nothing is undone.")
        }
    };
    [refused, given_up].into_iter()
}

/// What is sent and how its outcome is told.
fn call(call: &Call, verb: &str) -> Vec<String> {
    let what = sent(&call.exchange, &call.key, &call.body, call.extras.as_deref());
    let mut said = vec![format!("{verb} {what}.")];
    if call.replies.is_empty() {
        said.push("The outcome is what the header `x-saga-outcome` of the reply says.".to_owned());
    } else {
        let header =
            "The outcome is what the header `x-saga-outcome` says, else the first of these that matches:";
        said.push(header.to_owned());
        said.extend(call.replies.iter().map(rule));
    }
    said
}

/// What a rule makes of which message, as an item of a list.
pub(super) fn rule(rule: &ReplyRule) -> String {
    let from = rule.on.as_ref().map_or("a reply".to_owned(), |on| format!("an event {}", event(on)));
    let of = rule.business_key.as_ref();
    let of = of.map(|key| format!(" that names {} as the instance", code(&key.to_string())));
    let when = rule.when.as_ref().map(|when| format!(" with {}", code(&when.to_string())));
    let outcome = match rule.outcome {
        OutcomeKind::Success => "success",
        OutcomeKind::Failure => "refused",
        OutcomeKind::Retry => "try again",
        OutcomeKind::Pending => "still working",
    };
    let error = rule.error.as_ref().map(|error| format!(" ({})", printable(error)));
    let [of, when, error] = [of, when, error].map(Option::unwrap_or_default);
    format!("- {from}{of}{when}: {outcome}{error}")
}

/// How many commands are out, and what becomes of the others.
fn limited(limit: Limit) -> String {
    let unanswered = limit.in_flight.map(|count| format!("{count} of its commands are unanswered at a time"));
    let sent = limit.per_second.map(|rate| format!("{rate} are sent a second"));
    let limits = list([unanswered, sent].into_iter().flatten(), "and");
    format!("Over all instances at most {limits}; the others await their turn, the first come first.")
}

/// How long an answer is awaited, what asks for the next attempt, and how far apart attempts are.
fn patience(call: &Call, on_timeout: OnTimeout) -> Vec<String> {
    let timeout = duration::format(call.timeout);
    let again = match on_timeout {
        OnTimeout::Retry => "if no answer comes in time, on the answer `retry`, or if no queue takes it",
        OnTimeout::Compensate | OnTimeout::Park | OnTimeout::Continue => {
            "on the answer `retry`, or if no queue takes it"
        }
    };
    let attempts = match call.retry.attempts {
        Some(1) => format!("There is one attempt: {again}, it is given up."),
        Some(attempts) => format!("It is sent again {again}; after {attempts} attempts it is given up."),
        None => format!("It is sent again {again}, without an end."),
    };
    let mut said = vec![format!("Waits {timeout} for an answer, and anew after each `pending`."), attempts];
    match on_timeout {
        OnTimeout::Retry | OnTimeout::Continue => {}
        OnTimeout::Compensate => said.push("If no answer comes in time, it is given up at once.".to_owned()),
        OnTimeout::Park => {
            said.push(
                "If no answer comes in time, it is given up at once, and the instance is parked.".to_owned(),
            );
        }
    }
    let retry = &call.retry;
    let pauses = retry.attempts.map_or(u32::MAX, |attempts| attempts - 1);
    if pauses > 0 {
        let (up_to, at_random) = match retry.jitter {
            Jitter::Full => ("up to ", ", at random"),
            Jitter::None => ("", ""),
        };
        let growing = growing(retry, pauses);
        said.push(format!(
            "The next attempt follows after {up_to}{growing}{at_random}; or after what `retry` asks for."
        ));
    }
    if pauses > 0 && !retry.except.is_empty() {
        let codes = list(retry.except.iter().map(|code| printable(code)), "or");
        said.push(format!("With the error code {codes} it is not sent again, but given up."));
    }
    said
}

/// The delays, the first ones by themselves.
fn growing(retry: &RetryPolicy, pauses: u32) -> String {
    let pause = |number: u32| retry.longest_delay_after(number);
    let told: Vec<Duration> = (1..=pauses.min(DELAYS_TOLD)).map(pause).collect();
    let last = pause(pauses);
    let different = 1 + told.windows(2).filter(|two| two[0] != two[1]).count();
    let mut texts: Vec<_> = told[..different].iter().map(|pause| duration::format(*pause)).collect();
    let ends_with = told[different - 1];
    if last != ends_with {
        return format!("{} and so on up to {}", texts.join(", "), duration::format(last));
    }
    if different < pauses as usize && different > 1 {
        let constant = texts.pop().unwrap_or_default();
        return format!("{}, then {constant} each time", texts.join(", "));
    }
    let each = if different < pauses as usize { " each time" } else { "" };
    format!("{}{each}", list(texts.into_iter(), "and"))
}

fn no_return(plan: &Plan) -> Vec<String> {
    let undone = "Turning back waits for what is in flight, then undoes what may have happened, each step when \
                  those that require it are undone.";
    let Some(pivot) = plan.steps.iter().find(|step| step.kind == Kind::Pivot) else {
        return vec![
            "There is none: the instance can turn back until it is completed.".to_owned(),
            undone.to_owned(),
        ];
    };
    let or_skipped = if pivot.when.is_some() { " or was skipped" } else { "" };
    vec![
        format!("It is {}: when that has succeeded{or_skipped}, nothing is undone any more.", pivot.name),
        undone.to_owned(),
    ]
}

fn deadline(plan: &Plan) -> Vec<String> {
    let Some(deadline) = plan.deadline else { return vec!["There is none.".to_owned()] };
    let (forward, past) = match has_pivot(plan) {
        true => ("that has not passed the point of no return", "Past that point and on the way back"),
        false => ("that is not completed", "On the way back"),
    };
    let then = match deadline.then {
        AtDeadline::Compensate => "turns back",
        AtDeadline::Park => "is parked, and no answer takes it on",
    };
    vec![
        format!(
            "{} after its start, an instance {forward} {then} (DEADLINE).",
            duration::format(deadline.after)
        ),
        format!("{past} it is only recorded; while an instance is parked, it waits."),
    ]
}

fn cancellation(plan: &Plan) -> Vec<String> {
    let Some(cancel) = &plan.cancel else { return vec!["There is none.".to_owned()] };
    let (on, key) = (event(&cancel.on), code(&cancel.business_key.to_string()));
    let pivot = if has_pivot(plan) { "has passed the point of no return, " } else { "" };
    let and_emits = plan.on_cancel_refused.as_ref();
    let and_emits = and_emits.map(|event| format!(", and emits {}", emitted(event))).unwrap_or_default();
    let overruled = (has_pivot(plan) && plan.on_cancel_refused.is_some())
        .then(|| "It emits the same if the pivot is in flight meanwhile, and succeeds.".to_owned());
    let sentences = [
        format!("An event {on} makes the instance that {key} names turn back (CANCELLED)."),
        format!(
            "One that {pivot}turns back already, is parked or has ended only records it as refused{and_emits}."
        ),
    ];
    sentences.into_iter().chain(overruled).collect()
}

fn ends(plan: &Plan) -> Vec<String> {
    let emits = |emission: &Option<Emission>| match emission {
        Some(emission) => format!("emits {}", emitted(emission)),
        None => "emits nothing".to_owned(),
    };
    vec![
        format!("Completed, when every step is done or skipped: {}.", emits(&plan.on_completed)),
        format!("Compensated, when all is undone: {}.", emits(&plan.on_compensated)),
        format!("Parked, to wait for a person or a late answer: {}.", emits(&plan.on_parked)),
    ]
}

fn emitted(Emission { exchange, key, body, extras }: &Emission) -> String {
    sent(exchange, key, body, extras.as_deref())
}

/// A message, where it goes, and what it carries.
fn sent(exchange: &str, key: &str, body: &Template, extras: Option<&Extras>) -> String {
    let body = value(body);
    let address = match exchange.is_empty() {
        true => format!("a message with {body} to queue {}", code(key)),
        false => format!("{} with {body} to exchange {}", code(key), code(exchange)),
    };
    let carried = extras.map(carried).unwrap_or_default();
    if carried.is_empty() {
        address
    } else {
        format!("{address}, carrying {}", list(carried.into_iter(), "and"))
    }
}

/// What a message carries beside its body.
fn carried(Extras { headers, priority, expires, content_type, kind }: &Extras) -> Vec<String> {
    let mut carried: Vec<_> = headers.iter().map(|(name, _)| format!("header {}", code(name))).collect();
    carried.extend(priority.map(|priority| format!("priority {priority}")));
    carried.extend(expires.map(|expires| format!("an expiry of {}", duration::format(expires))));
    carried.extend(content_type.as_ref().map(|text| format!("content type {}", code(text))));
    carried.extend(kind.as_ref().map(|text| format!("type {}", code(text))));
    carried
}

fn event(on: &Subscription) -> String {
    let exchange = code(&on.exchange);
    match &on.matching {
        Matching::Pattern | Matching::Key => format!("{} on exchange {exchange}", code(&on.pattern)),
        Matching::Headers { any, headers } if !headers.is_empty() => {
            let headers = headers.iter().map(|(name, value)| code(&format!("{name}: {}", value.to_json())));
            format!("with {} on exchange {exchange}", list(headers, if *any { "or" } else { "and" }))
        }
        Matching::Anything | Matching::Headers { .. } => format!("of any kind on exchange {exchange}"),
    }
}

/// What a template makes: the names of an object's fields, an expression, or a literal value.
fn value(template: &Template) -> String {
    match template {
        Template::Literal(value) => code(&value.to_string()),
        Template::Expression(expression) => code(&expression.to_string()),
        Template::Map(fields) => list(fields.iter().map(|(name, _)| code(name)), "and"),
        Template::List(items) if items.len() == 1 => "a list of 1 item".to_owned(),
        Template::List(items) => format!("a list of {} items", items.len()),
    }
}

fn code(text: &str) -> String {
    format!("`{}`", printable(text))
}

/// `a`, `a and b`, `a, b and c`.
fn list(items: impl Iterator<Item = String>, word: &str) -> String {
    let mut items: Vec<_> = items.collect();
    match items.pop() {
        None => String::new(),
        Some(last) if items.is_empty() => last,
        Some(last) => format!("{} {word} {last}", items.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use crate::http::fixture::assert_golden;
    use crate::saga::compile;

    #[test]
    fn the_order_saga_is_explained_as_in_the_golden_file() {
        assert_golden("order-explained.txt", &explanation(&fixture::order()));
    }

    #[test]
    fn a_saga_of_every_field_is_explained_as_in_the_golden_file() {
        let page = include_str!("../../docs/definitions.md");
        let (_, from) = page.split_once("```yaml\nsaga: subscription").unwrap();
        let source = format!("saga: subscription{}", from.split("\n```").next().unwrap());
        let plan = compile::load("subscription.yaml", &source).unwrap();
        assert_golden("subscription-explained.txt", &explanation(&plan));
    }

    #[test]
    fn steps_of_a_fork_are_told_with_what_they_wait_for() {
        let told = explanation(&fixture::parallel());
        for heading in ["1. a\n", "3. c, after a\n", "6. f (pivot), after b, d and e\n"] {
            assert!(told.contains(heading), "{heading}: {told}");
        }
        assert!(told.contains("Done only if `input.a < 3 && input.b != \"<x>\"`;"), "{told}");
        let trip = include_str!("../../sagas/trip.yaml");
        let told = explanation(&compile::load("sagas/trip.yaml", trip).unwrap());
        assert!(told.contains("\n3. book_car, from the start\n"), "{told}");
    }

    #[test]
    fn a_saga_without_a_pivot_has_no_point_that_is_passed() {
        let saga = "saga: rest\nversion: 1\ndeadline: {after: 1h}\nsteps: [{delay: rest, for: 1m}]\n";
        let told = explanation(&compile::load("rest.yaml", saga).unwrap());
        assert!(told.contains("\n  On the way back it is only recorded; while"), "{told}");
        assert!(!told.contains("pivot") && !told.to_lowercase().contains("past that point"), "{told}");
    }

    #[test]
    fn a_limit_is_told_with_what_it_bounds() {
        let limit = |in_flight, per_second| limited(Limit { in_flight, per_second });
        let others = "; the others await their turn, the first come first.";
        for (said, told) in [
            (limit(Some(20), None), "20 of its commands are unanswered at a time"),
            (limit(None, Some(0.5)), "0.5 are sent a second"),
            (
                limit(Some(2), Some(50.0)),
                "2 of its commands are unanswered at a time and 50 are sent a second",
            ),
        ] {
            assert_eq!(said, format!("Over all instances at most {told}{others}"));
        }
    }

    #[test]
    fn delays_are_told_as_far_as_they_differ() {
        let policy = |initial_ms: u64, factor: f64, max_ms: u64| RetryPolicy {
            initial: Duration::from_millis(initial_ms),
            factor,
            max: Duration::from_millis(max_ms),
            ..RetryPolicy::once()
        };
        for (policy, pauses, told) in [
            (policy(500, 2.0, 10_000), 3, "500ms, 1s and 2s"),
            (policy(1_000, 2.0, 900_000), 29, "1s, 2s, 4s, 8s and so on up to 15m"),
            (policy(1_000, 2.0, 900_000), u32::MAX, "1s, 2s, 4s, 8s and so on up to 15m"),
            (policy(1_000, 2.0, 3_000), 9, "1s, 2s, then 3s each time"),
            (policy(1_000, 1.0, 3_000), 9, "1s each time"),
            (policy(1_000, 2.0, 3_000), 1, "1s"),
        ] {
            assert_eq!(growing(&policy, pauses), told);
        }
    }
}
