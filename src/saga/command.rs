//! Rendering: the bytes of a message, as a function of the plan and the instance.
//!
//! No command is stored. While one is unconfirmed, everything that its body can refer to stands still:
//! an action is sent when the steps before it are settled, compensation begins only when no action is
//! in flight, and `saga.status` is out of scope. So a command that is published again after a crash is
//! byte for byte the same. A notice is different: the instance may go on while it is unconfirmed, so
//! its body is in the fact.

use serde_json::Value;

use super::expression::{ExpressionError, Scope};
use super::fact::{Tells, Trace};
use super::id::{MessageId, Phase};
use super::instance::{Instance, Notice, Status};
use super::message::{Extras, Header, Headers, Origin, Outgoing, Part};
use super::plan::{self, Call, Emission, Plan, Step};
use super::template::to_bytes;
use super::time::Timestamp;
use crate::fault::{self, Bug};

/// Room for the headers of a message, taken at once: few have more.
const ROOM_FOR_HEADERS: usize = 8;

/// Renders one message of an instance; `None` where the plan has no such message.
///
/// # Errors
/// An expression of the body cannot be evaluated, for example because a field is missing.
pub fn render(plan: &Plan, instance: &Instance, part: Part) -> Result<Option<Outgoing>, ExpressionError> {
    match part {
        Part::Attempt { step, phase, attempt } => {
            if let Some(call) = call(plan, step, phase) {
                return render_attempt(plan, instance, call, step, phase, attempt).map(Some);
            }
            let Some(emission) = plan.steps.get(step).and_then(Step::emission) else { return Ok(None) };
            render_event(plan, instance, emission, step, attempt).map(Some)
        }
        Part::Notice(index) => {
            let Some(notice) = instance.notices.get(index) else { return Ok(None) };
            let Some(emission) = emission(plan, notice.tells, notice.status) else { return Ok(None) };
            render_notice(plan, instance, emission, notice, index).map(Some)
        }
    }
}

/// The call that does or undoes a step.
pub fn call(plan: &Plan, step: usize, phase: Phase) -> Option<&Call> {
    plan.steps.get(step)?.call(phase)
}

/// The event that tells that an instance has come to `status`, or that it was not cancelled there.
pub fn emission(plan: &Plan, tells: Tells, status: Status) -> Option<&Emission> {
    match (tells, status) {
        (Tells::RefusedCancel, _) => plan.on_cancel_refused.as_ref(),
        (Tells::Status, Status::Completed) => plan.on_completed.as_ref(),
        (Tells::Status, Status::Compensated) => plan.on_compensated.as_ref(),
        (Tells::Status, Status::Parked) => plan.on_parked.as_ref(),
        (Tells::Status, Status::Running | Status::Compensating) => None,
    }
}

fn render_attempt(
    plan: &Plan,
    instance: &Instance,
    call: &Call,
    step: usize,
    phase: Phase,
    attempt: u32,
) -> Result<Outgoing, ExpressionError> {
    let body = call.body.render(&Scope::of(instance))?;
    let name = &plan.steps[step].name;
    let id_of = |phase, attempt| match fault::planted(Bug::RandomIds) {
        false => instance.attempt_id(name, phase, attempt),
        true => instance.notice_id(fault::ticket()),
    };
    let message_id = id_of(phase, attempt);
    let command_id = if attempt == 1 { message_id } else { id_of(phase, 1) };
    let mut headers = headers_of_attempt(plan, instance, message_id, name, phase, attempt);
    headers.put("x-saga-command-id", Header::Message(command_id));
    if phase == Phase::Compensation {
        headers.put("x-saga-compensates", Header::Message(id_of(Phase::Action, 1)));
    }
    if let Some(deadline) = instance.deadline {
        headers.put("x-saga-deadline", Header::Time(deadline));
    }
    // By its key in the type, or here, an orchestrator that hears its own command knows it.
    if call.extras.as_ref().is_some_and(|extras| extras.kind.is_some()) {
        headers.put("x-saga-key", Header::Text(call.key.to_string()));
    }
    Ok(Outgoing {
        origin: Origin { instance: instance.id, part: Part::Attempt { step, phase, attempt } },
        exchange: call.exchange.clone(),
        key: call.key.clone(),
        message_id,
        wants_reply: true,
        correlation: None,
        timestamp: instance.steps[step].progress(phase).dispatched_at,
        headers,
        body,
        extras: extras(call.extras.as_deref(), instance)?,
        repeated: false,
    })
}

