//! The files a node may have open, dealt out before it serves.
//!
//! ```text
//!   limit = open at start + each shard's own + admin + objects and uploads + connections
//! ```
//!
//! Connections get what the others leave, so that accepting one more never takes the descriptor
//! that an upload, a read or the admin listener needs. Where that is less than `connections_max`,
//! fewer connections are taken, and a warning says so.

use std::io;

use ron_io::{limits::ACCEPTS_MAX, process};
use ron_shards::limits::{
    FILES_IDLE_MAX, READ_FILES_MAX, REFUSED_MAX, UPLOAD_FILES_MAX, refused_max,
};

/// Descriptors of one shard beside connections and objects: its rings, its executor's, listeners,
/// wakers, arena, pipe; the connection that is ended at once, and what is accepted meanwhile.
const SHARD_FILES: u64 = 32 + 1 + SPOKEN_MAX * ACCEPTS_MAX as u64;

/// Listeners of one shard: `http`, `https`, `oap` and `oap_plain`.
const SPOKEN_MAX: u64 = 4;

/// Descriptors of one partition: the segment that is written, its index, a folder that is synced.
const PARTITION_FILES: u64 = 8;

/// Descriptors of the control plane: connections of the admin listener, files that are read.
const CONTROL_FILES: u64 = ron_control::limits::CONNECTIONS_MAX as u64 + 16;

/// Least and most descriptors of one shard for objects and segments that are read and for uploads;
/// between them it is a part of the limit. A third of it is for uploads; of the others, half stay
/// open when nobody reads them.
const OBJECT_FILES_MIN: u64 = 48;
const OBJECT_FILES_MAX: u64 = (READ_FILES_MAX + UPLOAD_FILES_MAX) as u64;
const OBJECT_FILES_SHARE: u64 = 4;

const _: () = assert!(READ_FILES_MAX == 2 * FILES_IDLE_MAX && UPLOAD_FILES_MAX == FILES_IDLE_MAX);

/// Fewest connections of a shard that are worth a start.
const CONNECTIONS_MIN: u64 = 8;

/// What is to be dealt out, and among whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The limit of open files of this process.
    pub limit: u64,
    /// Files that are open already.
    pub open: u64,
    pub shards: usize,
    pub partitions: usize,
    /// Connections of one shard.
    pub connections_max: usize,
}

/// How the limit is dealt out to each shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileBill {
    pub limit: u64,
    /// Files that would let each shard have as many connections as it is set to.
    pub wanted: u64,
    /// Connections of one shard.
    pub connections_max: usize,
    /// Files that one shard keeps open for the next reader.
    pub files_idle_max: usize,
    /// Files that one shard has open for reads, those included.
    pub read_files_max: usize,
    /// Files of uploads that one shard has open.
    pub upload_files_max: usize,
    /// Whether there are fewer connections than were set.
    pub is_short: bool,
}

/// The limit is below what a node needs to serve at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the limit of open files is {limit}, and {needed} are needed at least: raise it with \
     `ulimit -n {wanted}`, or LimitNOFILE={wanted} in a systemd unit"
)]
pub struct TooFewFiles {
    pub limit: u64,
    pub needed: u64,
    pub wanted: u64,
}

impl Need {
    /// What this process has, once its limit is raised as far as it may be.
    pub fn of_process(shards: usize, partitions: usize, connections_max: usize) -> Need {
        let raised = process::raise_file_limit().or_else(|error: io::Error| {
            tracing::warn!(%error, "the limit of open files cannot be raised");
            process::file_limit()
        });
        let limit = raised.map_or(u64::MAX, |limit| limit.soft);
        let open = process::open_files().unwrap_or(SHARD_FILES);
        Need { limit, open, shards, partitions, connections_max }
    }
}

impl FileBill {
    /// Deals out the limit.
    ///
    /// # Errors
    /// There is too little for a few connections each.
    pub fn new(need: &Need) -> Result<FileBill, TooFewFiles> {
        let (shards, limit) = (need.shards as u64, need.limit);
        let fixed = need.open
            + CONTROL_FILES
            + need.partitions as u64 * PARTITION_FILES
            + shards * SHARD_FILES;
        let set = need.connections_max as u64;
        let wanted =
            fixed.saturating_add(shards.saturating_mul(OBJECT_FILES_MAX + with_refused(set)));
        let least = with_refused(CONNECTIONS_MIN.min(set));
        let left = limit.saturating_sub(fixed) / shards;
        let share = (limit / OBJECT_FILES_SHARE / shards).min(left.saturating_sub(least));
        let objects = share.clamp(OBJECT_FILES_MIN, OBJECT_FILES_MAX);
        let rest = left.saturating_sub(objects);
        if rest < least {
            let needed = fixed + shards * (OBJECT_FILES_MIN + least);
            return Err(TooFewFiles { limit, needed, wanted });
        }
        // Of the rest, a ninth or less is for those that are refused.
        let some = (rest / 9 * 8 + rest % 9 * 8 / 9).min(rest.saturating_sub(8));
        let most = some.max(rest.saturating_sub(REFUSED_MAX as u64));
        let connections = set.min(most);
        Ok(FileBill {
            limit,
            wanted,
            connections_max: connections as usize,
            files_idle_max: (objects / 3) as usize,
            read_files_max: (objects - objects / 3) as usize,
            upload_files_max: (objects / 3) as usize,
            is_short: connections < set,
        })
    }

