//! Instances that are removed: nothing is left of them, nothing comes back, and their business keys may
//! begin anew.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sagamq::saga::fact::{Fact, HistoryEntry};
use sagamq::saga::id::{InstanceId, Phase};
use sagamq::saga::instance::Instance;
use sagamq::store::{Batch, Memory, Query, Removal, Store, StoreError};
use serde_json::json;

use crate::{Folder, change, moved, noise, start, started};

/// Instances by number, with their histories.
type Model = BTreeMap<usize, (Instance, Vec<HistoryEntry>)>;

/// How many instances there may be at a time.
const PLAYERS: usize = 5;

/// What is done to an instance, or to the store as a whole.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Another attempt, or the start where there is none.
    Dispatch,
    /// An output of this length.
    Output(usize),
    Complete,
    Remove,
    /// Removed and begun anew in one batch.
    BeginAnew,
    Checkpoint,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        6 => Just(Step::Dispatch),
        2 => Just(Step::Output(20_000)),
        2 => Just(Step::Output(0)),
        3 => Just(Step::Complete),
        4 => Just(Step::Remove),
        2 => Just(Step::BeginAnew),
        3 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec((0..PLAYERS, step), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whether they were in the journal or in the tables when they were removed, in long histories or short.
    #[test]
    fn removed_instances_do_not_come_back_and_others_stay(steps in steps()) {
        let memory = Memory::default();
        play(&steps, || Store::simulated(&memory).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn no_key_of_a_removed_instance_is_left(steps in steps()) {
        let folder = Folder::new();
        let (mut store, model) = play(&steps, || folder.open().unwrap());
        store.checkpoint().unwrap();
        drop(store);
        let living: BTreeSet<_> = model.values().map(|(instance, _)| *instance.id.as_bytes()).collect();
        let gone: Vec<_> = (0..PLAYERS).map(|who| *id(who).as_bytes()).filter(|id| !living.contains(id)).collect();
        let sled = folder.sled();
        for entry in sled.iter() {
            let (key, value) = entry.unwrap();
            if key[0] == b'k' {
                let (owner, number) = key[1..].split_at(key.len() - 5);
                let owner = sled.get(owner).unwrap().expect("a chunk belongs to a value");
                prop_assert!(u32::from_be_bytes(number.try_into().unwrap()) <= u32::from_be_bytes(owner[5..9].try_into().unwrap()));
            }
            // Runs have ids until they are merged or dropped.
            for id in gone.iter().filter(|_| !b"ir".contains(&key[0])) {
                let has = |bytes: &[u8]| bytes.windows(16).any(|part| part == id);
                prop_assert!(!has(&key) && !has(&value), "{}", key.escape_ascii());
            }
        }
    }
}

#[test]
fn instances_that_are_about_to_move_to_the_tables_are_removed_all_the_same() {
    let memory = Memory::default();
    let mut store = Store::simulated(&memory).unwrap();
    let (mut ended, mut removals) = (Batch::default(), Batch::default());
    for number in 0..9 {
        let (mut instance, first) = start("order", &number.to_string(), 1, json!(1));
        ended.save(&instance, &first);
        let last = change(&mut instance, Fact::Completed);
        ended.save(&instance, &last);
        removals.remove(Removal::of(&instance));
    }
    store.commit(ended).unwrap();
    // It begins to move them, and has some left.
    store.commit(started("order", "other", 1, json!(1)).1).unwrap();
    store.commit(removals).unwrap();
    for store in [store, Store::simulated(&memory).unwrap()] {
        let left: Vec<_> = store.reader().instances().map(|left| left.unwrap().business_key).collect();
        assert_eq!(left, ["other"]);
    }
}

#[test]
fn instances_that_begin_anew_while_those_before_them_were_about_to_move_stay() {
    let memory = Memory::default();
    let mut store = Store::simulated(&memory).unwrap();
    let (mut ended, mut renewed) = (Batch::default(), Batch::default());
    let mut living = Vec::new();
    for number in 0..30 {
        let (mut instance, first) = start("order", &number.to_string(), 1, json!(1));
        ended.save(&instance, &first);
        let last = change(&mut instance, Fact::Completed);
        ended.save(&instance, &last);
        // The last in the queue.
        if number >= 27 {
            renewed.remove(Removal::of(&instance));
            let (instance, first) = start("order", &number.to_string(), 2, json!(2));
            renewed.save(&instance, &first);
            living.push(instance);
        }
    }
    store.commit(ended).unwrap();
    // It begins to move them, and has some left.
    store.commit(started("order", "other", 1, json!(1)).1).unwrap();
    store.commit(renewed).unwrap();
    for round in 0..20 {
        store.commit(started("order", &format!("later {round}"), 3, json!(1)).1).unwrap();
        for instance in &living {
            assert_eq!(store.reader().instance(instance.id).unwrap().as_ref(), Some(instance), "{round}");
        }
    }
    for instance in &mut living {
        store.commit(moved(instance, Fact::Completed)).unwrap();
    }
    store.checkpoint().unwrap();
    let store = Store::simulated(&memory).unwrap();
    for instance in &living {
        assert_eq!(store.reader().instance(instance.id).unwrap().as_ref(), Some(instance));
    }
    assert_eq!(store.reader().instances().count(), 30 + 1 + 20);
}

#[test]
fn a_snapshot_that_gets_shorter_leaves_no_chunks_behind() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    let (mut instance, batch) = started("order", "A-1", 1, json!(1));
    store.commit(batch).unwrap();
    let mut chunks = Vec::new();
    for length in [20_000, 0] {
        let output = json!(noise(length));
        store.commit(moved(&mut instance, Fact::succeeded(0, output))).unwrap();
        store.checkpoint().unwrap();
        drop(store);
        chunks.push(folder.with_sled(|sled| sled.scan_prefix(b"ks").count()));
        store = folder.open().unwrap();
    }
    assert!(chunks[0] > 1, "{chunks:?}");
    assert_eq!(chunks[1], 0);
}

#[test]
fn an_instance_that_has_changed_is_not_removed() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    let (mut instance, batch) = started("order", "A-1", 1, json!(1));
    store.commit(batch).unwrap();
    let removal = Removal::of(&instance);
    store.commit(moved(&mut instance, Fact::DeadlinePassed)).unwrap();
    let mut batch = Batch::default();
    batch.remove(removal);
    let error = store.commit(batch).unwrap_err();
    assert!(matches!(error, StoreError::Conflict { revision: 1, .. }), "{error}");
    assert_eq!(store.reader().instance(instance.id).unwrap(), Some(instance));
}

