//! Why a partition cannot be opened, and whether its node goes on without it.

use std::{fmt, io};

use ron_io::ports::JobError;
use thiserror::Error;

/// Why a partition cannot be opened.
#[derive(Debug, Error)]
#[error("partition {partition}: {why}")]
pub struct BootError {
    pub(super) partition: u16,
    pub(super) why: Why,
}

#[derive(Debug, Error)]
pub(super) enum Why {
    #[error("{doing}: {error}")]
    Disk { doing: Doing, error: io::Error },
    /// The disk does not give part of the log, or which object files there are. It may do so
    /// another time.
    #[error("{doing}: {error}")]
    Withheld { doing: Doing, error: io::Error },
    #[error("{doing}: {0}", doing = Doing::OpenIndex)]
    IndexUnopened(JobError),
    #[error("{doing}: it was not opened", doing = Doing::OpenIndex)]
    NoIndex,
    #[error(
        "{doing}: it is of partition {owner}; are two folders swapped?",
        doing = Doing::OpenIndex
    )]
    OtherPartition { owner: u16 },
    /// What is written behind it would not be found again.
    #[error(
        "it names segment {segment} and sequence {sequence}, which no log reaches: it is damaged"
    )]
    BeyondAnyLog { segment: u32, sequence: u64 },
    #[error("its log has records of version {version}, from a newer ron")]
    Newer { version: u16 },
}

/// What a boot was doing when the disk answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    MakeFolders,
    ListFolders,
    OpenIndex,
    ReadLog,
    SyncLog,
}

impl BootError {
    /// Whether a node of so many volumes can go on without the partition. It must not when a newer
    /// program wrote the log, and with one volume only when nothing but a part of the log is lost,
    /// or all of it is of another partition.
    pub(in crate::store) fn may_be_absent(&self, volumes: usize) -> bool {
        match self.why {
            Why::Newer { .. } => false,
            Why::Withheld { .. } | Why::OtherPartition { .. } | Why::BeyondAnyLog { .. } => true,
            Why::Disk { .. } | Why::IndexUnopened(_) | Why::NoIndex => volumes > 1,
        }
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Doing::MakeFolders => "making its folders",
            Doing::ListFolders => "listing its folders",
            Doing::OpenIndex => "opening its index",
            Doing::ReadLog => "reading its log",
            Doing::SyncLog => "syncing its log",
        })
    }
}
