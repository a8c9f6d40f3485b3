//! The index of a stopped node, read as it lies on disk.

use std::path::Path;

use heed::{CommitOrAbort, EnvFlags, types::Bytes};
use ron_codec::address::Address;

use super::{Entry, IndexError, Lmdb, META_KEY, Meta, Position, open_whole};

/// An index that is only read. What the node did after its last checkpoint is not in it.
#[derive(Debug)]
pub struct View(Lmdb);

impl View {
    /// The index in `dir`, a partition's index folder; `None` if there is none. The caller holds
    /// the lock of the data directory.
    ///
    /// # Errors
    /// What LMDB answered.
    pub fn open(dir: &Path) -> Result<Option<View>, IndexError> {
        let there = dir.join("data.mdb").metadata().is_ok_and(|data| data.len() > 0);
        if !there {
            return Ok(None);
        }
        // The lock of the directory is enough, and the disk may be one that is only read.
        let env = open_whole(dir, EnvFlags::READ_ONLY | EnvFlags::NO_LOCK)?;
        let txn = env.read_txn()?;
        let entries = env
            .open_databases_and_commit(txn, |opener, txn| -> heed::Result<_> {
                opener.open_database::<Bytes, Bytes>(txn, None).map(CommitOrAbort::<_, ()>::Commit)
            })?
            .unwrap_commit();
        Ok(entries.map(|entries| View(Lmdb { env, entries })))
    }

    /// Up to where it knows the log; `None` if it is incomplete, or of another version, so that
    /// the next boot makes it again.
    ///
    /// # Errors
    /// What LMDB answered.
    pub fn position(&self) -> Result<Option<Position>, IndexError> {
        let txn = self.0.env.read_txn()?;
        let meta = self.0.entries.get(&txn, META_KEY)?.and_then(Meta::decode);
        Ok(meta.map(|meta| meta.position))
    }

    /// Tells every entry, by rising address, until `tell` fails.
    ///
    /// # Errors
    /// What LMDB answered, an entry that is none, or what `tell` said.
    pub fn each<E: From<IndexError>>(
        &self,
        mut tell: impl FnMut(Address, Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let lmdb = |error: heed::Error| E::from(IndexError::from(error));
        let txn = self.0.env.read_txn().map_err(lmdb)?;
        for pair in self.0.entries.iter(&txn).map_err(lmdb)? {
            let (key, value) = pair.map_err(lmdb)?;
            // Other keys are no object's.
            let Ok(key) = <[u8; 32]>::try_from(key) else { continue };
            tell(Address::from_bytes(key), Entry::decode(value)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::{Index, Location, Slot, open_job},
        *,
    };

    fn index(dir: &Path) -> Index {
        let slot = Slot::default();
        open_job(dir.to_path_buf(), None, Arc::clone(&slot))().unwrap();
        let opened = slot.lock().unwrap().take().unwrap();
        Index::new(opened)
    }

    #[test]
    fn the_last_checkpoint_is_seen_and_nothing_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(View::open(&dir.path().join("none")).unwrap().is_none());
        assert!(!dir.path().join("none").exists());
        let mut index = index(dir.path());
        let mut wanted: Vec<(Address, Entry)> = (0..100u64)
            .map(|n| {
                let location = match n % 3 {
                    0 => Location::File { segment: 0 },
                    _ => Location::Segment { segment: 7, offset: 128 * n as u32 },
                };
                (Address::of(&n.to_le_bytes()), Entry { location, size: n, sequence: n })
            })
            .collect();
        for (address, entry) in &wanted {
            index.insert(*address, *entry);
        }
        index.checkpoint(None)().unwrap();
        index.checkpointed(true);
        drop(index);
        let view = View::open(dir.path()).unwrap().unwrap();
        assert_eq!(view.position().unwrap(), None, "it is incomplete");
        drop(view);

        let mut index = self::index(dir.path());
        for (address, entry) in &wanted {
            index.insert(*address, *entry);
        }
        let reached = Position { segment: 7, offset: 40_960 };
        index.checkpoint(Some((reached, 99)))().unwrap();
        index.checkpointed(true);
        drop(index);
        std::fs::remove_file(dir.path().join("lock.mdb")).unwrap();
        let data = dir.path().join("data.mdb");
        let before = std::fs::read(&data).unwrap();
        let view = View::open(dir.path()).unwrap().unwrap();
        assert_eq!(view.position().unwrap(), Some(reached));
        let mut found = Vec::new();
        let told = view.each(|address, entry| {
            found.push((address, entry));
            Ok::<(), IndexError>(())
        });
        told.unwrap();
        wanted.sort_unstable_by_key(|(address, _)| *address);
        assert_eq!(found, wanted);
        drop(view);
        assert!(std::fs::read(&data).unwrap() == before);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no lock is made");
    }

    #[test]
    fn a_cut_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("data.mdb"), [0xa5; 4097]).unwrap();
        assert!(View::open(dir.path()).is_err());
    }
}
