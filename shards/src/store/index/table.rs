//! The table of a partition: every object's address and where its record lies, in memory.
//!
//! A tree of two kinds of nodes: below, leaves of up to `LEAF_SLOTS_MAX` packed slots in the order
//! of their addresses; above, a `BTreeMap` from the lowest address of each leaf to the leaf:
//!
//! ```text
//!   directory   | 00… | 1f… | 3c… | …
//!                  │     │     │
//!   leaves       [slots][slots][slots]      sorted; each grows by a few slots at a time
//! ```
//!
//! An insertion that finds its leaf full splits that leaf alone, so no step ever moves more than
//! one leaf and the way to it: there is no rehash. Addresses are chosen by who stores objects, and
//! any number of them may begin alike: a tree is as deep with them as with others. Every question
//! is answered exactly, from memory.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

use ron_codec::{address::Address, limits::OBJECT_LEN_MAX};

use super::entry::{Entry, Location, array};

/// Bytes of an object in a leaf and in a snapshot.
pub(super) const SLOT_LEN: usize = 51;

/// Slots of a full leaf, and those that are added when it grows.
const LEAF_SLOTS_MAX: usize = 128;
const LEAF_GROWTH: usize = 8;

/// Slots of a leaf that is made of a snapshot: some are left for what comes.
const LEAF_LOADED: usize = 104;

/// Bytes of a leaf beside its slots: key and place in the directory, whose nodes are two thirds
/// full, and what the allocator takes.
const LEAF_LEN: usize = 112;

/// Set in the number of the segment of an entry whose object has a file of its own.
const FILE_BIT: u32 = 1 << 31;

/// Records lie at multiples of this in a segment.
const OFFSET_UNIT: u32 = 128;

/// Bits of an object's size; those above are of the offset.
const SIZE_BITS: u32 = 35;

const _: () = assert!(OBJECT_LEN_MAX < 1 << SIZE_BITS);
const _: () =
    assert!(ron_codec::limits::SEGMENT_LEN_MAX / (OFFSET_UNIT as u64) <= 1 << (56 - SIZE_BITS));

/// An object's address and entry, packed:
///
/// | at | bytes | field |
/// |---:|---:|---|
/// | 0 | 32 | address |
/// | 32 | 4 | segment; the highest bit is set for an object in a file of its own |
/// | 36 | 7 | size, 35 bits; above them the offset in units of 128, 21 bits |
/// | 43 | 8 | sequence |
///
/// Segment 0 without the bit, where no record lies, says that the object is gone.
pub(super) type Slot = [u8; SLOT_LEN];

pub(super) fn encode(address: &Address, entry: &Entry) -> Slot {
    let (segment, offset) = match entry.location {
        Location::Segment { segment, offset } => (segment, offset),
        Location::File { segment } => (FILE_BIT | segment, 0),
    };
    assert!(segment != 0 && offset.is_multiple_of(OFFSET_UNIT), "{entry:?}");
    assert!(entry.size <= OBJECT_LEN_MAX, "{entry:?}");
    let units = u64::from(offset / OFFSET_UNIT);
    assert!(units < 1 << (56 - SIZE_BITS), "{entry:?}");
    let packed = entry.size | units << SIZE_BITS;
    let mut slot = gone(address);
    slot[32..36].copy_from_slice(&segment.to_le_bytes());
    slot[36..43].copy_from_slice(&packed.to_le_bytes()[..7]);
    slot[43..51].copy_from_slice(&entry.sequence.to_le_bytes());
    slot
}

/// The slot that says that an object is gone.
pub(super) fn gone(address: &Address) -> Slot {
    let mut slot = [0; SLOT_LEN];
    slot[..32].copy_from_slice(address.as_bytes());
    slot
}

/// What a slot says of its object; `None`: it is gone.
pub(super) fn decode(slot: &Slot) -> Option<Entry> {
    let mut packed = [0; 8];
    packed[..7].copy_from_slice(&slot[36..43]);
    let packed = u64::from_le_bytes(packed);
    let offset = (packed >> SIZE_BITS) as u32 * OFFSET_UNIT;
    let segment = u32::from_le_bytes(array(slot, 32));
    let location = match segment {
        0 => return None,
        _ if segment & FILE_BIT == 0 => Location::Segment { segment, offset },
        _ => Location::File { segment: segment & !FILE_BIT },
    };
    let size = packed & ((1 << SIZE_BITS) - 1);
    Some(Entry { location, size, sequence: u64::from_le_bytes(array(slot, 43)) })
}

