//! Bytes that a socket of a simulation has queued by reference.
//!
//! They are read when the peer reads, as the kernel does it: what their pages hold then, or what a
//! page held when the arena gave it up. Nothing can be written through them.

use std::{fmt, sync::Arc};

use super::{block::Lent, frames::Frame, shared::Shared};
use crate::limits::PAGE_LEN;

/// Part of one page, queued by reference.
pub(crate) struct Queued {
    shared: Arc<Shared>,
    page: u32,
    start: usize,
    end: usize,
    frame: Arc<Frame>,
}

impl Lent<'_> {
    /// The parts of pages that these bytes lie in.
    pub(crate) fn queue(&self) -> Vec<Queued> {
        let base = self.shared().bytes(0).as_ptr() as usize;
        let mut at = self.bytes().as_ptr() as usize - base;
        let end = at + self.bytes().len();
        let mut queued = Vec::new();
        while at < end {
            let (page, start) = ((at / PAGE_LEN) as u32, at % PAGE_LEN);
            let len = (PAGE_LEN - start).min(end - at);
            let (shared, frame) = (Arc::clone(self.shared()), self.shared().frames.frame(page));
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
        match self.frame.given_up() {
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
