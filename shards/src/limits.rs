//! The numbers this crate is bounded by, each with its name and its reason.

use ron_codec::limits::{RECORD_HEADER_LEN, SEGMENT_LEN_MAX};

/// Connections of one shard, unless configured otherwise.
pub const CONNECTIONS_MAX: usize = 10_000;

/// Groups of one download that may be asked for or queued to its connection at once.
pub const WINDOW_GROUPS: u64 = 4;

/// Bytes queued to one connection before its session waits for the peer.
pub const UNSENT_LEN_MAX: usize = 256 * 1024;

/// The same while what is queued is hot: those blocks are in the cache anyway and leave by
/// reference, which costs less in long runs.
pub const UNSENT_HOT_LEN_MAX: usize = 1024 * 1024;

/// Bytes queued to one connection beyond which no further request of it begins, where its last
/// answer had a short body or none. Such answers are copied, and a client that asks ahead for
/// many of them has as much on its way as its link needs.
pub const UNSENT_SHORT_LEN_MAX: usize = 64 * 1024;

/// Bytes of heads that may be queued besides, so that the head of an answer does not keep the last
/// group of its body back.
pub const UNSENT_HEAD_LEN: usize = 1024;

/// Pipelined bytes kept for a session that is busy with an earlier request; beyond it the
/// connection is paused.
pub const PIPELINE_LEN_MAX: usize = 32 * 1024;

/// Blocks of one upload that wait for the disk before its connection is paused.
pub const INGEST_BLOCKS_MAX: usize = 32;

/// Groups of an upload that one disk write takes. File systems make a file longer by one write at a
/// time, so that long ones are faster than many: while one is in progress the next comes in.
pub const INGEST_WRITE_GROUPS: usize = 16;

/// Questions one shard may have open with one other: those that may need memory there, and others,
/// which never wait behind them.
pub const MESH_READS_MAX: usize = 768;
pub const MESH_OTHERS_MAX: usize = 256;
pub const MESH_ASKS_MAX: usize = MESH_READS_MAX + MESH_OTHERS_MAX;

/// Reads of one other shard that wait for memory here; beyond it: 503. They have given their place
/// back.
pub const MESH_PARKED_MAX: usize = 1024;

/// The same for those that an answer begins with: they leave places to answers that began.
pub const MESH_PARKED_BEGINS_MAX: usize = MESH_PARKED_MAX / 4 * 3;

/// Questions that wait for a place among `MESH_READS_MAX` and `MESH_OTHERS_MAX`, over all shards;
/// beyond it: 503.
pub const MESH_READS_WAITING_MAX: usize = 8192;
pub const MESH_OTHERS_WAITING_MAX: usize = 1024;

/// Messages of one lane of the mesh: the open questions of one side; for each of the other side's
/// a reply, and before it a notice that memory is short; a reply to each that is parked; and orders
/// and the few messages that come one at a time.
pub const MESH_LANE_LEN: usize = 3 * MESH_ASKS_MAX + MESH_PARKED_MAX + 64;

/// Answers delivered for one event before others have their turn. The most that one event can ask
/// for by right are the requests in a full inbox, and the groups of what may be queued.
pub const SETTLE_ROUNDS_MAX: usize = 16 * 1024;

/// Bytes of requests that are discarded after an error answer, before the connection is dropped.
pub const LINGER_LEN_MAX: usize = 1024 * 1024;

/// Nanoseconds that the last answer of a connection gets to arrive, however much its peer sends
/// meanwhile: a reset that comes right behind it can take it away from a peer that is far off.
pub const LINGER_LEAST_NS: u64 = 1_000_000_000;

/// Bytes of short answers queued to one OAP/1 connection beyond which no more of its frames are
/// read. Bodies stop at `UNSENT_LEN_MAX`: a peer that reads no bodies for a while may go on
/// writing, and one that reads no answers may not.
pub const OAP_SHORT_LEN_MAX: usize = 64 * 1024;

/// What one connection may have queued, and its bytes that wait, while connections together buffer
/// more than half of what they may: a group and its head under TLS, some short answers without.
pub const TIGHT_UNSENT_LEN_MAX: usize = ron_codec::limits::GROUP_LEN;
pub const TIGHT_SHORT_LEN_MAX: usize = 16 * 1024;
pub const TIGHT_PIPELINE_LEN_MAX: usize = 4 * 1024;

/// Bytes that the connections of one shard may buffer, unless configured otherwise.
pub const CONNECTION_BUFFERS_LEN: usize = 64 * 1024 * 1024;

/// Bytes a second that a request body must bring unless configured otherwise.
pub const BODY_RATE: u64 = 1024;

