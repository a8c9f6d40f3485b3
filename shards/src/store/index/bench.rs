//! The index as `ron-bench` measures it: what the store calls of it.
//!
//! Compiled with the feature `bench` alone, which no product carries. It adds nothing that the
//! store could not do; it only lets a benchmark call it without a store around.

use std::{path::Path, sync::Arc};

use ron_codec::address::Address;
use ron_io::ports::Job;

use super::{Entry, Index, Of, OpenSlot, Position, open_job};

/// The index of a partition without its partition.
#[derive(Debug)]
pub struct IndexBench(Index);

impl IndexBench {
    /// The index in `dir`, empty if there is none.
    ///
    /// # Errors
    /// What the system answered, in words.
    pub fn open(dir: &Path) -> Result<IndexBench, String> {
        let slot = OpenSlot::default();
        let of = Of { partition: 0, partitions: 1, segments: Vec::new() };
        open_job(dir.to_path_buf(), of, Arc::clone(&slot))().map_err(|error| error.to_string())?;
        let opened = slot.lock().map_err(|error| error.to_string())?.take();
        opened.map(|opened| IndexBench(Index::new(opened))).ok_or_else(|| "not opened".to_string())
    }

    /// What is known about an object.
    pub fn get(&self, address: &Address) -> Option<Entry> {
        self.0.get(address)
    }

    /// The object is there now.
    pub fn insert(&mut self, address: Address, entry: Entry) {
        self.0.insert(address, entry);
    }

    /// The object is there no more.
    pub fn remove(&mut self, address: Address) {
        self.0.remove(address);
    }

    /// Drops what changed since the last checkpoint, which the next then lacks.
    pub fn forget_changes(&mut self) {
        self.0.changes.clear();
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// Begins a checkpoint and returns its first job.
    ///
    /// # Panics
    /// If one runs.
    pub fn checkpoint(&mut self) -> Job {
        self.0.checkpoint((Position::default(), 0))
    }

    /// A job of the checkpoint is done: the next, if there is one.
    ///
    /// # Panics
    /// If none runs.
    pub fn written(&mut self) -> Option<Job> {
        self.0.written(true)
    }
}
