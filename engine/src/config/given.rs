//! What was given for each key, as text and with its origin, before it means anything.

use std::{collections::BTreeMap, fmt};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Flag,
    Variable,
    File,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Flag => "flag",
            Source::Variable => "environment",
            Source::File => "file",
        })
    }
}

/// The values of one key, as text, and where they came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) texts: Vec<String>,
    pub(super) source: Source,
}

/// The strongest value given for each key, by name.
pub(super) type Layers = BTreeMap<&'static str, Given>;
