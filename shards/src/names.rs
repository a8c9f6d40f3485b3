//! What paths are names of, as a shard knows it.
//!
//! A shard has the names of one version. Control replaces them whole, with an order between two
//! events, so a session that looks paths up while it handles an event sees one version of all.

use std::sync::Arc;

use ron_codec::{address::Address, limits::NAME_PATH_LEN_MAX};
use ron_io::names::{Found, NameTable};

const _: () = assert!(NAME_PATH_LEN_MAX == ron_io::limits::NAME_PATH_LEN_MAX);

/// All names of one version.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<NameTable>);

/// The longest name that a path begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved<'a> {
    /// Of the bundle or object that the name was given to.
    pub address: Address,
    /// What is behind the name, without the slashes between the two.
    pub rest: &'a str,
    /// Bytes of the path that are the name. A path that is longer, and has no `rest`, ends with a
    /// slash.
    pub prefix_len: usize,
}

impl Names {
    pub fn new(table: Arc<NameTable>) -> Names {
        Names(table)
    }

    /// The longest name that this path, which is decoded, begins with and that ends where a segment
    /// does. Slashes that are missing at the start or doubled do not matter.
    pub fn resolve<'a>(&self, path: &'a str) -> Option<Resolved<'a>> {
        let Found { digest, prefix_len, rest } = self.0.resolve(path)?;
        Some(Resolved { address: Address::from_bytes(digest), rest, prefix_len })
    }

    /// Whether the names could be read. If not, no path is known to be none.
    pub fn is_known(&self) -> bool {
        self.0.is_known()
    }

    /// Rises with every change.
    pub fn version(&self) -> u64 {
        self.0.version()
    }
}
