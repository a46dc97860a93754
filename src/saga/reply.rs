//! Reading a reply: what it says of the step that it answers.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Map, Value};

use super::expression::{ExpressionError, Scope};
use super::fact::Failure;
use super::id::Phase;
use super::instance::{Instance, StepState, StepStatus};
use super::message::{Message, header};
use super::plan::{OutcomeKind, Plan, ReplyRule, Work};
use crate::number;

/// What a reply says.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is done, with what the step keeps of the reply, or why that cannot be read from it.
    Success(Result<Value, Failure>),
    /// It is refused for good.
    Failure(Failure),
    /// It failed for now; the participant may say how long to wait.
    Retry(Failure, Option<Duration>),
    /// It is still being worked on.
    Pending,
}

/// The way that a reply came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// By the reply queue, from a participant that knows of the orchestrator: its headers count.
    ReplyQueue,
    /// By an exchange, as an event for whoever listens: only the rules of the step count.
    Event,
}

impl Via {
    /// The way of a message that was published to an exchange; to none, if that is empty.
    pub fn exchange(exchange: &str) -> Self {
        if exchange.is_empty() { Self::ReplyQueue } else { Self::Event }
    }
}

/// Why a reply cannot be read. It is not guessed but dead-lettered.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Unreadable {
    /// Neither header nor rule.
    #[error("reply to step {0:?} has no x-saga-outcome header, and no rule of its `replies` matches")]
    NoOutcome(String),
    /// A header with a word that is none of the four.
    #[error(
        "x-saga-outcome of the reply to step {step:?} is {value}: it must be success, failure, retry or pending"
    )]
    BadOutcome {
        /// Name of the step.
        step: String,
        /// What stands there.
        value: String,
    },
    /// It comes from somebody whose answers do not count.
    #[error("answer to step {step:?}: {reason}")]
    NotFromUser {
        /// Name of the step.
        step: String,
        /// Whose do, and from whom it is.
        reason: String,
    },
    /// A rule's condition does not work on this message.
    #[error("a rule of the `replies` of step {step:?} cannot be evaluated: {message}")]
    BadRule {
        /// Name of the step.
        step: String,
        /// What the expression said.
        message: String,
    },
}

/// The header that says what a reply says.
const OUTCOME: &str = "x-saga-outcome";
/// The longest delay that a participant may ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest error message that is kept, in characters.
const LONGEST_MESSAGE: usize = 1000;
/// The longest error code that is kept, in characters.
pub const LONGEST_CODE: usize = 200;

/// Reads the outcome of a reply to step `step` (an index that the plan has) in `phase`: by the reply queue from its
/// header, else by the first rule that matches.
///
/// # Errors
/// See [`Unreadable`].
pub fn read(
    plan: &Plan,
    step: usize,
    phase: Phase,
    instance: &Instance,
    message: &Message,
    via: Via,
) -> Result<Outcome, Unreadable> {
    let name = || plan.steps[step].name.clone();
    if let Some(reason) = plan.steps[step].from_user.refusal(message) {
        return Err(Unreadable::NotFromUser { step: name(), reason });
    }
    let rules = plan.steps[step].rules(phase);
    let is_waited_for = phase == Phase::Action && matches!(plan.steps[step].work, Work::Wait(_));
    let header = |name: &str| message.header(name).filter(|_| !is_waited_for);
    let outcome = header(OUTCOME).filter(|_| via == Via::ReplyQueue);
    let (kind, rule_error) = match outcome {
        Some(value) => {
            let kind = outcome_kind(value);
            (kind.ok_or_else(|| Unreadable::BadOutcome { step: name(), value: shown(value) })?, None)
        }
        None => {
            let rule = matching_rule(rules, instance, message)
                .map_err(|message| Unreadable::BadRule { step: name(), message })?
                .ok_or_else(|| Unreadable::NoOutcome(name()))?;
            (rule.outcome, rule.error.as_deref())
        }
    };
    let failure = || Failure {
        step: Some(name()),
        code: rule_error
            .map(str::to_owned)
            .or_else(|| header("x-saga-error-code").and_then(|code| text(code, LONGEST_CODE)))
            .unwrap_or_else(|| "UNSPECIFIED".to_owned()),
        message: header("x-saga-error-message")
            .and_then(|message| text(message, LONGEST_MESSAGE))
            .unwrap_or_else(|| {
                if is_waited_for { "the event says so" } else { "the participant gave no message" }.to_owned()
            }),
    };
    Ok(match kind {
        OutcomeKind::Success => Outcome::Success(output(plan, step, phase, instance, message)),
        OutcomeKind::Failure => Outcome::Failure(failure()),
        OutcomeKind::Retry => Outcome::Retry(failure(), retry_after(message)),
        OutcomeKind::Pending => Outcome::Pending,
    })
}

