//! The settings of a node: read from flags, environment and file, checked as a whole.
//!
//! ```text
//!   --http ADDR   beats   RON_HTTP   beats   http = "ADDR" in the file   beats   the default
//! ```
//!
//! Nothing here opens, binds or creates anything except for reading the one file. What is wrong is
//! said with the key, the value, where it came from and what would be allowed.

use std::{
    ffi::OsString,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ron_codec::authority::Authority;
use ron_control::{NameLimits, logging::LEVELS};
use ron_io::regular;

use crate::machine::Machine;

mod connections;
mod error;
mod given;
pub mod keys;
pub mod limits;
mod restart;
mod settings;
mod storage;
pub mod values;
mod writers;

pub use error::ConfigError;
pub use given::Source;
pub use storage::Storage;
pub use writers::{Tokens, Writers};

use keys::FILE_VARIABLE;
use settings::{Settings, spans};

/// The settings of a node, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The folders that objects are kept in, at least one; a volume is known by its place here.
    pub data_dirs: Vec<PathBuf>,
    /// Where each protocol is served; `None` is off.
    pub http: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
    pub oap: Option<SocketAddr>,
    pub oap_plain: Option<SocketAddr>,
    pub admin: SocketAddr,
    /// Ids of the cores, ascending; one shard runs on each.
    pub cores: Vec<usize>,
    /// Bytes of memory for blocks, of the whole node: a multiple of a block for each shard.
    pub cache_len: u64,
    /// Certificate and key; without them a development CA is used.
    pub tls: Option<TlsFiles>,
    /// One of the names that the log takes.
    pub log: String,
    pub log_format: LogFormat,
    /// Of one shard.
    pub connections_max: usize,
    /// Of one shard and one peer.
    pub connections_per_peer: usize,
    /// Bytes that all connections may buffer together, of the whole node.
    pub connection_buffers_len: u64,
    pub object_len_max: u64,
    pub window_groups: u64,
    pub writers: Writers,
    pub deadlines: Deadlines,
    pub storage: Storage,
    pub names: NameLimits,
    /// A step that holds a shard longer is reported; zero for never.
    pub stall_limit: Duration,
    /// Whether bodies are hashed again when they are handed to the kernel.
    pub verify_sends: bool,
    pub enforce_payments: bool,
    /// A turn of a shard's event loop that lasts longer ends the node; zero for never.
    pub hang_limit: Duration,
    /// Partitions of a data directory that is created now.
    pub partitions: u32,
    /// Whether the settings name that number.
    pub partitions_given: bool,
    /// What is allowed but worth a line in the log.
    pub warnings: Vec<String>,
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    Json,
    Text,
}

/// Where the serving certificate is, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// How long each phase of a connection may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    pub handshake: Duration,
    pub head: Duration,
    pub idle: Duration,
    pub body: Duration,
    /// Bytes a second that a body must bring in each `body`; 0 for any.
    pub body_rate: u64,
    pub send: Duration,
    pub stream: Duration,
    pub linger: Duration,
    /// For requests in progress when the node is asked to end.
    pub drain: Duration,
}

impl Config {
    /// The settings that these arguments (the first is the program's name), this environment and
    /// the file they name amount to, on this machine.
    ///
    /// # Errors
    /// The first thing that is wrong. Help and version are errors too: see [`ConfigError::print`].
    pub fn load(
        args: impl IntoIterator<Item = OsString>,
        env: &dyn Fn(&str) -> Option<OsString>,
        machine: &Machine,
    ) -> Result<Config, ConfigError> {
        let (mut layers, file) = keys::from_flags(args)?;
        keys::add_variables(&mut layers, env)?;
        let file = match file {
            Some(file) => Some(file),
            None => keys::variable(env, FILE_VARIABLE)?,
        };
        if let Some(file) = file {
            keys::add_file(&mut layers, &file, &read(&file)?)?;
        }
        Settings::new(layers).resolve(machine)
    }

    pub fn shards(&self) -> usize {
        self.cores.len()
    }

    /// Whether a listener speaks TLS.
    pub fn serves_tls(&self) -> bool {
        self.https.is_some() || self.oap.is_some()
    }

    /// Bytes that the connections of one shard may buffer.
    pub fn shard_buffers_len(&self) -> u64 {
        self.connection_buffers_len / self.cores.len() as u64
    }

    /// What the listeners judge writers by.
    pub fn authority(&self) -> Authority {
        self.writers.authority()
    }

    /// Bytes of one shard's arena.
    pub fn arena_len(&self) -> u64 {
        self.cache_len / self.cores.len() as u64
    }
}

fn read(file: &str) -> Result<String, ConfigError> {
    let refused = |source| ConfigError::Read { file: file.to_owned(), source };
    let max = limits::FILE_LEN_MAX;
    let bytes = regular::read(Path::new(file), max).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => ConfigError::TooLong { file: file.to_owned(), max },
        _ => refused(error),
    })?;
    let not_text = |error| refused(io::Error::new(io::ErrorKind::InvalidData, error));
    String::from_utf8(bytes).map_err(not_text)
}

