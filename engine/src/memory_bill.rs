//! The memory a node reserves, added up before any of it is taken.
//!
//! The bill holds all that peers can make the node keep: what is sized at boot, and the bounds of
//! what comes and goes. It does not hold the pages of files, which are the kernel's and given back
//! under pressure, nor what the kernel keeps for sockets.

use std::fmt;

use ron_codec::limits::OUTBOARD_LEN_MAX;
use ron_control::limits::LOG_LEN_MAX;
use ron_io::limits::{
    HANDSHAKE_LEN_MAX, OUT_BUFFER_LEN, OUT_BUFFERS_IDLE_MAX, RECV_BUFFER_LEN, RECV_BUFFERS,
    RING_COMPLETIONS, RING_ENTRIES, SAMPLE_ADDRESSES_MAX, SPARE_BUFFERS_LEN_MAX, TLS_SHORT_LEN,
};
use ron_io::stats::LATENCIES_LEN;
use ron_shards::limits::{
    APPENDS_MAX, DAMAGED_LEN, DAMAGED_MAX, MEMTABLE_MAX, OAP_SHORT_LEN_MAX, OUTBOARD_LOADS_LEN_MAX,
    OUTBOARDS_LEN_MAX, REFUSED_MAX, UNSENT_LEN_MAX,
};
use ron_shards::{resolved::resolved_bill, shard, store};

use crate::config::values::human_size;

/// Bytes of a connection in the tables of driver and shard while it is quiet: its socket's state,
/// its session, its place on the timer wheel.
pub const CONNECTION_LEN: u64 = 2 * 1024;

/// Bytes of the TLS of a connection: keys and buffers that are there always, a record of the peer
/// that is not whole, and the list of records to be sent, which stays as long as it was once.
pub const TLS_CONNECTION_LEN: u64 = 10 * 1024 + HANDSHAKE_LEN_MAX as u64 + TLS_LIST_LEN;

/// That list: a place of 24 bytes for each record that may wait, twice as many when it has grown.
const TLS_LIST_LEN: u64 = {
    let records = (UNSENT_LEN_MAX + OAP_SHORT_LEN_MAX) / TLS_SHORT_LEN;
    24 * records.next_power_of_two() as u64
};

/// Bytes the executor of one shard registers for direct disk access.
pub const DISK_BUFFERS_LEN: u64 = 1024 * 1024;

/// Bytes of one change of the index that waits for its checkpoint.
const CHANGE_LEN: u64 = 128;

/// Bytes that the objects take in the index of one partition that were taken up just before its
/// share was used up.
const INDEX_OVER_LEN: u64 = APPENDS_MAX as u64 * 64;

/// Bytes of the outboards of one partition: those that there may be, and one that is joined from
/// the pieces it was read in.
const OUTBOARDS_LEN: u64 = (OUTBOARDS_LEN_MAX + OUTBOARD_LOADS_LEN_MAX) as u64;

/// Bytes that one step of a shard may add to what its connections buffer before others are dropped:
/// answers to what one receive buffer asks for, and an outboard that is copied to be written.
const STEP_LEN: u64 = 1024 * 1024 + OUTBOARD_LEN_MAX as u64;

/// Bytes of the process whatever it serves: the control thread, the stacks, tables of libraries,
/// lines of the log that nobody reads; and what each shard adds.
const PROCESS_LEN: u64 = 24 * 1024 * 1024 + LOG_LEN_MAX as u64;
const PROCESS_SHARD_LEN: u64 = 4 * 1024 * 1024;

/// Part of what lies on the heap that the allocator loses between blocks of different lengths: one
/// in so many.
const ALLOCATOR_SHARE: u64 = 8;

/// Bytes of one entry of a submission and of a completion queue, and of a buffer ring.
const SUBMISSION_LEN: u64 = 64;
const COMPLETION_LEN: u64 = 16;
const BUFFER_ENTRY_LEN: u64 = 16;

/// What a node is to be made of. Lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub shards: usize,
    /// Partitions of all shards together.
    pub partitions: u64,
    /// Arena of one shard.
    pub arena_len: u64,
    /// Tables behind the arena and the cache of one shard.
    pub cache_tables_len: u64,
    /// Connections of one shard.
    pub connections_max: usize,
    /// Whether some of them may be under TLS.
    pub tls: bool,
    /// What the connections of one shard may buffer.
    pub connection_buffers_len: u64,
    /// The index of all partitions.
    pub index_len: u64,
    /// The names.
    pub names_len: u64,
    /// One lane of the mesh; there is one for each ordered pair of shards.
    pub lane_len: u64,
}

