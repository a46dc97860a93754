//! Every form of a first message: read, or refused by name.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use proptest::prelude::*;
use serde_json::json;

use super::super::message::MAX_VALUES;
use super::*;
use crate::saga::correlation::{Asked, Sealer};
use crate::saga::id::{InstanceId, Phase};
use crate::saga::time::Timestamp;

const LIMIT: usize = 1024 * 1024;

fn with_body(body: Value) -> RawMessage {
    RawMessage { body: body.to_string().into_bytes(), ..RawMessage::default() }
}

fn headers(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn decoded(raw: RawMessage) -> Message {
    decode(raw, LIMIT).unwrap()
}

#[test]
fn a_message_that_was_moved_back_from_the_dead_is_the_one_that_it_was() {
    let deaths = json!([
        {"exchange": "sagamq.dead", "queue": "sagamq.dead", "routing-keys": ["x"]},
        {"exchange": "orders", "queue": "sagamq.events", "routing-keys": ["order.placed", "bcc"]},
    ]);
    let raw = RawMessage {
        key: "sagamq.events".to_owned(),
        headers: headers(json!({"x-death": deaths})),
        ..with_body(json!({}))
    };
    let message = decoded(raw.clone());
    assert_eq!((message.exchange.as_str(), message.key.as_str()), ("orders", "order.placed"));
    let published = decoded(RawMessage { exchange: "other".to_owned(), key: "k".to_owned(), ..raw });
    assert_eq!((published.exchange.as_str(), published.key.as_str()), ("other", "k"));
    let reply =
        json!({"x-death": [{"exchange": "", "queue": "sagamq.replies", "routing-keys": ["sagamq.replies"]}]});
    let reply =
        RawMessage { key: "sagamq.replies".to_owned(), headers: headers(reply), ..with_body(json!({})) };
    assert_eq!(decoded(reply).exchange, "");
}

#[test]
fn a_command_is_told_from_an_answer_that_echoes_its_properties() {
    let asked =
        Asked { instance: InstanceId::new("order", "A-1"), step: 0, phase: Phase::Action, attempt: 1 };
    let correlation = Sealer::new([1; 32]).issue(asked, Timestamp(0));
    let command = RawMessage {
        key: "payment.charge".to_owned(),
        kind: Some("payment.charge".to_owned()),
        message_id: Some("m-1".to_owned()),
        correlation_id: Some(correlation.to_string()),
        app_id: Some(APP_ID.to_owned()),
        headers: headers(json!({"x-saga-phase": "action"})),
        ..with_body(json!({}))
    };
    assert!(decoded(command.clone()).is_command);
    let echo = RawMessage { key: "payment.processed".to_owned(), ..command.clone() };
    assert!(!decoded(echo).is_command);
    let outcome = headers(json!({"x-saga-phase": "action", "x-saga-outcome": "success"}));
    assert!(!decoded(RawMessage { headers: outcome, ..command }).is_command);
}

/// The parts of a message that depend on its form.
fn essence(message: &Message) -> Value {
    json!([message.id, message.kind, message.source, message.time, message.data, message.metadata])
}

#[test]
fn every_form_becomes_the_same_kind_of_message() {
    let cloud_event = json!({
        "specversion": "1.0", "id": "1", "type": "OrderPlaced", "source": "/shop",
        "time": "2026-01-02T03:04:05Z", "subject": "A-1", "data": {"order_id": "A-1"},
    });
    let envelope = json!({
        "event_id": "1", "event_type": "OrderPlaced", "aggregate_id": "A-1", "version": 3,
        "timestamp": "2026-01-02T03:04:05Z", "data": {"order_id": "A-1"},
        "metadata": {"user_id": "u", "source": "/shop"},
    });
    let bare = json!({
        "event_id": "1", "event_type": "OrderPlaced", "timestamp": "2026-01-02T03:04:05Z",
        "version": 1, "order_id": "A-1",
    });
    let head = json!(["1", "OrderPlaced", "/shop", "2026-01-02T03:04:05Z"]);
    let expect = |data: Value, metadata: Value| {
        let mut all = head.as_array().cloned().unwrap();
        all.extend([data, metadata]);
        Value::Array(all)
    };

    let structured = decoded(with_body(cloud_event.clone()));
    let attributes = json!({"specversion": "1.0", "subject": "A-1"});
    assert_eq!(essence(&structured), expect(json!({"order_id": "A-1"}), attributes.clone()));

    for prefix in ["cloudEvents:", "cloudEvents_", "ce-", "ce_", "CE-"] {
        let mut given = Map::new();
        for (name, value) in headers(cloud_event.clone()).into_iter().filter(|(name, _)| name != "data") {
            given.insert(format!("{prefix}{name}"), value);
        }
        given.insert("x-other".into(), json!("kept as a header only"));
        let raw = RawMessage { headers: given.clone(), ..with_body(json!({"order_id": "A-1"})) };
        let binary = decoded(raw);
        assert_eq!(essence(&binary), expect(json!({"order_id": "A-1"}), attributes.clone()), "{prefix}");
        assert_eq!(binary.headers, given);
    }

    let metadata = json!({"user_id": "u", "source": "/shop", "aggregate_id": "A-1", "version": 3});
    assert_eq!(essence(&decoded(with_body(envelope))), expect(json!({"order_id": "A-1"}), metadata));

    let raw = RawMessage { app_id: Some("/shop".into()), ..with_body(bare.clone()) };
    assert_eq!(essence(&decoded(raw)), expect(bare, json!({})));
}

#[test]
fn a_bare_body_takes_what_it_lacks_from_the_properties() {
    let raw = RawMessage {
        message_id: Some("m".into()),
        kind: Some("stock.reserved".into()),
        app_id: Some("inventory".into()),
        timestamp: Some(1_767_323_045),
        ..with_body(json!([1, 2]))
    };
    let expected = json!(["m", "stock.reserved", "inventory", "2026-01-02T03:04:05.000Z", [1, 2], {}]);
    assert_eq!(essence(&decoded(raw)), expected);
}

#[test]
fn a_declared_cloud_event_may_be_incomplete_and_a_half_one_is_plain_data() {
    let content_type = Some("application/cloudevents+json; charset=utf-8".to_owned());
    let raw = RawMessage { content_type, ..with_body(json!({"id": 7, "data": 1})) };
    assert_eq!(essence(&decoded(raw)), json!(["7", null, null, null, 1, {}]));

    let half = json!({"specversion": "1.0", "id": "1", "data": 1});
    assert_eq!(decoded(with_body(half.clone())).data, half);
    let raw = RawMessage { headers: headers(json!({"ce-id": "1"})), ..with_body(json!(5)) };
    assert_eq!(decoded(raw).data, json!(5));
}

#[test]
fn a_field_that_is_there_twice_is_poison_that_names_it() {
    let raw = RawMessage { body: br#"{"order_id": 1, "order_id": 2}"#.to_vec(), ..RawMessage::default() };
    let Err(Poison::Unclear(told)) = decode(raw, LIMIT) else { panic!("it was taken") };
    assert!(told.contains("\"order_id\" is there twice"), "{told}");
}

#[test]
fn an_event_is_known_by_the_number_that_is_its_id_whatever_it_is_written_as() {
    for body in [r#"{"event_id": 7}"#, r#"{"event_id": 7.0}"#, r#"{"event_id": 70e-1}"#] {
        let raw = RawMessage { body: body.into(), ..RawMessage::default() };
        assert_eq!(decoded(raw).id.as_deref(), Some("7"));
    }
}

#[test]
fn an_empty_body_is_null_in_every_form() {
    let binary = json!({"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t", "ce-source": "s"});
    for headers in [Map::new(), headers(binary)] {
        for body in [&b""[..], b" \n"] {
            let raw = RawMessage { headers: headers.clone(), body: body.into(), ..Default::default() };
            assert_eq!(decoded(raw).data, Value::Null);
        }
    }
}

#[test]
fn what_can_never_be_understood_is_poison() {
    let large = RawMessage { body: vec![b'1'; 11], ..Default::default() };
    assert_eq!(decode(large.clone(), 10), Err(Poison::TooLarge { size: 11, limit: 10 }));
    assert!(decode(large, 11).is_ok());

    let encoded = |encoding: &str| {
        let raw = RawMessage { content_encoding: Some(encoding.into()), ..with_body(json!(1)) };
        decode(raw, LIMIT).map(|message| message.data)
    };
    for other in ["br", "gzip, deflate", "base64"] {
        assert_eq!(encoded(other), Err(Poison::Encoded(other.into())));
    }
    for plain in ["", "none", "identity", "UTF-8", " utf-8 , identity", "us-ascii", "binary"] {
        assert_eq!(encoded(plain), Ok(json!(1)), "{plain}");
    }

    let deep = [vec![b'['; 500], vec![b']'; 500]].concat();
    for body in [b"{".to_vec(), b"hello".to_vec(), b"\xff\xfa".to_vec(), b"1 2".to_vec(), deep] {
        let raw = RawMessage { body, ..Default::default() };
        assert!(matches!(decode(raw, LIMIT), Err(Poison::NotJson(_))));
    }
}

fn poison(raw: RawMessage) -> String {
    decode(raw, LIMIT).unwrap_err().to_string()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(body).unwrap();
    packed.finish().unwrap()
}

fn zlib(body: &[u8]) -> Vec<u8> {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
    packed.write_all(body).unwrap();
    packed.finish().unwrap()
}

fn raw_deflate(body: &[u8]) -> Vec<u8> {
    let mut packed = DeflateEncoder::new(Vec::new(), Compression::default());
    packed.write_all(body).unwrap();
    packed.finish().unwrap()
}

fn packed(encoding: &str, body: Vec<u8>) -> RawMessage {
    RawMessage { content_encoding: Some(encoding.to_owned()), body, ..RawMessage::default() }
}

#[test]
fn packed_bodies_are_read_in_every_frame_that_senders_use() {
    // Compresses badly, so that the first guess of the size is short of it.
    let long: String =
        (0..100_000_u32).map(|n| char::from(b'!' + (n.wrapping_mul(2_654_435_761) >> 26) as u8)).collect();
    for body in [json!({"id": "A-1"}), json!("x".repeat(500_000)), json!(long.replace(['"', '\\'], "-"))] {
        let text = body.to_string().into_bytes();
        for (encoding, bytes) in [
            ("gzip", gzip(&text)),
            ("X-GZIP", gzip(&text)),
            ("gzip", [gzip(&text[..5]), gzip(&text[5..])].concat()),
            ("gzip, UTF-8", gzip(&text)),
            ("gzip:UTF-8", gzip(&text)),
            ("deflate", zlib(&text)),
            ("deflate", raw_deflate(&text)),
        ] {
            let message = decoded(packed(encoding, bytes));
            assert_eq!((&message.data, message.size), (&body, text.len()), "{encoding}");
        }
    }
    let celery = RawMessage {
        headers: headers(json!({"compression": "application/x-gzip"})),
        ..packed("utf-8", zlib(b"[[], {}, {}]"))
    };
    assert_eq!(decoded(celery).data, json!([[], {}, {}]));
    assert_eq!(decoded(packed("gzip", Vec::new())).data, Value::Null);
    assert_eq!(decoded(packed("gzip", gzip(b"\xef\xbb\xbf{}"))).data, json!({}));
}

#[test]
fn a_packed_body_that_is_large_or_broken_is_refused_and_says_why() {
    let body = vec![b' '; LIMIT + 1];
    let spaces = vec![b' '; 50 * LIMIT];
    for (encoding, bytes) in [
        ("gzip", gzip(&body)),
        ("gzip", gzip(&spaces)),
        ("deflate", zlib(&body)),
        ("deflate", raw_deflate(&spaces)),
    ] {
        let size = bytes.len();
        assert_eq!(decode(packed(encoding, bytes), LIMIT), Err(Poison::Bomb { size, limit: LIMIT }));
    }
    assert_eq!(decoded(packed("gzip", gzip(&body[1..]))).data, Value::Null);
    let text = b"{\"id\": \"A-1\", \"note\": \"some more of it\"}";
    let cut = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() - 1);
        bytes
    };
    for bytes in [cut(gzip(text)), [gzip(text), b"more".to_vec()].concat(), text.to_vec()] {
        let reason = poison(packed("gzip", bytes));
        assert!(reason.starts_with("body is not gzip, as its content encoding says: "), "{reason}");
    }
    for bytes in [cut(zlib(text)), cut(raw_deflate(text)), text.to_vec()] {
        let reason = poison(packed("deflate", bytes));
        assert!(reason.starts_with("body is not deflate, as its content encoding says: "), "{reason}");
    }
    let mute = RawMessage { body: gzip(text), ..RawMessage::default() };
    assert_eq!(poison(mute), "body is not JSON: it is gzip, and has no content_encoding that says so");
    let lzma =
        RawMessage { headers: headers(json!({"compression": "application/x-lzma"})), ..with_body(json!(1)) };
    assert_eq!(decode(lzma, LIMIT), Err(Poison::Encoded("application/x-lzma".into())));
}

