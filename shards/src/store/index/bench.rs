//! The index as `ron-bench` measures it: what the store calls of it, and the bare LMDB below.
//!
//! Compiled with the feature `bench` alone, which no product carries. It adds nothing that the
//! store could not do; it only lets a benchmark call it without a store around.

use std::{path::Path, sync::Arc};

use ron_codec::address::Address;
use ron_io::ports::Job;

use super::{Entry, Index, IndexError, Slot, open_job};

/// The index of a partition without its partition.
#[derive(Debug)]
pub struct IndexBench(Index);

impl IndexBench {
    /// The index in `dir`, made if there is none.
    ///
    /// # Errors
    /// What the system or LMDB answered, in words.
    pub fn open(dir: &Path) -> Result<IndexBench, String> {
        let slot = Slot::default();
        open_job(dir.to_path_buf(), None, Arc::clone(&slot))()?;
        let opened = slot.lock().map_err(|error| error.to_string())?.take();
        opened.map(|opened| IndexBench(Index::new(opened))).ok_or_else(|| "not opened".to_string())
    }

    /// What is known about an object: first what changed, then LMDB.
    ///
    /// # Errors
    /// What LMDB answered.
    pub fn get(&self, address: &Address) -> Result<Option<Entry>, IndexError> {
        self.0.get(address)
    }

    /// The object is there now.
    pub fn insert(&mut self, address: Address, entry: Entry) {
        self.0.insert(address, entry);
    }

    /// The job that carries all changes over to LMDB. `carried` is to be called after it.
    ///
    /// # Panics
    /// If another one was not carried.
    pub fn checkpoint(&mut self) -> Job {
        self.0.checkpoint(None)
    }

    /// The job is done: its changes are in LMDB.
    pub fn carried(&mut self) {
        self.0.checkpointed(true);
    }

    /// Drops what changed since the last checkpoint. The counts are wrong from here on.
    pub fn forget_changes(&mut self) {
        self.0.active.clear();
    }

    /// How many of these LMDB itself finds, within one transaction and without reading entries.
    ///
    /// # Errors
    /// What LMDB answered.
    pub fn bare(&self, addresses: &[Address]) -> Result<usize, IndexError> {
        let txn = self.0.store.env.read_txn()?;
        let mut found = 0;
        for address in addresses {
            found += usize::from(self.0.store.entries.get(&txn, address.as_bytes())?.is_some());
        }
        Ok(found)
    }
}
