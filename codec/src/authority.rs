//! Who may write, and who may read what is for operators: one table for every listener.
//!
//! ```text
//!  token shown ──► known: yes, from anywhere               unknown: 401, from anywhere
//!  none shown  ──► some are configured: 401                 (loopback included)
//!              └─► none are: a request of this machine: yes            any other: 403
//! ```
//!
//! A connection from loopback is not yet a request of this machine. A proxy on the same host
//! connects from loopback for the whole internet, and so does a browser for any page it shows, even
//! for one whose name was pointed at 127.0.0.1. [`Sender`] carries the signs of both, and a request
//! with one of them is not trusted.
//!
//! Nothing here knows a wire: callers read the fields of theirs into a [`Sender`].

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use thiserror::Error;

use crate::{address::Address, error::ErrorCode};

/// What a node was configured with to tell who may write.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    tokens: Vec<Token>,
    loopback: bool,
    names: Vec<String>,
}

/// A token as its length and digest: digests are compared in constant time and leak nothing.
#[derive(Clone, PartialEq, Eq)]
struct Token {
    len: usize,
    digest: Address,
}

/// What is known of the sender of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sender<'a> {
    /// The connection comes from a loopback address.
    pub local: bool,
    /// The name the request was sent to, with or without port; `None` where the wire has none.
    pub host: Option<&'a [u8]>,
    /// A proxy handed it on: a field of [`is_proxy_field`], or HTTP/1.0.
    pub proxied: bool,
    /// A page in a browser asks: `Origin`, or a `Sec-Fetch-Site` other than `none`.
    pub page: bool,
    /// The token that was shown.
    pub token: Option<&'a [u8]>,
}

/// Why a request has no authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Denied {
    #[error("a token is needed")]
    TokenMissing,
    #[error("the token is not known")]
    TokenUnknown,
    /// No token is configured, so none would help.
    #[error("only this machine is allowed, {0}")]
    NotTrusted(Distrust),
}

/// Why a request does not count as one of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Distrust {
    #[error("and the request comes from another one")]
    Remote,
    #[error("and write_loopback is off")]
    Off,
    #[error("and the request comes through a proxy")]
    Proxied,
    #[error("and the request comes from a web page")]
    Page,
    #[error("and Host is no IP address, not localhost and none of server_names")]
    Name,
}

impl Denied {
    /// 401 where a token would help, else 403.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Denied::TokenMissing | Denied::TokenUnknown => ErrorCode::Unauthorized,
            Denied::NotTrusted(_) => ErrorCode::Forbidden,
        }
    }
}

impl Default for Authority {
    /// Loopback may write; there are no tokens and no names.
    fn default() -> Authority {
        Authority { tokens: Vec::new(), loopback: true, names: Vec::new() }
    }
}

impl Authority {
    /// The tokens that are taken, whether loopback is trusted while there are none, and the names
    /// beside `localhost` that the node is reached by.
    pub fn new(tokens: &[String], loopback: bool, names: &[String]) -> Authority {
        let token = |text: &String| Token { len: text.len(), digest: Address::of(text.as_bytes()) };
        Authority { tokens: tokens.iter().map(token).collect(), loopback, names: names.to_vec() }
    }

    /// The same with these tokens in place of those it had.
    #[must_use]
    pub fn with_tokens(&self, tokens: &[String]) -> Authority {
        Authority::new(tokens, self.loopback, &self.names)
    }

    /// Whether a token is `len` bytes long, so that it is worth keeping until it is whole.
    #[must_use]
    pub fn has_token_of(&self, len: usize) -> bool {
        self.tokens.iter().any(|token| token.len == len)
    }

    /// Whether this sender may change something.
    ///
    /// # Errors
    /// Why it may not.
    pub fn may_write(&self, sender: &Sender<'_>) -> Result<(), Denied> {
        if let Some(token) = sender.token {
            return self.check_token(token);
        }
        if !self.tokens.is_empty() {
            return Err(Denied::TokenMissing);
        }
        match self.distrust(sender) {
            None => Ok(()),
            Some(why) => Err(Denied::NotTrusted(why)),
        }
    }