#[test]
fn other_charsets_are_refused_by_name_and_a_byte_order_mark_is_passed_over() {
    let body = |body: &[u8]| RawMessage { body: body.to_vec(), ..RawMessage::default() };
    assert_eq!(decoded(body(b"\xef\xbb\xbf{\"id\":1}")).data, json!({"id": 1}));
    assert_eq!(decoded(body(b"\xef\xbb\xbf \n")).data, Value::Null);
    let utf16 = |mark: &str| format!("{mark}{{\"id\":1}}").encode_utf16().collect::<Vec<_>>();
    let little = |mark| utf16(mark).into_iter().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let big = |mark| utf16(mark).into_iter().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
    for bytes in [little("\u{feff}"), big("\u{feff}"), little(""), big("")] {
        assert_eq!(decode(body(&bytes), LIMIT), Err(Poison::Charset("UTF-16")));
    }
    let utf32: Vec<u8> = "\u{feff}{}".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
    assert_eq!(poison(body(&utf32)), "body is UTF-32, send UTF-8");
    let latin =
        RawMessage { content_type: Some("text/plain; charset=latin1".into()), ..body(b"\"caf\xe9\"") };
    let reason = poison(latin);
    assert!(reason.starts_with("body is not JSON: it is not UTF-8: "), "{reason}");
    assert!(reason.ends_with("its content type is \"text/plain; charset=latin1\""), "{reason}");
}

