//! The `Range` field: which bytes of a representation were asked for.
//!
//! One range or several, each in any of its three forms. Those that overlap or adjoin become one,
//! so that no byte is sent twice. Everything that RFC 9110 §14.2 lets a server ignore is ignored,
//! and then the whole representation is the right answer: other units, malformed values, and more
//! ranges than `RANGES_MAX`, which no honest client needs and which cost more in heads than they
//! save in content.

use std::fmt;

use super::fields::{decimal_saturating, list_members, trim_ows};
use crate::limits::{RANGES_ASKED_MAX, RANGES_MAX};

/// Bytes `start..end_exclusive` of a representation; never empty, never beyond its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    pub start: u64,
    pub end_exclusive: u64,
}

impl ByteRange {
    /// What stands where no range is.
    const NONE: Self = Self { start: 0, end_exclusive: 0 };

    /// Bytes in the range, at least one.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // A range is never empty.
    pub const fn len(&self) -> u64 {
        self.end_exclusive - self.start
    }
}

/// Two ranges or more, in the order in which they were asked for; none overlap or adjoin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    ranges: [ByteRange; RANGES_MAX],
    len: usize,
}

impl Ranges {
    #[must_use]
    pub fn as_slice(&self) -> &[ByteRange] {
        &self.ranges[..self.len]
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// What a `Range` field asks for.
// Boxing the ranges would make the parser allocate.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeSpec {
    /// Answer 200 with the whole representation, as if no range had been sent.
    Whole,
    /// Answer 206 with this part.
    One(ByteRange),
    /// Answer 206 with these parts, as `multipart/byteranges`.
    Several(Ranges),
    /// Answer 416.
    Unsatisfiable,
}

impl RangeSpec {
    /// The first byte that is sent, if any is.
    #[must_use]
    pub fn first_byte(&self) -> Option<u64> {
        match self {
            Self::Whole => Some(0),
            Self::One(range) => Some(range.start),
            Self::Several(ranges) => Some(ranges.as_slice()[0].start),
            Self::Unsatisfiable => None,
        }
    }
}

/// Reads the value of a `Range` field against a representation of `size` bytes.
///
/// Of several ranges those that cannot be satisfied are left out, and those that overlap or adjoin
/// are one, at the place of the first of them. A suffix of an empty representation is satisfiable
/// but has no spelling in `Content-Range`, so it is answered whole.
///
/// ```
/// use ron_codec::http::range::{ByteRange, RangeSpec, parse_range};
///
/// let last = ByteRange { start: 90, end_exclusive: 100 };
/// assert_eq!(parse_range(b"bytes=-10", 100), RangeSpec::One(last));
/// assert_eq!(parse_range(b"bytes=90-1000", 100), RangeSpec::One(last));
/// assert_eq!(parse_range(b"bytes=95-,90-94,100-", 100), RangeSpec::One(last));
/// assert_eq!(parse_range(b"bytes=100-", 100), RangeSpec::Unsatisfiable);
/// assert_eq!(parse_range(b"lines=1-2", 100), RangeSpec::Whole);
///
/// let RangeSpec::Several(two) = parse_range(b"bytes=-10,0-1", 100) else { panic!() };
/// assert_eq!(two.as_slice(), [last, ByteRange { start: 0, end_exclusive: 2 }]);
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
        (None, _) => RangeSpec::Whole,
        (Some(only), None) => parse_member(only, size).unwrap_or(RangeSpec::Whole),
        (Some(first), Some(second)) => {
            parse_members([first, second].into_iter().chain(members), size)
        }
    }
}

