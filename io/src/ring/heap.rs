//! What the allocator does with memory that was freed.
//!
//! rustls allocates every record that is to be sent, and frees it when it was. Left to itself,
//! glibc gives the end of a thread's heap back to the system whenever 128 KiB of it are free, and
//! takes it again for the next answer: a page fault for every 4 KiB that are sent, which was a
//! sixth of the CPU time of bodies over TLS.

/// Makes the allocator keep what is freed, up to 64 MiB for each thread. To be called once, before
/// there are threads.
#[cfg(target_env = "gnu")]
pub fn keep_freed_memory() {
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

/// Other allocators are left as they are.
#[cfg(not(target_env = "gnu"))]
pub fn keep_freed_memory() {}
