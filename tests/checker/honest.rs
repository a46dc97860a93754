//! Whatever happens to an orchestrator that is right, the checker holds nothing against it.

use proptest::prelude::*;
use sagamq::checker::{Evidence, check};
use sagamq::saga::id::Phase;
use sagamq::saga::instance::{Instance, Status, StepStatus};
use sagamq::saga::message::Part;
use sagamq::saga::reply::Outcome;
use sagamq::saga::transition::Event;

use crate::play::{Play, failure, garbage};

/// Something that happens to an instance.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// The broker takes what is out, and says so.
    Publish,
    /// The broker takes what is out, and its confirm is lost.
    LoseConfirm,
    /// What is out comes back, and may have been delivered before.
    Return { maybe_delivered: bool },
    /// A participant does what it was told, or refuses to, and is silent about it.
    Work { step: usize, phase: Phase, is_success: bool },
    /// A participant that has settled its command says so: again, late, or for the first time.
    Answer { step: usize, phase: Phase },
    /// A participant asks for another attempt, or for time.
    Hesitate { step: usize, phase: Phase, attempt: u32, is_pending: bool },
    /// Something is due.
    Wait,
    /// Somebody cancels.
    Cancel,
    /// The same order is placed again.
    PlaceAgain,
}

fn happening() -> impl Strategy<Value = Happening> {
    let phase = prop_oneof![3 => Just(Phase::Action), 2 => Just(Phase::Compensation)];
    let of_step = (0..4usize, phase);
    prop_oneof![
        4 => Just(Happening::Publish),
        1 => Just(Happening::LoseConfirm),
        1 => any::<bool>().prop_map(|maybe_delivered| Happening::Return { maybe_delivered }),
        6 => (of_step.clone(), prop::bool::weighted(0.8)).prop_map(|((step, phase), is_success)| Happening::Work { step, phase, is_success }),
        8 => of_step.clone().prop_map(|(step, phase)| Happening::Answer { step, phase }),
        1 => (of_step, 1..4u32, any::<bool>()).prop_map(|((step, phase), attempt, is_pending)| Happening::Hesitate { step, phase, attempt, is_pending }),
        3 => Just(Happening::Wait),
        1 => Just(Happening::Cancel),
        1 => Just(Happening::PlaceAgain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_is_held_against_the_transition_function(happenings in prop::collection::vec(happening(), 0..60)) {
        let mut evidence = Evidence::default();
        garbage(&mut evidence, "garbage-1");
        evidence.faults.insert("disorder".to_owned(), 1);
        let mut play = Play::start(evidence, "A-1");
        happenings.into_iter().for_each(|happening| happen(&mut play, happening));
        settle(&mut play);
        let report = check(&play.end());
        prop_assert!(report.passed(), "{report}");
    }
}

fn happen(play: &mut Play, happening: Happening) {
    let out: Vec<_> = play.instance.unconfirmed().collect();
    match happening {
        Happening::Publish => {
            play.publish();
        }
        Happening::LoseConfirm => {
            play.send_all();
        }
        Happening::Return { maybe_delivered } => {
            for part in out {
                // What was seen before may have been delivered, so nobody can say that it was not.
                let maybe_delivered = maybe_delivered || was_sent(play, part);
                if maybe_delivered {
                    play.send(part);
                }
                let event = Event::Unroutable { part, reason: "NO_ROUTE".to_owned(), maybe_delivered };
                play.event(event, None);
            }
        }
        Happening::Work { step, phase, is_success } if was_seen(play, step, phase) => {
            play.book(step, phase, is_success);
        }
        Happening::Answer { step, phase } if was_seen(play, step, phase) => {
            play.answer(step, phase, true);
        }
        Happening::Hesitate { step, phase, attempt, is_pending } if was_seen(play, step, phase) => {
            let busy = failure(&play.instance.steps[step].name);
            let outcome = if is_pending { Outcome::Pending } else { Outcome::Retry(busy, None) };
            play.tell(step, phase, Some(attempt), outcome);
        }
        Happening::Wait => {
            // A timer fires once what is due is known to be out.
            play.publish().wait();
        }
        Happening::Cancel => {
            play.cancel();
        }
        Happening::PlaceAgain => {
            play.place_again();
        }
        Happening::Work { .. } | Happening::Answer { .. } | Happening::Hesitate { .. } => {}
    }
}

/// Faults stop, and everybody answers, until nothing is left to do.
fn settle(play: &mut Play) {
    for _ in 0..200 {
        play.publish();
        let Instance { status, steps, .. } = &play.instance;
        if !matches!(status, Status::Running | Status::Compensating) {
            return;
        }
        let waiting = steps.iter().position(|state| match state.status {
            StepStatus::Dispatched => was_seen_of(play, &state.name, Phase::Action),
            StepStatus::Compensating => was_seen_of(play, &state.name, Phase::Compensation),
            _ => false,
        });
        match waiting {
            Some(step) if play.instance.steps[step].status == StepStatus::Dispatched => {
                play.answer(step, Phase::Action, true);
            }
            Some(step) => {
                play.answer(step, Phase::Compensation, true);
            }
            None => {
                play.wait();
            }
        }
    }
}

/// Whether a participant can know of a command.
fn was_seen(play: &Play, step: usize, phase: Phase) -> bool {
    was_seen_of(play, &play.instance.steps[step].name, phase)
}

fn was_seen_of(play: &Play, name: &str, phase: Phase) -> bool {
    play.evidence.messages.iter().any(|seen| {
        let is = |header: &str, value: &str| seen.headers.get(header).is_some_and(|is| is == value);
        is("x-saga-id", &play.instance.id.to_string())
            && is("x-saga-step", name)
            && is("x-saga-phase", phase.as_str())
    })
}

fn was_sent(play: &Play, part: Part) -> bool {
    match part {
        Part::Attempt { step, phase, .. } => was_seen(play, step, phase),
        Part::Notice(_) => false,
    }
}
