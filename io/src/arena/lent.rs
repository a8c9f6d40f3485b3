//! Pages that were sent by reference: they must not be written until they are renewed.
//!
//! A page is lent from the first time that bytes of its block go out by reference until the owner
//! of the arena gives it fresh memory. In between its block may be dropped, cut into smaller
//! pieces or joined with others, so each page has a bit of its own:
//!
//! ```text
//!   a block of 64 KiB is lent          1111 1111 1111 1111
//!   it is dropped; page 0 goes out     renewed: page 0
//!                                      0111 1111 1111 1111
//!   the second quarter goes out        renewed: pages 4 to 7
//!                                      0111 0000 1111 1111
//!   all comes back and goes out whole  renewed: pages 1 to 3, and 8 to 15
//!                                      0000 0000 0000 0000
//! ```
//!
//! Any thread that holds a block marks; only the owner clears, and only pages that nobody holds.

use crate::{
    limits::BLOCK_PAGES,
    sync::{AtomicU16, Ordering},
};

/// For each block of an arena, a bit for each page that is lent.
pub(super) struct LentPages(Box<[AtomicU16]>);

impl LentPages {
    pub(super) fn none(blocks: usize) -> LentPages {
        LentPages((0..blocks).map(|_| AtomicU16::new(0)).collect())
    }

    /// Marks `count` pages of one block, which the caller holds. That it drops the block
    /// afterwards, and the owner takes it back, orders this before the owner looks.
    pub(super) fn mark(&self, page: u32, count: u32) {
        let (word, bits) = self.word(page, count);
        // A hot block is lent again and again: mostly there is nothing to write.
        if word.load(Ordering::Relaxed) & bits != bits {
            word.fetch_or(bits, Ordering::Relaxed);
        }
    }

    /// The first lent ones among `count` pages of one block: where they begin, and how many follow
    /// each other.
    pub(super) fn first_run(&self, page: u32, count: u32) -> Option<(u32, u32)> {
        let (word, bits) = self.word(page, count);
        let lent = word.load(Ordering::Relaxed) & bits;
        let first = lent.trailing_zeros();
        let block = page - page % BLOCK_PAGES as u32;
        (lent != 0).then(|| (block + first, (lent >> first).trailing_ones()))
    }

    /// `count` pages of one block have fresh memory. Others of the block may be marked meanwhile.
    pub(super) fn clear(&self, page: u32, count: u32) {
        let (word, bits) = self.word(page, count);
        word.fetch_and(!bits, Ordering::Relaxed);
    }

    fn word(&self, page: u32, count: u32) -> (&AtomicU16, u16) {
        let (block, first) = (page as usize / BLOCK_PAGES, page as usize % BLOCK_PAGES);
        assert!(first + count as usize <= BLOCK_PAGES, "{count} pages from {page} are one block's");
        (&self.0[block], (((1u32 << count) - 1) << first) as u16)
    }
}
