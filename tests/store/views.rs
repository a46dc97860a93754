//! Lists: every instance once, newest first, under the status that it has.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sagamq::saga::fact::{Fact, Failure, Tells};
use sagamq::saga::instance::{Instance, Status};
use sagamq::saga::time::Timestamp;
use sagamq::store::{
    Batch, DeadLetter, MAX_DEAD_LETTERS, Order, Page, Query, Reader, Store, StoreError, Tally, Waiting,
};
use serde_json::json;

use crate::{Folder, change, moved, start, started};

#[test]
fn views_follow_the_status() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    let (mut instance, batch) = started("order", "A-1", 1, json!(1));
    store.commit(batch).unwrap();
    let reader = store.reader();
    let is_listed = |status| {
        !reader.list(&Query { statuses: vec![status], ..Query::default() }).unwrap().items.is_empty()
    };
    for (fact, status, open) in [
        (Fact::DeadlinePassed, Status::Running, true),
        (Fact::CompensationStarted, Status::Compensating, true),
        (Fact::AllCompensated, Status::Compensated, false),
        (
            Fact::NoticeDue { tells: Tells::Status, body: json!({"order": "A-1"}).into() },
            Status::Compensated,
            true,
        ),
        (Fact::NoticePublished { notice: 0 }, Status::Compensated, false),
    ] {
        store.commit(moved(&mut instance, fact)).unwrap();
        assert!(Status::ALL.into_iter().all(|other| is_listed(other) == (other == status)), "{status}");
        assert_eq!(reader.waiting().count(), usize::from(open), "{status}");
    }
}

#[test]
fn instances_that_have_not_ended_are_counted_by_version_in_the_journal_and_in_the_tables() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    let facts = [
        None,
        Some(Fact::CompensationStarted),
        Some(Fact::Parked { error: Failure { step: None, code: "X".to_owned(), message: String::new() } }),
        Some(Fact::Completed),
    ];
    let place = |number: i64, store: &mut Store| {
        for (kind, fact) in facts.clone().into_iter().enumerate() {
            let (mut instance, batch) = started("order", &format!("A-{number}-{kind}"), number, json!(1));
            store.commit(batch).unwrap();
            if let Some(fact) = fact {
                store.commit(moved(&mut instance, fact)).unwrap();
            }
        }
    };
    let reader = store.reader();
    let tally = || reader.tallies().unwrap().into_iter().collect::<Vec<_>>();
    let each = |count| Tally { running: count, compensating: count, parked: count };
    assert_eq!(tally(), []);
    (0..3).for_each(|number| place(number, &mut store));
    assert_eq!(tally(), [(("order".to_owned(), 1), each(3))]);
    store.checkpoint().unwrap();
    assert_eq!(tally(), [(("order".to_owned(), 1), each(3))]);
    (3..5).for_each(|number| place(number, &mut store));
    assert_eq!(tally(), [(("order".to_owned(), 1), each(5))]);
}

#[test]
fn queries_find_what_they_name() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    for number in 0..10 {
        let saga = if number < 6 { "order" } else { "order_return" };
        store.commit(started(saga, &format!("A-{number}"), number, json!(1)).1).unwrap();
    }
    let reader = store.reader();
    let found =
        |query: Query| -> Vec<i64> { all(&reader, &query).iter().map(|found| found.started_at.0).collect() };
    let nothing: [i64; 0] = [];
    let saga = |name: &str| Some(name.to_owned());
    let even = Some(("parity".to_owned(), "even".to_owned()));
    let base = Query { limit: 2, ..Query::default() };
    assert_eq!(found(base.clone()), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    assert_eq!(found(Query { saga: saga("order"), ..base.clone() }), [5, 4, 3, 2, 1, 0]);
    assert_eq!(found(Query { saga: saga("other"), ..base.clone() }), nothing);
    assert_eq!(found(Query { attribute: even.clone(), ..base.clone() }), [8, 6, 4, 2, 0]);
    assert_eq!(found(Query { attribute: even, saga: saga("order"), ..base.clone() }), [4, 2, 0]);
    assert_eq!(found(Query { business_key: Some("A-7".to_owned()), ..base.clone() }), [7]);
    assert_eq!(
        found(Query { business_key: Some("A-7".to_owned()), saga: saga("order"), ..base.clone() }),
        nothing
    );
    let (after, before) = (Some(Timestamp(3)), Some(Timestamp(7)));
    assert_eq!(found(Query { started_after: after, started_before: before, ..base.clone() }), [6, 5, 4, 3]);
    assert_eq!(found(Query { started_after: before, started_before: after, ..base.clone() }), nothing);
    assert_eq!(found(Query { statuses: vec![Status::Parked], ..base.clone() }), nothing);
    let error = reader.list(&Query { cursor: Some("nonsense".to_owned()), ..base }).unwrap_err();
    assert!(matches!(error, StoreError::Cursor(_)));
}

