//! Probing one object: finding it in the index, reading its record anew from the disk, all of it,
//! and checking it.
//!
//! ```text
//!              ┌───────────── the entry changed meanwhile ─────────────┐
//!              ▼                                                       │
//!   (go)    Start ──► Opening ──► Open ──► Reading ──► … ──► does it check? ──► verdict
//!                                   ▲          │
//!                                   └──────────┘
//! ```
//!
//! It opens a file of its own, so that it neither needs the partition's open files nor pushes any
//! of them out. An object may be deleted, moved or stored anew while it is read. So whatever is
//! found wrong counts only if the index still says what it said before.

use std::io;

use ron_codec::address::Address;
use ron_io::{
    ports::{DiskDone, DiskOp, FileId, OpenHow, Urgency},
    process::is_out_of_files,
};

use super::{
    Parts,
    check::{Check, Outcome, Window},
    mend::Write,
};
use crate::{
    flow::Cx,
    limits::{PROBE_TRIES_MAX, SCRUB_READ_LEN},
    store::{
        flaw::{Beside, Unverified, Withheld, Wrong},
        index::{Entry, Location},
        site::Tag,
    },
};

/// What a probe came to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The index does not know the object, or no longer.
    Missing,
    /// `record`: the whole record, if it was asked for and lies in a segment.
    Whole { entry: Entry, record: Option<Vec<u8>> },
    /// The data are right and something beside them is not.
    Flawed { entry: Entry, what: Beside, repair: Repair },
    /// The data are not what was stored.
    Damaged { what: Wrong },
    /// The disk does not give the bytes.
    Unreadable { why: Withheld },
    /// It could not be found out.
    Failed { why: Unverified },
}

/// What makes a flawed record whole.
#[derive(Debug)]
pub(super) enum Repair {
    /// Nobody asked for it.
    None,
    /// Of a record in a segment: it as it must be.
    Record(Vec<u8>),
    /// Of one in a file of its own: what must stand where.
    Writes(Vec<Write>),
}

#[derive(Debug)]
enum Stage {
    Start,
    Opening { file: FileId, entry: Entry },
    Open { file: FileId, entry: Entry, check: Check },
    Reading { file: FileId, entry: Entry, check: Check, asked: u32 },
    Over,
}

/// An object that is being probed.
#[derive(Debug)]
pub(super) struct Probe {
    address: Address,
    /// Whether the record is wanted, too.
    keep: bool,
    urgency: Urgency,
    /// What its acts are for.
    tag: Tag,
    tries: u32,
    stage: Stage,
}

impl Probe {
    pub(super) fn new(address: Address, keep: bool, urgency: Urgency, tag: Tag) -> Probe {
        Probe { address, keep, urgency, tag, tries: 0, stage: Stage::Start }
    }

    pub(super) fn address(&self) -> Address {
        self.address
    }

    /// Whether it has not read anything yet.
    pub(super) fn is_new(&self) -> bool {
        matches!(self.stage, Stage::Start)
    }

