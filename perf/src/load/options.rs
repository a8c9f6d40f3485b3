//! What a run is asked to do: the command line, and what of it contradicts itself.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};
use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::objects::{ClassSpec, parse_size};

/// Most connections of a run, slow readers not included.
pub const CONNECTIONS_MAX: u32 = 100_000;

/// Most threads of a run.
pub const THREADS_MAX: u32 = 256;

/// Most requests a second of an open loop.
pub const RATE_MAX: f64 = 10_000_000.0;

/// Longest run or warm-up, in seconds.
pub const SECONDS_MAX: f64 = 86_400.0;

/// Load for a server, measured.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Options {
    /// The server: http://HOST:PORT, https://HOST:PORT or oap://HOST:PORT
    #[arg(long)]
    pub node: Node,
    #[arg(long, default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    pub connections: u32,
    /// Threads that the connections are dealt to
    #[arg(long, default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(THREADS_MAX)))]
    pub threads: u32,
    /// How long is measured
    #[arg(long, default_value_t = 10.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// How long the load runs before that
    #[arg(long, default_value_t = 1.0, value_parser = parse_seconds)]
    pub warmup: f64,
    /// Open loop: this many requests a second in total, at constant distances; each latency counts
    /// from the moment its request was due. Without it a closed loop
    #[arg(long, value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// What is asked for, such as 4KiB:1000,1MiB:10:0.1
    #[arg(
        long,
        value_name = "SIZE[:COUNT[:WEIGHT]]",
        value_delimiter = ',',
        required_unless_present = "path",
        conflicts_with = "path"
    )]
    pub objects: Vec<ClassSpec>,
    /// One fixed path instead of objects
    #[arg(long)]
    pub path: Option<String>,
    /// How requests spread over the objects of a class: uniform, zipf:EXPONENT or sequential
    #[arg(long, default_value_t = Popularity::Uniform)]
    pub popularity: Popularity,
    /// Ask for random ranges of this length, aligned to it
    #[arg(long, value_name = "LEN", value_parser = parse_size, conflicts_with = "path")]
    pub range: Option<usize>,
    /// The share of fetches that ask for a range
    #[arg(long, default_value_t = 1.0, value_parser = parse_share, requires = "range")]
    pub range_share: f64,
    /// The share of requests that store a new object
    #[arg(long, default_value_t = 0.0, value_parser = parse_share, conflicts_with = "path")]
    pub put_share: f64,
    /// The share of answers whose bytes are checked: whole bodies are hashed and compared with
    /// their address, ranges with what they must be
    #[arg(long, default_value_t = 0.01, value_parser = parse_share)]
    pub verify: f64,
    /// A new connection for every request; with TLS by a full or a resumed handshake
    #[arg(long)]
    pub reconnect: Option<Reconnect>,
    /// Further connections that read slowly; they are not in the latencies
    #[arg(long, default_value_t = 0, requires = "slow_rate",
          value_parser = clap::value_parser!(u32).range(0..=i64::from(CONNECTIONS_MAX)))]
    pub slow_readers: u32,
    /// Bytes a second that each of them reads
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub slow_rate: Option<usize>,
    /// The one cipher that is offered; without it the server chooses
    #[arg(long)]
    pub tls_ciphers: Option<Ciphers>,
    /// Certificates (PEM) to trust; without it any certificate will do
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Processes whose CPU time is reported, with all their threads and children
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub server_pid: Vec<u32>,
    /// Store every object that is not there before the run
    #[arg(long, conflicts_with = "path")]
    pub store: bool,
    /// Chooses the objects, and the order they are asked for
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// A field for the head of every HTTP request
    #[arg(long, value_name = "NAME: VALUE", value_parser = parse_field)]
    #[serde(skip)]
    pub header: Vec<String>,
    /// Seconds to wait for a connection
    #[arg(long, default_value_t = 5.0, value_parser = parse_seconds)]
    pub connect_timeout: f64,
    /// Seconds that an answer may be silent before it is given up
    #[arg(long, default_value_t = 10.0, value_parser = parse_seconds)]
    pub answer_timeout: f64,
    /// Words that the document keeps, such as the commit of the server
    #[arg(long, value_name = "TEXT")]
    #[serde(skip)]
    pub commit: Option<String>,
    /// Write the document there; - is the standard output
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub json: Option<PathBuf>,
}

