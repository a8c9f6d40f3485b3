//! Why there are no settings: what is wrong, where it came from, and what would be allowed.

use std::{io, net::SocketAddr};

use super::given::Source;

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line is not understood, or asks for the help or the version.
    #[error("{0}")]
    Usage(clap::Error),
    #[error("the file of settings {file:?} cannot be read: {source}")]
    Read { file: String, source: io::Error },
    #[error("the file of settings {file:?} is longer than {max} bytes")]
    TooLong { file: String, max: u64 },
    #[error("the file of settings {file:?} is no TOML: {source}")]
    Syntax { file: String, source: Box<toml::de::Error> },
    #[error("there is no setting {key:?} (file {file:?})")]
    UnknownKey { key: String, file: String },
    #[error("{key}: a value of type {found} (file); allowed: {allowed}")]
    Type { key: &'static str, found: &'static str, allowed: &'static str },
    #[error("the variable {variable} is no UTF-8")]
    NotText { variable: String },
    #[error("{key} = {value:?} ({origin}); allowed: {allowed}")]
    Value { key: &'static str, value: String, origin: Source, allowed: String },
    #[error("{first} and {second} are both {address}")]
    SameAddress { first: &'static str, second: &'static str, address: SocketAddr },
    #[error("http, https, oap and oap_plain are all off; at least one must be on")]
    NothingServed,
    #[error(
        "{first} ({first_origin}) and {second} ({second_origin}) are both set; set one of them"
    )]
    Both { first: &'static str, first_origin: Source, second: &'static str, second_origin: Source },
    #[error(
        "cores = {value} (file): a number alone may be meant as a core or as a count; write \
         cores = \"{value}\" for that core, cores = \"0-3\" for several, or shards = {value} for \
         so many"
    )]
    BareCores { value: i64 },
    #[error("{given} is set but {missing} is not; set both or neither")]
    Half { given: &'static str, missing: &'static str },
}

impl ConfigError {
    /// The exit code of a process that stops here: 0 after help or version, else 2.
    pub fn exit_code(&self) -> i32 {
        match self {
            ConfigError::Usage(usage) => usage.exit_code(),
            _ => 2,
        }
    }

    /// Prints for the user: help and version on standard output, all else on standard error.
    pub fn print(&self) {
        match self {
            // There is nowhere left to report it when this fails.
            ConfigError::Usage(usage) => drop(usage.print()),
            error => eprintln!("rond: {error}"),
        }
    }
}