impl Settings {
    fn resolve(&self, machine: &Machine) -> Result<Config, ConfigError> {
        let (cores, cache_len) = self.cores_and_cache(machine)?;
        // A directory made by few shards can then be served by all cores later.
        let most = cores.len().max(machine.cores.len());
        let data_dirs = self.data_dirs()?;
        let partitions = self.partitions(most, data_dirs.len())?;
        let connections_max = self.connections_max(machine, cores.len())?;
        let window_groups = self.whole("window_groups", 1, limits::WINDOW_GROUPS_MAX)?;
        let object_len_max = ron_codec::limits::OBJECT_LEN_MAX;
        let admin = self.required_listener("admin", 9096)?;
        let connection_buffers_len = self.connection_buffers(machine, cores.len())?;
        let mut config = Config {
            data_dirs,
            http: self.listener("http", Some(9080))?,
            https: self.listener("https", None)?,
            oap: self.listener("oap", Some(1777))?,
            oap_plain: self.listener("oap_plain", None)?,
            admin,
            storage: self.storage(machine, cores.len())?,
            names: self.names()?,
            cores,
            cache_len,
            tls: self.tls()?,
            log: self.log()?,
            log_format: self.log_format()?,
            connections_max,
            connections_per_peer: self.connections_per_peer(connections_max)?,
            connection_buffers_len,
            object_len_max: self
                .size("object_len_max", 1, object_len_max)?
                .unwrap_or(object_len_max),
            window_groups: window_groups.unwrap_or(limits::WINDOW_GROUPS_DEFAULT),
            writers: self.writers()?,
            deadlines: self.deadlines()?,
            stall_limit: self.stall_limit()?,
            verify_sends: self.verify_sends()?,
            enforce_payments: self.on_or_off("enforce_payments", false)?,
            hang_limit: self.hang_limit()?,
            partitions,
            partitions_given: self.given("partitions").is_some(),
            warnings: Vec::new(),
        };
        self.check_listeners(&config)?;
        if !config.admin.ip().is_loopback() {
            let said = "health, metrics and version can be read by others on the network";
            config.warnings.push(format!("admin = {}: {said}", config.admin));
        }
        Ok(config)
    }

    fn listener(
        &self,
        key: &'static str,
        default_port: Option<u16>,
    ) -> Result<Option<SocketAddr>, ConfigError> {
        match self.text(key) {
            None => Ok(default_port.map(|port| SocketAddr::from(([127, 0, 0, 1], port)))),
            Some("off") => Ok(None),
            Some(text) => {
                let allowed = "an IP address and a port, such as 127.0.0.1:9080 or [::1]:0, or off";
                values::address(text).map(Some).ok_or_else(|| self.refuse(key, allowed))
            }
        }
    }

    fn required_listener(
        &self,
        key: &'static str,
        default_port: u16,
    ) -> Result<SocketAddr, ConfigError> {
        let allowed = "an IP address and a port, such as 127.0.0.1:9096; it cannot be off";
        let listener =
            self.listener(key, Some(default_port)).map_err(|_| self.refuse(key, allowed))?;
        listener.ok_or_else(|| self.refuse(key, allowed))
    }