fn render_event(
    plan: &Plan,
    instance: &Instance,
    emission: &Emission,
    step: usize,
    attempt: u32,
) -> Result<Outgoing, ExpressionError> {
    let phase = Phase::Action;
    let name = &plan.steps[step].name;
    let message_id = instance.attempt_id(name, phase, attempt);
    let headers = headers_of_attempt(plan, instance, message_id, name, phase, attempt);
    Ok(Outgoing {
        origin: Origin { instance: instance.id, part: Part::Attempt { step, phase, attempt } },
        exchange: emission.exchange.clone(),
        key: emission.key.clone(),
        message_id,
        wants_reply: false,
        correlation: None,
        timestamp: instance.steps[step].progress(phase).dispatched_at,
        headers,
        body: emission.body.render(&Scope::of(instance))?,
        extras: extras(emission.extras.as_deref(), instance)?,
        repeated: false,
    })
}

fn render_notice(
    plan: &Plan,
    instance: &Instance,
    emission: &Emission,
    notice: &Notice,
    index: usize,
) -> Result<Outgoing, ExpressionError> {
    let message_id = instance.notice_id(index);
    let mut headers = headers(plan, instance, message_id);
    // An instance that is compensated changes no more.
    let not_undone = instance.not_undone().collect::<Vec<_>>().join(",");
    if notice.status == Status::Compensated && !not_undone.is_empty() {
        headers.put("x-saga-not-undone", Header::Text(not_undone));
    }
    Ok(Outgoing {
        origin: Origin { instance: instance.id, part: Part::Notice(index) },
        exchange: emission.exchange.clone(),
        key: emission.key.clone(),
        message_id,
        wants_reply: false,
        correlation: None,
        timestamp: notice.at,
        headers,
        body: to_bytes(notice.body.as_deref().unwrap_or(&Value::Null)),
        extras: extras(emission.extras.as_deref(), instance)?,
        repeated: false,
    })
}

/// What a message carries beside its body. It sees what the body of a command sees, which stands still.
fn extras(
    extras: Option<&plan::Extras>,
    instance: &Instance,
) -> Result<Option<Box<Extras>>, ExpressionError> {
    let Some(extras) = extras else { return Ok(None) };
    let scope = Scope::of(instance);
    let mut headers = Vec::with_capacity(extras.headers.len());
    for (name, value) in &extras.headers {
        headers.push((name.clone(), value.evaluate(&scope)?));
    }
    Ok(Some(Box::new(Extras {
        headers,
        priority: extras.priority,
        expires: extras.expires,
        content_type: extras.content_type.clone(),
        kind: extras.kind.clone(),
    })))
}

fn headers_of_attempt(
    plan: &Plan,
    instance: &Instance,
    message_id: MessageId,
    step: &str,
    phase: Phase,
    attempt: u32,
) -> Headers {
    let mut headers = headers(plan, instance, message_id);
    headers.put("x-saga-step", Header::Text(step.to_owned()));
    headers.put("x-saga-phase", Header::Phase(phase));
    headers.put("x-saga-attempt", Header::Number(attempt));
    headers
}

/// Those that every message has.
fn headers(plan: &Plan, instance: &Instance, message_id: MessageId) -> Headers {
    let mut headers = Headers::with_capacity(ROOM_FOR_HEADERS);
    headers.put("x-saga-id", Header::Instance(instance.id));
    headers.put("x-saga-name", Header::Text(plan.saga.clone()));
    headers.put("x-saga-version", Header::Number(plan.version));
    if let Some(trace) = &instance.trace {
        headers.put("traceparent", Header::Text(child_of(trace, message_id)));
        if let Some(state) = &trace.state {
            headers.put("tracestate", Header::Text(state.clone()));
        }
    }
    headers
}

/// The start's trace, with the first half of the message id as the parent span.
fn child_of(trace: &Trace, message_id: MessageId) -> String {
    let span: String = message_id.as_bytes()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    match trace.parent.split('-').collect::<Vec<_>>().as_slice() {
        [version, id, _, flags] => format!("{version}-{id}-{span}-{flags}"),
        _ => trace.parent.clone(),
    }
}

/// Reads the trace context of a start event, if it has a well-formed one. A state goes on to participants,
/// who may hand it to HTTP: one that is not printable is left out.
pub fn trace_of(headers: &serde_json::Map<String, serde_json::Value>) -> Option<Trace> {
    let text = |name: &str| headers.get(name).and_then(|value| value.as_str());
    let parent = text("traceparent")?;
    let lengths: Vec<usize> = parent.split('-').map(str::len).collect();
    let hex = parent.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    if lengths != [2, 32, 16, 2] || !hex {
        return None;
    }
    let printable = |state: &str| state.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let state = text("tracestate").filter(|state| state.len() <= 512 && printable(state));
    Some(Trace { parent: parent.to_owned(), state: state.map(str::to_owned) })
}

/// When an attempt counts as unanswered that was published, or heard of, at `now`.
pub fn due(call: &Call, now: Timestamp) -> Timestamp {
    now + call.timeout
}