#[test]
fn the_newest_dead_letters_are_kept() {
    let folder = Folder::new();
    let letter = |number: u64| DeadLetter {
        at: Timestamp(number as i64),
        queue: "sagamq.events".to_owned(),
        exchange: "orders".to_owned(),
        key: "order.placed".to_owned(),
        message_id: None,
        reason: "body is not JSON".to_owned(),
        preview: "?".to_owned(),
        size: 1,
        ..DeadLetter::default()
    };
    for round in 0..3 {
        // Opened again, it goes on where it was.
        let mut store = folder.open().unwrap();
        let mut batch = Batch::default();
        (round * 4_000..(round + 1) * 4_000).for_each(|number| batch.dead_letter(letter(number)));
        store.commit(batch).unwrap();
    }
    let reader = folder.open().unwrap().reader();
    let (mut kept, mut cursor) = (Vec::new(), None);
    loop {
        let Page { items, next } = reader.dead_letters(999, cursor.as_deref()).unwrap();
        kept.extend(items.into_iter().map(|letter| letter.at.0 as u64));
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    let newest: Vec<u64> = (12_000 - MAX_DEAD_LETTERS..12_000).rev().collect();
    assert!(kept == newest, "{} kept, from {:?} to {:?}", kept.len(), kept.first(), kept.last());
    assert!(matches!(reader.dead_letters(1, Some("nonsense")), Err(StoreError::Cursor(_))));
}

#[test]
fn dead_letters_of_one_kind_do_not_drive_out_those_of_another() {
    let folder = Folder::new();
    let letter = |number: u64, queue: &str, reason: String| DeadLetter {
        at: Timestamp(number as i64),
        queue: queue.to_owned(),
        exchange: "orders".to_owned(),
        key: "order.placed".to_owned(),
        message_id: None,
        reason,
        preview: "?".to_owned(),
        size: 1,
        ..DeadLetter::default()
    };
    let mut batch = Batch::default();
    for number in 0..5 {
        batch.dead_letter(letter(
            number,
            "events",
            "saga order: business_key: no such key \"id\"".to_owned(),
        ));
    }
    folder.open().unwrap().commit(batch).unwrap();
    for round in 0..3 {
        // Opened again, it still tells the kinds apart.
        let mut store = folder.open().unwrap();
        let mut batch = Batch::default();
        for number in round * 5_000..(round + 1) * 5_000 {
            let reason = format!("body is not JSON: expected value at line 1 column {number}");
            batch.dead_letter(letter(100 + number, "events", reason));
        }
        store.commit(batch).unwrap();
    }
    let reader = folder.open().unwrap().reader();
    let (mut kept, mut cursor) = (Vec::new(), None);
    loop {
        let page = reader.dead_letters(999, cursor.as_deref()).unwrap();
        kept.extend(page.items.into_iter().map(|letter| letter.at.0));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((kept.len() as u64, &kept[kept.len() - 5..]), (MAX_DEAD_LETTERS, &[4, 3, 2, 1, 0][..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens to instances, and whether they are in the journal or in the tables: every status
    /// lists those that have it, in either order, each once, with any size of page, before and after the
    /// store is opened again.
    #[test]
    fn lists_agree_with_a_model(
        changes in prop::collection::vec((0..40_usize, 0..6_usize), 1..150),
        limit in 1..7_usize,
        group in 1..20_usize,
    ) {
        let folder = Folder::new();
        let mut store = folder.open().unwrap();
        let mut model: BTreeMap<usize, Instance> = BTreeMap::new();
        for changes in changes.chunks(group) {
            let mut batch = Batch::default();
            for &(who, status) in changes {
                if status == Status::ALL.len() {
                    store.commit(std::mem::take(&mut batch)).unwrap();
                    store.checkpoint().unwrap();
                } else if let Some(instance) = model.get_mut(&who) {
                    let entry = change(instance, Fact::Resumed { to: Status::ALL[status] });
                    batch.save(instance, &entry);
                } else {
                    // Several start at the same time.
                    let saga = ["order", "order_return", "refund"][who % 3];
                    let (instance, entry) = start(saga, &who.to_string(), who as i64 / 4 - 3, json!(who));
                    batch.save(&instance, &entry);
                    model.insert(who, instance);
                }
            }
            store.commit(batch).unwrap();
        }
        for reopened in [false, true] {
            if reopened {
                drop(store);
                store = folder.open().unwrap();
            }
            let reader = store.reader();
            let choices = Status::ALL.into_iter().map(|status| vec![status]).chain([Vec::new()]);
            for statuses in choices {
                let mut expected: Vec<_> = model
                    .values()
                    .filter(|instance| statuses.is_empty() || statuses.contains(&instance.status))
                    .map(|instance| (instance.started_at, instance.id))
                    .collect();
                expected.sort_by(|a, b| b.cmp(a));
                for order in [Order::NewestFirst, Order::OldestFirst] {
                    let query = Query { statuses: statuses.clone(), order, limit, ..Query::default() };
                    let listed = all(&reader, &query);
                    let listed: Vec<_> = listed.iter().map(|instance| (instance.started_at, instance.id)).collect();
                    prop_assert_eq!(&listed, &expected);
                    expected.reverse();
                }
            }
            let mut waiting: Vec<_> = reader.waiting().map(Result::unwrap).collect();
            let open = model.values().filter(|instance| instance.is_open()).map(|instance| Waiting {
                id: instance.id,
                saga: instance.saga.as_str().into(),
                version: instance.version,
                due: instance.next_due(),
                unconfirmed: instance.unconfirmed().next().is_some(),
            });
            let mut open: Vec<_> = open.collect();
            waiting.sort_by_key(|one| one.id);
            open.sort_by_key(|one| one.id);
            prop_assert_eq!(waiting, open);
        }
    }
}

/// Every page of a list, one after the other.
fn all(reader: &Reader, query: &Query) -> Vec<Instance> {
    let (mut items, mut cursor) = (Vec::new(), None);
    loop {
        let page = reader.list(&Query { cursor, ..query.clone() }).unwrap();
        assert!(page.items.len() <= query.limit);
        items.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return items;
        }
    }
}
