//! The pages behind a block as the kernel sees them, for a simulation.
//!
//! What is queued by reference are pages, not bytes: a peer reads what they hold when it reads. A
//! frame is such a page. While it is part of the arena it holds what the arena holds; when the
//! arena gives the page up, it keeps what it held.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use crate::sim::heap;

/// Pages that are queued somewhere, by their number.
#[derive(Default)]
pub(super) struct Frames(Mutex<HashMap<u32, Weak<Frame>>>);

/// What a page held when the arena gave it up.
#[derive(Default)]
pub(super) struct Frame(OnceLock<Box<[u8]>>);

impl Frame {
    /// What the page held when the arena gave it up, if it did.
    pub(super) fn given_up(&self) -> Option<&[u8]> {
        self.0.get().map(|held| &held[..])
    }
}

impl Frames {
    /// The frame of a page, which is queued once more.
    pub(super) fn frame(&self, page: u32) -> Arc<Frame> {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = frames.get(&page).and_then(Weak::upgrade) {
            return frame;
        }
        let frame = Arc::default();
        frames.insert(page, Arc::downgrade(&frame));
        frame
    }

    /// The arena gives a page up: a socket that has it queued keeps what it holds now.
    pub(super) fn give_up(&self, page: u32, holds: impl FnOnce() -> Vec<u8>) {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = frames.remove(&page).and_then(|frame| frame.upgrade()) {
            // From now on it is the memory of sockets.
            heap::as_world(|| frame.0.get_or_init(|| holds().into()));
        }
    }
}