#[test]
fn a_body_of_too_many_values_is_refused_however_small_it_is() {
    let list = |items: usize, item: &str| format!("[{}]", vec![item; items].join(",")).into_bytes();
    let body = |body: Vec<u8>| RawMessage { body, ..RawMessage::default() };
    assert!(decode(body(list(MAX_VALUES - 1, "1")), LIMIT).is_ok());
    assert_eq!(decode(body(list(MAX_VALUES, "1")), LIMIT), Err(Poison::TooManyValues));
    assert!(decode(body(list((MAX_VALUES - 1) / 2, "{\"a\":\",[\"}")), LIMIT).is_ok());
    assert_eq!(decode(body(list(MAX_VALUES / 2, "[{}]")), LIMIT), Err(Poison::TooManyValues));
    assert_eq!(decode(packed("gzip", gzip(&list(250_000, "{}"))), LIMIT), Err(Poison::TooManyValues));
    assert_eq!(poison(body(list(250_000, "{}"))), "body holds more than 50000 JSON values");
}

fn time(raw: RawMessage) -> Option<String> {
    decoded(raw).time
}

#[test]
fn the_time_of_an_event_is_rfc_3339_or_null() {
    let property = |timestamp| time(RawMessage { timestamp: Some(timestamp), ..with_body(json!({})) });
    for (number, at) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_796_080_144, "2026-11-30T23:09:04.000Z"),
        (253_370_764_799, "9998-12-31T23:59:59.000Z"),
        (253_370_764_800, "1978-01-11T12:46:04.800Z"),
        (1_796_080_144_123, "2026-11-30T23:09:04.123Z"),
        (1_796_080_144_123_456, "2026-11-30T23:09:04.123Z"),
        (1_796_080_144_123_456_789, "2026-11-30T23:09:04.123Z"),
        (u64::MAX, "2554-07-21T23:34:33.709Z"),
    ] {
        assert_eq!(property(number).as_deref(), Some(at), "{number}");
        let binary = json!({"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t", "ce-source": "s", "ce-time": number});
        assert_eq!(
            time(RawMessage { headers: headers(binary), ..with_body(json!({})) }).as_deref(),
            Some(at)
        );
    }
    let envelope =
        |at: Value| time(with_body(json!({"event_id": "1", "event_type": "t", "data": 1, "timestamp": at})));
    for (written, at) in [
        (json!("2026-01-02T03:04:05+01:00"), Some("2026-01-02T03:04:05+01:00")),
        (json!("2026-01-02 03:04:05Z"), Some("2026-01-02T03:04:05.000Z")),
        (json!("2026-01-02t03:04:05z"), Some("2026-01-02T03:04:05.000Z")),
        (json!(1_796_080_144.5), Some("2026-11-30T23:09:04.500Z")),
        (json!("2026-01-02T03:04:05"), None),
        (json!("yesterday"), None),
        (json!("+58885-07-06T15:06:40.000Z"), None),
        (json!(-1), None),
        (json!(1e300), Some("2554-07-21T23:34:33.709Z")),
        (json!({"$date": 1}), None),
        (Value::Null, None),
    ] {
        assert_eq!(envelope(written.clone()).as_deref(), at, "{written}");
    }
    // What the body does not tell is the property's to tell.
    let raw = RawMessage { timestamp: Some(7), ..with_body(json!({"timestamp": "yesterday"})) };
    assert_eq!(time(raw).as_deref(), Some("1970-01-01T00:00:07.000Z"));
}

