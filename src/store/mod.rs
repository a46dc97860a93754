//! The store: instances, their histories and their definitions, on disk in sled.
//!
//! What [`Store::commit`] has returned from survives a crash and a power cut; of a commit that has
//! not returned, all survives or nothing. sled alone does not promise that on Linux, so this module
//! adds what is missing: a write-ahead log with an fdatasync per commit, a high-water mark that finds
//! a lost tail, a checksum on every record, values that are small enough to stay in sled's log.
//!
//! | file | what |
//! |---|---|
//! | `writer` | [`Store`]: open, commit |
//! | `batch` | [`Batch`]: what one commit holds |
//! | `journal` | what each commit changed |
//! | `memtable` | the same in memory, until the tables have it |
//! | `checkpoint` | what moves from the journal to the tables, a little with each commit |
//! | `table` | histories out of the journal, by status and start |
//! | `letters` | which dead letters are kept |
//! | `index` | where an instance is, found by its id |
//! | `sorted`, `sorted/merge` | sorted runs, which the index lies in |
//! | `shared` | disk and memtable, as the writer and its readers share them |
//! | `waiting` | [`Waiting`]: what a start has to know of each open instance |
//! | `cancel` | [`Cancel`]: ends reads that nobody waits for |
//! | `reader` | [`Reader`]: everything that is asked of the store |
//! | `tally` | [`Tally`]: how many instances each version still has |
//! | `query` | [`Query`]: lists of instances, page by page |
//! | `compact` | a copy in its place that takes less room |
//! | `backup`, `backup/place` | a copy elsewhere, made while commits go on |
//! | `recording` | what commits write meanwhile |
//! | `disk` | what it lies on: a folder, or a simulated disk |
//! | `folder` | the folder: its lock, the log, sled |
//! | `access` | who else may change its files |
//! | `wal` | the write-ahead log, which makes a commit durable |
//! | `backlog` | what the log has and sled not yet |
//! | `memory` | [`Memory`]: a disk that simulations break |
//! | `high_water` | the last commit that was acknowledged |
//! | `record` | values: format version, checksum, chunks |
//! | `keys` | keys: what lies where |
//! | `identity` | [`Identity`]: which store it is, and [`Sharing`]: how many may use it |
//! | `place` | whether its files are still where they were |
//! | `error` | [`StoreError`] |
//! | `fuzzing` | all that is read, from arbitrary bytes; for tests |
//!
//! A folder holds `lock` (the pid of the process that uses it), `high-water`, `log-0`, `log-1` and
//! `sled/`. A [`backup`](back_up) has the same. A copy of the files is one only while no process uses
//! them.

mod access;
mod backlog;
mod backup;
mod batch;
mod cancel;
mod checkpoint;
mod compact;
mod compression;
mod disk;
mod error;
mod folder;
#[cfg(any(test, feature = "faults"))]
pub(crate) mod fuzzing;
mod high_water;
mod identity;
mod index;
mod journal;
mod keys;
mod letters;
mod memory;
mod memtable;
mod place;
mod query;
mod reader;
mod record;
mod recording;
mod shared;
mod sorted;
mod table;
mod tally;
mod waiting;
mod wal;
mod writer;

pub use backup::{BackedUp, BackupError, Place as BackupPlace, back_up};
pub use batch::{Batch, DeadLetter, Removal};
pub use cancel::Cancel;
pub use compact::{Compacted, compact};
pub use error::StoreError;
pub use folder::Claim;
pub use identity::{Identity, Sharing};
pub use letters::MAX_DEAD_LETTERS;
pub use memory::{DiskFault, Memory};
pub use query::{Order, Page, Query};
pub use reader::Reader;
pub use tally::Tally;
pub use waiting::Waiting;
pub use writer::Store;
