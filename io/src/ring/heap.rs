//! What the allocator does with memory that was freed.
//!
//! rustls allocates every record that is to be sent, and frees it when it was. Left to itself,
//! glibc gives the end of a thread's heap back to the system whenever 128 KiB of it are free, and
//! takes it again for the next answer: a page fault for every 4 KiB that are sent, which was a
//! sixth of the CPU time of bodies over TLS. So it is kept, and given back when it was far more
//! than is in use: after a flood.

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
/// When the system has no room for the thread that gives memory back.
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

/// Has memory that is free given back to the system, soon.
pub(super) fn release() {
    if let Some(releases) = RELEASES.get() {
        // When the queue is full, it is about to be done.
        let _ = releases.try_send(());
    }
}

#[cfg(target_env = "gnu")]
fn configure() {
    const KEPT_LEN: libc::c_int = 64 * 1024 * 1024;
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

/// Other allocators are left as they are.
#[cfg(not(target_env = "gnu"))]
fn configure() {}

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