/// Part of what connections may buffer that is left when some were dropped for buffering more:
/// dropping looks at all of them, and must not be done for each byte.
pub const SHED_SHARE: (usize, usize) = (7, 8);

/// Connections beyond the most there may be that are refused in words, rather than closed at once.
pub const REFUSED_MAX: usize = 128;

/// The same for a shard that takes `connections_max`: an eighth of them, and some at least.
pub const fn refused_max(connections_max: usize) -> usize {
    let part = connections_max / 8;
    if part < 8 {
        8
    } else if part < REFUSED_MAX {
        part
    } else {
        REFUSED_MAX
    }
}

/// How often a shard says at most that it refuses connections.
pub const REFUSED_TELL_NS: u64 = 60_000_000_000;

/// Places for connections that a shard keeps for newcomers: where fewer are left, idle connections
/// are closed. A sixteenth of all.
pub const fn spare_connections(connections_max: usize) -> usize {
    connections_max / 16
}

/// Idle connections that are closed at once, how long they were idle at least, and how long none
/// is looked for again where none was found.
pub const IDLE_CUTS_MAX: usize = 32;
pub const IDLE_CUT_NS: u64 = 1_000_000_000;
pub const IDLE_LOOK_NS: u64 = 100_000_000;

/// Connections of one shard that one peer may have, of eight, unless configured otherwise.
pub const PEER_SHARE: (usize, usize) = (6, 8);

const _: () = assert!(TIGHT_SHORT_LEN_MAX < UNSENT_SHORT_LEN_MAX);

/// Gets of one OAP/1 connection that keep the group they begin with, if it is short, while nothing
/// can be sent: so a small object need not wait for a large one.
pub const OAP_SHORT_KEPT_MAX: usize = 8;

/// Refused puts of one OAP/1 connection whose bytes are still to come and to be dropped; those
/// of one more than that are refused frame by frame.
pub const OAP_REFUSED_MAX: usize = 256;

/// Looks at the queues of the cache for one allocation, before it is refused. Each is a few memory
/// accesses, so this bounds the time an allocation takes when most blocks are being sent.
pub const EVICT_STEPS_MAX: usize = 256;

/// Looks for one allocation after which uses earn a block no more rounds in the main queue.
pub const EVICT_PATIENCE: usize = 128;

/// Disk acts in progress with which the disk of a shard has enough to do: one download alone does
/// not need more groups ahead.
pub const READS_BUSY: usize = READS_IN_PROGRESS_MAX / 2;

/// Nanoseconds for which a reader takes nothing of what is there for it before its download keeps
/// no more than it did at first.
pub const READER_BEHIND_NS: u64 = 20_000_000;

/// Most groups one download keeps or has asked for, whatever is configured.
pub const WINDOW_GROUPS_MAX: usize = 32;

const _: () = assert!(0 < READS_BUSY && READS_BUSY < READS_IN_PROGRESS_MAX);
const _: () = assert!(EVICT_PATIENCE < EVICT_STEPS_MAX);
const _: () = assert!(0 < WINDOW_GROUPS && WINDOW_GROUPS <= WINDOW_GROUPS_MAX as u64);

/// Shares of an arena's blocks, in percent; each includes those named before it for the same owner.
/// What uploads may hold: blocks that are filled or wait for the disk. Uploads that have one
/// already, and short ones, leave the rest to those that have none. Besides there is a share for
/// short ones alone.
pub const UPLOADS_MORE_PERCENT: usize = 18;
pub const UPLOADS_FIRST_PERCENT: usize = 22;
pub const UPLOADS_SHORT_PERCENT: usize = 3;
pub const UPLOADS_PERCENT: usize = UPLOADS_FIRST_PERCENT + UPLOADS_SHORT_PERCENT;

/// Bytes of an upload that is short.
pub const UPLOAD_SHORT_LEN_MAX: u64 = 16 * 1024;

/// What downloads may hold: groups that are being read, kept, or queued on sockets. Beyond the
/// first, downloads keep one group each; the others are left to answers that begin, to the next
/// group of an answer that began, to such a group that is cached and hot, and to groups so short
/// that they are copied when they are sent. An answer that begins can still be refused: those that
/// began have more, so that newcomers, however many, do not cut them.
pub const READS_AHEAD_PERCENT: usize = 38;
pub const READS_FIRST_PERCENT: usize = 46;
pub const READS_NEXT_PERCENT: usize = 54;
pub const READS_HOT_PERCENT: usize = 58;
pub const READS_SHORT_PERCENT: usize = 61;

