//! Outboards: how one group of an object is checked without reading the others.
//!
//! BLAKE3 hashes an object as a binary tree. A group, `GROUP_LEN` bytes, is one whole subtree of it
//! and has a chaining value of 32 bytes. The list of these values, in order, is the object's
//! outboard; merged pairwise it gives the object's address. So a list that merges to the address
//! vouches for each group alone:
//!
//! ```text
//!                 address            merge_root(values) == address   once per object
//!                /       \
//!              o           o
//!            /   \       /   \
//! values    v0   v1     v2   v3      group_value(i, bytes) == v[i]   once per group
//!           |    |      |    |
//! groups   64K  64K    64K  rest
//! ```
//!
//! An object of at most one group has no outboard: its group is compared with the address itself.
//! This module refuses lists of the wrong length and groups of the wrong length before it hashes.
//! A list read from a disk or a peer proves nothing until `Outboard::verify_root` accepted it.

use std::ops::Range;

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use thiserror::Error;

use crate::address::Address;
use crate::limits::{GROUP_LEN, OBJECT_LEN_MAX, OUTBOARD_VALUE_LEN};

/// The chaining value of one group.
pub type GroupValue = [u8; OUTBOARD_VALUE_LEN];

/// More levels than any tree has whose leaves a slice can hold.
const TREE_LEVELS_MAX: usize = usize::BITS as usize;

/// Why a list of group values is not the outboard of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OutboardError {
    /// The list has `len` bytes; an object of this size has `expected`.
    #[error("outboard has {len} bytes instead of {expected}")]
    Length { len: usize, expected: usize },
    /// The object has `len` bytes, or would have them with the update that was refused.
    #[error("object of {len} bytes is longer than {max}")]
    ObjectLength { len: u64, max: u64 },
    /// The list merges to `found`, which is not the object's address.
    #[error("outboard merges to {found}")]
    Root { found: Address },
}

/// Why bytes are not the group they were said to be. Only `Digest` speaks about their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GroupMismatch {
    /// The object has only `count` groups.
    #[error("group {index} of an object of {count} groups")]
    Index { index: u64, count: u64 },
    /// The group has `expected` bytes.
    #[error("group has {len} bytes instead of {expected}")]
    Length { len: usize, expected: usize },
    /// The outboard has `count` values; the object has `expected`, zero for a single group.
    #[error("outboard has {count} values instead of {expected}")]
    Values { count: usize, expected: usize },
    /// The bytes are not those that the address names.
    #[error("group {index} does not match its digest")]
    Digest { index: u64 },
}

/// How many groups an object of `size` bytes has: none when it is empty.
#[must_use]
pub const fn group_count(size: u64) -> u64 {
    size.div_ceil(GROUP_LEN as u64)
}

/// Bytes of group `index` of an object of `size` bytes: `GROUP_LEN`, less for the last group, and
/// zero for a group that does not exist.
#[must_use]
pub const fn group_len(size: u64, index: u64) -> usize {
    let rest = size.saturating_sub(index.saturating_mul(GROUP_LEN as u64));
    if rest < GROUP_LEN as u64 { rest as usize } else { GROUP_LEN }
}

/// The groups that bytes `start..end` of an object touch: none when that range is empty.
#[must_use]
pub const fn groups_of_range(start: u64, end: u64) -> Range<u64> {
    let first = start / GROUP_LEN as u64;
    if end <= start { first..first } else { first..end.div_ceil(GROUP_LEN as u64) }
}

/// Bytes of the outboard of an object of `size` bytes: none for at most one group.
#[must_use]
pub const fn outboard_len(size: u64) -> usize {
    value_count(size) * OUTBOARD_VALUE_LEN
}

const fn value_count(size: u64) -> usize {
    let count = group_count(size);
    if count > 1 { count as usize } else { 0 }
}

