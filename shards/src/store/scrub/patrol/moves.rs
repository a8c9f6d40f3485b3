//! Records that a patrol writes anew at the end of the log.
//!
//! A record that lies behind damage is found by its index entry alone. Once it is written anew, a
//! rebuild of the index finds it too.

use ron_codec::{address::Address, record::RecordHeader};

use super::{Broken, Parts, Patrol, Step};
use crate::{
    flow::Cx,
    store::{
        flaw::Beside,
        index::{Entry, Location},
        log::{Moving, Relocation},
        notes::Note,
        site::Site,
    },
};

impl Patrol {
    /// Writes a record anew at the end of the log. If the queue has no space for it, the object is
    /// probed again later: by then it may have been moved or deleted.
    pub(super) fn relocate(
        &mut self,
        address: Address,
        entry: Entry,
        record: Vec<u8>,
        flaw: Option<Beside>,
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
        parts.site.note(cx, &Note::NotWrittenAnew(address));
        Step::Did
    }

    fn moved(
        &mut self,
        address: &Address,
        entry: &Entry,
        flaw: Option<Beside>,
        site: Site,
        cx: &mut Cx<'_>,
    ) {
        if let Some(flaw) = flaw {
            self.note_repaired(address, flaw, site, cx);
        } else {
            self.tally.moved += 1;
        }
        let (Location::Segment { segment, .. } | Location::File { segment }) = entry.location;
        let Some(broken) = self.broken.get_mut(&segment).filter(|broken| !broken.reported) else {
            return;
        };
        broken.reported = true;
        let Broken { from, why, .. } = broken;
        site.note(cx, &Note::BrokenSegmentMoved { segment, from: *from, why });
    }
}

/// The record that says in the log what the entry says.
pub(super) fn in_log(address: &Address, entry: &Entry, kept: Option<Vec<u8>>) -> Option<Vec<u8>> {
    match entry.location {
        Location::Segment { .. } => kept,
        Location::File { .. } => {
            let header = RecordHeader::file(*address, entry.size, entry.sequence).ok()?;
            Some(header.encode().to_vec())
        }
    }
}
