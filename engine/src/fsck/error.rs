//! Why a check does not end well, or cannot be made.

use std::{io, path::PathBuf};

use crate::format::DataDirError;

/// Why not all is well.
#[derive(Debug, thiserror::Error)]
pub enum FsckError {
    #[error("{damage} damaged")]
    Damaged { damage: u64 },
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("{file:?} has records of version {version}, from a newer ron")]
    TooNew { file: PathBuf, version: u16 },
    #[error("cannot remove {path:?}: {source}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("stdout: {0}")]
    Stdout(#[from] io::Error),
}
