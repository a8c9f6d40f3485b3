//! The numbers this crate is bounded by, each with its name and its reason.

use std::time::Duration;

/// Bytes of a block of the arena. A group of an object fits one exactly.
pub const BLOCK_LEN: usize = 64 * 1024;

/// Bytes of the smallest part of a block that can be handed out: a page of memory.
pub const PAGE_LEN: usize = 4 * 1024;

/// Pages of a block. One `u16` holds a bit for each.
pub const BLOCK_PAGES: usize = BLOCK_LEN / PAGE_LEN;

/// Most blocks of one arena: page numbers are `u32`, and one number is kept for "none".
pub const ARENA_BLOCKS_MAX: usize = (u32::MAX as usize) / BLOCK_PAGES;

/// Bodies up to this length ride with their head in one send from memory; a longer one is sent
/// from where it lies.
pub const COPY_LEN_MAX: usize = 16 * 1024;

/// Entries of a shard's submission queue.
pub const RING_ENTRIES: u32 = 2048;

/// Entries of a shard's completion queue. Multishot requests complete more often than they are
/// asked for, so it is larger than the submission queue.
pub const RING_COMPLETIONS: u32 = 8192;

/// Receive buffers a shard lends to the kernel; a power of two.
pub const RECV_BUFFERS: u16 = 512;

/// Bytes of one receive buffer: the largest head, or a good part of an upload.
pub const RECV_BUFFER_LEN: usize = 16 * 1024;

/// Bytes of one buffer for heads and short bodies that are to be sent: the answer with an object of
/// 4 KiB fits. All are of one length, so that what was queued to slow peers leaves no holes that
/// others do not fit.
pub const OUT_BUFFER_LEN: usize = 8 * 1024;

/// Such buffers that one shard keeps when they are empty.
pub const OUT_BUFFERS_IDLE_MAX: usize = 512;

/// Bytes that a peer may send before its TLS handshake is done, and later without any plaintext in
/// them: several times what clients send, and more than a record of TLS, which is kept until it is
/// whole in either case.
pub const HANDSHAKE_LEN_MAX: usize = 18 * 1024;

/// Bytes of a head and what follows it below which TLS gathers them with others, and of what is
/// gathered: so a record that waits for its peer has this much in it at least, and a list of those
/// that one connection may have waiting stays short. Longer ones are encrypted from where they lie.
pub const TLS_SHORT_LEN: usize = 2 * 1024;
pub const TLS_GATHER_LEN: usize = 4 * 1024;

/// Bytes of the longest record of TLS, without what is around them.
pub const TLS_RECORD_LEN: usize = 16 * 1024;

/// Slices of one vectored send.
pub const SEND_SLICES_MAX: usize = 32;

/// Bytes of the pipe that bodies go through by reference: what the system allows everyone.
pub const PIPE_LEN: usize = 1024 * 1024;

/// Bytes one connection may hand to the kernel by reference before the others get their turn.
pub const SEND_TURN_LEN_MAX: usize = 1024 * 1024;

/// Messages taken from one mailbox in one turn of the loop.
pub const MAIL_TURN_MAX: usize = 256;

/// Disk outcomes delivered in one turn of the loop. What was read is hashed when it is delivered,
/// and sent when the turn ends: few enough that it is still in the core's cache by then.
pub const OUTCOMES_TURN_MAX: usize = 8;

/// Disk operations one shard has in progress at once; more wait their turn in the shard.
pub const DISK_OPS_MAX: usize = 256;

/// Background reads that one shard has in progress at once.
pub const BACKGROUND_SCANS_MAX: usize = 2;

/// Files that one shard copies to another file system at once, each up to the longest object: the
/// others wait, and no other operation does.
pub const CARRIES_MAX: usize = 1;

/// Bytes that such a read takes from the disk in one go.
pub const BACKGROUND_READ_LEN: usize = 256 * 1024;

/// Bytes of buffers that are kept for the next transfers whose bytes do not lie on pages.
pub const SPARE_BUFFERS_LEN_MAX: usize = 8 * 1024 * 1024;

/// Threads of one shard for what blocks: opening, renaming, checkpoints.
pub const BLOCKING_THREADS: usize = 4;

/// Longest read or write of one disk operation, in bytes.
pub const DISK_OP_LEN_MAX: usize = 4 * 1024 * 1024;

