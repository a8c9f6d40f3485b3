//! Archives of objects: plain tar streams that prove themselves. `docs/ARCHIVE.md` is the format.
//!
//! ```text
//!   ron-archive │ [pax] b3:<hex> │ [pax] b3:<hex> │ … │ ron-archive-end │ zeros
//!   head          objects, by rising address            count and list
//! ```
//!
//! The name of an object is the address of its bytes, so each can be checked alone; the end has the
//! count and a hash of all addresses and sizes, so that an archive that was cut does not pass for a
//! whole one.
//! Nothing here talks to a node, and nothing holds an object in memory.

use std::io;

use ron_codec::address::Address;
use thiserror::Error;

mod block;
mod pax;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{Found, Reader};
pub use write::{Mark, Writer};

/// Bytes of a tar block.
const BLOCK_LEN: usize = 512;

/// The names of the first and of the last member, and the version of the format.
const HEAD_NAME: &str = "ron-archive";
const END_NAME: &str = "ron-archive-end";
const VERSION: u32 = 1;

/// Longest text of head, end and pax header that is read.
const TEXT_LEN_MAX: u64 = 16 * 1024;

/// Longest media type and file name of an object that are carried.
const FIELD_LEN_MAX: usize = 2048;

const _: () = assert!(2 * FIELD_LEN_MAX < TEXT_LEN_MAX as usize);

/// What an archive says of an object besides its bytes: what a node answers with it, where that is
/// not the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// `Content-Type`.
    pub media_type: Option<String>,
    /// `Content-Disposition`.
    pub disposition: Option<String>,
}

impl Fields {
    /// Fields as they can be carried: what is empty or too long is left out.
    #[must_use]
    pub fn new(media_type: Option<&str>, disposition: Option<&str>) -> Fields {
        let fits = |text: &&str| (1..=FIELD_LEN_MAX).contains(&text.len());
        let kept = |text: Option<&str>| text.filter(fits).map(str::to_owned);
        Fields { media_type: kept(media_type), disposition: kept(disposition) }
    }

    /// Whether all is the default.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self == &Fields::default()
    }
}

/// An object of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub address: Address,
    pub size: u64,
    pub fields: Fields,
}

/// What an archive holds: how much, and a hash of all addresses and sizes in their order.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub objects: u64,
    pub bytes: u64,
    list: blake3::Hasher,
}

impl Tally {
    /// Another object.
    fn add(&mut self, address: &Address, size: u64) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(size);
        self.list.update(address.as_bytes());
        self.list.update(&size.to_le_bytes());
    }

    /// The text of the last member.
    fn text(&self) -> String {
        let list = Address::from_bytes(*self.list.finalize().as_bytes());
        let Tally { objects, bytes, .. } = self;
        format!("objects {objects}\nbytes {bytes}\nlist {list}\n")
    }
}

/// The text of the first member.
fn head_text(prefix: &str) -> String {
    format!("ron-archive {VERSION}\nprefix b3:{prefix}\n")
}

/// The prefix that a first member names, without `b3:`.
fn parse_head(text: &str) -> Result<String, ArchiveError> {
    let mut lines = text.lines();
    let version = lines.next().and_then(|line| line.strip_prefix("ron-archive "));
    let version: u32 = version.and_then(|v| v.parse().ok()).ok_or(ArchiveError::NoArchive)?;
    if version != VERSION {
        return Err(ArchiveError::Version { version });
    }
    let prefix = lines.next().and_then(|line| line.strip_prefix("prefix b3:"));
    prefix.map(str::to_owned).ok_or(ArchiveError::NoArchive)
}

/// Why a stream cannot be read on as an archive.
#[derive(Debug, Error)]
pub enum ArchiveError {
    #[error("this is no archive of objects: it does not begin with {HEAD_NAME}")]
    NoArchive,
    #[error("the archive is of version {version}; this program reads version {VERSION}")]
    Version { version: u32 },
    #[error("the archive is cut off at byte {at}, after {objects} objects")]
    Truncated { at: u64, objects: u64 },
    #[error("the archive cannot be read: {0}")]
    Read(#[from] io::Error),
}
