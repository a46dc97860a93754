//! From what the broker hands over to the one form of message.

use divan::Bencher;
use sagamq::delivery::understand;
use sagamq::saga::message::RawMessage;
use serde_json::{Value, json};

use crate::order;

#[divan::bench]
fn event(bencher: Bencher<'_, '_>) {
    measure(bencher, &order::raw_start());
}

#[divan::bench]
fn reply(bencher: Bencher<'_, '_>) {
    measure(bencher, &order::raw_reply());
}

#[divan::bench]
fn cloud_event(bencher: Bencher<'_, '_>) {
    let start = order::raw_start();
    let data: Value = serde_json::from_slice(&start.body).expect("it is JSON");
    let event =
        json!({"specversion": "1.0", "id": "e-1", "type": "order.placed", "source": "/shop", "data": data});
    let content_type = Some("application/cloudevents+json".to_owned());
    measure(bencher, &RawMessage { content_type, body: event.to_string().into_bytes(), ..start });
}

fn measure(bencher: Bencher<'_, '_>, raw: &RawMessage) {
    understand(raw.clone()).expect("it can be understood");
    bencher.with_inputs(|| raw.clone()).bench_values(understand);
}
