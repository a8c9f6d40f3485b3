//! What can be wrong with a stored object, as facts, and the words for each.
//!
//! A read, the scrub, a verification and the boot find it; [`damage`](super::damage) keeps and
//! reports it. Operators search for these words: docs/OPERATING.md lists them.

use std::io;

use ron_codec::outboard::GroupMismatch;
use thiserror::Error;

/// What damage means for those who want the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Harm {
    /// Only what lies beside its data is damaged: it may be readable.
    Beside,
    /// The object cannot be read as a whole.
    Data,
}

/// Something that was stored is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Wrong {
    #[error("its data")]
    Data,
    #[error("its length")]
    Length,
    #[error("its file is too short")]
    TooShort,
    #[error("its file is missing")]
    NoFile,
    /// No record can be as the index says.
    #[error("its index entry")]
    Entry,
    #[error("its record in the log")]
    Record,
    /// The data may be right, and cannot be checked without them.
    #[error("its header or outboard")]
    HeaderOrOutboard,
    #[error("the part of the log that had it is gone")]
    LogGone,
    #[error(transparent)]
    Group(GroupMismatch),
}

/// What lies beside the data of an object, and can be made again from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Beside {
    #[error("its header")]
    Header,
    #[error("its outboard")]
    Outboard,
}

/// The disk does not give an object.
#[derive(Debug, Error)]
pub(super) enum Withheld {
    #[error("it cannot be opened: {0}")]
    Open(io::Error),
    #[error("it cannot be read: {0}")]
    Read(io::Error),
}

/// What is wrong with a stored object.
#[derive(Debug, Error)]
pub(super) enum Flaw {
    #[error(transparent)]
    Wrong(Wrong),
    /// A read found it in one group.
    #[error("group {index}: {why}")]
    Group { index: u64, why: Wrong },
    #[error("{0}, beside data that are right")]
    Beside(Beside),
    #[error("{what}, beside data that are right, and it stays: {error}")]
    NotRepaired { what: Beside, error: io::Error },
    #[error(transparent)]
    Withheld(Withheld),
}

impl Flaw {
    pub(super) fn harm(&self) -> Harm {
        match self {
            Flaw::Beside(_) | Flaw::NotRepaired { .. } => Harm::Beside,
            Flaw::Wrong(_) | Flaw::Group { .. } | Flaw::Withheld(_) => Harm::Data,
        }
    }
}

/// Why an object cannot be verified now, which says nothing of the object.
#[derive(Debug, Error)]
pub(super) enum Unverified {
    #[error("busy")]
    Busy,
    #[error("its volume cannot be used")]
    Absent,
    #[error("the shard is stopping")]
    Stopping,
    #[error("it is moved all the time")]
    Moving,
    /// The process lacks what a file takes.
    #[error("it cannot be opened: {0}")]
    NotOpened(io::Error),
}
