//! What commits write while somebody copies the disk: a copy takes time, and has to be of one moment.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::disk::Writes;

/// Bytes that may wait for whoever copies. Sagas do not wait for a slow copy: the copy is given up.
const MOST: usize = 64 << 20;

/// Records writes while a [`Recorder`] is there.
#[derive(Debug, Default)]
pub(super) struct Recording(Mutex<Option<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    writes: Writes,
    bytes: usize,
    lost: Option<Lost>,
}

/// Why the record is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// More was written than may wait.
    TooMuch,
    /// A commit failed: nobody knows what is on the disk.
    Failed,
}

/// Has writes recorded until it is dropped.
#[derive(Debug)]
pub(super) struct Recorder<'a>(&'a Recording);

impl Recording {
    /// Begins to record; none where somebody records already. No commit may be under way.
    pub(super) fn begin(&self) -> Option<Recorder<'_>> {
        let mut recorded = self.lock();
        if recorded.is_some() {
            return None;
        }
        *recorded = Some(Recorded::default());
        Some(Recorder(self))
    }

    /// Whether anything is recorded. That begins between two commits alone.
    pub(super) fn is_on(&self) -> bool {
        self.lock().is_some()
    }

    /// Takes in what a commit has written, once it can be read.
    pub(super) fn note(&self, writes: Writes) {
        let mut recorded = self.lock();
        let Some(recorded) = recorded.as_mut().filter(|recorded| recorded.lost.is_none()) else { return };
        let bytes =
            |(key, value): (&Vec<u8>, &Option<Vec<u8>>)| key.len() + value.as_ref().map_or(0, Vec::len);
        recorded.bytes += writes.iter().map(bytes).sum::<usize>();
        if recorded.bytes > MOST {
            recorded.lose(Lost::TooMuch);
        } else {
            recorded.writes.extend(writes);
        }
    }

    /// Notes that a commit failed.
    pub(super) fn fail(&self) {
        if let Some(recorded) = self.lock().as_mut() {
            recorded.lose(Lost::Failed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Recorded>> {
        // Whoever panicked under the lock has left a record that is told of as lost, or a whole one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorded {
    fn lose(&mut self, lost: Lost) {
        *self = Self { lost: Some(lost), ..Self::default() };
    }
}

impl Recorder<'_> {
    /// What was written since it was last taken: of each key, the last.
    ///
    /// # Errors
    /// Something of it is lost.
    pub(super) fn take(&self) -> Result<Writes, Lost> {
        let mut recorded = self.0.lock();
        let recorded = recorded.as_mut().expect("it records until the recorder is dropped");
        match recorded.lost {
            Some(lost) => Err(lost),
            None => Ok(std::mem::take(recorded).writes),
        }
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(key: &str, length: usize) -> Writes {
        Writes::from([(key.as_bytes().to_vec(), Some(vec![0; length]))])
    }

    #[test]
    fn what_is_written_meanwhile_is_taken_once() {
        let recording = Recording::default();
        recording.note(writes("before", 1));
        let recorder = recording.begin().unwrap();
        assert!(recording.begin().is_none());
        recording.note(writes("a", 1));
        recording.note(writes("a", 2));
        assert_eq!(recorder.take(), Ok(writes("a", 2)));
        assert_eq!(recorder.take(), Ok(Writes::new()));
        recording.note(writes("b", 1));
        drop(recorder);
        assert_eq!(recording.begin().unwrap().take(), Ok(Writes::new()));
    }

    #[test]
    fn a_record_that_grows_too_long_or_holds_a_failed_commit_is_told_of_as_lost() {
        let recording = Recording::default();
        let recorder = recording.begin().unwrap();
        (0..=64).for_each(|_| recording.note(writes("a", 1 << 20)));
        assert_eq!(recorder.take(), Err(Lost::TooMuch));
        recording.note(writes("a", 1));
        assert_eq!(recorder.take(), Err(Lost::TooMuch));
        drop(recorder);
        let recorder = recording.begin().unwrap();
        recording.fail();
        recording.note(writes("a", 1));
        assert_eq!(recorder.take(), Err(Lost::Failed));
    }
}
