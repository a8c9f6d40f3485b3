//! Marks of segments in which damage hides records, as far as a start could not make them.
//!
//! ```text
//!   Idle ──► Opening ──► made          no checkpoint before: the next start would not look at the
//!    ▲        │   │ is there           segment again, and without a mark it would be removed once
//!    │  fails │   └─► Syncing ─► made  nothing that is known is left in it
//!    └────────┘          │ fails
//!    └───────────────────┘
//! ```
//!
//! One that is made leads back to `Idle`, too, for the next.

use std::io;

use ron_io::ports::{DiskDone, DiskOp, OpenHow};

use super::{
    handle::Opening,
    notes::Note,
    site::{Site, Tag},
};
use crate::{
    flow::Cx,
    limits,
    machine::{Machine, Turn, answer_name},
};

/// The marks that a partition owes.
#[derive(Debug)]
pub(super) struct Marks {
    owed: Vec<u32>,
    /// The sequence that nothing hidden is above.
    most: u64,
    machine: Machine<Turn<Idle, Waiting>>,
    again_ns: u64,
}

/// No act is in progress.
#[derive(Debug)]
struct Idle;

#[derive(Debug)]
enum Waiting {
    Opening(Opening),
    /// An earlier try made it and could not make it durable.
    Syncing,
}

impl Marks {
    pub(super) fn new(owed: Vec<u32>, most: u64) -> Marks {
        let machine = Machine::new("marks", Turn::Ready(Idle));
        Marks { owed, most, machine, again_ns: 0 }
    }

    /// Whether one is still to be made.
    pub(super) fn is_owing(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Whether no act is in progress.
    pub(super) fn is_quiet(&self) -> bool {
        !self.machine.is_waiting()
    }

    /// When `settle` is to be called for one that could not be made.
    pub(super) fn retry_at(&self) -> Option<u64> {
        (self.is_owing() && self.is_quiet()).then_some(self.again_ns)
    }

    pub(super) fn settle(&mut self, site: Site, cx: &mut Cx<'_>) {
        let Some(segment) = self.owed.last().filter(|_| self.is_quiet()) else { return };
        if self.again_ns > cx.now.mono_ns {
            return;
        }
        let path = cx.config.layout.hidden_path(site.number, (*segment, Some(self.most)));
        let opening = Opening::start(site, Tag::Mark, (path, OpenHow::CreateNew), cx);
        self.machine.go("settle", Turn::Waiting(Waiting::Opening(opening)));
    }

    pub(super) fn on_disk(&mut self, done: io::Result<DiskDone>, site: Site, cx: &mut Cx<'_>) {
        let made = match self.machine.take_waiting(answer_name(&done)) {
            Waiting::Opening(opening) => match opening.opened(done, cx) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    // No file has this name: what is wanted is that the folder is synced.
                    let path = cx.config.layout.segments_dir(site.number).join("none");
                    site.disk(cx, Tag::Mark, DiskOp::Remove { path, durable: true });
                    return self.machine.put(Turn::Waiting(Waiting::Syncing));
                }
                Err(error) => Err(error),
                Ok(file) => {
                    file.close(cx);
                    Ok(())
                }
            },
            Waiting::Syncing => done.map(drop),
        };
        self.machine.put(Turn::Ready(Idle));
        let Err(error) = made else {
            self.owed.pop();
            return;
        };
        self.again_ns = cx.now.mono_ns + limits::MARK_AGAIN_NS;
        let segment = *self.owed.last().expect("a mark is owed until it is made");
        site.note(cx, &Note::NotMarked { segment, error: &error });
    }
}
