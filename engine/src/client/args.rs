//! What arguments `ronctl` takes, and how they are read.
//!
//! Arguments are judged here, before anything is opened or sent: an address that is no address, a
//! range that ends before it begins, a token that no header can carry.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use clap::{Parser, Subcommand};
use ron_codec::address::Address;
use thiserror::Error;

use super::{
    error::EXIT_HELP,
    name_args::NameCommand,
    options::{Export, Import, Ls},
};
use crate::config::keys::VERSION;

/// Longest capability: what one frame header can announce.
const CAP_LEN_MAX: usize = u16::MAX as usize;

/// Longest `--timeout`, in seconds.
const TIMEOUT_SECS_MAX: u64 = 24 * 3600;

/// The port of OAP/1, when none is given.
const OAP_PORT: u16 = 1777;

/// Stores and fetches objects by their address, and looks after a node's storage.
#[derive(Debug, Parser)]
#[command(name = "ronctl", version = VERSION, about, after_help = EXIT_HELP)]
#[command(max_term_width = 100)]
pub struct Args {
    #[command(flatten)]
    pub shared: Shared,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command understands.
#[derive(Clone, Debug, clap::Args)]
pub struct Shared {
    /// The node to talk to over HTTP.
    #[arg(long, global = true, value_name = "URL", env = "RON_NODE_URL")]
    #[arg(default_value = "http://127.0.0.1:9080")]
    pub node: NodeUrl,
    /// The admin listener of the node, for scrub, verify, name, storage, ls and export.
    #[arg(long, global = true, value_name = "URL", env = "RON_ADMIN_URL")]
    #[arg(default_value = "http://127.0.0.1:9096")]
    pub admin: NodeUrl,
    /// The capability to show to the node.
    #[arg(long, global = true, value_name = "TOKEN", env = "RON_CAP", hide_env_values = true)]
    pub cap: Option<Cap>,
    /// More certificates to trust, PEM, such as the CA of a node; those of the system are trusted
    /// anyway.
    #[arg(long, global = true, value_name = "FILE", env = "RON_CA")]
    pub ca: Option<PathBuf>,
    /// How long to wait for a connection, and for each next sign of life.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "30")]
    pub timeout: Seconds,
    /// Say nothing on stderr but errors.
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Store a file and print its address.
    Put {
        /// The file, or - for standard input.
        file: PathBuf,
    },
    /// Fetch an object and check that its bytes hash to its address.
    ///
    /// With -o the bytes are written to a file FILE.RANDOM.part, which takes the name FILE once
    /// they are checked.
    /// A part of an object cannot be checked against the address, and stderr says so.
    Get(Get),
    /// Print the address and the size of an object.
    Stat {
        /// The object, b3:<64 hex digits>; a .TLD behind it is ignored.
        #[arg(value_name = "ADDR", value_parser = Address::parse_route_segment)]
        address: Address,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check all that a stopped node keeps: log, object files, index.
    ///
    /// Every byte is hashed and every record compared with the index. Nothing is changed, unless
    /// --rebuild-index is given.
    Fsck(crate::fsck::Options),
    /// Delete objects, and print the address of each that is gone.
    Rm {
        /// The objects, b3:<64 hex digits> each.
        #[arg(value_name = "ADDR", required = true)]
        #[arg(value_parser = Address::parse_route_segment)]
        addresses: Vec<Address>,
    },
    /// Look for damage in all that a node stores.
    Scrub {
        /// Begin now, whatever the schedule says. What comes of it: ronctl storage.
        #[arg(long, required = true)]
        now: bool,
    },
    /// Have a node read objects again from its disk, and print what each is found to be.
    Verify {
        /// The objects, b3:<64 hex digits> each.
        #[arg(value_name = "ADDR", required = true)]
        #[arg(value_parser = Address::parse_route_segment)]
        addresses: Vec<Address>,
    },
    /// Print the objects of a node by rising address, as its admin listener lists them.
    Ls(Ls),
    /// Write the objects of a node, or of the directories of a stopped one, into one archive.
    ///
    /// The archive is a tar file whose members are named by their addresses. Objects are checked as
    /// they come; what is damaged is named, left out, and makes the exit code 5.
    Export(Export),
    /// Store the objects of an archive in a node.
    ///
    /// Objects are checked before they are sent, and what the node has is not sent. What is damaged
    /// is named and makes the exit code 5; all else is stored.
    Import(Import),
    /// Give paths to bundles and objects, and look at which were given.
    Name {
        #[command(subcommand)]
        command: NameCommand,
    },
    /// Print what a node stores and in what state it is.
    Storage {
        /// Print JSON, as the node gives it.
        #[arg(long)]
        json: bool,
    },
}

/// What to fetch, and from where to where.
#[derive(Clone, Debug, clap::Args)]
pub struct Get {
    /// The object, b3:<64 hex digits>; a .TLD behind it is ignored.
    #[arg(value_name = "ADDR", value_parser = Address::parse_route_segment)]
    pub address: Address,
    /// Where to write it; standard output without this, or when it is -.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Only the bytes from A to B, both included and counted from 0; A- is all from A on.
    #[arg(long, value_name = "A-B")]
    pub range: Option<Range>,
    /// Fetch over OAP/1 from there instead of over HTTP.
    #[arg(long, value_name = "HOST:PORT")]
    pub oap: Option<HostPort>,
    /// The name that the node's certificate must be for, when it is not HOST.
    #[arg(long, value_name = "SERVERNAME", requires = "oap")]
    pub name: Option<String>,
}

/// Why an argument is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ArgError {
    #[error("expected http://HOST[:PORT] or https://HOST[:PORT]")]
    Url,
    #[error("expected HOST:PORT")]
    HostPort,
    #[error("expected A-B or A-, in decimal bytes")]
    Range,
    #[error("ends at {last}, before it begins at {first}")]
    RangeOrder { first: u64, last: u64 },
    #[error("a token has 1 to {CAP_LEN_MAX} visible ASCII characters, this one has {len}")]
    CapLen { len: usize },
    #[error("a token has visible ASCII characters only, see byte {at}")]
    CapByte { at: usize },
    #[error("expected 1 to {TIMEOUT_SECS_MAX} seconds")]
    Seconds,
}

/// Where HTTP is spoken: scheme, authority and maybe a path, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeUrl(String);

impl NodeUrl {
    /// The URL of the object at `address`, or of the place where unnamed objects are put.
    #[must_use]
    pub fn object(&self, address: Option<&Address>) -> String {
        address
            .map_or_else(|| format!("{}/o/", self.0), |address| format!("{}/o/{address}", self.0))
    }

