//! The memory that objects are served from: one anonymous mapping, cut into blocks.
//!
//! A [`Block`] holds verified (or about to be verified) bytes. It is filled once, as a
//! [`BlockMut`], and never changes again while anyone holds it. Handles are counted, and may cross
//! threads; the one that drops the last handle posts the memory back to its owner, who alone hands
//! it out.
//!
//! There are two ways out of the arena. *By copy*: the kernel reads the mapping. *By reference*:
//! `vmsplice(2)` and `splice(2)` queue the very pages on a socket, and a reader on the same host
//! may still have them queued long after the block was dropped. Such a page must never be written
//! again, so it is given up (`MADV_DONTNEED`) before it is handed out once more: queued packets
//! keep the old page, the block gets a fresh one. That a page was lent is noted for the page and
//! not for the block it was part of, because it may come back as part of another: see `lent`.
//!
//! ```text
//!   mapping │ block 0, 64 KiB                │ block 1 │ …
//!           │ p0 p1 p2 p3 │ p4 … p7 │ …  p15 │
//!           a block goes out whole, as quarters of 16 KiB, or as pages of 4 KiB
//! ```

use std::{io, sync::Arc};

use crate::{
    limits::{ARENA_BLOCKS_MAX, BLOCK_LEN, BLOCK_PAGES, PAGE_LEN},
    sync::Ordering,
};

mod bits;
mod block;
#[cfg(feature = "sim")]
mod frames;
mod lent;
mod owners;
#[cfg(feature = "sim")]
mod queued;
mod shared;

use bits::Bits;
pub use block::{Block, BlockMut, Lent};
use owners::Owners;
pub use owners::{Held, Owner};
#[cfg(feature = "sim")]
pub(crate) use queued::Queued;
use shared::{KEPT, NO_PAGE, Page, Shared};

/// How much of a block a piece of memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// 4 KiB.
    Page,
    /// 16 KiB.
    Quarter,
    /// 64 KiB.
    Whole,
}

impl Class {
    /// The smallest class that holds `len` bytes.
    ///
    /// # Panics
    /// If `len` is more than a block.
    pub fn holding(len: usize) -> Class {
        assert!(len <= BLOCK_LEN, "{len} bytes do not fit a block");
        let holds = |class: &Class| len <= class.bytes();
        [Class::Page, Class::Quarter].into_iter().find(holds).unwrap_or(Class::Whole)
    }

    /// Bytes of a piece of this class.
    pub fn bytes(self) -> usize {
        self.pages() * PAGE_LEN
    }

    fn pages(self) -> usize {
        match self {
            Class::Page => 1,
            Class::Quarter => BLOCK_PAGES / 4,
            Class::Whole => BLOCK_PAGES,
        }
    }
}

/// The owner's end of an arena: the only one that hands memory out.
pub struct Arena {
    shared: Arc<Shared>,
    /// For each block, a bit for each free page.
    free: Vec<u16>,
    /// Blocks with all pages free; with a free quarter but not whole; with only single pages free.
    whole: Bits,
    quarters: Bits,
    singles: Bits,
    free_pages: usize,
    owners: Owners,
    /// Whole kept blocks that somebody else began to hold, over all time.
    pins: u64,
}

impl Arena {
    /// Reserves an arena of `blocks` blocks of 64 KiB. Memory is taken when it is first written.
    ///
    /// # Errors
    /// What `mmap` answered.
    ///
    /// # Panics
    /// If `blocks` is 0 or over [`ARENA_BLOCKS_MAX`].
    pub fn new(blocks: usize) -> io::Result<Arena> {
        assert!((1..=ARENA_BLOCKS_MAX).contains(&blocks), "an arena of {blocks} blocks");
        Ok(Arena {
            shared: Arc::new(Shared::map(blocks)?),
            free: vec![u16::MAX; blocks],
            whole: Bits::full(blocks),
            quarters: Bits::empty(blocks),
            singles: Bits::empty(blocks),
            free_pages: blocks * BLOCK_PAGES,
            owners: Owners::new(blocks * BLOCK_PAGES),
            pins: 0,
        })
    }