/// What a reply says by its header, whatever its body is.
pub fn said_by(headers: &Map<String, Value>) -> Option<OutcomeKind> {
    header(headers, OUTCOME).and_then(outcome_kind)
}

/// The first rule that matches the message.
///
/// # Errors
/// A condition cannot be evaluated; the text says which and why.
fn matching_rule<'a>(
    rules: &'a [ReplyRule],
    instance: &Instance,
    message: &Message,
) -> Result<Option<&'a ReplyRule>, String> {
    let scope = Scope { reply: Some(message), event: Some(message), ..Scope::of(instance) };
    for rule in rules.iter().filter(|rule| listens(rule, message)) {
        let holds = match &rule.when {
            None => true,
            Some(condition) => condition.evaluate_bool(&scope).map_err(|error| error.to_string())?,
        };
        if holds {
            return Ok(Some(rule));
        }
    }
    Ok(None)
}

/// Whether the rule is about messages of this exchange and key. A rule without a subscription is
/// about the reply queue, which is fed by the default exchange.
pub fn listens(rule: &ReplyRule, message: &Message) -> bool {
    match &rule.on {
        Some(on) => on.hears(message),
        None => message.exchange.is_empty(),
    }
}

/// Whether any step of a plan takes such messages for answers.
pub fn any_listens(plan: &Plan, message: &Message) -> bool {
    plan.listeners().any(|(_, _, rules)| rules.iter().any(|rule| rule.on.is_some() && listens(rule, message)))
}

/// Whether a step of an instance awaits such messages, now or once it has its turn.
pub fn awaits(plan: &Plan, instance: &Instance, message: &Message) -> bool {
    let mut listening = plan
        .listeners()
        .filter(|(_, _, rules)| rules.iter().any(|rule| rule.on.is_some() && listens(rule, message)));
    listening.any(|(step, phase, _)| nearness(plan, instance, step, phase) <= AWAITED)
}

/// The word in any case, with blanks around it or without.
fn outcome_kind(value: &Value) -> Option<OutcomeKind> {
    let word = value.as_str()?.trim();
    let kinds = [
        ("success", OutcomeKind::Success),
        ("failure", OutcomeKind::Failure),
        ("retry", OutcomeKind::Retry),
        ("pending", OutcomeKind::Pending),
    ];
    kinds.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, kind)| kind)
}

/// What a header says as a text of at most `longest` characters: a number counts as its text. `None` where it
/// says nothing.
fn text(value: &Value, longest: usize) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => Cow::Borrowed(text.trim()),
        // Clients whose numbers are all of one type write whole ones with a fraction of zero.
        Value::Number(number) => number::canonical(number),
        other => Cow::Owned(other.to_string()),
    };
    Some(text.chars().take(longest).collect()).filter(|text: &String| !text.is_empty())
}

/// A value as it is told to people, who need not see all of it.
fn shown(value: &Value) -> String {
    value.to_string().chars().take(LONGEST_CODE).collect()
}

fn output(
    plan: &Plan,
    step: usize,
    phase: Phase,
    instance: &Instance,
    message: &Message,
) -> Result<Value, Failure> {
    let step = &plan.steps[step];
    let Some(template) = step.output.as_ref().filter(|_| phase == Phase::Action) else {
        return Ok(Value::Null);
    };
    let scope = Scope { reply: Some(message), event: Some(message), ..Scope::of(instance) };
    template.evaluate(&scope).map_err(|error| Failure {
        step: Some(step.name.clone()),
        code: "BAD_OUTPUT".to_owned(),
        message: format!("the reply says success, but the step's output cannot be read from it: {error}"),
    })
}