pub(super) fn address(slot: &Slot) -> Address {
    Address::from_bytes(array(slot, 0))
}

fn key(slot: &Slot) -> &[u8] {
    &slot[..32]
}

/// The objects of one partition.
#[derive(Debug)]
pub(super) struct Table {
    /// By the lowest address that belongs there. The first leaf begins with the lowest address of
    /// all and is always there.
    leaves: BTreeMap<Address, Vec<Slot>>,
    len: usize,
    /// Slots that memory was taken for.
    slots: usize,
    /// Slots that were moved, in all its life: what insertions and removals cost.
    #[cfg(test)]
    moves: usize,
}

impl Table {
    pub(super) fn new() -> Table {
        let leaves = BTreeMap::from([(Address::from_bytes([0; 32]), Vec::new())]);
        Table {
            leaves,
            len: 0,
            slots: 0,
            #[cfg(test)]
            moves: 0,
        }
    }

    /// How many objects there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.slots * SLOT_LEN + self.leaves.len() * LEAF_LEN
    }

    pub(super) fn get(&self, address: &Address) -> Option<Entry> {
        let (_, leaf) = self.leaves.range(..=*address).next_back()?;
        let at = find(leaf, address).ok()?;
        decode(&leaf[at])
    }

    /// Puts a slot in the place of what is known of its address, which is returned.
    pub(super) fn insert(&mut self, slot: Slot) -> Option<Slot> {
        let address = address(&slot);
        let (_, leaf) = self.leaves.range_mut(..=address).next_back().expect("the first leaf");
        let at = match find(leaf, &address) {
            Ok(at) => return Some(std::mem::replace(&mut leaf[at], slot)),
            Err(at) => at,
        };
        self.len += 1;
        if leaf.len() < LEAF_SLOTS_MAX {
            let before = leaf.capacity();
            if leaf.len() == before {
                leaf.reserve_exact(LEAF_GROWTH);
            }
            self.slots += leaf.capacity() - before;
            leaf.insert(at, slot);
            #[cfg(test)]
            {
                self.moves += leaf.len();
            }
            return None;
        }
        // Both halves are as long as they must be, and one slot longer where the new one goes.
        let middle = LEAF_SLOTS_MAX / 2;
        let mut high = Vec::with_capacity(LEAF_SLOTS_MAX - middle + LEAF_GROWTH);
        high.extend_from_slice(&leaf[middle..]);
        self.slots -= leaf.capacity();
        leaf.truncate(middle);
        leaf.shrink_to(middle + LEAF_GROWTH);
        let half = if at > middle { (&mut high, at - middle) } else { (&mut *leaf, at) };
        half.0.insert(half.1, slot);
        self.slots += leaf.capacity() + high.capacity();
        #[cfg(test)]
        {
            self.moves += leaf.len() + high.len();
        }
        self.leaves.insert(self::address(&high[0]), high);
        None
    }

    /// Takes an object out, and returns what was known of it.
    pub(super) fn remove(&mut self, address: &Address) -> Option<Slot> {
        let (lowest, leaf) =
            self.leaves.range_mut(..=*address).next_back().expect("the first leaf");
        let at = find(leaf, address).ok()?;
        let before = leaf.capacity();
        let slot = leaf.remove(at);
        self.len -= 1;
        if before > leaf.len() + 2 * LEAF_GROWTH {
            leaf.shrink_to(leaf.len() + LEAF_GROWTH);
        }
        self.slots -= before - leaf.capacity();
        #[cfg(test)]
        {
            self.moves += leaf.len();
        }
        if leaf.len() <= LEAF_SLOTS_MAX / 4 {
            let lowest = *lowest;
            self.join(lowest);
        }
        Some(slot)
    }

    /// Joins a leaf that became short with the one before it, if both together are half full.
    fn join(&mut self, lowest: Address) {
        let short = self.leaves[&lowest].len();
        let Some((_, before)) = self.leaves.range_mut(..lowest).next_back() else { return };
        if short > 0 && before.len() + short > LEAF_SLOTS_MAX / 2 {
            return;
        }
        let old_capacity = before.capacity();
        before.reserve_exact(short);
        let grown = before.capacity() - old_capacity;
        let leaf = self.leaves.remove(&lowest).expect("it was found");
        let (_, before) = self.leaves.range_mut(..lowest).next_back().expect("it was found");
        before.extend_from_slice(&leaf);
        self.slots = self.slots + grown - leaf.capacity();
        #[cfg(test)]
        {
            self.moves += leaf.len();
        }
    }

    /// Takes up what a slot says: that its object is there, or gone.
    pub(super) fn put(&mut self, slot: Slot) {
        match decode(&slot) {
            Some(_) => drop(self.insert(slot)),
            None => drop(self.remove(&address(&slot))),
        }
    }

    /// Up to `max` slots behind `after`, in the order of their addresses. Fewer only at the end.
    pub(super) fn page(&self, after: Option<&Address>, max: usize) -> Vec<Slot> {
        let mut page = Vec::with_capacity(max.min(self.len));
        let first = after.map_or(Unbounded, |after| {
            let (lowest, leaf) = self.leaves.range(..=*after).next_back().expect("the first leaf");
            let from = find(leaf, after).map_or_else(|at| at, |at| at + 1);
            page.extend(leaf[from..].iter().take(max));
            Excluded(*lowest)
        });
        for (_, leaf) in self.leaves.range((first, Unbounded)) {
            if page.len() == max {
                break;
            }
            page.extend(leaf.iter().take(max - page.len()));
        }
        page
    }

    /// All slots, in the order of their addresses.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.leaves.values().flatten()
    }

    /// Takes all objects out that are not to be kept, and returns how many those were.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) -> usize {
        let doomed: Vec<Address> = self
            .iter()
            .filter(|slot| decode(slot).is_some_and(|entry| !keep(&entry)))
            .map(address)
            .collect();
        for address in &doomed {
            self.remove(address);
        }
        doomed.len()
    }

    /// Adds a slot whose address is above all others; `false` if it is not.
    pub(super) fn push(&mut self, slot: Slot) -> bool {
        let (_, last) = self.leaves.iter_mut().next_back().expect("the first leaf");
        if last.last().is_some_and(|last| key(last) >= key(&slot)) {
            return false;
        }
        self.len += 1;
        if last.len() < LEAF_LOADED {
            if last.is_empty() {
                last.reserve_exact(LEAF_LOADED);
                self.slots += last.capacity();
            }
            last.push(slot);
        } else {
            let mut leaf = Vec::with_capacity(LEAF_LOADED);
            leaf.push(slot);
            self.slots += leaf.capacity();
            self.leaves.insert(address(&slot), leaf);
        }
        true
    }
}

