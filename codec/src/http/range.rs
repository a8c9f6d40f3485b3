//! The `Range` field: which bytes of a representation were asked for.
//!
//! One range in any of its three forms is understood. Everything that RFC 9110 §14.2 lets a server
//! ignore is ignored, and then the whole representation is the right answer: other units, malformed
//! values, and (because `multipart/byteranges` is not built) several ranges at once.

use super::fields::{decimal_saturating, list_members, trim_ows};

/// Bytes `start..end_exclusive` of a representation; never empty, never beyond its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    pub start: u64,
    pub end_exclusive: u64,
}

impl ByteRange {
    /// Bytes in the range, at least one.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // A range is never empty.
    pub const fn len(&self) -> u64 {
        self.end_exclusive - self.start
    }
}

/// What a `Range` field asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeSpec {
    /// Answer 200 with the whole representation, as if no range had been sent.
    Whole,
    /// Answer 206 with this part.
    One(ByteRange),
    /// Answer 416.
    Unsatisfiable,
}

/// Reads the value of a `Range` field against a representation of `size` bytes.
///
/// A suffix of an empty representation is satisfiable but has no spelling in `Content-Range`, so
/// it is answered whole.
///
/// ```
/// use ron_codec::http::range::{ByteRange, RangeSpec, parse_range};
///
/// let last = ByteRange { start: 90, end_exclusive: 100 };
/// assert_eq!(parse_range(b"bytes=-10", 100), RangeSpec::One(last));
/// assert_eq!(parse_range(b"bytes=90-1000", 100), RangeSpec::One(last));
/// assert_eq!(parse_range(b"bytes=100-", 100), RangeSpec::Unsatisfiable);
/// assert_eq!(parse_range(b"lines=1-2", 100), RangeSpec::Whole);
/// ```
#[must_use]
pub fn parse_range(value: &[u8], size: u64) -> RangeSpec {
    let Some(equals) = memchr::memchr(b'=', value) else { return RangeSpec::Whole };
    // RFC 9110 §14.1: unit names are case-insensitive.
    if !trim_ows(&value[..equals]).eq_ignore_ascii_case(b"bytes") {
        return RangeSpec::Whole;
    }
    let mut members = list_members(&value[equals + 1..]).filter(|member| !member.is_empty());
    match (members.next(), members.next()) {
        (Some(only), None) => parse_member(only, size).unwrap_or(RangeSpec::Whole),
        _ => RangeSpec::Whole,
    }
}

/// Reads `first-`, `first-last` or `-suffix`; `None` when it is malformed.
fn parse_member(member: &[u8], size: u64) -> Option<RangeSpec> {
    let dash = memchr::memchr(b'-', member)?;
    let (first, last) = (&member[..dash], &member[dash + 1..]);
    if first.is_empty() {
        return Some(suffix(decimal_saturating(last)?, size));
    }
    let start = decimal_saturating(first)?;
    let end_exclusive = if last.is_empty() {
        size
    } else {
        let last_position = decimal_saturating(last)?;
        // Compared as digits, because both numbers may be larger than a u64.
        if significant(last) < significant(first) {
            return None;
        }
        last_position.saturating_add(1).min(size)
    };
    if start >= size {
        return Some(RangeSpec::Unsatisfiable);
    }
    Some(RangeSpec::One(ByteRange { start, end_exclusive }))
}

fn suffix(len: u64, size: u64) -> RangeSpec {
    match (len, size) {
        (0, _) => RangeSpec::Unsatisfiable,
        (_, 0) => RangeSpec::Whole,
        _ => RangeSpec::One(ByteRange { start: size.saturating_sub(len), end_exclusive: size }),
    }
}

