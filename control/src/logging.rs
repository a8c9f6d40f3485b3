//! Logs: one line an event, on standard error, and nothing anywhere else.

use std::{
    io::{self, IsTerminal},
    sync::OnceLock,
};

use tracing_subscriber::{
    Layer, Registry, filter::LevelFilter, fmt, layer::SubscriberExt, reload,
    util::SubscriberInitExt,
};

/// The levels a log may have, from none to all.
pub const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An object of JSON.
    Json,
    /// Text for people.
    Text,
}

impl Format {
    /// Text when a person reads standard error on a terminal, else JSON.
    pub fn auto() -> Format {
        if io::stderr().is_terminal() { Format::Text } else { Format::Json }
    }
}

/// Why no log was set up, or not changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("no log level {level:?}: off, error, warn, info, debug and trace are allowed")]
    Level { level: String },
    #[error("a log is set up already")]
    Again,
    #[error("the log level cannot be changed: {0}")]
    Change(String),
}

/// What changes the level of the log of this process.
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Sends what is logged at `level` (one of [`LEVELS`]) or above to standard error.
///
/// # Errors
/// An unknown level, or a second call in one process.
pub fn init(level: &str, format: Format) -> Result<(), LogError> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match format {
        Format::Json => {
            let lines = lines.json().flatten_event(true);
            lines.with_current_span(false).with_span_list(false).boxed()
        }
        Format::Text => lines.with_ansi(false).with_target(false).boxed(),
    };
    let log = tracing_subscriber::registry().with(filter).with(lines);
    log.try_init().map_err(|_| LogError::Again)?;
    LEVEL.set(handle).map_err(|_| LogError::Again)
}

/// Logs at `level` from now on. Without a log there is nothing to change.
///
/// # Errors
/// An unknown level.
pub fn set_level(level: &str) -> Result<(), LogError> {
    let filter = filter(level)?;
    let Some(handle) = LEVEL.get() else { return Ok(()) };
    handle.reload(filter).map_err(|error| LogError::Change(error.to_string()))
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
            assert!(set_level(level).is_err(), "{level:?}");
        }
    }
}
