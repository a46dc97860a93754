//! Steps for each item of a list.

use sagamq::saga::called::End;
use sagamq::saga::instance::ItemStatus;

use super::parallel::with_steps;
use super::*;

const PACK: usize = 0;
const PAY: usize = 1;

fn plan(kind: &str) -> Plan {
    let (before, after) = match kind {
        "retriable" => ("{step: pay, kind: pivot, command: {exchange: e, key: pay}}", None),
        _ => ("", Some("{step: pay, command: {exchange: e, key: pay}, compensate: none}")),
    };
    let each = format!(
        "{{foreach: pack, kind: {kind}, items: =input.items, as: line, with: {{order: =saga.business_key}}, \
          max_in_flight: 2, max_items: 4, output: =steps.pick.output, steps: \
          [{{step: pick, command: {{exchange: e, key: pick}}, compensate: none, output: =reply.data}}]}}"
    );
    let steps = [before.to_owned(), each].into_iter().chain(after.map(str::to_owned));
    with_steps(&steps.filter(|step| !step.is_empty()).collect::<Vec<_>>())
}

fn run(items: Value) -> Run {
    Run::placed(plan("compensatable"), json!({"order_id": "A-1", "customer": "c", "items": items}))
}

impl Run {
    /// The inputs of the instances that were to begin since this was last asked, and who was told to turn back.
    fn calls(&mut self) -> (Vec<Value>, usize) {
        let mut begun = Vec::new();
        let mut recalled = 0;
        for told in std::mem::take(&mut self.told) {
            match told {
                Told::Start(start) => begun.push(start.input),
                Told::Event(_, Event::Recall { .. }) => recalled += 1,
                Told::Event(..) => {}
            }
        }
        (begun, recalled)
    }

    fn item(&mut self, step: usize, item: usize, end: End) -> &mut Self {
        self.event(Event::CalledEnded { step, item: Some(item), end });
        self
    }

    fn done(&mut self, step: usize, item: usize) -> &mut Self {
        self.item(step, item, End::Done(Ok(json!(item * 10))))
    }

    fn items(&self, step: usize) -> Vec<ItemStatus> {
        self.instance.steps[step].items.iter().map(|item| item.status).collect()
    }
}

#[test]
fn items_begin_in_order_so_many_at_a_time_with_what_they_are_given() {
    let mut run = run(json!(["a", "b", "c"]));
    let line = |index: usize, line: &str| json!({"line": line, "index": index, "order": "A-1"});
    assert_eq!(run.calls(), (vec![line(0, "a"), line(1, "b")], 0));
    run.done(PACK, 1);
    assert_eq!(run.calls(), (vec![line(2, "c")], 0));
}

#[test]
fn results_are_kept_in_the_order_of_the_items() {
    let mut run = run(json!(["a", "b", "c"]));
    run.done(PACK, 1).done(PACK, 2);
    assert_eq!(run.step(PAY), StepStatus::Pending);
    run.done(PACK, 0);
    assert_eq!(run.instance.steps[PACK].output.as_deref(), Some(&json!([0, 10, 20])));
    assert_eq!(run.keys(), ["pay"]);
}

#[test]
fn an_empty_list_is_done_at_once() {
    let run = run(json!([]));
    assert_eq!(run.instance.steps[PACK].output.as_deref(), Some(&json!([])));
    assert_eq!(run.keys(), ["pay"]);
}

#[test]
fn a_list_that_is_too_long_or_is_none_fails_the_step() {
    for (items, code) in [
        (json!([1, 2, 3, 4, 5]), "TOO_MANY_ITEMS"),
        (json!("a"), "BAD_EXPRESSION"),
        (json!(null), "BAD_EXPRESSION"),
    ] {
        let run = run(items);
        assert_eq!(run.instance.error.as_ref().unwrap().code, code);
        assert_eq!(run.instance.status, Status::Compensated);
    }
}

#[test]
fn an_item_that_is_too_large_fails_the_step_and_begins_nothing() {
    let mut run = run(json!(["a", "x".repeat(70_000), "c"]));
    assert_eq!(run.instance.error, None, "the first is under way, and is awaited");
    run.item(PACK, 0, End::Failed(failure("RECALLED")));
    assert_eq!(run.instance.error.as_ref().unwrap().code, "TOO_LARGE");
    assert_eq!(run.instance.status, Status::Compensated);
}

#[test]
fn one_item_that_fails_has_the_others_turn_back_and_what_was_done_undone() {
    let mut run = run(json!(["a", "b", "c", "d"]));
    run.done(PACK, 0);
    run.calls();
    run.item(PACK, 1, End::Failed(failure("BROKEN")));
    assert_eq!(run.calls(), (vec![], 1), "the third is recalled, the fourth does not begin");
    run.item(PACK, 2, End::Failed(failure("RECALLED")));
    assert_eq!(run.step(PACK), StepStatus::Compensating);
    assert_eq!(run.instance.error.as_ref().unwrap().code, "BROKEN");
    assert_eq!(run.calls(), (vec![], 1), "the first was done, and is undone");
    run.item(PACK, 0, End::Undone { leaves: false });
    assert_eq!((run.instance.status, run.step(PACK)), (Status::Compensated, StepStatus::Compensated));
}

#[test]
fn a_step_of_which_nothing_was_done_has_failed_and_needs_no_undoing() {
    let mut run = run(json!(["a"]));
    run.item(PACK, 0, End::Failed(failure("BROKEN")));
    assert_eq!((run.instance.status, run.step(PACK)), (Status::Compensated, StepStatus::Failed));
}

