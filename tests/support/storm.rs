//! A storm for the simulated world: an order saga with steps of every kind and with limits, trips with
//! branches, sign-ups that wait, releases whose events are shared, and every fault there is.

#[path = "shared.rs"]
mod shared;

use sagamq::checker::evidence::Placing;
use sagamq::definitions::Loaded;
use sagamq::saga::compile;
use sagamq::simulate::{Planned, Setting, Trouble};
use serde_json::json;

const DEFINITION: &str = r#"
saga: order
version: 1
start:
  on: {exchange: orders, key: order.placed}
  business_key: =event.data.order_id
cancel:
  on: {exchange: orders, key: order.cancelled}
  business_key: =event.data.order_id
deadline: {after: 2m, then: compensate}
retry:
  normal: {attempts: 3, initial: 1s, factor: 2, max: 5s}
  undo: {attempts: 50, initial: 1s, factor: 2, max: 30s}
  forever: {attempts: unlimited, initial: 1s, max: 30s}
steps:
  - step: reserve
    command: {exchange: inventory, key: stock.reserve, body: {order: =saga.business_key, items: =input.items}}
    timeout: 5s
    retry: normal
    output: {reservation: =reply.data.reservation}
    compensate:
      command:
        exchange: inventory
        key: stock.release
        body: {reservation: '=has(steps.reserve.output.reservation) ? steps.reserve.output.reservation : null'}
      timeout: 5s
      retry: undo
  - step: charge
    command: {exchange: payments, key: payment.charge, body: {order: =saga.business_key}}
    timeout: 5s
    limit: {in_flight: 1}
    on_timeout: compensate
    compensate:
      command: {exchange: payments, key: payment.refund, body: {order: =saga.business_key}}
      timeout: 5s
      retry: undo
  - step: wrap
    command: {exchange: inventory, key: parcel.wrap, body: {order: =saga.business_key}}
    timeout: 5s
    retry: normal
    compensate: none
  - step: ship
    kind: pivot
    command: {exchange: shipping, key: shipment.create, body: {reservation: =steps.reserve.output.reservation}}
    timeout: 5s
    limit: {in_flight: 2, per_second: 2}
    retry: normal
  - step: invoice
    kind: retriable
    when: =input.invoice
    command: {exchange: billing, key: invoice.send, body: {order: =saga.business_key}}
    timeout: 5s
    retry: forever
on_completed: {emit: {exchange: orders, key: order.completed, body: {order: =saga.business_key}}}
on_compensated: {emit: {exchange: orders, key: order.rejected, body: {reason: =saga.error}}}
on_parked: {emit: {exchange: orders, key: order.parked, body: {reason: =saga.error}}}
"#;

const TRIP: &str = include_str!("../../sagas/trip.yaml");
const SIGNUP: &str = include_str!("../../sagas/signup.yaml");

/// Calls that can be undone, one of them within the other, and one that cannot.
const TOUR: &str = r#"
saga: tour
version: 1
start: {on: {exchange: tours, key: tour.requested}, business_key: =event.data.tour_id}
cancel: {on: {exchange: tours, key: tour.cancelled}, business_key: =event.data.tour_id}
deadline: {after: 3m}
retry:
  normal: {attempts: 3, initial: 1s, max: 5s}
steps:
  - parallel: bookings
    steps:
      - {call: first, saga: stay, input: {city: =input.from}}
      - sequence: later
        steps:
          - {call: second, saga: stay, when: =input.return, input: {city: =input.to}}
          - step: guide
            command: {exchange: guides, key: guide.book, body: {room: =steps.second.output}}
            timeout: 5s
            retry: normal
            compensate: {command: {exchange: guides, key: guide.cancel}, timeout: 5s, retry: {attempts: 50}}
  - step: pay
    kind: pivot
    command: {exchange: payments, key: payment.charge, body: {room: =steps.first.output.room}}
    timeout: 5s
    retry: normal
  - {call: tell, saga: mailing, kind: retriable}
on_completed: {emit: {exchange: tours, key: tour.done, body: {room: =steps.first.output.room}}}
"#;
const STAY: &str = r#"
saga: stay
version: 1
start: {on: {exchange: stays, key: stay.requested}, business_key: =event.data.stay_id}
deadline: {after: 1m}
steps:
  - step: book
    command: {exchange: hotels, key: room.book, body: {city: =input.city}}
    timeout: 5s
    retry: {attempts: 3}
    output: {room: =reply.data.booking_id}
    compensate: {command: {exchange: hotels, key: room.cancel}, timeout: 5s, retry: {attempts: 50}}
  - {call: insure, saga: insurance}