#[test]
fn an_empty_id_is_no_id() {
    for blank in ["", " "] {
        let properties = RawMessage {
            message_id: Some(blank.into()),
            correlation_id: Some(blank.into()),
            kind: Some(blank.into()),
            app_id: Some(blank.into()),
            ..RawMessage::default()
        };
        let plain = decoded(properties.clone());
        assert_eq!((plain.id, plain.correlation_id, plain.kind, plain.source), (None, None, None, None));
        let body = json!({"event_id": blank, "event_type": "", "data": 1});
        let envelope = decoded(RawMessage { message_id: Some("m".into()), ..with_body(body) });
        assert_eq!((envelope.id, envelope.kind), (None, None));
        let own =
            decoded(RawMessage { message_id: Some("m".into()), ..with_body(json!({"event_id": blank})) });
        assert_eq!(own.id.as_deref(), Some("m"));
    }
}

/// A structured event with these attributes beside those that must be there.
fn event(attributes: Value) -> RawMessage {
    let mut body = headers(json!({"specversion": "1.0", "id": "e", "type": "t", "source": "/s"}));
    body.extend(headers(attributes));
    with_body(Value::Object(body))
}

#[test]
fn base64_data_of_a_cloud_event_is_what_its_content_type_says() {
    for (attributes, data) in [
        (
            json!({"data_base64": "eyJwcmljZSI6IDEyLjV9", "datacontenttype": "application/json"}),
            json!({"price": 12.5}),
        ),
        (json!({"data_base64": "eyJwcmljZSI6IDEyLjV9"}), json!({"price": 12.5})),
        (
            json!({"data_base64": "eyJwcmlj\nZSI6IDEyLjV9", "datacontenttype": "Application/Vnd.Quote+JSON; charset=utf-8"}),
            json!({"price": 12.5}),
        ),
        (json!({"data_base64": "MQ"}), json!(1)),
        (json!({"data_base64": "Ij8_Ig=="}), json!("??")),
        (json!({"data_base64": "77u/e30="}), json!({})),
        (json!({"data_base64": ""}), Value::Null),
        (json!({"data_base64": null, "data": {"a": 1}}), json!({"a": 1})),
        (json!({"data_base64": "PGEvPg==", "datacontenttype": "text/xml"}), json!("<a/>")),
        (json!({"data_base64": "PGEvPg==", "datacontenttype": "image/png"}), json!("PGEvPg==")),
        (json!({"data": "MQ==", "datacontentencoding": "Base64", "specversion": "0.3"}), json!(1)),
        (json!({"data": "<a/>", "datacontenttype": "text/xml"}), json!("<a/>")),
    ] {
        let message = decoded(event(attributes.clone()));
        assert_eq!((&message.data, message.id.as_deref()), (&data, Some("e")), "{attributes}");
        assert_eq!(message.metadata.get("data_base64"), None);
    }
    for (attributes, reason) in [
        (json!({"data_base64": "***"}), "data_base64 is not base64"),
        (json!({"data_base64": 5}), "data_base64 is not a text"),
        (json!({"data_base64": "MQ==", "data": 1}), "it has both data and data_base64"),
        (json!({"data_base64": "PGEvPg=="}), "data_base64 is not JSON: expected value"),
        (
            json!({"data_base64": "/////w==", "datacontenttype": "text/plain"}),
            "data_base64 is text that is not UTF-8",
        ),
    ] {
        let told = poison(event(attributes.clone()));
        assert!(
            told.starts_with(&format!("the data of a CloudEvent cannot be read: {reason}")),
            "{attributes}: {told}"
        );
    }
}

