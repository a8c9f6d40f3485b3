//! The memory that objects are served from: one anonymous mapping, cut into blocks.
//!
//! A [`Block`] holds verified (or about to be verified) bytes. It is filled once, as a
//! [`BlockMut`], and never changes again while anyone holds it. Handles are counted, and may cross
//! threads; the one that drops the last handle posts the memory back to its owner, who alone hands
//! it out.
//!
//! There are two ways out of the arena. *By copy*: the kernel reads the mapping. *By reference*:
//! `vmsplice(2)` and `splice(2)` queue the very pages on a socket, and a reader on the same host
//! may still have them queued long after the block was let go. Such a page must never be written
//! again, so it is given up (`MADV_DONTNEED`) before it is handed out once more: queued packets
//! keep the old page, the block gets a fresh one. That a page was lent is noted for the page and
//! not for the block it was part of, because it may come back as part of another: see [`lent`].
//!
//! ```text
//!   mapping │ block 0, 64 KiB                │ block 1 │ …
//!           │ p0 p1 p2 p3 │ p4 … p7 │ …  p15 │
//!           a block goes out whole, as quarters of 16 KiB, or as pages of 4 KiB
//! ```

use std::{
    fmt, io,
    ops::Range,
    ptr::NonNull,
    sync::{Arc, atomic::AtomicU64},
};

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::{
    limits::{ARENA_BLOCKS_MAX, BLOCK_LEN, BLOCK_PAGES, PAGE_LEN},
    sync::{AtomicU32, Ordering, Touched, fence},
};

mod bits;
#[cfg(feature = "sim")]
mod frames;
mod lent;
mod owners;

use bits::Bits;
#[cfg(feature = "sim")]
pub(crate) use frames::Queued;
pub use lent::Lent;
use lent::LentPages;
use owners::Owners;
pub use owners::{Held, Owner};

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

/// Huge pages are this long, and begin at its multiples.
const HUGE_LEN: usize = 2 * 1024 * 1024;

/// "No page", at the end of the list of returned ones.
const NONE: u32 = u32::MAX;

/// In `Page::handles`, beside their number: one of them is the keeper's, see [`Arena::keep`].
const KEPT: u32 = 1 << 31;

/// What all holders of an arena's memory share.
struct Shared {
    map: MmapRaw,
    /// Bytes of the mapping before the first block, which begins on a huge page.
    lead: usize,
    pages: Box<[Page]>,
    /// Pages that were sent by reference since their memory was fresh.
    lent: LentPages,
    /// Those that are queued on a socket of a simulation.
    #[cfg(feature = "sim")]
    frames: frames::Frames,
    /// Head of the list of pieces whose last handle was dropped, linked through `Page::next`.
    /// Anyone pushes; the owner takes the whole list at once, so no ABA can arise.
    returned: AtomicU32,
    /// Whole kept blocks that somebody else held and nobody else holds any more, over all time.
    unpins: AtomicU64,
}