#[test]
fn a_later_failure_undoes_the_last_items_first_so_many_at_a_time() {
    let mut run = run(json!(["a", "b", "c"]));
    run.done(PACK, 0).done(PACK, 1).done(PACK, 2);
    run.calls();
    run.refuse(PAY);
    use ItemStatus::{Done, Recalled, Undone};
    assert_eq!(run.items(PACK), [Done, Recalled, Recalled]);
    run.item(PACK, 2, End::Undone { leaves: false });
    assert_eq!(run.items(PACK), [Recalled, Recalled, Undone]);
    run.item(PACK, 1, End::Undone { leaves: false }).item(PACK, 0, End::Undone { leaves: false });
    assert_eq!(run.instance.status, Status::Compensated);
}

#[test]
fn items_of_which_something_was_left_are_not_told_as_undone() {
    let mut run = run(json!(["a", "b"]));
    run.done(PACK, 0).done(PACK, 1).refuse(PAY);
    run.item(PACK, 1, End::Undone { leaves: true }).item(PACK, 0, End::Undone { leaves: false });
    assert_eq!(run.items(PACK), [ItemStatus::Undone, ItemStatus::NotUndone]);
    assert_eq!(run.instance.steps[PACK].status, StepStatus::NotUndone);
    assert_eq!(
        (run.instance.status, run.instance.not_undone().collect::<Vec<_>>()),
        (Status::Compensated, vec!["pack"])
    );
    check_fold(&run);
}

#[test]
fn an_item_that_was_done_when_it_was_recalled_and_left_something_is_no_failed_one() {
    let mut run = run(json!(["a", "b"]));
    run.event(Event::Cancel { event_id: None, event: None });
    run.item(PACK, 0, End::Undone { leaves: true }).item(PACK, 1, End::Failed(failure("RECALLED")));
    assert_eq!(run.items(PACK), [ItemStatus::NotUndone, ItemStatus::Failed]);
    assert_eq!(run.instance.steps[PACK].status, StepStatus::NotUndone);
    assert_eq!(run.instance.status, Status::Compensated);
}

#[test]
fn an_instance_that_stops_recalls_its_items_and_waits_for_them() {
    let mut run = run(json!(["a", "b", "c"]));
    run.calls();
    run.event(Event::Cancel { event_id: None, event: None });
    assert_eq!(run.calls(), (vec![], 2));
    run.item(PACK, 0, End::Failed(failure("RECALLED")));
    assert_eq!(run.instance.status, Status::Running);
    run.item(PACK, 1, End::Failed(failure("RECALLED")));
    assert_eq!(run.instance.status, Status::Compensated);
    assert_eq!(run.instance.error.as_ref().unwrap().code, "CANCELLED");
}

#[test]
fn an_instance_is_parked_with_an_item_and_goes_on_with_its_end() {
    let mut run = run(json!(["a", "b"]));
    run.item(PACK, 0, End::Parked(failure("SILENT")));
    assert_eq!(run.instance.status, Status::Parked);
    run.done(PACK, 1);
    assert_eq!(run.instance.status, Status::Parked, "one item of two is still parked");
    run.done(PACK, 0);
    assert_eq!((run.instance.status, run.keys()), (Status::Running, vec!["order.parked", "pay"]));
}

#[test]
fn after_the_pivot_what_failed_is_done_once_more_on_order() {
    let data = json!({"order_id": "A-1", "customer": "c", "items": ["a", "b", "c"]});
    let mut run = Run::placed(plan("retriable"), data);
    run.succeed(0).done(1, 0).item(1, 1, End::Failed(failure("BROKEN")));
    assert_eq!(run.items(1)[2], ItemStatus::Called, "what is under way is not recalled");
    run.done(1, 2);
    assert_eq!((run.instance.status, run.step(1)), (Status::Parked, StepStatus::Unknown));
    run.calls();
    run.order(Verb::Retry, None, Value::Null).unwrap();
    let (begun, _) = run.calls();
    assert_eq!(begun, [json!({"line": "b", "index": 1, "order": "A-1"})]);
    run.done(1, 1);
    assert_eq!(run.instance.status, Status::Completed);
    assert_eq!(run.instance.steps[1].output.as_deref(), Some(&json!([0, 10, 20])));
}

#[test]
fn an_item_that_is_done_without_an_output_stays_so_when_the_others_are_done_once_more() {
    let data = json!({"order_id": "A-1", "customer": "c", "items": ["a", "b"]});
    let mut run = Run::placed(plan("retriable"), data);
    run.succeed(0);
    run.item(1, 0, End::Done(Err(failure("BAD_OUTPUT")))).item(1, 1, End::Failed(failure("BROKEN")));
    run.order(Verb::Retry, None, Value::Null).unwrap();
    run.done(1, 1);
    assert_eq!((run.instance.status, run.step(1)), (Status::Parked, StepStatus::Unknown));
    assert_eq!(run.instance.parked.as_ref().unwrap().code, "BAD_OUTPUT");
    check_fold(&run);
    run.order(Verb::Skip, None, json!([1, 2])).unwrap();
    assert_eq!(run.instance.status, Status::Completed);
}

#[test]
fn a_history_with_items_folds_to_the_same_record() {
    let mut run = run(json!(["a", "b", "c"]));
    run.done(PACK, 0).item(PACK, 1, End::Parked(failure("SILENT"))).item(PACK, 2, End::Failed(failure("NO")));
    check_fold(&run);
    run.item(PACK, 1, End::Failed(failure("NO"))).item(PACK, 0, End::Undone { leaves: false });
    check_fold(&run);
    assert_eq!(run.instance.status, Status::Compensated);
}

fn check_fold(run: &Run) {
    let replayed = Instance::replay(run.instance.id, &run.history).unwrap();
    assert_eq!(replayed, run.instance);
    let stored: Instance = serde_json::from_value(serde_json::to_value(&run.instance).unwrap()).unwrap();
    assert_eq!(stored.steps, run.instance.steps);
}
