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

use ron_codec::{
    address::Address,
    limits::{DISK_BLOCK_LEN, SEGMENT_LEN_MAX},
    record::RecordKind,
};
use ron_io::{
    limits::DISK_OP_LEN_MAX,
    ports::{DiskDone, DiskOp, FileId, OpenHow, Severity},
};

use super::{
    damage::{self, Harm},
    index::{Entry, Index, Location, Of, OpenSlot, Position, open_job},
    layout::{hidden_mark, segment_number, upload_prefix},
    scan::{Found, Next, Walk},
    site::{Site, Tag},
};
use crate::{flow::Cx, flow::Waiter, limits};

mod step;
mod tail;
mod unnamed;

use step::{Candidate, Step, Tail, scan, short};
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

    fn on_error(
        &mut self,
        step: Step,
        error: &io::Error,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, String> {
        match step {
            Step::Scan(file, walk) => return self.unread(file, walk, error, cx),
            Step::OpenObject(file, candidate) => {
                cx.tickets.forget_file(file);
                return self.unread_object(candidate, error, cx);
            }
            Step::ReadObject(file, candidate) => {
                cx.close_file(file);
                return self.unread_object(candidate, error, cx);
            }
            Step::WriteTail(tail) => return self.tail_failed(tail, error, cx),
            Step::OpenSegment(file) => cx.tickets.forget_file(file),
            // What is there is not known: it may be another time.
            Step::ListObjects => self.unreadable = true,
            Step::Cut(file) | Step::Sync(file) => cx.close_file(file),
            Step::ReadTail(tail) => {
                self.unreadable = true;
                cx.close_file(tail.file);
            }
            _ => {}
        }
        Err(self.failed(&step, &error.to_string()))
    }

    fn on_scanned(
        &mut self,
        file: FileId,
        mut walk: Walk,
        bytes: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<Progress, String> {
        let (found, expected) = (bytes.len() as u64, walk.expected());
        if found < expected {
            // It is no end of the log: cutting it there would lose what was acknowledged.
            return self.unread(file, walk, &short(found, expected), cx);
        }
        self.scan_failures = 0;
        match walk.feed(bytes) {
            Ok(next) => self.on_walked(file, walk, next, cx),
            Err(version) => {
                cx.close_file(file);
                Err(self.too_new(version))
            }
        }
    }

    /// After a failure: whether the node can go on without the partition. It must not when a newer
    /// program wrote the log, and with one volume only when nothing but a part of the log is lost,
    /// or all of it is of another partition.
    pub(super) fn may_be_absent(&self, cx: &Cx<'_>) -> bool {
        (cx.config.layout.volumes.len() > 1 || self.unreadable || self.foreign) && !self.newer
    }

    /// The disk does not give a piece of the log. With an index it may be about what was
    /// acknowledged since the last checkpoint, so the partition does not open, and neither if the
    /// disk gives nothing of the index: both may be there another time. In a rebuild, which
    /// is the only way back, the segment ends there: nothing is cut, and what lies behind is not
    /// known until another rebuild can read it.
    fn unread(
        &mut self,
        file: FileId,
        walk: Walk,
        error: &io::Error,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, String> {
        self.scan_failures += 1;
        if self.scan_failures < limits::BOOT_SCAN_TRIES {
            let next = walk.start();
            return self.on_walked(file, walk, next, cx);
        }
        if !self.rebuild || self.index_unread {
            self.unreadable = true;
            cx.close_file(file);
            return Err(self.failed(&Step::Scan(file, walk), &error.to_string()));
        }
        self.scan_failures = 0;
        let (segment, _) = self.segment();
        let (_, len) = self.segments[self.next_segment - 1];
        self.hide(segment);
        // The rest is behind the position, not before it: a boot with the index must not read it.
        let offset = len - len % DISK_BLOCK_LEN as u64;
        self.position = Position { segment, offset };
        let text = format!("segment {segment} cannot be read from {} on: {error}", walk.at());
        self.site.note(cx, Severity::Error, &text);
        self.act(Step::Sync(file), DiskOp::Sync { file }, cx);
        Ok(Progress::Going)
    }

    /// Goes on after an error that is no reason not to open.
    fn pass_over(
        &mut self,
        step: &Step,
        error: &io::Error,
        cx: &mut Cx<'_>,
    ) -> Option<Result<Progress, String>> {
        match step {
            Step::ListObjects if error.kind() == io::ErrorKind::NotFound => {
                Some(self.next_objects_dir(cx))
            }
            Step::ListObjects if error.kind() == io::ErrorKind::NotADirectory => {
                let text = format!("objects/{:02x} is no folder", self.next_dir - 1);
                self.site.note(cx, Severity::Error, &text);
                Some(self.next_objects_dir(cx))
            }
            Step::SyncObjects => Some(self.unsynced_candidates(error, cx)),
            // The object is gone all the same; its file takes space and nothing else.
            Step::Unlink(address) => {
                let text =
                    format!("the file of {address}, which is deleted, cannot be removed: {error}");
                self.site.note(cx, Severity::Warn, &text);
                Some(self.unlink_next(cx))
            }
            // The partition tries again, and makes no checkpoint before.
            Step::Mark(file, segment) => {
                cx.tickets.forget_file(*file);
                self.owed_marks.push(*segment);
                let text =
                    format!("segment {segment}, which is damaged, cannot be marked: {error}");
                self.site.note(cx, Severity::Warn, &text);
                Some(self.walk_next_segment(cx))
            }
            Step::Unmark => {
                let text = format!("the mark of a segment cannot be removed: {error}");
                self.site.note(cx, Severity::Warn, &text);
                Some(self.walk_next_segment(cx))
            }
            _ => None,
        }
    }

    /// Records of a segment are not known that may have been acknowledged. It is marked, so that it
    /// is never removed because nothing known is left in it.
    fn hide(&mut self, segment: u32) {
        self.has_holes = true;
        let Boot { hidden, unmarked, .. } = self;
        hidden.entry(segment).or_insert_with(|| {
            unmarked.push(segment);
            None
        });
    }

    /// Whether nothing that is hidden can have come after what has this sequence.
    fn is_behind_all_hidden(&self, sequence: u64) -> bool {
        let is_behind = |most: &Option<u64>| most.is_some_and(|most| most < sequence);
        self.hidden.values().all(is_behind)
    }

    /// The highest sequence that may have been used. What comes now counts before what is hidden:
    /// no record of an earlier segment has a sequence from that of the next segment on.
    fn highest_sequence(&self) -> u64 {
        let marked = self.hidden.values().flatten().copied().max().unwrap_or(0);
        let known = self.sequence.max(marked);
        match self.has_holes || !self.lost.is_empty() {
            true => known.max(u64::from(self.new_segment()) * limits::SEGMENT_SEQUENCES),
            false => known,
        }
    }

    /// The number of the segment in which writing goes on: above that of any that there was.
    fn new_segment(&self) -> u32 {
        let last = self.segments.last().map_or(0, |(number, _)| *number);
        last.max(self.highest).max(self.position.segment) + 1
    }

    /// Removes the mark of the segment that was walked, if need be, and goes on.
    fn unmark_segment(&mut self, cx: &mut Cx<'_>) -> Result<Progress, String> {
        let Some(mark) = self.unmark.take() else { return self.walk_next_segment(cx) };
        let path = cx.config.layout.hidden_path(self.site.number, mark);
        self.act(Step::Unmark, DiskOp::Remove { path, durable: true }, cx);
        Ok(Progress::Going)
    }

    fn act(&mut self, step: Step, op: DiskOp, cx: &mut Cx<'_>) {
        self.step = step;
        self.site.disk(cx, Tag::Boot, op);
    }

    fn failed(&self, step: &Step, error: &str) -> String {
        let doing = match step {
            Step::MakeDirs(_) => "making its folders",
            Step::ListTmp | Step::ListSegments | Step::ListObjects => "listing its folders",
            Step::OpenIndex => "opening its index",
            Step::OpenSegment(_) | Step::Scan(..) => "reading its log",
            Step::ReadTail(_) => "reading its log",
            Step::WriteTail(_) | Step::Cut(_) | Step::Sync(_) => "syncing its log",
            Step::Mark(..) | Step::Unmark => "marking damage in its log",
            Step::SyncObjects | Step::OpenObject(..) | Step::ReadObject(..) => {
                "reading its object files"
            }
            Step::Unlink(_) => "removing deleted files",
            Step::Over => "booting",
        };
        format!("partition {}: {doing}: {error}", self.site.number)
    }

    fn too_new(&mut self, version: u16) -> String {
        self.newer = true;
        let number = self.site.number;
        format!("partition {number}: its log has records of version {version}, from a newer ron")
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

    fn take_index(
        &mut self,
        outcome: Result<(), String>,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, String> {
        outcome.map_err(|error| self.failed(&Step::OpenIndex, &error))?;
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let opened = slot.ok_or_else(|| self.failed(&Step::OpenIndex, "it was not opened"))?;
        for note in &opened.notes {
            self.site.note(cx, Severity::Warn, note);
        }
        for loss in &opened.losses {
            self.site.note(cx, Severity::Error, loss);
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
            let (count, len) = (self.segments.len(), self.log_len());
            let text = format!("rebuilding the index from {count} segments, {len} bytes");
            self.site.note(cx, Severity::Warn, &text);
        }
        self.index = Some(Index::new(opened));
        self.walk_next_segment(cx)
    }

    fn log_len(&self) -> u64 {
        self.segments.iter().map(|(_, len)| *len).sum()
    }

    fn walk_next_segment(&mut self, cx: &mut Cx<'_>) -> Result<Progress, String> {
        while let Some((number, len)) = self.segments.get(self.next_segment).copied() {
            self.next_segment += 1;
            // The last may have been cut, and the cut not synced, by a process that ended so.
            let is_last = self.next_segment == self.segments.len();
            if self.is_known(number, len) && !is_last {
                continue;
            }
            let file = cx.tickets.file();
            let path = cx.config.layout.segment_path(self.site.number, number);
            let op = DiskOp::Open { file, path, how: OpenHow::ReadWrite };
            self.act(Step::OpenSegment(file), op, cx);
            return Ok(Progress::Going);
        }
        if let Some(segment) = self.unmarked.pop() {
            let (file, most) = (cx.tickets.file(), self.highest_sequence());
            let path = cx.config.layout.hidden_path(self.site.number, (segment, Some(most)));
            let op = DiskOp::Open { file, path, how: OpenHow::CreateNew };
            self.act(Step::Mark(file, segment), op, cx);
            return Ok(Progress::Going);
        }
        if self.rebuild { self.next_objects_dir(cx) } else { self.unlink_next(cx) }
    }

    /// Whether nothing is to be learnt from a segment of this length.
    fn is_known(&self, segment: u32, len: u64) -> bool {
        len == 0 || Position { segment, offset: len.min(SEGMENT_LEN_MAX) } <= self.position
    }

    /// The segment being walked: its number, and whether it is the last.
    fn segment(&self) -> (u32, bool) {
        let (number, _) = self.segments[self.next_segment - 1];
        (number, self.next_segment == self.segments.len())
    }

    fn begin_walk(&mut self, file: FileId, len: u64, cx: &mut Cx<'_>) -> Result<Progress, String> {
        let (segment, _) = self.segment();
        if self.is_known(segment, len) {
            // It is cut again: after a sync that failed, another may write nothing.
            self.act(Step::Cut(file), DiskOp::Truncate { file, len }, cx);
            return Ok(Progress::Going);
        }
        if len > SEGMENT_LEN_MAX {
            return Ok(self.pass_by(file, segment, len, cx));
        }
        let known = segment == self.position.segment;
        let at = if known { self.position.offset } else { 0 };
        // A batch is never longer than this, so only so much can be torn.
        let last_batch = len.saturating_sub(DISK_OP_LEN_MAX as u64);
        let verify_from = if self.rebuild { last_batch } else { at };
        self.report_progress(cx);
        self.tail_from = at.max(last_batch) / DISK_BLOCK_LEN as u64 * DISK_BLOCK_LEN as u64;
        let walk = Walk::new(at, len, verify_from);
        let next = walk.start();
        self.on_walked(file, walk, next, cx)
    }

    /// A segment is longer than any is made. It stays as it is, and none of it is taken up.
    fn pass_by(&mut self, file: FileId, segment: u32, len: u64, cx: &mut Cx<'_>) -> Progress {
        self.hide(segment);
        // No index may say that it knows the log to a place where no log goes.
        self.position = Position { segment, offset: SEGMENT_LEN_MAX };
        let text = format!(
            "segment {segment} has {len} bytes of at most {SEGMENT_LEN_MAX}: it is damaged, and \
             its records are not known"
        );
        self.site.note(cx, Severity::Error, &text);
        self.act(Step::Sync(file), DiskOp::Sync { file }, cx);
        Progress::Going
    }

    fn on_walked(
        &mut self,
        file: FileId,
        mut walk: Walk,
        next: Next,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, String> {
        let (segment, last) = self.segment();
        for found in walk.take() {
            self.take_record(segment, &found, cx);
        }
        match next {
            Next::Read { at, len } => {
                self.act(Step::Scan(file, walk), scan(file, at, len), cx);
            }
            Next::End { end, torn } => {
                let (_, len) = self.segments[self.next_segment - 1];
                // Only the last batch of the last segment can be torn by a crash. Anything else was
                // synced and is damage: what lies behind it may have been acknowledged, and is left
                // for who finds out what happened to it.
                let is_torn = last && len.saturating_sub(end) <= DISK_OP_LEN_MAX as u64;
                self.position = Position { segment, offset: end };
                match torn {
                    None => {
                        // All of it was read: nothing is hidden any more.
                        let kept = self.strangers_in == Some(segment);
                        if self.rebuild && !kept {
                            let mark = self.hidden.remove(&segment);
                            self.unmark = mark.map(|most| (segment, most));
                        }
                        let at = if last { self.tail_from } else { end };
                        self.read_tail(Tail { file, at, end, cut: last }, cx);
                    }
                    Some(why) if is_torn => {
                        let text = format!("segment {segment} ends at {end}: {why}");
                        self.site.note(cx, Severity::Warn, &text);
                        self.segments[self.next_segment - 1].1 = end;
                        self.read_tail(Tail { file, at: self.tail_from, end, cut: true }, cx);
                    }
                    Some(why) => {
                        self.hide(segment);
                        // The next boot with the index need not find it again.
                        let offset = len - len % DISK_BLOCK_LEN as u64;
                        self.position = Position { segment, offset };
                        cx.stats.integrity_fail.add(1);
                        let hidden = len - end;
                        let text = format!(
                            "segment {segment} is damaged at {end}: {why}; the {hidden} bytes \
                             behind that are not known"
                        );
                        self.site.note(cx, Severity::Error, &text);
                        self.act(Step::Sync(file), DiskOp::Sync { file }, cx);
                    }
                }
            }
        }
        Ok(Progress::Going)
    }

    fn take_record(&mut self, segment: u32, found: &Found, cx: &mut Cx<'_>) {
        let Found { kind, digest, size, sequence, offset, damaged, .. } = *found;
        self.sequence = self.sequence.max(sequence);
        let owner = cx.config.layout.owner(&digest).0;
        if kind != RecordKind::Pad && owner != self.site.number {
            return self.pass_stranger(segment, owner, cx);
        }
        let location = match kind {
            RecordKind::Pad => return,
            RecordKind::Tombstone => return self.take_tombstone(segment, digest, sequence, cx),
            RecordKind::File => Location::File { segment },
            RecordKind::Object => {
                let offset = u32::try_from(offset).expect("a segment's offsets fit 32 bits");
                Location::Segment { segment, offset }
            }
        };
        // A record that was moved lies behind what came after it.
        if let Some((deleted, its)) = self.tombstones.get(&digest).copied()
            && deleted > sequence
        {
            if its < segment {
                self.overtaken.insert(digest, deleted);
            }
            return;
        }
        let known = self.index().get(&digest);
        let is_old = match known {
            Some(known) => known.sequence > sequence,
            // A copy of a record that was deleted before the last checkpoint.
            None => self.saved.is_some_and(|saved| sequence <= saved),
        };
        if is_old {
            return;
        }
        if damaged {
            cx.stats.integrity_fail.add(1);
            let text = format!("{digest} is damaged in segment {segment} at {offset}");
            self.site.note(cx, Severity::Error, &text);
            // An older copy is better than none that is whole.
            if known.is_some() {
                return;
            }
            damage::report(&digest, Harm::Data, "its record in the log", cx);
        } else {
            damage::healed(&digest, cx);
        }
        self.found += 1;
        self.unlinks.remove(&digest);
        self.index().insert(digest, Entry { location, size, sequence });
    }

    /// A record is another partition's, as in a folder that has another's name. It is not taken up,
    /// and its segment is kept.
    fn pass_stranger(&mut self, segment: u32, owner: u16, cx: &mut Cx<'_>) {
        if self.strangers_in.replace(segment).is_none() {
            let text = format!(
                "segment {segment} has records of partition {owner}, which are not taken up; are \
                 two folders swapped?"
            );
            self.site.note(cx, Severity::Error, &text);
        }
        self.hide(segment);
    }

    fn take_tombstone(&mut self, segment: u32, digest: Address, sequence: u64, cx: &mut Cx<'_>) {
        self.index().bury(segment);
        let before = self.tombstones.entry(digest).or_default();
        if sequence >= before.0 {
            *before = (sequence, segment);
            self.overtaken.remove(&digest);
        }
        let saved = self.saved;
        match self.index().get(&digest) {
            // It was moved, and the index knew it when it took the object up by the name of its
            // file: a record may be hidden that came behind the tombstone.
            Some(Entry { location: Location::File { segment: 0 }, .. })
                if saved.is_some_and(|saved| sequence <= saved) => {}
            Some(known) if known.sequence < sequence => {
                if matches!(known.location, Location::File { .. }) {
                    self.unlinks.insert(digest);
                }
                self.index().remove(digest);
                damage::healed(&digest, cx);
            }
            _ => {}
        }
    }

    /// Removes the file of an object that was deleted before the last end, or ends the boot.
    fn unlink_next(&mut self, cx: &mut Cx<'_>) -> Result<Progress, String> {
        // What is hidden may be that such an object was stored again: its file is better kept.
        let address = loop {
            let Some(address) = self.unlinks.pop_first() else { return self.ready(cx) };
            let deleted = self.tombstones.get(&address);
            if deleted.is_some_and(|(sequence, _)| self.is_behind_all_hidden(*sequence)) {
                break address;
            }
        };
        let path = cx.config.layout.object_path(self.site.number, &address);
        self.act(Step::Unlink(address), DiskOp::Remove { path, durable: true }, cx);
        Ok(Progress::Going)
    }

    fn report_progress(&self, cx: &mut Cx<'_>) {
        let (done, all) = (self.next_segment - 1, self.segments.len());
        let tenth = |nth: usize| nth * 10 / all;
        if self.rebuild && done > 0 && tenth(done) > tenth(done - 1) {
            let text = format!("{done} of {all} segments, {} records", self.found);
            self.site.note(cx, Severity::Info, &text);
        }
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
            let text = format!("the index is rebuilt, {} records", self.found);
            self.site.note(cx, Severity::Info, &text);
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
