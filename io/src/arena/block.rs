//! Blocks: handles to pieces of the arena's memory.
//!
//! A [`BlockMut`] is being filled and has one holder. Frozen it is a [`Block`], whose bytes never
//! change while anyone holds it. Only [`Block::lend`] makes a [`Lent`], which `Pipe::send` takes.
//! This module hands out no memory: the owner of the arena does, and a handle that is dropped only
//! posts its memory back.

use std::{fmt, ops::Range, sync::Arc};

use super::shared::{KEPT, Shared};
use crate::{
    limits::{BLOCK_PAGES, PAGE_LEN},
    sync::{Ordering, fence},
};

/// Memory that is being filled. It has one holder.
pub struct BlockMut {
    /// `None` once it was frozen.
    shared: Option<Arc<Shared>>,
    page: u32,
    len: u32,
}

impl BlockMut {
    /// A handle to the piece that starts at `page`. It is the only one.
    pub(super) fn new(shared: Arc<Shared>, page: u32, len: usize) -> BlockMut {
        BlockMut { shared: Some(shared), page, len: len as u32 }
    }

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

    /// The first page of the piece.
    pub(super) fn page(&self) -> u32 {
        self.page
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
    /// Whether it is memory of this arena.
    pub(super) fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    /// Another handle, and what the handles were before.
    pub(super) fn duplicate(&self) -> (Block, u32) {
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

/// Bytes of a block on their way to a socket by reference. Only [`Block::lend`] makes it, and
/// `Pipe::send` takes nothing else, so no other memory goes out without a copy.
#[derive(Clone, Copy)]
pub struct Lent<'a> {
    bytes: &'a [u8],
    #[cfg(feature = "sim")]
    shared: &'a Arc<Shared>,
}

impl<'a> Lent<'a> {
    fn new(bytes: &'a [u8], shared: &'a Arc<Shared>) -> Lent<'a> {
        // Only a simulation asks whose the pages are.
        let _ = shared;
        Lent {
            bytes,
            #[cfg(feature = "sim")]
            shared,
        }
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The arena that the bytes lie in.
    #[cfg(feature = "sim")]
    pub(super) fn shared(&self) -> &'a Arc<Shared> {
        self.shared
    }
}
