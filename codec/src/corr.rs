//! Correlation ids: the name of one request in answers and logs.
//!
//! An id is the client's when it sent a sane one (`X-Corr-Id`, else the trace id of `traceparent`),
//! otherwise a ULID made from a time and random bits that the caller hands in. A client's id is
//! echoed in headers and written to logs, so only bytes that are harmless in both are accepted.

use std::fmt;

use crate::limits::CORR_ID_LEN_MAX;

/// Characters of a ULID.
pub const ULID_LEN: usize = 26;

const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Hex digits of the trace id and of the parent id of a `traceparent`.
const TRACE_ID_LEN: usize = 32;
const PARENT_ID_LEN: usize = 16;

/// An id of 1 to `CORR_ID_LEN_MAX` bytes of `A-Za-z0-9._:/+=-`, held inline.
#[derive(Clone, Copy)]
pub struct CorrId {
    bytes: [u8; CORR_ID_LEN_MAX],
    len: u8,
}

const _: () = assert!(CORR_ID_LEN_MAX <= u8::MAX as usize && ULID_LEN <= CORR_ID_LEN_MAX);

impl CorrId {
    /// The id of a request with these fields: the client's id if it is sane, else its trace id,
    /// else a ULID of `unix_ms` and `random`.
    #[must_use]
    pub fn choose(
        corr_id: Option<&[u8]>,
        traceparent: Option<&[u8]>,
        unix_ms: u64,
        random: u128,
    ) -> Self {
        corr_id
            .and_then(Self::from_client)
            .or_else(|| traceparent.and_then(Self::from_traceparent))
            .unwrap_or_else(|| Self::ulid(unix_ms, random))
    }

    /// The id a client sent, or `None` when it is empty, too long or has an unsafe byte.
    #[must_use]
    pub fn from_client(value: &[u8]) -> Option<Self> {
        let safe = |&byte: &u8| byte.is_ascii_alphanumeric() || b"._:/+=-".contains(&byte);
        let sane = !value.is_empty() && value.len() <= CORR_ID_LEN_MAX && value.iter().all(safe);
        sane.then(|| Self::from_safe(value))
    }

    /// The trace id of a well-formed W3C `traceparent`, or `None`.
    #[must_use]
    pub fn from_traceparent(value: &[u8]) -> Option<Self> {
        let (version, rest) = lower_hex_field(value, 2)?;
        let (trace_id, rest) = lower_hex_field(rest.strip_prefix(b"-")?, TRACE_ID_LEN)?;
        let (parent_id, rest) = lower_hex_field(rest.strip_prefix(b"-")?, PARENT_ID_LEN)?;
        let (_flags, rest) = lower_hex_field(rest.strip_prefix(b"-")?, 2)?;
        // Later versions may append fields behind another dash; version 00 has none, ff is invalid.
        let tail_fits = match version {
            b"00" => rest.is_empty(),
            b"ff" => false,
            _ => matches!(rest, [] | [b'-', ..]),
        };
        let all_zero = |id: &[u8]| id.iter().all(|&digit| digit == b'0');
        let valid = tail_fits && !all_zero(trace_id) && !all_zero(parent_id);
        valid.then(|| Self::from_safe(trace_id))
    }

    /// The ULID of the low 48 bits of `unix_ms` and the low 80 bits of `random`.
    #[must_use]
    pub fn ulid(unix_ms: u64, random: u128) -> Self {
        const RANDOM_BITS: u32 = 80;
        let value = u128::from(unix_ms) << RANDOM_BITS | (random & ((1 << RANDOM_BITS) - 1));
        let mut text = [0; ULID_LEN];
        for (index, place) in text.iter_mut().rev().enumerate() {
            *place = CROCKFORD[(value >> (5 * index) & 0x1f) as usize];
        }
        Self::from_safe(&text)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("an id is made of ASCII only")
    }

    /// The id as bytes, for a header.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn from_safe(value: &[u8]) -> Self {
        let mut bytes = [0; CORR_ID_LEN_MAX];
        bytes[..value.len()].copy_from_slice(value);
        Self { bytes, len: value.len() as u8 }
    }
}