    /// Whether this sender may read what is for operators. Where the listener can be reached from
    /// elsewhere it was opened on purpose, and a reader needs no token; a page and a name that is
    /// not ours are refused everywhere, and a proxy where only this machine was let in.
    ///
    /// # Errors
    /// Why it may not.
    pub fn may_look(&self, sender: &Sender<'_>) -> Result<(), Denied> {
        if let Some(token) = sender.token {
            return self.check_token(token);
        }
        let why = match sender {
            Sender { page: true, .. } => Distrust::Page,
            Sender { host: Some(host), .. } if !self.is_own_name(host) => Distrust::Name,
            Sender { local: true, proxied: true, .. } => Distrust::Proxied,
            _ => return Ok(()),
        };
        if self.tokens.is_empty() {
            Err(Denied::NotTrusted(why))
        } else {
            Err(Denied::TokenMissing)
        }
    }

    fn check_token(&self, shown: &[u8]) -> Result<(), Denied> {
        let (empty, shown) = (shown.is_empty(), Address::of(shown));
        let known = self.tokens.iter().fold(false, |known, token| known | (token.digest == shown));
        if known && !empty { Ok(()) } else { Err(Denied::TokenUnknown) }
    }

    fn distrust(&self, sender: &Sender<'_>) -> Option<Distrust> {
        let foreign = sender.host.is_some_and(|host| !self.is_own_name(host));
        match sender {
            Sender { local: false, .. } => Some(Distrust::Remote),
            _ if !self.loopback => Some(Distrust::Off),
            Sender { proxied: true, .. } => Some(Distrust::Proxied),
            Sender { page: true, .. } => Some(Distrust::Page),
            _ if foreign => Some(Distrust::Name),
            _ => None,
        }
    }

    /// Whether `Host` cannot have been chosen by the owner of a name of the DNS.
    fn is_own_name(&self, host: &[u8]) -> bool {
        let Some(name) = std::str::from_utf8(host).ok().and_then(without_port) else {
            return false;
        };
        if let Some(literal) = name.strip_prefix('[') {
            let literal = literal.strip_suffix(']');
            let address = literal.and_then(|literal| literal.parse::<Ipv6Addr>().ok());
            return address.is_some_and(|address| !address.to_canonical().is_unspecified());
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        // The unspecified address leads a browser here, too, and no rule of its own stops it.
        name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4() && !address.is_unspecified())
            || name.eq_ignore_ascii_case("localhost")
            || self.names.iter().any(|own| name.eq_ignore_ascii_case(own))
    }
}

/// `host` without `:port`; `None` when what stands behind the colon is no number.
fn without_port(host: &str) -> Option<&str> {
    let colon = match host.rfind(']') {
        Some(bracket) => host[bracket..].find(':').map(|at| bracket + at),
        None => host.find(':'),
    };
    let Some(at) = colon else { return Some(host) };
    let (name, port) = (&host[..at], &host[at + 1..]);
    port.bytes().all(|byte| byte.is_ascii_digit()).then_some(name)
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("tokens", &self.tokens.len())
            .field("loopback", &self.loopback)
            .field("names", &self.names)
            .finish()
    }
}

/// The token of an `Authorization: Bearer …`; `None` for any other scheme (RFC 6750 §2.1). Where
/// the token is missing it is empty, which is nobody's: a script whose variable is not
/// set is refused for a wrong token.
#[must_use]
pub fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"Bearer";
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    let ends = token.first().is_none_or(u8::is_ascii_whitespace);
    (ends && scheme.eq_ignore_ascii_case(SCHEME)).then(|| token.trim_ascii())
}

/// Fields that say that a proxy handed the request on, beside all that begin with `X-Forwarded-`:
/// RFC 7239, RFC 9110 §7.6.3, RFC 8586, and what proxies and networks in use write.
pub const PROXY_FIELDS: [&str; 8] = [
    "Forwarded",
    "Via",
    "CDN-Loop",
    "X-Real-IP",
    "X-Client-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "X-Varnish",
];

/// Whether a field of this name says that a proxy handed the request on.
#[must_use]
pub fn is_proxy_field(name: &str) -> bool {
    const START: &str = "X-Forwarded-";
    let start = name.get(..START.len());
    PROXY_FIELDS.iter().any(|known| name.eq_ignore_ascii_case(known))
        || start.is_some_and(|start| start.eq_ignore_ascii_case(START))
}

