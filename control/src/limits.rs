//! The numbers this crate is bounded by, each with its name and its reason.

use std::time::Duration;

/// Events a slow subscriber of the bus may be behind; what it misses beyond that is counted.
pub const BUS_LEN_MAX: usize = 256;

/// Reports taken from the lane before other work of the thread gets its turn.
pub const REPORTS_TURN_MAX: usize = 256;

/// Connections of the admin listener; when more come, the idlest is closed.
pub const CONNECTIONS_MAX: usize = 64;

/// How long an admin connection may neither take nor give a byte.
pub const IDLE_MAX: Duration = Duration::from_secs(30);

/// How long an admin connection may take from the first byte of a request to the first of its
/// answer, unless that waits for a shard.
pub const ASK_MAX: Duration = Duration::from_secs(10);

/// How long answers in progress may hold up the end of the control thread.
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(2);

/// Damaged objects that are listed.
pub const DAMAGED_MAX: usize = 1024;

/// Characters of a reason that are kept.
pub const REASON_LEN_MAX: usize = 256;

/// Verifications in progress at once; more are refused. Each shard may be asked for all of them.
pub const VERIFIES_MAX: usize = 16;

/// How long the outcome of a verification is waited for: the largest object from a slow disk.
pub const VERIFY_MAX: Duration = Duration::from_secs(600);

/// Objects of one page of a listing, by default and at most: what one step of a shard looks at.
pub const LIST_OBJECTS: u16 = 100;
pub const LIST_OBJECTS_MAX: u16 = 1000;

/// Pages that are being listed at once; more are refused. Each shard may be asked for all of them.
pub const LISTS_MAX: usize = 8;

/// How long the shards may take to list one page. One that works does within milliseconds.
pub const LIST_MAX: Duration = Duration::from_secs(10);

/// Seconds that a profile takes, by default and at most.
pub const PROFILE_S: u64 = 10;
pub const PROFILE_S_MAX: u64 = 60;

/// Samples of a profile for each second that a thread works: by default of all threads together,
/// and at most, which is the default for one shard. They are not round numbers, so that they do not
/// keep step with what happens a hundred times a second.
pub const PROFILE_HZ_ALL: u32 = 99;
pub const PROFILE_HZ_MAX: u32 = ron_io::limits::SAMPLE_HZ_MAX;

/// How often a profile looks for threads that are new.
pub const PROFILE_LOOK_EVERY: Duration = Duration::from_secs(1);

/// Seconds that looking up names may take, as `Retry-After` counts them for those who wait.
pub const PROFILE_WORK_S: u64 = 3;

/// Rows of a picture; functions further in are left out.
pub const PICTURE_ROWS_MAX: usize = 256;

/// How often is looked whether a shard hangs, while any is awake.
pub const HELD_LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long one turn of a shard's event loop may last before the node is not ready. Turns take
/// microseconds, and some milliseconds where a page comes from a slow disk.
pub const TURN_STALL: Duration = Duration::from_secs(3);

/// How often it is said again that a shard hangs.
pub const HELD_AGAIN: Duration = Duration::from_secs(60);

/// How often the log sums up what held the shards.
pub const STALLS_EVERY: Duration = Duration::from_secs(60);

/// Seconds after which an order may be given again that a full mailbox did not take.
pub const RETRY_ORDER_S: u64 = 1;

/// How long shards may take to take new settings before those are rejected, and how often each is
/// asked again meanwhile. One that works takes orders within milliseconds.
pub const RELOAD_ORDER_MAX: Duration = Duration::from_secs(2);
pub const RELOAD_AGAIN: Duration = Duration::from_millis(20);

/// How long reading the settings may take before a reload is rejected: a file may lie on a network
/// that does not answer. Threads that read go on until it does, up to so many of them.
pub const RELOAD_READ_MAX: Duration = Duration::from_secs(30);
pub const RELOAD_READERS_MAX: usize = 8;

/// Changes of names that are kept, to be looked at.
pub const NAME_CHANGES_KEPT: usize = 1000;

