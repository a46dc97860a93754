//! `sagamq show`: all about one saga.

use super::args::ShowArgs;
use super::client::{Answer, Client};
use super::error::{CliError, Exit};
use super::output::{self, plain, reason, span};
use crate::http::history::FactView;
use crate::http::view::{Details, PageView, ProgressView, StepView, Summary};
use crate::saga::id::InstanceId;

/// Asks for a saga by its id or its business key and prints it.
///
/// # Errors
/// No orchestrator answers; there is no such saga; several sagas have that business key.
pub fn show(args: &ShowArgs, client: &Client) -> Result<Exit, CliError> {
    output::print(&ask(args, client)?)?;
    Ok(Exit::Fine)
}

pub(crate) fn ask(args: &ShowArgs, client: &Client) -> Result<String, CliError> {
    let answer = find(client, &args.key, args.saga.as_deref())?;
    if args.json { Ok(answer.text + "\n") } else { Ok(render(&client.read(&answer)?)) }
}

/// All about the instance with this id or business key.
///
/// # Errors
/// As for [`show`].
pub(super) fn details(client: &Client, key: &str, saga: Option<&str>) -> Result<Details, CliError> {
    client.read(&find(client, key, saga)?)
}

/// A business key may look like an id, so what is not found as the one is looked for as the other.
fn find(client: &Client, key: &str, saga: Option<&str>) -> Result<Answer, CliError> {
    if let Ok(id) = key.parse::<InstanceId>() {
        match client.fetch(&format!("/api/v1/sagas/{id}"), &[]) {
            Err(CliError::NotFound(_)) => {}
            outcome => return outcome,
        }
    }
    let mut parameters = vec![("business_key", key)];
    parameters.extend(saga.map(|saga| ("saga", saga)));
    let page: PageView<Summary> = client.read(&client.fetch("/api/v1/sagas", &parameters)?)?;
    match page.items.as_slice() {
        [] => Err(CliError::NotFound(format!("there is no saga with id or business key {key:?}"))),
        [one] => client.fetch(&format!("/api/v1/sagas/{}", one.id), &[]),
        several => Err(CliError::Ambiguous {
            key: key.to_owned(),
            sagas: several.iter().map(|item| item.saga.clone()).collect(),
        }),
    }
}

