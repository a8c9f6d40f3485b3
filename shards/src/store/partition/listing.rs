//! What a partition shows of its index to those who list objects.

use ron_codec::address::Address;
use ron_io::listing::ListEntry;

use super::Partition;
use crate::{
    flow::Cx,
    store::{index::Entry, listing::Seen},
};

impl Partition {
    /// Looks at up to `max` entries behind `after` and up to `last`, and adds the objects among
    /// them to `objects`.
    pub(in crate::store) fn list(
        &self,
        after: Option<Address>,
        last: Address,
        max: usize,
        cx: &Cx<'_>,
        objects: &mut Vec<ListEntry>,
    ) -> Seen {
        let entries = self.index.page(after.as_ref(), max);
        let mut seen = Seen { entries: 0, last: None, at_end: entries.len() < max };
        for (address, entry) in entries {
            if address > last {
                seen.at_end = true;
                break;
            }
            seen.entries += 1;
            seen.last = Some(address);
            if is_object(&entry) {
                let damaged = cx.damage.bars(&address) || self.is_lost(&entry);
                objects.push(ListEntry { digest: *address.as_bytes(), size: entry.size, damaged });
            }
        }
        seen
    }
}

/// Whether an entry of the index is of an object: the one place that leaves others out of lists.
fn is_object(_: &Entry) -> bool {
    // Every entry is, as long as the index knows no other kind.
    true
}
