//! The settings of a node by name, and the layers they come from.
//!
//! One table names them all. A setting's flag, its variable and its place in the file follow from
//! its key by rule, so that none can lack one of the three.

use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, Command};
use toml::Value;

use super::{
    error::ConfigError,
    given::{Given, Layers, Source},
};

/// The variable and flag that name the file itself.
pub(super) const FILE_VARIABLE: &str = "RON_CONFIG";
const FILE_ID: &str = "config";

/// What `--version` says: a bug report names its build.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("RON_COMMIT"), ")");

/// The setting that holds secrets; as a flag it names one at a time, and so may its variable.
const TOKENS: &str = "write_tokens";
const TOKEN_VARIABLE: &str = "RON_WRITE_TOKEN";

/// Variables of the operator's tool.
const CLIENT: [&str; 4] = ["RON_NODE_URL", "RON_ADMIN_URL", "RON_CAP", "RON_CA"];

/// The tables of the file, and how flags of what is in them begin.
const TABLES: [(&str, &str); 4] =
    [("deadlines", "deadline"), ("storage", "storage"), ("names", "names"), ("debug", "debug")];

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
pub const KEYS: [Key; 44] = [
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
    key("shards", "N", "Number of shards, on the first of those cores; in place of cores"),
    key("cache", "SIZE", "Memory for verified blocks, such as 512MiB [default: a quarter of all]"),
    key("tls_cert", "FILE", "Certificate chain, PEM; without one a development CA is made"),
    key("tls_key", "FILE", "Private key of the certificate, PEM"),
    key("log", "LEVEL", "off, error, warn, info, debug or trace [default: info]"),
    key(
        "log_format",
        "FORMAT",
        "json, text, or auto for text on a terminal and JSON elsewhere [default: auto]",
    ),
    key(
        "connections_max",
        "N",
        "Most connections of one shard [default: 10000, less where memory is short]",
    ),
    key(
        "connections_per_peer",
        "N",
        "Most connections of one shard from one address, or one IPv6 network of 64 bits [default: \
         three quarters of connections_max]",
    ),
    key(
        "connection_buffers",
        "SIZE",
        "Memory for answers that wait for their readers and requests that wait their turn, of all \
         connections [default: 1/32 of all, 4MiB to 256MiB a shard]",
    ),
    key("object_len_max", "SIZE", "Largest object that is taken [default: 16GiB]"),
    key("window_groups", "N", "64 KiB groups of one download in progress at once [default: 4]"),
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
    key(
        "enforce_payments",
        "BOOL",
        "Whether bundles are refused whose manifest asks for payment [default: false]",
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
        "DURATION",
        "What holds a shard longer at a stretch is reported; 0 for nothing [default: 20ms]",
    ),
    key(
        "hang_limit",
        "DURATION",
        "A shard that hangs for longer ends the node, to be restarted; 0 for never [default: 60s]",
    ),
    key(
        "partitions",
        "N",
        "Partitions of a new data directory [default: one a core, and as many on each volume]",
    ),
    key("storage.max_bytes", "SIZE", "Most bytes of objects on disk [default: no limit]"),
    key(
        "storage.index_memory",
        "SIZE",
        "Memory for the index: 64 bytes an object are enough [default: an eighth of all]",
    ),
    key("storage.reserve", "SIZE", "Free space to keep on each volume [default: 512MiB]"),
    key(
        "storage.compact_below",
        "PERCENT",
        "Compact segments whose live share is below this; 0 for never [default: 50]",
    ),
    key(
        "storage.scrub_rate",
        "SIZE",
        "Bytes a second that are read to find damage; 0 for none [default: 32MiB a shard]",
    ),
    key(
        "storage.scrub_every",
        "DURATION",
        "Between two rounds of that; 0 for only when ordered [default: 1w]",
    ),
    key("names.max", "N", "Most names, of 128 bytes on average [default: 100000]"),
    key("names.store", "SIZE", "Most bytes of the file that names are kept in [default: 256MiB]"),
    key("deadlines.handshake", "DURATION", "For a TLS handshake [default: 10s]"),
    key("deadlines.head", "DURATION", "For the head of a request [default: 15s]"),
    key("deadlines.idle", "DURATION", "Between requests of a connection [default: 75s]"),
    key("deadlines.body", "DURATION", "Between two arrivals of a body [default: 30s]"),
    key(
        "deadlines.body_rate",
        "SIZE",
        "Least bytes a second of a request body, over each deadlines.body; 0 for any [default: \
         1KiB]",
    ),
    key("deadlines.send", "DURATION", "Between two signs that a peer takes bytes [default: 60s]"),
    key("deadlines.stream", "DURATION", "For a whole request [default: 1d]"),
    key("deadlines.linger", "DURATION", "For the peer to close after the end [default: 5s]"),
    key("deadlines.drain", "DURATION", "For requests in progress at shutdown [default: 30s]"),
    key("debug.verify_sends", "on|off", "Hash bodies again when they are sent [default: off]"),
];

