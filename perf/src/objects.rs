//! The objects that measurements use. They follow from a seed, so that a run knows the addresses
//! and the bytes of what an earlier one stored.
//!
//! ```text
//!   object n   │ seed, 8 bytes │ n, 8 bytes │ noise, the same for all objects │
//! ```
//!
//! All objects of one length differ in their first chunk only, so everything else is hashed once:
//! the address of a further object costs one chunk and a merge for each level of the tree,
//! whatever its length. This module makes objects and names them; it sends and stores nothing.

use std::{fmt, str::FromStr, sync::Arc};

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use ron_codec::address::Address;
use ron_io::splitmix::SplitMix64;
use serde::{Serialize, Serializer};
use thiserror::Error;

/// Bytes at the start of an object that differ from those of every other.
pub const STAMP_LEN: usize = 16;

/// The beginning of one object.
pub type Stamp = [u8; STAMP_LEN];

/// Most objects of one class: their addresses are kept in memory.
pub const COUNT_MAX: u64 = 1 << 24;

/// Largest object: it is in memory, once.
pub const SIZE_MAX: usize = 4 * 1024 * 1024 * 1024;

/// Bytes of one leaf of the hash tree.
const CHUNK_LEN: usize = 1024;

const _: () = assert!(STAMP_LEN <= CHUNK_LEN);

/// Why there are no such objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ObjectsError {
    #[error("objects have {STAMP_LEN} to {SIZE_MAX} bytes, not {size}")]
    Size { size: usize },
    #[error("there are 1 to {COUNT_MAX} objects of a size, not {count}")]
    Count { count: u64 },
}

/// Bytes that do not compress and repeat nowhere. Shorter noise is the beginning of longer.
#[must_use]
pub fn noise(len: usize) -> Vec<u8> {
    let mut numbers = SplitMix64::new(0x9E37_79B9_7F4A_7C15);
    let mut bytes = vec![0; len.next_multiple_of(8)];
    for word in bytes.chunks_exact_mut(8) {
        word.copy_from_slice(&numbers.next_u64().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The beginning of object `number` of `seed`.
#[must_use]
pub fn stamp(seed: u64, number: u64) -> Stamp {
    let mut stamp = [0; STAMP_LEN];
    stamp[..8].copy_from_slice(&seed.to_le_bytes());
    stamp[8..].copy_from_slice(&number.to_le_bytes());
    stamp
}

/// All objects of one length.
#[derive(Clone, Debug)]
pub struct Family {
    size: usize,
    noise: Arc<Vec<u8>>,
    /// Chaining values of the right subtrees that the first chunk is merged with, its neighbour
    /// first and the right half of the whole object last.
    right: Vec<ChainingValue>,
}

impl Family {
    /// The objects of `size` bytes, which `noise` must have at least.
    ///
    /// # Errors
    /// [`ObjectsError::Size`] when they cannot be distinguished, or are too large.
    ///
    /// # Panics
    /// When `noise` is too short.
    pub fn new(size: usize, noise: &Arc<Vec<u8>>) -> Result<Self, ObjectsError> {
        if !(STAMP_LEN..=SIZE_MAX).contains(&size) {
            return Err(ObjectsError::Size { size });
        }
        assert!(noise.len() >= size, "noise for the largest object was made");
        let mut right = Vec::new();
        let mut len = size;
        while len > CHUNK_LEN {
            // A left subtree is shorter than what it is the left of, which fits usize.
            let left = left_subtree_len(len as u64) as usize;
            let mut hasher = blake3::Hasher::new();
            hasher.set_input_offset(left as u64);
            hasher.update(&noise[left..len]);
            right.push(hasher.finalize_non_root());
            len = left;
        }
        right.reverse();
        Ok(Self { size, noise: Arc::clone(noise), right })
    }

    /// Bytes of each object.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// What follows the stamp in every object.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.noise[STAMP_LEN..self.size]
    }

    /// The address of the object that begins with `stamp`.
    #[must_use]
    pub fn address(&self, stamp: &Stamp) -> Address {
        let mut first = blake3::Hasher::new();
        first.update(stamp);
        first.update(&self.noise[STAMP_LEN..self.size.min(CHUNK_LEN)]);
        let hash = match self.right.split_last() {
            None => first.finalize(),
            Some((half, nearer)) => {
                let merge = |left, right| merge_subtrees_non_root(&left, right, Mode::Hash);
                let left = nearer.iter().fold(first.finalize_non_root(), merge);
                merge_subtrees_root(&left, half, Mode::Hash)
            }
        };
        Address::from_bytes(*hash.as_bytes())
    }
}

/// Some objects of one length, as an option says it: `SIZE[:COUNT[:WEIGHT]]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassSpec {
    /// Bytes of each.
    pub size: usize,
    /// How many there are.
    pub count: u64,
    /// How often they are asked for, in proportion to the other classes' weights.
    pub weight: f64,
}

impl FromStr for ClassSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let size = parse_size(parts.next().unwrap_or_default())?;
        let count = parts.next().map_or(Ok(1), |count| {
            count.parse().map_err(|_| format!("{count:?} is no count of objects"))
        })?;
        let weight: f64 = parts.next().map_or(Ok(1.0), |weight| {
            weight.parse().map_err(|_| format!("{weight:?} is no weight"))
        })?;
        if parts.next().is_some() {
            return Err("expected SIZE[:COUNT[:WEIGHT]]".to_owned());
        }
        if !(STAMP_LEN..=SIZE_MAX).contains(&size) {
            return Err(ObjectsError::Size { size }.to_string());
        }
        if !(1..=COUNT_MAX).contains(&count) {
            return Err(ObjectsError::Count { count }.to_string());
        }
        if !weight.is_finite() || weight <= 0.0 {
            return Err(format!("a weight is above 0, not {weight}"));
        }
        Ok(Self { size, count, weight })
    }
}