/// What background work may hold.
pub const BACKGROUND_PERCENT: usize = 4;

/// Nanoseconds an upload waits for memory before it is refused (503).
pub const UPLOAD_WAIT_NS: u64 = 1_500_000_000;

/// Nanoseconds that a group of an upload may take to come while others wait for memory: from then
/// on it may be ended for them, the slowest first.
pub const UPLOAD_SLOW_NS: u64 = 500_000_000;

/// Nanoseconds a read waits for memory before it is refused (503), and the next group of an answer
/// that began, before the body is cut.
pub const READ_WAIT_NS: u64 = 3_000_000_000;
pub const READ_NEXT_WAIT_NS: u64 = 5_000_000_000;

/// Nanoseconds within which a reader takes so many bytes of what is queued for it, or it may be cut
/// when reads wait for the memory that it holds: a byte now and then is not enough.
pub const READER_STALE_NS: u64 = 400_000_000;
pub const READER_LEAST_LEN: usize = 16 * 1024;

/// Nanoseconds for which a download reads nothing ahead after what it read ahead found no place.
pub const READ_AHEAD_PAUSE_NS: u64 = 100_000_000;

/// Nanoseconds for which reads wait for memory before readers are cut for it.
pub const RELIEVE_AFTER_NS: u64 = 100_000_000;

/// Nanoseconds between two looks for readers to cut, and how many are cut at each.
pub const RELIEVE_EVERY_NS: u64 = 20_000_000;
pub const RELIEVE_CUTS_MAX: usize = 64;

/// Bytes of memory that the index of a node may take unless configured otherwise.
pub const INDEX_LEN: u64 = 512 * 1024 * 1024;

/// Part of a partition's share of that, in percent, beyond which the operator is warned, and below
/// which the next warning is due again.
pub const INDEX_WARN_PERCENT: u64 = 90;
pub const INDEX_CALM_PERCENT: u64 = 80;

/// Blocks of changes behind the base of a snapshot, below which no new base is begun; a base that
/// is longer has as many changes behind it as it is long.
pub const SNAPSHOT_CHANGES_BLOCKS_MIN: u32 = 1024;

/// Changes of a partition's index that start a checkpoint at once.
pub const MEMTABLE_CHECKPOINT: usize = 16 * 1024;

/// Changes of a partition's index beyond which commits wait for a checkpoint.
pub const MEMTABLE_MAX: usize = 4 * MEMTABLE_CHECKPOINT;

/// Bytes of log behind the last checkpoint that start the next at once: a boot reads them all.
pub const CHECKPOINT_TAIL_LEN: u64 = 64 * 1024 * 1024;

/// Nanoseconds from a change of the index in memory to its checkpoint, at most.
pub const CHECKPOINT_AFTER_NS: u64 = 5_000_000_000;

/// Checkpoints in a row that fail before a partition takes no more writes: one is tried each
/// `CHECKPOINT_AFTER_NS`.
pub const CHECKPOINT_FAILURES_MAX: u32 = 3;

/// Objects of one group commit.
pub const BATCH_RECORDS_MAX: usize = 1024;

/// Bytes of objects that wait for their group commit in one partition (503 beyond it).
pub const APPENDS_LEN_MAX: u64 = 64 * 1024 * 1024;

/// Objects that wait for their group commit in one partition (503 beyond it).
pub const APPENDS_MAX: usize = 8 * 1024;

/// Files all partitions of a shard keep open when nobody reads them.
pub const FILES_IDLE_MAX: usize = 512;

/// Files all partitions of a shard have open for reads, idle ones included; beyond it a read waits
/// until one is closed.
pub const READ_FILES_MAX: usize = 2 * FILES_IDLE_MAX;

/// Files of uploads that a shard has open (503 beyond it).
pub const UPLOAD_FILES_MAX: usize = 512;

/// Bytes of outboards of one partition, verified or on their way, in use or not: two of the longest
/// objects can be read at once. Beyond it a read waits until one is in use no more.
pub const OUTBOARDS_LEN_MAX: usize = 2 * ron_codec::limits::OUTBOARD_LEN_MAX + 64 * 1024;

/// Bytes that a kept outboard is counted with beside its own: its places in the tables.
pub const OUTBOARD_ENTRY_LEN: usize = 160;

/// Outboards in use that are passed over for each one that is to come, to let the oldest go.
pub const OUTBOARD_LOOKS_MAX: usize = 8;

/// Outboards of one partition that are being read at once, of at most 8 MiB each.
pub const OUTBOARD_LOADS_MAX: usize = 8;

