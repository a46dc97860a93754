//! Events that came by way of another exchange than the one that a definition names.

use super::*;

const DOMAIN: &str = "\
saga: order
version: 1
start: {on: {exchange: domain, key: order.placed}, business_key: =event.data.id}
steps:
  - step: reserve
    command: {exchange: stock, key: reserve}
    replies: [{on: {exchange: domain, key: stock.reserved}, outcome: success}]
    compensate: none
  - step: note
    command: {exchange: stock, key: note, body: =steps.reserve.output}
    compensate: none
";

fn of_order(exchange: &str, key: &str, order: &str) -> Message {
    event(exchange, key, json!({"event_id": format!("{exchange}-{key}-{order}"), "id": order}))
}

/// Why the latest message was dead-lettered.
fn reason(world: &World) -> String {
    world.store.reader().dead_letters(1, None).unwrap().items[0].reason.clone()
}

#[test]
fn an_event_that_came_through_the_exchange_that_a_definition_names_counts_as_published_there() {
    let mut world =
        World::of(&DOMAIN.replace("compensate: none", "output: =reply.exchange\n    compensate: none"));
    world.deliver(Queue::Events, Ok(of_order("domain", "order.placed", "straight")));
    world.deliver(Queue::Events, Ok(of_order("team", "order.placed", "team")));
    world.commit();
    assert_eq!(world.instance("team").status, Status::Running);
    let token = world.deliver(Queue::Events, Ok(of_order("team", "stock.reserved", "straight")));
    let release = world.commit();
    assert_eq!(release.settlement.ack, [token]);
    assert_eq!(release.outgoing[0].body, b"\"domain\"", "the note: the event is one of the named exchange");
}

#[test]
fn an_event_that_may_have_come_through_several_exchanges_is_a_dead_letter_that_names_all() {
    let mut world = World::of(&format!(
        "{DOMAIN}cancel: {{on: {{exchange: desk, key: \"#\"}}, business_key: =event.data.id}}\n"
    ));
    let token = world.deliver(Queue::Events, Ok(of_order("team", "order.placed", "A-1")));
    assert_eq!(world.commit().settlement.reject, [token]);
    assert_eq!(
        reason(&world),
        "event \"order.placed\", published to exchange \"team\", may have come through any of the exchanges \
         \"desk\", \"domain\": name \"team\" itself in the definition that it is for, or have it come through one of \
         them only"
    );
}

#[test]
fn an_event_that_no_definition_asks_for_is_a_dead_letter() {
    let mut world = World::of(DOMAIN);
    for exchange in ["team", "domain"] {
        let token = world.deliver(Queue::Events, Ok(of_order(exchange, "order.changed", "A-1")));
        assert_eq!(world.commit().settlement.reject, [token]);
        let told = format!("event \"order.changed\" on exchange {exchange:?} that no definition asks for");
        assert!(reason(&world).starts_with(&told), "{}", reason(&world));
    }
}

#[test]
fn an_event_for_a_definition_that_was_replaced_is_acked_also_after_a_restart() {
    let mut world = World::of(DOMAIN);
    let second = DOMAIN.replace("version: 1", "version: 2").replace("key: order.placed", "key: order.made");
    let loaded = loaded(&[&second]);
    world.engine.define(&loaded).unwrap();
    world.commit();
    world.engine.adopt(&loaded);
    for _ in 0..2 {
        for exchange in ["domain", "team"] {
            let token = world.deliver(Queue::Events, Ok(of_order(exchange, "order.placed", "A-1")));
            assert_eq!(world.commit().settlement.ack, [token], "{exchange}");
        }
        world = world.restart_with(&[&second]).0;
    }
}

#[test]
fn a_start_of_a_version_that_only_goes_on_for_its_instances_is_acked() {
    let mut world = World::of(DOMAIN);
    world.deliver(Queue::Events, Ok(of_order("domain", "order.placed", "A-1")));
    world.commit();
    let second = DOMAIN.replace("version: 1", "version: 2").replace("key: order.placed", "key: order.made");
    let loaded = loaded(&[&second]);
    world.engine.define(&loaded).unwrap();
    world.commit();
    world.engine.adopt(&loaded);
    let token = world.deliver(Queue::Events, Ok(of_order("domain", "order.placed", "A-2")));
    assert_eq!(world.commit().settlement.ack, [token]);
    assert!(world.store.reader().instance(InstanceId::new("order", "A-2")).unwrap().is_none());
}
