//! Listing what is stored: a shard's part of one page, in one step.
//!
//! Partitions are ranges of addresses, so those of a shard in the order of their numbers are its
//! objects in the order of their addresses. A step looks at so many entries as are asked for and
//! says how far it came; it reads nothing but memory.

use ron_codec::address::Address;
use ron_io::{
    listing::{ListPage, ListRange},
    ports::{Act, Report},
};

use super::{Place, Store};
use crate::flow::Cx;

impl Store {
    /// Lists objects of this shard. The answer is a report, at once.
    pub fn list(&self, id: u64, range: ListRange, cx: &mut Cx<'_>) {
        let page = self.is_ready().then(|| Box::new(self.page(range, cx)));
        cx.acts.push(Act::Report(Report::Listed { shard: cx.config.shard, id, page }));
    }

    fn page(&self, range: ListRange, cx: &Cx<'_>) -> ListPage {
        let mut after = range.after.map(Address::from_bytes);
        let last = Address::from_bytes(range.last);
        let first = after.map_or(0, |after| after.partition(self.partitions));
        let numbers = first..=last.partition(self.partitions);
        let mut page = ListPage::default();
        let mut left = usize::from(range.max);
        for (site, place) in self.sites.iter().zip(&self.places) {
            if !numbers.contains(&site.number) {
                continue;
            }
            if left == 0 {
                page.until = after.map(|after| *after.as_bytes());
                break;
            }
            match place {
                Place::Serving(partition) => {
                    let seen = partition.list(after, last, left, cx, &mut page.objects);
                    left -= seen.entries;
                    after = seen.last.or(after);
                    if left == 0 && !seen.at_end {
                        page.until = after.map(|after| *after.as_bytes());
                        break;
                    }
                }
                Place::Absent => page.absent.push(site.number),
                Place::Cold | Place::Booting(_) | Place::Failed => {
                    unreachable!("a store that is ready has opened its partitions")
                }
            }
        }
        page
    }
}

/// What was looked at in one partition.
pub(super) struct Seen {
    pub(super) entries: usize,
    /// The last address of it.
    pub(super) last: Option<Address>,
    /// Whether the range ends before what was not looked at.
    pub(super) at_end: bool,
}
