//! Strings and numbers as a manifest spells them.
//!
//! A string has no control character, so two bytes alone are escaped, and every text has one
//! spelling. It is a basic string of TOML.

use std::cmp::Ordering;

/// Adds a text and its closing quote.
pub(super) fn quoted(text: &str, out: &mut Vec<u8>) {
    debug_assert!(!text.chars().any(char::is_control), "{text:?} was checked before");
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// A text that was quoted, and what stands behind its closing quote.
pub(super) struct Quoted<'a> {
    pub(super) text: String,
    pub(super) rest: &'a [u8],
}

impl Quoted<'_> {
    /// Reads a text up to its closing quote. `None` when there is none, or something is in it that
    /// [`quoted`] does not write.
    pub(super) fn read(bytes: &[u8]) -> Option<Quoted<'_>> {
        let mut text = Vec::new();
        let mut at = 0;
        loop {
            match (bytes.get(at)?, bytes.get(at + 1)) {
                (b'"', _) => break,
                (b'\\', Some(escaped @ (b'"' | b'\\'))) => {
                    text.push(*escaped);
                    at += 2;
                }
                (b'\\', _) => return None,
                (byte, _) => {
                    text.push(*byte);
                    at += 1;
                }
            }
        }
        let text = String::from_utf8(text).ok()?;
        if text.chars().any(char::is_control) {
            return None;
        }
        Some(Quoted { text, rest: &bytes[at + 1..] })
    }
}

/// How the quoted text at the start of `bytes` compares with `wanted`, byte for byte. `None` when
/// the bytes end before that is known.
pub(super) fn compare(bytes: &[u8], wanted: &[u8]) -> Option<Ordering> {
    let (mut at, mut wanted) = (0, wanted.iter());
    loop {
        let mut byte = *bytes.get(at)?;
        if byte == b'"' {
            return Some(if wanted.next().is_none() { Ordering::Equal } else { Ordering::Less });
        }
        if byte == b'\\' {
            at += 1;
            byte = *bytes.get(at)?;
        }
        match wanted.next() {
            None => return Some(Ordering::Greater),
            Some(other) if byte != *other => return Some(byte.cmp(other)),
            Some(_) => at += 1,
        }
    }
}

/// Reads a decimal number without a sign or leading zeros; returns it and what stands behind it.
/// A number of TOML has 63 bits.
pub(super) fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let len = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = bytes.split_at(len);
    if len == 0 || (digits[0] == b'0' && len > 1) {
        return None;
    }
    let value: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (value <= i64::MAX as u64).then_some((value, rest))
}
