//! The graph that every picture shows: the steps, what undoes them, and how an instance begins and ends.
//!
//! The way back is the graph walked backwards over what can be undone. Being parked is no part of it: it
//! can happen at any step.

use std::collections::BTreeSet;

use super::words::{heard, patience, place, printable};
use crate::saga::duration;
use crate::saga::id::Phase;
use crate::saga::plan::{AtDeadline, Delay, Emission, Kind, Limit, Plan, Step, Work};

/// What is drawn as a box. Steps are indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// The start event.
    Start,
    /// A step.
    Do(usize),
    /// What undoes a step: its compensation, or that what it called turns back.
    Undo(usize),
    /// The end when everything is done.
    Completed,
    /// The end when everything is undone.
    Compensated,
}

/// Which way an instance takes an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Forward,
    Back,
}

/// An arrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) from: Node,
    pub(super) to: Node,
    pub(super) way: Way,
}

/// Every box: start and steps, each with what undoes it, and the ends.
pub(super) fn nodes(plan: &Plan) -> Vec<Node> {
    let of_step = |step: usize| {
        let undo = plan.steps[step].is_undoable().then_some(Node::Undo(step));
        [Some(Node::Do(step)), undo].into_iter().flatten()
    };
    let steps = (0..plan.steps.len()).flat_map(of_step);
    [Node::Start].into_iter().chain(steps).chain([Node::Completed, Node::Compensated]).collect()
}

/// A name of the box that is an identifier everywhere, and no word of any language.
pub(super) fn id(plan: &Plan, node: Node) -> String {
    match node {
        Node::Start => "start".to_owned(),
        Node::Do(step) => format!("do_{}", plan.steps[step].name),
        Node::Undo(step) => format!("undo_{}", plan.steps[step].name),
        Node::Completed => "completed".to_owned(),
        Node::Compensated => "compensated".to_owned(),
    }
}

/// Every edge: one for each `requires`, those of start and ends, and the way back.
pub(super) fn edges(plan: &Plan) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (step, from) in plan.steps.iter().enumerate() {
        let to = Node::Do(step);
        edges.extend(from.requires.iter().map(|&earlier| forward(Node::Do(earlier), to)));
        if from.requires.is_empty() {
            edges.push(forward(Node::Start, to));
        }
    }
    edges.extend(last_steps(plan).map(|step| forward(Node::Do(step), Node::Completed)));
    let behind = undone_behind(plan);
    for (step, from) in plan.steps.iter().enumerate().filter(|(_, step)| step.kind != Kind::Retriable) {
        let mut turning = Node::Do(step);
        if from.is_undoable() {
            edges.push(back(turning, Node::Undo(step)));
            turning = Node::Undo(step);
        }
        edges.extend(behind[step].iter().map(|&earlier| back(turning, Node::Undo(earlier))));
        if behind[step].is_empty() {
            edges.push(back(turning, Node::Compensated));
        }
    }
    edges
}

/// The steps that no other requires.
pub(super) fn last_steps(plan: &Plan) -> impl Iterator<Item = usize> {
    let required: BTreeSet<_> = plan.steps.iter().flat_map(|step| step.requires.iter().copied()).collect();
    (0..plan.steps.len()).filter(move |step| !required.contains(step))
}

/// What stands in a box: first what it is called, then what is to be known of it.
pub(super) fn lines(plan: &Plan, node: Node) -> Vec<String> {
    let ending = |name: &str, emission: &Option<Emission>| {
        let emits =
            emission.as_ref().map(|emission| format!("emits {}", place(&emission.exchange, &emission.key)));
        [name.to_owned()].into_iter().chain(emits).collect()
    };
    match node {
        Node::Start => {
            let on = plan.start.as_ref().map(|start| heard(&start.on));
            vec!["start".to_owned(), on.map_or("when called".to_owned(), |on| format!("on {on}"))]
        }
        Node::Completed => ending("completed", &plan.on_completed),
        Node::Compensated => ending("compensated", &plan.on_compensated),
        Node::Do(step) => {
            let step = &plan.steps[step];
            let when = step.when.as_ref().map(|when| format!("when {}", printable(&when.to_string())));
            let kind = match step.kind {
                Kind::Compensatable if !step.is_undoable() && step.call(Phase::Action).is_some() => {
                    Some("nothing to undo")
                }
                Kind::Compensatable => None,
                Kind::Pivot => Some("pivot: no way back from here"),
                Kind::Retriable => Some("retriable: forward only"),
            };
            let known = [step.name.clone()].into_iter().chain(work(step)).chain(step.limit.map(limited));
            known.chain(when).chain(kind.map(str::to_owned)).collect()
        }
        Node::Undo(step) => {
            let step = &plan.steps[step];
            let by = match (&step.compensation, &step.work) {
                (Some(call), _) => vec![place(&call.exchange, &call.key), patience(call)],
                (None, Work::Saga(called)) => vec![format!("saga {} turns back", called.saga)],
                (None, _) => vec!["each item that ran turns back".to_owned()],
            };
            [format!("undo {}", step.name)].into_iter().chain(by).collect()
        }
    }
}