/// The chaining value of group `index` of an object of more than one group.
///
/// # Panics
///
/// When `bytes` is empty or longer than a group, or the group lies beyond `OBJECT_LEN_MAX`: compare
/// with `group_len` before, as `verify_group` does.
#[must_use]
pub fn group_value(index: u64, bytes: &[u8]) -> GroupValue {
    assert!(!bytes.is_empty() && bytes.len() <= GROUP_LEN, "group of {} bytes", bytes.len());
    assert!(index < group_count(OBJECT_LEN_MAX), "group {index} is beyond any object");
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(index * GROUP_LEN as u64);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

/// Merges an outboard to the address of its object.
///
/// The tree is left-balanced: each left subtree is the largest power of two of leaves that leaves
/// something to its right. Subtrees are merged as soon as they are whole, like carries of a binary
/// counter, so one waiting subtree a level is all that is kept.
///
/// # Panics
///
/// When there are fewer than two values, which no outboard has.
#[must_use]
pub fn merge_root(values: &[GroupValue]) -> Address {
    assert!(values.len() >= 2, "outboard of {} values", values.len());
    let mut waiting = [GroupValue::default(); TREE_LEVELS_MAX];
    let mut depth = 0;
    let (others, last) = values.split_at(values.len() - 1);
    for (index, value) in others.iter().enumerate() {
        let mut merged = *value;
        for _ in 0..(index + 1).trailing_zeros() {
            depth -= 1;
            merged = merge_subtrees_non_root(&waiting[depth], &merged, Mode::Hash);
        }
        waiting[depth] = merged;
        depth += 1;
    }
    // The last leaf closes every subtree that still waits; the lowest of the stack is the root's.
    let mut right = last[0];
    for left in waiting[1..depth].iter().rev() {
        right = merge_subtrees_non_root(left, &right, Mode::Hash);
    }
    Address::from_bytes(*merge_subtrees_root(&waiting[0], &right, Mode::Hash).as_bytes())
}

/// Checks group `index` of the object `address` of `size` bytes.
///
/// `outboard` holds the object's group values and must have been accepted by
/// `Outboard::verify_root`; it is `None` or empty for an object of at most one group. An empty
/// object has no group to read, yet may be checked as group 0 without bytes.
///
/// # Errors
///
/// `GroupMismatch`: geometry first, then the digest.
pub fn verify_group<'a>(
    address: &Address,
    size: u64,
    outboard: Option<&[GroupValue]>,
    index: u64,
    bytes: &'a [u8],
) -> Result<Matched<'a>, GroupMismatch> {
    let count = group_count(size);
    if index >= count.max(1) || index >= group_count(OBJECT_LEN_MAX) {
        return Err(GroupMismatch::Index { index, count });
    }
    let expected = group_len(size, index);
    if bytes.len() != expected {
        return Err(GroupMismatch::Length { len: bytes.len(), expected });
    }
    let values = outboard.unwrap_or_default();
    if values.len() != value_count(size) {
        let expected = value_count(size);
        return Err(GroupMismatch::Values { count: values.len(), expected });
    }
    let expected = match values.get(index as usize) {
        None => Expected::Object(*address),
        Some(value) => Expected::Group(index, *value),
    };
    if expected.holds(bytes) {
        Ok(Matched { index, expected, bytes })
    } else {
        Err(GroupMismatch::Digest { index })
    }
}

/// What a group must hash to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The only group of this object.
    Object(Address),
    /// The group of this index, to the value in the outboard.
    Group(u64, GroupValue),
}

impl Expected {
    /// Hashes bytes and compares.
    #[must_use]
    pub fn holds(&self, bytes: &[u8]) -> bool {
        match self {
            Expected::Object(address) => Address::of(bytes) == *address,
            Expected::Group(index, value) => group_value(*index, bytes) == *value,
        }
    }
}

/// The proof that these bytes are a group of an object. Only `verify_group` makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matched<'a> {
    index: u64,
    expected: Expected,
    bytes: &'a [u8],
}

impl<'a> Matched<'a> {
    /// Position of the group in its object.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// What the bytes were compared with.
    #[must_use]
    pub fn expected(&self) -> Expected {
        self.expected
    }

    /// The very bytes that were hashed.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// The group values of one object, or none when it has at most one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outboard {
    size: u64,
    values: Box<[GroupValue]>,
}

