//! The settings of a node by name, and the layers they come from.
//!
//! One table names them all. A setting's flag, its variable and its place in the file follow from
//! its key by rule, so that none can lack one of the three.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
};

use clap::{Arg, ArgAction, Command};
use toml::Value;

use super::ConfigError;

/// The variable and flag that name the file itself.
pub(super) const FILE_VARIABLE: &str = "RON_CONFIG";
const FILE_ID: &str = "config";

/// The tables of the file, and how flags of what is in them begin.
const TABLES: [(&str, &str); 2] = [("deadlines", "deadline"), ("storage", "storage")];

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// What it is called in the file; `deadlines.head` is `head` of the table `deadlines`.
    pub name: &'static str,
    /// What stands for its value in the help.
    pub value: &'static str,
    /// What it does, and its default.
    pub help: &'static str,
    /// Whether it may be given several times, or as a list in the file.
    pub many: bool,
}

const fn key(name: &'static str, value: &'static str, help: &'static str) -> Key {
    Key { name, value, help, many: false }
}

/// Every setting, in the order of the help.
pub const KEYS: [Key; 33] = [
    key("data_dir", "DIR", "Where objects are kept [default: ./ron-data]"),
    Key {
        many: true,
        ..key(
            "data_dirs",
            "DIR",
            "Directories to spread objects over, one a disk, in place of data_dir; repeatable, or \
             a list with commas. Their order and number never change",
        )
    },
    key("http", "ADDR", "Where HTTP is spoken, or off [default: 127.0.0.1:9080]"),
    key("https", "ADDR", "Where HTTP over TLS is spoken, or off [default: off]"),
    key("oap", "ADDR", "Where OAP/1 over TLS is spoken, or off [default: 127.0.0.1:1777]"),
    key("oap_plain", "ADDR", "Where OAP/1 is spoken without TLS; loopback only [default: off]"),
    key("admin", "ADDR", "Where health and metrics are served [default: 127.0.0.1:9096]"),
    Key {
        many: true,
        ..key("cores", "LIST", "Cores to run a shard on, such as 0,2-3 [default: all available]")
    },
    key("cache", "SIZE", "Memory for verified blocks, such as 512MiB [default: a quarter of all]"),
    key("tls_cert", "FILE", "Certificate chain, PEM; without one a development CA is made"),
    key("tls_key", "FILE", "Private key of the certificate, PEM"),
    key("log", "LEVEL", "off, error, warn, info, debug or trace [default: info]"),
    key("connections_max", "N", "Most connections of one shard [default: 10000]"),
    key("object_len_max", "SIZE", "Largest object that is taken [default: 16GiB]"),
    key("window_groups", "N", "64 KiB groups of one download under way at once [default: 4]"),
    Key {
        many: true,
        ..key(
            "write_tokens",
            "TOKEN",
            "Bearer token that allows writes; with one, every write needs one. Repeatable. Others \
             on this machine can read flags: prefer the file or the variable",
        )
    },
    key(
        "write_loopback",
        "BOOL",
        "Whether requests of this machine may write while there is no token [default: true]",
    ),
    Key {
        many: true,
        ..key(
            "server_names",
            "NAME",
            "Name that this node is reached by on this machine and on the admin listener, beside \
             localhost and IP addresses; repeatable",
        )
    },
    key(
        "stall_limit",
        "SECONDS",
        "What holds a shard longer at a stretch is reported; 0 for nothing [default: 0.02]",
    ),
    key(
        "partitions",
        "N",
        "Partitions of a new data directory [default: one a core, and as many on each volume]",
    ),
    key("storage.max_bytes", "SIZE", "Most bytes of objects on disk [default: no limit]"),
    key("storage.reserve", "SIZE", "Room of each volume that is left free [default: 512MiB]"),
    key(
        "storage.compact_below",
        "PERCENT",
        "Segments of which less counts are compacted; 0 for never [default: 50]",
    ),
    key(
        "storage.scrub_rate",
        "SIZE",
        "Bytes a second that are read to find damage; 0 for none [default: 32MiB a shard]",
    ),
    key(
        "storage.scrub_every",
        "SECONDS",
        "Between two rounds of that; 0 for only when ordered [default: 604800]",
    ),
    key("deadlines.handshake", "SECONDS", "For a TLS handshake [default: 10]"),
    key("deadlines.head", "SECONDS", "For the head of a request [default: 15]"),
    key("deadlines.idle", "SECONDS", "Between requests of a connection [default: 75]"),
    key("deadlines.body", "SECONDS", "Between two arrivals of a body [default: 30]"),
    key("deadlines.send", "SECONDS", "Between two signs that a peer takes bytes [default: 60]"),
    key("deadlines.stream", "SECONDS", "For a whole request [default: 86400]"),
    key("deadlines.linger", "SECONDS", "For the peer to close after the end [default: 5]"),
    key("deadlines.drain", "SECONDS", "For what is under way at shutdown [default: 30]"),
];

