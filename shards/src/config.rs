//! What a shard knows about itself before it starts. Nothing but the write tokens changes while
//! it runs.

use ron_codec::authority::Authority;
use ron_io::{
    ports::{ListenerId, ShardId},
    stats::Proto,
};

use crate::{
    entropy::Secret,
    limits,
    names::Names,
    store::{Accounts, layout::Layout},
};

/// The settings of one shard.
#[derive(Clone, Debug)]
pub struct Config {
    pub shard: ShardId,
    /// Where data lies, and which shard owns which part of it.
    pub layout: Layout,
    /// What is spoken on each listener of the driver, in its order.
    pub listeners: Vec<Listener>,
    /// Bytes of this shard's arena.
    pub arena_len: usize,
    pub connections_max: usize,
    /// Files that are kept open for the next reader.
    pub files_idle_max: usize,
    /// Files that are open for reads, those included.
    pub read_files_max: usize,
    /// Files of uploads that are open (503 beyond it).
    pub upload_files_max: usize,
    /// Connections that one peer may have: one address, or one network of 64 bits of IPv6.
    pub connections_per_peer: usize,
    /// Bytes that connections may buffer together: answers that their peers do not take, requests
    /// that wait. Beyond it those that take least are dropped.
    pub connection_buffers: usize,
    /// Questions that may be open with one other shard at once: those that may need memory, at
    /// most `MESH_READS_MAX`, and others, at most `MESH_OTHERS_MAX`.
    pub mesh_reads: usize,
    pub mesh_others: usize,
    /// Groups of one partition that are being read, or wait for it; `limits::FETCHES_MAX` at most.
    pub fetches_max: usize,
    /// Bytes beyond which a log goes on in its next segment, `SEGMENT_LEN_MAX` at most, and
    /// `limits::COMPACT_DEAD_MIN` or fewer.
    pub segment_len_max: u64,
    pub compact_dead_min: u64,
    /// Longest object that is taken, in bytes (413 beyond it).
    pub object_len_max: u64,
    /// Groups of one download that are in progress at once.
    pub window_groups: u64,
    /// Whether bodies are hashed again when they are handed to the kernel.
    pub verify_sends: bool,
    /// Whether bundles whose terms ask for payment are refused (402).
    pub enforce_payments: bool,
    /// Who may write.
    pub authority: Authority,
    pub deadlines: Deadlines,
    pub storage: Storage,
    /// The names to begin with.
    pub names: Names,
    /// The free space that is promised on the volumes: one account for all shards of a process.
    pub accounts: Accounts,
    /// What this node calls itself in `Server` and HELLO.
    pub server: String,
    /// Seed of ids, which every peer sees: nothing that must not be known may follow from it.
    pub seed: u64,
    /// What the cache's hash is keyed with.
    pub cache_secret: Secret,
    /// The same for all shards of a process and different for each process: uploads in progress are
    /// named by it, and those of another one are swept.
    pub boot_id: u64,
}

impl Config {
    pub fn listener(&self, id: ListenerId) -> Listener {
        self.listeners[usize::from(id.0)]
    }
}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    pub proto: Proto,
    /// Whether a TLS handshake comes first.
    pub tls: bool,
}

/// How much is kept, and how it is looked after.
#[derive(Clone, Copy, Debug)]
pub struct Storage {
    /// Most bytes of segments and object files of the whole node; each partition has an equal
    /// share (507 beyond it).
    pub max_bytes: Option<u64>,
    /// Most bytes of memory that the index of the whole node takes; each partition has an equal
    /// share (507 beyond it).
    pub index_len: u64,
    /// Bytes of a volume that are left free: with less, objects are refused (507). What is above
    /// it is for objects; compaction may use what is below.
    pub reserve_bytes: u64,
    /// A full segment is compacted when less than so many percent of it count.
    pub compact_below_percent: u8,
    /// Bytes a second that one shard's scrub reads at most; 0 for no scrub at all.
    pub scrub_bytes_per_s: u64,
    /// Milliseconds from the end of one round of the scrub to the start of the next; 0: only when
    /// ordered.
    pub scrub_every_ms: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Storage {
            max_bytes: None,
            index_len: limits::INDEX_LEN,
            reserve_bytes: limits::RESERVE_BYTES,
            compact_below_percent: limits::COMPACT_BELOW_PERCENT,
            scrub_bytes_per_s: limits::SCRUB_BYTES_PER_S,
            scrub_every_ms: limits::SCRUB_EVERY_MS,
        }
    }
}

/// How long a peer may take in each phase of a connection, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From accept to the end of the TLS handshake.
    pub handshake_ns: u64,
    /// From accept, or from the first byte of a request, to the end of its head or frame header.
    pub head_ns: u64,
    /// Between requests of a kept connection.
    pub idle_ns: u64,
    /// Between two arrivals of a request body or an unfinished frame.
    pub body_ns: u64,
    /// Bytes a second that a request body must bring, over each span of `body_ns`; 0 for any.
    pub body_rate: u64,
    /// Between two signs that the peer takes what is sent.
    pub send_ns: u64,
    /// A whole request or stream, from its head to its end.
    pub stream_ns: u64,
    /// After the last answer, for the peer to close.
    pub linger_ns: u64,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines {
            handshake_ns: 10 * SECOND_NS,
            head_ns: 15 * SECOND_NS,
            idle_ns: 75 * SECOND_NS,
            body_ns: 30 * SECOND_NS,
            body_rate: limits::BODY_RATE,
            send_ns: 60 * SECOND_NS,
            stream_ns: 24 * 3600 * SECOND_NS,
            linger_ns: 5 * SECOND_NS,
        }
    }
}

impl Config {
    /// A shard on embedded defaults.
    pub fn new(shard: ShardId, layout: Layout) -> Config {
        Config {
            shard,
            layout,
            listeners: Vec::new(),
            arena_len: 256 * 1024 * 1024,
            connections_max: limits::CONNECTIONS_MAX,
            files_idle_max: limits::FILES_IDLE_MAX,
            read_files_max: limits::READ_FILES_MAX,
            upload_files_max: limits::UPLOAD_FILES_MAX,
            connections_per_peer: limits::CONNECTIONS_MAX / limits::PEER_SHARE.1
                * limits::PEER_SHARE.0,
            connection_buffers: limits::CONNECTION_BUFFERS_LEN,
            mesh_reads: limits::MESH_READS_MAX,
            mesh_others: limits::MESH_OTHERS_MAX,
            fetches_max: limits::FETCHES_MAX,
            segment_len_max: ron_codec::limits::SEGMENT_LEN_MAX,
            compact_dead_min: limits::COMPACT_DEAD_MIN,
            object_len_max: ron_codec::limits::OBJECT_LEN_MAX,
            window_groups: limits::WINDOW_GROUPS,
            verify_sends: false,
            enforce_payments: false,
            authority: Authority::default(),
            deadlines: Deadlines::default(),
            storage: Storage::default(),
            names: Names::default(),
            accounts: Accounts::default(),
            server: concat!("ron/", env!("CARGO_PKG_VERSION")).to_string(),
            seed: 0,
            cache_secret: Secret::of_seed(0),
            boot_id: 0,
        }
    }
}