impl PartialEq for CorrId {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for CorrId {}

impl fmt::Display for CorrId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for CorrId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Splits `len` lowercase hex digits off `text`.
fn lower_hex_field(text: &[u8], len: usize) -> Option<(&[u8], &[u8])> {
    let (field, rest) = text.split_at_checked(len)?;
    field.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some((field, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    /// The obvious reader of a ULID: a number in base 32.
    fn decode(text: &str) -> u128 {
        text.bytes().fold(0, |number, byte| {
            let digit = CROCKFORD.iter().position(|&letter| letter == byte).unwrap();
            number * 32 + digit as u128
        })
    }

    #[test]
    fn known_ulids() {
        // The time of the specification's example, and the value vectors of the ulid crate.
        assert!(CorrId::ulid(1_469_918_176_385, 7).as_str().starts_with("01ARYZ6S41"));
        let id = CorrId::ulid(0x4141_4141_4141, 0x4141_4141_4141_4141_4141);
        assert_eq!(id.as_str(), "21850M2GA1850M2GA1850M2GA1");
        let id = CorrId::ulid(0x0156_3e3a_b5d3, 0xd676_4c61_efb9_9302_bd5b);
        assert_eq!(id.as_str(), "01ARZ3NDEKTSV4RRFFQ69G5FAV");
        assert_eq!(CorrId::ulid(0, 0).as_str(), "0".repeat(26));
        assert_eq!(CorrId::ulid(u64::MAX, u128::MAX).as_str(), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
    }

    #[test]
    fn client_ids_are_checked_at_the_edges() {
        let accepted = |value: &[u8]| CorrId::from_client(value).is_some();
        assert!(!accepted(b""));
        assert!(accepted(b"a"));
        assert!(accepted(&[b'x'; CORR_ID_LEN_MAX - 1]));
        assert!(accepted(&[b'x'; CORR_ID_LEN_MAX]));
        assert!(!accepted(&[b'x'; CORR_ID_LEN_MAX + 1]));
        for byte in 0..=u8::MAX {
            let safe = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/+=-";
            assert_eq!(accepted(&[b'a', byte]), safe.as_bytes().contains(&byte), "{byte}");
        }
        assert_eq!(CorrId::from_client(b"req/1:2").unwrap().as_str(), "req/1:2");
    }

    #[test]
    fn traceparents_are_checked_as_w3c_says() {
        let zeros = "0".repeat(32);
        for (value, accepted) in [
            (format!("00-{TRACE}-{PARENT}-01"), true),
            (format!("00-{TRACE}-{PARENT}-00"), true),
            (format!("00-{TRACE}-{PARENT}-01-x"), false),
            (format!("00-{TRACE}-{PARENT}-0"), false),
            (format!("01-{TRACE}-{PARENT}-01"), true),
            (format!("01-{TRACE}-{PARENT}-01-what"), true),
            (format!("01-{TRACE}-{PARENT}-01x"), false),
            (format!("ff-{TRACE}-{PARENT}-01"), false),
            (format!("00-{zeros}-{PARENT}-01"), false),
            (format!("00-{TRACE}-{}-01", &zeros[..16]), false),
            (format!("00-{}-{PARENT}-01", TRACE.to_uppercase()), false),
            (format!("00-{TRACE}{PARENT}-01"), false),
            (format!("00-{TRACE}-{PARENT}"), false),
            (String::new(), false),
        ] {
            let id = CorrId::from_traceparent(value.as_bytes());
            assert_eq!(id.map(|id| id.as_str() == TRACE), accepted.then_some(true), "{value}");
        }
    }

    #[test]
    fn the_clients_id_comes_before_its_trace_and_both_before_ours() {
        let trace = format!("00-{TRACE}-{PARENT}-01");
        let choose = |id, trace| CorrId::choose(id, trace, 1, 2).to_string();
        assert_eq!(choose(Some(b"mine"), Some(trace.as_bytes())), "mine");
        assert_eq!(choose(Some(b"not sane"), Some(trace.as_bytes())), TRACE);
        assert_eq!(choose(None, Some(b"garbage")), CorrId::ulid(1, 2).as_str());
        assert_ne!(CorrId::ulid(1, 2), CorrId::ulid(1, 3));
    }

    proptest! {
        #[test]
        fn a_ulid_reads_back_as_its_parts(unix_ms in 0..1u64 << 48, random: u128) {
            let value = decode(CorrId::ulid(unix_ms, random).as_str());
            prop_assert_eq!(value >> 80, u128::from(unix_ms));
            prop_assert_eq!(value << 48 >> 48, random << 48 >> 48);
        }

        #[test]
        fn ulids_sort_by_time(early in 0..(1u64 << 48) - 1, a: u128, b: u128) {
            let (first, second) = (CorrId::ulid(early, a), CorrId::ulid(early + 1, b));
            prop_assert!(first.as_str() < second.as_str());
        }

        #[test]
        fn no_value_panics(id: Option<Vec<u8>>, trace: Option<Vec<u8>>) {
            let chosen = CorrId::choose(id.as_deref(), trace.as_deref(), 0, 0);
            prop_assert!(!chosen.as_str().is_empty());
        }
    }
}