/// Options that do not go together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UsageError {
    #[error("a range of {len} bytes does not fit objects of {size}")]
    Range { len: usize, size: usize },
    #[error("--seconds must be above 0")]
    Seconds,
    #[error("timeouts must be above 0")]
    Timeout,
    #[error("--slow-rate must be above 0")]
    SlowRate,
    #[error("{option} needs https or oap")]
    Tls { option: &'static str },
    #[error("over oap, --path is /o/ and an address")]
    OapPath,
    #[error("a path begins with / and has no spaces or control characters")]
    Path,
}

impl Options {
    /// Finds what one value alone does not show to be wrong.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn check(&self) -> Result<(), UsageError> {
        if self.seconds <= 0.0 {
            return Err(UsageError::Seconds);
        }
        if self.connect_timeout <= 0.0 || self.answer_timeout <= 0.0 {
            return Err(UsageError::Timeout);
        }
        if self.slow_rate == Some(0) {
            return Err(UsageError::SlowRate);
        }
        if let Some(len) = self.range
            && let Some(class) = self.objects.iter().find(|class| len > class.size || len == 0)
        {
            return Err(UsageError::Range { len, size: class.size });
        }
        if self.node.scheme == Scheme::Http {
            let options =
                [("--tls-ciphers", self.tls_ciphers.is_some()), ("--ca", self.ca.is_some())];
            if let Some((option, _)) = options.into_iter().find(|(_, given)| *given) {
                return Err(UsageError::Tls { option });
            }
        }
        let visible = |path: &String| path.bytes().all(|byte| byte.is_ascii_graphic());
        if self.path.as_ref().is_some_and(|path| !path.starts_with('/') || !visible(path)) {
            return Err(UsageError::Path);
        }
        Ok(())
    }
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
    /// OAP/1, always over TLS 1.3.
    Oap,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Oap => "oap",
        }
    }

    /// Where it is spoken when nothing is said.
    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Oap => 1777,
        }
    }
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub scheme: Scheme,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

impl Node {
    /// Host and port, as a Host field has them.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected http://HOST:PORT, https://HOST:PORT or oap://HOST:PORT";
        let (scheme, rest) = text.split_once("://").ok_or(EXPECTED)?;
        let schemes = [Scheme::Http, Scheme::Https, Scheme::Oap];
        let scheme = schemes.into_iter().find(|known| known.name() == scheme).ok_or(EXPECTED)?;
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(EXPECTED)?;
                (host, port.strip_prefix(':'))
            }
            None => rest.rsplit_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(scheme.port()), |port| port.parse().map_err(|_| EXPECTED))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
        if host.is_empty() || !host.chars().all(plain) {
            return Err(EXPECTED.to_owned());
        }
        Ok(Self { scheme, host: host.to_owned(), port })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.authority())
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How requests spread over the objects of a class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Popularity {
    Uniform,
    /// Object n is asked for in proportion to (n + 1) to the power of minus this.
    Zipf(f64),
    /// One after the other, and again.
    Sequential,
}

impl FromStr for Popularity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            None if text == "sequential" => Ok(Self::Sequential),
            Some(("zipf", exponent)) => match exponent.parse::<f64>() {
                Ok(exponent) if exponent.is_finite() && exponent >= 0.0 => Ok(Self::Zipf(exponent)),
                _ => Err(format!("an exponent is 0 or more, not {exponent:?}")),
            },
            _ => Err("expected uniform, zipf:EXPONENT or sequential".to_owned()),
        }
    }
}

impl fmt::Display for Popularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf(exponent) => write!(f, "zipf:{exponent}"),
            Self::Sequential => f.write_str("sequential"),
        }
    }
}

impl Serialize for Popularity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How the connection for every request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reconnect {
    /// With a full handshake.
    Full,
    /// With a handshake that resumes an earlier session.
    Resume,
}

