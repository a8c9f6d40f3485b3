//! A file that one machine alone has open, from its name to its end.
//!
//! ```text
//!   Opening ──► Handle ──► closed
//!      │ fails
//!      └──► its name is free again
//! ```
//!
//! Every way out of either goes through here, so no name and no descriptor stays behind.

use std::{io, path::PathBuf};

use ron_io::ports::{DiskDone, DiskOp, FileId, OpenHow};

use super::site::{Site, Tag};
use crate::flow::Cx;

/// A file that is being opened.
#[derive(Debug)]
#[must_use]
pub(super) struct Opening(FileId);

/// A file that is open.
#[derive(Debug)]
#[must_use]
pub(super) struct Handle(FileId);

impl Opening {
    pub(super) fn start(
        site: Site,
        tag: Tag,
        (path, how): (PathBuf, OpenHow),
        cx: &mut Cx<'_>,
    ) -> Opening {
        let file = cx.tickets.file();
        site.disk(cx, tag, DiskOp::Open { file, path, how });
        Opening(file)
    }

    /// The act is complete.
    ///
    /// # Errors
    /// What the disk answered: there is nothing to close.
    pub(super) fn opened(self, done: io::Result<DiskDone>, cx: &mut Cx<'_>) -> io::Result<Handle> {
        match done {
            Ok(done) => {
                let _len = done.into_opened();
                Ok(Handle(self.0))
            }
            Err(error) => {
                cx.tickets.forget_file(self.0);
                Err(error)
            }
        }
    }

    /// The act is complete, and nobody wants the file any more.
    pub(super) fn abandon(self, done: io::Result<DiskDone>, cx: &mut Cx<'_>) {
        if let Ok(file) = self.opened(done, cx) {
            file.close(cx);
        }
    }
}

impl Handle {
    /// The name that acts on the file go by.
    pub(super) fn id(&self) -> FileId {
        self.0
    }

    pub(super) fn close(self, cx: &mut Cx<'_>) {
        cx.close_file(self.0);
    }
}