#[test]
fn a_batch_of_cloud_events_is_refused_by_name() {
    let one: Value = serde_json::from_slice(&event(json!({"data": {"id": "batch"}})).body).unwrap();
    let of_type = |content_type: &str, body: Value| RawMessage {
        content_type: Some(content_type.into()),
        ..with_body(body)
    };
    for raw in [
        of_type("application/cloudevents-batch+json", json!([])),
        of_type("Application/CloudEvents-Batch+JSON; charset=UTF-8", json!([one])),
        of_type("application/cloudevents+json", json!([one])),
        of_type("application/json", json!([one, one])),
    ] {
        assert_eq!(decode(raw, LIMIT), Err(Poison::Batch));
    }
    for list in [json!([]), json!([one, 1]), json!([{"id": 1}])] {
        assert_eq!(decoded(of_type("application/json", list.clone())).data, list);
    }
    let binary = json!({"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t", "ce-source": "s"});
    let carrier = RawMessage { headers: headers(binary), ..with_body(json!([one])) };
    assert_eq!(decoded(carrier).data, json!([one]));
}

#[test]
fn odd_cloud_events_are_read_for_what_they_are() {
    let numbers = decoded(event(json!({"specversion": 1.0, "id": 7, "data": {"a": 1}})));
    assert_eq!((numbers.id.as_deref(), numbers.data), (Some("7"), json!({"a": 1})));
    for id in [json!(true), json!({"a": 1})] {
        let content_type = Some("APPLICATION/CLOUDEVENTS+JSON".to_owned());
        let odd = decoded(RawMessage { content_type, ..event(json!({"id": id, "data": 1})) });
        assert_eq!((odd.id, odd.data), (None, json!(1)));
    }
    let elsewhere = RawMessage { content_type: Some("text/plain".into()), ..event(json!({"data": 1})) };
    assert_eq!(decoded(elsewhere).data, json!(1));
    let gateway =
        json!({"Ce-Specversion": "1.0", "Ce-Id": "1", "Ce-Type": "t", "Ce-Source": "s", "Ce-Subject": "A-1"});
    let message = decoded(RawMessage { headers: headers(gateway), ..with_body(json!(5)) });
    assert_eq!((message.id.as_deref(), &message.data), (Some("1"), &json!(5)));
    assert_eq!(message.metadata, json!({"specversion": "1.0", "subject": "A-1"}));
    let xml = RawMessage {
        content_type: Some("application/cloudevents+xml".into()),
        body: b"<event/>".to_vec(),
        ..RawMessage::default()
    };
    assert_eq!(
        poison(xml),
        "body is not JSON: expected value at line 1 column 1; its content type is \"application/cloudevents+xml\""
    );
}

proptest! {
    #[test]
    fn no_input_makes_it_panic(
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "[\\[\\]{}:,\"0-9a-z \\\\-]{0,80}".prop_map(String::into_bytes),
        ],
        names in prop::collection::vec("(cloudEvents:|ce-|ce_|é)?(id|type|source|specversion|time|\\PC{0,4})", 0..8),
        number in any::<u64>(),
        text in any::<Option<String>>(),
    ) {
        let raw = RawMessage {
            headers: names.into_iter().map(|name| (name, json!(number))).collect(),
            content_type: text.clone(),
            content_encoding: text.filter(|text| text.len() > 5),
            timestamp: Some(number),
            body,
            ..RawMessage::default()
        };
        let _ = decode(raw, 150);
    }
}
