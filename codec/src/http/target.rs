//! Request targets: what a path asks for.
//!
//! The whole name space is `/o/`, and `/n/` for names. A path is given without scheme and host, as
//! `RequestHead::target` has it. This module knows the shape of a route; it does not know which
//! methods a route has.

use crate::address::{ADDRESS_TEXT_LEN, Address};
use crate::limits::TLD_LEN_MAX;
use crate::manifest::{MANIFEST_NAME, PAYLOAD_NAME};

/// Longest decoded address segment: the full spelling, a dot and a suffix.
const SEGMENT_LEN_MAX: usize = ADDRESS_TEXT_LEN + 1 + TLD_LEN_MAX;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/o/<addr>[.<tld>][/<rel>]`: content that has an address.
    Object { address: Address, rel: Rel<'a> },
    /// `/o` or `/o/`: where content without an address is sent.
    Upload,
    /// `/n/<path>`: what an operator gave this raw path to.
    Name(&'a str),
    /// Nothing that is served.
    Unknown,
}

/// Which part of an address is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rel<'a> {
    /// The bytes of the object: no `rel`, or `payload.bin`.
    Payload,
    /// A slash and nothing behind it: the index of a bundle, the bytes of an object.
    Index,
    /// `Manifest.toml`.
    Manifest,
    /// Any other path, raw: still percent-encoded, without its leading slash.
    Path(&'a str),
}

/// Reads the path of a target; a query is ignored.
#[must_use]
pub fn route(target: &str) -> Route<'_> {
    let path = match memchr::memchr(b'?', target.as_bytes()) {
        Some(query) => &target[..query],
        None => target,
    };
    if let Some(name) = path.strip_prefix("/n/") {
        return Route::Name(name);
    }
    let Some(rest) = path.strip_prefix("/o") else { return Route::Unknown };
    let rest = match rest.strip_prefix('/') {
        Some(rest) => rest,
        None if rest.is_empty() => return Route::Upload,
        None => return Route::Unknown,
    };
    if rest.is_empty() {
        return Route::Upload;
    }
    let (segment, rel) = match rest.split_once('/') {
        Some((segment, rel)) => (segment, parse_rel(rel)),
        None => (rest, Rel::Payload),
    };
    match parse_segment(segment) {
        Some(address) => Route::Object { address, rel },
        None => Route::Unknown,
    }
}

fn parse_rel(rel: &str) -> Rel<'_> {
    match rel {
        "" => Rel::Index,
        PAYLOAD_NAME => Rel::Payload,
        MANIFEST_NAME => Rel::Manifest,
        path => Rel::Path(path),
    }
}

/// Decodes a raw path into `out`, as text without a slash at its start and without two in a row:
/// what clients and proxies write in one of these ways, they mean in another. `None` when an escape
/// is broken, the bytes are not UTF-8, or `out` is too short.
pub fn decode_path<'o>(raw: &str, out: &'o mut [u8]) -> Option<&'o str> {
    let len = percent_decode(raw.as_bytes(), out)?;
    let mut kept = 0;
    for at in 0..len {
        let byte = out[at];
        if byte == b'/' && (kept == 0 || out[kept - 1] == b'/') {
            continue;
        }
        out[kept] = byte;
        kept += 1;
    }
    std::str::from_utf8(&out[..kept]).ok()
}

/// Reads an address segment. Some clients encode the colon of `b3:`, and RFC 3986 §2.4 makes every
/// encoding of an unreserved character the same name, so escapes are decoded first.
fn parse_segment(segment: &str) -> Option<Address> {
    if memchr::memchr(b'%', segment.as_bytes()).is_none() {
        return Address::parse_route_segment(segment).ok();
    }
    let mut decoded = [0; SEGMENT_LEN_MAX];
    let len = percent_decode(segment.as_bytes(), &mut decoded)?;
    Address::parse_route_segment(std::str::from_utf8(&decoded[..len]).ok()?).ok()
}

/// Decodes `text` into `out` and returns the length; `None` when an escape is broken or `out` is
/// too short. What is decoded is bytes, and need not be text.
pub fn percent_decode(mut text: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut len = 0;
    while let [byte, rest @ ..] = text {
        let (byte, rest) = match (byte, rest) {
            (b'%', [high, low, rest @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                ((digit(high)? << 4 | digit(low)?) as u8, rest)
            }
            (b'%', _) => return None,
            (&byte, rest) => (byte, rest),
        };
        *out.get_mut(len)? = byte;
        len += 1;
        text = rest;
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    fn object(rel: Rel<'_>) -> Route<'_> {
        Route::Object { address: HEX.parse().unwrap(), rel }
    }

    #[test]
    fn every_spelling_of_an_address() {
        for segment in [
            HEX.to_owned(),
            format!("b3:{HEX}"),
            format!("b3%3A{HEX}"),
            format!("b3%3a{HEX}"),
            format!("%62%33%3A{HEX}"),
            format!("b3:{HEX}.post"),
            format!("b3%3A{HEX}%2Epost"),
            format!("{HEX}.abcdefghijklmnop"),
            format!("b3%3A{HEX}.abcdefghijklmnop"),
        ] {
            for end in ["", "/payload.bin", "?x=/y", "/payload.bin?a/b"] {
                let path = format!("/o/{segment}{end}");
                assert_eq!(route(&path), object(Rel::Payload), "{path}");
            }
            for end in ["/", "/?x", "/?/y"] {
                let path = format!("/o/{segment}{end}");
                assert_eq!(route(&path), object(Rel::Index), "{path}");
            }
        }
    }

    #[test]
    fn parts_of_an_address() {
        let part = |rel: &str| format!("/o/{HEX}/{rel}");
        assert_eq!(route(&part("Manifest.toml")), object(Rel::Manifest));
        assert_eq!(route(&part("manifest.toml")), object(Rel::Path("manifest.toml")));
        assert_eq!(route(&part("a/b%20c.js?v=1")), object(Rel::Path("a/b%20c.js")));
        assert_eq!(route(&part("/payload.bin")), object(Rel::Path("/payload.bin")));
        assert_eq!(route(&part("payload.bin/")), object(Rel::Path("payload.bin/")));
    }

    #[test]
    fn names() {
        for (path, name) in [("/n/", ""), ("/n/a/b%20c?x", "a/b%20c"), ("/n//a/", "/a/")] {
            assert_eq!(route(path), Route::Name(name), "{path}");
        }
        for path in ["/n", "/N/a", "/na"] {
            assert_eq!(route(path), Route::Unknown, "{path}");
        }
    }

    #[test]
    fn paths_are_decoded() {
        let mut out = [0; 16];
        for (raw, path) in [
            ("a/b%20c.js", Some("a/b c.js")),
            ("//a///b//", Some("a/b/")),
            ("", Some("")),
            ("/", Some("")),
            ("%2Fa%2f%2Fb", Some("a/b")),
            ("%C3%A4", Some("ä")),
            ("%C3", None),
            ("%", None),
            ("%4", None),
            ("%G0", None),
            ("0123456789abcdef", Some("0123456789abcdef")),
            ("0123456789abcdefg", None),
        ] {
            assert_eq!(decode_path(raw, &mut out), path, "{raw}");
        }
    }

    #[test]
    fn uploads() {
        for path in ["/o", "/o/", "/o?x", "/o/?x=1"] {
            assert_eq!(route(path), Route::Upload, "{path}");
        }
    }

    #[test]
    fn everything_else_is_unknown() {
        for path in [
            String::new(),
            "/".into(),
            "o".into(),
            "/O/".into(),
            "/oo".into(),
            format!("/o{HEX}"),
            format!("/{HEX}"),
            format!("//o/{HEX}"),
            format!("/o//{HEX}"),
            format!("/o/{}", &HEX[1..]),
            format!("/o/{HEX}0"),
            format!("/o/{}", HEX.to_uppercase()),
            format!("/o/b3%3Ab3:{HEX}"),
            format!("/o/b3%{HEX}"),
            format!("/o/b3%3{HEX}"),
            format!("/o/b3%3Z{HEX}"),
            format!("/o/b3%+A{HEX}"),
            format!("/o/{HEX}%"),
            format!("/o/{HEX}%2"),
            format!("/o/{HEX}%2F"),
            format!("/o/{HEX}%00"),
            format!("/o/{HEX}%FF"),
            format!("/o/{HEX}."),
            format!("/o/{HEX}.abcdefghijklmnopq"),
            format!("/o/b3%3A{HEX}.abcdefghijklmnopq"),
        ] {
            assert_eq!(route(&path), Route::Unknown, "{path}");
        }
    }

    proptest! {
        #[test]
        fn escapes_never_change_the_meaning(
            digest: [u8; 32],
            escaped in prop::collection::vec(any::<bool>(), ADDRESS_TEXT_LEN),
        ) {
            let address = Address::from_bytes(digest);
            let text = address.to_string();
            let segment: String = text
                .bytes()
                .zip(escaped)
                .map(|(b, esc)| if esc { format!("%{b:02X}") } else { char::from(b).to_string() })
                .collect();
            let path = format!("/o/{segment}");
            prop_assert_eq!(route(&path), Route::Object { address, rel: Rel::Payload });
        }

        #[test]
        fn no_path_panics(path in "(/|o|%|\\?|[a-f0-9]|\\PC){0,80}") {
            let _ = route(&path);
            let _ = route(&format!("/o/{path}"));
        }
    }
}