/// Digits without leading zeros, in a form whose order is the order of the numbers.
fn significant(digits: &[u8]) -> (usize, &[u8]) {
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    (digits.len() - zeros, &digits[zeros..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(start: u64, end_exclusive: u64) -> RangeSpec {
        RangeSpec::One(ByteRange { start, end_exclusive })
    }

    #[test]
    fn the_three_forms_at_their_edges() {
        for (value, expected) in [
            ("bytes=0-0", one(0, 1)),
            ("bytes=0-9", one(0, 10)),
            ("bytes=0-10", one(0, 10)),
            ("bytes=9-9", one(9, 10)),
            ("bytes=9-", one(9, 10)),
            ("bytes=0-", one(0, 10)),
            ("bytes=10-", RangeSpec::Unsatisfiable),
            ("bytes=10-10", RangeSpec::Unsatisfiable),
            ("bytes=-1", one(9, 10)),
            ("bytes=-9", one(1, 10)),
            ("bytes=-10", one(0, 10)),
            ("bytes=-11", one(0, 10)),
            ("bytes=-0", RangeSpec::Unsatisfiable),
            ("bytes=3-3,", one(3, 4)),
            ("BYTES = , 003-0003 ,", one(3, 4)),
        ] {
            assert_eq!(parse_range(value.as_bytes(), 10), expected, "{value}");
        }
    }

    #[test]
    fn numbers_beyond_u64_keep_their_meaning() {
        for (value, expected) in [
            ("bytes=0-18446744073709551615", one(0, 10)),
            ("bytes=1-99999999999999999999999", one(1, 10)),
            ("bytes=18446744073709551616-", RangeSpec::Unsatisfiable),
            ("bytes=-99999999999999999999999", one(0, 10)),
            ("bytes=99999999999999999999998-99999999999999999999999", RangeSpec::Unsatisfiable),
            ("bytes=99999999999999999999999-99999999999999999999998", RangeSpec::Whole),
            ("bytes=99999999999999999999999-1", RangeSpec::Whole),
        ] {
            assert_eq!(parse_range(value.as_bytes(), 10), expected, "{value}");
        }
        assert_eq!(parse_range(b"bytes=0-18446744073709551615", u64::MAX), one(0, u64::MAX));
    }

    #[test]
    fn an_empty_representation_has_no_positions() {
        assert_eq!(parse_range(b"bytes=0-", 0), RangeSpec::Unsatisfiable);
        assert_eq!(parse_range(b"bytes=0-0", 0), RangeSpec::Unsatisfiable);
        assert_eq!(parse_range(b"bytes=-0", 0), RangeSpec::Unsatisfiable);
        assert_eq!(parse_range(b"bytes=-5", 0), RangeSpec::Whole);
    }

    #[test]
    fn what_may_be_ignored_is_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=--1",
            "bytes=1",
            "bytes=2-1",
            "bytes=a-b",
            "bytes=1-2x",
            "bytes=+1-2",
            "bytes=1 - 2",
            "bytes=0x1-2",
            "items=0-1",
            "bytes=0-1,3-4",
            "bytes=0-1, ,-1",
            "bytes=0-1;2-3",
            "bytes=1-2-3",
            "=0-1",
        ] {
            assert_eq!(parse_range(value.as_bytes(), 10), RangeSpec::Whole, "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_range_selects_what_a_byte_by_byte_reader_selects(
            first in 0u64..40, last in proptest::option::of(0u64..40), size in 0u64..32,
        ) {
            let end = last.map(|last| last.to_string()).unwrap_or_default();
            let text = format!("bytes={first}-{end}");
            let chosen: Vec<u64> =
                (0..size).filter(|&at| at >= first && last.is_none_or(|last| at <= last)).collect();
            let expected = match (last, chosen.first(), chosen.last()) {
                (Some(last), ..) if last < first => RangeSpec::Whole,
                (_, Some(&low), Some(&high)) => one(low, high + 1),
                _ => RangeSpec::Unsatisfiable,
            };
            prop_assert_eq!(parse_range(text.as_bytes(), size), expected);
        }

        #[test]
        fn a_suffix_selects_what_a_byte_by_byte_reader_selects(len in 0u64..40, size in 1u64..32) {
            let chosen: Vec<u64> = (0..size).rev().take(len as usize).collect();
            let expected = match chosen.last() {
                Some(&low) => one(low, size),
                None => RangeSpec::Unsatisfiable,
            };
            prop_assert_eq!(parse_range(format!("bytes=-{len}").as_bytes(), size), expected);
        }

        #[test]
        fn any_answer_lies_inside(value in "bytes=[-0-9, x]{0,50}", size: u64) {
            if let RangeSpec::One(range) = parse_range(value.as_bytes(), size) {
                prop_assert!(range.start < range.end_exclusive && range.end_exclusive <= size);
            }
        }
    }
}
