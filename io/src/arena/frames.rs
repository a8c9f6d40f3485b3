//! The pages behind a block as the kernel sees them, for a simulation.
//!
//! What is queued by reference are pages, not bytes: a peer reads what they hold when it reads. A
//! frame is such a page. While it is part of the arena it holds what the arena holds; when the
//! arena gives the page up, it keeps what it held.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use super::{Lent, Shared};
use crate::{limits::PAGE_LEN, sim::heap};

/// Pages that are queued somewhere, by their number.
#[derive(Default)]
pub(super) struct Frames(Mutex<HashMap<u32, Weak<Frame>>>);

/// What a page held when the arena gave it up.
#[derive(Default)]
struct Frame(OnceLock<Box<[u8]>>);

/// Part of one page, queued by reference.
pub(crate) struct Queued {
    shared: Arc<Shared>,
    page: u32,
    start: usize,
    end: usize,
    frame: Arc<Frame>,
}

impl Frames {
    fn frame(&self, page: u32) -> Arc<Frame> {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = frames.get(&page).and_then(Weak::upgrade) {
            return frame;
        }
        let frame = Arc::default();
        frames.insert(page, Arc::downgrade(&frame));
        frame
    }

    /// The arena gives a page up: a socket that has it queued keeps it.
    pub(super) fn give_up(&self, shared: &Shared, page: u32) {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = frames.remove(&page).and_then(|frame| frame.upgrade()) {
            // From now on it is the memory of sockets.
            heap::as_world(|| frame.0.get_or_init(|| shared.page_now(page).into()));
        }
    }
}

impl Lent<'_> {
    /// The parts of pages that these bytes lie in.
    pub(crate) fn queue(&self) -> Vec<Queued> {
        let base = self.shared.bytes(0).as_ptr() as usize;
        let mut at = self.bytes.as_ptr() as usize - base;
        let end = at + self.bytes.len();
        let mut queued = Vec::new();
        while at < end {
            let (page, start) = ((at / PAGE_LEN) as u32, at % PAGE_LEN);
            let len = (PAGE_LEN - start).min(end - at);
            let (shared, frame) = (Arc::clone(self.shared), self.shared.frames.frame(page));
            queued.push(Queued { shared, page, start, end: start + len, frame });
            at += len;
        }
        queued
    }
}

impl Queued {
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Reads the first `len` bytes, at most all, as they are now.
    pub(crate) fn read(&mut self, len: usize, into: &mut Vec<u8>) -> usize {
        let len = len.min(self.len());
        let range = self.start..self.start + len;
        match self.frame.0.get() {
            Some(held) => into.extend_from_slice(&held[range]),
            None => into.extend_from_slice(&self.shared.page_now(self.page)[range]),
        }
        self.start += len;
        len
    }
}

impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queued(page {}, {}..{})", self.page, self.start, self.end)
    }
}