impl fmt::Display for ClassSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.size, self.count, self.weight)
    }
}

impl Serialize for ClassSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Objects 0 to `count` of a family, and their addresses.
#[derive(Debug)]
pub struct Class {
    pub spec: ClassSpec,
    pub family: Family,
    pub addresses: Vec<Address>,
}

/// The classes of a run, which share one noise.
///
/// # Errors
/// As [`Family::new`].
pub fn classes(specs: &[ClassSpec], seed: u64) -> Result<Vec<Class>, ObjectsError> {
    let largest = specs.iter().map(|spec| spec.size).max().unwrap_or(0);
    if largest > SIZE_MAX {
        return Err(ObjectsError::Size { size: largest });
    }
    let noise = Arc::new(noise(largest));
    let class = |spec: &ClassSpec| {
        let family = Family::new(spec.size, &noise)?;
        let addresses = (0..spec.count).map(|n| family.address(&stamp(seed, n))).collect();
        Ok(Class { spec: *spec, family, addresses })
    };
    specs.iter().map(class).collect()
}

/// Reads a number of bytes: `4096`, `4KiB`, `64MiB`, `1GiB`.
///
/// # Errors
/// What is wrong with it, for the person who wrote it.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: usize = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        "GiB" => 1024 * 1024 * 1024,
        unit => return Err(format!("unknown unit {unit:?}: use KiB, MiB or GiB")),
    };
    let number: usize = digits.parse().map_err(|error| format!("{error}"))?;
    number.checked_mul(unit).ok_or_else(|| "too large".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_whole_bytes() {
        let noise = Arc::new(noise(3 << 20));
        let sizes = [
            STAMP_LEN,
            17,
            CHUNK_LEN - 1,
            CHUNK_LEN,
            CHUNK_LEN + 1,
            2 * CHUNK_LEN,
            2 * CHUNK_LEN + 1,
            3 * CHUNK_LEN,
            4096,
            65_535,
            65_536,
            65_537,
            1 << 20,
            (1 << 20) + 1,
            3 << 20,
        ];
        for size in sizes {
            let family = Family::new(size, &noise).unwrap();
            for number in [0, 1, u64::MAX] {
                let stamp = stamp(7, number);
                let whole = [&stamp[..], family.rest()].concat();
                assert_eq!(whole.len(), size);
                assert_eq!(family.address(&stamp), Address::of(&whole), "{size} {number}");
            }
        }
    }

    #[test]
    fn noise_is_a_beginning_of_longer_noise() {
        let long = noise(1001);
        assert_eq!(noise(999), long[..999]);
        assert!(noise(0).is_empty());
    }

    #[test]
    fn sizes_too_short_for_a_stamp_are_refused() {
        let noise = Arc::new(noise(100));
        let size = STAMP_LEN - 1;
        assert_eq!(Family::new(size, &noise).unwrap_err(), ObjectsError::Size { size });
        assert!(Family::new(STAMP_LEN, &noise).is_ok());
    }

    #[test]
    fn classes_are_read_or_refused() {
        let spec = |size, count, weight| Ok(ClassSpec { size, count, weight });
        assert_eq!("4KiB".parse(), spec(4096, 1, 1.0));
        assert_eq!("1MiB:10".parse(), spec(1 << 20, 10, 1.0));
        assert_eq!("1MiB:10:0.1".parse(), spec(1 << 20, 10, 0.1));
        for wrong in [
            "",
            ":",
            "15",
            "1KB",
            "4KiB:",
            "4KiB:0",
            "4KiB:-1",
            "4KiB:1:0",
            "4KiB:1:-1",
            "4KiB:1:NaN",
            "4KiB:1:inf",
            "4KiB:1:1:1",
            "5GiB",
            "4KiB:16777217",
        ] {
            assert!(wrong.parse::<ClassSpec>().is_err(), "{wrong}");
        }
        let text = spec(4096, 3, 0.5).map(|spec: ClassSpec| spec.to_string());
        assert_eq!(text.and_then(|text: String| text.parse()), spec(4096, 3, 0.5));
    }

    #[test]
    fn sizes_are_read_or_refused() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        for wrong in ["64MB", "KiB", "", "-1", "99999999999GiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_class_knows_its_addresses() {
        let specs = [ClassSpec { size: 100, count: 2, weight: 1.0 }];
        let made = classes(&specs, 5).unwrap();
        assert_eq!(made[0].addresses.len(), 2);
        assert_eq!(made[0].addresses[1], made[0].family.address(&stamp(5, 1)));
        assert_ne!(made[0].addresses[0], made[0].addresses[1]);
    }
}
