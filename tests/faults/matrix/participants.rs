//! Participants that are slow, silent, hasty, or not to be understood.

use crate::BROKER;
use crate::participant::Behaviour;
use crate::rig::Rig;

/// How often a command was sent, and under how many command ids.
fn sent(messages: &[serde_json::Value], key: &str) -> (usize, usize) {
    let of_key: Vec<_> = messages.iter().filter(|message| message["key"] == key).collect();
    let sendings: std::collections::BTreeSet<_> =
        of_key.iter().map(|message| message["message_id"].to_string()).collect();
    let commands: std::collections::BTreeSet<_> =
        of_key.iter().map(|message| message["headers"]["x-saga-command-id"].to_string()).collect();
    (sendings.len(), commands.len())
}

#[test]
fn a_silent_participant_is_asked_again_under_the_same_command_id_and_then_undone() {
    let rig = Rig::start("silent", &BROKER.url());
    rig.place("A-1", &[("payment.charge", Behaviour::Silent)]);
    rig.faulted("participant_silent");
    let evidence = rig.finish();
    evidence.assert_all(1, "compensated");
    let messages = evidence.lines("messages.jsonl");
    assert_eq!(sent(&messages, "payment.charge"), (4, 1));
    assert_eq!(sent(&messages, "payment.refund"), (1, 1));
    assert_eq!(sent(&messages, "stock.release"), (1, 1));
    assert_eq!(evidence.lines("payment.ledger").len(), 2);
}

#[test]
fn a_silent_compensation_is_asked_again_and_then_parked_with_an_alert() {
    let rig = Rig::start("silent-undo", &BROKER.url());
    let behaviours = [("shipping.ship", Behaviour::Failure), ("payment.refund", Behaviour::Silent)];
    rig.place("A-1", &behaviours);
    rig.faulted("participant_silent");
    let evidence = rig.finish();
    evidence.assert_all(1, "parked");
    let messages = evidence.lines("messages.jsonl");
    assert_eq!(sent(&messages, "payment.refund"), (2, 1));
    assert_eq!(sent(&messages, "stock.release"), (0, 0), "an undo overtook the one after it");
    assert_eq!(sent(&messages, "order.parked").0, 1);
}

#[test]
fn a_slow_participant_is_waited_for_and_its_late_answer_changes_nothing() {
    let rig = Rig::start("slow-answer", &BROKER.url());
    rig.place("in-time", &[("stock.reserve", Behaviour::Late(700))]);
    rig.place("too-late", &[("stock.reserve", Behaviour::Late(2_500))]);
    rig.faulted("participant_late");
    rig.becomes("in-time", "completed");
    rig.becomes("too-late", "completed");
    let ignored = || rig.details("too-late")["ignored"].as_u64();
    crate::eventually("the late answer is recorded", || ignored() == Some(1));
    let evidence = rig.finish();
    evidence.assert_all(2, "completed");
    // One attempt for the first, two for the second.
    assert_eq!(sent(&evidence.lines("messages.jsonl"), "stock.reserve"), (3, 2));
}

#[test]
fn work_that_is_done_after_it_was_given_up_is_undone() {
    let rig = Rig::start("given-up", &BROKER.url());
    rig.set_working(false);
    rig.place("A-1", &[]);
    rig.becomes("A-1", "compensating");
    rig.faulted("participant_late");
    let evidence = rig.finish();
    evidence.assert_all(1, "compensated");
    // The action was done, late, and then undone.
    let effects: Vec<_> = evidence
        .lines("stock.ledger")
        .iter()
        .map(|entry| entry["effect"]["units"].as_i64().unwrap())
        .collect();
    assert_eq!(effects, [1, -1]);
}

#[test]
fn a_participant_that_asks_for_another_attempt_gets_it() {
    let rig = Rig::start("asks-again", &BROKER.url());
    rig.place("A-1", &[("payment.charge", Behaviour::Retry(2))]);
    rig.faulted("participant_retry");
    let evidence = rig.finish();
    evidence.assert_all(1, "completed");
    assert_eq!(sent(&evidence.lines("messages.jsonl"), "payment.charge"), (3, 1));
}

#[test]
fn garbage_from_a_participant_is_dead_lettered_once_and_its_answer_counts() {
    let rig = Rig::start("garbage", &BROKER.url());
    let garbage = ["stock.reserve", "payment.charge", "shipping.ship"].map(|key| (key, Behaviour::Garbage));
    rig.place("A-1", &garbage);
    rig.faulted("participant_garbage");
    let evidence = rig.finish();
    evidence.assert_all(1, "completed");
    assert_eq!(evidence.lines("dead.jsonl").len(), 3);
}