/// Does these steps, and looks after each opening whether the store has what it should.
fn play(steps: &[(usize, Step)], open: impl Fn() -> Store) -> (Store, Model) {
    let mut store = open();
    let mut model = Model::new();
    for &(who, step) in steps {
        let mut batch = Batch::default();
        match step {
            Step::Checkpoint => store.checkpoint().unwrap(),
            Step::Reopen => {
                drop(store);
                store = open();
                assert_is(&store, &model);
            }
            Step::Remove => remove(&mut batch, &mut model, who),
            Step::BeginAnew => {
                remove(&mut batch, &mut model, who);
                begin(&mut batch, &mut model, who);
            }
            Step::Dispatch | Step::Output(_) | Step::Complete if !model.contains_key(&who) => {
                begin(&mut batch, &mut model, who);
            }
            Step::Dispatch => {
                let attempt = model[&who].0.steps[0].action.attempt + 1;
                go_on(
                    &mut batch,
                    &mut model,
                    who,
                    Fact::Dispatched { step: 0, phase: Phase::Action, attempt },
                );
            }
            Step::Output(length) => {
                go_on(&mut batch, &mut model, who, Fact::succeeded(0, json!(noise(length))));
            }
            Step::Complete => go_on(&mut batch, &mut model, who, Fact::Completed),
        }
        store.commit(batch).unwrap();
    }
    assert_is(&store, &model);
    drop(store);
    store = open();
    assert_is(&store, &model);
    (store, model)
}

fn id(who: usize) -> InstanceId {
    InstanceId::new("order", &who.to_string())
}

fn begin(batch: &mut Batch, model: &mut Model, who: usize) {
    let (instance, entry) = start("order", &who.to_string(), who as i64, json!(who));
    batch.save(&instance, &entry);
    model.insert(who, (instance, vec![entry]));
}

fn go_on(batch: &mut Batch, model: &mut Model, who: usize, fact: Fact) {
    let (instance, history) = model.get_mut(&who).unwrap();
    let entry = change(instance, fact);
    batch.save(instance, &entry);
    history.push(entry);
}

fn remove(batch: &mut Batch, model: &mut Model, who: usize) {
    if let Some((instance, _)) = model.remove(&who) {
        batch.remove(Removal::of(&instance));
    }
}

fn assert_is(store: &Store, model: &Model) {
    let reader = store.reader();
    for who in 0..PLAYERS {
        let known = model.get(&who);
        assert_eq!(reader.instance(id(who)).unwrap().as_ref(), known.map(|(instance, _)| instance), "{who}");
        assert_eq!(
            reader.history(id(who)).unwrap(),
            known.map_or(Vec::new(), |(_, history)| history.clone())
        );
    }
    let listed = reader.list(&Query::default()).unwrap().items;
    assert_eq!(listed.len(), model.len());
    let open: BTreeSet<_> = reader.waiting().map(|waiting| waiting.unwrap().id).collect();
    let expected = model.values().filter(|(instance, _)| instance.is_open());
    assert_eq!(open, expected.map(|(instance, _)| instance.id).collect());
}