/// Book-keeping of the piece that starts at a page.
struct Page {
    /// Handles to the piece, and `KEPT`; 0 while it is free or being filled.
    handles: AtomicU32,
    /// The next returned piece.
    next: AtomicU32,
    /// Pages of the piece, written by the owner when it is handed out.
    span: AtomicU32,
    /// That the bytes of the piece were read, or written, for a model that looks for races.
    touched: Touched,
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
        let len = blocks * BLOCK_LEN;
        let map = MmapOptions::new().len(len + HUGE_LEN).map_anon()?;
        // Hints: huge pages cost less to send, and a forked child has no use for the memory. Where
        // the kernel declines, all works the same.
        let _ = map.advise(Advice::HugePage);
        let _ = map.advise(Advice::DontFork);
        let lead = map.as_ptr().align_offset(HUGE_LEN);
        let map = MmapRaw::from(map);
        let page = || Page {
            handles: AtomicU32::new(0),
            next: AtomicU32::new(NONE),
            span: AtomicU32::new(0),
            touched: Touched::default(),
        };
        let shared = Shared {
            map,
            lead,
            pages: (0..blocks * BLOCK_PAGES).map(|_| page()).collect(),
            lent: LentPages::none(blocks),
            #[cfg(feature = "sim")]
            frames: frames::Frames::default(),
            returned: AtomicU32::new(NONE),
            unpins: AtomicU64::new(0),
        };
        Ok(Arena {
            shared: Arc::new(shared),
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
        Some(BlockMut { shared: Some(Arc::clone(&self.shared)), page, len: len as u32 })
    }

    /// Takes back what was dropped since the last time. Returns the pages gained.
    pub fn collect(&mut self) -> usize {
        let before = self.free_pages;
        // Acquire: the droppers' last uses happen before we hand the memory out again.
        let mut page = self.shared.returned.swap(NONE, Ordering::Acquire);
        while page != NONE {
            let entry = &self.shared.pages[page as usize];
            let next = entry.next.swap(NONE, Ordering::Relaxed);
            let span = entry.span.swap(0, Ordering::Relaxed) as usize;
            self.owners.remove(page, span);
            self.put_back(page as usize, span);
            page = next;
        }
        self.free_pages - before
    }

    /// Charges memory that was just handed out to an owner, until it is kept or given back.
    pub fn charge(&mut self, block: &BlockMut, owner: Owner) {
        self.owners.change(block.page, self.shared.span(block.page), owner);
    }

    /// The block is the cache's from now on, and `block` the cache's handle to it, until
    /// [`unkeep`](Arena::unkeep). Others who hold it pin it.
    ///
    /// # Panics
    /// If it is kept already.
    pub fn keep(&mut self, block: &Block) {
        let (page, span) = (block.page, self.shared.span(block.page));
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
        let (page, span) = (block.page, self.shared.span(block.page));
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
        let whole = self.shared.span(block.page) == BLOCK_PAGES;
        self.pins += u64::from(whole && before == KEPT | 1);
        copy
    }

    /// What an owner holds. Dropped pieces count until `collect`.
    pub fn held(&self, owner: Owner) -> Held {
        self.owners.held(owner)
    }

    /// Whole kept blocks that others hold as well. One that another thread just let go may still
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
        Arc::ptr_eq(&block.shared, &self.shared)
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
            .filter(|block| Arc::ptr_eq(&block.shared, &self.shared))
            .map_or(0, |block| block.page as usize / BLOCK_PAGES + 1);
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

impl Shared {
    /// Pages of the piece that starts at a page and is handed out.
    fn span(&self, page: u32) -> usize {
        self.pages[page as usize].span.load(Ordering::Relaxed) as usize
    }

    fn bytes(&self, page: u32) -> NonNull<u8> {
        let at = self.lead + page as usize * PAGE_LEN;
        assert!(at < self.map.len());
        // SAFETY: `at` is within the mapping, which lives as long as `self`.
        unsafe { NonNull::new_unchecked(self.map.as_mut_ptr().add(at)) }
    }

    /// Gives `count` pages of a free piece fresh memory: queued packets keep the old pages
    /// unchanged. From now on these pages, and no others, are not lent.
    fn renew(&self, page: u32, count: u32) {
        let (start, len) = (self.bytes(page).as_ptr(), count as usize * PAGE_LEN);
        let pages = &self.pages[page as usize..][..count as usize];
        pages.iter().for_each(|page| page.touched.write());
        #[cfg(feature = "sim")]
        (page..page + count).for_each(|page| self.frames.give_up(self, page));
        // SAFETY: the range lies within our private anonymous mapping. No one reads or writes
        // it: the piece is free, so it has no handle. It reads as zeros from now on.
        let given_up = unsafe { libc::madvise(start.cast(), len, libc::MADV_DONTNEED) };
        // Going on would let bytes that were verified change under a reader: better to stop.
        assert_eq!(given_up, 0, "cannot renew memory: {}", io::Error::last_os_error());
        // One call in place of a fault for each page. It is only a hint: a failure costs the
        // faults and nothing else.
        // SAFETY: the range is mapped, and free.
        unsafe {
            libc::madvise(start.cast(), len, libc::MADV_POPULATE_WRITE);
        }
        self.lent.clear(page, count);
    }

    /// What a page holds now, for a simulation, which has one thread.
    #[cfg(feature = "sim")]
    fn page_now(&self, page: u32) -> Vec<u8> {
        // SAFETY: the page is in the mapping, which is initialized; nobody writes it meanwhile,
        // because the only thread is here.
        unsafe { std::slice::from_raw_parts(self.bytes(page).as_ptr(), PAGE_LEN) }.to_vec()
    }

    fn give_back(&self, page: u32) {
        let entry = &self.pages[page as usize];
        let mut head = self.returned.load(Ordering::Relaxed);
        loop {
            entry.next.store(head, Ordering::Relaxed);
            // Release: our uses of the piece happen before the owner collects it.
            match self.returned.compare_exchange_weak(
                head,
                page,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }
}

/// Memory that is being filled. It has one holder.
pub struct BlockMut {
    /// `None` once it was frozen.
    shared: Option<Arc<Shared>>,
    page: u32,
    len: u32,
}

impl BlockMut {
    /// The bytes asked for, with what was there before or zeros.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, _) = self.writable();
        // SAFETY: the piece is at least `len` long and this is its only handle; none of its pages
        // is lent. The mapping is initialized.
        unsafe { std::slice::from_raw_parts_mut(start, self.len as usize) }
    }

    /// The whole pages that the first `len` bytes lie in; the piece has no less.
    ///
    /// # Panics
    /// If `len` is more than was asked for.
    #[cfg(feature = "ring")]
    pub(crate) fn pages_mut(&mut self, len: usize) -> &mut [u8] {
        assert!(len <= self.len as usize, "{len} bytes of {}", self.len);
        let pages = len.next_multiple_of(PAGE_LEN);
        let (start, span) = self.writable();
        assert!(pages <= span as usize * PAGE_LEN);
        // SAFETY: as in `bytes_mut`; the piece is `span` pages long, all of them its own.
        unsafe { std::slice::from_raw_parts_mut(start, pages) }
    }

    /// Where the piece starts and how many pages it has, to be written. The counterpart of
    /// [`Block::lend`]: what that marked must have been renewed.
    fn writable(&self) -> (*mut u8, u32) {
        let shared = self.shared.as_ref().expect("a frozen block is consumed");
        let span = shared.pages[self.page as usize].span.load(Ordering::Relaxed);
        let lent = shared.lent.first_run(self.page, span);
        // Going on would change bytes that a peer has yet to read: better to stop.
        assert_eq!(lent, None, "lent pages of a block are about to be written");
        let pages = &shared.pages[self.page as usize..][..span as usize];
        pages.iter().for_each(|page| page.touched.write());
        (shared.bytes(self.page).as_ptr(), span)
    }

    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Ends the filling, with the first `len` bytes. From here on they never change.
    ///
    /// # Panics
    /// If `len` is more than was asked for.
    pub fn freeze(mut self, len: usize) -> Block {
        assert!(len <= self.len as usize, "{len} bytes of {}", self.len);
        let shared = self.shared.take().expect("a block is frozen once");
        shared.pages[self.page as usize].handles.store(1, Ordering::Relaxed);
        Block { shared, page: self.page, len: len as u32 }
    }
}

impl Drop for BlockMut {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.give_back(self.page);
        }
    }
}

/// Bytes that never change. Cloning counts; the last drop gives the memory back to its owner.
pub struct Block {
    shared: Arc<Shared>,
    page: u32,
    len: u32,
}

impl Block {
    pub fn bytes(&self) -> &[u8] {
        let start = self.shared.bytes(self.page).as_ptr();
        self.shared.pages[self.page as usize].touched.read();
        // SAFETY: the piece is at least `len` long, it is not handed out again while this handle
        // lives, and nothing writes a frozen piece.
        unsafe { std::slice::from_raw_parts(start, self.len as usize) }
    }

    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory the block takes, which is its class and not its length.
    pub fn footprint(&self) -> usize {
        self.shared.pages[self.page as usize].span.load(Ordering::Relaxed) as usize * PAGE_LEN
    }