/// Whether a field of this name and value says that a page in a browser asks.
#[must_use]
pub fn is_page_field(name: &str, value: &[u8]) -> bool {
    name.eq_ignore_ascii_case("Origin")
        || name.eq_ignore_ascii_case("Sec-Fetch-Site") && value != b"none"
}

#[cfg(test)]
mod tests {
    use super::*;

    const REMOTE: Denied = Denied::NotTrusted(Distrust::Remote);
    const PROXIED: Denied = Denied::NotTrusted(Distrust::Proxied);
    const PAGE: Denied = Denied::NotTrusted(Distrust::Page);
    const NAME: Denied = Denied::NotTrusted(Distrust::Name);
    const OFF: Denied = Denied::NotTrusted(Distrust::Off);
    const MISSING: Denied = Denied::TokenMissing;
    const UNKNOWN: Denied = Denied::TokenUnknown;

    fn with_tokens() -> Authority {
        Authority::new(&["one".into(), "other".into()], true, &[])
    }

    /// A request of this machine.
    fn near<'a>() -> Sender<'a> {
        Sender { local: true, host: Some(b"127.0.0.1:9080"), ..Sender::default() }
    }

    /// What each sender may do: write without and with tokens configured, and look without them.
    #[test]
    fn the_table() {
        let far = Sender { local: false, ..near() };
        let proxied = Sender { proxied: true, ..near() };
        let page = Sender { page: true, ..near() };
        let named = Sender { host: Some(b"evil.example:9080"), ..near() };
        let nameless = Sender { host: None, ..near() };
        let (no, yes) = (Authority::default(), with_tokens());
        for (who, sender, write, write_with_tokens, look) in [
            ("near", near(), Ok(()), Err(MISSING), Ok(())),
            ("nameless", nameless, Ok(()), Err(MISSING), Ok(())),
            ("far", far, Err(REMOTE), Err(MISSING), Ok(())),
            ("proxied", proxied, Err(PROXIED), Err(MISSING), Err(PROXIED)),
            ("far, proxied", Sender { local: false, ..proxied }, Err(REMOTE), Err(MISSING), Ok(())),
            ("page", page, Err(PAGE), Err(MISSING), Err(PAGE)),
            ("far page", Sender { local: false, ..page }, Err(REMOTE), Err(MISSING), Err(PAGE)),
            ("named", named, Err(NAME), Err(MISSING), Err(NAME)),
            ("far named", Sender { local: false, ..named }, Err(REMOTE), Err(MISSING), Err(NAME)),
        ] {
            assert_eq!(no.may_write(&sender), write, "{who}");
            assert_eq!(yes.may_write(&sender), write_with_tokens, "{who}, tokens");
            assert_eq!(no.may_look(&sender), look, "{who} looks");
            let look = look.map_err(|_| MISSING);
            assert_eq!(yes.may_look(&sender), look, "{who} looks, tokens");
            for (token, known) in [("one", true), ("other", true), ("on", false), ("", false)] {
                let sender = Sender { token: Some(token.as_bytes()), ..sender };
                let expected = if known { Ok(()) } else { Err(UNKNOWN) };
                assert_eq!(yes.may_write(&sender), expected, "{who}, {token:?}");
                assert_eq!(yes.may_look(&sender), expected, "{who}, {token:?}");
                assert_eq!(no.may_write(&sender), Err(UNKNOWN), "{who}, {token:?}, none exist");
                assert_eq!(no.may_look(&sender), Err(UNKNOWN), "{who}, {token:?}, none exist");
            }
        }
    }

    #[test]
    fn loopback_can_be_distrusted_altogether() {
        let off = Authority::new(&[], false, &[]);
        assert_eq!(off.may_write(&near()), Err(OFF));
        assert_eq!(off.may_look(&near()), Ok(()), "who looks changes nothing");
        let off = Authority::new(&["t".into()], false, &[]);
        assert_eq!(off.may_write(&near()), Err(MISSING));
        assert_eq!(off.may_write(&Sender { token: Some(b"t"), ..near() }), Ok(()));
    }

