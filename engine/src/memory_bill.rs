//! The memory a node reserves, added up before any of it is taken.
//!
//! The bill holds what is bounded by settings and sized at boot. It does not hold what comes and
//! goes with the work: bytes queued to slow peers, TLS buffers, the index's pages (the kernel's,
//! and given back under pressure).

use std::fmt;

use ron_io::limits::{RECV_BUFFER_LEN, RECV_BUFFERS, RING_COMPLETIONS, RING_ENTRIES};

use crate::config::values::human_size;

/// Bytes of a connection in the tables of driver and shard while it is quiet: its socket's state,
/// its session, its place on the timer wheel.
pub const CONNECTION_LEN: u64 = 2 * 1024;

/// Bytes the executor of one shard registers for direct disk access.
pub const DISK_BUFFERS_LEN: u64 = 1024 * 1024;

/// Bytes of one entry of a submission and of a completion queue, and of a buffer ring.
const SUBMISSION_LEN: u64 = 64;
const COMPLETION_LEN: u64 = 16;
const BUFFER_ENTRY_LEN: u64 = 16;

/// What a node is to be made of. Lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub shards: usize,
    /// Arena of one shard.
    pub arena_len: u64,
    /// Tables behind the arena and the cache of one shard.
    pub cache_tables_len: u64,
    /// Connections of one shard.
    pub connections_max: usize,
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
#[error("the settings do not fit this machine, {bill}; lower cache, connections_max or cores")]
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
        let connections = CONNECTION_LEN.saturating_mul(plan.connections_max as u64);
        let buffers = u64::from(RECV_BUFFERS) * (RECV_BUFFER_LEN as u64 + BUFFER_ENTRY_LEN);
        let rings =
            u64::from(RING_ENTRIES) * SUBMISSION_LEN + u64::from(RING_COMPLETIONS) * COMPLETION_LEN;
        // A shard leaves mail with every other one.
        let lanes = plan.lane_len.saturating_mul(shards.saturating_sub(1));
        let lines: Vec<Line> = [
            ("blocks", plan.arena_len),
            ("cache tables", plan.cache_tables_len),
            ("receive buffers", buffers),
            ("rings and disk buffers", rings + DISK_BUFFERS_LEN),
            ("connection tables", connections),
            ("mesh lanes", lanes),
        ]
        .map(|(what, each)| Line { what, len: each.saturating_mul(shards) })
        .into();
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
            arena_len: 256 * MIB,
            cache_tables_len: 8 * MIB,
            connections_max: 1024,
            lane_len: MIB / 2,
        }
    }

    #[test]
    fn every_line_is_that_of_all_shards() {
        let bill = MemoryBill::new(&plan(), 1024 * MIB).unwrap();
        let len = |what| bill.lines.iter().find(|line| line.what == what).unwrap().len;
        assert_eq!(len("blocks"), 512 * MIB);
        assert_eq!(len("cache tables"), 16 * MIB);
        assert_eq!(len("receive buffers"), 2 * 512 * (16 * 1024 + 16));
        assert_eq!(len("connection tables"), 4 * MIB);
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
        let plan = Plan { shards: 1, cache_tables_len: 0, ..plan() };
        let text = MemoryBill::new(&plan, 1024 * MIB).unwrap().to_string();
        assert!(text.starts_with("memory 267.3 MiB of 1 GiB: blocks 256 MiB, "), "{text}");
        assert!(!text.contains('\n') && !text.contains("mesh") && !text.contains("cache tables"));
    }
}
