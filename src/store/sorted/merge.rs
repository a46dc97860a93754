//! Writes runs, and merges them.

use std::collections::VecDeque;
use std::sync::Arc;

use fastbloom::BloomFilter;

use super::{BEGIN, Cursor, END, Entry, Id, Manifest, Run, Runs, filter, hash};
use crate::store::disk::{Disk, Writes};
use crate::store::error::StoreError;
use crate::store::{keys, record};

/// Runs of about the same size that are merged, at least and at most.
const MERGED: usize = 8;
const MOST_MERGED: usize = 16;
/// How much larger than the largest before it a run may be, to be merged with these.
const SIMILAR: u64 = 2;
/// Bytes of a block, beyond which it is closed.
const BLOCK: usize = record::CHUNK - 300;

/// What writes the runs of a family: one for each store.
#[derive(Debug)]
pub(in crate::store) struct Writer {
    runs: Runs,
    /// How often the manifest has changed.
    change: u64,
    /// Number of the next run.
    next: u64,
    merges: Vec<Merge>,
    /// Runs that do not count any more, and whose blocks are still there.
    dropped: VecDeque<u64>,
}

/// A merge under way.
#[derive(Debug)]
struct Merge {
    /// Numbers of the runs that are merged, the newest first.
    from: Vec<u64>,
    /// Their next entries, and what follows on these.
    heads: Vec<(Option<Entry>, Cursor)>,
    /// Whether there is nothing older, of which it matters that it was removed.
    oldest: bool,
    /// Entries of these runs.
    entries: u64,
    output: Output,
}

/// A run that is being written.
#[derive(Debug)]
struct Output {
    number: u64,
    entries: u64,
    filter: BloomFilter,
    /// From which id on the open block is.
    begin: Id,
    /// Entries of the open block.
    block: Vec<u8>,
}

impl Writer {
    /// Goes on where a store ended that has these runs.
    ///
    /// # Errors
    /// The disk fails.
    pub(in crate::store) fn over(disk: &Disk, runs: Runs, change: u64) -> Result<Self, StoreError> {
        let (mut next, mut dropped) = (0, VecDeque::new());
        let mut rest = keys::under(&[keys::PLACES]);
        while let Some(key) = disk.keys(rest.clone()).next().transpose()? {
            let number = keys::run_number(&key).ok_or_else(|| disk.corrupt(&key, "it is cut off"))?;
            if runs.runs.iter().all(|run| run.number != number) {
                dropped.push_back(number);
            }
            next = number + 1;
            rest.start = keys::run(keys::PLACES, next);
        }
        Ok(Self { runs, change, next, merges: Vec::new(), dropped })
    }

    /// The runs, once all that was added to a commit is durable.
    pub(in crate::store) fn runs(&self) -> &Runs {
        &self.runs
    }

    /// How often the manifest has changed by then.
    pub(in crate::store) fn change(&self) -> u64 {
        self.change
    }

    /// Adds a run. An id with an empty value has none any more.
    pub(in crate::store) fn put(&mut self, writes: &mut Writes, mut entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        entries.sort_unstable();
        let mut output = Output::new(self.take_number(), entries.len() as u64);
        for (id, value) in entries {
            output.push(writes, id, &value);
        }
        self.runs.runs.insert(0, output.close(writes));
        self.put_manifest(writes);
    }

    /// Goes on merging, as far as `entries` says, and removes a few blocks that do not count any more. This
    /// reads what is on the disk: nothing may have been put in the same commit before.
    ///
    /// # Errors
    /// As [`Runs::find`].
    pub(in crate::store) fn go_on(
        &mut self,
        writes: &mut Writes,
        disk: &Disk,
        entries: usize,
    ) -> Result<(), StoreError> {
        self.remove_blocks(writes, disk, 1 + entries / 32)?;
        let begun = self.begin_merge(disk)?;
        self.merges.extend(begun);
        // The smallest first: otherwise small runs would pile up while large ones are merged.
        let smallest = (0..self.merges.len()).min_by_key(|at| self.merges[*at].entries);
        let Some(at) = smallest else { return Ok(()) };
        for _ in 0..entries {
            if !self.merges[at].step(writes, disk)? {
                let merge = self.merges.swap_remove(at);
                self.end_merge(writes, merge);
                break;
            }
        }
        Ok(())
    }

    /// Removes blocks of runs that do not count any more.
    fn remove_blocks(
        &mut self,
        writes: &mut Writes,
        disk: &Disk,
        mut blocks: usize,
    ) -> Result<(), StoreError> {
        while let Some(number) = self.dropped.front() {
            for key in disk.keys(keys::under(&keys::run(keys::PLACES, *number))) {
                if blocks == 0 {
                    return Ok(());
                }
                writes.insert(key?.to_vec(), None);
                blocks -= 1;
            }
            self.dropped.pop_front();
        }
        Ok(())
    }

