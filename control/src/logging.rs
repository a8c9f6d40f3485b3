//! Logs: one line of JSON an event, on standard error, and nothing anywhere else.

use std::io;

use tracing_subscriber::filter::LevelFilter;

/// The levels a log may have, from none to all.
pub const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Why no log was set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("no log level {level:?}: off, error, warn, info, debug and trace are allowed")]
    Level { level: String },
    #[error("a log is set up already")]
    Again,
}

/// Sends what is logged at `level` (one of [`LEVELS`]) or above to standard error.
///
/// # Errors
/// An unknown level, or a second call in one process.
pub fn init(level: &str) -> Result<(), LogError> {
    let filter = filter(level)?;
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_max_level(filter)
        .with_writer(io::stderr)
        .try_init()
        .map_err(|_| LogError::Again)
}

fn filter(level: &str) -> Result<LevelFilter, LogError> {
    let unknown = || LogError::Level { level: level.to_owned() };
    // The parser of the library also takes numbers and upper case; one spelling is enough.
    let known = LEVELS.contains(&level).then_some(level).ok_or_else(unknown)?;
    known.parse().map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_named_levels_are_taken() {
        let filters: Vec<_> = LEVELS.iter().map(|level| filter(level).unwrap()).collect();
        assert!(filters.windows(2).all(|pair| pair[0] < pair[1]), "each lets more through");
        for level in ["", "Info", "3", "verbose", "info,ron=debug"] {
            assert!(matches!(filter(level), Err(LogError::Level { .. })), "{level:?}");
        }
    }
}
