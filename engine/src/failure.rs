//! What stops a node that starts or ends.

/// Why a node did not start, or did not end in good order, for the operator to read.
pub type Failure = Box<dyn std::error::Error>;
