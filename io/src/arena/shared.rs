//! The mapping of an arena, and the account of each of its pages.
//!
//! The owner of the arena and all handles to blocks hold it. It counts handles, takes back what was
//! dropped, and gives lent pages fresh memory. It does not know which pages are free, nor who they
//! are charged to: the owner does.

use std::{io, ptr::NonNull, sync::atomic::AtomicU64};

use memmap2::{Advice, MmapOptions, MmapRaw};

#[cfg(feature = "sim")]
use super::frames::Frames;
use super::lent::LentPages;
use crate::{
    limits::{BLOCK_LEN, BLOCK_PAGES, PAGE_LEN},
    sync::{AtomicU32, Ordering, Touched},
};

/// Huge pages are this long, and begin at its multiples.
const HUGE_LEN: usize = 2 * 1024 * 1024;

/// The end of the list of returned pieces.
pub(super) const NO_PAGE: u32 = u32::MAX;

/// In `Page::handles`, beside their number: one of them is the keeper's, see `Arena::keep`.
pub(super) const KEPT: u32 = 1 << 31;

/// What all holders of an arena's memory share.
pub(super) struct Shared {
    map: MmapRaw,
    /// Bytes of the mapping before the first block, which begins on a huge page.
    lead: usize,
    pub(super) pages: Box<[Page]>,
    /// Pages that were sent by reference since their memory was fresh.
    pub(super) lent: LentPages,
    /// Those that are queued on a socket of a simulation.
    #[cfg(feature = "sim")]
    pub(super) frames: Frames,
    /// Head of the list of pieces whose last handle was dropped, linked through `Page::next`.
    /// Anyone pushes; the owner takes the whole list at once, so no ABA can arise.
    pub(super) returned: AtomicU32,
    /// Whole kept blocks that somebody else held and nobody else holds any more, over all time.
    pub(super) unpins: AtomicU64,
}

/// Book-keeping of the piece that starts at a page.
pub(super) struct Page {
    /// Handles to the piece, and `KEPT`; 0 while it is free or being filled.
    pub(super) handles: AtomicU32,
    /// The next returned piece.
    pub(super) next: AtomicU32,
    /// Pages of the piece, written by the owner when it is handed out.
    pub(super) span: AtomicU32,
    /// That the bytes of the piece were read, or written, for a model that looks for races.
    pub(super) touched: Touched,
}

impl Shared {
    /// Maps `blocks` blocks. Memory is taken when it is first written.
    pub(super) fn map(blocks: usize) -> io::Result<Shared> {
        let map = MmapOptions::new().len(blocks * BLOCK_LEN + HUGE_LEN).map_anon()?;
        // Hints: huge pages cost less to send, and a forked child has no use for the memory. Where
        // the kernel declines, all works the same.
        let _ = map.advise(Advice::HugePage);
        let _ = map.advise(Advice::DontFork);
        let lead = map.as_ptr().align_offset(HUGE_LEN);
        let map = MmapRaw::from(map);
        let page = || Page {
            handles: AtomicU32::new(0),
            next: AtomicU32::new(NO_PAGE),
            span: AtomicU32::new(0),
            touched: Touched::default(),
        };
        Ok(Shared {
            map,
            lead,
            pages: (0..blocks * BLOCK_PAGES).map(|_| page()).collect(),
            lent: LentPages::none(blocks),
            #[cfg(feature = "sim")]
            frames: Frames::default(),
            returned: AtomicU32::new(NO_PAGE),
            unpins: AtomicU64::new(0),
        })
    }

    /// Pages of the piece that starts at a page and is handed out.
    pub(super) fn span(&self, page: u32) -> usize {
        self.pages[page as usize].span.load(Ordering::Relaxed) as usize
    }

    /// Where a page begins in memory.
    pub(super) fn bytes(&self, page: u32) -> NonNull<u8> {
        let at = self.lead + page as usize * PAGE_LEN;
        assert!(at < self.map.len());
        // SAFETY: `at` is within the mapping, which lives as long as `self`.
        unsafe { NonNull::new_unchecked(self.map.as_mut_ptr().add(at)) }
    }

    /// Gives `count` pages of a free piece fresh memory: queued packets keep the old pages
    /// unchanged. From now on these pages, and no others, are not lent.
    pub(super) fn renew(&self, page: u32, count: u32) {
        let (start, len) = (self.bytes(page).as_ptr(), count as usize * PAGE_LEN);
        let pages = &self.pages[page as usize..][..count as usize];
        pages.iter().for_each(|page| page.touched.write());
        #[cfg(feature = "sim")]
        (page..page + count).for_each(|page| self.frames.give_up(page, || self.page_now(page)));
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
    pub(super) fn page_now(&self, page: u32) -> Vec<u8> {
        // SAFETY: the page is in the mapping, which is initialized; nobody writes it meanwhile,
        // because the only thread is here.
        unsafe { std::slice::from_raw_parts(self.bytes(page).as_ptr(), PAGE_LEN) }.to_vec()
    }

    /// Posts a piece back to the owner, when its last handle was dropped.
    pub(super) fn give_back(&self, page: u32) {
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
