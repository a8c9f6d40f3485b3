//! One round of the scrub through one partition: the folders of files, all segments, then all that
//! the index knows.
//!
//! ```text
//!   Searching ⇄ Looking                          folders, for files that the index does not know
//!      ▼
//!   Between ──► Opening ──► Sweeping ⇄ Reading        each segment, as far as it was committed
//!      ▲                        │                     when the round came here
//!      └────────────────────────┘ its end, or where it is broken
//!      │ no more segments
//!      ▼
//!   Paging: object files, and what lies in segments behind where they are broken
//!      ▼
//!   Freeing: files that neither the index nor the log knows ──► Over
//! ```
//!
//! What is suspect, a file of its own, or behind a broken header, is probed: read anew, one object
//! at a time, with a fresh look at the index. The verdict decides: data that are wrong are
//! reported; what is wrong beside data that are right is mended; a record that a rebuild of the
//! index would not find is written anew at the end of the log.
//!
//! At most one act is under way, and a step starts one or does a bounded piece of work.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
};

use ron_codec::{address::Address, record::RecordHeader};
use ron_io::ports::{DiskDone, DiskOp, FileId, OpenHow, Severity, Urgency};

use super::{
    Parts,
    check::Window,
    finding::{Found, report_damage},
    mark::Reached,
    mend::Mend,
    probe::{Probe, Repair, Verdict},
    sweep::{End, Met, Next, Orphans, Sweep},
};
use crate::{
    flow::{Cx, Fault},
    limits::{SCRUB_FAILURES_MAX, SCRUB_PAGE_ENTRIES, SCRUB_STEP_RECORDS},
    store::{
        damage,
        index::{Entry, Location, Position},
        orphans::{Known, Search},
        segments::{Log, Moving, Relocation},
        site::{Site, Tag},
    },
};

/// What the acts of a patrol are for.
pub(super) const PATROL_TAG: Tag = Tag::Scrub { slot: 0 };

/// What became of a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// An act is under way that reads so many bytes.
    Started(u64),
    /// One that reads none, and costs a step.
    Asked,
    /// Something was looked at in memory.
    Did,
    /// The log is busy: it is to be tried again after the next event.
    Blocked,
    /// The patrol is over.
    Over,
    /// It cannot go on in this partition.
    Failed(String),
}

/// What was found, in objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) checked: u64,
    pub(super) damaged: u64,
    pub(super) mended: u64,
    pub(super) moved: u64,
    /// Files without an object that were removed.
    pub(super) freed: u64,
}

#[derive(Debug)]
enum Stage {
    Searching(Search),
    /// An act of the search is under way.
    Looking(Search),
    /// All segments up to `after` are done.
    Between {
        after: u32,
    },
    Opening {
        file: FileId,
        sweep: Sweep,
    },
    Sweeping {
        file: FileId,
        sweep: Sweep,
        window: Window,
    },
    Reading {
        file: FileId,
        sweep: Sweep,
        at: u64,
        asked: u32,
    },
    /// All entries up to `after` are done, and up to `at` when nothing is probed; those in `page`
    /// come next.
    Paging {
        after: Option<Address>,
        at: Option<Address>,
        page: VecDeque<(Address, Entry)>,
    },
    /// Files that nothing stands for are removed.
    Freeing,
    Over,
}

/// Where a segment is broken.
#[derive(Debug)]
struct Broken {
    from: u64,
    why: String,
    /// Whether it was noted that something counts there.
    told: bool,
}

/// A round through one partition.
#[derive(Debug)]
pub(super) struct Patrol {
    /// What was committed when it began.
    until: Position,
    stage: Stage,
    broken: BTreeMap<u32, Broken>,
    /// Objects that were found wrong in a segment: each is dealt with once a round.
    settled: BTreeSet<Address>,
    probe: Option<Probe>,
    mend: Option<Mend>,
    /// The object file that was mended last.
    mended: Option<Address>,
    /// Files without an object, if this round sees all that the log says about them.
    orphans: Option<Orphans>,
    /// Objects in a row that could not be checked.
    failures: u32,
    tally: Tally,
}

