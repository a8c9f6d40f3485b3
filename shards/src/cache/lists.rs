//! The two queues of the cache, threaded through one array of entries.
//!
//! An entry stands at the number of its block's first page, so that a block finds its entry, and
//! its neighbours in memory find each other, without another map.

use ron_codec::address::Address;
use ron_io::arena::Block;

/// "No entry", at the ends of a queue. Page numbers stay below it.
const NONE: u32 = u32::MAX;

/// Uses are counted up to this: two bits, as S3-FIFO has it.
const USES_MAX: u8 = 3;

/// Which queue an entry is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// Newcomers on probation.
    Small,
    /// Those that were used again.
    Main,
}

/// One block in the cache; a vacant place of the array has no block.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) address: Address,
    pub(super) index: u64,
    /// Bytes of the whole object.
    pub(super) size: u64,
    pub(super) block: Option<Block>,
    newer: u32,
    older: u32,
    pub(super) uses: u8,
    pub(super) home: Home,
}

impl Entry {
    fn vacant() -> Entry {
        Entry {
            address: Address::from_bytes([0; 32]),
            index: 0,
            size: 0,
            block: None,
            newer: NONE,
            older: NONE,
            uses: 0,
            home: Home::Small,
        }
    }

    /// Counts a use.
    pub(super) fn used(&mut self) {
        self.uses = (self.uses + 1).min(USES_MAX);
    }

    /// Bytes of memory the entry's block takes.
    pub(super) fn footprint(&self) -> usize {
        self.block.as_ref().map_or(0, Block::footprint)
    }
}

/// Ends and sums of one queue.
#[derive(Clone, Copy, Debug)]
struct Queue {
    newest: u32,
    oldest: u32,
    bytes: usize,
    len: usize,
}

/// All entries, and the order they stand in.
#[derive(Debug)]
pub(super) struct Lists {
    entries: Box<[Entry]>,
    queues: [Queue; 2],
}

impl Lists {
    /// Space for one entry at each of `pages` pages.
    pub(super) fn new(pages: usize) -> Lists {
        assert!(pages < NONE as usize, "{pages} pages");
        let empty = Queue { newest: NONE, oldest: NONE, bytes: 0, len: 0 };
        Lists { entries: (0..pages).map(|_| Entry::vacant()).collect(), queues: [empty; 2] }
    }

    /// Bytes of the entries of `pages` pages.
    pub(super) const fn bytes_for(pages: usize) -> usize {
        pages * size_of::<Entry>()
    }

    pub(super) fn entry(&self, page: u32) -> &Entry {
        &self.entries[page as usize]
    }

    pub(super) fn entry_mut(&mut self, page: u32) -> &mut Entry {
        &mut self.entries[page as usize]
    }

    pub(super) fn oldest(&self, home: Home) -> Option<u32> {
        let oldest = self.queues[home as usize].oldest;
        (oldest != NONE).then_some(oldest)
    }

    pub(super) fn bytes(&self, home: Home) -> usize {
        self.queues[home as usize].bytes
    }

    pub(super) fn len(&self, home: Home) -> usize {
        self.queues[home as usize].len
    }

    /// Puts a block where its page says, as the newest of a queue.
    pub(super) fn admit(&mut self, home: Home, key: (&Address, u64), size: u64, block: Block) {
        let page = block.page();
        let entry = self.entry_mut(page);
        assert!(entry.block.is_none(), "page {page} has an entry");
        entry.address = *key.0;
        entry.index = key.1;
        entry.size = size;
        entry.block = Some(block);
        entry.uses = 0;
        self.push(home, page);
    }

    /// Takes an entry out of its queue and its block out of the entry.
    pub(super) fn release(&mut self, page: u32) -> Option<Block> {
        self.unlink(page);
        self.entry_mut(page).block.take()
    }

    /// Makes an entry the newest of a queue, be it its own or the other.
    pub(super) fn renew(&mut self, home: Home, page: u32) {
        self.unlink(page);
        self.push(home, page);
    }

    fn push(&mut self, home: Home, page: u32) {
        let queue = &mut self.queues[home as usize];
        let entry = &mut self.entries[page as usize];
        entry.home = home;
        entry.newer = NONE;
        entry.older = queue.newest;
        queue.bytes += entry.footprint();
        queue.len += 1;
        let before = std::mem::replace(&mut queue.newest, page);
        if before == NONE {
            queue.oldest = page;
        } else {
            self.entries[before as usize].newer = page;
        }
    }

    fn unlink(&mut self, page: u32) {
        let entry = &self.entries[page as usize];
        assert!(entry.block.is_some(), "page {page} has no entry");
        let (newer, older) = (entry.newer, entry.older);
        let queue = &mut self.queues[entry.home as usize];
        queue.bytes -= entry.footprint();
        queue.len -= 1;
        match newer {
            NONE => queue.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        match older {
            NONE => queue.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
    }

    /// Group numbers and uses of a queue, from the oldest.
    #[cfg(test)]
    pub(super) fn order(&self, home: Home) -> Vec<(u64, u8)> {
        let entries = std::iter::successors(self.oldest(home), |page| {
            let newer = self.entry(*page).newer;
            (newer != NONE).then_some(newer)
        });
        entries.map(|page| (self.entry(page).index, self.entry(page).uses)).collect()
    }

    /// Walks both queues from the oldest and compares the sums with what is there.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut seen = 0;
        for home in [Home::Small, Home::Main] {
            let queue = self.queues[home as usize];
            let (mut at, mut before, mut bytes, mut len) = (queue.oldest, NONE, 0, 0);
            while at != NONE {
                let entry = self.entry(at);
                assert_eq!((entry.home, entry.older), (home, before), "page {at}");
                assert_eq!(entry.block.as_ref().map(Block::page), Some(at));
                bytes += entry.footprint();
                len += 1;
                before = at;
                at = entry.newer;
            }
            assert_eq!((queue.newest, queue.bytes, queue.len), (before, bytes, len));
            seen += len;
        }
        let filled = self.entries.iter().filter(|entry| entry.block.is_some()).count();
        assert_eq!(filled, seen, "an entry dangles");
    }
}