    /// Starts the next act, of which none may be under way, and returns how many bytes it reads.
    /// If there is none to start, it is over.
    pub(super) fn go(&mut self, parts: &Parts<'_>, cx: &mut Cx<'_>) -> Result<u64, Verdict> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Start => self.open(parts, cx),
            Stage::Open { file, entry, check } => {
                let asked = check.rest().min(u64::from(SCRUB_READ_LEN)) as u32;
                let (at, urgency) = (check.at(), self.urgency);
                parts.site.disk(cx, self.tag, DiskOp::Scan { file, at, len: asked, urgency });
                self.stage = Stage::Reading { file, entry, check, asked };
                Ok(u64::from(asked))
            }
            stage => unreachable!("{stage:?} does not start anything"),
        }
    }

    /// Its act is complete. Unless this ends it, it wants to `go` on.
    pub(super) fn on_disk(
        &mut self,
        done: io::Result<DiskDone>,
        parts: &Parts<'_>,
        cx: &mut Cx<'_>,
    ) -> Option<Verdict> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Opening { file, entry } => self.opened(file, entry, done, parts, cx),
            Stage::Reading { file, entry, mut check, asked } => {
                let window = match done {
                    Ok(DiskDone::Scanned(bytes)) => Window::new(check.at(), bytes, asked),
                    Ok(other) => unreachable!("a scan brought {other:?}"),
                    Err(error) => {
                        cx.close_file(file);
                        let why = Withheld::Read(error);
                        return self.doubt(&entry, Verdict::Unreadable { why }, parts);
                    }
                };
                let Some(outcome) = check.feed(&window) else {
                    self.stage = Stage::Open { file, entry, check };
                    return None;
                };
                cx.close_file(file);
                match outcome {
                    Outcome::Whole => Some(Verdict::Whole { entry, record: check.into_record() }),
                    Outcome::Flawed(what) => {
                        let repair = match entry.location {
                            _ if !self.keep => None,
                            Location::Segment { .. } => check.into_record().map(Repair::Record),
                            Location::File { .. } => check.into_writes().map(Repair::Writes),
                        };
                        let repair = repair.unwrap_or(Repair::None);
                        self.doubt(&entry, Verdict::Flawed { entry, what, repair }, parts)
                    }
                    Outcome::Damaged(what) => self.doubt(&entry, Verdict::Damaged { what }, parts),
                }
            }
            stage => unreachable!("{stage:?} waits for nothing"),
        }
    }

    /// Closes its file, if one is open. No act may be under way.
    pub(super) fn close(self, cx: &mut Cx<'_>) {
        match self.stage {
            Stage::Open { file, .. } => cx.close_file(file),
            Stage::Start | Stage::Over => {}
            stage => unreachable!("{stage:?} is under way"),
        }
    }

    /// Its act is complete, and nobody wants to know any more.
    pub(super) fn abandon(self, done: &io::Result<DiskDone>, cx: &mut Cx<'_>) {
        match self.stage {
            Stage::Opening { file, .. } if done.is_err() => cx.tickets.forget_file(file),
            Stage::Opening { file, .. } | Stage::Reading { file, .. } => cx.close_file(file),
            stage => unreachable!("{stage:?} waits for nothing"),
        }
    }

    fn open(&mut self, parts: &Parts<'_>, cx: &mut Cx<'_>) -> Result<u64, Verdict> {
        let Some(entry) = parts.index.get(&self.address) else { return Err(Verdict::Missing) };
        let layout = &cx.config.layout;
        let path = match entry.location {
            Location::Segment { segment, .. } => layout.segment_path(parts.site.number, segment),
            Location::File { .. } => layout.object_path(parts.site.number, &self.address),
        };
        let file = cx.tickets.file();
        self.stage = Stage::Opening { file, entry };
        parts.site.disk(cx, self.tag, DiskOp::Open { file, path, how: OpenHow::Read });
        Ok(0)
    }

    fn opened(
        &mut self,
        file: FileId,
        entry: Entry,
        done: io::Result<DiskDone>,
        parts: &Parts<'_>,
        cx: &mut Cx<'_>,
    ) -> Option<Verdict> {
        if let Err(error) = done {
            cx.tickets.forget_file(file);
            let verdict = match error.kind() {
                io::ErrorKind::NotFound => Verdict::Damaged { what: Wrong::NoFile },
                // That is no fault of the file.
                _ if is_out_of_files(&error) || error.kind() == io::ErrorKind::OutOfMemory => {
                    Verdict::Failed { why: Unverified::NotOpened(error) }
                }
                _ => Verdict::Unreadable { why: Withheld::Open(error) },
            };
            return self.doubt(&entry, verdict, parts);
        }
        match Check::new(&self.address, &entry, self.keep) {
            Some(check) => {
                self.stage = Stage::Open { file, entry, check };
                None
            }
            None => {
                cx.close_file(file);
                self.doubt(&entry, Verdict::Damaged { what: Wrong::Entry }, parts)
            }
        }
    }

    /// The verdict, unless it is about what the index no longer says.
    fn doubt(&mut self, entry: &Entry, verdict: Verdict, parts: &Parts<'_>) -> Option<Verdict> {
        match parts.index.get(&self.address) {
            Some(now) if now == *entry => Some(verdict),
            Some(_) if self.tries + 1 < PROBE_TRIES_MAX => {
                self.tries += 1;
                self.stage = Stage::Start;
                None
            }
            Some(_) => Some(Verdict::Failed { why: Unverified::Moving }),
            None => Some(Verdict::Missing),
        }
    }
}
