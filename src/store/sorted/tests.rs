use std::collections::BTreeMap;

use super::merge::Writer;
use super::*;
use crate::store::disk::Writes;
use crate::store::memory::Memory;

/// Runs on a simulated disk.
struct Bench {
    memory: Memory,
    disk: Disk,
    writer: Writer,
    commit: u64,
}

impl Bench {
    fn new() -> Self {
        let memory = Memory::default();
        Self::over(memory, 0, 0)
    }

    fn over(memory: Memory, commit: u64, change: u64) -> Self {
        let disk = Disk::Memory(memory.clone());
        let runs = Runs::open(&disk, change).unwrap();
        let writer = Writer::over(&disk, runs, change).unwrap();
        Self { memory, disk, writer, commit }
    }

    /// A commit, in which a little is merged.
    fn commit(&mut self, entries: Vec<(Id, Vec<u8>)>, merged: usize) {
        let mut writes = Writes::default();
        self.writer.go_on(&mut writes, &self.disk, merged).unwrap();
        self.writer.put(&mut writes, entries);
        self.commit += 1;
        self.disk.persist(writes.clone(), self.commit).unwrap();
    }

    /// What a process finds that begins here.
    fn opened_again(&self) -> Self {
        Self::over(self.memory.clone(), self.commit, self.writer.change())
    }

    fn find(&self, id: &Id) -> Option<Vec<u8>> {
        self.writer.runs().find(&self.disk, id).unwrap()
    }

    fn blocks(&self) -> Vec<Vec<u8>> {
        self.disk.keys(keys::under(&[keys::PLACES])).map(|key| key.unwrap().to_vec()).collect()
    }
}

fn id(number: u64) -> Id {
    *crate::saga::id::InstanceId::new("order", &number.to_string()).as_bytes()
}

fn entries(numbers: std::ops::Range<u64>) -> Vec<(Id, Vec<u8>)> {
    numbers.map(|number| (id(number), number.to_be_bytes().to_vec())).collect()
}

#[test]
fn runs_say_what_was_put_last_however_far_they_are_merged_and_after_every_crash() {
    let mut dice = fastrand::Rng::with_seed(7);
    let mut bench = Bench::new();
    let mut model: BTreeMap<Id, Vec<u8>> = BTreeMap::new();
    for round in 0..400 {
        let mut changes = BTreeMap::new();
        for _ in 0..dice.usize(0..60) {
            let value = if dice.u8(..4) == 0 { Vec::new() } else { vec![dice.u8(..); dice.usize(1..100)] };
            changes.insert(id(dice.u64(..3000)), value);
        }
        model.extend(changes.clone());
        bench.commit(changes.into_iter().collect(), dice.usize(..200));
        if round % 50 == 25 {
            bench = bench.opened_again();
        }
        if round % 20 == 0 {
            for number in 0..3000 {
                let expected = model.get(&id(number)).filter(|value| !value.is_empty());
                assert_eq!(bench.find(&id(number)).as_ref(), expected, "{number} in round {round}");
            }
        }
    }
    (0..1000).for_each(|_| bench.commit(Vec::new(), 1000));
    let bench = bench.opened_again();
    let mut ids: Vec<_> = bench.writer.runs().ids(&bench.disk).map(Result::unwrap).collect();
    ids.sort_unstable();
    let expected: Vec<_> = model.iter().filter(|(_, value)| !value.is_empty()).map(|(id, _)| *id).collect();
    assert_eq!(ids, expected);
    assert!(bench.writer.runs().runs.len() < 30, "{} runs", bench.writer.runs().runs.len());
}

#[test]
fn nothing_is_left_of_runs_that_were_merged_or_left_unfinished() {
    let mut bench = Bench::new();
    for round in 0..8 {
        bench.commit(entries(round * 1000..(round + 1) * 1000), 0);
    }
    let before = bench.blocks().len();
    // Into the middle of a merge.
    (0..3).for_each(|_| bench.commit(Vec::new(), 1000));
    assert!(bench.blocks().len() > before);
    let mut bench = bench.opened_again();
    assert_eq!(bench.writer.runs().runs.len(), 8);
    (0..100).for_each(|_| bench.commit(Vec::new(), 1000));
    let runs = &bench.writer.runs().runs;
    assert_eq!(runs.len(), 1);
    let number = runs[0].number;
    assert!(bench.blocks().iter().all(|key| keys::run_number(key) == Some(number)));
}

#[test]
fn a_missing_block_is_found_when_the_store_is_opened_and_where_it_is_read() {
    let mut bench = Bench::new();
    bench.commit(entries(0..1000), 0);
    let blocks = bench.blocks();
    assert!(blocks.len() > 5);
    for block in blocks {
        let value = bench.disk.get(&block).unwrap().unwrap().to_vec();
        bench.disk.persist(Writes::from([(block.clone(), None)]), 2).unwrap();
        let found = (0..1000).map(|number| bench.writer.runs().find(&bench.disk, &id(number)));
        assert!(found.into_iter().any(|found| matches!(found, Err(StoreError::Corrupt { .. }))));
        let opened = Runs::open(&bench.disk, bench.writer.change());
        assert!(matches!(opened, Err(StoreError::Corrupt { .. })));
        bench.disk.persist(Writes::from([(block, Some(value))]), 2).unwrap();
    }
    assert!(Runs::open(&bench.disk, bench.writer.change()).is_ok());
    let other = Runs::open(&bench.disk, bench.writer.change() + 1);
    assert!(other.unwrap_err().to_string().contains("the one that belongs to the last commit"));
}