/// Reads more than one member. RFC 9110 §14.2: one that is malformed makes the whole field invalid,
/// which is ignored.
fn parse_members<'a>(members: impl Iterator<Item = &'a [u8]>, size: u64) -> RangeSpec {
    let (mut merged, mut whole) = (Merged::default(), false);
    for (number, member) in members.enumerate() {
        match parse_member(member, size) {
            _ if number == RANGES_ASKED_MAX => return RangeSpec::Whole,
            None => return RangeSpec::Whole,
            Some(RangeSpec::One(range)) => merged.add(range),
            Some(RangeSpec::Whole) => whole = true,
            Some(RangeSpec::Unsatisfiable | RangeSpec::Several(_)) => {}
        }
    }
    match merged.as_slice() {
        _ if whole => RangeSpec::Whole,
        [] => RangeSpec::Unsatisfiable,
        [one] => RangeSpec::One(*one),
        several if several.len() > RANGES_MAX => RangeSpec::Whole,
        several => {
            let mut ranges = [ByteRange::NONE; RANGES_MAX];
            ranges[..several.len()].copy_from_slice(several);
            RangeSpec::Several(Ranges { ranges, len: several.len() })
        }
    }
}

/// Ranges that neither overlap nor adjoin, in the order of the first that each was made from.
struct Merged {
    ranges: [ByteRange; RANGES_ASKED_MAX],
    len: usize,
}

impl Default for Merged {
    fn default() -> Self {
        Self { ranges: [ByteRange::NONE; RANGES_ASKED_MAX], len: 0 }
    }
}

impl Merged {
    fn as_slice(&self) -> &[ByteRange] {
        &self.ranges[..self.len]
    }