    /// The part of `whole` connections of a shard that was set for something, of those it takes: a
    /// share stays a share when there are fewer connections than were set.
    pub fn of(&self, set: usize, whole: usize) -> usize {
        if !self.is_short {
            return set;
        }
        (set as u128 * self.connections_max as u128 / whole as u128).max(1) as usize
    }

    /// Warns the operator when there are fewer connections than were set.
    pub fn log(&self, connections_max: usize) {
        let FileBill { limit, wanted, connections_max: capped, .. } = self;
        if self.is_short {
            tracing::warn!(
                "the limit of open files is {limit}, {wanted} are wanted: each shard takes \
                 {capped} connections instead of {connections_max}; raise it with \
                 LimitNOFILE={wanted} in a systemd unit, or `ulimit -Hn {wanted}`"
            );
        }
    }
}

/// Connections of a shard, and those beyond that it may have for a moment while it refuses them.
fn with_refused(connections: u64) -> u64 {
    connections + refused_max(connections as usize) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(limit: u64) -> Need {
        Need { limit, open: 20, shards: 2, partitions: 2, connections_max: 10_000 }
    }

    /// Everything but connections.
    fn others(need: &Need, bill: &FileBill) -> u64 {
        let shards = need.shards as u64;
        let objects = (bill.read_files_max + bill.upload_files_max) as u64;
        need.open
            + CONTROL_FILES
            + need.partitions as u64 * PARTITION_FILES
            + shards * (SHARD_FILES + objects + refused_max(bill.connections_max) as u64)
    }

    #[test]
    fn a_high_limit_leaves_the_settings_alone() {
        let wanted = FileBill::new(&need(1 << 20)).unwrap().wanted;
        for limit in [wanted, wanted + 1, u64::MAX] {
            let bill = FileBill::new(&need(limit)).unwrap();
            assert_eq!((bill.connections_max, bill.is_short), (10_000, false), "{limit}");
            assert_eq!(bill.files_idle_max, FILES_IDLE_MAX);
            assert_eq!((bill.read_files_max, bill.upload_files_max), (1024, 512));
        }
        let bill = FileBill::new(&need(wanted - 1)).unwrap();
        assert!(bill.is_short && bill.connections_max == 9_999);
    }

    #[test]
    fn a_share_of_the_connections_stays_one() {
        let short = FileBill::new(&need(4096)).unwrap();
        assert!(short.is_short && short.connections_max < 7500);
        assert_eq!(short.of(7500, 10_000), short.connections_max * 3 / 4);
        assert_eq!(short.of(1, 10_000), 1);
        let wide = FileBill::new(&need(1 << 20)).unwrap();
        assert_eq!(wide.of(7500, 10_000), 7500);
    }

    #[test]
    fn what_is_dealt_out_is_never_more_than_there_is() {
        for limit in 0..5000 {
            for connections_max in [1, 8, 300, 10_000] {
                let need = Need { connections_max, ..need(limit) };
                let Ok(bill) = FileBill::new(&need) else { continue };
                let connections = (need.shards * bill.connections_max) as u64;
                assert!(others(&need, &bill) + connections <= limit, "{limit} {bill:?}");
                assert!(bill.connections_max >= connections_max.min(8));
                assert!(bill.files_idle_max >= 16 && bill.upload_files_max >= 16);
                assert!(bill.read_files_max >= 2 * bill.files_idle_max);
            }
        }
    }

    #[test]
    fn a_limit_that_is_too_low_names_the_number_that_is_not() {
        let TooFewFiles { needed, .. } = FileBill::new(&need(20)).unwrap_err();
        assert!(FileBill::new(&need(needed - 1)).is_err());
        let bill = FileBill::new(&need(needed)).unwrap();
        assert_eq!(bill.connections_max, 8);
        let said = FileBill::new(&need(20)).unwrap_err().to_string();
        assert!(said.contains("is 20, and") && said.contains("LimitNOFILE="), "{said}");
    }
}
