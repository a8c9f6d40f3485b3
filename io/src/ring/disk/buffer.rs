//! Memory for transfers whose bytes cannot lie where they will be used: aligned to pages, as direct
//! I/O wants it, and kept for the next one.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ptr::NonNull,
};

use crate::limits::{PAGE_LEN, SPARE_BUFFERS_LEN_MAX};

/// Bytes of the smallest buffer: a group of an object with pages around it fits.
const BUFFER_LEN_MIN: usize = 128 * 1024;

/// Bytes on the heap that begin on a page. They never move.
#[derive(Debug)]
pub(super) struct Buffer {
    start: NonNull<u8>,
    capacity: usize,
}

impl Buffer {
    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, PAGE_LEN)
            .expect("a buffer is small and pages a power of 2")
    }

    /// At least a page.
    pub(super) fn new(capacity: usize) -> Buffer {
        let capacity = capacity.max(PAGE_LEN);
        let layout = Buffer::layout(capacity);
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Buffer { start, capacity }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the memory is ours, initialized, and that long.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.capacity) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.capacity) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), Buffer::layout(self.capacity)) };
    }
}

/// Buffers that were used and are free.
#[derive(Debug, Default)]
pub(super) struct Spares {
    free: Vec<Buffer>,
    len: usize,
}

impl Spares {
    /// A buffer of at least `len` bytes, with anything in them.
    pub(super) fn take(&mut self, len: usize) -> Buffer {
        let wanted = len.next_power_of_two().max(BUFFER_LEN_MIN);
        match self.free.iter().rposition(|buffer| buffer.capacity == wanted) {
            Some(at) => {
                self.len -= wanted;
                self.free.swap_remove(at)
            }
            None => Buffer::new(wanted),
        }
    }

    /// Keeps a buffer for later, unless enough are kept.
    pub(super) fn put(&mut self, buffer: Buffer) {
        if self.len + buffer.capacity <= SPARE_BUFFERS_LEN_MAX {
            self.len += buffer.capacity;
            self.free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_long_enough_and_kept_within_bounds() {
        let mut spares = Spares::default();
        let lens = [1, PAGE_LEN, BUFFER_LEN_MIN, BUFFER_LEN_MIN + 1, 4 << 20];
        let mut buffers: Vec<Buffer> = lens.iter().map(|len| spares.take(*len)).collect();
        for (len, buffer) in lens.iter().zip(&mut buffers) {
            assert!(buffer.bytes().len() >= *len);
            assert!(buffer.bytes().as_ptr().addr().is_multiple_of(PAGE_LEN));
            buffer.bytes_mut().fill(7);
        }
        let first = buffers[0].bytes().as_ptr();
        buffers.truncate(1);
        buffers.drain(..).for_each(|buffer| spares.put(buffer));
        assert_eq!(spares.take(PAGE_LEN).bytes().as_ptr(), first, "it is used again");
        for _ in 0..100 {
            spares.put(Buffer::new(BUFFER_LEN_MIN));
        }
        assert_eq!(spares.len, SPARE_BUFFERS_LEN_MAX);
        assert_eq!(spares.free.len(), SPARE_BUFFERS_LEN_MAX / BUFFER_LEN_MIN);
    }
}