/// Changes of names that are being made or wait for their turn; more are refused.
pub const NAME_CHANGES_WAITING_MAX: usize = 32;

/// Bytes of path that names may have on average; beyond it, and beyond their number, they are
/// refused.
pub const NAME_TEXT_MEAN: usize = 128;

/// Names that one answer lists, by default and at most; with paths of the longest it fits what
/// `ronctl` reads.
pub const NAMES_LISTED: usize = 1000;
pub const NAMES_LISTED_MAX: usize = 2000;

/// Changes that one answer lists by default.
pub const NAME_CHANGES_LISTED: usize = 100;

/// Longest body of a request that changes a name.
pub const NAME_BODY_LEN_MAX: usize = 4096;

/// How long the answer to a change waits until every shard has it, and how often a shard whose
/// mailbox is full is offered the names again.
pub const NAMES_ORDER_MAX: Duration = Duration::from_secs(2);
pub const NAMES_AGAIN: Duration = Duration::from_millis(20);

/// How far back is looked for work that was turned away, and how close looks are kept.
pub const LOAD_WINDOW: Duration = Duration::from_secs(10);
pub const LOAD_LOOK_EVERY: Duration = Duration::from_millis(500);

/// What a node turns away when it counts as overloaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadLimit {
    /// Requests a second, and their share of all requests: both must be reached.
    pub rate: f64,
    pub share: f64,
    /// Connections a second.
    pub connections: f64,
}

/// From where on a node is overloaded, and below which it is no more.
pub const LOAD_ENTER: LoadLimit = LoadLimit { rate: 5.0, share: 0.2, connections: 5.0 };
pub const LOAD_LEAVE: LoadLimit = LoadLimit { rate: 1.0, share: 0.05, connections: 0.5 };

/// A node that turns nearly everything away is overloaded however little it is asked: this share,
/// of so many requests that were turned away at least.
pub const LOAD_ALL_SHARE: f64 = 0.9;
pub const LOAD_ALL_MIN: u64 = 3;

/// How many of the addresses that are refused most make no load, so that an owner of one, or a few,
/// cannot have the node taken out of service.
pub const LOAD_PEERS_SPARED: usize = 3;

/// Notes of shards that are kept, to know one again that says the same.
pub const NOTES_KEPT: usize = 64;

/// Bytes of memory of log lines that wait for standard error; what comes beyond that is lost. And
/// how long the end of the process waits for them to be written.
pub const LOG_LEN_MAX: usize = 1024 * 1024;
pub const LOG_FLUSH_MAX: Duration = Duration::from_secs(1);

/// Seconds after which to ask again: a node that is starting, and one that will not come back.
pub const RETRY_BOOT_S: u64 = 1;
pub const RETRY_GONE_S: u64 = 30;

const _: () = assert!(VERIFIES_MAX + LISTS_MAX < CONNECTIONS_MAX);
const _: () = assert!(0 < LIST_OBJECTS && LIST_OBJECTS <= LIST_OBJECTS_MAX);
const _: () = assert!(VERIFIES_MAX + NAME_CHANGES_WAITING_MAX < CONNECTIONS_MAX);
const _: () = assert!(NAMES_LISTED <= NAMES_LISTED_MAX && NAME_CHANGES_LISTED <= NAME_CHANGES_KEPT);
const _: () = assert!(PROFILE_S <= PROFILE_S_MAX && PROFILE_HZ_ALL <= PROFILE_HZ_MAX);
const _: () = assert!(PICTURE_ROWS_MAX > 1 && HELD_LOOK_EVERY.as_secs() <= HELD_AGAIN.as_secs());
const _: () = assert!(RETRY_BOOT_S > 0 && LOAD_WINDOW.as_secs() > 0);
const _: () = assert!(LOAD_LEAVE.rate < LOAD_ENTER.rate && LOAD_LEAVE.share < LOAD_ENTER.share);
const _: () = assert!(HELD_LOOK_EVERY.as_secs() * 2 < TURN_STALL.as_secs());
