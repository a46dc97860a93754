//! Instances that begin in one commit, some of which end in it.

use super::*;

/// Not done for an item without `n`, done at once for one of 0, and done by a participant for others.
const EACH: &str = r#"
saga: order
version: 1
start: {on: {exchange: orders, key: order.placed}, business_key: =event.data.id}
steps:
  - foreach: pack
    items: =input.items
    steps:
      - {step: pick, when: =input.item.n > 0, command: {exchange: stores, key: pick}, compensate: none}
"#;
const CALLS: &str = r#"
saga: order
version: 1
start: {on: {exchange: orders, key: order.placed}, business_key: =event.data.id}
steps:
  - parallel: all
    steps:
      - {call: first, saga: line, input: '=input.items[0]'}
      - {call: second, saga: line, input: '=input.items[1]'}
      - {call: third, saga: line, input: '=input.items[2]'}
"#;
const LINE: &str = r#"
saga: line
version: 1
steps:
  - {step: pick, when: =input.n > 0, command: {exchange: stores, key: pick}, compensate: none}
"#;

impl World {
    /// Begins an order with items of which each has its `n`.
    fn begin(definitions: &[&str], items: Value) -> (Self, Vec<Outgoing>) {
        let folder = tempfile::tempdir().unwrap();
        let (engine, store, _) = open(&folder, definitions);
        let mut world = Self { engine, store, folder, now: Timestamp(1_000_000), tag: 0 };
        let data = json!({"id": "A-1", "items": items});
        world.deliver(Queue::Events, Ok(event("orders", "order.placed", data)));
        let sent = world.commit().outgoing;
        (world, sent)
    }

    fn all_have_ended(&self) -> bool {
        let all = self.store.reader().list(&Query { limit: 100, ..Query::default() }).unwrap();
        all.items.iter().all(|instance| instance.ended_at.is_some())
    }
}

#[test]
fn one_that_is_done_in_the_commit_in_which_another_fails_is_undone_and_not_awaited_for_ever() {
    for definitions in [&[EACH][..], &[CALLS, LINE]] {
        for items in [json!([{}, {"n": 0}, {"n": 1}]), json!([{"n": 0}, {}, {"n": 1}])] {
            let (mut world, sent) = World::begin(definitions, items);
            assert_eq!(world.instance("A-1").status, Status::Running, "the third is under way");
            world.reply(&sent[0], "success");
            world.commit();
            let instance = world.instance("A-1");
            assert_eq!(instance.status, Status::Compensated, "{:#?}", instance.steps);
            assert!(world.all_have_ended());
        }
    }
}

/// Each calls a hundred of its own kind, over eight levels.
const TREE: &str = r#"
saga: order
version: 1
start: {on: {exchange: orders, key: order.placed}, business_key: =event.data.id}
steps:
  - {call: root, saga: tree, input: {items: =input.items, ballast: =input.ballast}}
"#;
const BRANCH: &str = r#"
saga: tree
version: 1
steps:
  - foreach: grow
    items: =input.items
    max_in_flight: 100
    with: {items: =input.items, ballast: =input.ballast}
    steps:
      - {call: deeper, saga: tree, input: {items: =input.items, ballast: =input.ballast}}
"#;

#[test]
fn lists_within_lists_that_begin_more_than_a_commit_may_hold_are_refused_and_undone() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, store, _) = open(&folder, &[TREE, BRANCH]);
    let mut world = World { engine, store, folder, now: Timestamp(1_000_000), tag: 0 };
    let items: Vec<_> = (0..100).collect();
    let data = json!({"id": "A-1", "items": items, "ballast": "x".repeat(60_000)});
    world.deliver(Queue::Events, Ok(event("orders", "order.placed", data)));
    world.commit();
    let instance = world.instance("A-1");
    assert_eq!(instance.status, Status::Compensated);
    assert_eq!(instance.error.as_ref().unwrap().code, "TOO_WIDE");
    assert!(world.all_have_ended());
}