    /// Memory for `len` bytes (at most a block), or `None` while there is none.
    pub fn alloc(&mut self, len: usize) -> Option<BlockMut> {
        self.alloc_after(len, None)
    }

    /// As `alloc`; a whole block is taken right behind `neighbour` where possible, so that an
    /// object read in order lies in order.
    pub fn alloc_after(&mut self, len: usize, neighbour: Option<&Block>) -> Option<BlockMut> {
        let class = Class::holding(len);
        let page = self.take(class, neighbour).or_else(|| {
            self.collect();
            self.take(class, neighbour)
        })?;
        let entry = &self.shared.pages[page as usize];
        assert_eq!(entry.handles.load(Ordering::Relaxed), 0, "a free piece has no handles");
        let span = class.pages() as u32;
        entry.span.store(span, Ordering::Relaxed);
        self.owners.add(page, span as usize);
        while let Some((first, count)) = self.shared.lent.first_run(page, span) {
            self.shared.renew(first, count);
        }
        Some(BlockMut::new(Arc::clone(&self.shared), page, len))
    }

    /// Takes back what was dropped since the last time. Returns the pages gained.
    pub fn collect(&mut self) -> usize {
        let before = self.free_pages;
        // Acquire: the droppers' last uses happen before we hand the memory out again.
        let mut page = self.shared.returned.swap(NO_PAGE, Ordering::Acquire);
        while page != NO_PAGE {
            let entry = &self.shared.pages[page as usize];
            let next = entry.next.swap(NO_PAGE, Ordering::Relaxed);
            let span = entry.span.swap(0, Ordering::Relaxed) as usize;
            self.owners.remove(page, span);
            self.put_back(page as usize, span);
            page = next;
        }
        self.free_pages - before
    }

    /// Charges memory that was just handed out to an owner, until it is kept or given back.
    pub fn charge(&mut self, block: &BlockMut, owner: Owner) {
        self.owners.change(block.page(), self.shared.span(block.page()), owner);
    }

    /// The block is the cache's from now on, and `block` the cache's handle to it, until
    /// [`unkeep`](Arena::unkeep). Others who hold it pin it.
    ///
    /// # Panics
    /// If it is kept already.
    pub fn keep(&mut self, block: &Block) {
        let (page, span) = (block.page(), self.shared.span(block.page()));
        let before = self.shared.pages[page as usize].handles.fetch_or(KEPT, Ordering::Relaxed);
        assert_eq!(before & KEPT, 0, "page {page} is kept already");
        self.owners.change(page, span, Owner::Cache);
        self.pins += u64::from(before > 1 && span == BLOCK_PAGES);
    }

    /// Undoes `keep`. The block is charged to those who read it, if any still hold it.
    ///
    /// # Panics
    /// If it is not kept.
    pub fn unkeep(&mut self, block: &Block) {
        let (page, span) = (block.page(), self.shared.span(block.page()));
        let before = self.shared.pages[page as usize].handles.fetch_and(!KEPT, Ordering::Relaxed);
        assert_ne!(before & KEPT, 0, "page {page} is not kept");
        if before > KEPT | 1 {
            self.owners.change(page, span, Owner::Downloads);
            self.pins -= u64::from(span == BLOCK_PAGES);
        }
    }

    /// Another handle to a kept block, made from the keeper's.
    pub fn pin(&mut self, block: &Block) -> Block {
        let (copy, before) = block.duplicate();
        let whole = self.shared.span(block.page()) == BLOCK_PAGES;
        self.pins += u64::from(whole && before == KEPT | 1);
        copy
    }

    /// What an owner holds. Dropped pieces count until `collect`.
    pub fn held(&self, owner: Owner) -> Held {
        self.owners.held(owner)
    }