    /// Begins to merge the newest runs that are enough and of about the same size.
    fn begin_merge(&mut self, disk: &Disk) -> Result<Option<Merge>, StoreError> {
        let is_free = |run: &Run| !self.merges.iter().any(|merge| merge.from.contains(&run.number));
        let sizes: Vec<_> = self.runs.runs.iter().map(|run| is_free(run).then_some(run.entries)).collect();
        let found = (0..sizes.len()).map(|at| at..at + similar(&sizes[at..]));
        let Some(range) = found.into_iter().find(|range| range.len() >= MERGED) else { return Ok(None) };
        let oldest = range.end == sizes.len();
        let entries = sizes[range.clone()].iter().flatten().sum();
        let output = Output::new(self.take_number(), entries);
        let (mut from, mut heads) = (Vec::new(), Vec::new());
        for run in &self.runs.runs[range] {
            let mut cursor = Cursor::of(run.number);
            from.push(run.number);
            heads.push((cursor.next(disk)?, cursor));
        }
        Ok(Some(Merge { from, heads, oldest, entries, output }))
    }

    /// Has the merged run count, in the place of those that it was made of.
    fn end_merge(&mut self, writes: &mut Writes, Merge { from, output, .. }: Merge) {
        let runs = &mut self.runs.runs;
        let at = runs.iter().position(|run| from.contains(&run.number)).unwrap_or(0);
        runs.retain(|run| !from.contains(&run.number));
        if output.entries > 0 {
            runs.insert(at, output.close(writes));
        }
        self.dropped.extend(from);
        self.put_manifest(writes);
    }

    fn put_manifest(&mut self, writes: &mut Writes) {
        self.change += 1;
        let runs = self.runs.runs.iter().map(|run| (run.number, run.entries)).collect();
        let manifest = Manifest { change: self.change, runs };
        record::insert(writes, &keys::manifest(keys::PLACES), &record::json(&manifest));
    }

    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

impl Merge {
    /// Takes the next id over; false if there is none.
    fn step(&mut self, writes: &mut Writes, disk: &Disk) -> Result<bool, StoreError> {
        let ids = self.heads.iter().filter_map(|(head, _)| head.as_ref().map(|(id, _)| *id));
        let Some(next) = ids.min() else { return Ok(false) };
        let mut newest = None;
        for (head, cursor) in &mut self.heads {
            if head.as_ref().is_some_and(|(id, _)| *id == next) {
                let entry = std::mem::replace(head, cursor.next(disk)?);
                newest = newest.or(entry);
            }
        }
        if let Some((id, value)) = newest.filter(|(_, value)| !(self.oldest && value.is_empty())) {
            self.output.push(writes, id, &value);
        }
        Ok(true)
    }
}

impl Output {
    fn new(number: u64, entries: u64) -> Self {
        Self { number, entries: 0, filter: filter(entries), begin: BEGIN, block: Vec::new() }
    }

    /// Adds an entry behind those before.
    fn push(&mut self, writes: &mut Writes, id: Id, value: &[u8]) {
        if self.block.len() + id.len() + 1 + value.len() > BLOCK {
            self.close_block(writes, id);
        }
        let length = u8::try_from(value.len()).expect("values of runs are short");
        self.block.extend_from_slice(&id);
        self.block.push(length);
        self.block.extend_from_slice(value);
        self.filter.insert_hash(hash(&id));
        self.entries += 1;
    }

    fn close_block(&mut self, writes: &mut Writes, next: Id) {
        let payload = [&next[..], &self.block].concat();
        record::insert(writes, &keys::block_of_run(keys::PLACES, self.number, &self.begin), &payload);
        self.block.clear();
        self.begin = next;
    }

    fn close(mut self, writes: &mut Writes) -> Arc<Run> {
        self.close_block(writes, END);
        Arc::new(Run { number: self.number, entries: self.entries, filter: self.filter })
    }
}

/// How many of these runs, from the first on, are not being merged and of about the same size.
fn similar(sizes: &[Option<u64>]) -> usize {
    let mut greatest = 0;
    let fits = |size: &u64| {
        let is_similar = greatest == 0 || *size <= SIMILAR * greatest;
        greatest = greatest.max(*size);
        is_similar
    };
    sizes.iter().take(MOST_MERGED).map_while(|size| *size).take_while(fits).count()
}