/// Milliseconds, as a number or as a text, whole or not. What is none of these is passed over.
fn retry_after(message: &Message) -> Option<Duration> {
    let value = message.header("x-saga-retry-after")?;
    let millis = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    let longest = LONGEST_RETRY_AFTER.as_millis() as f64;
    // Part of a millisecond is waited for in full.
    (millis >= 0.0).then(|| Duration::from_millis(millis.min(longest).ceil() as u64))
}

/// The business keys that an event names to those rules of a plan that listen to it, each once.
pub fn business_keys(plan: &Plan, message: &Message) -> Vec<Result<String, ExpressionError>> {
    let scope = Scope { event: Some(message), reply: Some(message), ..Scope::default() };
    let rules = plan.listeners().flat_map(|(_, _, rules)| rules);
    let mut keys = Vec::new();
    for rule in rules.filter(|rule| rule.on.is_some() && listens(rule, message)) {
        let of_start = plan.start.as_ref().map(|start| &start.business_key);
        let Some(key) = rule.business_key.as_ref().or(of_start) else { continue };
        let key = key.evaluate_key(&scope);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// The step that an event answers by the rules of an instance's plan, and in which phase: the one that is
/// [nearest](nearness). `None` where no rule listens to it.
///
/// # Errors
/// Rules listen to it, but none matches; or the rules of the step in flight cannot be evaluated.
pub fn answered_step(
    plan: &Plan,
    instance: &Instance,
    message: &Message,
) -> Result<Option<(usize, Phase)>, String> {
    let mut listening: Vec<(u8, usize, Phase, &[ReplyRule])> = plan
        .listeners()
        .filter(|(_, _, rules)| rules.iter().any(|rule| listens(rule, message)))
        .map(|(step, phase, rules)| (nearness(plan, instance, step, phase), step, phase, rules))
        .collect();
    if listening.is_empty() {
        return Ok(None);
    }
    listening.sort_by_key(|(nearness, step, _, _)| (*nearness, *step));
    let mut obstacle = None;
    let mut stranger = None;
    for (nearness, step, phase, rules) in listening {
        if let Some(reason) = plan.steps[step].from_user.refusal(message) {
            stranger.get_or_insert_with(|| format!("event for step {:?}: {reason}", plan.steps[step].name));
            continue;
        }
        // If the step in flight cannot read it, it is not for one of before.
        if nearness > 0 && obstacle.is_some() {
            break;
        }
        match matching_rule(rules, instance, message) {
            Ok(Some(_)) => return Ok(Some((step, phase))),
            Ok(None) => {}
            // What a rule of another step makes of this message is of no interest.
            Err(error) if nearness == 0 => {
                obstacle.get_or_insert(format!("the `replies` of step {:?}: {error}", plan.steps[step].name));
            }
            Err(_) => {}
        }
    }
    let none =
        || format!("no rule in the `replies` of saga {} v{} matches this event", plan.saga, plan.version);
    Err(obstacle.or(stranger).unwrap_or_else(none))
}

/// Up to here, an answer changes something.
const AWAITED: u8 = 2;

/// How near a step is to being answered; the event has answered nothing of the instance yet.
///
/// | | |
/// |---|---|
/// | 0 | it is in flight |
/// | 1 | it was given up, and a late answer still counts |
/// | 2 | it will wait for an event, which may come before its turn |
/// | 3 | it is settled |
/// | 4 | it never began, or has an answer from before its turn |
/// | 5 | it was skipped |
fn nearness(plan: &Plan, instance: &Instance, step: usize, phase: Phase) -> u8 {
    let state: &StepState = &instance.steps[step];
    match (phase, state.status) {
        (Phase::Action, StepStatus::Dispatched) | (Phase::Compensation, StepStatus::Compensating) => 0,
        (Phase::Action, StepStatus::Unknown) => 1,
        (Phase::Action, StepStatus::Pending)
            if matches!(plan.steps[step].work, Work::Wait(_)) && state.early.is_none() =>
        {
            2
        }
        (Phase::Action, StepStatus::Skipped) => 5,
        _ if state.progress(phase).is_idle() => 4,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::compile;
    use super::super::id::StoreId;
    use super::super::time::Timestamp;
    use super::super::transition;
    use super::*;

    const CALL: &str = "
saga: call
version: 1
start: {on: {exchange: in, key: go}, business_key: =event.data.id}
steps:
  - step: a
    command: {exchange: p, key: a}
    retry: {attempts: 3, initial: 100ms, jitter: none, except: [503]}
    compensate: none
";

    fn outcome(headers: Value) -> Result<Outcome, Unreadable> {
        let plan = compile::load("call", CALL).unwrap();
        let start = Message { data: json!({"id": "1"}), ..Message::default() };
        let (instance, _) =
            transition::start(&plan, "1".to_owned(), &start, StoreId::simulated(), Timestamp(0)).unwrap();
        let reply = Message { headers: headers.as_object().cloned().unwrap(), ..Message::default() };
        read(&plan, 0, Phase::Action, &instance, &reply, Via::ReplyQueue)
    }

    fn failure(code: Value, message: Value) -> Failure {
        let headers =
            json!({"x-saga-outcome": "failure", "x-saga-error-code": code, "x-saga-error-message": message});
        match outcome(headers) {
            Ok(Outcome::Failure(failure)) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_outcome_counts_in_any_case_and_with_blanks_around_it() {
        for word in ["success", "Success", " SUCCESS\t"] {
            assert_eq!(
                outcome(json!({"x-saga-outcome": word})),
                Ok(Outcome::Success(Ok(Value::Null))),
                "{word:?}"
            );
        }
        assert_eq!(outcome(json!({"X-Saga-Outcome": "pending"})), Ok(Outcome::Pending));
        for word in [json!("succeeded"), json!(""), json!(1), json!("x".repeat(60_000))] {
            let unreadable = outcome(json!({"x-saga-outcome": word})).unwrap_err();
            assert!(matches!(unreadable, Unreadable::BadOutcome { .. }));
            assert!(unreadable.to_string().len() < 400, "{unreadable}");
        }
    }

    #[test]
    fn an_error_code_counts_as_its_text_and_is_bounded() {
        for (code, text) in [
            (json!(503), "503"),
            (json!(503.0), "503"),
            (json!(-1.5), "-1.5"),
            (json!(" OUT_OF_STOCK "), "OUT_OF_STOCK"),
            (json!(true), "true"),
            (json!(["a", 1]), "[\"a\",1]"),
            (json!(""), "UNSPECIFIED"),
            (Value::Null, "UNSPECIFIED"),
        ] {
            assert_eq!(failure(code.clone(), Value::Null).code, text, "{code}");
        }
        let long = failure(json!("ä".repeat(60_000)), json!("ö".repeat(60_000)));
        assert_eq!((long.code, long.message), ("ä".repeat(LONGEST_CODE), "ö".repeat(LONGEST_MESSAGE)));
        assert_eq!(failure(json!("A"), json!(7)).message, "7");
    }

    #[test]
    fn a_number_ends_the_attempts_where_except_names_it() {
        let plan = compile::load("call", CALL).unwrap();
        let Work::Command(call) = &plan.steps[0].work else { panic!("it is a command") };
        let code = failure(json!(503), Value::Null).code;
        assert!(call.retry.except.contains(&code), "{:?}", call.retry.except);
    }

    #[test]
    fn the_time_until_the_next_attempt_is_read_as_number_decimal_or_text() {
        for (after, ms) in [
            (json!(1500), Some(1500)),
            (json!("1500"), Some(1500)),
            (json!(" 1500 "), Some(1500)),
            (json!(1500.0), Some(1500)),
            (json!(0.2), Some(1)),
            (json!("1500.2"), Some(1501)),
            (json!(0), Some(0)),
            (json!(u64::MAX), Some(86_400_000)),
            (json!("1e300"), Some(86_400_000)),
            (json!(-1), None),
            (json!("NaN"), None),
            (json!("soon"), None),
            (Value::Null, None),
        ] {
            let Ok(Outcome::Retry(_, read)) =
                outcome(json!({"x-saga-outcome": "retry", "x-saga-retry-after": after}))
            else {
                panic!("{after}")
            };
            assert_eq!(read, ms.map(Duration::from_millis), "{after}");
        }
    }
}