    /// The URL of a path, which begins with a slash.
    #[must_use]
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.0.starts_with("https:")
    }
}

impl FromStr for NodeUrl {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        let uri: ureq::http::Uri = text.parse().map_err(|_| ArgError::Url)?;
        let authority = uri.authority().ok_or(ArgError::Url)?;
        let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"));
        // A user name here would be sent to nobody, and a query would swallow the path.
        if authority.as_str().contains('@') || authority.host().is_empty() || uri.query().is_some()
        {
            return Err(ArgError::Url);
        }
        // The library that sends the request takes the scheme's port in place of one that is wrong.
        match authority.as_str().strip_prefix(authority.host()).ok_or(ArgError::Url)? {
            "" => {}
            rest => {
                rest.strip_prefix(':').and_then(port_number).ok_or(ArgError::Url)?;
            }
        }
        let scheme = scheme.ok_or(ArgError::Url)?;
        Ok(Self(format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/'))))
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where OAP/1 is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or(ArgError::HostPort)?;
            let port = if port.is_empty() { None } else { Some(port.strip_prefix(':')) };
            (host, port.map(|port| port.ok_or(ArgError::HostPort)).transpose()?)
        } else {
            text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        let port = match port {
            None => OAP_PORT,
            Some(digits) => port_number(digits).ok_or(ArgError::HostPort)?,
        };
        if host.is_empty() {
            return Err(ArgError::HostPort);
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// A part of an object: bytes `first` to `last`, both included; without `last`, all from `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub first: u64,
    pub last: Option<u64>,
}

impl Range {
    /// Most bytes in the range; `None` when it has no end, or is longer than a count can say.
    #[must_use]
    pub fn len_max(&self) -> Option<u64> {
        (self.last? - self.first).checked_add(1)
    }
}

impl FromStr for Range {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        let (first, last) = text.split_once('-').ok_or(ArgError::Range)?;
        let first = decimal(first).ok_or(ArgError::Range)?;
        if last.is_empty() {
            return Ok(Self { first, last: None });
        }
        let last = decimal(last).ok_or(ArgError::Range)?;
        if last < first {
            return Err(ArgError::RangeOrder { first, last });
        }
        Ok(Self { first, last: Some(last) })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.first)?;
        self.last.map_or(Ok(()), |last| write!(f, "{last}"))
    }
}

/// A capability token. It is a secret: it has no text form but the one that is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Cap(String);

impl Cap {
    /// The token itself.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl FromStr for Cap {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        if text.is_empty() || text.len() > CAP_LEN_MAX {
            return Err(ArgError::CapLen { len: text.len() });
        }
        match text.bytes().position(|byte| !byte.is_ascii_graphic()) {
            Some(at) => Err(ArgError::CapByte { at }),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Debug for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cap(…)")
    }
}

