//! How a partition gets from files on a disk to serving.
//!
//! One act is in progress at a time:
//!
//! ```text
//!  make folders ─► sweep tmp ─► list segments ─► open the index ─► walk the log ─► (list objects)
//!                                                                   per segment:        │
//!                                                                   open, scan…,        ▼
//!                                                                   cut if torn,     serving
//!                                                                   sync, close
//! ```
//!
//! With an index the log is walked from its position, and all data are hashed. Without one it is
//! walked from the start, by headers, and only what may be the torn last batch of a segment is
//! hashed. What was found whole is synced before it counts: it may have been written by a process
//! that was killed before its sync, and from now on it is answered for. The last segment is cut at
//! its end, and that synced, although nothing lies there: what was cut off must not come back.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    io,
    sync::{Arc, PoisonError},
};

use ron_codec::{address::Address, limits::DISK_BLOCK_LEN};
use ron_io::ports::{DiskDone, DiskOp, JobOutcome};

use super::{
    index::{Index, Of, OpenSlot, Position, open_job},
    layout::{hidden_mark, segment_number, upload_prefix},
    notes::Note,
    site::{Site, Tag},
};
use crate::{
    flow::{Cx, Waiter},
    limits,
    machine::Machine,
};

mod error;
mod failures;
mod hidden;
mod records;
mod step;
mod tail;
mod unnamed;
mod walk;

pub use error::BootError;
use error::Why;
use step::{After, Candidate, Step, scan};
pub(super) use step::{Progress, Recovered};

/// A partition that is not open yet.
#[derive(Debug)]
pub(super) struct Boot {
    site: Site,
    machine: Machine<Step>,
    slot: OpenSlot,
    index: Option<Index>,
    /// Numbers and lengths, rising.
    segments: Vec<(u32, u64)>,
    /// Which of the segments is walked next.
    next_segment: usize,
    rebuild: bool,
    /// The index knows all records up to this sequence; `None`: it may be an older one.
    saved: Option<u64>,
    /// Why there is a rebuild: the disk does not give the index.
    index_unread: bool,
    /// From where the log is walked, and in the end where it ends.
    position: Position,
    sequence: u64,
    /// The highest tombstone of each object that the walk met, and its segment.
    tombstones: HashMap<Address, (u64, u32)>,
    /// Those that an older record of their object follows in a later segment: it was moved there
    /// while the tombstone was hidden.
    overtaken: BTreeMap<Address, u64>,
    /// Files of objects that are deleted.
    unlinks: BTreeSet<Address>,
    /// The last segment with records of another partition.
    strangers_in: Option<u32>,
    /// The highest segment that the index names, and those that it expects more of than is there.
    highest: u32,
    lost: BTreeSet<u32>,
    /// How often the read at hand failed.
    scan_failures: u32,
    /// From where on the segment being walked may hold what is not durable.
    tail_from: u64,
    /// Whether part of the log is hidden by damage.
    has_holes: bool,
    /// Segments that are marked for that, with the sequence that nothing hidden is above, if it is
    /// known; those whose mark is still to be made, and could not be; and the mark that is to be
    /// removed.
    hidden: BTreeMap<u32, Option<u64>>,
    unmarked: Vec<u32>,
    owed_marks: Vec<u32>,
    unmark: Option<(u32, Option<u64>)>,
    found: u64,
    /// Which folder of object files is listed next.
    next_dir: u16,
    candidates: VecDeque<Candidate>,
}

impl Boot {
    /// Begins to open a partition.
    pub(super) fn start(site: Site, cx: &mut Cx<'_>) -> Boot {
        let machine = Machine::new("boot", make_dir(site, 0, cx));
        Boot {
            site,
            machine,
            slot: OpenSlot::default(),
            index: None,
            segments: Vec::new(),
            next_segment: 0,
            rebuild: false,
            saved: None,
            index_unread: false,
            position: Position::default(),
            sequence: 0,
            tombstones: HashMap::new(),
            overtaken: BTreeMap::new(),
            unlinks: BTreeSet::new(),
            strangers_in: None,
            highest: 0,
            lost: BTreeSet::new(),
            scan_failures: 0,
            tail_from: 0,
            has_holes: false,
            hidden: BTreeMap::new(),
            unmarked: Vec::new(),
            owed_marks: Vec::new(),
            unmark: None,
            found: 0,
            next_dir: 0,
            candidates: VecDeque::new(),
        }
    }

