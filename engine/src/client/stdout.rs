//! Short results, a line each, on standard output. Objects go there from `download`.

use std::io::{self, Write};

use super::error::ClientError;

/// Prints a line, and has it written at once.
pub(super) fn print(out: &mut dyn Write, line: std::fmt::Arguments<'_>) -> Result<(), ClientError> {
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(stdout_failed)
}

/// Standard output cannot be written.
pub(super) fn stdout_failed(source: io::Error) -> ClientError {
    ClientError::Standard { name: "stdout", source }
}
