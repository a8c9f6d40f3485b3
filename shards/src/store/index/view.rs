//! The index of a stopped node, read as it lies on disk.

use std::{io, path::Path};

use ron_codec::address::Address;
use thiserror::Error;

use super::{
    Entry, Position,
    open::OLD_NAME,
    snapshot::{self, Loaded, Unusable},
    table,
};

/// The newest snapshot that is whole. What the node did after its last checkpoint is not in it.
#[derive(Debug)]
pub struct View {
    loaded: Loaded,
    damaged: Vec<Flaw>,
}

/// What of the index cannot be used.
#[derive(Debug, Error)]
pub enum Flaw {
    #[error("its folder cannot be listed: {0}")]
    Unlisted(io::Error),
    #[error("snapshot {generation:08}: {why}")]
    Snapshot { generation: u32, why: Unusable },
}

/// There are snapshots and none is whole.
#[derive(Debug, Error)]
#[error("{}", joined(damaged))]
pub struct ViewError {
    damaged: Vec<Flaw>,
}

fn joined(damaged: &[Flaw]) -> String {
    damaged.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl View {
    /// The index in `dir`, a partition's index folder; `None` if there is none. The caller holds
    /// the lock of the data directory.
    ///
    /// # Errors
    /// Why no snapshot can be used.
    pub fn open(dir: &Path) -> Result<Option<View>, ViewError> {
        // An older release ran on it, which knows no snapshots: the next start believes none.
        if dir.join(OLD_NAME).exists() {
            return Ok(None);
        }
        let mut damaged = Vec::new();
        let there = snapshot::generations(dir).unwrap_or_else(|error| {
            damaged.push(Flaw::Unlisted(error));
            Vec::new()
        });
        for generation in there.iter().rev() {
            match snapshot::load(dir, *generation) {
                Ok(loaded) => return Ok(Some(View { loaded, damaged })),
                Err(why) => damaged.push(Flaw::Snapshot { generation: *generation, why }),
            }
        }
        if damaged.is_empty() { Ok(None) } else { Err(ViewError { damaged }) }
    }

    /// Newer snapshots that are not whole, and why.
    pub fn damaged(&self) -> &[Flaw] {
        &self.damaged
    }

    /// Why it ends before the end of its file, if it does: the last checkpoint was torn by a
    /// crash, or something is damaged.
    pub fn torn(&self) -> Option<&Unusable> {
        self.loaded.torn.as_ref()
    }

    /// Up to where it knows the log.
    pub fn position(&self) -> Position {
        self.loaded.commit.position
    }

    /// The highest sequence there is before that.
    pub fn sequence(&self) -> u64 {
        self.loaded.commit.sequence
    }

    /// Every entry, by rising address.
    pub fn entries(&self) -> impl Iterator<Item = (Address, Entry)> {
        let slots = self.loaded.table.iter();
        slots.filter_map(|slot| Some((table::address(slot), table::decode(slot)?)))
    }
}
