//! Which build of the node runs: what `/version` and the metrics say.

use serde::Serialize;

/// Which build of the node this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BuildInfo {
    pub version: &'static str,
    pub commit: &'static str,
}
