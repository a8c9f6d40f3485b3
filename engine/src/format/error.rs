//! Why data directories cannot be used: which one, and what it is instead.

use std::{io, path::PathBuf};

use super::place::Place;
use crate::random::NoRandom;

/// Why data directories cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("cannot {what} {path:?}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the data directory {path:?} is in use by another process{}", holder(*.pid))]
    Locked { path: PathBuf, pid: Option<u32> },
    #[error("the data directory {path:?} has format {found}; this version knows format {known}")]
    UnknownFormat {
        path: PathBuf,
        found: u64,
        known: u64,
        /// Whether the file has a checksum that fits it, so that it is no damage.
        sealed: bool,
    },
    #[error("{path:?} is damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
    #[error("{path:?} says {found} partitions; 1 to {max} are allowed")]
    Partitions { path: PathBuf, found: u64, max: u32 },
    #[error("{path:?} has no format.json but holds {entry:?}: it is no data directory")]
    Foreign { path: PathBuf, entry: String },
    #[error("{path:?} is not there")]
    Missing { path: PathBuf },
    #[error("{path:?} holds nothing: it is no data directory")]
    Nothing { path: PathBuf },
    #[error("{second:?} is the same volume as {first:?}")]
    Twice { first: PathBuf, second: PathBuf },
    #[error(
        "{path:?} is {}, and {expected} belongs there; data directories keep the number and the \
         order they were made with", said_to_be(*.found)
    )]
    Misplaced { path: PathBuf, found: Option<Place>, expected: String },
    #[error(
        "{path:?} is empty, and {expected} belongs there: if its disk is not mounted, mount it; to \
         start without what it held, remove the empty directory"
    )]
    Emptied { path: PathBuf, expected: Place },
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

fn said_to_be(place: Option<Place>) -> String {
    place.map_or_else(|| "the only directory of another node".to_owned(), |place| place.to_string())
}
