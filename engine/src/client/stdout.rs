//! Short results, a line each, on standard output. Objects go there from `download`.

use std::io::{self, Write};

use serde::Serialize;

use super::error::ClientError;

/// Prints a line, and has it written at once.
pub(super) fn print(out: &mut dyn Write, line: std::fmt::Arguments<'_>) -> Result<(), ClientError> {
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(stdout_failed)
}

/// Prints an object of JSON on a line of its own.
pub(super) fn print_json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), ClientError> {
    let line = serde_json::to_string(value).map_err(|error| stdout_failed(error.into()))?;
    print(out, format_args!("{line}"))
}

/// Standard output cannot be written.
pub(super) fn stdout_failed(source: io::Error) -> ClientError {
    ClientError::Standard { name: "stdout", source }
}
