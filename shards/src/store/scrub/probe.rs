//! Probing one object: finding it in the index, reading its record anew from the disk, all of it,
//! and checking it.
//!
//! ```text
//!              ┌───────────── the entry changed meanwhile ─────────────┐
//!              ▼                                                       │
//!            Start ──► Opening ──► Open ──► Reading ──► does it check? ──► verdict, ended
//!                                   ▲          │
//!                                   └──────────┘ there is more of it
//! ```
//!
//! It opens a file of its own, so that it neither needs the partition's open files nor pushes any
//! of them out. An object may be deleted, moved or stored anew while it is read. So whatever is
//! found wrong counts only if the index still says what it said before.

use std::{io, ops::ControlFlow};

use ron_codec::address::Address;
use ron_io::{
    ports::{DiskDone, DiskOp, OpenHow, Urgency},
    process::is_out_of_files,
};

use super::{
    Parts,
    check::{Check, Checked, Fed, Outcome, Window},
    repair::Write,
};
use crate::{
    flow::Cx,
    limits::{PROBE_TRIES_MAX, SCRUB_READ_LEN},
    machine::{Machine, Turn, answer_name},
    store::{
        flaw::{Beside, Unverified, Withheld, Wrong},
        handle::{Handle, Opening},
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
enum Ready {
    Start,
    Open { file: Handle, entry: Entry, check: Check },
}

#[derive(Debug)]
enum Waiting {
    Opening { opening: Opening, entry: Entry },
    Reading { file: Handle, entry: Entry, check: Check, asked: u32 },
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
    machine: Machine<Turn<Ready, Waiting>>,
}

impl Probe {
    pub(super) fn new(address: Address, keep: bool, urgency: Urgency, tag: Tag) -> Probe {
        let machine = Machine::new("probe", Turn::Ready(Ready::Start));
        Probe { address, keep, urgency, tag, tries: 0, machine }
    }

    pub(super) fn address(&self) -> Address {
        self.address
    }

    /// Whether it has not read anything yet.
    pub(super) fn is_new(&self) -> bool {
        matches!(self.machine.ready(), Some(Ready::Start))
    }

    /// Starts the next act, and returns how many bytes it reads. No other may be in progress. If
    /// there is none to start, the probe has ended.
    pub(super) fn go(&mut self, parts: &Parts<'_>, cx: &mut Cx<'_>) -> Result<u64, Verdict> {
        let ready = self.machine.take_ready("go");
        match self.start(ready, parts, cx) {
            Ok((waiting, bytes)) => {
                self.machine.put(Turn::Waiting(waiting));
                Ok(bytes)
            }
            Err(verdict) => {
                self.machine.end();
                Err(verdict)
            }
        }
    }

    /// Its act is complete. Unless this ends it, it wants to `go` on.
    pub(super) fn on_disk(
        &mut self,
        done: io::Result<DiskDone>,
        parts: &Parts<'_>,
        cx: &mut Cx<'_>,
    ) -> Option<Verdict> {
        let next = match self.machine.take_waiting(answer_name(&done)) {
            Waiting::Opening { opening, entry } => {
                let opened = opening.opened(done, cx);
                self.opened(opened, entry, parts, cx)
            }
            Waiting::Reading { file, entry, check, asked } => match done {
                Ok(done) => {
                    let window = Window::new(check.at(), done.into_scanned(), asked);
                    match check.feed(&window) {
                        Fed::More(check) => {
                            ControlFlow::Continue(Ready::Open { file, entry, check })
                        }
                        Fed::Over(outcome, checked) => {
                            file.close(cx);
                            self.checked(outcome, checked, entry, parts)
                        }
                    }
                }
                Err(error) => {
                    file.close(cx);
                    let why = Withheld::Read(error);
                    self.doubt(&entry, Verdict::Unreadable { why }, parts)
                }
            },
        };
        self.machine.answered(next)
    }

    /// Closes its file, if one is open. No act may be in progress.
    pub(super) fn close(self, cx: &mut Cx<'_>) {
        match self.machine.into_ready("closed") {
            Ready::Open { file, .. } => file.close(cx),
            Ready::Start => {}
        }
    }

    /// Its act is complete, and nobody wants to know any more.
    pub(super) fn abandon(self, done: io::Result<DiskDone>, cx: &mut Cx<'_>) {
        match self.machine.into_waiting("abandoned") {
            Waiting::Opening { opening, .. } => opening.abandon(done, cx),
            Waiting::Reading { file, .. } => file.close(cx),
        }
    }

    fn start(
        &self,
        ready: Ready,
        parts: &Parts<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(Waiting, u64), Verdict> {
        match ready {
            Ready::Start => Ok((self.open(parts, cx)?, 0)),
            Ready::Open { file, entry, check } => {
                let asked = check.rest().min(u64::from(SCRUB_READ_LEN)) as u32;
                let (at, urgency) = (check.at(), self.urgency);
                let op = DiskOp::Scan { file: file.id(), at, len: asked, urgency };
                parts.site.disk(cx, self.tag, op);
                Ok((Waiting::Reading { file, entry, check, asked }, u64::from(asked)))
            }
        }
    }

    fn open(&self, parts: &Parts<'_>, cx: &mut Cx<'_>) -> Result<Waiting, Verdict> {
        let Some(entry) = parts.index.get(&self.address) else { return Err(Verdict::Missing) };
        let layout = &cx.config.layout;
        let path = match entry.location {
            Location::Segment { segment, .. } => layout.segment_path(parts.site.number, segment),
            Location::File { .. } => layout.object_path(parts.site.number, &self.address),
        };
        let opening = Opening::start(parts.site, self.tag, (path, OpenHow::Read), cx);
        Ok(Waiting::Opening { opening, entry })
    }

    fn opened(
        &mut self,
        opened: io::Result<Handle>,
        entry: Entry,
        parts: &Parts<'_>,
        cx: &mut Cx<'_>,
    ) -> ControlFlow<Verdict, Ready> {
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
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
        };
        match Check::new(&self.address, &entry, self.keep) {
            Some(check) => ControlFlow::Continue(Ready::Open { file, entry, check }),
            None => {
                file.close(cx);
                self.doubt(&entry, Verdict::Damaged { what: Wrong::Entry }, parts)
            }
        }
    }

    fn checked(
        &mut self,
        outcome: Outcome,
        checked: Checked,
        entry: Entry,
        parts: &Parts<'_>,
    ) -> ControlFlow<Verdict, Ready> {
        match outcome {
            Outcome::Whole => {
                ControlFlow::Break(Verdict::Whole { entry, record: checked.into_record() })
            }
            Outcome::Flawed(what) => {
                let repair = match entry.location {
                    _ if !self.keep => None,
                    Location::Segment { .. } => checked.into_record().map(Repair::Record),
                    Location::File { .. } => checked.into_writes().map(Repair::Writes),
                };
                let repair = repair.unwrap_or(Repair::None);
                self.doubt(&entry, Verdict::Flawed { entry, what, repair }, parts)
            }
            Outcome::Damaged(what) => self.doubt(&entry, Verdict::Damaged { what }, parts),
        }
    }

    /// The verdict, unless it is about what the index no longer says.
    fn doubt(
        &mut self,
        entry: &Entry,
        verdict: Verdict,
        parts: &Parts<'_>,
    ) -> ControlFlow<Verdict, Ready> {
        ControlFlow::Break(match parts.index.get(&self.address) {
            Some(now) if now == *entry => verdict,
            Some(_) if self.tries + 1 < PROBE_TRIES_MAX => {
                self.tries += 1;
                return ControlFlow::Continue(Ready::Start);
            }
            Some(_) => Verdict::Failed { why: Unverified::Moving },
            None => Verdict::Missing,
        })
    }
}