impl Patrol {
    /// Goes on from where an earlier one came; `None`: from the start.
    pub(super) fn new(reached: Option<Reached>, parts: &Parts<'_>) -> Patrol {
        let stage = match reached {
            None | Some(Reached::All) => Stage::Searching(Search::new(parts.deletes)),
            Some(Reached::Segment(after)) => Stage::Between { after },
            Some(Reached::Address(after)) => paging(after),
        };
        let (until, _) = parts.log.reached();
        let (broken, settled, tally) = (BTreeMap::new(), BTreeSet::new(), Tally::default());
        Patrol {
            until,
            stage,
            broken,
            settled,
            probe: None,
            mend: None,
            mended: None,
            orphans: None,
            failures: 0,
            tally,
        }
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// From where another one may go on. What is known about broken segments is not kept, so that
    /// is before the first of them.
    pub(super) fn reached(&self) -> Reached {
        let through = match &self.stage {
            Stage::Searching(_) | Stage::Looking(_) => Reached::Segment(0),
            Stage::Between { after } => Reached::Segment(*after),
            Stage::Opening { sweep, .. }
            | Stage::Sweeping { sweep, .. }
            | Stage::Reading { sweep, .. } => Reached::Segment(sweep.segment() - 1),
            Stage::Paging { after, .. } => Reached::Address(*after),
            Stage::Freeing | Stage::Over => Reached::All,
        };
        match (self.broken.first_key_value(), through) {
            (_, Reached::All) | (None, _) => through,
            (Some((broken, _)), Reached::Segment(after)) => Reached::Segment(after.min(broken - 1)),
            (Some((broken, _)), Reached::Address(_)) => Reached::Segment(broken - 1),
        }
    }

    /// Does the next piece of work. No act may be under way.
    pub(super) fn step(&mut self, parts: &mut Parts<'_>, cx: &mut Cx<'_>) -> Step {
        if let Some(probe) = &mut self.probe {
            if probe.is_new() && !parts.log.has_room_to_move() && !parts.log.is_broken() {
                return Step::Blocked;
            }
            return match probe.go(parts, cx) {
                Ok(bytes) => Step::Started(bytes),
                Err(verdict) => self.conclude(verdict, parts, cx),
            };
        }
        if let Some(mend) = &mut self.mend {
            return Step::Started(mend.go(parts, cx));
        }
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Searching(search) => self.search(search, parts, cx),
            Stage::Between { after } => self.next_segment(after, parts, cx),
            Stage::Sweeping { file, sweep, window } => self.sweep(file, sweep, window, parts, cx),
            Stage::Paging { at, page, .. } => self.page(at, page, parts),
            Stage::Freeing => self.free(parts, cx),
            Stage::Over => Step::Over,
            stage => unreachable!("{stage:?} is under way"),
        }
    }