/// What the plan costs, line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBill {
    pub lines: Vec<Line>,
    /// Sum of the lines, in bytes.
    pub total: u64,
    /// Bytes this process may use.
    pub memory_len: u64,
}

/// One line of the bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub what: &'static str,
    pub len: u64,
}

/// The plan costs more than there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the settings do not fit this machine, {bill}; lower cache, connections_max, \
         connection_buffers, storage.index_memory, names.max or cores"
)]
pub struct OverMemory {
    pub bill: MemoryBill,
}

impl MemoryBill {
    /// The bill of a plan, for a process that may use `memory_len` bytes.
    ///
    /// # Errors
    /// The total is more than that.
    pub fn new(plan: &Plan, memory_len: u64) -> Result<MemoryBill, OverMemory> {
        let shards = plan.shards as u64;
        let connections = (plan.connections_max as u64).saturating_add(REFUSED_MAX as u64);
        let receive = u64::from(RECV_BUFFERS) * (RECV_BUFFER_LEN as u64 + BUFFER_ENTRY_LEN);
        let rings =
            u64::from(RING_ENTRIES) * SUBMISSION_LEN + u64::from(RING_COMPLETIONS) * COMPLETION_LEN;
        let disk = DISK_BUFFERS_LEN + SPARE_BUFFERS_LEN_MAX as u64;
        let idle = (OUT_BUFFER_LEN * OUT_BUFFERS_IDLE_MAX) as u64;
        let buffers = plan.connection_buffers_len.saturating_add(idle + STEP_LEN);
        let tls = if plan.tls { TLS_CONNECTION_LEN } else { 0 };
        // A shard leaves mail with every other one.
        let lanes = plan.lane_len.saturating_mul(shards.saturating_sub(1));
        let damaged = (DAMAGED_MAX * DAMAGED_LEN) as u64;
        let profile = (SAMPLE_ADDRESSES_MAX * size_of::<u64>()) as u64;
        let index_over = INDEX_OVER_LEN.saturating_mul(plan.partitions);
        let mut lines: Vec<Line> = [
            ("blocks", plan.arena_len, shards),
            ("cache tables", plan.cache_tables_len, shards),
            ("receive buffers", receive, shards),
            ("rings and disk buffers", rings + disk, shards),
            ("connection tables", CONNECTION_LEN.saturating_mul(connections), shards),
            ("TLS", tls.saturating_mul(connections), shards),
            ("connection buffers", buffers, shards),
            ("mesh lanes", lanes, shards),
            ("waiting questions", shard::waiting_bill() as u64, shards),
            ("outboards", OUTBOARDS_LEN, plan.partitions),
            ("waiting requests", store::waiting_bill() as u64, plan.partitions),
            ("index", plan.index_len.saturating_add(index_over), 1),
            ("index changes", CHANGE_LEN * MEMTABLE_MAX as u64, plan.partitions),
            ("names", plan.names_len, 1),
            ("damaged objects", damaged, shards),
            ("paths of bundles", resolved_bill() as u64, shards),
            ("latency histograms", LATENCIES_LEN as u64, shards),
            ("scrub", store::scrub_bill() as u64, shards),
            ("profile", profile, 1),
            ("process", PROCESS_LEN.saturating_add(PROCESS_SHARD_LEN.saturating_mul(shards)), 1),
        ]
        .map(|(what, each, count)| Line { what, len: each.saturating_mul(count) })
        .into();
        let on_heap = [
            "connection tables",
            "TLS",
            "connection buffers",
            "waiting questions",
            "outboards",
            "waiting requests",
            "index",
            "paths of bundles",
            "names",
            "scrub",
        ];
        let heap = lines.iter().filter(|line| on_heap.contains(&line.what));
        let heap = heap.fold(0u64, |sum, line| sum.saturating_add(line.len));
        lines.push(Line { what: "allocator", len: heap / ALLOCATOR_SHARE });
        let total = lines.iter().fold(0u64, |sum, line| sum.saturating_add(line.len));
        let bill = MemoryBill { lines, total, memory_len };
        if total > memory_len { Err(OverMemory { bill }) } else { Ok(bill) }
    }
}