/// A cipher of TLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ciphers {
    Aes128,
    Aes256,
    Chacha20,
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1".to_owned()),
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => Ok(seconds),
        _ => Err(format!("seconds are a number from 0 to {SECONDS_MAX}")),
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= RATE_MAX => Ok(rate),
        _ => Err(format!("a rate is a number above 0 and up to {RATE_MAX}")),
    }
}

fn parse_field(text: &str) -> Result<String, String> {
    let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    match text.split_once(':') {
        Some((name, _)) if printable && !name.is_empty() && !name.contains(' ') => {
            Ok(text.to_owned())
        }
        _ => Err("expected NAME: VALUE".to_owned()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    /// The options that these arguments, apart by spaces, amount to.
    pub(in crate::load) fn options(arguments: &str) -> Options {
        let all = ["load"].into_iter().chain(arguments.split_whitespace());
        Cli::try_parse_from(all).unwrap().options
    }

    fn read(arguments: &[&str]) -> Result<Options, String> {
        let all = ["load"].iter().chain(arguments);
        let options = Cli::try_parse_from(all).map_err(|error| error.to_string())?.options;
        options.check().map(|()| options).map_err(|error| error.to_string())
    }

    #[test]
    fn nodes_are_read_or_refused() {
        let node = |text: &str| text.parse::<Node>();
        let made = |scheme, host: &str, port| Ok(Node { scheme, host: host.to_owned(), port });
        assert_eq!(node("http://127.0.0.1:8080/"), made(Scheme::Http, "127.0.0.1", 8080));
        assert_eq!(node("https://example.org"), made(Scheme::Https, "example.org", 443));
        assert_eq!(node("oap://[::1]:7"), made(Scheme::Oap, "::1", 7));
        assert_eq!(node("oap://[::1]:7").unwrap().to_string(), "oap://[::1]:7");
        for wrong in [
            "",
            "127.0.0.1:80",
            "ftp://a:1",
            "http://",
            "http://:1",
            "http://a:x",
            "http://a:70000",
            "http://a/b",
            "http://a b",
            "http://[::1",
        ] {
            assert!(node(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn popularities_are_read_or_refused() {
        let read = |text: &str| text.parse::<Popularity>();
        assert_eq!(read("zipf:1.1"), Ok(Popularity::Zipf(1.1)));
        assert_eq!(read("sequential"), Ok(Popularity::Sequential));
        assert_eq!(read("zipf:1.1").unwrap().to_string(), "zipf:1.1");
        for wrong in ["", "zipf", "zipf:", "zipf:-1", "zipf:NaN", "zipf:inf", "uniform:1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists_and_defaults_are_as_documented() {
        let options =
            read(&["--node", "http://a", "--objects", "4KiB:2,1MiB", "--server-pid", "1,2"]);
        let options = options.unwrap();
        assert_eq!((options.objects.len(), options.server_pid.len()), (2, 2));
        assert_eq!((options.connections, options.threads), (16, 1));
        assert_eq!((options.seconds, options.warmup, options.verify), (10.0, 1.0, 0.01));
        assert_eq!((options.connect_timeout, options.answer_timeout), (5.0, 10.0));
    }

    #[test]
    fn contradictions_are_refused() {
        let wrong: [&[&str]; 13] = [
            &[],
            &["--objects", "4KiB", "--path", "/"],
            &["--path", "x"],
            &["--path", "/a b"],
            &["--path", "/", "--put-share", "0.5"],
            &["--path", "/", "--store"],
            &["--objects", "4KiB", "--range", "4097"],
            &["--objects", "4KiB", "--range", "0"],
            &["--objects", "4KiB", "--range-share", "0.5"],
            &["--objects", "4KiB", "--slow-readers", "1"],
            &["--objects", "4KiB", "--ca", "file"],
            &["--objects", "4KiB", "--verify", "1.1"],
            &["--objects", "4KiB", "--header", "a b: c"],
        ];
        for arguments in wrong {
            let all = [&["--node", "http://a"], arguments].concat();
            assert!(read(&all).is_err(), "{arguments:?}");
        }
        assert!(read(&["--node", "https://a", "--path", "/", "--ca", "file"]).is_ok());
    }
}
