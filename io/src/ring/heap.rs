//! What the allocator does with memory that was freed.
//!
//! rustls allocates every record that is to be sent, and frees it when it was. Left to itself,
//! glibc gives the end of a thread's heap back to the system whenever 128 KiB of it are free, and
//! takes it again for the next answer: a page fault for every 4 KiB that are sent, which was a
//! sixth of the CPU time of bodies over TLS. So it is kept, and given back when it was far more
//! than is in use: after a flood.
//!
//! That takes two steps. `malloc_trim(3)` gives back what is free between blocks in use, in the
//! heaps of all threads, but not the end of a heap that is a thread's own: glibc looks at that only
//! when the thread itself frees something long.

use std::{
    io,
    sync::{
        OnceLock,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
};

/// Where to ask for memory to be given back.
static RELEASES: OnceLock<SyncSender<()>> = OnceLock::new();

/// Makes the allocator keep what is freed, up to 64 MiB for each thread, until a shard finds that
/// it is too much. To be called once, before there are other threads.
///
/// # Errors
/// When the system cannot start the thread that gives memory back.
pub fn keep_freed_memory() -> io::Result<()> {
    configure();
    let (ask, asked) = sync_channel(1);
    // A thread of its own: walking a large heap takes some milliseconds.
    thread::Builder::new()
        .name("ron-heap".to_owned())
        .spawn(move || asked.iter().for_each(|()| trim()))?;
    // Somebody else has set one already: that does as well, and this one ends.
    let _ = RELEASES.set(ask);
    Ok(())
}

/// Has memory that is free given back to the system, soon; the end of the calling thread's heap at
/// once.
pub(crate) fn release() {
    trim_end();
    if let Some(releases) = RELEASES.get() {
        // When the queue is full, it is about to be done.
        let _ = releases.try_send(());
    }
}

/// The same, and all of it is done on return.
#[cfg(feature = "sample")]
pub(crate) fn release_now() {
    trim_end();
    trim();
}

/// Bytes at the end of a heap that are kept.
#[cfg(target_env = "gnu")]
const KEPT_LEN: libc::c_int = 64 * 1024 * 1024;

#[cfg(target_env = "gnu")]
fn configure() {
    // What is longer is a mapping of its own, which goes back when it is freed. Nothing that long
    // is made for each answer.
    const MAPPED_LEN: libc::c_int = 4 * 1024 * 1024;
    // SAFETY: sets two numbers of the allocator.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_LEN);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_LEN);
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: the allocator takes the locks that it needs.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(target_env = "gnu")]
fn trim_end() {
    // As much as glibc keeps by itself; and it looks at the end of the heap when more than half of
    // that is freed in one piece.
    const LEFT_LEN: libc::c_int = 128 * 1024;
    let keep = |len| {
        // SAFETY: sets a number of the allocator. Threads that free something meanwhile give the
        // ends of their heaps back as well.
        unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, len) };
    };
    keep(LEFT_LEN);
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LEFT_LEN as usize)));
    keep(KEPT_LEN);
}

/// Other allocators are left as they are.
#[cfg(not(target_env = "gnu"))]
fn configure() {}

#[cfg(not(target_env = "gnu"))]
fn trim_end() {}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

/// Sees when far less memory is in use than was.
#[derive(Debug, Default)]
pub(super) struct Ebb {
    /// The most since memory was last given back.
    peak: u64,
}

impl Ebb {
    /// Bytes that must have been in use for it to be worth the trouble.
    const PEAK_MIN: u64 = 2 * 1024 * 1024;

    /// So many bytes are in use now. Whether what was freed is to be given back.
    pub(super) fn saw(&mut self, len: u64) -> bool {
        let ebbed = self.peak >= Ebb::PEAK_MIN && len <= self.peak / 4;
        self.peak = if ebbed { len } else { self.peak.max(len) };
        ebbed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident bytes of this process.
    #[cfg(target_env = "gnu")]
    fn resident() -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = text.split_whitespace().nth(1).unwrap().parse().unwrap();
        pages * crate::limits::PAGE_LEN
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn what_a_thread_freed_is_given_back_also_at_the_end_of_its_heap() {
        const PIECE_LEN: usize = 64 * 1024;
        const ALL_LEN: usize = 40 * 1024 * 1024;
        configure();
        let thread = thread::spawn(|| {
            let held: Vec<Vec<u8>> = (0..ALL_LEN / PIECE_LEN).map(|_| vec![1; PIECE_LEN]).collect();
            let most = resident();
            drop(held);
            // What frees the pages between blocks does nothing about the end.
            trim();
            trim_end();
            (most, resident())
        });
        let (most, left) = thread.join().unwrap();
        // Other tests allocate, too, at the same time.
        assert!(left + ALL_LEN / 2 < most, "{left} bytes of {most} are left");
    }

    /// The blocks that a thread has at hand keep the end of its heap apart until it has ended.
    #[cfg(all(target_env = "gnu", feature = "sample"))]
    #[test]
    fn what_a_thread_freed_is_not_kept_when_it_has_ended() {
        const ALL_LEN: usize = 40 * 1024 * 1024;
        configure();
        let thread = thread::spawn(|| {
            let held: Vec<Vec<u8>> = (0..ALL_LEN / 4096).map(|_| vec![1; 4096]).collect();
            let last: Vec<Vec<u8>> = (0..4).map(|_| vec![1; 200]).collect();
            let most = resident();
            drop((last, held));
            release_now();
            most
        });
        let most = thread.join().unwrap();
        let left = resident();
        assert!(left + ALL_LEN / 2 < most, "{left} bytes of {most} are left");
    }

    #[test]
    fn memory_is_given_back_when_a_flood_has_ebbed_and_not_before() {
        let mut ebb = Ebb::default();
        let mib = |n: u64| n * 1024 * 1024;
        assert!(![1, 0, 1, 0].into_iter().any(|n| ebb.saw(mib(n))), "little comes and goes");
        assert!(![10, 40, 11].into_iter().any(|n| ebb.saw(mib(n))));
        assert!(ebb.saw(mib(10)));
        assert!(!ebb.saw(mib(10)) && !ebb.saw(mib(3)));
        assert!(ebb.saw(mib(2)));
        assert!(ebb.saw(0) && !ebb.saw(0));
    }
}
