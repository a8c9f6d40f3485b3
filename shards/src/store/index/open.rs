//! Opening the index: the newest snapshot that is whole, or none.
//!
//! What does not match its checksums is not believed: then an older snapshot is used, or an append
//! less of the same, with the log behind its position. Such a state is *stale*: segments may have
//! been removed since. A segment goes only when nothing that is there lies in it any more, so what
//! a stale snapshot places in a segment that is gone was deleted or has another place, which the
//! log behind the position tells, and is dropped.
//!
//! A frame is committed only when the log before its position was synced. So a log that is shorter
//! than a whole snapshot says is damaged, and the snapshot is not old: it is believed, because the
//! log can no longer tell what was stored and deleted in the part that is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use ron_io::ports::Job;

use super::{
    entry::{Location, Position, Tally, Totals},
    findings::{Finding, Loss},
    snapshot::{self, Commit, Loaded, Snapshot, Unusable},
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
    /// All records up to this sequence are known; `None`: it may be an older snapshot.
    pub(in crate::store) saved: Option<u64>,
    /// The highest segment and sequence that it names: neither is used again.
    pub(in crate::store) highest: (u32, u64),
    /// Segments that are shorter than what it places in them, or are not there.
    pub(in crate::store) lost: BTreeSet<u32>,
    /// All it names is of other partitions, of this one for instance.
    pub(in crate::store) foreign: Option<u16>,
    /// No snapshot can be used, and one that is there cannot be read: it may be another time.
    pub(in crate::store) unread: bool,
    /// What was found to be damaged, for the operator, and what of that is lost.
    pub(in crate::store) notes: Vec<Finding>,
    pub(in crate::store) losses: Vec<Loss>,
}

/// Whose index is opened: the number of a partition, how many there are, and the numbers and
/// lengths of its segments.
#[derive(Clone, Debug)]
pub(in crate::store) struct Of {
    pub(in crate::store) partition: u16,
    pub(in crate::store) partitions: u16,
    pub(in crate::store) segments: Vec<(u32, u64)>,
}

/// Where a job on another thread leaves what it opened.
pub(in crate::store) type Slot = Arc<Mutex<Option<Opened>>>;

/// The job that opens the index in `dir` and leaves it in `slot`.
pub(in crate::store) fn open_job(dir: PathBuf, of: Of, slot: Slot) -> Job {
    Box::new(move || {
        let opened = open(dir, &of);
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        Ok(())
    })
}

fn open(dir: PathBuf, of: &Of) -> Opened {
    let (mut notes, mut unread) = (Vec::new(), false);
    // Without it nothing can be written, which each checkpoint will say.
    if let Err(error) = fs::create_dir_all(&dir) {
        notes.push(Finding::FolderNotMade(error));
    }
    if let Err(error) = snapshot::sweep(&dir) {
        notes.push(Finding::PartNotRemoved(error));
    }
    let there = snapshot::generations(&dir).unwrap_or_else(|error| {
        notes.push(Finding::Unlisted(error));
        unread = true;
        Vec::new()
    });
    let newest = there.last().copied().unwrap_or(0);
    // It comes from a release that knows no snapshots: they are older than it.
    let old = dir.join(OLD_NAME).exists();
    for generation in there.iter().rev().filter(|_| !old) {
        match choose(&dir, *generation, &there, &of.segments, &mut notes) {
            Ok((loaded, stale)) => {
                // A process that was killed may have given it its name and not made that durable.
                if let Err(error) = fs::File::open(&dir).and_then(|folder| folder.sync_all()) {
                    notes.push(Finding::FolderNotSynced(error));
                }
                return take(dir, loaded, stale, (of, newest), notes);
            }
            Err(why) => {
                unread |= matches!(why, Unusable::Unread(_));
                notes.push(Finding::Unusable { generation: *generation, why });
            }
        }
    }
    if old {
        notes.push(Finding::OlderRelease);
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
        saved: None,
        highest: (0, 0),
        lost: BTreeSet::new(),
        foreign: None,
        unread,
        notes,
        losses: Vec::new(),
    }
}

