//! Exchanges of others: of other types, with other arguments, and bound to each other.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::types::AMQPValue;
use serde_json::json;

use crate::BROKER;
use crate::peer::Peer;
use crate::process::{Site, eventually};

/// A saga of one step that is started by events with `KEY` on exchange `in`, each exchange with the test's suffix.
fn saga(exchanges: &str, key: &str) -> String {
    format!(
        "saga: order
version: 1
{exchanges}
start:
  on: {{exchange: in.NAME, key: {key}}}
  business_key: =event.data.id
steps:
  - step: a
    command: {{exchange: shop.NAME, key: do}}
    compensate: none
"
    )
}

/// A place for a definition in which `NAME` stands for the name of the test, which is also the prefix.
fn site(name: &str, saga: &str) -> (Site, Peer) {
    let site = Site::with_broker(&saga.replace("NAME", name), &BROKER.url(), name);
    (site, Peer::connect(&BROKER.url()))
}

fn publish(peer: &Peer, exchange: &str, key: &str, order: &str, headers: &[(&str, &str)]) {
    let headers: BTreeMap<_, _> = headers
        .iter()
        .map(|(name, value)| ((*name).into(), AMQPValue::LongString((*value).into())))
        .collect();
    let id = format!("{exchange}-{key}-{order}-{}", headers.len());
    let properties = BasicProperties::default().with_message_id(id.into()).with_headers(headers.into());
    peer.publish(exchange, key, json!({"id": order}).to_string().as_bytes(), properties);
}

