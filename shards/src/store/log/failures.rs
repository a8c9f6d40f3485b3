//! What becomes of a batch that could not be committed: the segment is truncated to what was
//! committed before, and that is synced.

use std::io;

use ron_io::ports::DiskOp;

use super::{Current, Log, Outcome, Waiting};
use crate::{
    flow::{Cx, Fault},
    store::{
        files::Files,
        notes::{LogStep, Note},
        site::{Site, Tag},
    },
};

impl Log {
    /// The batch cannot be committed. What becomes of its records is known after the cut.
    pub(super) fn fails(&mut self, step: LogStep, error: &io::Error, site: Site, cx: &mut Cx<'_>) {
        self.fault = Fault::of_disk(error);
        site.note(cx, &Note::BatchFailed { step, error });
    }

    /// Cuts the segment back to what is committed.
    pub(super) fn cut(&self, reuse: bool, site: Site, files: &Files, cx: &mut Cx<'_>) -> Waiting {
        let Current { slot, end, .. } = *self.current();
        site.disk(cx, Tag::Log, DiskOp::Truncate { file: files.id(slot), len: end });
        Waiting::Cutting { reuse }
    }

    /// The segment is cut back, and that is made durable.
    pub(super) fn sync_cut(
        &self,
        reuse: bool,
        site: Site,
        files: &Files,
        cx: &mut Cx<'_>,
    ) -> Waiting {
        let file = files.id(self.current().slot);
        site.disk(cx, Tag::Log, DiskOp::Sync { file });
        Waiting::CutSyncing { reuse }
    }

    /// What failed to be written may be read again, and nothing can change that.
    pub(super) fn breaks(
        &mut self,
        step: LogStep,
        error: &io::Error,
        site: Site,
        cx: &mut Cx<'_>,
    ) -> Outcome {
        site.note(cx, &Note::LogBroken { step, error });
        self.batch_failed(false)
    }

    pub(super) fn batch_failed(&mut self, cut: bool) -> Outcome {
        let appends = self.batch.refused(&mut self.appends, &mut self.moves);
        Outcome::Failed { appends, fault: self.fault, cut }
    }
}
