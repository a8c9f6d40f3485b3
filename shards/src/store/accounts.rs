//! What all shards have promised of the free space of the volumes, and written.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Volumes a node may have.
const VOLUMES_MAX: usize = 64;

/// What all shards of a process have promised and written, by volume: each has a clone.
#[derive(Clone, Debug)]
pub struct Accounts(Arc<[Account; VOLUMES_MAX]>);

#[derive(Debug, Default)]
pub(super) struct Account {
    /// Bytes that somebody may write and has not written.
    promised: AtomicU64,
    /// Bytes written since the start.
    written: AtomicU64,
}

impl Default for Accounts {
    fn default() -> Self {
        Accounts(Arc::new(std::array::from_fn(|_| Account::default())))
    }
}

impl Accounts {
    /// Bytes promised on all volumes and not yet written.
    pub fn promised(&self) -> u64 {
        self.0.iter().map(Account::promised).sum()
    }

    pub(super) fn of(&self, volume: usize) -> &Account {
        &self.0[volume]
    }
}

impl Account {
    pub(super) fn promised(&self) -> u64 {
        self.promised.load(Ordering::Acquire)
    }

    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Promises `len` more bytes if `may` allows it with what is promised already.
    ///
    /// # Errors
    /// What `may` says.
    pub(super) fn promise<E>(&self, len: u64, may: impl Fn(u64) -> Result<(), E>) -> Result<(), E> {
        let mut promised = self.promised();
        loop {
            may(promised)?;
            let more = promised.saturating_add(len);
            let swapped =
                self.promised.compare_exchange(promised, more, Ordering::AcqRel, Ordering::Acquire);
            match swapped {
                Ok(_) => return Ok(()),
                Err(now) => promised = now,
            }
        }
    }

    /// Gives back what was promised and is not going to be written.
    pub(super) fn release(&self, len: u64) {
        let before = self.promised.fetch_sub(len, Ordering::AcqRel);
        assert!(before >= len, "{len} bytes are released of {before} promised");
    }

    /// Bytes are being written, `promised` of them as was promised.
    pub(super) fn wrote(&self, len: u64, promised: u64) {
        // First the one: what is counted twice for a moment is refused, and not promised twice.
        self.written.fetch_add(len, Ordering::AcqRel);
        self.release(promised);
    }
}
