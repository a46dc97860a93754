//! The high-water mark: the number of the last commit that was acknowledged, outside of sled.
//!
//! A write that the disk lost in the middle of sled's log makes sled drop everything behind it
//! without a word. So the number of every commit is noted here once the commit is durable, and a
//! store that has fewer is refused.
//!
//! The file has two slots, written in turn, so that one is whole whatever happens to the other. It
//! is synced once a second and at the end: after a crash of the process it is exact, after a power
//! cut it may be a second behind, and it is never ahead.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::access;
use super::error::StoreError;

/// Bytes from one slot to the next: a disk writes a sector whole or not at all.
const SECTOR: u64 = 512;
/// Bytes used in a slot: number, checksum.
const SLOT: usize = 12;
/// Time between two syncs.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// The open file.
#[derive(Debug)]
pub(super) struct HighWater {
    file: File,
    path: PathBuf,
    mark: u64,
    synced_at: Instant,
}

impl HighWater {
    /// Opens the file in `folder`; where it is missing, the mark is 0.
    ///
    /// # Errors
    /// [`StoreError::HighWater`] if neither slot is whole.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join("high-water");
        let file = access::options().open(&path).map_err(StoreError::io("open", &path))?;
        let mut high_water = Self { file, path, mark: 0, synced_at: Instant::now() };
        if high_water.file.metadata().map_err(StoreError::io("read", &high_water.path))?.len() > 0 {
            let slots = [high_water.slot(0)?, high_water.slot(1)?];
            let mark = slots.into_iter().flatten().max();
            high_water.mark = mark.ok_or_else(|| StoreError::HighWater { path: high_water.path.clone() })?;
        }
        Ok(high_water)
    }

    /// The mark.
    pub(super) fn mark(&self) -> u64 {
        self.mark
    }

    /// Moves the mark to `commit`, which must be durable. The new mark survives a crash of the
    /// process; a power cut, once the file has been synced.
    pub(super) fn advance(&mut self, commit: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(commit), commit % 2 * SECTOR)?;
        self.mark = commit;
        if self.synced_at.elapsed() >= SYNC_EVERY { self.sync() } else { Ok(()) }
    }

    /// Makes the mark survive a power cut.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.synced_at = Instant::now();
        self.file.sync_data()
    }

    /// Reads a slot; `None` if it is not whole.
    fn slot(&self, number: u64) -> Result<Option<u64>, StoreError> {
        let mut bytes = [0; SLOT];
        match self.file.read_exact_at(&mut bytes, number * SECTOR) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(StoreError::io("read", &self.path)(error)),
        }
        let [number @ .., _, _, _, _] = bytes;
        let mark = u64::from_be_bytes(number);
        Ok((encode(mark) == bytes).then_some(mark))
    }
}

impl Drop for HighWater {
    fn drop(&mut self) {
        // Without it the mark is at worst a second behind.
        let _ = self.sync();
    }
}

/// A number and its checksum. All zeros are not whole: the checksum of zeros is not zero.
fn encode(mark: u64) -> [u8; SLOT] {
    let number = mark.to_be_bytes();
    let mut slot = [0; SLOT];
    slot[..8].copy_from_slice(&number);
    slot[8..].copy_from_slice(&crc32fast::hash(&number).to_be_bytes());
    slot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_survives_a_torn_slot() {
        let folder = tempfile::tempdir().unwrap();
        let mut high_water = HighWater::open(folder.path()).unwrap();
        assert_eq!(high_water.mark(), 0);
        (1..=7).for_each(|commit| high_water.advance(commit).unwrap());
        drop(high_water);
        let high_water = HighWater::open(folder.path()).unwrap();
        assert_eq!(high_water.mark(), 7);
        high_water.file.write_all_at(b"torn", SECTOR).unwrap();
        drop(high_water);
        assert_eq!(HighWater::open(folder.path()).unwrap().mark(), 6);
    }

    #[test]
    fn a_file_without_a_whole_slot_is_refused() {
        for garbage in [vec![0; 1024], b"12".to_vec()] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("high-water"), garbage).unwrap();
            assert!(matches!(HighWater::open(folder.path()), Err(StoreError::HighWater { .. })));
        }
    }
}
