//! Entity tags and the preconditions built on them.
//!
//! The tag of a representation is its address in quotes, always strong. The functions answer one
//! question each about one representation that exists; what status follows is the session's. A
//! member of a list that is not an entity tag ends that line: nothing behind it can be trusted to
//! be what it looks like.

use super::fields::trim_ows;
use crate::address::{ADDRESS_TEXT_LEN, Address};

/// Bytes of a strong tag, quotes included.
pub const ETAG_LEN: usize = ADDRESS_TEXT_LEN + 2;

/// The strong tag of the representation whose digest is `address`: `"b3:<hex>"`.
#[must_use]
pub fn etag(address: &Address) -> [u8; ETAG_LEN] {
    let mut tag = [b'"'; ETAG_LEN];
    tag[1..=ADDRESS_TEXT_LEN].copy_from_slice(&address.to_text());
    tag
}

/// Whether `If-None-Match` names the representation (RFC 9110 §13.1.2: weak comparison), so that a
/// GET or HEAD is answered 304. `values` are the lines of the field.
pub fn if_none_match<'a>(values: impl IntoIterator<Item = &'a [u8]>, etag_of: &Address) -> bool {
    any_matches(values, etag_of, Comparison::Weak)
}

/// Whether `If-Match` names the representation (RFC 9110 §13.1.1: strong comparison). When the
/// field was sent and this is false, the answer is 412.
pub fn if_match<'a>(values: impl IntoIterator<Item = &'a [u8]>, etag_of: &Address) -> bool {
    any_matches(values, etag_of, Comparison::Strong)
}

/// Whether `If-Range` holds (RFC 9110 §13.1.5), so that `Range` counts. A date never holds, since
/// content has none, and neither does a weak tag.
#[must_use]
pub fn if_range(value: &[u8], etag_of: &Address) -> bool {
    trim_ows(value) == etag(etag_of)
}

#[derive(Clone, Copy, PartialEq)]
enum Comparison {
    Strong,
    Weak,
}

fn any_matches<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
    etag_of: &Address,
    comparison: Comparison,
) -> bool {
    let wanted = etag_of.to_text();
    values.into_iter().any(|value| {
        trim_ows(value) == b"*"
            || Tags { rest: value }
                .any(|tag| (comparison == Comparison::Weak || !tag.weak) && tag.opaque == wanted)
    })
}

/// One entity tag; `opaque` is what stands between its quotes.
struct Tag<'a> {
    weak: bool,
    opaque: &'a [u8],
}

/// The tags of one line, up to its end or to the first thing that is not a tag.
struct Tags<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tags<'a> {
    type Item = Tag<'a>;

    fn next(&mut self) -> Option<Tag<'a>> {
        while let [b' ' | b'\t' | b',', rest @ ..] = self.rest {
            self.rest = rest;
        }
        let text = std::mem::take(&mut self.rest);
        // RFC 9110 §8.8.3: the W of a weak tag is case-sensitive.
        let (weak, text) = match text.strip_prefix(b"W/") {
            Some(text) => (true, text),
            None => (false, text),
        };
        let text = text.strip_prefix(b"\"")?;
        let (opaque, after) = text.split_at(memchr::memchr(b'"', text)?);
        let legal = |&byte: &u8| byte == 0x21 || (byte >= 0x23 && byte != 0x7f);
        let after = trim_ows(&after[1..]);
        if !opaque.iter().all(legal) || !matches!(after, [] | [b',', ..]) {
            return None;
        }
        self.rest = after;
        Some(Tag { weak, opaque })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address() -> Address {
        Address::from_bytes([0xab; 32])
    }

    fn own() -> String {
        format!("\"b3:{}\"", "ab".repeat(32))
    }

    fn none_match(value: &str) -> bool {
        if_none_match([value.as_bytes()], &address())
    }

    fn match_(value: &str) -> bool {
        if_match([value.as_bytes()], &address())
    }

    #[test]
    fn the_tag_is_the_quoted_address() {
        assert_eq!(etag(&address()), own().as_bytes());
    }

    #[test]
    fn comparison_is_weak_for_none_match_and_strong_for_match() {
        let (own, weak) = (own(), format!("W/{}", own()));
        assert!(none_match(&own) && match_(&own));
        assert!(none_match(&weak) && !match_(&weak));
        assert!(!none_match(&format!("w/{own}")));
        assert!(!none_match("\"b3:00\"") && !match_("\"b3:00\""));
    }

    #[test]
    fn lists_and_lines_are_searched_to_their_end() {
        let own = own();
        for list in [
            format!("\"a\", {own}"),
            format!("\"a,b\" ,\t{own} , \"c\""),
            format!(",, {own}"),
            format!("W/\"x\",{own},"),
            format!("\"\", {own}"),
            format!("\"W/\\\", {own}"),
        ] {
            assert!(none_match(&list) && match_(&list), "{list}");
        }
        assert!(if_none_match([&b"\"a\""[..], own.as_bytes()], &address()));
        assert!(!if_none_match([&b"\"a\""[..], b"\"b\""], &address()));
        assert!(!if_none_match([], &address()));
    }

    #[test]
    fn a_star_stands_alone() {
        assert!(none_match("*") && match_(" * "));
        for not_star in ["\"*\"", "*, \"a\"", "**", "W/*", ""] {
            assert!(!none_match(not_star) && !match_(not_star), "{not_star}");
        }
    }

    #[test]
    fn malformed_members_match_nothing_and_hide_what_follows() {
        let own = own();
        let bare = own.trim_matches('"');
        for value in [
            bare.to_owned(),
            format!("\"{bare}"),
            format!("{bare}\""),
            format!("{own}x"),
            format!("x, {own}"),
            format!("\"a\"{own}"),
            format!("\"a b\", {own}"),
            format!("W/ {own}"),
        ] {
            assert!(!none_match(&value) && !match_(&value), "{value}");
        }
        assert!(none_match(&format!("{own}, x")));
    }

    #[test]
    fn if_range_wants_exactly_the_strong_tag() {
        let own = own();
        let holds = |value: &str| if_range(value.as_bytes(), &address());
        assert!(holds(&own));
        assert!(holds(&format!(" {own}")));
        for value in [
            format!("W/{own}"),
            format!("{own}, {own}"),
            "*".to_owned(),
            String::new(),
            "Sat, 29 Oct 1994 19:43:31 GMT".to_owned(),
        ] {
            assert!(!holds(&value), "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_list_matches_exactly_when_a_member_is_ours(
            members in prop::collection::vec((any::<bool>(), any::<bool>(), "[!#-~]{0,8}"), 0..6),
            separator in "[ \t]{0,2},[ \t,]{0,2}",
        ) {
            let tags: Vec<String> = members
                .iter()
                .map(|(ours, weak, text)| {
                    let tag = if *ours { own() } else { format!("\"{text}\"") };
                    if *weak { format!("W/{tag}") } else { tag }
                })
                .collect();
            let list = tags.join(&separator);
            prop_assert_eq!(none_match(&list), members.iter().any(|(ours, ..)| *ours));
            prop_assert_eq!(match_(&list), members.iter().any(|(ours, weak, _)| *ours && !*weak));
        }

        #[test]
        fn no_value_panics(value: Vec<u8>) {
            let _ = if_none_match([&value[..]], &address());
            let _ = if_range(&value, &address());
        }
    }
}