/// What a step does, in few words.
fn work(step: &Step) -> Vec<String> {
    match &step.work {
        Work::Command(call) => vec![place(&call.exchange, &call.key), patience(call)],
        Work::Wait(wait) => {
            let mut on: Vec<_> = wait.events.iter().filter_map(|event| event.on.as_ref()).collect();
            on.dedup();
            let events = on.into_iter().map(|on| format!("waits for {}", heard(on)));
            events.chain([format!("at most {}", duration::format(wait.timeout))]).collect()
        }
        Work::Delay(Delay::For(time)) => vec![format!("waits {}", duration::format(*time))],
        Work::Delay(Delay::Until(until)) => vec![format!("waits until {}", printable(&until.to_string()))],
        Work::Each(each) => {
            let names: Vec<_> = each.body.steps.iter().map(|step| step.name.as_str()).collect();
            vec![
                format!("for each of {}", printable(&each.items.to_string())),
                format!("{} at a time: {}", each.max_in_flight, names.join(", ")),
            ]
        }
        Work::Saga(called) => vec![format!("calls saga {}", called.saga)],
        Work::Emit(event) => vec![format!("emits {}", place(&event.exchange, &event.key))],
    }
}

/// How many commands are out over all instances, in few words.
fn limited(limit: Limit) -> String {
    let in_flight = limit.in_flight.map(|count| format!("{count} at a time"));
    let per_second = limit.per_second.map(|rate| format!("{rate} a second"));
    format!("at most {}", in_flight.into_iter().chain(per_second).collect::<Vec<_>>().join(", "))
}

/// What is to be known of the whole, and has no place in the graph.
pub(super) fn remarks(plan: &Plan) -> Vec<String> {
    let deadline = plan.deadline.map(|deadline| {
        let then = match deadline.then {
            AtDeadline::Compensate => "turns back",
            AtDeadline::Park => "is parked",
        };
        let before = if has_pivot(plan) { ", before the pivot" } else { "" };
        format!("Deadline: {} after the start{before}; then it {then}.", duration::format(deadline.after))
    });
    let cancel = plan.cancel.as_ref().map(|cancel| &cancel.on);
    let cancel = cancel.map(|on| format!("Cancelled by {}.", heard(on)));
    let emits = |when: &str, emission: &Option<Emission>| {
        let emission = emission.as_ref();
        emission.map(|emission| format!("When {when}: emits {}.", place(&emission.exchange, &emission.key)))
    };
    let parked = emits("parked", &plan.on_parked);
    let refused = emits("a cancellation is refused", &plan.on_cancel_refused);
    [deadline, cancel, parked, refused].into_iter().flatten().collect()
}

/// Whether there is a point of no return.
pub(super) fn has_pivot(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| step.kind == Kind::Pivot)
}

/// For each step, the steps that are undone next after it: the nearest behind it that can be.
fn undone_behind(plan: &Plan) -> Vec<BTreeSet<usize>> {
    let mut behind: Vec<BTreeSet<usize>> = Vec::new();
    for step in &plan.steps {
        let mut nearest = BTreeSet::new();
        for &earlier in &step.requires {
            if plan.steps[earlier].is_undoable() {
                nearest.insert(earlier);
            } else {
                nearest.extend(behind[earlier].iter().copied());
            }
        }
        behind.push(nearest);
    }
    behind
}

fn forward(from: Node, to: Node) -> Edge {
    Edge { from, to, way: Way::Forward }
}

fn back(from: Node, to: Node) -> Edge {
    Edge { from, to, way: Way::Back }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn a_limited_step_says_how_many_may_be_out() {
        let mut plan = fixture::plan("ab", 'b');
        plan.steps[0].limit = Some(Limit { in_flight: Some(20), per_second: Some(0.5) });
        let lines = lines(&plan, Node::Do(0));
        assert!(lines.contains(&"at most 20 at a time, 0.5 a second".to_owned()), "{lines:?}");
    }

    #[test]
    fn the_way_back_passes_by_what_has_nothing_to_undo() {
        // a and b after each other, c beside them; b has nothing to undo.
        let mut plan = fixture::plan("abcd", 'd');
        plan.steps[1].compensation = None;
        plan.steps[2].requires.clear();
        plan.steps[3].requires = vec![1, 2];
        let back: Vec<_> = edges(&plan)
            .into_iter()
            .filter(|edge| edge.way == Way::Back)
            .map(|edge| (edge.from, edge.to))
            .collect();
        let expected = [
            (Node::Do(0), Node::Undo(0)),
            (Node::Undo(0), Node::Compensated),
            (Node::Do(1), Node::Undo(0)),
            (Node::Do(2), Node::Undo(2)),
            (Node::Undo(2), Node::Compensated),
            (Node::Do(3), Node::Undo(0)),
            (Node::Do(3), Node::Undo(2)),
        ];
        assert_eq!(back, expected);
    }
}