impl Key {
    /// The flag, without its dashes: `data-dir`, `write-token`, `deadline-head`,
    /// `storage-max-bytes`.
    pub fn flag(&self) -> String {
        // A flag that is repeated names one thing at a time.
        match self.name {
            TOKENS => return "write-token".to_owned(),
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

impl Key {
    /// What types a value in the file may have.
    fn types(&self) -> &'static str {
        match (self.is_number(), self.is_switch(), self.many) {
            (true, _, true) => "text, a number, or a list of them",
            (true, _, false) => "text or a number",
            (_, true, _) => "text or a boolean",
            (_, _, true) => "text, or a list of texts",
            (_, _, false) => "text",
        }
    }

    /// The text of a value in the file; none if it has a type that the setting cannot have.
    fn scalar(&self, value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Integer(number) if self.is_number() => Some(number.to_string()),
            Value::Float(number) if self.is_number() => Some(number.to_string()),
            Value::Boolean(value) if self.is_switch() => Some(value.to_string()),
            _ => None,
        }
    }

    fn is_number(&self) -> bool {
        ["N", "SIZE", "DURATION", "PERCENT", "LIST"].contains(&self.value)
    }

    fn is_switch(&self) -> bool {
        ["BOOL", "on|off"].contains(&self.value)
    }
}

/// The command line of the node.
pub fn command() -> Command {
    let file = Arg::new(FILE_ID).long(FILE_ID).value_name("FILE");
    let file = file.help("TOML file of settings; unknown keys are errors [env: RON_CONFIG]");
    let command = Command::new("rond")
        .version(VERSION)
        .about("A content server that verifies every byte before it sends it.")
        .after_help(
            "Flags beat the environment, which beats the file, which beats the defaults. In the \
             file, a key is its flag with underscores; deadlines are in the table [deadlines], \
             and what begins with storage or names in [storage] or [names]. A variable that is \
             empty counts as not set. Port 0 takes any free port. Sizes are bytes, or have a unit \
             (64kB, 512MiB, 1G); durations are seconds, or have a unit (250ms, 15s, 2min, 1h, 1d, \
             1w).",
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
        let mut texts: Vec<String> = variable(env, &key.variable())?.into_iter().collect();
        if key.name == TOKENS {
            texts.extend(variable(env, TOKEN_VARIABLE)?);
        }
        if !texts.is_empty() {
            layers.entry(key.name).or_insert(Given { texts, source: Source::Variable });
        }
    }
    Ok(())
}

/// Variables among these that look like settings and are none: misspelt, most likely.
pub fn unknown_variables(names: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let known = |name: &str| {
        let setting = KEYS.iter().any(|key| key.variable() == name);
        setting || name == FILE_VARIABLE || name == TOKEN_VARIABLE
    };
    let names = names.into_iter().filter_map(|name| name.into_string().ok());
    let is_ours = |name: &String| name.starts_with("RON_") && !CLIENT.contains(&name.as_str());
    let mut unknown: Vec<String> = names.filter(is_ours).filter(|name| !known(name)).collect();
    unknown.sort_unstable();
    unknown
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
    if let ("cores", Value::Integer(value)) = (name, value) {
        return Err(ConfigError::BareCores { value: *value });
    }
    let texts = match value {
        Value::Array(values) if key.many => values.iter().map(|value| key.scalar(value)).collect(),
        value => key.scalar(value).map(|text| vec![text]),
    };
    let texts = texts.ok_or_else(|| ConfigError::Type {
        key: key.name,
        found: value.type_str(),
        allowed: key.types(),
    })?;
    layers.entry(key.name).or_insert(Given { texts, source: Source::File });
    Ok(())
}
