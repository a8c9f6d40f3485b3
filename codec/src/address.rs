//! Addresses: the names of objects.
//!
//! An address is the BLAKE3-256 of an object's bytes, written `b3:` and 64 lowercase hex digits.
//! This module reads and writes that text and says which partition an address belongs to. It
//! refuses everything that is not the one spelling: uppercase digits, shorter or longer names,
//! other prefixes. One object therefore has one name in logs, caches and entity tags.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use thiserror::Error;

use crate::limits::TLD_LEN_MAX;

/// Bytes of an address.
pub const ADDRESS_LEN: usize = 32;

/// Hex digits of an address, without its prefix.
pub const ADDRESS_HEX_LEN: usize = 2 * ADDRESS_LEN;

/// What stands before the hex digits in the full spelling of an address.
pub const ADDRESS_PREFIX: &str = "b3:";

/// Bytes of the full spelling, prefix and digits.
pub const ADDRESS_TEXT_LEN: usize = ADDRESS_PREFIX.len() + ADDRESS_HEX_LEN;

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Marks a byte that is no lowercase hex digit in `DIGIT_VALUES`.
const NO_DIGIT: u8 = 0xff;

const DIGIT_VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < HEX_DIGITS.len() {
        values[HEX_DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// The BLAKE3-256 digest that names an object. Ordered as its bytes, hence as its text.
///
/// ```
/// use ron_codec::address::Address;
///
/// let address = Address::of(b"hello");
/// let text = address.to_string();
/// assert!(text.starts_with("b3:") && text.len() == 67);
/// assert_eq!(text.parse(), Ok(address));
/// assert_eq!(Address::parse_route_segment(&format!("{text}.png")), Ok(address));
/// assert!("b3:123".parse::<Address>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address([u8; ADDRESS_LEN]);

/// Why a text is not an address. Lengths and positions are in bytes and do not count the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AddressError {
    /// The digits are `len` bytes long instead of `ADDRESS_HEX_LEN`.
    #[error("address has {len} digits instead of {ADDRESS_HEX_LEN}")]
    Length { len: usize },
    /// The byte at `at` is not one of `0-9a-f`.
    #[error("address has no lowercase hex digit at {at}")]
    Digit { at: usize },
    /// The suffix after the dot is empty or longer than `TLD_LEN_MAX`.
    #[error("address suffix has {len} bytes instead of 1 to {TLD_LEN_MAX}")]
    SuffixLength { len: usize },
    /// The byte at `at` of the suffix, counted from behind the dot, is not one of `a-z0-9-`.
    #[error("address suffix has an illegal byte at {at}")]
    SuffixByte { at: usize },
}

impl Address {
    /// The address whose digest is `bytes`.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; ADDRESS_LEN]) -> Self {
        Self(bytes)
    }

    /// The digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; ADDRESS_LEN] {
        &self.0
    }

    /// The address of the object that consists of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest as lowercase hex digits, without the prefix.
    #[must_use]
    pub fn to_hex(&self) -> [u8; ADDRESS_HEX_LEN] {
        let mut hex = [0; ADDRESS_HEX_LEN];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = HEX_DIGITS[usize::from(byte >> 4)];
            pair[1] = HEX_DIGITS[usize::from(byte & 0x0f)];
        }
        hex
    }

    /// The full spelling, `b3:` and the digits, as bytes for a header or a payload.
    #[must_use]
    pub fn to_text(&self) -> [u8; ADDRESS_TEXT_LEN] {
        let mut text = [0; ADDRESS_TEXT_LEN];
        let (prefix, digits) = text.split_at_mut(ADDRESS_PREFIX.len());
        prefix.copy_from_slice(ADDRESS_PREFIX.as_bytes());
        digits.copy_from_slice(&self.to_hex());
        text
    }

    /// Which of `count` partitions holds this address, in `0..count`.
    ///
    /// The first eight bytes, big-endian, are read as a fraction of 2^64 and scaled to `count`, so
    /// that partitions are equal, contiguous ranges of addresses for any count. This is a fact of
    /// the disk format: files are found by it, so it must never change.
    ///
    /// # Panics
    ///
    /// When `count` is zero, which no data directory has.
    #[must_use]
    pub fn partition(&self, count: u16) -> u16 {
        assert!(count > 0, "a data directory has at least one partition");
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        let fraction = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        ((u128::from(fraction) * u128::from(count)) >> u64::BITS) as u16
    }

    /// Reads the address segment of a route: the digits, with or without `b3:`, with or without a
    /// suffix `.<tld>` of 1 to `TLD_LEN_MAX` bytes of `a-z0-9-`. The suffix carries no meaning.
    ///
    /// # Errors
    ///
    /// `AddressError`: address faults are reported before suffix faults.
    pub fn parse_route_segment(segment: &str) -> Result<Self, AddressError> {
        match segment.split_once('.') {
            None => segment.parse(),
            Some((text, suffix)) => {
                let address = text.parse()?;
                check_suffix(suffix.as_bytes())?;
                Ok(address)
            }
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads exactly `ADDRESS_HEX_LEN` lowercase hex digits, with or without `b3:`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let digits = text.strip_prefix(ADDRESS_PREFIX).unwrap_or(text).as_bytes();
        let digits: &[u8; ADDRESS_HEX_LEN] =
            digits.try_into().map_err(|_| AddressError::Length { len: digits.len() })?;
        let mut bytes = [0; ADDRESS_LEN];
        for (index, (byte, pair)) in bytes.iter_mut().zip(digits.chunks_exact(2)).enumerate() {
            let high = DIGIT_VALUES[usize::from(pair[0])];
            let low = DIGIT_VALUES[usize::from(pair[1])];
            if high == NO_DIGIT {
                return Err(AddressError::Digit { at: 2 * index });
            }
            if low == NO_DIGIT {
                return Err(AddressError::Digit { at: 2 * index + 1 });
            }
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.to_text()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Address;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(
                    f,
                    "{ADDRESS_HEX_LEN} lowercase hex digits, with or without {ADDRESS_PREFIX}"
                )
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Address, E> {
                text.parse().map_err(E::custom)
            }
        }

        // A visitor, and not `<&str>::deserialize`, so that escaped JSON strings are read too.
        deserializer.deserialize_str(Text)
    }
}

