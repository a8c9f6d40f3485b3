//! Opening the index: the newest snapshot that is whole, or none.
//!
//! What does not match its checksums is not believed: then an older snapshot is used, or an append
//! less of the same, with the log behind its position. Such a state is *stale*: segments may have
//! been removed since. A segment goes only when nothing that is there lies in it any more, so what
//! a stale snapshot places in a segment that is gone was deleted or has another place, which the
//! log behind the position tells, and is dropped.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use ron_codec::limits::{DISK_BLOCK_LEN, SEGMENT_LEN_MAX};
use ron_io::ports::Job;

use super::{
    Location, Position, Snapshot, Tally, Totals,
    snapshot::{self, Commit, Loaded},
    table::{self, Table},
};

/// The index of releases that kept it in LMDB.
pub(super) const OLD_NAME: &str = "data.mdb";

/// An index that was opened.
#[derive(Debug)]
pub(in crate::store) struct Opened {
    pub(super) dir: PathBuf,
    pub(super) table: Table,
    pub(super) tallies: BTreeMap<u32, Tally>,
    pub(super) totals: Totals,
    pub(super) commit: Commit,
    pub(super) file: Option<Snapshot>,
    /// The highest generation of any file that is there, and the one that is kept.
    pub(super) generation: u32,
    pub(super) kept: u32,
    /// The log is known to this position and sequence; `None`: it must be read from its start.
    pub(in crate::store) reached: Option<(Position, u64)>,
    /// What was found to be damaged, for the operator.
    pub(in crate::store) notes: Vec<String>,
}

/// Where a job on another thread leaves what it opened.
pub(in crate::store) type Slot = Arc<Mutex<Option<Opened>>>;

/// The job that opens the index in `dir` and leaves it in `slot`. `segments` are the numbers and
/// lengths of those that are there.
pub(in crate::store) fn open_job(dir: PathBuf, segments: Vec<(u32, u64)>, slot: Slot) -> Job {
    Box::new(move || {
        let opened = open(dir, &segments);
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        Ok(())
    })
}

fn open(dir: PathBuf, segments: &[(u32, u64)]) -> Opened {
    let mut notes = Vec::new();
    // Without it nothing can be written, which each checkpoint will say.
    if let Err(error) = fs::create_dir_all(&dir) {
        notes.push(format!("the folder of the index cannot be made: {error}"));
    }
    let there = snapshot::generations(&dir).unwrap_or_else(|error| {
        notes.push(format!("the index cannot be listed: {error}"));
        Vec::new()
    });
    let newest = there.last().copied().unwrap_or(0);
    // It comes from a release that knows no snapshots: they are older than it.
    let old = dir.join(OLD_NAME).exists();
    for generation in there.iter().rev().filter(|_| !old) {
        match choose(&dir, *generation, &there, segments, &mut notes) {
            Ok((loaded, stale)) => return take(dir, loaded, stale, (segments, newest), notes),
            Err(why) => notes.push(format!("snapshot {generation:08} of the index: {why}")),
        }
    }
    if old {
        notes.push("the index is of an older release, and is made anew".to_string());
    }
    Opened {
        dir,
        table: Table::new(),
        tallies: BTreeMap::new(),
        totals: Totals::default(),
        commit: Commit::default(),
        file: None,
        generation: newest,
        kept: 0,
        reached: None,
        notes,
    }
}

/// Reads a snapshot, and says whether it may be older than the last checkpoint.
fn choose(
    dir: &Path,
    generation: u32,
    there: &[u32],
    segments: &[(u32, u64)],
    notes: &mut Vec<String>,
) -> Result<(Loaded, bool), String> {
    let mut loaded = snapshot::load(dir, generation)?;
    let position = loaded.commit.position;
    if !has(segments, position) {
        return Err(format!("it knows the log to {position:?}"));
    }
    let previous = loaded.commit.previous;
    let alone = previous > 0 && !there.contains(&previous);
    let stale = loaded.torn.is_some() || there.last() != Some(&generation) || alone;
    if let Some(why) = &loaded.torn {
        notes.push(format!("snapshot {generation:08} of the index: {why}; what is before is used"));
    }
    if !stale {
        return Ok((loaded, false));
    }
    let mut unknown = false;
    let dropped = loaded.table.retain(|entry| match entry.location {
        Location::Segment { segment, .. } => is_there(segments, segment),
        // The log has nothing of it, so it cannot be told whether it was deleted since.
        Location::File { segment: 0 } => {
            unknown = true;
            true
        }
        Location::File { segment } => is_there(segments, segment),
    });
    if unknown {
        return Err("it is stale and names files that the log does not".to_string());
    }
    if dropped > 0 {
        notes.push(format!("{dropped} entries of segments that are gone are dropped"));
    }
    Ok((loaded, true))
}

fn is_there(segments: &[(u32, u64)], segment: u32) -> bool {
    segments.binary_search_by_key(&segment, |(number, _)| *number).is_ok()
}

/// Whether the log has a position.
fn has(segments: &[(u32, u64)], position: Position) -> bool {
    let Position { segment, offset } = position;
    let found = segments.iter().find(|(number, _)| *number == segment);
    let aligned = offset.is_multiple_of(DISK_BLOCK_LEN as u64) && offset <= SEGMENT_LEN_MAX;
    position == Position::default() || (aligned && found.is_some_and(|(_, len)| offset <= *len))
}

fn take(
    dir: PathBuf,
    loaded: Loaded,
    stale: bool,
    (segments, newest): (&[(u32, u64)], u32),
    notes: Vec<String>,
) -> Opened {
    let Loaded { generation, table, commit, base_blocks, blocks, .. } = loaded;
    let mut tallies: BTreeMap<u32, Tally> = BTreeMap::new();
    for (segment, tombstones) in &commit.tombstones {
        if is_there(segments, *segment) {
            tallies.entry(*segment).or_default().tombstones = *tombstones;
        }
    }
    let mut totals = Totals::default();
    for entry in table.iter().filter_map(table::decode) {
        totals.add(&entry);
        let (segment, len) = entry.in_log();
        if segment > 0 {
            tallies.entry(segment).or_default().live += len;
        }
    }
    Opened {
        dir,
        table,
        tallies,
        totals,
        file: (!stale).then_some(Snapshot { generation, base_blocks, blocks }),
        generation: newest,
        kept: generation,
        reached: Some((commit.position, commit.sequence)),
        commit,
        notes,
    }
}
