//! The memtable: what the journal holds and the tables do not have yet, in memory.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::batch::{Batch, Head};
use super::index::Index;
use crate::saga::id::InstanceId;

/// What the journal holds and the tables do not have yet.
#[derive(Debug)]
pub(super) struct Memtable {
    instances: HashMap<InstanceId, Recent>,
    /// Names of the sagas that they are of, or have been.
    sagas: BTreeSet<Arc<str>>,
    /// The journal's records, the oldest first.
    segments: VecDeque<Segment>,
    /// Instances that have ended, in the order in which they did; and further ones that are not here any more, or
    /// have begun anew.
    ended: VecDeque<InstanceId>,
    /// Bytes in the journal.
    bytes: usize,
    /// What finds the rest.
    pub(super) index: Arc<Index>,
}

/// What there is of an instance.
#[derive(Debug)]
pub(super) struct Recent {
    pub(super) head: Head,
    pub(super) entries: Entries,
    /// The commit of the first entry.
    pub(super) since: u64,
}

/// Entries of a history that follow on each other; at least one.
#[derive(Clone, Debug)]
pub(super) struct Entries {
    /// Revision of the first.
    pub(super) first: u64,
    /// Revision of the last.
    pub(super) last: u64,
    /// As JSON, one a line.
    pub(super) lines: Vec<u8>,
}

/// A record of the journal.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) commit: u64,
    /// How many chunks beside the first its record has.
    pub(super) further_chunks: u32,
    /// Bytes of its payload.
    bytes: usize,
    /// Instances whose first entry is in it, unless they went on to the tables since.
    firsts: Vec<InstanceId>,
}

impl Entries {
    /// Bytes of lines from which on there is room for more than the next one.
    const LONG: usize = 4096;

    fn push(&mut self, entry: &[u8]) {
        if self.lines.len() < Self::LONG {
            // Most are few and short, and wait for long: what there is of 100,000 instances is to be small.
            self.lines.reserve_exact(entry.len() + 1);
        }
        self.lines.push(b'\n');
        self.lines.extend_from_slice(entry);
        self.last += 1;
    }
}

impl Memtable {
    /// An empty one beside this index.
    pub(super) fn new(index: Arc<Index>) -> Self {
        Self {
            instances: HashMap::new(),
            sagas: BTreeSet::new(),
            segments: VecDeque::new(),
            ended: VecDeque::new(),
            bytes: 0,
            index,
        }
    }