/// Reads a snapshot, and says whether it may be older than the last checkpoint.
fn choose(
    dir: &Path,
    generation: u32,
    there: &[u32],
    segments: &[(u32, u64)],
    notes: &mut Vec<Finding>,
) -> Result<(Loaded, bool), Unusable> {
    let mut loaded = snapshot::load(dir, generation)?;
    let position = loaded.commit.position;
    let segment = position.segment;
    if !position.is_in_a_log() {
        return Err(Unusable::Reaches(position));
    }
    let previous = loaded.commit.previous;
    let alone = previous > 0 && !there.contains(&previous);
    let stale = loaded.torn.is_some() || there.last() != Some(&generation) || alone;
    if let Some(why) = loaded.torn.take() {
        notes.push(Finding::Torn { generation, why });
    }
    if !stale {
        return Ok((loaded, false));
    }
    // It may have been compacted away since, with the tombstones that were behind the position.
    if segment > 0 && !is_there(segments, segment) {
        return Err(Unusable::StaleReaches(position));
    }
    let mut unknown = false;
    let dropped = loaded.table.retain(|entry| match entry.location {
        Location::Segment { segment, .. } => is_there(segments, segment),
        // The log has nothing of it, so nobody knows whether it was deleted since.
        Location::File { segment: 0 } => {
            unknown = true;
            true
        }
        Location::File { segment } => is_there(segments, segment),
    });
    if unknown {
        return Err(Unusable::StaleFiles);
    }
    if dropped > 0 {
        notes.push(Finding::Dropped { entries: dropped });
    }
    Ok((loaded, true))
}

fn is_there(segments: &[(u32, u64)], segment: u32) -> bool {
    segments.binary_search_by_key(&segment, |(number, _)| *number).is_ok()
}

/// What of the log is not there any more, segment by segment.
#[derive(Debug, Default)]
struct Lost {
    /// Up to where a segment was known, and how many objects were in what is lost of it.
    segments: BTreeMap<u32, (u64, u64)>,
}

impl Lost {
    /// Something in a segment ends at `end`; `objects` of them can no longer be read without it.
    fn look(&mut self, segments: &[(u32, u64)], segment: u32, end: u64, objects: u64) {
        if segment == 0 || len_of(segments, segment).is_some_and(|len| end <= len) {
            return;
        }
        let lost = self.segments.entry(segment).or_default();
        *lost = (lost.0.max(end), lost.1 + objects);
    }

    fn losses(&self, segments: &[(u32, u64)]) -> Vec<Loss> {
        let loss = |(segment, (synced_to, objects)): (&u32, &(u64, u64))| {
            let len = len_of(segments, *segment);
            Loss::Segment { segment: *segment, len, synced_to: *synced_to, objects: *objects }
        };
        self.segments.iter().map(loss).collect()
    }
}

fn len_of(segments: &[(u32, u64)], segment: u32) -> Option<u64> {
    let at = segments.binary_search_by_key(&segment, |(number, _)| *number).ok()?;
    Some(segments[at].1)
}

fn take(
    dir: PathBuf,
    loaded: Loaded,
    stale: bool,
    (of, newest): (&Of, u32),
    notes: Vec<Finding>,
) -> Opened {
    let segments = &of.segments;
    let Loaded { generation, table, commit, base_blocks, blocks, .. } = loaded;
    let mut tallies: BTreeMap<u32, Tally> = BTreeMap::new();
    for (segment, tombstones) in &commit.tombstones {
        if is_there(segments, *segment) {
            tallies.entry(*segment).or_default().tombstones = *tombstones;
        }
    }
    let mut totals = Totals::default();
    let Position { segment, offset } = commit.position;
    let (mut lost, mut highest) = (Lost::default(), (segment, commit.sequence));
    lost.look(segments, segment, offset, 0);
    let (mut strangers, mut stranger) = (0, None);
    for slot in table.iter() {
        let Some(entry) = table::decode(slot) else { continue };
        totals.add(&entry);
        let owner = table::address(slot).partition(of.partitions);
        if owner != of.partition {
            (strangers, stranger) = (strangers + 1, Some(owner));
        }
        let (segment, len) = entry.in_log();
        highest = (highest.0.max(segment), highest.1.max(entry.sequence));
        if segment > 0 {
            tallies.entry(segment).or_default().live += len;
            let own_file = matches!(entry.location, Location::File { .. });
            lost.look(segments, segment, entry.base() + len, u64::from(!own_file));
        }
    }
    let mut losses = lost.losses(segments);
    if let Some(owner) = stranger {
        losses.push(Loss::Strangers { objects: strangers, owner });
    }
    Opened {
        dir,
        table,
        tallies,
        file: (!stale).then_some(Snapshot { generation, base_blocks, blocks }),
        generation: newest,
        kept: generation,
        reached: Some((commit.position, commit.sequence)),
        saved: (!stale).then_some(commit.sequence),
        highest,
        lost: lost.segments.into_keys().collect(),
        foreign: stranger.filter(|_| strangers == totals.objects),
        totals,
        commit,
        notes,
        unread: false,
        losses,
    }
}