impl Outboard {
    /// Reads the stored form: the values, one after the other, of an object of `size` bytes.
    ///
    /// # Errors
    ///
    /// `ObjectLength` or `Length` when no object has that size or that list.
    pub fn from_bytes(bytes: &[u8], size: u64) -> Result<Self, OutboardError> {
        Self::from_pieces(&[bytes], size)
    }

    /// The same of a stored form in pieces, each a whole number of values.
    ///
    /// # Errors
    ///
    /// `ObjectLength` or `Length` when no object has that size or that list.
    pub fn from_pieces(pieces: &[impl AsRef<[u8]>], size: u64) -> Result<Self, OutboardError> {
        if size > OBJECT_LEN_MAX {
            return Err(OutboardError::ObjectLength { len: size, max: OBJECT_LEN_MAX });
        }
        let expected = outboard_len(size);
        let len = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        let mut values: Vec<GroupValue> = Vec::with_capacity(value_count(size));
        for piece in pieces {
            let (whole, rest) = piece.as_ref().as_chunks();
            if len != expected || !rest.is_empty() {
                return Err(OutboardError::Length { len, expected });
            }
            values.extend(whole);
        }
        Ok(Self { size, values: values.into() })
    }

    /// The stored form, `outboard_len` bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.values.as_flattened()
    }

    /// The group values, in order.
    #[must_use]
    pub fn values(&self) -> &[GroupValue] {
        &self.values
    }

    /// Bytes of the object.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Whether the list is that of `address`. An object of at most one group has no list to doubt,
    /// so nothing is checked for it: its group is compared with the address.
    ///
    /// # Errors
    ///
    /// `Root` with what the list merges to.
    pub fn verify_root(&self, address: &Address) -> Result<(), OutboardError> {
        if self.values.is_empty() {
            return Ok(());
        }
        let found = merge_root(&self.values);
        if found == *address { Ok(()) } else { Err(OutboardError::Root { found }) }
    }

    /// Checks one group; see the function `verify_group`. Call after `verify_root`.
    ///
    /// # Errors
    ///
    /// `GroupMismatch`: geometry first, then the digest.
    pub fn verify_group<'a>(
        &self,
        address: &Address,
        index: u64,
        bytes: &'a [u8],
    ) -> Result<Matched<'a>, GroupMismatch> {
        verify_group(address, self.size, Some(&self.values), index, bytes)
    }
}

/// What `Hashing::finish` learned about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashed {
    pub address: Address,
    /// Bytes of the object.
    pub size: u64,
    pub outboard: Outboard,
}

/// Hashes an object while it streams by: `update` with slices of any length, then `finish`.
///
/// The size need not be known before. A group is closed only when a byte of the next one arrives,
/// so the hasher at work is always that of the last group; while that is also the first, it can
/// still be finished as the whole object's.
///
/// ```
/// use ron_codec::outboard::{Hashing, verify_group};
///
/// let object = vec![7; 100_000];
/// let mut hashing = Hashing::new();
/// object.chunks(1000).try_for_each(|bytes| hashing.update(bytes))?;
/// let hashed = hashing.finish();
/// hashed.outboard.verify_root(&hashed.address)?;
///
/// // The second group by itself, with the values of all groups.
/// let (group, values) = (&object[65_536..], Some(hashed.outboard.values()));
/// assert!(verify_group(&hashed.address, hashed.size, values, 1, group).is_ok());
/// assert!(verify_group(&hashed.address, hashed.size, values, 0, group).is_err());
/// # Ok::<(), ron_codec::outboard::OutboardError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Hashing {
    /// Hashes group `values.len()`; `filled` bytes of it were seen.
    hasher: blake3::Hasher,
    filled: usize,
    values: Vec<GroupValue>,
}

impl Default for Hashing {
    fn default() -> Self {
        Self::new()
    }
}

impl Hashing {
    /// Begins an object.
    #[must_use]
    pub fn new() -> Self {
        Self { hasher: blake3::Hasher::new(), filled: 0, values: Vec::new() }
    }

    /// Bytes hashed so far.
    #[must_use]
    pub const fn size(&self) -> u64 {
        (self.values.len() * GROUP_LEN + self.filled) as u64
    }