    pub(super) fn get(&self, id: InstanceId) -> Option<&Recent> {
        self.instances.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (InstanceId, &Recent)> {
        self.instances.iter().map(|(id, recent)| (*id, recent))
    }

    /// Names of all sagas that instances in it are of, and maybe of further ones.
    pub(super) fn sagas(&self) -> impl Iterator<Item = &str> {
        self.sagas.iter().map(|saga| &**saga)
    }

    /// How many instances the tables have nothing of.
    pub(super) fn only_here(&self) -> u64 {
        self.instances.values().filter(|recent| recent.entries.first == 1).count() as u64
    }

    /// Whether nothing is in the journal.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The commits of the first and the last record that the journal has without its `dropped` oldest ones;
    /// zeros where it has none.
    pub(super) fn span(&self, dropped: usize) -> (u64, u64) {
        let commit = |segment: Option<&Segment>| segment.map_or(0, |segment| segment.commit);
        (
            commit(self.segments.get(dropped)),
            commit(self.segments.back().filter(|_| dropped < self.segments.len())),
        )
    }

    /// Bytes in the journal.
    pub(super) fn journal_bytes(&self) -> usize {
        self.bytes
    }

    /// How many instances have ended, about.
    pub(super) fn ended(&self) -> usize {
        self.ended.len()
    }

    /// Takes in a record of the journal as it is written.
    pub(super) fn apply(&mut self, commit: u64, batch: Batch, bytes: usize, further_chunks: u32) {
        self.begin_segment(commit, bytes, further_chunks);
        for change in batch.changes {
            self.append(change.id, change.revision, &change.entry);
            self.know(change.id, change.head);
        }
    }

    /// Takes in a record's size; what is [appended](Self::append) next is in it.
    pub(super) fn begin_segment(&mut self, commit: u64, bytes: usize, further_chunks: u32) {
        self.bytes += bytes;
        self.segments.push_back(Segment { commit, further_chunks, bytes, firsts: Vec::new() });
    }

    /// Takes in an entry of the last record. Where it is the first of its instance, what is [known](Self::know) of
    /// that is still to be said.
    pub(super) fn append(&mut self, id: InstanceId, revision: u64, entry: &[u8]) {
        let segment = self.segments.back_mut().expect("a segment was begun before");
        match self.instances.entry(id) {
            Entry::Occupied(mut known) => known.get_mut().entries.push(entry),
            Entry::Vacant(vacant) => {
                segment.firsts.push(id);
                let entries = Entries { first: revision, last: revision, lines: entry.to_vec() };
                let (head, since) = (Head::unknown(), segment.commit);
                vacant.insert(Recent { head, entries, since });
            }
        }
    }

    /// Takes in what is to be known of an instance after its last entry.
    pub(super) fn know(&mut self, id: InstanceId, mut head: Head) {
        let Some(recent) = self.instances.get_mut(&id) else { return };
        // Searchable values come with the first of all entries alone.
        let attributes = std::mem::take(&mut recent.head.attributes);
        if head.attributes.is_empty() {
            head.attributes = attributes;
        }
        match self.sagas.get(&head.saga) {
            Some(name) => head.saga = Arc::clone(name),
            None => drop(self.sagas.insert(Arc::clone(&head.saga))),
        }
        if head.has_ended() && !recent.head.has_ended() {
            self.ended.push_back(id);
        }
        recent.head = head;
    }

    /// Forgets an instance that the tables have.
    pub(super) fn remove(&mut self, id: InstanceId) {
        self.instances.remove(&id);
        // Of those that move before it is their turn in the queue, most are the first ones in it.
        while self.ended.front().is_some_and(|first| !self.has_ended(*first)) {
            self.ended.pop_front();
        }
    }

    /// Takes the instances out of the queue that ended first.
    pub(super) fn take_ended(&mut self, count: usize) -> Vec<InstanceId> {
        let mut taken = Vec::new();
        while taken.len() < count
            && let Some(id) = self.ended.pop_front()
        {
            taken.extend(self.has_ended(id).then_some(id));
        }
        taken
    }

    /// The instances for which the oldest records are kept, about `count`.
    pub(super) fn oldest(&self, count: usize) -> Vec<InstanceId> {
        let mut oldest = Vec::new();
        for segment in &self.segments {
            oldest.extend(segment.firsts.iter().filter(|id| self.is_first_in(**id, segment)));
            if oldest.len() >= count {
                break;
            }
        }
        oldest
    }

    /// The oldest records of which everything is in the tables, once `settled` is.
    pub(super) fn superfluous(&self, settled: &BTreeSet<InstanceId>) -> impl Iterator<Item = &Segment> {
        self.segments.iter().take_while(|segment| {
            !segment.firsts.iter().any(|id| self.is_first_in(*id, segment) && !settled.contains(id))
        })
    }

    /// Forgets the oldest records.
    pub(super) fn drop_segments(&mut self, count: usize) {
        for segment in self.segments.drain(..count) {
            self.bytes -= segment.bytes;
        }
    }

    fn has_ended(&self, id: InstanceId) -> bool {
        self.get(id).is_some_and(|recent| recent.head.has_ended())
    }

    fn is_first_in(&self, id: InstanceId, segment: &Segment) -> bool {
        self.get(id).is_some_and(|recent| recent.since == segment.commit)
    }
}