/// Bytes of those outboards; one that is longer is read when no other is.
pub const OUTBOARD_LOADS_LEN_MAX: usize = 8 * 1024 * 1024;

const _: () = assert!(ron_codec::limits::OUTBOARD_LEN_MAX <= OUTBOARD_LOADS_LEN_MAX);

/// Groups of one partition that are being read, or wait for it (503 beyond it). Half of them, and
/// of those who wait for them, are for what an answer needs next, not for what is read ahead.
pub const FETCHES_MAX: usize = 16 * 1024;

/// Askers of one partition who wait for those groups (503 beyond it).
pub const WANTING_MAX: usize = 2 * FETCHES_MAX;

/// Disk acts of a shard in progress beyond which groups wait with being read, so that commits and
/// boots always find a place among `DISK_OPS_MAX`.
pub const READS_IN_PROGRESS_MAX: usize = ron_io::limits::DISK_OPS_MAX / 2;

/// Bytes of one read of a log whose records are hashed at boot: the longest record fits.
pub const SCAN_LEN: usize = 2 * 1024 * 1024;

/// Sequences of one segment, at most. Records of segment `n` have sequences below
/// `(n + 1) * SEGMENT_SEQUENCES`, however little of the log is known: a segment has fewer records
/// than that, and where records may be hidden the next segment begins with this times its number.
pub const SEGMENT_SEQUENCES: u64 = 1 << 32;
const _: () = assert!(SEGMENT_LEN_MAX / (RECORD_HEADER_LEN as u64) < SEGMENT_SEQUENCES / 2);

/// Tries to read a piece of the log at boot.
pub const BOOT_SCAN_TRIES: u32 = 3;

/// Bytes of one read of a log when only headers are wanted.
pub const SKIM_LEN: usize = 256 * 1024;

const _: () = assert!(ron_codec::record::record_len_max() <= SCAN_LEN as u64);
const _: () = assert!(SKIM_LEN <= SCAN_LEN && SCAN_LEN <= ron_io::limits::DISK_OP_LEN_MAX);
const _: () = assert!(ron_io::limits::DISK_OP_LEN_MAX as u64 <= APPENDS_LEN_MAX);
const _: () = assert!(BATCH_RECORDS_MAX <= APPENDS_MAX);

/// Orders of the control plane that may lie in a shard's mailbox.
pub const ORDER_LANE_LEN: usize = 64;

/// Bytes of a volume that are left free unless configured otherwise: compaction of one segment
/// always finds space.
pub const RESERVE_BYTES: u64 = 512 * 1024 * 1024;

/// Share of a segment that must count, in percent, for it not to be compacted.
pub const COMPACT_BELOW_PERCENT: u8 = 50;

/// Most percent that may be asked for. What fills up a batch counts for nothing, so a segment
/// where all else counts may still be below a higher share, and would be written anew without an
/// end.
pub const COMPACT_BELOW_MAX: u8 = 90;

/// Bytes a second of one shard's scrub unless configured otherwise.
pub const SCRUB_BYTES_PER_S: u64 = 32 * 1024 * 1024;

/// Milliseconds between two rounds of the scrub unless configured otherwise: a week.
pub const SCRUB_EVERY_MS: u64 = 7 * 24 * 3600 * 1000;

/// Bytes of records that wait to be moved in one partition.
pub const RELOCATIONS_LEN_MAX: usize = 4 * 1024 * 1024;

/// Bytes of records that one commit moves, beside what it commits for others: they wait for it.
pub const RELOCATE_BATCH_LEN: u64 = 1024 * 1024;

/// Nanoseconds after which reads that wait for memory look again: another shard that gives some
/// back does not say so.
pub const MEMORY_RETRY_NS: u64 = 1_000_000;

/// Cached groups that a deletion looks for in one turn.
pub const FORGET_TURN_MAX: u64 = 4096;

/// Bytes of a segment that must count no more for it to be compacted, unless nothing counts.
pub const COMPACT_DEAD_MIN: u64 = 1024 * 1024;

/// Bytes that compaction hashes in one turn of the loop: about 100 µs.
pub const COMPACT_TURN_LEN: usize = 256 * 1024;

/// Disk acts of a shard in progress beyond which compaction yields: it reads and moves no more than
/// so many bytes a second then, in each partition.
pub const COMPACT_IN_PROGRESS_MAX: usize = 8;
pub const COMPACT_YIELDING_BYTES_PER_S: u64 = 32 * 1024 * 1024;

/// The highest number of a segment or snapshot: a file with a higher one is not ours. The next
/// is one higher than any that is there, and so many are never made.
pub const FILE_NUMBER_MAX: u32 = u32::MAX / 4;

