//! The identity of a store: which one it is, and the key by which it knows the answers to its own commands.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::disk::{Disk, Writes};
use super::error::StoreError;
use super::{keys, record};
use crate::saga::id::StoreId;

/// Made once, with the store, and never changed. It is a part of every backup.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Names the store. It is no secret.
    pub id: StoreId,
    /// Whoever knows it can answer in a participant's place: it never leaves the store.
    key: [Uuid; 2],
}

/// How many processes may use a store at a time. Whoever guards a prefix of the broker goes by it, and by
/// nothing else: an exclusive store has one process at the prefix, a shared one as many as come with its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// One: it lies in a folder, which that process has locked.
    Exclusive,
    /// Any number: it keeps them apart itself, as a database does.
    Shared,
}

impl Identity {
    /// A new one, which no other store has.
    fn new() -> Self {
        Self { id: StoreId::new(), key: [Uuid::new_v4(), Uuid::new_v4()] }
    }

    /// That of every simulated disk, so that a simulation is the same each time.
    pub(super) fn simulated() -> Self {
        Self { id: StoreId::simulated(), key: [Uuid::from_u128(2), Uuid::from_u128(3)] }
    }

    /// The key of the answers.
    pub fn key(&self) -> [u8; 32] {
        let [first, second] = &self.key;
        let mut key = [0; 32];
        key[..16].copy_from_slice(first.as_bytes());
        key[16..].copy_from_slice(second.as_bytes());
        key
    }

    /// Reads that of a store whose last commit is `commit`. A store that has none yet is given one, which is
    /// added to `writes`: it is the store's own once these are durable.
    ///
    /// # Errors
    /// [`StoreError::Older`] if the store has commits and no identity; [`StoreError::Read`] and
    /// [`StoreError::Corrupt`] if it cannot be read.
    pub(super) fn of(disk: &Disk, commit: u64, writes: &mut Writes) -> Result<Self, StoreError> {
        if let Some(identity) = record::read_json(disk, keys::IDENTITY)? {
            return Ok(identity);
        }
        if commit > 0 {
            return Err(StoreError::Older { path: disk.path().to_owned() });
        }
        let identity = match disk {
            Disk::Folder(_) => Self::new(),
            Disk::Memory(_) => Self::simulated(),
        };
        record::insert(writes, keys::IDENTITY, &record::json(&identity));
        Ok(identity)
    }
}

/// The name only: the key is a secret.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreConfig;
    use crate::store::{Batch, DeadLetter, Store};

    #[test]
    fn a_store_keeps_its_identity_and_no_two_stores_have_the_same() {
        let root = tempfile::tempdir().unwrap();
        let config = |name: &str| StoreConfig { path: root.path().join(name), cache_mib: 16 };
        let mut store = Store::open(&config("one")).unwrap();
        let first = store.reader().identity().clone();
        let mut batch = Batch::default();
        batch.dead_letter(DeadLetter::default());
        store.commit(batch).unwrap();
        drop(store);
        let again = Store::open(&config("one")).unwrap().reader().identity().clone();
        let other = Store::open(&config("two")).unwrap().reader().identity().clone();
        assert_eq!(first, again);
        assert_ne!((first.id, first.key), (other.id, other.key));
        assert!(!format!("{first:?}").contains(&first.key[0].to_string()));
    }

    #[test]
    fn a_store_of_a_version_without_identities_is_refused() {
        let memory = crate::store::Memory::default();
        let mut store = Store::simulated(&memory).unwrap();
        let mut batch = Batch::default();
        batch.dead_letter(DeadLetter::default());
        store.commit(batch).unwrap();
        drop(store);
        memory.persist(&Writes::from([(keys::IDENTITY.to_vec(), None)]), 1).unwrap();
        let refused = Store::simulated(&memory).unwrap_err();
        assert!(refused.to_string().contains("an earlier version of sagamq"), "{refused}");
    }
}