    /// Some of the bytes, to be queued on a socket by reference. All pages of the block are lent
    /// from now on: they are renewed before they are written again.
    ///
    /// # Panics
    /// If the range does not lie within the block.
    pub fn lend(&self, range: Range<usize>) -> Lent<'_> {
        let span = self.shared.pages[self.page as usize].span.load(Ordering::Relaxed);
        self.shared.lent.mark(self.page, span);
        Lent::new(&self.bytes()[range], &self.shared)
    }

    /// Whether there are other handles to the block. "No" stays true while the asker makes none.
    pub fn is_shared(&self) -> bool {
        self.shared.pages[self.page as usize].handles.load(Ordering::Relaxed) & !KEPT > 1
    }

    /// A number for the block that no other live block of the same arena has.
    pub fn page(&self) -> u32 {
        self.page
    }
}

impl Block {
    /// Another handle, and what the handles were before.
    fn duplicate(&self) -> (Block, u32) {
        let before = self.shared.pages[self.page as usize].handles.fetch_add(1, Ordering::Relaxed);
        assert!((1..KEPT / 2).contains(&(before & !KEPT)), "{before:#x} handles before a clone");
        (Block { shared: Arc::clone(&self.shared), page: self.page, len: self.len }, before)
    }
}

impl Clone for Block {
    fn clone(&self) -> Self {
        self.duplicate().0
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let entry = &self.shared.pages[self.page as usize];
        // Release each use; the last dropper acquires them all before it gives the piece back.
        let before = entry.handles.fetch_sub(1, Ordering::Release);
        assert!(before & !KEPT > 0, "a block was dropped twice");
        if before == 1 {
            fence(Ordering::Acquire);
            self.shared.give_back(self.page);
        } else if before == KEPT | 2 && self.shared.span(self.page) == BLOCK_PAGES {
            self.shared.unpins.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block(page {}, {} bytes)", self.page, self.len)
    }
}

impl fmt::Debug for BlockMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockMut(page {}, {} bytes)", self.page, self.len)
    }
}

#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
