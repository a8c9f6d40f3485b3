//! The numbers settings are bounded by, and those they have when nobody sets them.

use std::time::Duration;

/// Largest id of a core.
pub const CORE_ID_MAX: usize = 4095;

/// Most shards of a node: each has a lane to each other.
pub const SHARDS_MAX: usize = 256;

/// Most partitions of a data directory.
pub const PARTITIONS_MAX: u32 = 1024;

/// Most directories that objects are spread over.
pub const VOLUMES_MAX: usize = 64;

/// Least space for objects that a node may be limited to: the longest that a segment takes.
pub const MAX_BYTES_MIN: u64 = 1024 * 1024;

/// Most percent of a segment that may be asked to count.
pub const COMPACT_BELOW_MAX: u8 = ron_shards::limits::COMPACT_BELOW_MAX;

/// Most bytes a second of the scrub of a node: no limit, in effect.
pub const SCRUB_RATE_MAX: u64 = 1 << 40;

/// Least and most between two rounds of the scrub: what a shard can tell, and ten years.
pub const SCRUB_EVERY_MIN: Duration = Duration::from_millis(1);
pub const SCRUB_EVERY_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Least memory for blocks, of each shard: some uploads and downloads at once.
pub const CACHE_PER_SHARD_MIN: u64 = 8 * 1024 * 1024;

/// Bytes the memory of a shard is a multiple of.
pub const CACHE_UNIT: u64 = ron_io::limits::BLOCK_LEN as u64;

/// Most memory for blocks of one shard.
pub const CACHE_PER_SHARD_MAX: u64 = ron_io::limits::ARENA_BLOCKS_MAX as u64 * CACHE_UNIT;

/// Part of the memory that is for blocks by default: one in so many.
pub const CACHE_SHARE: u64 = 4;

/// The same for the index, and the least that is taken: half a million objects.
pub const INDEX_SHARE: u64 = 8;
pub const INDEX_LEN_MIN: u64 = 32 * 1024 * 1024;

/// Connections of one shard, most; and by default, unless their tables would take more than one
/// part in so many of the memory, but not less than the least.
pub const CONNECTIONS_MAX: usize = 1_000_000;
pub const CONNECTIONS_DEFAULT: usize = 10_000;
pub const CONNECTIONS_DEFAULT_MIN: usize = 256;
pub const CONNECTIONS_SHARE: u64 = 8;

/// Memory for what connections buffer, of each shard: least and most; and by default one part in so
/// many of the memory, within other bounds.
pub const BUFFERS_PER_SHARD_MIN: u64 = 1024 * 1024;
pub const BUFFERS_PER_SHARD_MAX: u64 = 1 << 40;
pub const BUFFERS_SHARE: u64 = 32;
pub const BUFFERS_DEFAULT_MIN: u64 = 4 * 1024 * 1024;
pub const BUFFERS_DEFAULT_MAX: u64 = 256 * 1024 * 1024;

/// Most bytes a second that a request body may be asked to bring.
pub const BODY_RATE_MAX: u64 = 1024 * 1024 * 1024;

/// Groups of one download in progress, most and by default.
pub const WINDOW_GROUPS_MAX: u64 = 64;
pub const WINDOW_GROUPS_DEFAULT: u64 = 4;

/// Most write tokens, and the longest.
pub const TOKENS_MAX: usize = 64;
pub const TOKEN_LEN_MAX: usize = 256;

/// Most names that a node is reached by, and the longest (RFC 1035 §2.3.4).
pub const NAMES_MAX: usize = 64;
pub const NAME_LEN_MAX: usize = 253;

/// Names of bundles and objects: most that may be allowed, and how many are by default. And the
/// file they are kept in: a page for each of the longest fits a million names twice.
pub const NAMED_MAX: u64 = 1_000_000;
pub const NAMED_DEFAULT: u64 = 100_000;
pub const NAME_STORE_MIN: u64 = 1024 * 1024;
pub const NAME_STORE_MAX: u64 = 16 * 1024 * 1024 * 1024;
pub const NAME_STORE_DEFAULT: u64 = 256 * 1024 * 1024;

/// How long a step may hold a shard before it is reported: least, most and by default. What a shard
/// does takes microseconds, and few milliseconds where a page has to come from a slow disk. The
/// default is longer than that, and long enough for a client to notice.
pub const STALL_LIMIT_MIN: Duration = Duration::from_millis(1);
pub const STALL_LIMIT_MAX: Duration = Duration::from_secs(60);
pub const STALL_LIMIT_DEFAULT: Duration = Duration::from_millis(20);

/// How long a turn of a shard's event loop may last before the node ends: least, most and by
/// default. A page of the index may wait for a disk that does not answer, which the kernel gives 30
/// seconds before it tries again: the default lets it try once more.
pub const HANG_LIMIT_MIN: Duration = Duration::from_secs(5);
pub const HANG_LIMIT_MAX: Duration = Duration::from_secs(3600);
pub const HANG_LIMIT_DEFAULT: Duration = Duration::from_secs(60);

/// Bytes of a file of settings.
pub const FILE_LEN_MAX: u64 = 1024 * 1024;

/// Least and most of any deadline.
pub const DEADLINE_MIN: Duration = Duration::from_millis(1);
pub const DEADLINE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

const _: () = assert!(SHARDS_MAX <= PARTITIONS_MAX as usize && SHARDS_MAX <= u16::MAX as usize);
// The number of partitions by default is that of shards, rounded up to a multiple of the volumes.
const _: () = assert!(SHARDS_MAX + VOLUMES_MAX <= PARTITIONS_MAX as usize);
const _: () = assert!(CACHE_PER_SHARD_MIN.is_multiple_of(CACHE_UNIT));
const _: () = assert!(CACHE_PER_SHARD_MIN < CACHE_PER_SHARD_MAX);
