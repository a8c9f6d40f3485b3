//! Paging through the index: a patrol probes the objects that sweeps do not reach.
//!
//! These are objects in files of their own, and records that a rebuild of the index would not find.

use std::collections::VecDeque;

use ron_codec::address::Address;

use super::{Parts, Patrol, Ready, State, Step};
use crate::{
    limits::SCRUB_PAGE_ENTRIES,
    machine::Turn,
    store::{
        index::{Entry, Location},
        log::Log,
    },
};

impl Patrol {
    pub(super) fn page(
        &mut self,
        after: Option<Address>,
        mut page: VecDeque<(Address, Entry)>,
        parts: &Parts<'_>,
    ) -> (State, Step) {
        if page.is_empty() {
            page = parts.index.page(after.as_ref(), SCRUB_PAGE_ENTRIES).into();
            if page.is_empty() {
                return (Turn::Ready(Ready::Freeing), Step::Did);
            }
        }
        let mut at = after;
        while let Some((address, entry)) = page.pop_front() {
            at = Some(address);
            let own_file = matches!(entry.location, Location::File { .. });
            if (own_file || self.is_hidden(&entry, parts.log)) && !self.settled.contains(&address) {
                self.probe(address);
                break;
            }
        }
        (Turn::Ready(Ready::Paging { after, at, page }), Step::Did)
    }

    /// Whether a rebuild of the index would not find the entry's record in the log. Where the
    /// record of an object file lies in its segment is not known, so all of them count as hidden.
    pub(super) fn is_hidden(&self, entry: &Entry, log: &Log) -> bool {
        log.lacks(entry)
            || match entry.location {
                Location::Segment { segment, offset } => {
                    let broken = self.broken.get(&segment);
                    broken.is_some_and(|broken| broken.from <= u64::from(offset))
                }
                Location::File { segment } => self.broken.contains_key(&segment),
            }
    }
}
