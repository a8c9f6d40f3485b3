//! Where the key of a cached block is looked up: open addressing over a fixed array.
//!
//! A slot holds the number of the page where an entry stands, and 32 bits of its key's hash, so
//! that a probe compares keys only where the hashes agree. The array is sized once for the most
//! entries there can be, and never full.

/// One place of the table.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Page of the entry, plus one; 0 marks a free slot, so that a new table is untouched memory.
    entry: u32,
    hash: u32,
}

/// A set of pages, found by the hash of what stands there.
#[derive(Debug)]
pub(super) struct Table {
    slots: Box<[Slot]>,
}

impl Table {
    /// A table for at most `pages` entries.
    pub(super) fn new(pages: usize) -> Table {
        Table { slots: vec![Slot::default(); slots_for(pages)].into_boxed_slice() }
    }

    /// Bytes of a table for at most `pages` entries.
    pub(super) const fn bytes_for(pages: usize) -> usize {
        slots_for(pages) * size_of::<Slot>()
    }

    /// The page filed under `hash` for which `is_it` holds.
    #[inline]
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        loop {
            let slot = self.slots[at];
            if slot.entry == 0 {
                return None;
            }
            if slot.hash == hash && is_it(slot.entry - 1) {
                return Some(slot.entry - 1);
            }
            at = self.after(at);
        }
    }

    /// Files a page that is not in the table.
    pub(super) fn insert(&mut self, hash: u32, page: u32) {
        let mut at = self.home(hash);
        while self.slots[at].entry != 0 {
            at = self.after(at);
        }
        self.slots[at] = Slot { entry: page + 1, hash };
    }

    /// Takes a page out that is in the table under `hash`.
    pub(super) fn remove(&mut self, hash: u32, page: u32) {
        let mut hole = self.home(hash);
        while self.slots[hole].entry != page + 1 {
            assert!(self.slots[hole].entry != 0, "page {page} is not in the table");
            hole = self.after(hole);
        }
        // Close the gap: an entry that was put past the hole moves back into it.
        let mut at = hole;
        loop {
            at = self.after(at);
            let slot = self.slots[at];
            if slot.entry == 0 {
                break;
            }
            let displaced = self.distance(self.home(slot.hash), at);
            if displaced >= self.distance(hole, at) {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole] = Slot::default();
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.slots.len() - 1)
    }
}

/// A power of two that leaves at least a third of the slots free.
const fn slots_for(pages: usize) -> usize {
    (pages + pages / 2 + 1).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Few distinct hashes in a small table, so that runs meet, wrap around and are closed.
        #[test]
        fn agrees_with_a_tree(
            steps in prop::collection::vec((0..40u32, any::<bool>(), 0..24u32), 1..400),
        ) {
            let (mut table, mut tree) = (Table::new(40), BTreeMap::new());
            for (page, member, hash) in steps {
                let hash = hash << 16 | (50 + hash / 4);
                match (member, tree.get(&page).copied()) {
                    (true, None) => {
                        table.insert(hash, page);
                        tree.insert(page, hash);
                    }
                    (false, Some(hash)) => {
                        table.remove(hash, page);
                        tree.remove(&page);
                    }
                    _ => {}
                }
                for page in 0..40 {
                    let filed = tree.get(&page).copied();
                    for hash in filed.into_iter().chain([hash]) {
                        let found = table.find(hash, |found| found == page);
                        prop_assert_eq!(found, (filed == Some(hash)).then_some(page));
                    }
                }
            }
        }
    }

    #[test]
    fn a_table_is_never_full() {
        for pages in [1, 2, 3, 16, 1000, 1 << 20] {
            assert!(slots_for(pages) > pages, "{pages}");
            assert!(slots_for(pages) <= 4 * pages, "{pages}");
        }
        let mut table = Table::new(16);
        (0..16).for_each(|page| table.insert(7, page));
        assert_eq!(table.find(7, |_| false), None, "the search ends");
        assert_eq!(table.find(7, |page| page == 15), Some(15));
    }
}