fn status(site: &Site, order: &str) -> String {
    let shown = site.call(&["show", order, "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown.out).unwrap_or_default();
    shown["status"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn an_exchange_that_exists_with_another_type_or_arguments_is_taken_as_it_is() {
    let name = "foreign";
    let (site, peer) = site(name, &saga("", "go"));
    // Neither is as sagamq would make it.
    peer.exchange("in.foreign", "direct", None);
    peer.exchange("unrouted.foreign", "fanout", None);
    peer.exchange("shop.foreign", "fanout", Some("unrouted.foreign"));
    peer.queue("shop.foreign", Some(("shop.foreign", "")));
    let mut orchestrator = site.run_until_ready();
    publish(&peer, "in.foreign", "go", "A-1", &[]);
    eventually("the command is there", || peer.waiting("shop.foreign") == 1);
    assert_eq!(status(&site, "A-1"), "running");
    assert!(!orchestrator.err().contains("delete"), "{}", orchestrator.err());
    orchestrator.stop();
}

#[test]
fn an_exchange_is_made_with_the_durability_and_the_arguments_that_its_definition_says() {
    let exchanges = "exchanges:
  in.NAME: {durable: false}
  shop.NAME: {arguments: {alternate-exchange: rest.NAME, x-number: 3, x-flag: true}}
  rest.NAME: {type: fanout}";
    let (site, peer) = site("made", &saga(exchanges, "go"));
    let mut orchestrator = site.run_until_ready();
    // To make it once more in the same way is fine, and in another way is not.
    let text = |text: &str| AMQPValue::LongString(text.into());
    let arguments = [
        ("alternate-exchange", text("rest.made")),
        ("x-number", AMQPValue::LongLongInt(3)),
        ("x-flag", AMQPValue::Boolean(true)),
    ];
    assert_eq!(peer.declares("in.made", "topic", false, &[]), Ok(()));
    assert_eq!(peer.declares("shop.made", "topic", true, &arguments), Ok(()));
    let refusal = peer.declares("in.made", "topic", true, &[]).unwrap_err();
    assert!(refusal.contains("inequivalent arg 'durable'"), "{refusal}");
    // What has no queue of its own goes on to the alternate exchange.
    peer.queue("rest.made", Some(("rest.made", "")));
    publish(&peer, "in.made", "go", "A-1", &[]);
    eventually("the command is with the rest", || peer.waiting("rest.made") == 1);
    let command = peer.drain("rest.made").remove(0);
    assert_eq!(command.delivery.routing_key.as_str(), "do");
    peer.answer(&command, "success", b"{}");
    eventually("the saga is completed", || status(&site, "A-1") == "completed");
    let printed = site.json(&["topology"]);
    let of = |name: &str| {
        let all = printed["exchanges"].as_array().unwrap().iter();
        all.clone()
            .find(|one| one["name"] == name)
            .map(|one| (one["durable"].clone(), one["arguments"].clone()))
    };
    assert_eq!(of("in.made"), Some((json!(false), json!({}))));
    let expected = json!({"alternate-exchange": "rest.made", "x-number": 3, "x-flag": true});
    assert_eq!(of("shop.made"), Some((json!(true), expected)));
    orchestrator.stop();
}

#[test]
fn an_exchange_that_is_there_with_other_arguments_is_taken_as_it_is_and_the_log_says_what_differs() {
    let exchanges = "exchanges:
  in.NAME: {durable: false}
  shop.NAME: {arguments: {alternate-exchange: rest.NAME}}";
    let (site, peer) = site("other", &saga(exchanges, "go"));
    peer.exchange("in.other", "topic", None);
    peer.exchange("shop.other", "topic", Some("elsewhere.other"));
    peer.queue("shop.other", Some(("shop.other", "do")));
    let mut orchestrator = site.run_until_ready();
    publish(&peer, "in.other", "go", "A-1", &[]);
    eventually("the command is there", || peer.waiting("shop.other") == 1);
    let log = orchestrator.err();
    for (exchange, differs) in [("in.other", "'durable'"), ("shop.other", "'alternate-exchange'")] {
        let told = log.lines().any(|line| {
            line.contains("is not as its definition says")
                && line.contains(exchange)
                && line.contains(differs)
        });
        assert!(told, "{exchange}: {log}");
    }
    orchestrator.stop();
}

#[test]
fn a_pattern_on_an_exchange_that_turns_out_to_be_direct_is_refused_with_advice_that_fits() {
    let (site, peer) = site("literal", &saga("", "go.*"));
    peer.exchange("in.literal", "direct", None);
    let refused = site.call(&["run"]);
    refused
        .assert_refused(3, &["exchange \"in.literal\"", "of type direct", "\"go.*\"", "say `type: direct`"]);
    assert!(!refused.err.contains("delete"), "{}", refused.err);
}

#[test]
fn an_exchange_that_is_somebody_elses_must_be_there_and_is_never_made() {
    let (site, peer) = site("absent", &saga("exchanges: {in.NAME: {type: direct, declare: false}}", "go"));
    site.call(&["run"]).assert_refused(
        3,
        &[
            "exchange \"in.absent\"",
            "NOT_FOUND",
            "it is somebody else's (`declare: false`): have its owner make it",
        ],
    );
    let printed = site.json(&["topology"]);
    let made: Vec<_> =
        printed["exchanges"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(made, ["absent.dead", "shop.absent"]);
    peer.exchange("in.absent", "direct", None);
    site.run_until_ready().stop();
}

#[test]
fn direct_fanout_and_headers_exchanges_bring_what_is_meant_and_a_queue_gets_its_command() {
    let saga = "saga: order
version: 1
exchanges:
  direct.NAME: {type: direct, declare: false}
  fanout.NAME: {type: fanout}
  headers.NAME: {type: headers}
start:
  on: {exchange: direct.NAME, key: order.placed}
  business_key: =event.data.id
steps:
  - wait: news
    on: {exchange: fanout.NAME}
    timeout: 1h
  - wait: report
    on: {exchange: headers.NAME, headers: {kind: report, format: pdf}}
    timeout: 1h
  - step: index
    command:
      queue: tasks.NAME
      headers: {tenant: =input.id, retries: 0, limits: [null, true], absent: null}
      priority: 5
      expires: 10m
      content_type: application/vnd.tasks+json
      type: search.index
      body: [[=input.id], {}, null]
    compensate: none
";
    let (site, peer) = site("kinds", saga);
    peer.exchange("direct.kinds", "direct", None);
    peer.queue("tasks.kinds", None);
    let mut orchestrator = site.run_until_ready();
    publish(&peer, "direct.kinds", "order.placed", "A-1", &[]);
    eventually("the order has a saga", || status(&site, "A-1") == "running");
    publish(&peer, "fanout.kinds", "any.key", "A-1", &[]);
    // What has not both headers does not come, and is no dead letter.
    peer.queue("others.kinds", Some(("headers.kinds", "")));
    publish(&peer, "headers.kinds", "k", "A-1", &[("kind", "report")]);
    publish(&peer, "headers.kinds", "k", "A-1", &[("kind", "report"), ("format", "pdf")]);
    eventually("the task is there", || peer.waiting("tasks.kinds") == 1);
    let command = peer.drain("tasks.kinds").remove(0);
    assert_eq!(command.data, b"[[\"A-1\"],{},null]");
    let properties = &command.properties;
    assert_eq!((properties.priority(), properties.kind()), (&Some(5), &Some("search.index".into())));
    assert_eq!(properties.content_type(), &Some("application/vnd.tasks+json".into()));
    assert_eq!(properties.reply_to(), &Some("kinds.replies".into()));
    let headers = properties.headers().clone().unwrap();
    let header = |name: &str| headers.inner().get(name).cloned();
    assert_eq!(header("tenant"), Some(AMQPValue::LongString("A-1".into())));
    assert_eq!(header("retries"), Some(AMQPValue::LongLongInt(0)));
    let limits = AMQPValue::FieldArray(vec![AMQPValue::Void, AMQPValue::Boolean(true)].into());
    assert_eq!((header("limits"), header("absent")), (Some(limits), None));
    assert!(header("x-saga-command-id").is_some());
    peer.answer(&command, "success", b"{}");
    eventually("the saga is completed", || status(&site, "A-1") == "completed");
    assert_eq!(site.json(&["dead-letters", "--json"])["items"], json!([]));
    orchestrator.stop();
}

#[test]
fn what_comes_from_a_bound_exchange_or_as_the_rest_of_one_counts_as_of_the_exchange_that_is_named() {
    let saga = "saga: order
version: 1
start:
  on: {exchange: domain.NAME, key: order.placed}
  business_key: =event.data.id
steps:
  - step: reserve
    command: {exchange: p.NAME, key: reserve}
    replies:
      - {on: {exchange: domain.NAME, key: stock.reserved}, outcome: success}
    compensate: none
  - step: ship
    command: {exchange: p.NAME, key: ship}
    compensate: none
";
    let (site, peer) = site("bound", saga);
    peer.tap("p.bound", "p.bound");
    let mut orchestrator = site.run_until_ready();
    peer.exchange("team.bound", "topic", None);
    peer.bind_exchange("team.bound", "domain.bound", "#");
    peer.exchange("rest.bound", "direct", Some("domain.bound"));
    publish(&peer, "domain.bound", "order.placed", "straight", &[]);
    publish(&peer, "team.bound", "order.placed", "team", &[]);
    publish(&peer, "rest.bound", "order.placed", "rest", &[]);
    for order in ["straight", "team", "rest"] {
        eventually(order, || status(&site, order) == "running");
    }
    eventually("all reservations are asked for", || peer.waiting("p.bound") == 3);
    publish(&peer, "team.bound", "stock.reserved", "straight", &[]);
    eventually("the shipment is asked for", || peer.waiting("p.bound") == 4);
    let keys: Vec<_> =
        peer.drain("p.bound").iter().map(|command| command.delivery.routing_key.to_string()).collect();
    assert_eq!(keys, ["reserve", "reserve", "reserve", "ship"]);
    assert_eq!(site.json(&["dead-letters", "--json"])["items"], json!([]));
    orchestrator.stop();
}