impl Key {
    /// The flag, without its dashes: `data-dir`, `write-token`, `deadline-head`,
    /// `storage-max-bytes`.
    pub fn flag(&self) -> String {
        // A flag that is repeated names one thing at a time.
        match self.name {
            "write_tokens" => return "write-token".to_owned(),
            "server_names" => return "server-name".to_owned(),
            _ => {}
        }
        self.words().replace('_', "-")
    }

    /// The environment variable: `RON_DATA_DIR`, `RON_WRITE_TOKENS`, `RON_DEADLINE_HEAD`.
    pub fn variable(&self) -> String {
        format!("RON_{}", self.words().to_ascii_uppercase())
    }

    /// The name in words between underscores.
    fn words(&self) -> String {
        let table = |(table, start): &(&str, &str)| {
            let rest = self.name.strip_prefix(table)?.strip_prefix('.')?;
            Some(format!("{start}_{rest}"))
        };
        TABLES.iter().find_map(table).unwrap_or_else(|| self.name.to_owned())
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Flag,
    Variable,
    File,
}

/// The values of one key, as text, and where they came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) texts: Vec<String>,
    pub(super) source: Source,
}

/// The strongest value given for each key, by name.
pub(super) type Layers = BTreeMap<&'static str, Given>;

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Flag => "flag",
            Source::Variable => "environment",
            Source::File => "file",
        })
    }
}

/// The command line of the node.
pub fn command() -> Command {
    let file = Arg::new(FILE_ID).long(FILE_ID).value_name("FILE");
    let file = file.help("TOML file of settings; unknown keys are errors [env: RON_CONFIG]");
    let command = Command::new("rond")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A content server that verifies every byte before it sends it.")
        .after_help(
            "Flags beat the environment, which beats the file, which beats the defaults. In the \
             file, a key is its flag with underscores; deadlines are in the table [deadlines], \
             and what begins with storage in [storage]. A variable that is empty counts as not \
             set. Port 0 takes any free port.",
        )
        .max_term_width(100)
        .arg(file);
    KEYS.iter().fold(command, |command, key| {
        let action = if key.many { ArgAction::Append } else { ArgAction::Set };
        let arg = Arg::new(key.name).long(key.flag()).value_name(key.value).action(action);
        command.arg(arg.help(format!("{} [env: {}]", key.help, key.variable())))
    })
}

/// What the command line says: the settings, and the file if it names one.
pub(super) fn from_flags(
    args: impl IntoIterator<Item = OsString>,
) -> Result<(Layers, Option<String>), ConfigError> {
    let mut matches = command().try_get_matches_from(args).map_err(ConfigError::Usage)?;
    let file = matches.remove_one::<String>(FILE_ID);
    let mut layers = Layers::new();
    for key in &KEYS {
        if let Some(texts) = matches.remove_many::<String>(key.name) {
            layers.insert(key.name, Given { texts: texts.collect(), source: Source::Flag });
        }
    }
    Ok((layers, file))
}

/// The text of a variable; one that is empty counts as not set.
pub(super) fn variable(
    env: &dyn Fn(&str) -> Option<OsString>,
    name: &str,
) -> Result<Option<String>, ConfigError> {
    let Some(value) = env(name).filter(|value| value != OsStr::new("")) else {
        return Ok(None);
    };
    let text = value.into_string();
    text.map(Some).map_err(|_| ConfigError::NotText { variable: name.to_owned() })
}

/// Adds what the environment says of keys that are not given yet.
pub(super) fn add_variables(
    layers: &mut Layers,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<(), ConfigError> {
    for key in &KEYS {
        if let Some(text) = variable(env, &key.variable())? {
            let texts = vec![text];
            layers.entry(key.name).or_insert(Given { texts, source: Source::Variable });
        }
    }
    Ok(())
}

/// Adds what the text of a file says of keys that are not given yet.
pub(super) fn add_file(layers: &mut Layers, file: &str, text: &str) -> Result<(), ConfigError> {
    let table: toml::Table = text.parse().map_err(|source| ConfigError::Syntax {
        file: file.to_owned(),
        source: Box::new(source),
    })?;
    for (name, value) in table {
        match value {
            Value::Table(inner) if TABLES.iter().any(|(table, _)| name == *table) => {
                for (rest, value) in inner {
                    add_value(layers, file, &format!("{name}.{rest}"), &value)?;
                }
            }
            value => add_value(layers, file, &name, &value)?,
        }
    }
    Ok(())
}

fn add_value(
    layers: &mut Layers,
    file: &str,
    name: &str,
    value: &Value,
) -> Result<(), ConfigError> {
    let unknown = || ConfigError::UnknownKey { key: name.to_owned(), file: file.to_owned() };
    let key = KEYS.iter().find(|key| key.name == name).ok_or_else(unknown)?;
    let texts = match value {
        Value::Array(values) if key.many => values.iter().map(scalar).collect(),
        value => scalar(value).map(|text| vec![text]),
    };
    let texts = texts.ok_or_else(|| ConfigError::Type {
        key: key.name,
        found: value.type_str(),
        allowed: if key.many {
            "text, a number, or a list of them"
        } else {
            "text, a number or a boolean"
        },
    })?;
    layers.entry(key.name).or_insert(Given { texts, source: Source::File });
    Ok(())
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(value) => Some(value.to_string()),
        _ => None,
    }
}