output: {room: =steps.book.output.room, insured: =steps.insure.output}
on_completed: {emit: {exchange: stays, key: stay.done}}
"#;
const INSURANCE: &str = r#"
saga: insurance
version: 1
start: {on: {exchange: stays, key: insurance.requested}, business_key: =event.data.stay_id}
steps:
  - step: insure
    command: {exchange: insurances, key: policy.issue}
    timeout: 5s
    retry: {attempts: 3}
    compensate: {command: {exchange: insurances, key: policy.withdraw}, timeout: 5s, retry: {attempts: 50}}
  - {delay: rest, for: 2s}
output: true
"#;
/// Items that are done two at a time, some of which refuse; and once more after the pivot.
const BULK: &str = r#"
saga: bulk
version: 1
start: {on: {exchange: bulks, key: bulk.placed}, business_key: =event.data.bulk_id}
cancel: {on: {exchange: bulks, key: bulk.cancelled}, business_key: =event.data.bulk_id}
deadline: {after: 5m}
steps:
  - step: open
    command: {exchange: bulks, key: bulk.open}
    timeout: 5s
    compensate: {command: {exchange: bulks, key: bulk.close}, timeout: 5s, retry: {attempts: 50}}
  - foreach: pack
    items: =input.lines
    as: line
    with: {bulk: =saga.business_key}
    max_in_flight: 2
    steps:
      - step: pick
        command: {exchange: stores, key: line.pick, body: {sku: =input.line.sku, bulk: =input.bulk, at: =input.index}}
        timeout: 5s
        limit: {in_flight: 2, per_second: 5}
        retry: {attempts: 3}
        output: {parcel: =reply.data.booking_id}
        compensate: {command: {exchange: stores, key: line.return}, timeout: 5s, retry: {attempts: 50}}
      - {call: insure, saga: insurance}
    output: {parcel: =steps.pick.output.parcel}
  - step: pay
    kind: pivot
    command: {exchange: payments, key: payment.charge, body: {parcels: =steps.pack.output}}
    timeout: 5s
    retry: {attempts: 3}
  - foreach: tell
    kind: retriable
    items: =input.lines
    steps:
      - {step: mail, command: {exchange: mails, key: line.tell, body: =input.item}, timeout: 5s, compensate: none}
"#;
const MAILING: &str = r#"
saga: mailing
version: 1
start: {on: {exchange: mails, key: mailing.requested}, business_key: =event.data.id}
deadline: {after: 1m}
steps:
  - {step: print, command: {exchange: mails, key: mail.print}, timeout: 5s, compensate: none}
  - {step: send, kind: pivot, command: {exchange: mails, key: mail.send}, timeout: 5s, retry: {attempts: 3}}
"#;

/// The storm.
pub(crate) fn storm(verbose: bool) -> Setting {
    let mut events: Vec<_> = (1..=6).map(order).collect();
    events.insert(2, garbage());
    events.insert(4, Planned { is_stray: true, ..garbage() });
    events.push(order(3));
    events.push(cancel(2));
    events.extend((1..=3).map(trip));
    events.push(cancel_trip(2));
    events.extend((1..=3).map(tour));
    events.push(cancel_tour(3));
    events.extend((1..=3).map(bulk));
    events.push(cancel_bulk(3));
    events.extend((1..=5).map(signup));
    events.extend(
        [(1, "approved"), (2, "rejected"), (3, "approved"), (3, "withdrawn"), (5, "approved")].map(decided),
    );
    // A correlation can be carried only once there is one.
    let releases = (1..=2).flat_map(shared::release);
    let (last, first): (Vec<_>, Vec<_>) = releases.partition(|event| event.to.1 == "release.revoked");
    let (later, first): (Vec<_>, Vec<_>) =
        first.into_iter().partition(|event| event.correlated_with.is_some());
    events.splice(events.len() / 2..events.len() / 2, later);
    events.splice(0..0, first);
    events.extend(last);
    let (exchange, key) = shared::HERALDS;
    Setting {
        definitions: vec![
            loaded("order.yaml", DEFINITION),
            loaded("trip.yaml", TRIP),
            loaded("signup.yaml", SIGNUP),
            loaded("tour.yaml", TOUR),
            loaded("stay.yaml", STAY),
            loaded("insurance.yaml", INSURANCE),
            loaded("mailing.yaml", MAILING),
            loaded("bulk.yaml", BULK),
            loaded("release.yaml", shared::RELEASE),
            loaded("audit.yaml", shared::AUDIT),
        ],
        events,
        reply_data: json!({"reservation": "r-1", "booking_id": "b-1", "price": 10, "account_id": "a-1"}),
        heralds: [(exchange.to_owned(), key.to_owned())].into(),
        attended: true,
        trouble: Trouble {
            crashes: 150,
            power_cuts: 300,
            disk_faults: 300,
            lost_connections: 150,
            publish_faults: 8,
            delivery_faults: 8,
            forgeries: 12,
        },
        verbose,
    }
}

