//! How a partition gets from files on a disk to serving.
//!
//! One act is under way at a time:
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
use crate::{flow::Cx, flow::Waiter, limits};

mod failures;
mod hidden;
mod records;
mod step;
mod tail;
mod unnamed;
mod walk;

use step::{Candidate, Step, scan};
pub(super) use step::{Progress, Recovered};

/// A partition that is not open yet.
#[derive(Debug)]
pub(super) struct Boot {
    site: Site,
    step: Step,
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
    /// Whether the log has records of a newer program.
    newer: bool,
    /// Whether the disk does not give part of the log.
    unreadable: bool,
    /// Whether all of it is another partition's, and the last segment with records of one.
    foreign: bool,
    strangers_in: Option<u32>,
    /// The highest segment that the index names, and those of which it names more than is there.
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
        let mut boot = Boot {
            site,
            step: Step::Over,
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
            newer: false,
            unreadable: false,
            foreign: false,
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
        };
        boot.make_dir(0, cx);
        boot
    }

    /// The act under way is complete.
    ///
    /// # Errors
    /// Why the partition cannot be opened, in words.
    pub(super) fn on_disk(
        &mut self,
        done: io::Result<DiskDone>,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, String> {
        let step = std::mem::replace(&mut self.step, Step::Over);
        if let Err(error) = &done
            && let Some(progress) = self.pass_over(&step, error, cx)
        {
            return progress;
        }
        let done = match done {
            Ok(done) => done,
            Err(error) => return self.on_error(step, &error, cx),
        };
        match (step, done) {
            (Step::MakeDirs(nth), _) => self.make_dir(nth + 1, cx),
            (Step::ListTmp, DiskDone::Listed(names)) => self.sweep_tmp(&names, cx),
            (Step::ListSegments, DiskDone::Listed(names)) => {
                self.take_segments(&names);
                self.open_index(cx);
            }
            (Step::OpenIndex, DiskDone::Ran(outcome)) => return self.take_index(outcome, cx),
            (Step::OpenSegment(file), DiskDone::Opened { len }) => {
                return self.begin_walk(file, len, cx);
            }
            (Step::Scan(file, walk), DiskDone::Scanned(bytes)) => {
                return self.on_scanned(file, walk, &bytes, cx);
            }
            (Step::ReadTail(tail), DiskDone::Scanned(bytes)) => {
                return self.write_tail(tail, bytes, cx);
            }
            (Step::WriteTail(tail), _) => self.read_tail(tail, cx),
            (Step::Cut(file), _) => self.act(Step::Sync(file), DiskOp::Sync { file }, cx),
            (Step::Sync(file), _) => {
                cx.close_file(file);
                return self.unmark_segment(cx);
            }
            (Step::Mark(file, _), _) => {
                cx.close_file(file);
                return self.walk_next_segment(cx);
            }
            (Step::Unmark, _) => return self.walk_next_segment(cx),
            (Step::Unlink(_), _) => return self.unlink_next(cx),
            (Step::ListObjects, DiskDone::Listed(names)) => {
                self.take_candidates(&names, cx);
                return self.sync_candidates(cx);
            }
            (Step::SyncObjects, _) => {
                self.scan_failures = 0;
                return self.next_candidate(cx);
            }
            (Step::OpenObject(file, candidate), _) => {
                let op = scan(file, 0, DISK_BLOCK_LEN as u32);
                self.act(Step::ReadObject(file, candidate), op, cx);
            }
            (Step::ReadObject(file, candidate), DiskDone::Scanned(bytes)) => {
                cx.close_file(file);
                return self.on_header(candidate, &bytes, cx);
            }
            (step, done) => unreachable!("{done:?} in answer to {step:?}"),
        }
        Ok(Progress::Going)
    }

    fn act(&mut self, step: Step, op: DiskOp, cx: &mut Cx<'_>) {
        self.step = step;
        self.site.disk(cx, Tag::Boot, op);
    }

    fn index(&mut self) -> &mut Index {
        self.index.as_mut().expect("the index is opened before the log is walked")
    }

    fn make_dir(&mut self, nth: usize, cx: &mut Cx<'_>) {
        let (layout, number) = (&cx.config.layout, self.site.number);
        let partition = layout.partition_dir(number);
        let dirs = [layout.segments_dir(number), partition.join("objects"), layout.tmp_dir(number)];
        match dirs.into_iter().nth(nth) {
            Some(path) => self.act(Step::MakeDirs(nth), DiskOp::MakeDir { path }, cx),
            None => {
                let path = layout.tmp_dir(number);
                self.act(Step::ListTmp, DiskOp::List { path }, cx);
            }
        }
    }

    /// Removes uploads that an earlier process did not finish: who brought them was never told
    /// anything. Another shard of this process may have one under way already.
    fn sweep_tmp(&mut self, names: &[(String, u64)], cx: &mut Cx<'_>) {
        let dir = cx.config.layout.tmp_dir(self.site.number);
        let ours = upload_prefix(cx.config.boot_id);
        for (name, _) in names.iter().filter(|(name, _)| !name.starts_with(&ours)) {
            cx.disk(Waiter::Nobody, DiskOp::Remove { path: dir.join(name), durable: false });
        }
        let path = cx.config.layout.segments_dir(self.site.number);
        self.act(Step::ListSegments, DiskOp::List { path }, cx);
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

    fn open_index(&mut self, cx: &mut Cx<'_>) {
        let dir = cx.config.layout.index_dir(self.site.number);
        let (partition, partitions) = (self.site.number, cx.config.layout.partitions);
        let of = Of { partition, partitions, segments: self.segments.clone() };
        let job = open_job(dir, of, Arc::clone(&self.slot));
        self.act(Step::OpenIndex, DiskOp::Run(job), cx);
    }

    fn take_index(&mut self, outcome: JobOutcome, cx: &mut Cx<'_>) -> Result<Progress, String> {
        outcome.map_err(|error| self.failed(&Step::OpenIndex, &error.to_string()))?;
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let opened = slot.ok_or_else(|| self.failed(&Step::OpenIndex, "it was not opened"))?;
        for finding in &opened.notes {
            self.site.note(cx, &Note::Index(finding));
        }
        for loss in &opened.losses {
            self.site.note(cx, &Note::IndexLoss(loss));
        }
        if let Some(owner) = opened.foreign {
            self.foreign = true;
            let text = format!("it is of partition {owner}; are two folders swapped?");
            return Err(self.failed(&Step::OpenIndex, &text));
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

    fn ready(&mut self, cx: &mut Cx<'_>) -> Result<Progress, String> {
        let (sequence, next_segment) = (self.highest_sequence(), self.new_segment());
        if sequence > limits::SEQUENCE_MAX || next_segment > limits::FILE_NUMBER_MAX {
            // What is written behind it would not be found again.
            self.foreign = true;
            let what = format!("it names segment {} and sequence {sequence}", next_segment - 1);
            let number = self.site.number;
            return Err(format!("partition {number}: {what}, which no log reaches: it is damaged"));
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
        Ok(Progress::Ready(Box::new(Recovered {
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