    /// Adds a range. Since those that are there do not touch each other, what it becomes with some
    /// of them touches no others.
    fn add(&mut self, range: ByteRange) {
        let (mut all, mut place, mut len) = (range, None, 0);
        for at in 0..self.len {
            let other = self.ranges[at];
            if other.start > range.end_exclusive || range.start > other.end_exclusive {
                self.ranges[len] = other;
                len += 1;
                continue;
            }
            all.start = all.start.min(other.start);
            all.end_exclusive = all.end_exclusive.max(other.end_exclusive);
            if place.is_none() {
                place = Some(len);
                len += 1;
            }
        }
        let place = place.unwrap_or_else(|| {
            len += 1;
            len - 1
        });
        self.ranges[place] = all;
        self.len = len;
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

    fn several(ranges: &[(u64, u64)]) -> RangeSpec {
        let mut all = Ranges { ranges: [ByteRange::NONE; RANGES_MAX], len: ranges.len() };
        for (place, (start, end_exclusive)) in all.ranges.iter_mut().zip(ranges) {
            *place = ByteRange { start: *start, end_exclusive: *end_exclusive };
        }
        RangeSpec::Several(all)
    }

    #[test]
    fn several_ranges_stay_in_their_order_and_those_that_touch_are_one() {
        for (value, expected) in [
            ("bytes=0-1,3-4", several(&[(0, 2), (3, 5)])),
            ("bytes=3-4, ,0-1,", several(&[(3, 5), (0, 2)])),
            ("bytes=0-1, 5-6, -1", several(&[(0, 2), (5, 7), (9, 10)])),
            ("bytes=0-1,2-3", one(0, 4)),
            ("bytes=2-3,0-1", one(0, 4)),
            ("bytes=0-5,3-7", one(0, 8)),
            ("bytes=0-0,2-2,4-4,1-3", one(0, 5)),
            ("bytes=8-8,0-0,2-2,6-6,1-3", several(&[(8, 9), (0, 4), (6, 7)])),
            ("bytes=0-1,0-1", one(0, 2)),
            ("bytes=5-,-5", one(5, 10)),
            ("bytes=0-,-1", one(0, 10)),
            ("bytes=0-1,10-,-0", one(0, 2)),
            ("bytes=10-11,-0,3-3,0-0", several(&[(3, 4), (0, 1)])),
            ("bytes=10-,12-13", RangeSpec::Unsatisfiable),
        ] {
            assert_eq!(parse_range(value.as_bytes(), 10), expected, "{value}");
        }
        assert_eq!(parse_range(b"bytes=0-1,2-3", 0), RangeSpec::Unsatisfiable);
        assert_eq!(parse_range(b"bytes=0-1,-3", 0), RangeSpec::Whole);
        let ends = several(&[(0, 1), (u64::MAX - 1, u64::MAX)]);
        assert_eq!(parse_range(b"bytes=0-0,18446744073709551614-", u64::MAX), ends);
    }

    #[test]
    fn beyond_the_limits_all_of_it_is_the_answer() {
        let list = |count: usize, step: usize| {
            let members: Vec<String> = (0..count).map(|at| format!("{0}-{0}", at * step)).collect();
            format!("bytes={}", members.join(","))
        };
        let parse = |text: String| parse_range(text.as_bytes(), 1000);
        let most: Vec<(u64, u64)> = (0..RANGES_MAX as u64).map(|at| (2 * at, 2 * at + 1)).collect();
        assert_eq!(parse(list(RANGES_MAX, 2)), several(&most));
        assert_eq!(parse(list(RANGES_MAX + 1, 2)), RangeSpec::Whole);
        // What counts is how many are left, and how many were asked for.
        assert_eq!(
            parse(list(RANGES_MAX + 1, 2) + ",1-1"),
            several(&{
                let mut most = [vec![(0, 3)], most[2..].to_vec()].concat();
                most.push((32, 33));
                most
            })
        );
        assert_eq!(parse(list(RANGES_ASKED_MAX, 1)), one(0, RANGES_ASKED_MAX as u64));
        assert_eq!(parse(list(RANGES_ASKED_MAX + 1, 1)), RangeSpec::Whole);
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
            "bytes=0-1;2-3",
            "bytes=0-1,x",
            "bytes=0-1,5-4",
            "bytes=20-30,-",
            "bytes=0-1,2-3 4-5",
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

        /// The twin marks the bytes of every member, and reads what is marked.
        #[test]
        fn several_ranges_select_what_a_byte_by_byte_reader_selects(
            members in prop::collection::vec((0u64..40, 0u64..45, 0u8..4), 2..24), size in 1u64..40,
        ) {
            let spelt: Vec<String> = members
                .iter()
                .map(|(a, b, form)| match form {
                    0 => format!("{a}-"),
                    1 => format!("-{b}"),
                    _ => format!("{}-{}", a.min(b), a.max(b)),
                })
                .collect();
            let wants = |(a, b, form): &(u64, u64, u8), at: u64| match form {
                0 => at >= *a,
                1 => at + b >= size,
                _ => at >= *a.min(b) && at <= *a.max(b),
            };
            let marked = |at: u64| at < size && members.iter().any(|member| wants(member, at));
            let mut runs: Vec<(u64, u64)> = Vec::new();
            for member in &members {
                let Some(first) = (0..size).find(|at| wants(member, *at)) else { continue };
                let start = (0..=first).rev().take_while(|at| marked(*at)).last().unwrap();
                let end = (first..).find(|at| !marked(*at)).unwrap();
                if !runs.contains(&(start, end)) {
                    runs.push((start, end));
                }
            }
            let expected = match runs[..] {
                [] => RangeSpec::Unsatisfiable,
                [(start, end)] => one(start, end),
                _ if runs.len() > RANGES_MAX => RangeSpec::Whole,
                _ => several(&runs),
            };
            let text = format!("bytes={}", spelt.join(","));
            prop_assert_eq!(parse_range(text.as_bytes(), size), expected, "{} of {}", text, size);
        }

        #[test]
        fn any_answer_lies_inside(value in "bytes=[-0-9, x]{0,50}", size: u64) {
            let found = parse_range(value.as_bytes(), size);
            let ranges = match &found {
                RangeSpec::One(range) => std::slice::from_ref(range),
                RangeSpec::Several(ranges) => ranges.as_slice(),
                RangeSpec::Whole | RangeSpec::Unsatisfiable => &[],
            };
            for range in ranges {
                prop_assert!(range.start < range.end_exclusive && range.end_exclusive <= size);
            }
        }
    }
}