/// How long the slowest step of a shard is remembered.
pub const SLOWEST_SPAN: Duration = Duration::from_secs(60);

/// The longest time of a request that its histogram tells from longer ones.
pub const LATENCY_MAX: Duration = Duration::from_secs(3600);

/// How often one kind of stall is reported by a shard; those between are counted.
pub const STALL_REPORT_EVERY: Duration = Duration::from_secs(1);

/// Reports of failed requests that one shard makes at once, and how often one more: a flood of them
/// fills neither the lane nor the disk with the log. Those between are counted.
pub const FAILURE_REPORTS_BURST: u64 = 20;
pub const FAILURE_REPORT_EVERY: Duration = Duration::from_secs(1);

/// How often a shard looks at the CPU time of its thread while it runs.
pub const CPU_SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// Frames of one sampled stack; what lies further out is cut off. A byte counts them.
pub const SAMPLE_DEPTH_MAX: usize = 128;

/// Addresses of all samples of one profile, each 8 bytes; what does not fit is counted.
pub const SAMPLE_ADDRESSES_MAX: usize = 2 * 1024 * 1024;

/// Threads that are sampled at once; each has a timer of the system.
pub const SAMPLE_THREADS_MAX: usize = 1024;

/// Most samples a second and thread. The kernel looks at the clocks at its own tick, so more would
/// give no more.
pub const SAMPLE_HZ_MAX: u32 = 999;

/// How often an open that finds too many open files is tried again, and after how long.
pub const OPEN_TRIES: u32 = 25;
pub const OPEN_AGAIN: Duration = Duration::from_millis(20);

/// Listening sockets of one shard.
pub const LISTENERS_MAX: usize = 8;

/// How long a shard that could not accept a connection waits before it tries again.
pub const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(100);

/// After how many of these it counts as unable to: a shortage that passes is none.
pub const ACCEPT_RETRIES_PAUSED: u32 = 10;

/// Accepts that a listener asks the kernel for at once.
pub const ACCEPTS_MAX: u32 = 8;

/// How often a shard says that it cannot accept connections.
pub const ACCEPT_REPORT_EVERY: Duration = Duration::from_secs(60);

/// Connections the kernel may hold for a listener before the shard has accepted them.
pub const LISTEN_BACKLOG: i32 = 4096;

/// Inodes that must be free on a file system with a fixed number of them, or it counts as full; of
/// a small one a sixteenth.
pub const FREE_INODES_MIN: u64 = 1024;

/// Longest path of a name, its first slash included; that of the codec.
pub const NAME_PATH_LEN_MAX: usize = 1024;

/// Buckets of a table of names: a change copies one of them.
pub const NAME_BUCKETS: usize = 1024;

const _: () = assert!(NAME_BUCKETS.is_power_of_two());
const _: () = assert!(FAILURE_REPORTS_BURST > 0 && FAILURE_REPORT_EVERY.as_nanos() > 0);
const _: () = assert!(BLOCK_PAGES == 16, "one u16 holds a bit for each page of a block");
const _: () = assert!(RECV_BUFFERS.is_power_of_two());
const _: () = assert!(2 * TLS_SHORT_LEN <= TLS_GATHER_LEN && TLS_GATHER_LEN < TLS_RECORD_LEN);
const _: () = assert!(ACCEPT_RETRY_AFTER.as_secs() == 0);
const _: () = assert!(COPY_LEN_MAX < BLOCK_LEN && BLOCK_LEN <= DISK_OP_LEN_MAX);
const _: () = assert!(BACKGROUND_READ_LEN.is_multiple_of(PAGE_LEN));
const _: () = assert!(BACKGROUND_SCANS_MAX + CARRIES_MAX < BLOCKING_THREADS);
const _: () = assert!(BLOCKING_THREADS < DISK_OPS_MAX);
const _: () = assert!(DISK_OP_LEN_MAX + PAGE_LEN <= SPARE_BUFFERS_LEN_MAX);
const _: () = assert!(RING_ENTRIES < RING_COMPLETIONS);
const _: () = assert!(SAMPLE_DEPTH_MAX < 256 && SAMPLE_DEPTH_MAX < SAMPLE_ADDRESSES_MAX);
