//! What the records of the log say: which objects there are, and which were deleted.
//!
//! Of several records of an object the highest sequence counts, in whatever order they are met.

use ron_codec::{address::Address, record::RecordKind};
use ron_io::ports::DiskOp;

use super::{
    Boot,
    error::Why,
    step::{After, Step},
};
use crate::{
    flow::Cx,
    store::{
        damage,
        flaw::{Flaw, Wrong},
        index::{Entry, Location},
        notes::Note,
        scan::Found,
    },
};

impl Boot {
    pub(super) fn take_record(&mut self, segment: u32, found: &Found, cx: &mut Cx<'_>) {
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
            self.site.note(cx, &Note::RecordDamaged { address: digest, segment, offset });
            // An older copy is better than none that is whole.
            if known.is_some() {
                return;
            }
            damage::report(&digest, &Flaw::Wrong(Wrong::Record), cx);
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
            self.site.note(cx, &Note::Strangers { segment, owner });
        }
        self.hide(segment);
    }

    fn take_tombstone(&mut self, segment: u32, digest: Address, sequence: u64, cx: &mut Cx<'_>) {
        self.index().count_tombstone(segment);
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
    pub(super) fn unlink_next(&mut self, cx: &mut Cx<'_>) -> Result<After, Why> {
        // What is hidden may be that such an object was stored again: its file is better kept.
        let address = loop {
            let Some(address) = self.unlinks.pop_first() else { return self.ready(cx) };
            let deleted = self.tombstones.get(&address);
            if deleted.is_some_and(|(sequence, _)| self.is_behind_all_hidden(*sequence)) {
                break address;
            }
        };
        let path = cx.config.layout.object_path(self.site.number, &address);
        Ok(self.act(Step::Unlink(address), DiskOp::Remove { path, durable: true }, cx))
    }
}
