//! Receive buffers the kernel takes from by itself.
//!
//! ```text
//!   ring of entries   │ addr len id │ addr len id │ …   shared with the kernel, which takes
//!                                        ▲ tail         from its head; we post at the tail
//!   buffers           │ 0 │ 1 │ 2 │ …                  RECV_BUFFER_LEN bytes each
//! ```

use std::{
    io,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{IoUring, types::BufRingEntry};
use memmap2::{MmapOptions, MmapRaw};

use crate::limits::{RECV_BUFFER_LEN, RECV_BUFFERS};

/// The buffer group all receives of a shard draw from.
pub(super) const GROUP: u16 = 0;

/// The buffers of one shard and the ring they are lent through.
pub(super) struct RecvPool {
    // Raw, because the kernel writes there: no reference may stand for all of it.
    entries: MmapRaw,
    buffers: MmapRaw,
    tail: u16,
}

impl RecvPool {
    /// Maps the buffers and registers them with the ring. They must stay mapped for as long as the
    /// kernel may receive into them.
    pub(super) fn new(ring: &IoUring) -> io::Result<RecvPool> {
        let map = |len| MmapOptions::new().len(len).map_anon().map(MmapRaw::from);
        let entries = map(usize::from(RECV_BUFFERS) * size_of::<BufRingEntry>())?;
        let buffers = map(usize::from(RECV_BUFFERS) * RECV_BUFFER_LEN)?;
        let mut pool = RecvPool { entries, buffers, tail: 0 };
        let address = pool.entries.as_ptr() as u64;
        // SAFETY: the entries are page-aligned (a mapping), as many as stated, and stay mapped.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, RECV_BUFFERS, GROUP, 0)? };
        (0..RECV_BUFFERS).for_each(|id| pool.give_back(id));
        pool.publish();
        Ok(pool)
    }

    /// The bytes the kernel received into a buffer. It is ours until `give_back`.
    pub(super) fn bytes(&self, id: u16, len: usize) -> &[u8] {
        assert!(id < RECV_BUFFERS && len <= RECV_BUFFER_LEN, "{len} bytes in buffer {id}");
        // SAFETY: these bytes lie within the mapping, and the kernel does not write to a buffer
        // between the completion that gave it to us and `give_back`.
        unsafe {
            let start = self.buffers.as_ptr().add(usize::from(id) * RECV_BUFFER_LEN);
            std::slice::from_raw_parts(start, len)
        }
    }

    /// Posts a buffer back. The kernel sees it after `publish`.
    pub(super) fn give_back(&mut self, id: u16) {
        assert!(id < RECV_BUFFERS);
        let at = usize::from(self.tail & (RECV_BUFFERS - 1));
        let address = self.buffers.as_ptr() as u64 + u64::from(id) * RECV_BUFFER_LEN as u64;
        let first = self.entries.as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: `at` is below the number of entries. The kernel does not read an entry at or
        // behind the published tail, and the fields written leave the tail itself alone.
        let entry = unsafe { &mut *first.add(at) };
        entry.set_addr(address);
        entry.set_len(RECV_BUFFER_LEN as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was given back.
    pub(super) fn publish(&self) {
        // SAFETY: the tail lies within the first entry, is aligned, and is written by us alone;
        // the kernel reads it with an acquire load.
        let tail = unsafe {
            AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr().cast()).cast_mut())
        };
        tail.store(self.tail, Ordering::Release);
    }
}
