//! Bundle manifests: many paths under one address.
//!
//! A manifest is a text in TOML with one spelling only, so that the same files have the same
//! manifest, and so the same address, always:
//!
//! ```toml
//! schema_version = 3
//! kind = "bundle"
//! hash_algo = "b3"
//! files = 2
//! bytes = 14
//! entries = [
//!   { path = "a.txt", address = "b3:af13…", bytes = 5, mime = "text/plain" },
//!   { path = "b.js", address = "b3:77c1…", bytes = 9, mime = "text/javascript", br = { … } },
//! ]
//! ```
//!
//! Each entry is one line, and the lines are sorted by the bytes of their paths. So an entry is
//! found by halving the text ([`search::Search`]): nobody reads, parses or keeps a whole manifest,
//! however many entries it has. Every line is written and read here, and what is not spelled as
//! it would be written is refused. Which entries a manifest ought to have is its maker's to know.

mod entry;
mod error;
mod head;
mod names;
pub mod search;
mod text;

pub use entry::{Content, Entry, Stored, check_path, is_media_type};
pub use error::{ManifestError, PathFault};
pub use head::{Head, Payment};
pub use names::{INDEX_NAME, MANIFEST_MAGIC, MANIFEST_NAME, PAYLOAD_NAME};

/// Behind the last entry.
const ENTRIES_END: &[u8] = b"]\n";

/// Adds what ends a manifest, behind its last entry.
pub fn write_end(out: &mut Vec<u8>) {
    out.extend_from_slice(ENTRIES_END);
}

/// Whether a line is the one behind the last entry.
#[must_use]
pub fn is_end(line: &[u8]) -> bool {
    line == ENTRIES_END
}

/// Follows the entries of a manifest from first to last, and holds them against its head.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    files: u64,
    bytes: u64,
    last: String,
}

impl Tally {
    /// The next entry.
    ///
    /// # Errors
    /// `Order` unless its path comes after the one before.
    pub fn add(&mut self, entry: &Entry) -> Result<(), ManifestError> {
        if self.files > 0 && entry.path <= self.last {
            let (before, path) = (self.last.clone(), entry.path.clone());
            return Err(ManifestError::Order { before, path });
        }
        self.last.clone_from(&entry.path);
        self.files += 1;
        self.bytes = self.bytes.saturating_add(entry.content.identity.bytes);
        Ok(())
    }

    #[must_use]
    pub const fn files(&self) -> u64 {
        self.files
    }

    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// There is no entry left.
    ///
    /// # Errors
    /// `Sum` when the head says something else.
    pub fn check(&self, head: &Head) -> Result<(), ManifestError> {
        for (what, expected, found) in
            [("files", head.files, self.files), ("bytes", head.bytes, self.bytes)]
        {
            if expected != found {
                return Err(ManifestError::Sum { what, expected, found });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