    /// Bytes of memory that are kept besides the value itself: 32 for each group.
    #[must_use]
    pub fn heap(&self) -> usize {
        self.values.capacity() * size_of::<GroupValue>()
    }

    /// Hashes the object's next bytes.
    ///
    /// # Errors
    ///
    /// `ObjectLength` when the object would exceed `OBJECT_LEN_MAX`; no byte is taken then.
    pub fn update(&mut self, mut bytes: &[u8]) -> Result<(), OutboardError> {
        let len = self.size().saturating_add(bytes.len() as u64);
        if len > OBJECT_LEN_MAX {
            return Err(OutboardError::ObjectLength { len, max: OBJECT_LEN_MAX });
        }
        while !bytes.is_empty() {
            if self.filled == GROUP_LEN {
                self.next_group();
            }
            let (now, later) = bytes.split_at(bytes.len().min(GROUP_LEN - self.filled));
            self.hasher.update(now);
            self.filled += now.len();
            bytes = later;
        }
        Ok(())
    }

    /// Ends the object.
    #[must_use]
    pub fn finish(mut self) -> Hashed {
        let size = self.size();
        let address = if self.values.is_empty() {
            Address::from_bytes(*self.hasher.finalize().as_bytes())
        } else {
            self.values.push(self.hasher.finalize_non_root());
            merge_root(&self.values)
        };
        assert_eq!(self.values.len(), value_count(size), "one value for each of several groups");
        Hashed { address, size, outboard: Outboard { size, values: self.values.into() } }
    }

    fn next_group(&mut self) {
        self.values.push(self.hasher.finalize_non_root());
        // Not `reset`: it keeps the old offset, and setting a new one then underflows in blake3.
        self.hasher = blake3::Hasher::new();
        self.hasher.set_input_offset((self.values.len() * GROUP_LEN) as u64);
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blake3::hazmat::left_subtree_len;
    use proptest::prelude::*;

    const GROUP: u64 = GROUP_LEN as u64;

    fn bytes_of(size: u64) -> Vec<u8> {
        let mut bytes = vec![0; size as usize];
        let mut reader = blake3::Hasher::new().update(&size.to_le_bytes()).finalize_xof();
        reader.fill(&mut bytes);
        bytes
    }

    /// Every size one less, exact and one more around chunks, groups and powers of two of them.
    fn edge_sizes() -> Vec<u64> {
        let groups = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 48, 64, 65];
        let edges = groups.iter().map(|count| count * GROUP).chain([1024, 2048, GROUP + 1024]);
        let around = edges.flat_map(|edge| [edge - 1, edge, edge + 1]);
        around.chain([0, 1, 2, 63, 64, 65, 5 * 1024 * 1024 + 12_345]).collect()
    }

    fn hashed(bytes: &[u8], slice: usize) -> Hashed {
        let mut hashing = Hashing::new();
        for part in bytes.chunks(slice) {
            hashing.update(part).unwrap();
        }
        assert_eq!(hashing.size(), bytes.len() as u64);
        hashing.finish()
    }

    /// The slow twin: the tree as BLAKE3 defines it, from the top, group by group.
    fn slow_value(bytes: &[u8], offset: u64) -> GroupValue {
        if bytes.len() <= GROUP_LEN {
            return blake3::Hasher::new()
                .set_input_offset(offset)
                .update(bytes)
                .finalize_non_root();
        }
        let (left, right) = bytes.split_at(left_subtree_len(bytes.len() as u64) as usize);
        let left_value = slow_value(left, offset);
        let right_value = slow_value(right, offset + left.len() as u64);
        merge_subtrees_non_root(&left_value, &right_value, Mode::Hash)
    }

    #[test]
    fn every_edge_size_hashes_as_blake3_does() {
        for size in edge_sizes() {
            let bytes = bytes_of(size);
            let plain = Address::of(&bytes);
            for slice in [1000, 4096, GROUP_LEN - 1, GROUP_LEN, GROUP_LEN + 1, usize::MAX] {
                let hashed = hashed(&bytes, slice);
                assert_eq!(hashed.address, plain, "size {size} by {slice}");
                assert_eq!(hashed.size, size);
                assert_eq!(hashed.outboard.as_bytes().len(), outboard_len(size));
            }
        }
    }