    fn check_listeners(&self, config: &Config) -> Result<(), ConfigError> {
        if config.oap_plain.is_some_and(|address| !address.ip().is_loopback()) {
            return Err(self.refuse("oap_plain", "a loopback address: it is not encrypted"));
        }
        let served = [
            ("http", config.http),
            ("https", config.https),
            ("oap", config.oap),
            ("oap_plain", config.oap_plain),
        ];
        let mut on: Vec<(&'static str, SocketAddr)> =
            served.iter().filter_map(|(key, address)| Some((*key, (*address)?))).collect();
        if on.is_empty() {
            return Err(ConfigError::NothingServed);
        }
        // Shards share their ports among each other, so the kernel would not refuse this.
        on.push(("admin", config.admin));
        for (at, (second, address)) in on.iter().enumerate() {
            let same = on[..at].iter().find(|(_, other)| other == address && address.port() != 0);
            if let Some((first, _)) = same {
                return Err(ConfigError::SameAddress { first, second, address: *address });
            }
        }
        Ok(())
    }

    /// Cores and cache belong together: each shard has its part of the cache.
    fn cores_and_cache(&self, machine: &Machine) -> Result<(Vec<usize>, u64), ConfigError> {
        let mut cores = machine.cores.clone();
        let most = cores.len().min(limits::SHARDS_MAX) as u64;
        if let Some(shards) = self.whole("shards", 1, most)? {
            self.only_one("cores", "shards")?;
            cores.truncate(shards as usize);
        }
        if let Some(given) = self.given("cores") {
            let named = values::number_list(&given.texts.join(","));
            let named = named.filter(|named| named.iter().all(|core| cores.contains(core)));
            cores = named.filter(|named| named.len() <= limits::SHARDS_MAX).ok_or_else(|| {
                let ids: Vec<String> = cores.iter().map(usize::to_string).collect();
                let max = limits::SHARDS_MAX;
                let of = format!("each once, at most {max} of those this process may run on");
                self.refuse("cores", format!("a list such as 0,2-3, {of}: {}", ids.join(",")))
            })?;
        }
        cores.truncate(limits::SHARDS_MAX);
        let shards = cores.len() as u64;
        let min = limits::CACHE_PER_SHARD_MIN.saturating_mul(shards);
        let max = limits::CACHE_PER_SHARD_MAX.saturating_mul(shards);
        let default = || (machine.memory_len / limits::CACHE_SHARE).clamp(min, max);
        let len = self.size("cache", min, max)?.unwrap_or_else(default);
        Ok((cores, len - len % (limits::CACHE_UNIT * shards)))
    }

    fn tls(&self) -> Result<Option<TlsFiles>, ConfigError> {
        match (self.path("tls_cert")?, self.path("tls_key")?) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
            (Some(_), None) => Err(ConfigError::Half { given: "tls_cert", missing: "tls_key" }),
            (None, Some(_)) => Err(ConfigError::Half { given: "tls_key", missing: "tls_cert" }),
        }
    }

    fn log(&self) -> Result<String, ConfigError> {
        let level = self.text("log").unwrap_or("info");
        let known = LEVELS.contains(&level).then(|| level.to_owned());
        known.ok_or_else(|| self.refuse("log", LEVELS.join(", ")))
    }

    fn log_format(&self) -> Result<LogFormat, ConfigError> {
        Ok(match self.text("log_format") {
            None | Some("auto") => LogFormat::Auto,
            Some("json") => LogFormat::Json,
            Some("text") => LogFormat::Text,
            Some(_) => return Err(self.refuse("log_format", "auto, json, text")),
        })
    }

    fn deadlines(&self) -> Result<Deadlines, ConfigError> {
        Ok(Deadlines {
            handshake: self.deadline("deadlines.handshake", 10)?,
            head: self.deadline("deadlines.head", 15)?,
            idle: self.deadline("deadlines.idle", 75)?,
            body: self.deadline("deadlines.body", 30)?,
            body_rate: self
                .size("deadlines.body_rate", 0, limits::BODY_RATE_MAX)?
                .unwrap_or(ron_shards::limits::BODY_RATE),
            send: self.deadline("deadlines.send", 60)?,
            stream: self.deadline("deadlines.stream", 24 * 3600)?,
            linger: self.deadline("deadlines.linger", 5)?,
            drain: self.deadline("deadlines.drain", 30)?,
        })
    }

    fn stall_limit(&self) -> Result<Duration, ConfigError> {
        const KEY: &str = "stall_limit";
        let Some(text) = self.text(KEY) else { return Ok(limits::STALL_LIMIT_DEFAULT) };
        let range = limits::STALL_LIMIT_MIN..=limits::STALL_LIMIT_MAX;
        let limit = values::duration(text);
        let limit = limit.filter(|limit| limit.is_zero() || range.contains(limit));
        limit.ok_or_else(|| self.refuse(KEY, format!("{}, or 0 for no reports", spans(&range))))
    }

    fn verify_sends(&self) -> Result<bool, ConfigError> {
        const KEY: &str = "debug.verify_sends";
        match self.text(KEY) {
            None | Some("off") => Ok(false),
            Some("on") => Ok(true),
            Some(_) => Err(self.refuse(KEY, "on or off".to_owned())),
        }
    }

    fn hang_limit(&self) -> Result<Duration, ConfigError> {
        const KEY: &str = "hang_limit";
        let Some(text) = self.text(KEY) else { return Ok(limits::HANG_LIMIT_DEFAULT) };
        let range = limits::HANG_LIMIT_MIN..=limits::HANG_LIMIT_MAX;
        let limit = values::duration(text);
        let limit = limit.filter(|limit| limit.is_zero() || range.contains(limit));
        limit.ok_or_else(|| self.refuse(KEY, format!("{}, or 0 for never", spans(&range))))
    }

    fn deadline(&self, key: &'static str, default_s: u64) -> Result<Duration, ConfigError> {
        let Some(text) = self.text(key) else { return Ok(Duration::from_secs(default_s)) };
        let range = limits::DEADLINE_MIN..=limits::DEADLINE_MAX;
        let deadline = values::duration(text).filter(|deadline| range.contains(deadline));
        deadline.ok_or_else(|| self.refuse(key, spans(&range)))
    }
}

#[cfg(test)]
mod tests;