/// A time in whole seconds, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl FromStr for Seconds {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        decimal(text)
            .filter(|secs| (1..=TIMEOUT_SECS_MAX).contains(secs))
            .map(|secs| Self(Duration::from_secs(secs)))
            .ok_or(ArgError::Seconds)
    }
}

/// A port that can be connected to.
fn port_number(digits: &str) -> Option<u16> {
    decimal(digits).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

/// Decimal digits only: no sign, no space.
fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const HEX: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn the_description_of_the_arguments_is_sound() {
        Args::command().debug_assert();
        let help = Args::command().render_help().to_string();
        assert!(help.contains("  5  integrity"), "{help}");
    }

    #[test]
    fn ranges() {
        let read = |text: &str| text.parse::<Range>();
        assert_eq!(read("0-0"), Ok(Range { first: 0, last: Some(0) }));
        assert_eq!(read("5-"), Ok(Range { first: 5, last: None }));
        assert_eq!(read("7-9").unwrap().len_max(), Some(3));
        assert_eq!(read("7-").unwrap().len_max(), None);
        let all = format!("0-{}", u64::MAX);
        assert_eq!(read(&all).unwrap().len_max(), None);
        assert_eq!(read(&all).unwrap().to_string(), all);
        assert_eq!(read("5-").unwrap().to_string(), "5-");
        assert_eq!(read("9-8"), Err(ArgError::RangeOrder { first: 9, last: 8 }));
        let huge = "0-18446744073709551616";
        for wrong in ["", "-", "-5", "5", "a-b", "1-2-3", "+1-2", "1- 2", "1-2,4-5", huge] {
            assert_eq!(read(wrong), Err(ArgError::Range), "{wrong:?}");
        }
    }

    #[test]
    fn urls_lose_their_last_slash_and_must_be_http() {
        let url = |text: &str| text.parse::<NodeUrl>().map(|url| url.to_string());
        assert_eq!(url("http://h"), Ok("http://h".into()));
        assert_eq!(url("http://h:1/"), Ok("http://h:1".into()));
        assert_eq!(url("https://[::1]:9/a/"), Ok("https://[::1]:9/a".into()));
        for wrong in ["", "h:1", "ftp://h", "http://", "/o", "http://u@h", "http://h?x=1"] {
            assert_eq!(url(wrong), Err(ArgError::Url), "{wrong:?}");
        }
        // What is no port is not the port of the scheme.
        for port in ["", "0", "65536", "96960", "99999", "+1", "1x", "-1"] {
            for host in ["127.0.0.1", "h", "[::1]"] {
                let wrong = format!("http://{host}:{port}/");
                assert_eq!(url(&wrong), Err(ArgError::Url), "{wrong}");
            }
        }
        assert_eq!(url("http://[::1]:65535"), Ok("http://[::1]:65535".into()));
        assert_eq!(url("http://[::1]"), Ok("http://[::1]".into()));
        let url: NodeUrl = "https://h/".parse().unwrap();
        assert!(url.is_tls());
        assert_eq!(url.object(None), "https://h/o/");
        assert_eq!(url.object(Some(&Address::of(b""))), format!("https://h/o/b3:{HEX}"));
    }

    #[test]
    fn hosts_and_ports() {
        let read = |text: &str| text.parse::<HostPort>().map(|at| (at.host, at.port));
        assert_eq!(read("h:1"), Ok(("h".into(), 1)));
        assert_eq!(read("h"), Ok(("h".into(), OAP_PORT)));
        assert_eq!(read("[::1]:65535"), Ok(("::1".into(), 65535)));
        assert_eq!(read("[::1]"), Ok(("::1".into(), OAP_PORT)));
        for wrong in ["", ":1", "h:", "h:0", "h:65536", "h:+1", "::1", "[::1", "[::1]1", "[]:1"] {
            assert_eq!(read(wrong), Err(ArgError::HostPort), "{wrong:?}");
        }
        assert_eq!("[::1]:9".parse::<HostPort>().unwrap().to_string(), "[::1]:9");
    }

    #[test]
    fn tokens_fit_a_header_and_are_never_shown() {
        let read = |text: &str| text.parse::<Cap>();
        assert_eq!(read("a.b-c~").unwrap().secret(), "a.b-c~");
        assert_eq!(read(""), Err(ArgError::CapLen { len: 0 }));
        assert!(read(&"x".repeat(CAP_LEN_MAX)).is_ok());
        let len = CAP_LEN_MAX + 1;
        assert_eq!(read(&"x".repeat(len)), Err(ArgError::CapLen { len }));
        assert_eq!(read("a b"), Err(ArgError::CapByte { at: 1 }));
        assert_eq!(read("a\r\nX: y"), Err(ArgError::CapByte { at: 1 }));
        assert_eq!(format!("{:?}", read("geheim").unwrap()), "Cap(…)");
    }

    #[test]
    fn timeouts() {
        assert_eq!("1".parse(), Ok(Seconds(Duration::from_secs(1))));
        assert!("86400".parse::<Seconds>().is_ok());
        for wrong in ["0", "86401", "-1", "1s", ""] {
            assert_eq!(wrong.parse::<Seconds>(), Err(ArgError::Seconds), "{wrong:?}");
        }
    }

    #[test]
    fn commands_are_read() {
        let args = ["ronctl", "get", HEX, "-o", "f", "--range", "1-2", "--timeout", "5", "-q"];
        let args = Args::try_parse_from(args).unwrap();
        assert_eq!(args.shared.timeout.0, Duration::from_secs(5));
        assert!(args.shared.quiet);
        let Command::Get(get) = args.command else { panic!() };
        assert_eq!(get.range, Some(Range { first: 1, last: Some(2) }));
        assert_eq!(get.output, Some("f".into()));

        let named = format!("b3:{HEX}.png");
        let stat = Args::try_parse_from(["ronctl", "stat", &named]).unwrap();
        let Command::Stat { address, .. } = stat.command else { panic!() };
        assert_eq!(address, HEX.parse().unwrap());
        assert!(Args::try_parse_from(["ronctl", "verify", &named, HEX]).is_ok());

        let rm = Args::try_parse_from(["ronctl", "rm", HEX, &named]).unwrap();
        assert!(matches!(rm.command, Command::Rm { addresses } if addresses.len() == 2));
        let scrub = ["ronctl", "scrub", "--now", "--admin", "http://h:1/"];
        let scrub = Args::try_parse_from(scrub).unwrap();
        assert_eq!(scrub.shared.admin.path("/scrub"), "http://h:1/scrub");

        let put = Args::try_parse_from(["ronctl", "--node", "https://n", "put", "-"]).unwrap();
        assert!(matches!(put.command, Command::Put { file } if file.as_os_str() == "-"));
        let set = ["ronctl", "name", "set", "tiles/", HEX, "--if-version", "0"];
        let set = Args::try_parse_from(set).unwrap();
        let Command::Name { command: NameCommand::Set { path, options, .. } } = set.command else {
            panic!()
        };
        assert_eq!((path.as_str(), options.if_version), ("/tiles", Some(0)));
        for listed in [&["ls"][..], &["list"], &["ls", "/a", "--json"], &["log", "-n", "1000"]] {
            let args = ["ronctl", "name"].iter().chain(listed);
            assert!(Args::try_parse_from(args).is_ok(), "{listed:?}");
        }
        for wrong in [
            &["ronctl"][..],
            &["ronctl", "name"],
            &["ronctl", "name", "set", "/a/../b", HEX],
            &["ronctl", "name", "set", "/a", "b3:00"],
            &["ronctl", "name", "rm"],
            &["ronctl", "name", "log", "-n", "1001"],
            &["ronctl", "put"],
            &["ronctl", "get", "b3:00"],
            &["ronctl", "get", "b3:00.png"],
            &["ronctl", "--node", "http://127.0.0.1:99999", "rm", HEX],
            &["ronctl", "--admin", "http://127.0.0.1:", "scrub", "--now"],
            &["ronctl", "get", HEX, "--range", "2-1"],
            &["ronctl", "get", HEX, "--name", "n"],
            &["ronctl", "stat", HEX, "--range", "1-2"],
            &["ronctl", "rm"],
            &["ronctl", "rm", HEX, "b3:00"],
            &["ronctl", "verify"],
            &["ronctl", "scrub"],
            &["ronctl", "storage", HEX],
        ] {
            assert!(Args::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }
}
