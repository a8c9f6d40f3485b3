//! `Accept-Encoding`: which form of content a client takes, and which it likes best.

use ron_codec::manifest::{Content, Stored};
use ron_io::stats::Encoded;

/// How content is encoded on its way; `None` is the identity form.
pub(super) type Coding = Option<Encoded>;

/// What the codings are worth to a client, in two thousandths of a weight: 0 is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    identity: u16,
    br: u16,
    zstd: u16,
}

/// What the identity form is worth to a client that does not name it: less than any it names.
const UNNAMED: u16 = 1;

impl Accepted {
    /// What a client says in these lines of `Accept-Encoding`. One that sends none wants what it
    /// can surely read.
    ///
    /// RFC 9110 §12.5.3. Members that are no codings and weights that are no numbers exclude
    /// nothing.
    pub(super) fn new<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Accepted {
        let (mut identity, mut br, mut zstd, mut others) = (None, None, None, None);
        for member in lines.into_iter().flat_map(|line| line.split(|byte| *byte == b',')) {
            let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let named: &mut Option<u16> = match parts.next().unwrap_or_default() {
                b"*" => &mut others,
                name if name.eq_ignore_ascii_case(b"identity") => &mut identity,
                name if name.eq_ignore_ascii_case(b"br") => &mut br,
                name if name.eq_ignore_ascii_case(b"zstd") => &mut zstd,
                _ => continue,
            };
            let worth = parts.find_map(weight).map_or(2000, |weight| 2 * weight);
            *named = Some(named.unwrap_or(0).max(worth));
        }
        Accepted {
            identity: identity.or(others.filter(|worth| *worth == 0)).unwrap_or(UNNAMED),
            br: br.or(others).unwrap_or(0),
            zstd: zstd.or(others).unwrap_or(0),
        }
    }

    /// Whether the identity form is acceptable.
    pub(super) fn takes_identity(self) -> bool {
        self.identity > 0
    }

    /// The form that the client likes best of those that there are; of several, the shortest.
    pub(super) fn choose(self, content: &Content) -> Option<(Coding, Stored)> {
        let forms = [
            (Some(Encoded::Br), content.br, self.br),
            (Some(Encoded::Zstd), content.zstd, self.zstd),
            (None, Some(content.identity), self.identity),
        ];
        let there = forms
            .into_iter()
            .filter_map(|(coding, form, worth)| (worth > 0).then_some((coding, form?, worth)));
        let best = there.min_by_key(|(_, form, worth)| (u16::MAX - worth, form.bytes));
        best.map(|(coding, form, _)| (coding, form))
    }
}

/// Whether the identity form is acceptable to a client that sent these `Accept-Encoding` lines.
///
/// RFC 9110 §12.5.3: it is, unless `identity;q=0` says no, or `*;q=0` does and identity is not
/// named.
pub(super) fn takes_identity<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> bool {
    Accepted::new(lines).takes_identity()
}

/// The weight that a parameter states, in thousandths (RFC 9110 §12.4.2).
fn weight(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', whole @ (b'0' | b'1'), rest @ ..] = parameter else { return None };
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut thousandths = u16::from(whole - b'0');
    for nth in 0..3 {
        thousandths = 10 * thousandths + digits.get(nth).map_or(0, |digit| u16::from(digit - b'0'));
    }
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use ron_codec::address::Address;

    use super::*;

    #[test]
    fn identity_is_excluded_by_name_or_by_the_star() {
        for (lines, taken) in [
            (&[][..], true),
            (&[""], true),
            (&["gzip, br"], true),
            (&["gzip;q=1.0, *;q=0.5"], true),
            (&["identity"], true),
            (&["identity;q=0"], false),
            (&["Identity ; Q=0.000"], false),
            (&["identity;q=0."], false),
            (&["identity;q=0.001"], true),
            (&["identity;q=0.0000"], true),
            (&["identity;q=zero"], true),
            (&["*;q=0"], false),
            (&["br, *;q=0"], false),
            (&["*;q=0, identity;q=0.1"], true),
            (&["identity;q=0.1, *;q=0"], true),
            (&["*, identity;q=0"], false),
            (&["br", "identity;q=0"], false),
            (&["gzip;q=0"], true),
            (&["identityx;q=0"], true),
            (&[",;,;;q=0,"], true),
        ] {
            let lines = lines.iter().map(|line: &&str| line.as_bytes());
            assert_eq!(takes_identity(lines.clone()), taken, "{:?}", lines.collect::<Vec<_>>());
        }
    }

    fn content(br: Option<u64>, zstd: Option<u64>) -> Content {
        let stored = |bytes| Stored { address: Address::of(b"x"), bytes };
        Content {
            identity: stored(100),
            mime: "text/plain".into(),
            br: br.map(stored),
            zstd: zstd.map(stored),
        }
    }

    #[test]
    fn the_form_that_is_liked_best_is_chosen() {
        let all = content(Some(30), Some(40));
        for (lines, coding) in [
            (&[][..], Some(None)),
            (&[""], Some(None)),
            (&["gzip"], Some(None)),
            (&["br, zstd, gzip, identity"], Some(Some(Encoded::Br))),
            (&["br;q=0.9, zstd"], Some(Some(Encoded::Zstd))),
            (&["zstd"], Some(Some(Encoded::Zstd))),
            (&["ZSTD;q=0.001"], Some(Some(Encoded::Zstd))),
            (&["br;q=0"], Some(None)),
            (&["br;q=0, *"], Some(Some(Encoded::Zstd))),
            (&["*"], Some(Some(Encoded::Br))),
            (&["br;q=0.5, identity;q=0.6"], Some(None)),
            (&["br;q=0.5", "identity;q=0.4"], Some(Some(Encoded::Br))),
            (&["identity;q=0"], None),
            (&["*;q=0"], None),
            (&["zstd, *;q=0"], Some(Some(Encoded::Zstd))),
            (&["br;q=2"], Some(Some(Encoded::Br))),
        ] {
            let accepted = Accepted::new(lines.iter().map(|line: &&str| line.as_bytes()));
            let chosen = accepted.choose(&all).map(|(coding, _)| coding);
            assert_eq!(chosen, coding, "{lines:?}");
        }
        let accepted = Accepted::new([&b"br, zstd"[..]]);
        let chosen = |content: &Content| accepted.choose(content).unwrap().0;
        assert_eq!(chosen(&content(None, None)), None);
        assert_eq!(chosen(&content(Some(50), Some(40))), Some(Encoded::Zstd));
        assert_eq!(chosen(&content(None, Some(40))), Some(Encoded::Zstd));
    }

    #[test]
    fn weights_have_three_digits() {
        for (parameter, expected) in [
            ("q=0", Some(0)),
            ("q=1", Some(1000)),
            ("Q=0.5", Some(500)),
            ("q=0.", Some(0)),
            ("q=1.", Some(1000)),
            ("q=0.123", Some(123)),
            ("q=1.000", Some(1000)),
            ("q=1.001", None),
            ("q=0.1234", None),
            ("q=2", None),
            ("q=", None),
            ("q=.5", None),
            ("q=0.x", None),
            ("level=1", None),
        ] {
            assert_eq!(weight(parameter.as_bytes()), expected, "{parameter}");
        }
    }
}