fn find(leaf: &[Slot], address: &Address) -> Result<usize, usize> {
    leaf.binary_search_by(|slot| key(slot).cmp(&address.as_bytes()[..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(n: u64) -> Entry {
        let segment = 1 + n as u32;
        let location = match n % 3 {
            0 => Location::File { segment },
            _ => Location::Segment { segment, offset: n as u32 * 128 },
        };
        Entry { location, size: n, sequence: u64::MAX - n }
    }

    /// Addresses, many of them beginning alike, as one who chooses what to store can make them.
    fn address_of(n: u64) -> Address {
        let mut bytes = [0; 32];
        if n.is_multiple_of(2) {
            bytes = *Address::of(&n.to_le_bytes()).as_bytes();
        } else {
            bytes[16..24].copy_from_slice(&n.to_be_bytes());
        }
        Address::from_bytes(bytes)
    }

    fn check(table: &Table) {
        let slots: usize = table.leaves.values().map(Vec::capacity).sum();
        assert_eq!(table.slots, slots);
        assert_eq!(table.len, table.iter().count());
        let all: Vec<Address> = table.iter().map(address).collect();
        assert!(all.is_sorted_by(|one, next| one < next));
        for (lowest, leaf) in &table.leaves {
            assert!(leaf.len() <= LEAF_SLOTS_MAX && leaf.capacity() <= LEAF_SLOTS_MAX);
            assert!(leaf.first().is_none_or(|first| address(first) >= *lowest));
            assert!(leaf.capacity() <= leaf.len().max(LEAF_LOADED) + 2 * LEAF_GROWTH);
        }
    }

    #[test]
    fn slots_hold_every_entry() {
        let files = [0, 1, (1 << 31) - 1].map(|segment| Location::File { segment });
        let last = (256 << 20) - 128;
        let places = [(1, 0), (1, 128), ((1 << 31) - 1, last)];
        let places = places.map(|(segment, offset)| Location::Segment { segment, offset });
        for location in files.into_iter().chain(places) {
            for size in [0, 1, (1 << 20) - 1, OBJECT_LEN_MAX - 1, OBJECT_LEN_MAX] {
                for sequence in [0, 1, u64::MAX] {
                    let entry = Entry { location, size, sequence };
                    let slot = encode(&address_of(1), &entry);
                    assert_eq!((address(&slot), decode(&slot)), (address_of(1), Some(entry)));
                }
            }
        }
        assert_eq!(decode(&gone(&address_of(1))), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Against a plain map: objects come, change and go, most of them first and then few.
        #[test]
        fn the_table_is_a_map(
            changes in proptest::collection::vec((0u64..2000, 0u8..10), 0..6000),
            keep in 0u64..10,
            after in 0u64..2000,
            max in 0usize..300,
        ) {
            let mut table = Table::new();
            let mut twin = BTreeMap::new();
            for (nth, (n, what)) in changes.iter().enumerate() {
                let (address, entry) = (address_of(*n), entry(*n + u64::from(*what)));
                // In the second half removals outweigh.
                if *what < if 2 * nth < changes.len() { 2 } else { 8 } {
                    let before = table.remove(&address);
                    prop_assert_eq!(before.and_then(|slot| decode(&slot)), twin.remove(&address));
                } else {
                    let before = table.insert(encode(&address, &entry));
                    let known = twin.insert(address, entry);
                    prop_assert_eq!(before.and_then(|slot| decode(&slot)), known);
                }
            }
            check(&table);
            for n in 0..2000 {
                prop_assert_eq!(table.get(&address_of(n)), twin.get(&address_of(n)).copied());
            }
            let page = table.page(Some(&address_of(after)), max);
            let behind = twin.range((Excluded(address_of(after)), Unbounded)).take(max);
            prop_assert!(page.iter().map(address).eq(behind.map(|(address, _)| *address)));
            // What is made of a list is the same table.
            let mut made = Table::new();
            prop_assert!(table.iter().all(|slot| made.push(*slot)));
            check(&made);
            prop_assert!(made.iter().eq(table.iter()));
            let stays = |entry: &Entry| entry.size % 10 < keep;
            let dropped = made.retain(stays);
            check(&made);
            twin.retain(|_, entry| stays(entry));
            prop_assert_eq!(made.len() + dropped, table.len());
            prop_assert!(made.iter().map(address).eq(twin.keys().copied()));
        }
    }

    #[test]
    fn no_step_moves_more_than_one_leaf() {
        for spread in [true, false] {
            let mut table = Table::new();
            let mut longest = 0;
            let of = |n| if spread { address_of(2 * n) } else { address_of(2 * n + 1) };
            for n in 0..50_000u64 {
                let before = table.moves;
                table.insert(encode(&of(n), &entry(n)));
                longest = longest.max(table.moves - before);
            }
            for n in 0..50_000u64 {
                let before = table.moves;
                table.remove(&of(n)).unwrap();
                longest = longest.max(table.moves - before);
            }
            assert!(longest <= LEAF_SLOTS_MAX + LEAF_SLOTS_MAX / 4 + 1, "{longest} slots");
            assert!(table.bytes() < 100_000, "{} bytes of nothing", table.bytes());
        }
    }

    #[test]
    fn an_object_takes_fewer_than_64_bytes() {
        let mut table = Table::new();
        for n in 0..100_000u64 {
            table.insert(encode(&address_of(2 * n), &entry(n)));
        }
        let each = table.bytes() as f64 / table.len() as f64;
        assert!((51.0..64.0).contains(&each), "{each} bytes");
        let mut loaded = Table::new();
        assert!(table.iter().all(|slot| loaded.push(*slot)));
        let each = loaded.bytes() as f64 / loaded.len() as f64;
        assert!((51.0..64.0).contains(&each), "{each} bytes when loaded");
    }
}
