//! What can be wrong with a manifest.

use thiserror::Error;

use crate::limits::MANIFEST_PATH_LEN_MAX;

/// Why bytes are no manifest, or a path cannot stand in one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// The text does not begin with `MANIFEST_MAGIC`.
    #[error("not a bundle manifest")]
    NotABundle,
    #[error("the head of the manifest is not spelled as a head is, or is longer than {max} bytes")]
    Head { max: usize },
    #[error("a line of the manifest is not spelled as an entry is, or is longer than {max} bytes")]
    Line { max: usize },
    #[error("path {path:?} of the manifest does not come after {before:?}")]
    Order { before: String, path: String },
    #[error("path {path:?}: {why}")]
    Path { path: String, why: PathFault },
    /// A field has a value that no manifest has.
    #[error("field {field} of the manifest: {why}")]
    Field { field: &'static str, why: &'static str },
    /// The head says another number of files or bytes than the entries make.
    #[error("the head says {expected} {what}, the entries make {found}")]
    Sum { what: &'static str, expected: u64, found: u64 },
}

/// Why a path cannot stand in a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PathFault {
    #[error("is empty")]
    Empty,
    #[error("is longer than {MANIFEST_PATH_LEN_MAX} bytes")]
    TooLong,
    #[error("begins or ends with a slash, or has two in a row")]
    Slash,
    #[error("has a segment that is . or ..")]
    Dots,
    #[error("has a control character")]
    Control,
    #[error("is a name that every bundle has for itself")]
    Reserved,
}