    #[test]
    fn every_group_of_every_edge_size_is_verified_and_mistrusted() {
        for size in edge_sizes() {
            let bytes = bytes_of(size);
            let Hashed { address, outboard, .. } = hashed(&bytes, usize::MAX);
            let stored = Outboard::from_bytes(outboard.as_bytes(), size).unwrap();
            assert_eq!(stored, outboard);
            stored.verify_root(&address).unwrap();
            for (index, group) in bytes.chunks(GROUP_LEN).enumerate() {
                let index = index as u64;
                assert_eq!(group.len(), group_len(size, index));
                stored.verify_group(&address, index, group).unwrap();
                let mut bad = group.to_vec();
                for at in [0, group.len() / 2, group.len() - 1] {
                    bad[at] ^= 0x10;
                    let refused = stored.verify_group(&address, index, &bad);
                    assert_eq!(refused, Err(GroupMismatch::Digest { index }), "{size} {at}");
                    bad[at] ^= 0x10;
                }
            }
        }
    }

    #[test]
    fn values_are_subtrees_of_the_slow_tree() {
        let bytes = bytes_of(4 * GROUP + 77);
        let outboard = hashed(&bytes, 999).outboard;
        for (index, group) in bytes.chunks(GROUP_LEN).enumerate() {
            let value = outboard.values()[index];
            assert_eq!(value, slow_value(group, index as u64 * GROUP));
            assert_eq!(value, group_value(index as u64, group));
        }
        let left = slow_value(&bytes[..4 * GROUP_LEN], 0);
        let right = slow_value(&bytes[4 * GROUP_LEN..], 4 * GROUP);
        let root = merge_subtrees_root(&left, &right, Mode::Hash);
        assert_eq!(merge_root(outboard.values()).as_bytes(), root.as_bytes());
    }

    #[test]
    fn large_lists_merge_as_the_recursive_tree() {
        fn slow(values: &[GroupValue]) -> GroupValue {
            if let [value] = values {
                return *value;
            }
            let (left, right) = values.split_at(values.len().next_power_of_two() / 2);
            merge_subtrees_non_root(&slow(left), &slow(right), Mode::Hash)
        }
        let most = group_count(OBJECT_LEN_MAX) as usize;
        let values: Vec<GroupValue> =
            (0..most).map(|index| *Address::of(&index.to_le_bytes()).as_bytes()).collect();
        for count in (2..70).chain([1023, 1024, 1025, most - 1, most]) {
            let values = &values[..count];
            let (left, right) = values.split_at(count.next_power_of_two() / 2);
            let root = merge_subtrees_root(&slow(left), &slow(right), Mode::Hash);
            assert_eq!(merge_root(values).as_bytes(), root.as_bytes(), "{count} values");
        }
    }

    #[test]
    fn a_flipped_bit_of_the_outboard_is_detected() {
        let size = 5 * GROUP + 1;
        let Hashed { address, outboard, .. } = hashed(&bytes_of(size), usize::MAX);
        let mut stored = outboard.as_bytes().to_vec();
        for bit in 0..stored.len() * 8 {
            stored[bit / 8] ^= 1 << (bit % 8);
            let bad = Outboard::from_bytes(&stored, size).unwrap();
            assert!(matches!(bad.verify_root(&address), Err(OutboardError::Root { .. })), "{bit}");
            stored[bit / 8] ^= 1 << (bit % 8);
        }
        let other = Address::of(b"other");
        assert_eq!(outboard.verify_root(&other), Err(OutboardError::Root { found: address }));
    }