    #[test]
    fn a_name_must_be_an_address_or_known() {
        let authority = Authority::new(&[], true, &["cdn.example".into()]);
        for host in [
            "127.0.0.1",
            "127.0.0.1:9080",
            "192.0.2.7:1",
            "[::1]",
            "[::1]:9080",
            "[2001:db8::1]:80",
            "localhost",
            "LocalHost:9080",
            "localhost.",
            "localhost:",
            "cdn.example",
            "CDN.example:443",
            "cdn.example.",
        ] {
            let sender = Sender { host: Some(host.as_bytes()), ..near() };
            assert_eq!(authority.may_write(&sender), Ok(()), "{host}");
        }
        for host in [
            "",
            ":9080",
            "evil.example",
            "evil.example:9080",
            "127.0.0.1.evil.example",
            "127.1",
            "0x7f000001",
            "2130706433",
            "::1",
            "[::1",
            "[127.0.0.1]",
            "[::1].evil.example",
            "localhost.evil.example",
            "x.localhost",
            "xcdn.example",
            "localhost:80:80",
            "localhost:x",
            "127.0.0.1:80@evil.example",
            "\u{ff}",
        ] {
            let sender = Sender { host: Some(host.as_bytes()), ..near() };
            assert_eq!(authority.may_write(&sender), Err(NAME), "{host}");
            assert_eq!(authority.may_look(&sender), Err(NAME), "{host}");
        }
        assert_eq!(authority.may_write(&Sender { host: Some(&[0xff]), ..near() }), Err(NAME));
    }

    #[test]
    fn fields_give_proxies_and_pages_away() {
        for name in [
            "Forwarded",
            "forwarded",
            "Via",
            "X-Real-IP",
            "X-Forwarded-For",
            "x-forwarded-proto",
            "X-Forwarded-Host",
            "X-Forwarded-Port",
            "CDN-Loop",
            "cf-connecting-ip",
            "True-Client-IP",
            "X-Client-IP",
            "X-Varnish",
        ] {
            assert!(is_proxy_field(name), "{name}");
        }
        for name in ["X-Forwarded", "Forward", "Viaduct", "Host", "X-Corr-Id", "X-Forwardéd-For"] {
            assert!(!is_proxy_field(name), "{name}");
        }
        for (name, value, page) in [
            ("Origin", "null", true),
            ("origin", "http://127.0.0.1:9080", true),
            ("Sec-Fetch-Site", "none", false),
            ("Sec-Fetch-Site", "same-origin", true),
            ("sec-fetch-site", "cross-site", true),
            ("Sec-Fetch-Site", "", true),
            ("Sec-Fetch-Mode", "cors", false),
        ] {
            assert_eq!(is_page_field(name, value.as_bytes()), page, "{name}: {value}");
        }
    }

    #[test]
    fn only_the_bearer_scheme_carries_a_token() {
        assert_eq!(bearer(b"Bearer one"), Some(&b"one"[..]));
        assert_eq!(bearer(b"bearer   one "), Some(&b"one"[..]));
        for empty in ["Bearer ", "Bearer", "bearer\t "] {
            assert_eq!(bearer(empty.as_bytes()), Some(&b""[..]), "{empty:?}");
        }
        assert_eq!(bearer(b"Bearer\tone"), Some(&b"one"[..]));
        for other in ["Basic b25l", "Bear", "", "Bearerone"] {
            assert_eq!(bearer(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn tokens_are_known_by_their_length_and_never_shown() {
        let authority = with_tokens();
        assert!(authority.has_token_of(3) && authority.has_token_of(5));
        assert!(!authority.has_token_of(4) && !authority.has_token_of(0));
        let shown = format!("{authority:?}");
        assert!(shown.contains("tokens: 2") && !shown.contains("one"), "{shown}");
    }

    #[test]
    fn an_empty_token_opens_nothing() {
        let authority = Authority::new(&[String::new()], true, &[]);
        assert_eq!(authority.may_write(&Sender { token: Some(b""), ..near() }), Err(UNKNOWN));
        assert_eq!(authority.may_write(&near()), Err(MISSING));
    }

    #[test]
    fn a_token_that_would_help_is_401_and_else_it_is_403() {
        assert_eq!((MISSING.code(), UNKNOWN.code()), (ErrorCode::Unauthorized, UNKNOWN.code()));
        assert_eq!(UNKNOWN.code(), ErrorCode::Unauthorized);
        for denied in [REMOTE, PROXIED, PAGE, NAME, OFF] {
            assert_eq!(denied.code(), ErrorCode::Forbidden, "{denied}");
        }
    }
}
