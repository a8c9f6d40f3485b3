//! Listing what a node stores, page by page: what is asked, who waits for it, and how the parts of
//! the shards become one page.
//!
//! ```text
//!   GET /objects ─► ListAsk ─► Order::List to every shard
//!                              Report::Listed of each ─► Lists ─► ObjectsPage
//! ```
//!
//! Every shard looks at one entry more than the page may have, so the page is the lowest of all
//! that they found, up to where the first of them came. A page is what there was at a moment that
//! differs from shard to shard; an object that is there all the time is in exactly one page.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ron_codec::address::{ADDRESS_PREFIX, Address};
use ron_io::listing::{ListEntry, ListPage, ListRange};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::limits::{LIST_OBJECTS, LIST_OBJECTS_MAX, LISTS_MAX};

/// What `GET /objects` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectsPage {
    /// By rising address.
    pub objects: Vec<ObjectEntry>,
    /// The `after` of the next page; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Address>,
    /// Partitions that can be neither read nor written, so that their objects are not listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<u16>,
}

/// One object of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    pub addr: Address,
    pub size: u64,
    /// It is known to be damaged, and not given out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub damaged: bool,
}

/// A page that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListAsk {
    /// The lowest and the highest address that begin as wanted.
    first: [u8; 32],
    last: [u8; 32],
    after: Option<Address>,
    pub(crate) limit: u16,
}

/// What is wrong with a query, by the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("limit: allowed: a whole number, 1 to {LIST_OBJECTS_MAX}")]
    Limit,
    #[error("prefix: allowed: up to 64 lowercase hex digits, with or without b3: before them")]
    Prefix,
    #[error("after: allowed: an address, which is b3: and 64 lowercase hex digits")]
    After,
    #[error("there is no field but prefix, after and limit, and each is given once")]
    Field,
}

impl ListAsk {
    /// Parses the query.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub(crate) fn parse(query: &str) -> Result<ListAsk, Wrong> {
        let [mut prefix, mut after, mut limit] = [None; 3];
        for field in query.split('&').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let place = match name {
                "prefix" => &mut prefix,
                "after" => &mut after,
                "limit" => &mut limit,
                _ => return Err(Wrong::Field),
            };
            if place.replace(value).is_some() {
                return Err(Wrong::Field);
            }
        }
        let (first, last) = bounds(&colon(prefix.unwrap_or_default())).ok_or(Wrong::Prefix)?;
        let after = after.map(colon).filter(|after| !after.is_empty());
        let after = after.map(|text| text.parse().map_err(|_| Wrong::After)).transpose()?;
        let limit = limit.map_or(Ok(LIST_OBJECTS), |text| number(text).ok_or(Wrong::Limit))?;
        Ok(ListAsk { first, last, after, limit })
    }

    /// What the shards are to list; `None`: `after` lies behind all that is wanted.
    pub(crate) fn range(&self) -> Option<ListRange> {
        let after = self.after.map(|after| *after.as_bytes());
        let after = after.max(before(self.first));
        let is_empty = after.is_some_and(|after| after >= self.last);
        // One more than is answered, to see whether there is more.
        let max = self.limit + 1;
        (!is_empty).then_some(ListRange { after, last: self.last, max })
    }
}

/// A colon may be written as `%3A` in a query.
fn colon(text: &str) -> String {
    text.replacen("%3A", ":", 1).replacen("%3a", ":", 1)
}

fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number.filter(|number| (1..=LIST_OBJECTS_MAX).contains(number))
}

/// The lowest and the highest address that begin with these hex digits.
fn bounds(prefix: &str) -> Option<([u8; 32], [u8; 32])> {
    let digits = prefix.strip_prefix(ADDRESS_PREFIX).unwrap_or(prefix);
    let (mut first, mut last) = ([0; 32], [0xff; 32]);
    if digits.len() > 2 * first.len() {
        return None;
    }
    for (at, digit) in digits.bytes().enumerate() {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        let shift = if at % 2 == 0 { 4 } else { 0 };
        first[at / 2] |= value << shift;
        last[at / 2] &= value << shift | !(0xf << shift);
    }
    Some((first, last))
}

