//! What a message carries beside its body, where its definition says so.

use super::*;

const TASK: &str = "\
saga: order
version: 1
start: {on: {exchange: orders, key: order.placed}, business_key: =event.data.id}
steps:
  - step: index
    command:
      queue: tasks
      headers: {id: '=saga.id + \"/index\"', tenant: =input.tenant, retries: 0}
      priority: 5
      expires: 1m
      type: search.index
    compensate: none
on_completed: {emit: {queue: audit, headers: {tenant: =input.tenant, name: =input.name}}}
";

fn placed(world: &mut World, data: Value) -> Vec<Outgoing> {
    world.deliver(Queue::Events, Ok(event("orders", "order.placed", data)));
    world.commit().outgoing
}

#[test]
fn a_copy_after_a_restart_carries_the_same_headers_and_properties() {
    let mut world = World::of(TASK);
    let sent = placed(&mut world, json!({"id": "A-1", "tenant": "t-1", "name": "n"}));
    let extras = sent[0].extras.as_deref().unwrap();
    let id = format!("{}/index", InstanceId::new("order", "A-1"));
    let headers = [("id", json!(id)), ("retries", json!(0)), ("tenant", json!("t-1"))];
    let mut carried: Vec<_> = extras.headers.iter().map(|(name, value)| (&**name, value.clone())).collect();
    carried.sort_by_key(|(name, _)| *name);
    assert_eq!(carried, headers);
    assert_eq!((extras.priority, extras.expires), (Some(5), Some(Duration::from_secs(60))));
    assert_eq!((&*sent[0].exchange, &*sent[0].key, sent[0].participant()), ("", "tasks", "tasks"));
    let (_, recovered) = world.restart_with(&[TASK]);
    let again: Vec<_> = sent.into_iter().map(|outgoing| Outgoing { repeated: true, ..outgoing }).collect();
    assert_eq!(recovered.outgoing, again);
}

#[test]
fn a_header_that_cannot_be_made_fails_the_step_and_drops_an_event_at_the_end() {
    let mut world = World::of(TASK);
    let sent = placed(&mut world, json!({"id": "A-1", "name": "n"}));
    assert_eq!(world.instance("A-1").error.as_ref().unwrap().code, "BAD_EXPRESSION");
    assert!(sent.is_empty(), "{sent:?}");

    let sent = placed(&mut world, json!({"id": "A-2", "tenant": "t-1"}));
    world.reply(&sent[0], "success");
    assert!(world.commit().outgoing.is_empty());
    let instance = world.instance("A-2");
    assert_eq!(instance.status, Status::Completed);
    let history = world.store.reader().history(instance.id).unwrap();
    let mut facts = history.iter().flat_map(|entry| &entry.facts);
    assert!(facts.any(|recorded| matches!(recorded.fact, Fact::NoticeDropped { .. })), "{history:?}");
}
