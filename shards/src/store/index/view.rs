//! The index of a stopped node, read as it lies on disk.

use std::path::Path;

use ron_codec::address::Address;
use thiserror::Error;

use super::{
    Entry, Position,
    open::OLD_NAME,
    snapshot::{self, Loaded},
    table,
};

/// The newest snapshot that is whole. What the node did after its last checkpoint is not in it.
#[derive(Debug)]
pub struct View {
    loaded: Loaded,
    damaged: Vec<String>,
}

/// There are snapshots and none is whole.
#[derive(Debug, Error)]
#[error("{}", damaged.join("; "))]
pub struct ViewError {
    damaged: Vec<String>,
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
            damaged.push(error.to_string());
            Vec::new()
        });
        for generation in there.iter().rev() {
            match snapshot::load(dir, *generation) {
                Ok(loaded) => return Ok(Some(View { loaded, damaged })),
                Err(why) => damaged.push(format!("snapshot {generation:08}: {why}")),
            }
        }
        if damaged.is_empty() { Ok(None) } else { Err(ViewError { damaged }) }
    }

    /// Newer snapshots that are not whole, and why.
    pub fn damaged(&self) -> &[String] {
        &self.damaged
    }

    /// Why it ends before the end of its file, if it does: the last checkpoint was torn by a
    /// crash, or something is damaged.
    pub fn torn(&self) -> Option<&str> {
        self.loaded.torn.as_deref()
    }

    /// Up to where it knows the log.
    pub fn position(&self) -> Position {
        self.loaded.commit.position
    }

    /// Every entry, by rising address.
    pub fn entries(&self) -> impl Iterator<Item = (Address, Entry)> {
        let slots = self.loaded.table.iter();
        slots.filter_map(|slot| Some((table::address(slot), table::decode(slot)?)))
    }
}