    #[test]
    fn groups_do_not_stand_in_for_each_other() {
        // All groups hold the same bytes; only their places tell them apart.
        let bytes = vec![7; 3 * GROUP_LEN];
        let outboard = hashed(&bytes, usize::MAX).outboard;
        assert_ne!(outboard.values()[0], outboard.values()[1]);
        let mut swapped = outboard.as_bytes().to_vec();
        swapped.rotate_left(OUTBOARD_VALUE_LEN);
        let swapped = Outboard::from_bytes(&swapped, outboard.size()).unwrap();
        let address = Address::of(&bytes);
        assert!(swapped.verify_root(&address).is_err());
        let refused = swapped.verify_group(&address, 0, &bytes[..GROUP_LEN]);
        assert_eq!(refused, Err(GroupMismatch::Digest { index: 0 }));
    }

    #[test]
    fn wrong_geometry_is_refused_before_hashing() {
        let size = GROUP + 10;
        let bytes = bytes_of(size);
        let Hashed { address, outboard, .. } = hashed(&bytes, usize::MAX);
        let values = outboard.values();
        let check = |size, outboard, index, bytes| {
            verify_group(&address, size, outboard, index, bytes).unwrap_err()
        };
        let tail = &bytes[GROUP_LEN..];
        let index = |index| GroupMismatch::Index { index, count: 2 };
        assert_eq!(check(size, Some(values), 2, b""), index(2));
        assert_eq!(check(size, Some(values), u64::MAX, b""), index(u64::MAX));
        let length = |len| GroupMismatch::Length { len, expected: 10 };
        assert_eq!(check(size, Some(values), 1, &tail[1..]), length(9));
        assert_eq!(check(size, Some(values), 1, b""), length(0));
        assert_eq!(check(size, Some(values), 1, &bytes), length(bytes.len()));
        let values_of = |count, expected| GroupMismatch::Values { count, expected };
        assert_eq!(check(size, None, 1, tail), values_of(0, 2));
        assert_eq!(check(size, Some(&values[..1]), 1, tail), values_of(1, 2));
        assert_eq!(check(10, Some(values), 0, tail), values_of(2, 0));
        // A size that no object has is refused by its groups, however far they are.
        let far = group_count(u64::MAX) - 1;
        let count = group_count(u64::MAX);
        assert_eq!(check(u64::MAX, None, far, b""), GroupMismatch::Index { index: far, count });
    }

    #[test]
    fn an_object_of_one_group_is_its_own_outboard() {
        for size in [0, 1, 1024, GROUP - 1, GROUP] {
            let bytes = bytes_of(size);
            let Hashed { address, outboard, .. } = hashed(&bytes, usize::MAX);
            assert!(outboard.values().is_empty());
            outboard.verify_root(&address).unwrap();
            verify_group(&address, size, None, 0, &bytes).unwrap();
            let refused = verify_group(&Address::of(b"other"), size, Some(&[]), 0, &bytes);
            assert_eq!(refused, Err(GroupMismatch::Digest { index: 0 }));
        }
    }

    #[test]
    fn stored_lists_have_one_length() {
        let refused = |len: usize, size| Outboard::from_bytes(&vec![0; len], size).unwrap_err();
        let length = |len, expected| OutboardError::Length { len, expected };
        assert_eq!(refused(32, 0), length(32, 0));
        assert_eq!(refused(32, GROUP), length(32, 0));
        assert_eq!(refused(0, GROUP + 1), length(0, 64));
        assert_eq!(refused(63, GROUP + 1), length(63, 64));
        assert_eq!(refused(65, GROUP + 1), length(65, 64));
        let too_long = |len| OutboardError::ObjectLength { len, max: OBJECT_LEN_MAX };
        assert_eq!(refused(0, OBJECT_LEN_MAX + 1), too_long(OBJECT_LEN_MAX + 1));
        assert_eq!(refused(0, u64::MAX), too_long(u64::MAX));
        assert!(Outboard::from_bytes(&vec![0; 8 * 1024 * 1024], OBJECT_LEN_MAX).is_ok());
    }

