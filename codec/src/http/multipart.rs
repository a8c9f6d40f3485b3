//! `multipart/byteranges`: several parts of one representation in one body (RFC 9110 §14.6).
//!
//! ```text
//!   --<boundary> CRLF                               CRLF --<boundary> CRLF
//!   Content-Type: … CRLF                            Content-Type: … CRLF
//!   Content-Range: bytes 0-1/10 CRLF CRLF           Content-Range: bytes 5-9/10 CRLF CRLF
//!   <2 bytes>                                       <5 bytes>
//!                                                   CRLF --<boundary>-- CRLF
//! ```
//!
//! The boundary is the digest of the representation, in hex. So it need not be searched for: bytes
//! that contain their own BLAKE3-256 would be a fixed point of it, which nobody can find.

use super::range::ByteRange;
use super::response::push_number;
use crate::address::{ADDRESS_HEX_LEN, Address};

const TYPE: &[u8] = b"multipart/byteranges; boundary=";

/// Bytes of a `Content-Type` with its boundary.
pub const TYPE_LEN: usize = TYPE.len() + ADDRESS_HEX_LEN;

// RFC 2046 §5.1.1.
const _: () = assert!(ADDRESS_HEX_LEN <= 70);

/// What stands between two parts, before the boundary and behind it.
const BEFORE: &[u8] = b"\r\n--";
const BEHIND: &[u8] = b"\r\n";
const BEHIND_LAST: &[u8] = b"--\r\n";
const PART_TYPE: &[u8] = b"Content-Type: ";
const RANGE: &[u8] = b"Content-Range: bytes ";
const HEAD_END: &[u8] = b"\r\n\r\n";

/// The parts of one representation as they are written.
#[derive(Clone, Copy, Debug)]
pub struct Multipart<'a> {
    /// Of the representation.
    pub digest: &'a Address,
    /// Bytes of the representation.
    pub size: u64,
    /// The type of its content, with which each part begins.
    pub media_type: &'a str,
}

impl Multipart<'_> {
    /// The value of the answer's `Content-Type`.
    #[must_use]
    pub fn content_type(&self) -> [u8; TYPE_LEN] {
        let mut text = [0; TYPE_LEN];
        let (kind, boundary) = text.split_at_mut(TYPE.len());
        kind.copy_from_slice(TYPE);
        boundary.copy_from_slice(&self.boundary());
        text
    }

    /// Appends what comes before the bytes of a part. The first has no line end before it, because
    /// the head of the answer ends in one.
    pub fn write_part_head(&self, out: &mut Vec<u8>, range: ByteRange, first: bool) {
        out.extend_from_slice(&BEFORE[if first { 2 } else { 0 }..]);
        out.extend_from_slice(&self.boundary());
        out.extend_from_slice(BEHIND);
        out.extend_from_slice(PART_TYPE);
        out.extend_from_slice(self.media_type.as_bytes());
        out.extend_from_slice(BEHIND);
        out.extend_from_slice(RANGE);
        push_number(out, range.start);
        out.push(b'-');
        push_number(out, range.end_exclusive - 1);
        out.push(b'/');
        push_number(out, self.size);
        out.extend_from_slice(HEAD_END);
    }

    /// Appends what comes behind the last part.
    pub fn write_end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(BEFORE);
        out.extend_from_slice(&self.boundary());
        out.extend_from_slice(BEHIND_LAST);
    }

    /// Bytes of a body with these parts.
    #[must_use]
    pub fn body_len(&self, ranges: &[ByteRange]) -> u64 {
        let fixed = BEFORE.len() + ADDRESS_HEX_LEN + BEHIND.len();
        let fixed = fixed + PART_TYPE.len() + self.media_type.len() + BEHIND.len();
        let fixed = fixed + RANGE.len() + "-/".len() + HEAD_END.len();
        let parts = ranges.iter().map(|range| {
            let numbers = digits(range.start) + digits(range.end_exclusive - 1) + digits(self.size);
            fixed as u64 + numbers + range.len()
        });
        let end = BEFORE.len() + ADDRESS_HEX_LEN + BEHIND_LAST.len();
        parts.sum::<u64>() - 2 + end as u64
    }

    fn boundary(&self) -> [u8; ADDRESS_HEX_LEN] {
        let mut hex = [0; ADDRESS_HEX_LEN];
        let text = self.digest.to_text();
        hex.copy_from_slice(&text[text.len() - ADDRESS_HEX_LEN..]);
        hex
    }
}

/// Digits that a number is written with.
fn digits(number: u64) -> u64 {
    u64::from(number.checked_ilog10().unwrap_or(0)) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn multipart(digest: &Address, size: u64) -> Multipart<'_> {
        Multipart { digest, size, media_type: "a/b" }
    }

    /// A body whose parts are all zeros.
    fn written(parts: &Multipart<'_>, ranges: &[ByteRange]) -> Vec<u8> {
        let mut out = Vec::new();
        for (at, range) in ranges.iter().enumerate() {
            parts.write_part_head(&mut out, *range, at == 0);
            out.resize(out.len() + range.len() as usize, b'0');
        }
        parts.write_end(&mut out);
        out
    }

    #[test]
    fn a_body_byte_for_byte() {
        let digest = Address::from_bytes([0xcd; 32]);
        let parts = multipart(&digest, 10);
        let ranges =
            [ByteRange { start: 8, end_exclusive: 10 }, ByteRange { start: 0, end_exclusive: 1 }];
        let hex = "cd".repeat(32);
        let expected = format!(
            "--{hex}\r\nContent-Type: a/b\r\nContent-Range: bytes 8-9/10\r\n\r\n00\r\n\
             --{hex}\r\nContent-Type: a/b\r\nContent-Range: bytes 0-0/10\r\n\r\n0\r\n--{hex}--\r\n"
        );
        assert_eq!(String::from_utf8(written(&parts, &ranges)).unwrap(), expected);
        let kind = format!("multipart/byteranges; boundary={hex}");
        assert_eq!(parts.content_type(), kind.as_bytes());
    }

    #[test]
    fn numbers_have_their_digits() {
        for (number, count) in [(0, 1), (9, 1), (10, 2), (99, 2), (100, 3), (u64::MAX, 20)] {
            assert_eq!(digits(number), count, "{number}");
        }
    }

    proptest! {
        #[test]
        fn the_length_is_that_of_what_is_written(
            ranges in prop::collection::vec((0u64..20_000, 1u64..300), 1..17),
            more in 0u64..1 << 40,
        ) {
            let digest = Address::of(b"x");
            let size = 20_300 + more;
            let ranges: Vec<ByteRange> = ranges
                .iter()
                .map(|(start, len)| ByteRange { start: *start, end_exclusive: start + len })
                .collect();
            let parts = multipart(&digest, size);
            prop_assert_eq!(parts.body_len(&ranges), written(&parts, &ranges).len() as u64);
        }
    }
}
