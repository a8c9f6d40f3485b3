//! Logs: one line an event, on standard error, and nothing anywhere else.
//!
//! Nobody waits for standard error: lines go through a bounded queue to a thread that writes them,
//! and so does what a panic says. What is said of the end of the process is written as well, if
//! that takes no longer than [`LOG_FLUSH_MAX`].

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::Display,
    io::{self, IsTerminal, Write},
    panic::{self, PanicHookInfo},
    sync::OnceLock,
    thread,
};

use tracing_subscriber::{
    Layer, Registry, filter::LevelFilter, fmt, layer::SubscriberExt, reload,
    util::SubscriberInitExt,
};

use crate::{limits::LOG_FLUSH_MAX, log_queue::Queue};

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
    #[error("the thread that writes the log cannot be started: {0}")]
    Thread(#[source] io::Error),
    #[error("the log level cannot be changed: {0}")]
    Change(String),
}

/// What changes the level of the log of this process.
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// The lines that wait for standard error.
static QUEUE: Queue = Queue::new();

/// A line that is being made, in memory.
struct Line;

impl Write for Line {
    /// Each event is written at once, as a whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        QUEUE.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends what is logged at `level` (one of [`LEVELS`]) or above to standard error.
///
/// # Errors
/// An unknown level, a second call in one process, or a thread that cannot be started.
pub fn init(level: &str, format: Format) -> Result<(), LogError> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let lines = fmt::layer().with_writer(|| Line);
    let lines = match format {
        Format::Json => {
            let lines = lines.json().flatten_event(true);
            lines.with_current_span(false).with_span_list(false).boxed()
        }
        Format::Text => lines.with_ansi(false).with_target(false).boxed(),
    };
    let log = tracing_subscriber::registry().with(filter).with(lines);
    log.try_init().map_err(|_| LogError::Again)?;
    LEVEL.set(handle).map_err(|_| LogError::Again)?;
    let lost = |count| tracing::warn!("{count} lines of the log were lost before this one");
    let writer = thread::Builder::new().name("log".to_owned());
    let writer = writer.spawn(move || QUEUE.write_to(io::stderr(), lost));
    writer.map_err(LogError::Thread)?;
    panic::set_hook(Box::new(|info| QUEUE.push(panicked(info).as_bytes())));
    Ok(())
}

/// What is said of a panic, as the standard library says it.
fn panicked(info: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let said = format!("\nthread '{}' {info}\n", thread.name().unwrap_or("<unnamed>"));
    let trace = Backtrace::capture();
    match trace.status() {
        BacktraceStatus::Captured => format!("{said}stack backtrace:\n{trace}\n"),
        _ => said,
    }
}

/// Lines that were lost because standard error did not take them.
pub fn dropped() -> u64 {
    QUEUE.dropped()
}

/// Writes what waits, as the last thing a process does, and before that what it ends with, if it
/// is to say something.
pub fn end(last: Option<&dyn Display>) {
    if let Some(last) = last {
        if LEVEL.get().is_none() {
            // There is no log yet.
            eprintln!("{last}");
            return;
        }
        QUEUE.push(format!("{last}\n").as_bytes());
    }
    QUEUE.flush(LOG_FLUSH_MAX);
}

/// Puts a line that is no event among those of the log, whatever its level.
pub fn say(line: &str) {
    QUEUE.push(format!("{line}\n").as_bytes());
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