    #[test]
    fn pieces_make_the_same_list() {
        let outboard = hashed(&bytes_of(9 * GROUP + 1), usize::MAX).outboard;
        let stored = outboard.as_bytes();
        for cut in (0..=stored.len()).step_by(OUTBOARD_VALUE_LEN) {
            let pieces = [&stored[..cut], &stored[cut..]];
            assert_eq!(Outboard::from_pieces(&pieces, outboard.size()).unwrap(), outboard);
        }
        let cut = [&stored[..33], &stored[33..]];
        assert!(Outboard::from_pieces(&cut, outboard.size()).is_err());
        let short = [&stored[..64], &stored[96..]];
        assert!(Outboard::from_pieces(&short, outboard.size()).is_err());
    }

    #[test]
    fn an_object_beyond_the_limit_is_refused() {
        let mut hashing = Hashing::new();
        // As though all but ten bytes of the longest object had been hashed.
        hashing.values = vec![GroupValue::default(); group_count(OBJECT_LEN_MAX) as usize - 1];
        hashing.filled = GROUP_LEN - 10;
        let len = OBJECT_LEN_MAX + 1;
        let refused = Err(OutboardError::ObjectLength { len, max: OBJECT_LEN_MAX });
        assert_eq!(hashing.update(&[0; 11]), refused);
        assert_eq!(hashing.size(), OBJECT_LEN_MAX - 10);
        assert_eq!(hashing.update(&[0; 10]), Ok(()));
        assert!(hashing.update(&[0]).is_err());
        assert_eq!(hashing.update(&[]), Ok(()));
    }

    #[test]
    fn geometry_at_the_edges() {
        let sizes = [(0, 0), (1, 1), (GROUP - 1, 1), (GROUP, 1), (GROUP + 1, 2), (2 * GROUP, 2)];
        for (size, count) in sizes {
            assert_eq!(group_count(size), count, "size {size}");
            assert_eq!(outboard_len(size), if count > 1 { count as usize * 32 } else { 0 });
            assert_eq!((0..=count).map(|index| group_len(size, index) as u64).sum::<u64>(), size);
        }
        assert_eq!(outboard_len(OBJECT_LEN_MAX), crate::limits::OUTBOARD_LEN_MAX);
        assert_eq!(group_len(u64::MAX, u64::MAX), 0);
        assert_eq!(group_len(5, u64::MAX), 0);
        assert_eq!(groups_of_range(0, 0), 0..0);
        assert_eq!(groups_of_range(0, 1), 0..1);
        assert_eq!(groups_of_range(0, GROUP), 0..1);
        assert_eq!(groups_of_range(0, GROUP + 1), 0..2);
        assert_eq!(groups_of_range(GROUP - 1, GROUP), 0..1);
        assert_eq!(groups_of_range(GROUP - 1, GROUP + 1), 0..2);
        assert_eq!(groups_of_range(GROUP, 3 * GROUP), 1..3);
        assert!(groups_of_range(GROUP, GROUP).is_empty());
        assert!(groups_of_range(9 * GROUP, 1).is_empty());
        assert_eq!(groups_of_range(0, u64::MAX), 0..group_count(u64::MAX));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn splits_do_not_matter(
            size in 0..6 * GROUP, cuts in prop::collection::vec(0_usize..100_000, 0..20)
        ) {
            let bytes = bytes_of(size);
            let mut rest = bytes.as_slice();
            let mut hashing = Hashing::new();
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                hashing.update(now).unwrap();
                rest = later;
            }
            hashing.update(rest).unwrap();
            prop_assert_eq!(hashing.finish(), hashed(&bytes, usize::MAX));
            prop_assert_eq!(hashed(&bytes, usize::MAX).address, Address::of(&bytes));
        }

        #[test]
        fn a_flipped_bit_of_the_data_is_detected(
            size in 1..5 * GROUP, place: prop::sample::Index, bit in 0..8_u32
        ) {
            let mut bytes = bytes_of(size);
            let Hashed { address, outboard, .. } = hashed(&bytes, usize::MAX);
            let at = place.index(bytes.len());
            bytes[at] ^= 1 << bit;
            for (index, group) in bytes.chunks(GROUP_LEN).enumerate() {
                let bad = index == at / GROUP_LEN;
                let verdict = outboard.verify_group(&address, index as u64, group);
                prop_assert_eq!(verdict.is_err(), bad);
            }
        }
    }
}
