//! Files without an object: a patrol looks for them first and removes them last.
//!
//! ```text
//!   folder 0 ─► folder 1 … ─► (the log is read) ─► names that nothing knows ─► removed
//! ```

use std::io;

use ron_io::ports::DiskDone;

use super::{PATROL_TAG, Parts, Patrol, Ready, State, Step, Waiting};
use crate::{
    flow::{Cx, Fault},
    limits::SCRUB_STEP_RECORDS,
    machine::Turn,
    store::{
        notes::Note,
        orphans::{Known, Search},
        scrub::sweep::Met,
    },
};

impl Patrol {
    /// Looks for files that the index does not know, before the log is read that may.
    pub(super) fn search(
        &mut self,
        mut search: Search,
        parts: &Parts<'_>,
        cx: &mut Cx<'_>,
    ) -> (State, Step) {
        if search.go(parts.deletes, parts.site, PATROL_TAG, cx) {
            return (Turn::Waiting(Waiting::Listing(search)), Step::Asked);
        }
        let (found, _) = search.found();
        let unmet = |address| (address, Met::default());
        self.orphans = Some(found.into_iter().map(unmet).collect());
        (Turn::Ready(Ready::Between { after: 0 }), Step::Did)
    }

    pub(super) fn listed(
        &self,
        mut search: Search,
        done: io::Result<DiskDone>,
        parts: &mut Parts<'_>,
        cx: &mut Cx<'_>,
    ) -> Ready {
        let known = Known { log: parts.log, index: parts.index, deletes: parts.deletes };
        match search.on_disk(done, known, parts.site, cx) {
            Ok(learnt) => {
                if let Some(learnt) = learnt {
                    learnt.note(parts.deletes);
                }
                Ready::Searching(search)
            }
            Err(error) => {
                parts.site.note(cx, &Note::FilesUnlisted(&error));
                Ready::Between { after: 0 }
            }
        }
    }

    /// Removes files that nothing stands for: neither the index nor, as far as all of it could be
    /// read, the log.
    pub(super) fn free(&mut self, parts: &mut Parts<'_>, cx: &mut Cx<'_>) -> (State, Step) {
        let over = (Turn::Ready(Ready::Over), Step::Over);
        let whole = self.broken.is_empty() && !parts.log.is_lossy();
        let Some(mut orphans) = self.orphans.take().filter(|_| whole) else {
            return over;
        };
        for _ in 0..SCRUB_STEP_RECORDS {
            let Some((address, met)) = orphans.pop_first() else { return over };
            let known = Known { log: parts.log, index: parts.index, deletes: parts.deletes };
            if !known.is_orphan(&address) {
                continue;
            }
            let known = parts.index.get(&address);
            if met.named && known.is_none_or(|known| known.sequence < met.sequence) {
                // The index was made when that record could not be read.
                parts.site.note(cx, &Note::LogKnowsMore(address));
                continue;
            }
            parts.deletes.take_back(address, Vec::new(), Fault::Disk);
            self.tally.freed += 1;
            parts.site.note(cx, &Note::OrphanRemoved(address));
        }
        self.orphans = Some(orphans);
        (Turn::Ready(Ready::Freeing), Step::Did)
    }
}