    /// The act under way is complete. `Some` if it led to more than the next step.
    pub(super) fn on_disk(
        &mut self,
        done: io::Result<DiskDone>,
        parts: &mut Parts<'_>,
        cx: &mut Cx<'_>,
    ) -> Option<Step> {
        if let Some(probe) = &mut self.probe {
            let verdict = probe.on_disk(done, parts, cx)?;
            return Some(self.conclude(verdict, parts, cx));
        }
        if let Some(mend) = &mut self.mend {
            let outcome = mend.on_disk(done, cx)?;
            return Some(self.mended(outcome, parts.site, cx));
        }
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Looking(search) => self.searched(search, done, parts, cx),
            Stage::Opening { file, sweep } => self.opened(file, sweep, done, parts, cx),
            Stage::Reading { file, sweep, at, asked } => match done {
                Ok(DiskDone::Scanned(bytes)) => {
                    let window = Window::new(at, bytes, asked);
                    self.stage = Stage::Sweeping { file, sweep, window };
                }
                Ok(other) => unreachable!("a scan brought {other:?}"),
                Err(error) => {
                    cx.close_file(file);
                    let why = format!("it cannot be read: {error}");
                    self.break_off(sweep.segment(), sweep.safe(), why, parts);
                }
            },
            stage => unreachable!("{stage:?} waits for nothing"),
        }
        None
    }

    /// The act under way is complete, and nothing more is to come of it.
    pub(super) fn abandon(self, done: &io::Result<DiskDone>, cx: &mut Cx<'_>) {
        let Patrol { stage, probe, mend, .. } = self;
        // A suspect is probed while the file of its segment is open.
        if let Stage::Sweeping { file, .. } = stage {
            cx.close_file(file);
        }
        match (probe, mend, stage) {
            (Some(probe), ..) => probe.abandon(done, cx),
            (None, Some(mend), _) => mend.abandon(done, cx),
            (None, None, Stage::Opening { file, .. }) if done.is_err() => {
                cx.tickets.forget_file(file);
            }
            (None, None, Stage::Opening { file, .. } | Stage::Reading { file, .. }) => {
                cx.close_file(file);
            }
            (None, None, Stage::Looking(_)) => {}
            (None, None, stage) => unreachable!("{stage:?} waits for nothing"),
        }
    }

    /// Closes what is open. No act may be under way.
    pub(super) fn close(self, cx: &mut Cx<'_>) {
        if let Some(probe) = self.probe {
            probe.close(cx);
        }
        if let Some(mend) = self.mend {
            mend.close(cx);
        }
        if let Stage::Sweeping { file, .. } = self.stage {
            cx.close_file(file);
        }
    }

    /// Looks for files that the index does not know, before the log is read that may.
    fn search(&mut self, mut search: Search, parts: &Parts<'_>, cx: &mut Cx<'_>) -> Step {
        if search.go(parts.deletes, parts.site, PATROL_TAG, cx) {
            self.stage = Stage::Looking(search);
            return Step::Asked;
        }
        let (found, _) = search.found();
        let unmet = |address| (address, Met::default());
        self.orphans = Some(found.into_iter().map(unmet).collect());
        self.stage = Stage::Between { after: 0 };
        Step::Did
    }

    fn searched(
        &mut self,
        mut search: Search,
        done: io::Result<DiskDone>,
        parts: &mut Parts<'_>,
        cx: &mut Cx<'_>,
    ) {
        let known = Known { log: parts.log, index: parts.index, deletes: parts.deletes };
        match search.on_disk(done, known, parts.site, cx) {
            Ok(learnt) => {
                if let Some(learnt) = learnt {
                    learnt.note(parts.deletes);
                }
                self.stage = Stage::Searching(search);
            }
            Err(error) => {
                let text = format!("its object files cannot be listed: {error}");
                parts.site.note(cx, Severity::Error, &text);
                self.stage = Stage::Between { after: 0 };
            }
        }
    }

    /// Removes files that nothing stands for: neither the index nor, as far as all of it could be
    /// read, the log.
    fn free(&mut self, parts: &mut Parts<'_>, cx: &mut Cx<'_>) -> Step {
        let whole = self.broken.is_empty() && !parts.log.is_lossy();
        let Some(mut orphans) = self.orphans.take().filter(|_| whole) else {
            return Step::Over;
        };
        for _ in 0..SCRUB_STEP_RECORDS {
            let Some((address, met)) = orphans.pop_first() else { return Step::Over };
            let known = Known { log: parts.log, index: parts.index, deletes: parts.deletes };
            if !known.is_orphan(&address) {
                continue;
            }
            if met.named && parts.index.get(&address).is_none() {
                let text = format!("{address} is in the log and not in the index: its file stays");
                parts.site.note(cx, Severity::Error, &text);
                continue;
            }
            parts.deletes.take_back(address, Vec::new(), Fault::Disk);
            self.tally.freed += 1;
            let text = format!("the file of {address}, which is no object, is removed");
            parts.site.note(cx, Severity::Info, &text);
        }
        self.orphans = Some(orphans);
        self.stage = Stage::Freeing;
        Step::Did
    }

    fn next_segment(&mut self, after: u32, parts: &mut Parts<'_>, cx: &mut Cx<'_>) -> Step {
        let range = |number: u32| number > after && number <= self.until.segment;
        let next = parts.log.segments().find(|(number, _)| range(*number));
        let Some((segment, len)) = next else {
            let mut broken = self.broken.keys();
            // Nothing more is written where a rebuild would not find it.
            if !broken.all(|broken| parts.log.seal(*broken, parts.files)) {
                self.stage = Stage::Between { after };
                return Step::Blocked;
            }
            self.stage = paging(None);
            return Step::Did;
        };
        let end = if segment == self.until.segment { len.min(self.until.offset) } else { len };
        let file = cx.tickets.file();
        let path = cx.config.layout.segment_path(parts.site.number, segment);
        self.stage = Stage::Opening { file, sweep: Sweep::new(segment, end) };
        parts.site.disk(cx, PATROL_TAG, DiskOp::Open { file, path, how: OpenHow::Read });
        Step::Started(0)
    }

    fn opened(
        &mut self,
        file: FileId,
        sweep: Sweep,
        done: io::Result<DiskDone>,
        parts: &mut Parts<'_>,
        cx: &mut Cx<'_>,
    ) {
        let segment = sweep.segment();
        let Err(error) = done else {
            self.stage = Stage::Sweeping { file, sweep, window: Window::default() };
            return;
        };
        cx.tickets.forget_file(file);
        let there = parts.log.segments().any(|(number, _)| number == segment);
        if there {
            // What the index places in it is probed, one by one; each says what is wrong with it.
            self.break_off(segment, 0, format!("it cannot be opened: {error}"), parts);
        } else {
            // It was compacted away meanwhile.
            self.stage = Stage::Between { after: segment };
        }
    }

    fn sweep(
        &mut self,
        file: FileId,
        mut sweep: Sweep,
        window: Window,
        parts: &mut Parts<'_>,
        cx: &mut Cx<'_>,
    ) -> Step {
        let mut none = Orphans::new();
        let orphans = self.orphans.as_mut().unwrap_or(&mut none);
        let next = sweep.go(&window, parts.index, cx.damage, orphans);
        sweep.take_healed().iter().for_each(|address| damage::healed(address, cx));
        let whole = sweep.take_objects();
        cx.stats.scrub_objects.add(whole);
        self.tally.checked += whole;
        match next {
            Next::Read { at, len } => {
                self.stage = Stage::Reading { file, sweep, at, asked: len };
                let urgency = Urgency::Background;
                parts.site.disk(cx, PATROL_TAG, DiskOp::Scan { file, at, len, urgency });
                return Step::Started(u64::from(len));
            }
            Next::Rest => self.stage = Stage::Sweeping { file, sweep, window },
            Next::Suspect(address) => {
                self.stage = Stage::Sweeping { file, sweep, window };
                self.probe(address);
            }
            Next::End(end) => {
                cx.close_file(file);
                match end {
                    End::Whole => self.stage = Stage::Between { after: sweep.segment() },
                    End::Broken { from, why } => {
                        self.break_off(sweep.segment(), from, why.to_string(), parts);
                    }
                }
            }
        }
        Step::Did
    }

    /// A rebuild of the index would not find the rest of a segment, nor would the next start what
    /// of it is in no checkpoint: deletions too, which are not moved.
    fn break_off(&mut self, segment: u32, from: u64, why: String, parts: &mut Parts<'_>) {
        *parts.checkpoint_due = true;
        self.broken.insert(segment, Broken { from, why, told: false });
        self.stage = Stage::Between { after: segment };
    }

    fn page(
        &mut self,
        after: Option<Address>,
        mut page: VecDeque<(Address, Entry)>,
        parts: &Parts<'_>,
    ) -> Step {
        if page.is_empty() {
            page = parts.index.page(after.as_ref(), SCRUB_PAGE_ENTRIES).into();
            if page.is_empty() {
                self.stage = Stage::Freeing;
                return Step::Did;
            }
        }
        let mut at = after;
        while let Some((address, entry)) = page.pop_front() {
            at = Some(address);
            let own_file = matches!(entry.location, Location::File { .. });
            if (own_file || self.is_hidden(&entry, parts.log)) && !self.settled.contains(&address) {
                self.probe(address);
                break;
            }
        }
        self.stage = Stage::Paging { after, at, page };
        Step::Did
    }

    fn probe(&mut self, address: Address) {
        self.probe = Some(Probe::new(address, true, Urgency::Background, PATROL_TAG));
    }

    /// Whether a rebuild of the index would not find the entry's record in the log. Where the
    /// record of an object file lies in its segment is not known, so all of them count as hidden.
    fn is_hidden(&self, entry: &Entry, log: &Log) -> bool {
        log.lacks(entry)
            || match entry.location {
                Location::Segment { segment, offset } => {
                    let broken = self.broken.get(&segment);
                    broken.is_some_and(|broken| broken.from <= u64::from(offset))
                }
                Location::File { segment } => self.broken.contains_key(&segment),
            }
    }

    fn conclude(&mut self, verdict: Verdict, parts: &mut Parts<'_>, cx: &mut Cx<'_>) -> Step {
        let Some(probe) = self.probe.take() else { unreachable!("a verdict without a probe") };
        let (address, site) = (probe.address(), parts.site);
        self.failures =
            if matches!(verdict, Verdict::Failed { .. }) { self.failures + 1 } else { 0 };
        if !matches!(verdict, Verdict::Whole { .. } | Verdict::Missing) {
            self.settled.insert(address);
        }
        let step = match verdict {
            Verdict::Missing => {
                damage::healed(&address, cx);
                return Step::Did;
            }
            Verdict::Whole { entry, record } => {
                damage::healed(&address, cx);
                match self
                    .is_hidden(&entry, parts.log)
                    .then(|| in_log(&address, &entry, record))
                    .flatten()
                {
                    Some(record) => self.relocate(address, entry, record, None, parts, cx),
                    None => Step::Did,
                }
            }
            Verdict::Flawed { entry, what, repair: Repair::Record(record) } => {
                self.relocate(address, entry, record, Some(what), parts, cx)
            }
            Verdict::Flawed { what, repair: Repair::Writes(writes), .. }
                if self.mended != Some(address) =>
            {
                self.mend = Some(Mend::new(address, what, writes, PATROL_TAG));
                return Step::Did;
            }
            Verdict::Flawed { what, .. } => {
                let what = format!("{what}, beside data that are right");
                self.damaged(&address, &what, Found::Beside, cx)
            }
            Verdict::Damaged { what } => self.damaged(&address, what, Found::Wrong, cx),
            Verdict::Unreadable { what } => self.damaged(&address, &what, Found::Unreadable, cx),
            Verdict::Failed { what } if self.failures > SCRUB_FAILURES_MAX => Step::Failed(what),
            Verdict::Failed { what } => {
                site.note(cx, Severity::Error, &format!("{address} cannot be checked: {what}"));
                return Step::Did;
            }
        };
        if step == Step::Did {
            cx.stats.scrub_objects.add(1);
            self.tally.checked += 1;
        }
        step
    }

    /// An object file was mended, and is probed once more; or it could not be.
    fn mended(&mut self, outcome: io::Result<()>, site: Site, cx: &mut Cx<'_>) -> Step {
        let Some(mend) = self.mend.take() else { unreachable!("an act without a mend") };
        let (address, flaw) = (mend.address(), mend.flaw());
        if let Err(error) = outcome {
            let what = format!("{flaw}, beside data that are right, and it stays: {error}");
            return self.damaged(&address, &what, Found::Beside, cx);
        }
        self.mended = Some(address);
        self.note_mended(&address, flaw, site, cx);
        self.probe(address);
        Step::Did
    }

    fn note_mended(&mut self, address: &Address, flaw: &str, site: Site, cx: &mut Cx<'_>) {
        self.tally.mended += 1;
        cx.stats.scrub_repaired.add(1);
        damage::healed(address, cx);
        let text = format!("{flaw} of {address} was damaged beside data that are right: mended");
        site.note(cx, Severity::Warn, &text);
    }

    fn damaged(&mut self, address: &Address, what: &str, found: Found, cx: &mut Cx<'_>) -> Step {
        self.tally.damaged += 1;
        report_damage(address, what, found, cx);
        Step::Did
    }

    /// Writes a record anew at the end of the log. If there is no room for it, the object is probed
    /// again later: by then it may have been moved or deleted.
    fn relocate(
        &mut self,
        address: Address,
        entry: Entry,
        record: Vec<u8>,
        flaw: Option<&'static str>,
        parts: &mut Parts<'_>,
        cx: &mut Cx<'_>,
    ) -> Step {
        let what = Moving::Entry(entry);
        if parts.log.relocate(Relocation { address, what, record }) {
            self.moved(&address, &entry, flaw, parts.site, cx);
            return Step::Did;
        }
        if !parts.log.is_broken() {
            self.probe(address);
            return Step::Blocked;
        }
        let text = format!("{address} is to be written anew, and the log does not take it");
        parts.site.note(cx, Severity::Error, &text);
        Step::Did
    }

    fn moved(
        &mut self,
        address: &Address,
        entry: &Entry,
        flaw: Option<&'static str>,
        site: Site,
        cx: &mut Cx<'_>,
    ) {
        if let Some(flaw) = flaw {
            self.note_mended(address, flaw, site, cx);
        } else {
            self.tally.moved += 1;
        }
        let (Location::Segment { segment, .. } | Location::File { segment }) = entry.location;
        let Some(broken) = self.broken.get_mut(&segment).filter(|broken| !broken.told) else {
            return;
        };
        broken.told = true;
        let Broken { from, why, .. } = broken;
        let text = format!("segment {segment} ends at {from}, {why}: what lies behind is moved");
        site.note(cx, Severity::Warn, &text);
    }
}

fn paging(after: Option<Address>) -> Stage {
    Stage::Paging { after, at: after, page: VecDeque::new() }
}

/// The record that says in the log what the entry says.
fn in_log(address: &Address, entry: &Entry, kept: Option<Vec<u8>>) -> Option<Vec<u8>> {
    match entry.location {
        Location::Segment { .. } => kept,
        Location::File { .. } => {
            let header = RecordHeader::file(*address, entry.size, entry.sequence).ok()?;
            Some(header.encode().to_vec())
        }
    }
}