/// One line of text: the total, what there is, and each line that costs something.
impl fmt::Display for MemoryBill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory {} of {}: ", human_size(self.total), human_size(self.memory_len))?;
        let lines = self.lines.iter().filter(|line| line.len > 0);
        for (at, line) in lines.enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{} {}", line.what, human_size(line.len))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn plan() -> Plan {
        Plan {
            shards: 2,
            partitions: 3,
            arena_len: 256 * MIB,
            cache_tables_len: 8 * MIB,
            connections_max: 1024,
            tls: true,
            connection_buffers_len: 10 * MIB,
            index_len: 64 * MIB,
            names_len: 3 * MIB,
            lane_len: MIB / 2,
        }
    }

    #[test]
    fn every_line_is_that_of_all_shards() {
        let bill = MemoryBill::new(&plan(), 2048 * MIB).unwrap();
        let len = |what| bill.lines.iter().find(|line| line.what == what).unwrap().len;
        assert_eq!(len("blocks"), 512 * MIB);
        assert_eq!(len("cache tables"), 16 * MIB);
        assert_eq!(len("receive buffers"), 2 * 512 * (16 * 1024 + 16));
        assert_eq!(len("connection tables"), 2 * (1024 + 128) * 2048);
        assert_eq!(len("TLS"), 2 * (1024 + 128) * 34 * 1024);
        assert_eq!(len("connection buffers"), 2 * (10 + 4 + 1 + 8) * MIB);
        assert_eq!(len("outboards"), 3 * ((16 + 8) * MIB + MIB / 16));
        let waiting = len("waiting requests") / 3;
        assert!((4 * MIB..24 * MIB).contains(&waiting), "{waiting} bytes for each partition");
        assert_eq!(len("index"), 64 * MIB + 3 * 8 * 1024 * 64);
        assert_eq!(len("index changes"), 3 * 8 * MIB);
        assert_eq!(len("latency histograms"), 2 * 21 * 3287 * 8);
        assert_eq!(len("scrub"), 2 * 5 * (9 * MIB + 64 * 1024));
        let paths = len("paths of bundles") / 2;
        assert!((4 * MIB..8 * MIB).contains(&paths), "{paths} bytes for each shard");
        let heap = len("connection tables") + len("TLS");
        let heap = heap + len("connection buffers") + len("outboards") + len("waiting requests");
        let heap = heap + len("index") + len("scrub") + len("waiting questions") + len("names");
        let heap = heap + len("paths of bundles");
        let questions = len("waiting questions") / 2;
        assert!((MIB..8 * MIB).contains(&questions), "{questions} bytes for each shard");
        assert_eq!(len("allocator"), heap / 8);
        assert_eq!(len("mesh lanes"), MIB, "one lane each way");
        assert_eq!(bill.total, bill.lines.iter().map(|line| line.len).sum::<u64>());
    }

    #[test]
    fn a_plan_that_just_fits_is_taken_and_one_byte_more_is_not() {
        let total = MemoryBill::new(&plan(), u64::MAX).unwrap().total;
        assert!(MemoryBill::new(&plan(), total).is_ok());
        let over = MemoryBill::new(&plan(), total - 1).unwrap_err();
        assert_eq!(over.bill.total, total);
        assert!(over.to_string().contains("blocks 512 MiB"), "{over}");
    }

    #[test]
    fn absurd_plans_saturate() {
        let plan = Plan { arena_len: u64::MAX / 2 + 1, lane_len: u64::MAX, ..plan() };
        assert_eq!(MemoryBill::new(&plan, u64::MAX - 1).unwrap_err().bill.total, u64::MAX);
    }

    #[test]
    fn the_text_is_one_line_without_what_costs_nothing() {
        let plan = Plan { shards: 1, cache_tables_len: 0, tls: false, ..plan() };
        let bill = MemoryBill::new(&plan, 1024 * MIB).unwrap();
        let text = bill.to_string();
        let start = format!("memory {} of 1 GiB: blocks 256 MiB, ", human_size(bill.total));
        assert!(text.starts_with(&start) && !text.contains("TLS"), "{text}");
        assert!(!text.contains('\n') && !text.contains("mesh") && !text.contains("cache tables"));
    }
}