fn loaded(file: &str, source: &str) -> Loaded {
    let plan = compile::load(file, source).unwrap();
    Loaded { file: file.into(), source: source.into(), plan: plan.into() }
}

fn order(number: usize) -> Planned {
    let id = format!("A-{number}");
    let body = json!({"order_id": id, "items": [1, 2], "invoice": number.is_multiple_of(2)});
    placing("order.placed", &body.to_string(), Placing::Start { saga: "order".into(), business_key: id })
}

fn cancel(number: usize) -> Planned {
    let id = format!("A-{number}");
    let body = json!({"order_id": id}).to_string();
    placing("order.cancelled", &body, Placing::Cancel { saga: "order".into(), business_key: id })
}

fn trip(number: usize) -> Planned {
    let id = format!("T-{number}");
    let body = json!({
        "trip_id": id, "traveller_id": "c-7", "city": "Rome", "date": "2027-01-02", "nights": 3,
        "car": number.is_multiple_of(2),
    });
    let what = Placing::Start { saga: "trip".into(), business_key: id };
    Planned::new("trips", "trip.requested", body.to_string(), what)
}

fn cancel_trip(number: usize) -> Planned {
    let id = format!("T-{number}");
    let body = json!({"trip_id": id}).to_string();
    let what = Placing::Cancel { saga: "trip".into(), business_key: id };
    Planned::new("trips", "trip.cancelled", body, what)
}

fn bulk(number: usize) -> Planned {
    let id = format!("B-{number}");
    let lines: Vec<_> = (0..number * 2 - 2).map(|line| json!({"sku": format!("s-{line}")})).collect();
    let body = json!({"bulk_id": id, "lines": lines});
    let what = Placing::Start { saga: "bulk".into(), business_key: id };
    Planned::new("bulks", "bulk.placed", body.to_string(), what)
}

fn cancel_bulk(number: usize) -> Planned {
    let id = format!("B-{number}");
    let body = json!({"bulk_id": id}).to_string();
    let what = Placing::Cancel { saga: "bulk".into(), business_key: id };
    Planned::new("bulks", "bulk.cancelled", body, what)
}

fn tour(number: usize) -> Planned {
    let id = format!("U-{number}");
    let body = json!({"tour_id": id, "from": "Rome", "to": "Bari", "return": number.is_multiple_of(2)});
    let what = Placing::Start { saga: "tour".into(), business_key: id };
    Planned::new("tours", "tour.requested", body.to_string(), what)
}

fn cancel_tour(number: usize) -> Planned {
    let id = format!("U-{number}");
    let body = json!({"tour_id": id}).to_string();
    let what = Placing::Cancel { saga: "tour".into(), business_key: id };
    Planned::new("tours", "tour.cancelled", body, what)
}

fn signup(number: usize) -> Planned {
    let id = format!("S-{number}");
    let body = json!({"signup_id": id, "email": "ann@example.com", "price": 12});
    let what = Placing::Start { saga: "signup".into(), business_key: id };
    Planned::new("signups", "signup.requested", body.to_string(), what)
}

/// What becomes of a sign-up; nobody decides on the fourth.
fn decided((number, how): (usize, &str)) -> Planned {
    let id = format!("S-{number}");
    let body = json!({"signup_id": id, "by": "bob"}).to_string();
    let (saga, business_key) = ("signup".into(), id);
    let what = match how {
        "withdrawn" => Placing::Cancel { saga, business_key },
        _ => Placing::Answer { saga, business_key },
    };
    Planned::new("signups", &format!("signup.{how}"), body, what)
}

fn garbage() -> Planned {
    placing("order.placed", "{\"order_id\"", Placing::Garbage)
}

fn placing(key: &str, body: &str, what: Placing) -> Planned {
    Planned::new("orders", key, body, what)
}
