//! Field lines of a head that may be repeated, and the small grammar their values share.
//!
//! RFC 9110 §5.3 lets a sender split a list over several lines of the same name. Most clients send
//! one line, so the first is kept at hand and the others are found again in the head only when
//! somebody asks. This module interprets no value.

use std::fmt;

/// All lines of one list-valued field, in order, borrowed from the head.
#[derive(Clone, Copy, Default)]
pub struct FieldLines<'a> {
    name: &'static str,
    first: Option<&'a [u8]>,
    /// The whole head when the field is repeated, otherwise empty.
    head: &'a [u8],
}

/// Iterator over the values of a field's lines, without the white space around them.
#[derive(Clone)]
pub struct FieldValues<'a> {
    name: &'static str,
    first: Option<&'a [u8]>,
    head: &'a [u8],
}

impl<'a> FieldLines<'a> {
    /// A field that was sent in one line: for callers that have a value but no head.
    #[must_use]
    pub const fn from_value(value: &'a [u8]) -> Self {
        Self { name: "", first: Some(value), head: &[] }
    }

    /// No line was sent.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The values, one per line sent. A list is what these values are when joined with commas.
    #[must_use]
    pub const fn values(&self) -> FieldValues<'a> {
        let first = if self.head.is_empty() { self.first } else { None };
        FieldValues { name: self.name, first, head: self.head }
    }

    pub(super) const fn named(name: &'static str) -> Self {
        Self { name, first: None, head: &[] }
    }

    /// Notes that `head`, a head without obs-fold or bare LF, has a line with `value`.
    pub(super) fn push(&mut self, value: &'a [u8], head: &'a [u8]) {
        match self.first {
            None => self.first = Some(value),
            Some(_) => self.head = head,
        }
    }
}

impl fmt::Debug for FieldLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.values().map(String::from_utf8_lossy)).finish()
    }
}

impl<'a> IntoIterator for FieldLines<'a> {
    type Item = &'a [u8];
    type IntoIter = FieldValues<'a>;

    fn into_iter(self) -> FieldValues<'a> {
        self.values()
    }
}

impl<'a> Iterator for FieldValues<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        while let Some(end) = memchr::memchr(b'\n', self.head) {
            let (line, rest) = self.head.split_at(end + 1);
            self.head = rest;
            // A request line cannot match: the first colon of it stands behind a space.
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            if line[..colon].eq_ignore_ascii_case(self.name.as_bytes()) {
                return Some(line[colon + 1..].trim_ascii());
            }
        }
        None
    }
}

/// The members of a comma-separated list without quoted commas, white space around them removed.
/// Empty members are yielded: the caller knows whether they are tolerable (RFC 9110 §5.6.1.2).
pub(super) fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim_ows)
}

/// `value` without the spaces and tabs around it.
pub(super) fn trim_ows(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The number that `digits` spells, or `None` when it is not one or more ASCII digits. A number
/// too large for `u64` becomes `u64::MAX`.
pub(super) fn decimal_saturating(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"GET /If-Match: HTTP/1.1\r\nIf-Match: \"a\" \r\nX: y\r\n\
        iF-mATCH:\t\"b\"\r\nIf-Match-Not: \"d\"\r\nIf-Match:\r\n\r\n";

    #[test]
    fn repeated_lines_are_all_found_in_order() {
        let mut lines = FieldLines::named("If-Match");
        assert!(lines.is_empty());
        assert_eq!(lines.values().count(), 0);
        lines.push(b"\"a\"", HEAD);
        assert_eq!(lines.values().collect::<Vec<_>>(), [b"\"a\""]);
        lines.push(b"\"b\"", HEAD);
        lines.push(b"", HEAD);
        assert!(!lines.is_empty());
        assert_eq!(lines.values().collect::<Vec<_>>(), [&b"\"a\""[..], b"\"b\"", b""]);
    }

    #[test]
    fn a_value_without_a_head_is_one_line() {
        let values: Vec<_> = FieldLines::from_value(b"x, y").values().collect();
        assert_eq!(values, [b"x, y"]);
    }

    #[test]
    fn white_space_is_trimmed_and_only_spaces_and_tabs() {
        assert_eq!(trim_ows(b" \t a b\t "), b"a b");
        assert_eq!(trim_ows(b" \t "), b"");
        assert_eq!(trim_ows(b"\x0ba\r"), b"\x0ba\r");
    }

    #[test]
    fn decimals_saturate_and_refuse_all_else() {
        assert_eq!(decimal_saturating(b"0"), Some(0));
        assert_eq!(decimal_saturating(b"18446744073709551614"), Some(u64::MAX - 1));
        assert_eq!(decimal_saturating(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(decimal_saturating(b"18446744073709551616"), Some(u64::MAX));
        assert_eq!(decimal_saturating(b"99999999999999999999999"), Some(u64::MAX));
        for bad in
            [&b""[..], b"+1", b"-1", b" 1", b"1 ", b"1a", b"0x1", b"99999999999999999999999x"]
        {
            assert_eq!(decimal_saturating(bad), None);
        }
    }
}