    /// The act in progress is complete.
    ///
    /// # Errors
    /// Why the partition cannot be opened. The boot is used no more.
    pub(super) fn on_disk(
        &mut self,
        done: io::Result<DiskDone>,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, BootError> {
        let step = self.machine.take(if done.is_ok() { "done" } else { "failed" });
        let next = match done {
            Ok(done) => self.on_done(step, done, cx),
            Err(error) => self.on_error(step, error, cx),
        };
        let why = match next {
            Ok(After::Wait(step)) => {
                self.machine.put(step);
                return Ok(Progress::Going);
            }
            Ok(After::Ready(recovered)) => {
                self.machine.end();
                return Ok(Progress::Ready(recovered));
            }
            Err(why) => why,
        };
        self.machine.end();
        Err(BootError { partition: self.site.number, why })
    }

    fn on_done(&mut self, step: Step, done: DiskDone, cx: &mut Cx<'_>) -> Result<After, Why> {
        match step {
            Step::MakeDirs(nth) => Ok(After::Wait(make_dir(self.site, nth + 1, cx))),
            Step::ListTmp => Ok(self.sweep_tmp(&done.into_listed(), cx)),
            Step::ListSegments => {
                self.take_segments(&done.into_listed());
                Ok(self.open_index(cx))
            }
            Step::OpenIndex => self.take_index(done.into_ran(), cx),
            Step::OpenSegment(file) => self.begin_walk(file, done.into_opened(), cx),
            Step::Scan(file, walk) => self.on_scanned(file, walk, &done.into_scanned(), cx),
            Step::ReadTail(tail) => self.write_tail(tail, done.into_scanned(), cx),
            Step::WriteTail(tail) => Ok(self.read_tail(tail, cx)),
            Step::Cut(file) => Ok(self.act(Step::Sync(file), DiskOp::Sync { file }, cx)),
            Step::Sync(file) => {
                cx.close_file(file);
                self.unmark_segment(cx)
            }
            Step::Mark(file, _) => {
                cx.close_file(file);
                self.walk_next_segment(cx)
            }
            Step::Unmark => self.walk_next_segment(cx),
            Step::ListObjects => {
                self.take_candidates(&done.into_listed(), cx);
                self.sync_candidates(cx)
            }
            Step::SyncObjects => {
                self.scan_failures = 0;
                self.next_candidate(cx)
            }
            Step::OpenObject(file, candidate) => {
                let op = scan(file, 0, DISK_BLOCK_LEN as u32);
                Ok(self.act(Step::ReadObject(file, candidate), op, cx))
            }
            Step::ReadObject(file, candidate) => {
                cx.close_file(file);
                self.on_header(candidate, &done.into_scanned(), cx)
            }
            Step::Unlink(_) => self.unlink_next(cx),
        }
    }

    /// Starts an act, and waits for it.
    fn act(&self, step: Step, op: DiskOp, cx: &mut Cx<'_>) -> After {
        self.site.disk(cx, Tag::Boot, op);
        After::Wait(step)
    }

    fn index(&mut self) -> &mut Index {
        self.index.as_mut().expect("the index is opened before the log is walked")
    }

    /// Removes uploads that an earlier process did not finish: their clients got no
    /// answer. Another shard of this process may have one in progress already.
    fn sweep_tmp(&self, names: &[(String, u64)], cx: &mut Cx<'_>) -> After {
        let dir = cx.config.layout.tmp_dir(self.site.number);
        let ours = upload_prefix(cx.config.boot_id);
        for (name, _) in names.iter().filter(|(name, _)| !name.starts_with(&ours)) {
            cx.disk(Waiter::Nobody, DiskOp::Remove { path: dir.join(name), durable: false });
        }
        let path = cx.config.layout.segments_dir(self.site.number);
        self.act(Step::ListSegments, DiskOp::List { path }, cx)
    }

    fn take_segments(&mut self, names: &[(String, u64)]) {
        let numbered =
            names.iter().filter_map(|(name, len)| segment_number(name).map(|n| (n, *len)));
        self.segments = numbered.collect();
        self.segments.sort_unstable();
        let there = |number: &u32| self.segments.iter().any(|(segment, _)| segment == number);
        let marks = names.iter().filter_map(|(name, _)| hidden_mark(name));
        self.hidden = marks.filter(|(segment, _)| there(segment)).collect();
    }

    fn open_index(&self, cx: &mut Cx<'_>) -> After {
        let dir = cx.config.layout.index_dir(self.site.number);
        let (partition, partitions) = (self.site.number, cx.config.layout.partitions);
        let of = Of { partition, partitions, segments: self.segments.clone() };
        let job = open_job(dir, of, Arc::clone(&self.slot));
        self.act(Step::OpenIndex, DiskOp::Run(job), cx)
    }

    fn take_index(&mut self, outcome: JobOutcome, cx: &mut Cx<'_>) -> Result<After, Why> {
        outcome.map_err(Why::IndexUnopened)?;
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let opened = slot.ok_or(Why::NoIndex)?;
        for finding in &opened.notes {
            self.site.note(cx, &Note::Index(finding));
        }
        for loss in &opened.losses {
            self.site.note(cx, &Note::IndexLoss(loss));
        }
        if let Some(owner) = opened.foreign {
            return Err(Why::OtherPartition { owner });
        }
        (self.position, self.sequence) = opened.reached.unwrap_or_default();
        let (segment, sequence) = opened.highest;
        (self.highest, self.sequence) = (segment, self.sequence.max(sequence));
        self.lost = opened.lost.clone();
        self.rebuild = opened.reached.is_none();
        self.saved = opened.saved;
        self.index_unread = opened.unread;
        if self.rebuild && !self.segments.is_empty() {
            let (segments, bytes) = (self.segments.len(), self.log_len());
            self.site.note(cx, &Note::Rebuilding { segments, bytes });
        }
        self.index = Some(Index::new(opened));
        self.walk_next_segment(cx)
    }

    fn log_len(&self) -> u64 {
        self.segments.iter().map(|(_, len)| *len).sum()
    }

    fn ready(&mut self, cx: &mut Cx<'_>) -> Result<After, Why> {
        let (sequence, next_segment) = (self.highest_sequence(), self.new_segment());
        if sequence > limits::SEQUENCE_MAX || next_segment > limits::FILE_NUMBER_MAX {
            // What is written behind it would not be found again.
            return Err(Why::BeyondAnyLog { segment: next_segment - 1, sequence });
        }
        if self.rebuild && self.found > 0 {
            self.site.note(cx, &Note::Rebuilt { records: self.found });
        }
        let index = self.index.take().expect("a boot ends once, with an index");
        let dirty = self.rebuild || index.changes() > 0 || index.wants_base();
        let position = self.position;
        let segments = self.segments.iter().copied().collect();
        let hidden = std::mem::take(&mut self.hidden).into_keys().collect();
        let lost = std::mem::take(&mut self.lost);
        Ok(After::Ready(Box::new(Recovered {
            index,
            position,
            sequence,
            next_segment,
            segments,
            lost,
            hidden,
            overtaken: std::mem::take(&mut self.overtaken),
            owed_marks: std::mem::take(&mut self.owed_marks),
            dirty,
        })))
    }
}

/// Makes a folder of the partition, or goes on behind the last of them.
fn make_dir(site: Site, nth: usize, cx: &mut Cx<'_>) -> Step {
    let (layout, number) = (&cx.config.layout, site.number);
    let partition = layout.partition_dir(number);
    let dirs = [layout.segments_dir(number), partition.join("objects"), layout.tmp_dir(number)];
    let (step, op) = match dirs.into_iter().nth(nth) {
        Some(path) => (Step::MakeDirs(nth), DiskOp::MakeDir { path }),
        None => (Step::ListTmp, DiskOp::List { path: layout.tmp_dir(number) }),
    };
    site.disk(cx, Tag::Boot, op);
    step
}
