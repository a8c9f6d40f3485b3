//! Marks of segments in which damage hides records, as far as a start could not make them.
//!
//! ```text
//!   owed ──► Opening ──► made          no checkpoint before: the next start would not look at the
//!     ▲       │   │ is there           segment again, and without a mark it would be removed once
//!     │ fails │   └─► Syncing ─► made  nothing that is known is left in it
//!     └───────┘          │ fails
//!     └──────────────────┘
//! ```

use std::io;

use ron_io::ports::{DiskDone, DiskOp, FileId, OpenHow};

use super::{
    notes::Note,
    site::{Site, Tag},
};
use crate::{flow::Cx, limits};

/// The marks that a partition owes.
#[derive(Debug)]
pub(super) struct Marks {
    owed: Vec<u32>,
    /// The sequence that nothing hidden is above.
    most: u64,
    doing: Doing,
    again_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Nothing,
    Opening(FileId),
    /// An earlier try made it and could not make it durable.
    Syncing,
}

impl Marks {
    pub(super) fn new(owed: Vec<u32>, most: u64) -> Marks {
        Marks { owed, most, doing: Doing::Nothing, again_ns: 0 }
    }

    /// Whether one is still to be made.
    pub(super) fn is_owing(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Whether nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.doing == Doing::Nothing
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
        let file = cx.tickets.file();
        self.doing = Doing::Opening(file);
        let path = cx.config.layout.hidden_path(site.number, (*segment, Some(self.most)));
        site.disk(cx, Tag::Mark, DiskOp::Open { file, path, how: OpenHow::CreateNew });
    }

    pub(super) fn on_disk(&mut self, done: io::Result<DiskDone>, site: Site, cx: &mut Cx<'_>) {
        let doing = std::mem::replace(&mut self.doing, Doing::Nothing);
        let Err(error) = done else {
            if let Doing::Opening(file) = doing {
                cx.close_file(file);
            }
            self.owed.pop();
            return;
        };
        if let Doing::Opening(file) = doing {
            cx.tickets.forget_file(file);
            if error.kind() == io::ErrorKind::AlreadyExists {
                self.doing = Doing::Syncing;
                // No file has this name: what is wanted is that the folder is synced.
                let path = cx.config.layout.segments_dir(site.number).join("none");
                return site.disk(cx, Tag::Mark, DiskOp::Remove { path, durable: true });
            }
        }
        self.again_ns = cx.now.mono_ns + limits::MARK_AGAIN_NS;
        let segment = *self.owed.last().expect("a mark is owed until it is made");
        site.note(cx, &Note::NotMarked { segment, error: &error });
    }
}