    /// Whole kept blocks that others hold as well. One that another thread just dropped may still
    /// be counted.
    pub fn pinned(&self) -> usize {
        let unpins = self.shared.unpins.load(Ordering::Relaxed);
        self.pins.checked_sub(unpins).expect("a block is pinned before it is not") as usize
    }

    /// Pages of 4 KiB that can be handed out now (dropped ones count after `collect`).
    pub fn free_pages(&self) -> usize {
        self.free_pages
    }

    /// Pages of 4 KiB of the whole arena.
    pub fn total_pages(&self) -> usize {
        self.free.len() * BLOCK_PAGES
    }

    /// Whether this arena handed the block out.
    pub fn owns(&self, block: &Block) -> bool {
        block.is_of(&self.shared)
    }

    /// Writes a page that others hold: the violation that a test is about.
    #[cfg(all(test, feature = "sim"))]
    pub(crate) fn scribble(&mut self, page: u32, byte: u8) {
        // SAFETY: the page is in the mapping, and the test holds no reference to its bytes.
        unsafe { std::ptr::write_bytes(self.shared.bytes(page).as_ptr(), byte, PAGE_LEN) };
    }

    /// Whether a page can be handed out now. One that was dropped counts after `collect`.
    pub fn is_free(&self, page: u32) -> bool {
        let page = page as usize;
        self.free[page / BLOCK_PAGES] >> (page % BLOCK_PAGES) & 1 == 1
    }

    /// Bytes of the tables behind an arena of `blocks` blocks, the arena itself not counted.
    pub const fn tables_len(blocks: usize) -> usize {
        // A header and an owner for each page; for each block its masks of free and of lent pages
        // and a bit in three sets, whose summaries are lost in the rounding up to a byte each.
        let pages = BLOCK_PAGES * (size_of::<Page>() + size_of::<Owner>());
        blocks * (pages + 2 * size_of::<u16>() + 3)
    }

    fn take(&mut self, class: Class, neighbour: Option<&Block>) -> Option<u32> {
        let near = neighbour
            .filter(|block| self.owns(block))
            .map_or(0, |block| block.page() as usize / BLOCK_PAGES + 1);
        let block = match class {
            Class::Whole => self.whole.first_from(near),
            Class::Quarter => self.quarters.first_from(0).or_else(|| self.whole.first_from(0)),
            Class::Page => self
                .singles
                .first_from(0)
                .or_else(|| self.quarters.first_from(0))
                .or_else(|| self.whole.first_from(0)),
        }?;
        let mask = self.free[block];
        let (first, taken) = match class {
            Class::Whole => (0, u16::MAX),
            Class::Quarter => {
                let quarter = (0..4).find(|q| mask >> (q * 4) & 0xF == 0xF)?;
                (quarter * 4, 0xF << (quarter * 4))
            }
            Class::Page => (mask.trailing_zeros(), 1 << mask.trailing_zeros()),
        };
        self.set_free(block, mask & !taken);
        Some((block * BLOCK_PAGES) as u32 + first)
    }

    fn put_back(&mut self, page: usize, span: usize) {
        let (block, first) = (page / BLOCK_PAGES, page % BLOCK_PAGES);
        let pages = ((1u32 << span) - 1) as u16;
        let given = pages << first;
        assert!(span > 0 && self.free[block] & given == 0, "page {page} came back twice");
        self.set_free(block, self.free[block] | given);
    }

    fn set_free(&mut self, block: usize, mask: u16) {
        self.free_pages += mask.count_ones() as usize;
        self.free_pages -= self.free[block].count_ones() as usize;
        self.free[block] = mask;
        let quarter = (0..4).any(|q| mask >> (q * 4) & 0xF == 0xF);
        self.whole.set(block, mask == u16::MAX);
        self.quarters.set(block, quarter && mask != u16::MAX);
        self.singles.set(block, mask != 0 && !quarter);
    }
}

#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
