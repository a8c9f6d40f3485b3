//! The values of arguments, and how each is read.

use std::{fmt, str::FromStr, time::Duration};

use ron_codec::{address::Address, limits::TLD_LEN_MAX};
use thiserror::Error;

/// Longest capability: what one frame header can announce.
const CAP_LEN_MAX: usize = u16::MAX as usize;

/// Longest `--timeout`, in seconds.
const TIMEOUT_SECS_MAX: u64 = 24 * 3600;

/// The port of OAP/1, when none is given.
const OAP_PORT: u16 = 1777;

/// Most files that are worked on at the same time.
const JOBS_MAX: usize = 64;

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
    #[error("expected 1 to {} jobs", JOBS_MAX)]
    Jobs,
    #[error("expected 1 to 16 bytes of a-z, 0-9 and -")]
    Tld,
    #[error("expected br, zstd, br,zstd or none")]
    Encodings,
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

/// A number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jobs(pub usize);

impl FromStr for Jobs {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        let jobs = decimal(text).and_then(|jobs| usize::try_from(jobs).ok());
        jobs.filter(|jobs| (1..=JOBS_MAX).contains(jobs)).map(Self).ok_or(ArgError::Jobs)
    }
}

/// The suffix of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tld(pub String);

impl FromStr for Tld {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        let is_legal =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = (1..=TLD_LEN_MAX).contains(&text.len());
        if fits && text.bytes().all(is_legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ArgError::Tld)
        }
    }
}

/// A choice of encodings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encodings {
    pub br: bool,
    pub zstd: bool,
}

impl FromStr for Encodings {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        let mut chosen = Self::default();
        if text == "none" {
            return Ok(chosen);
        }
        for name in text.split(',') {
            let place = match name {
                "br" => &mut chosen.br,
                "zstd" => &mut chosen.zstd,
                _ => return Err(ArgError::Encodings),
            };
            if std::mem::replace(place, true) {
                return Err(ArgError::Encodings);
            }
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

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
    fn jobs_suffixes_and_encodings() {
        assert_eq!("1".parse(), Ok(Jobs(1)));
        assert_eq!(JOBS_MAX.to_string().parse(), Ok(Jobs(JOBS_MAX)));
        for wrong in ["0", "65", "-1", "x", ""] {
            assert_eq!(wrong.parse::<Jobs>(), Err(ArgError::Jobs), "{wrong:?}");
        }
        assert_eq!("site-1".parse(), Ok(Tld("site-1".to_owned())));
        for wrong in ["", "A", "a.b", "a_b", "12345678901234567"] {
            assert_eq!(wrong.parse::<Tld>(), Err(ArgError::Tld), "{wrong:?}");
        }
        let both = Encodings { br: true, zstd: true };
        assert_eq!("br,zstd".parse(), Ok(both));
        assert_eq!("zstd,br".parse(), Ok(both));
        assert_eq!("br".parse(), Ok(Encodings { br: true, zstd: false }));
        assert_eq!("none".parse(), Ok(Encodings::default()));
        for wrong in ["", "gzip", "br,", "br,br", "none,br", "BR"] {
            assert_eq!(wrong.parse::<Encodings>(), Err(ArgError::Encodings), "{wrong:?}");
        }
    }
}