/// The address before this one; `None`: it is the lowest.
fn before(mut address: [u8; 32]) -> Option<[u8; 32]> {
    for byte in address.iter_mut().rev() {
        let (less, borrowed) = byte.overflowing_sub(1);
        *byte = less;
        if !borrowed {
            return Some(address);
        }
    }
    None
}

impl ObjectsPage {
    /// Puts what the shards have of a range together.
    pub(crate) fn of(pages: Vec<ListPage>, limit: u16) -> ObjectsPage {
        let horizon = pages.iter().filter_map(|page| page.until).min();
        let is_seen = |entry: &ListEntry| horizon.is_none_or(|horizon| entry.digest <= horizon);
        let (mut objects, mut absent) = (Vec::new(), Vec::new());
        for page in pages {
            objects.extend(page.objects.into_iter().filter(is_seen));
            absent.extend(page.absent);
        }
        objects.sort_unstable_by_key(|entry| entry.digest);
        absent.sort_unstable();
        let is_cut = objects.len() > usize::from(limit);
        objects.truncate(usize::from(limit));
        let last = objects.last().map(|entry| entry.digest).filter(|_| is_cut);
        let objects = objects.iter().map(|entry| ObjectEntry {
            addr: Address::from_bytes(entry.digest),
            size: entry.size,
            damaged: entry.damaged,
        });
        let next = last.or(horizon).map(Address::from_bytes);
        ObjectsPage { objects: objects.collect(), next, absent }
    }
}

/// All pages that are being listed.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    last: u64,
    waiting: BTreeMap<u64, Parts>,
}

/// What the shards have answered: all their pages, or `None` when one cannot list.
type Outcome = Option<Vec<ListPage>>;

/// The parts of one page.
#[derive(Debug)]
struct Parts {
    /// By shard.
    pages: Vec<Option<ListPage>>,
    tell: oneshot::Sender<Outcome>,
}

/// One page in progress; it is given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Listing<'a> {
    lists: &'a Lists,
    id: u64,
    outcome: oneshot::Receiver<Outcome>,
}

impl Lists {
    /// Prepares to receive the parts of so many shards, under a number that was never used before;
    /// `None` when [`LISTS_MAX`] wait already.
    pub(crate) fn begin(&self, shards: usize) -> Option<Listing<'_>> {
        let (tell, outcome) = oneshot::channel();
        let mut pending = self.pending();
        if pending.waiting.len() >= LISTS_MAX {
            return None;
        }
        pending.last += 1;
        let id = pending.last;
        pending.waiting.insert(id, Parts { pages: vec![None; shards], tell });
        Some(Listing { lists: self, id, outcome })
    }

    /// Takes the part of a shard; a page that nobody waits for is nothing to worry about.
    pub(crate) fn deliver(&self, id: u64, shard: u16, page: Option<Box<ListPage>>) {
        let mut pending = self.pending();
        let Some(parts) = pending.waiting.get_mut(&id) else { return };
        if let Some(page) = page {
            let Some(place) = parts.pages.get_mut(usize::from(shard)) else { return };
            *place = Some(*page);
            if parts.pages.iter().any(Option::is_none) {
                return;
            }
        }
        let Some(parts) = pending.waiting.remove(&id) else { return };
        // The only error is that the waiting task is just leaving.
        let _ = parts.tell.send(parts.pages.into_iter().collect());
    }

    /// Ends all waits.
    pub(crate) fn give_up(&self) {
        self.pending().waiting.clear();
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listing<'_> {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the parts of all shards; `None` when they will not come.
    pub(crate) async fn outcome(&mut self) -> Option<Outcome> {
        (&mut self.outcome).await.ok()
    }
}

impl Drop for Listing<'_> {
    fn drop(&mut self) {
        self.lists.pending().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests;