/// The highest sequence that a log may have reached for its partition to open: all segments that
/// there can be do not come near it, and what is left above it is not used up by writing.
pub const SEQUENCE_MAX: u64 = 3 << 61;
const _: () = assert!(FILE_NUMBER_MAX as u64 + 2 < SEQUENCE_MAX / SEGMENT_SEQUENCES);

/// Segments shorter than this are small; more than so many of them in one partition, as many
/// restarts leave, are joined.
pub const SMALL_SEGMENT_LEN: u64 = 4 * 1024 * 1024;
pub const SMALL_SEGMENTS_MAX: usize = 16;

/// Bytes of memory that are counted for the place of an upload among those that wait.
pub const UPLOAD_WAITING_LEN: usize = 256;

/// Bytes of free space that an upload sets aside at a time, at most.
pub const UPLOAD_STEP_LEN: u64 = 16 * 1024 * 1024;

/// Bytes written to a volume after which its free space is asked for again.
pub const FREE_SPACE_WRITTEN_MAX: u64 = 64 * 1024 * 1024;

/// Nanoseconds after which the free space of a volume that is being written to, or is full, is
/// asked for again.
pub const FREE_SPACE_AFTER_NS: u64 = 1_000_000_000;

/// Nanoseconds after which a file that could not be removed, and whose tombstone waits for that, is
/// looked for again.
pub const REMOVE_AGAIN_NS: u64 = 60_000_000_000;

/// Files without an object that one look through the folders remembers; the next finds the rest.
pub const ORPHANS_MAX: usize = 4096;

/// Part of a log that tombstones may fill before its oldest segment is rewritten to be rid of them:
/// one in so many.
pub const TOMBSTONES_SHARE: u64 = 8;

/// Bytes of one read of the scrub: what one turn hashes.
pub const SCRUB_READ_LEN: u32 = ron_codec::limits::GROUP_LEN as u32;

/// Records that one turn of the scrub looks up in the index.
pub const SCRUB_STEP_RECORDS: usize = 64;

/// Entries of the index that one turn of the scrub looks at.
pub const SCRUB_PAGE_ENTRIES: usize = 256;

/// What a turn of the scrub that reads nothing is charged for, in bytes.
pub const SCRUB_STEP_LEN: u64 = 16 * 1024;

/// What a turn of the scrub is charged for that asks for the names in a folder, in bytes.
pub const SCRUB_ASK_LEN: u64 = ron_codec::limits::DISK_BLOCK_LEN as u64;

/// Bytes that the scrub, or a compaction that has to yield, may read at once after a rest.
pub const PACE_BURST_LEN: i64 = 4 * SCRUB_READ_LEN as i64;

/// Disk acts of a shard in progress beyond which its scrub starts no read.
pub const SCRUB_IN_PROGRESS_MAX: usize = 8;

/// Bytes of a round after which its position is carried into the index.
pub const SCRUB_MARK_LEN: u64 = 1024 * 1024 * 1024;

/// Objects in a row that cannot be checked, after which the scrub leaves a partition.
pub const SCRUB_FAILURES_MAX: u32 = 16;

/// Objects of one shard that are verified at once because somebody asked.
pub const VERIFIES_MAX: usize = 4;

/// Damaged objects that a shard remembers; one more is found anew whenever it is read.
pub const DAMAGED_MAX: usize = 4096;

/// Bytes of memory that each of them takes.
pub const DAMAGED_LEN: usize = 96;

/// Times an object is read anew because it was moved meanwhile.
pub const PROBE_TRIES_MAX: u32 = 4;

const _: () = assert!(SCRUB_READ_LEN as usize >= ron_codec::limits::RECORD_HEADER_LEN);
const _: () = assert!(SCRUB_STEP_LEN < PACE_BURST_LEN as u64);

/// How often in a row a segment could not be begun before its partition counts as read-only.
pub const BEGIN_FAILURES_MAX: u32 = 3;

/// When a round of the scrub begins again that could not look at everything, if none is due before.
pub const SCRUB_AGAIN_NS: u64 = 3600 * 1_000_000_000;

/// When a mark of a segment is tried again that could not be made.
pub const MARK_AGAIN_NS: u64 = 10 * 1_000_000_000;

/// Paths of bundles whose entries one shard remembers. Together they are a tenth of what a shard
/// keeps for its connections at most.
pub const RESOLVED_MAX: usize = 4096;

/// How long it trusts one of them: so long may an entry of a bundle be served that was deleted at
/// another shard.
pub const RESOLVED_NS: u64 = 1_000_000_000;
