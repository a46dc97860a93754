use super::*;
use crate::delivery::understand;
use crate::saga::compile;

/// A saga whose expressions want all kinds of values.
const WANTS: &str = "\
saga: wants
version: 1
start:
  on: {exchange: shop, key: order.*}
  business_key: =event.data.order.id
  input: {order: =event.data.order, tenant: =event.metadata.tenant, due: =event.data.due}
steps:
  - step: weigh
    when: =input.order.urgent
    command: {exchange: scales, key: weigh, body: {grams: '=input.order.parts.map(p, p * 2)'}}
    replies:
      - on: {exchange: scales, key: weighed}
        when: '=reply.data.state in [\"ok\", \"fine\"] && reply.data.grams > 10'
        business_key: =reply.data.order
        outcome: success
      - on: {exchange: scales, key: weighed}
        when: =reply.data.state == 'no'
        business_key: =reply.data.order
        outcome: failure
    output: {grams: =reply.data.grams}
    compensate: none
  - delay: until_due
    until: =input.due
  - step: send
    command: {exchange: post, key: send, body: '=input.order.a * input.order.b + steps.weigh.output.grams'}
    compensate: none
";

fn sample(source: &str) -> Sample {
    let plan = compile::load("wants.yaml", source).unwrap_or_else(|problems| panic!("{}", problems[0]));
    Sample::new(&plan, &Given::default(), &[])
}

#[test]
fn everything_that_expressions_name_is_made_up_so_that_they_work() {
    let sample = sample(WANTS);
    assert_eq!(sample.gaps, Vec::<String>::new());
    assert_eq!((sample.business_key.as_str(), sample.start.key.as_str()), ("id", "order.any"));
    let start = understand(sample.start.clone()).unwrap();
    assert_eq!(start.metadata["tenant"], "tenant");
    assert_eq!(start.data["order"]["urgent"], true);
    let of = |kind| {
        understand(sample.answer(Target { member: 0, step: 0, phase: Phase::Action }, kind).message).unwrap()
    };
    let (success, failure) = (of(OutcomeKind::Success), of(OutcomeKind::Failure));
    assert_eq!((&success.data["state"], &success.data["order"]), (&json!("ok"), &json!("id")));
    assert!(success.data["grams"].as_i64().unwrap() > 10);
    assert_eq!((&failure.data["state"], failure.exchange.as_str()), (&json!("no"), "scales"));
}

#[test]
fn what_is_given_stays_and_the_rest_is_made_up() {
    let plan = compile::load("wants.yaml", WANTS).unwrap();
    let data = json!({"order": {"id": "A-1", "urgent": false}});
    let given = Given { start: Message { data, ..Message::default() }, ..Given::default() };
    let sample = Sample::new(&plan, &given, &[]);
    let start = understand(sample.start).unwrap();
    assert_eq!((sample.business_key.as_str(), &start.data["order"]["urgent"]), ("A-1", &json!(false)));
    assert!(start.data["due"].is_string() && sample.gaps.is_empty(), "{:?}", sample.gaps);
}

#[test]
fn what_cannot_be_made_up_is_told() {
    let odd = WANTS.replace("=input.due", "='never ' + input.due");
    assert_eq!(sample(&odd).gaps, ["`until` of until_due: it is no RFC 3339 time"]);
}