fn render(details: &Details) -> String {
    let mut text = String::new();
    let summary = &details.summary;
    line(
        &mut text,
        &format!("{} {}: {}", plain(&summary.saga), plain(&summary.business_key), summary.status),
    );
    let attribute = |(name, value): (&String, &String)| format!("{}={}", plain(name), plain(value));
    let attributes: Vec<_> = summary.attributes.iter().map(attribute).collect();
    let ended = summary.ended_at.map(|ended| {
        let took = span(ended.0.since(summary.started_at.0));
        format!("{ended}, after {took}")
    });
    let rows = [
        ("id", Some(summary.id.clone())),
        ("version", Some(summary.version.to_string())),
        ("attributes", Some(attributes.join(", ")).filter(|all| !all.is_empty())),
        ("started", Some(summary.started_at.to_string())),
        ("ended", ended),
        ("deadline", summary.deadline.map(|deadline| deadline.to_string())),
        ("reason", summary.error.as_ref().map(reason)),
        ("not undone", Some(plain(&summary.not_undone.join(", "))).filter(|all| !all.is_empty())),
        ("to come", Some(plain(&details.to_come.join(", "))).filter(|all| !all.is_empty())),
    ];
    for (name, value) in rows {
        if let Some(value) = value {
            line(&mut text, &format!("  {name:<11}{value}"));
        }
    }
    line(&mut text, "\nsteps");
    let name_width = details.steps.iter().map(|step| step.name.chars().count()).max().unwrap_or(0);
    for step in &details.steps {
        let is_over = summary.ended_at.is_some() || summary.status == "compensating";
        line(&mut text, &step_line(step, is_over, name_width));
    }
    line(&mut text, "\nhistory");
    for entry in &details.history {
        for (index, fact) in entry.facts.iter().enumerate() {
            let at = fact.at.map(|at| at.to_string()).unwrap_or_default();
            // All facts of an entry come from one message.
            let user =
                entry.user.iter().filter(|_| index == 0).map(|user| format!(", from user {}", plain(user)));
            line(&mut text, &format!("  {at}  {}{}", sentence(fact), user.collect::<String>()));
        }
    }
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

/// A step; `is_over` says that none begins any more.
fn step_line(step: &StepView, is_over: bool, name_width: usize) -> String {
    let waits_for_nothing = |progress: &ProgressView| progress.awaiting == "nothing";
    let (mark, words) = match step.status.as_str() {
        "pending" if is_over => ("·", "not begun"),
        "pending" => ("·", "to come"),
        "dispatched" if step.action.as_ref().is_some_and(waits_for_nothing) => ("?", "unanswered"),
        "dispatched" => ("▶", "running"),
        "compensating" if step.compensation.as_ref().is_some_and(waits_for_nothing) => {
            ("?", "not undone yet, and nothing is out for it")
        }
        "succeeded" => ("✓", "done"),
        "failed" => ("✗", "failed"),
        "unknown" => ("?", "given up, perhaps done"),
        "skipped" => ("-", "skipped"),
        "compensating" => ("◀", "being undone"),
        "compensated" => ("↶", "undone"),
        "not_undone" => ("!", "NOT undone, a person had it left"),
        other => ("·", other),
    };
    let mut line = format!("  {mark} {:<name_width$}  {words}", plain(&step.name));
    let undoing = step.compensation.as_ref();
    let under_way = undoing.or(step.action.as_ref());
    let attempts = undoing.map_or(step.attempts, |undoing| undoing.attempts);
    if attempts > 1 {
        line.push_str(&format!(", attempt {attempts}"));
    }
    let items: Vec<_> = step.items.iter().map(|(status, count)| format!("{count} {status}")).collect();
    if !items.is_empty() {
        line.push_str(&format!(", items: {}", items.join(", ")));
    }
    if let Some(progress) = under_way {
        let due = progress.due.map(|due| due.to_string()).unwrap_or_default();
        match progress.awaiting.as_str() {
            "confirm" => line.push_str(", awaits the broker"),
            "reply" => line.push_str(&format!(", awaits the reply until {due}")),
            "event" => line.push_str(&format!(", awaits the event until {due}")),
            "time" => line.push_str(&format!(", until {due}")),
            "called" => line.push_str(", awaits the saga that it called"),
            "recalled" => line.push_str(", awaits that the called saga has turned back"),
            "turn" => line.push_str(", awaits its turn"),
            "retry" => line.push_str(&format!(", next attempt at {due}")),
            _ => {}
        }
    }
    if let Some(error) = &step.error {
        line.push_str(&format!(": {}", plain(&format!("{} ({})", error.message, error.code))));
    }
    line
}

/// A fact in words.
pub(super) fn sentence(fact: &FactView) -> String {
    let undoing = fact.phase.as_deref() == Some("compensation");
    let words = match fact.fact.as_str() {
        "started" => "started by an event",
        "heard" => "the event is noted, so that it counts once",
        "queued" => "awaits its turn",
        "dispatched" if undoing => "undo command decided",
        "dispatched" => "command decided",
        "published" if undoing => "undo command sent",
        "published" => "command sent",
        "unroutable" => "command came back, no queue is bound for it",
        "awaited" => "waits for the event",
        "came_early" => "the event came before its turn",
        "delayed" => "waits",
        "called" => "called another saga",
        "recalled" => "told the called saga to turn back",
        "stalled" => "the called saga is parked",
        "listed" => "has its items",
        "item_called" => "called for an item",
        "item_done" => "an item is done",
        "item_failed" => "an item failed",
        "item_recalled" => "told an item to turn back",
        "item_undone" => "an item is undone",
        "item_left_undone" => "an item is NOT undone, a person had something of it left",
        "held" => "done, its caller decides",
        "timed_out" if fact.attempt == Some(0) => "no event in time",
        "timed_out" => "no reply in time",
        "still_working" => "participant is still working",
        "transient" => "failed for now",
        "not_sent" => "command could not be made",
        "retry_scheduled" => "another attempt is scheduled",
        "succeeded" => "done",
        "corrected" => "what it keeps was corrected",
        "given_up" => "given up, perhaps done",
        "not_undone" => "undoing was refused",
        "left_undone" => "NOT undone, a person has the instance go on",
        "compensated" => "undone",
        "stopping" => "no further step is begun",
        "stop_overruled" => "goes on forward, the pivot had succeeded",
        "compensation_started" => "going back",
        "all_compensated" => "nothing more is to be undone",
        "parked" => "parked, waiting for a person",
        "notice_due" => "event about this is to be sent",
        "notice_published" => "event about this sent",
        "notice_dropped" => "event about this dropped",
        "ignored" => "a message changed nothing",
        other => &other.replace('_', " "),
    };
    let mut text = String::new();
    if let Some(step) = &fact.step {
        text.push_str(&format!("{step}: "));
    }
    text.push_str(words);
    if let (Some(verb), Some(actor)) = (&fact.verb, &fact.actor) {
        text.push_str(&format!(" by {actor}: {}", verb.replace('_', " ")));
    }
    if let Some(item) = fact.item {
        text.push_str(&format!(", item {item}"));
    }
    if let Some(items) = fact.items {
        text.push_str(&format!(", {items} of them"));
    }
    if let Some(attempt) = fact.attempt.filter(|attempt| *attempt > 1) {
        text.push_str(&format!(", attempt {attempt}"));
    }
    if let Some(due) = fact.due {
        let word = match fact.fact.as_str() {
            "retry_scheduled" => "at",
            "awaited" | "delayed" => "until",
            _ => "reply awaited until",
        };
        text.push_str(&format!(", {word} {due}"));
    }
    let kind = fact
        .reason
        .as_ref()
        .map(|reason| if fact.fact == "ignored" { reason.replace('_', " ") } else { reason.clone() });
    for detail in [&fact.to, &kind, &fact.called, &fact.message_id].into_iter().flatten() {
        text.push_str(&format!(", {detail}"));
    }
    if let Some(error) = &fact.error {
        text.push_str(&format!(": {} ({})", error.message, error.code));
    }
    plain(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fixture;

    #[test]
    fn sagas_of_every_fate_read_as_in_the_golden_files() {
        for (instance, history) in fixture::instances() {
            let text = render(&Details::new(&instance, &history, None));
            fixture::assert_golden(&format!("show-{}.txt", instance.business_key), &text);
        }
    }

    #[test]
    fn nothing_from_outside_reaches_the_terminal_as_a_control_character() {
        let (instance, history) = fixture::instances().remove(0);
        let mut details = Details::new(&instance, &history, None);
        details.summary.business_key = "\u{1b}[2J\nsaga evil: completed".to_owned();
        details.history[0].facts[0].message_id = Some("\u{1b}]0;x\u{7}".to_owned());
        let text = render(&details);
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert!(!text.contains("\nsaga evil"), "{text:?}");
    }
}