fn check_suffix(suffix: &[u8]) -> Result<(), AddressError> {
    if suffix.is_empty() || suffix.len() > TLD_LEN_MAX {
        return Err(AddressError::SuffixLength { len: suffix.len() });
    }
    let legal = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    match suffix.iter().position(|byte| !legal(byte)) {
        Some(at) => Err(AddressError::SuffixByte { at }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    fn with_prefix(bytes: [u8; 8]) -> Address {
        let mut all = [0xff; ADDRESS_LEN];
        all[..8].copy_from_slice(&bytes);
        Address::from_bytes(all)
    }

    #[test]
    fn the_empty_object_has_its_published_address() {
        let address = Address::of(b"");
        assert_eq!(address.to_string(), format!("b3:{EMPTY}"));
        assert_eq!(format!("{address:?}"), format!("b3:{EMPTY}"));
        assert_eq!(&address.to_hex(), EMPTY.as_bytes());
        assert_eq!(EMPTY.parse(), Ok(address));
        assert_eq!(format!("b3:{EMPTY}").parse(), Ok(address));
    }

    #[test]
    fn only_sixty_four_digits_are_an_address() {
        let parse = |text: &str| text.parse::<Address>();
        assert_eq!(parse(""), Err(AddressError::Length { len: 0 }));
        assert_eq!(parse("b3:"), Err(AddressError::Length { len: 0 }));
        assert_eq!(parse(&EMPTY[..63]), Err(AddressError::Length { len: 63 }));
        assert_eq!(parse(&format!("{EMPTY}0")), Err(AddressError::Length { len: 65 }));
        assert_eq!(parse(&format!("b3:b3:{EMPTY}")), Err(AddressError::Length { len: 67 }));
        assert_eq!(parse(&format!("B3:{EMPTY}")), Err(AddressError::Length { len: 67 }));
        assert_eq!(parse(&EMPTY.to_uppercase()), Err(AddressError::Digit { at: 0 }));
        assert_eq!(parse(&format!("b3:{EMPTY} ")), Err(AddressError::Length { len: 65 }));
        // A prefix does not pad a digest that is too short by its length.
        assert_eq!(parse(&format!("b3:{}", &EMPTY[3..])), Err(AddressError::Length { len: 61 }));
    }

    #[test]
    fn every_byte_but_sixteen_is_refused_at_every_place() {
        for at in [0, 1, 31, 62, 63] {
            for byte in 0..=127_u8 {
                let mut text = EMPTY.as_bytes().to_vec();
                text[at] = byte;
                let parsed = std::str::from_utf8(&text).unwrap().parse::<Address>();
                if byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte) {
                    assert_eq!(parsed.unwrap().to_hex().as_slice(), text);
                } else {
                    assert_eq!(parsed, Err(AddressError::Digit { at }), "byte {byte}");
                }
            }
        }
    }

    #[test]
    fn a_route_segment_may_carry_a_suffix() {
        let parse = Address::parse_route_segment;
        let address = Address::of(b"");
        let longest = "a".repeat(TLD_LEN_MAX);
        for suffix in ["", ".webp", ".x", ".7z", ".a-b", &format!(".{longest}")] {
            assert_eq!(parse(&format!("{EMPTY}{suffix}")), Ok(address), "{suffix}");
            assert_eq!(parse(&format!("b3:{EMPTY}{suffix}")), Ok(address), "{suffix}");
        }
        let refused = |suffix: &str| parse(&format!("{EMPTY}{suffix}")).unwrap_err();
        assert_eq!(refused("."), AddressError::SuffixLength { len: 0 });
        assert_eq!(
            refused(&format!(".{longest}a")),
            AddressError::SuffixLength { len: TLD_LEN_MAX + 1 }
        );
        assert_eq!(refused(".Webp"), AddressError::SuffixByte { at: 0 });
        assert_eq!(refused(".tar.gz"), AddressError::SuffixByte { at: 3 });
        assert_eq!(refused(".é"), AddressError::SuffixByte { at: 0 });
        assert_eq!(parse(".webp"), Err(AddressError::Length { len: 0 }));
        assert!(parse(&EMPTY.replace('a', "é")).is_err());
    }

    #[test]
    fn partitions_are_pinned() {
        // These answers are on disk; a change here loses every stored object.
        let cases: [([u8; 8], u16, u16); 9] = [
            ([0; 8], 1, 0),
            ([0xff; 8], 1, 0),
            ([0; 8], u16::MAX, 0),
            ([0xff; 8], u16::MAX, u16::MAX - 1),
            ([0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 2, 0),
            ([0x80, 0, 0, 0, 0, 0, 0, 0], 2, 1),
            ([0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55], 3, 0),
            ([0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x56], 3, 1),
            ([0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6], 7, 4),
        ];
        for (bytes, count, partition) in cases {
            assert_eq!(with_prefix(bytes).partition(count), partition, "{bytes:x?} of {count}");
        }
        assert_eq!(Address::of(b"").partition(16), 10);
    }

    #[test]
    fn partitions_are_even() {
        for count in [1_u16, 2, 3, 5, 64] {
            let mut held = vec![0_u32; usize::from(count)];
            let total = 20_000_u32;
            for seed in 0..total {
                held[usize::from(Address::of(&seed.to_le_bytes()).partition(count))] += 1;
            }
            let fair = f64::from(total) / f64::from(count);
            for share in held {
                let apart = (f64::from(share) - fair).abs();
                assert!(apart < 6.0 * fair.sqrt(), "{share} of {total} in one of {count}");
            }
        }
    }

    #[test]
    fn json_is_the_full_spelling() {
        let address = Address::of(b"");
        let json = serde_json::to_string(&address).unwrap();
        assert_eq!(json, format!("\"b3:{EMPTY}\""));
        assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
        assert_eq!(serde_json::from_str::<Address>(&format!("\"{EMPTY}\"")).unwrap(), address);
        let escaped = format!("\"\\u00623:{EMPTY}\"");
        assert_eq!(serde_json::from_str::<Address>(&escaped).unwrap(), address);
        assert_eq!(serde_json::from_value::<Address>(json_value(&address)).unwrap(), address);
        assert!(serde_json::from_str::<Address>("\"b3:\"").is_err());
        assert!(serde_json::from_str::<Address>("7").is_err());
    }

    fn json_value(address: &Address) -> serde_json::Value {
        serde_json::Value::String(address.to_string())
    }

    proptest! {
        #[test]
        fn text_agrees_with_the_slow_way(bytes: [u8; ADDRESS_LEN]) {
            let address = Address::from_bytes(bytes);
            let slow: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(&address.to_hex()[..], slow.as_bytes());
            prop_assert_eq!(address.to_string(), format!("b3:{slow}"));
            prop_assert_eq!(slow.parse(), Ok(address));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(b3:)?[0-9a-fA-F.é]{0,70}") {
            if let Ok(address) = Address::parse_route_segment(&text) {
                let digits = text.strip_prefix("b3:").unwrap_or(&text).as_bytes();
                prop_assert_eq!(&address.to_hex()[..], &digits[..ADDRESS_HEX_LEN]);
            }
        }

        #[test]
        fn order_of_addresses_is_order_of_text_and_of_partitions(
            a: [u8; ADDRESS_LEN], b: [u8; ADDRESS_LEN], count in 1_u16..
        ) {
            let (a, b) = (Address::from_bytes(a), Address::from_bytes(b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(low.partition(count) <= high.partition(count));
            prop_assert!(high.partition(count) < count);
        }
    }
}
