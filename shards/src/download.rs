//! The delivery of a range of one object, in order.
//!
//! ```text
//!        open              begin             all taken
//!  New ────────► Opening ────────► Flowing ────────────► Done
//! ```
//!
//! A session opens the object, learns its size, decides the range, and then alternates: `pump`
//! asks for groups ahead of what was taken, `on_group` keeps what comes, in any order, and `take`
//! gives the next bytes:
//!
//! ```text
//!               taken │ window: kept, or asked for  │ not yet asked for
//!  object  ───────────┼──────────┬──────────┬───────┼───────────────────
//!  groups     0     1 │  2 kept  │ 3 asked  │4 kept │   5     6     7
//!                   next                         asked
//! ```
//!
//! The window bounds the memory one reader holds. A window of up to `NEAR_GROUPS` is an array in
//! place, so a download that needs no more allocates nothing. It begins with `window_groups`. For a
//! session that delivers nothing else meanwhile it doubles, up to [`WINDOW_GROUPS_MAX`], whenever
//! the reader has to wait for the disk and the disk has little to do: one reader alone needs many
//! reads in progress to get what a disk can give. When it is the reader that is behind, or reads
//! have to wait, the window is as small as at first.
//!
//! When a group that was asked for waits for memory, the download drops all that it keeps
//! behind the next group, and asks for one at a time until that has come: what it keeps may be what
//! it waits for. It does the same for a while when a group behind the next found no place to wait:
//! so many want something that only what is needed next finds a place.
//!
//! This module gives out only what was verified, and nothing outside the range; it does not know
//! what a failed group means for an answer that has begun.

use std::ops::Range;

use ron_codec::{
    address::Address,
    limits::GROUP_LEN,
    outboard::{group_len, groups_of_range},
};
use ron_io::arena::Block;

use crate::{
    flow::{Ask, Body, Cx, StreamId, Verified},
    limits::{
        READ_AHEAD_PAUSE_NS, READER_BEHIND_NS, READS_BUSY, READS_IN_PROGRESS_MAX, WINDOW_GROUPS,
        WINDOW_GROUPS_MAX,
    },
};

/// Groups that a download keeps without allocating.
const NEAR_GROUPS: usize = WINDOW_GROUPS as usize;

/// Groups that came and are not wholly taken, each at its number modulo the places there are. Those
/// in progress are never more than the places, so no two share one.
#[derive(Debug)]
enum Kept {
    Near([Option<Verified>; NEAR_GROUPS]),
    Far(Box<[Option<Verified>; WINDOW_GROUPS_MAX]>),
}

impl Kept {
    const NONE: Kept = Kept::Near([const { None }; NEAR_GROUPS]);

    fn place(&mut self, index: u64) -> &mut Option<Verified> {
        match self {
            Kept::Near(places) => &mut places[(index % NEAR_GROUPS as u64) as usize],
            Kept::Far(places) => &mut places[(index % WINDOW_GROUPS_MAX as u64) as usize],
        }
    }

    fn has(&self, index: u64) -> bool {
        match self {
            Kept::Near(places) => places[(index % NEAR_GROUPS as u64) as usize].is_some(),
            Kept::Far(places) => places[(index % WINDOW_GROUPS_MAX as u64) as usize].is_some(),
        }
    }

    /// Makes places for a window of so many groups.
    fn widen(&mut self, window: u64) {
        if let Kept::Near(near) = self
            && window > NEAR_GROUPS as u64
        {
            let groups = near.each_mut().map(Option::take);
            *self = Kept::Far(Box::new([const { None }; WINDOW_GROUPS_MAX]));
            for group in groups.into_iter().flatten() {
                let index = group.index();
                *self.place(index) = Some(group);
            }
        }
    }
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Opening,
    /// Also when nothing remains: that is `next == end`.
    Flowing,
}

/// One range of one object on its way to a session, or several, one after the other.
///
/// Calls come in this order: `open`, then after `Reply::Opened` `begin`, then `pump`, `on_group`
/// and `take` as often as it takes until `is_done`; then, for each further range, `go_on` and the
/// same again. Dropping it drops all groups; replies that come later belong to nobody.
#[derive(Debug)]
pub struct Download {
    stream: StreamId,
    address: Address,
    phase: Phase,
    /// Bytes of the object.
    size: u64,
    /// The bytes of the object that are not taken yet.
    next: u64,
    end: u64,
    /// First group that was not asked for.
    asked: u64,
    /// Groups that may be kept or asked for beyond `window_groups`.
    ahead: u64,
    /// Whether the last bytes taken were not in memory for long.
    cold: bool,
    /// Since when, in `Now::mono_ns`, all that was asked for is there and no space is left for it.
    behind_since: Option<u64>,
    /// Whether the session could have sent a group that was not there yet.
    starved: bool,
    /// Memory is short: no group is asked for but the next, until one comes.
    under_pressure: bool,
    /// Until when, in `Now::mono_ns`, no group is asked for but the next.
    crowded_until: u64,
    /// Whether groups were dropped that were asked for: they may still come.
    dropping: bool,
    /// Whether anything was taken.
    begun: bool,
    kept: Kept,
    /// The group that was asked for with the object.
    opening: Option<u64>,
}

impl Download {
    pub fn new(stream: StreamId, address: Address) -> Download {
        Download {
            stream,
            address,
            phase: Phase::New,
            size: 0,
            next: 0,
            end: 0,
            asked: 0,
            ahead: 0,
            cold: false,
            behind_since: None,
            starved: false,
            under_pressure: false,
            crowded_until: 0,
            dropping: false,
            begun: false,
            kept: Kept::NONE,
            opening: None,
        }
    }

    /// Asks for the object, and with `first` also for the group of this byte.
    pub fn open(&mut self, first: Option<u64>, cx: &mut Cx<'_>) {
        assert_eq!(self.phase, Phase::New, "a download is opened once");
        self.phase = Phase::Opening;
        self.opening = first.map(|byte| byte / GROUP_LEN as u64);
        cx.asks.push_back((self.stream, Ask::Open { address: self.address, first }));
    }

    /// Starts the delivery of the bytes `range` of the object, which is `size` bytes long.
    /// `first` is what `Reply::Opened` brought; it is dropped unless the range begins with it.
    ///
    /// # Panics
    /// If the range does not lie within the object, or the download was not opened.
    pub fn begin(&mut self, range: Range<u64>, size: u64, first: Option<Verified>) {
        assert_eq!(self.phase, Phase::Opening, "a download is opened, then begun, once each");
        assert!(range.start <= range.end && range.end <= size, "{range:?} of {size} bytes");
        self.phase = Phase::Flowing;
        (self.size, self.next, self.end) = (size, range.start, range.end);
        self.asked = self.groups().start;
        if let Some(group) = first
            && !self.groups().is_empty()
            && group.index() == self.asked
        {
            self.asked += 1;
            self.on_group(group);
        }
    }

    /// Goes on with another range of the same object, now that all of the last one was taken.
    ///
    /// # Panics
    /// If something of the last range is left, or the range does not lie within the object.
    pub fn go_on(&mut self, range: Range<u64>) {
        assert!(self.is_done(), "{} bytes are left", self.remaining());
        assert!(range.start <= range.end && range.end <= self.size, "{range:?} of {}", self.size);
        (self.next, self.end) = (range.start, range.end);
        self.asked = self.groups().start;
    }

    /// Asks for groups until as many are in progress, asked for or kept, as the window allows, or
    /// their bytes are at least `space`, the bytes the session may still queue.
    pub fn pump(&mut self, space: usize, cx: &mut Cx<'_>) {
        self.ahead = 0;
        self.ask(space as u64, cx);
    }

    /// As `pump`, for a session that delivers nothing else meanwhile: the window may grow, and
    /// `space` with it.
    pub fn pump_ahead(&mut self, space: usize, cx: &mut Cx<'_>) {
        self.adapt(space, cx);
        self.ask((space as u64).saturating_add(self.ahead * GROUP_LEN as u64), cx);
    }

    fn ask(&mut self, space: u64, cx: &mut Cx<'_>) {
        let crowded = cx.now.mono_ns < self.crowded_until;
        let one_group = self.under_pressure || crowded || cx.memory.is_tight();
        let window = if one_group { 1 } else { window(cx) + self.ahead };
        let groups = self.groups();
        self.kept.widen(window.min(groups.end - groups.start));
        while self.asked < groups.end
            && self.asked - groups.start < window
            && self.in_progress() < space
        {
            let begins = !self.begun;
            let ahead = self.asked > groups.start;
            let ask = Ask::Group { address: self.address, index: self.asked, begins, ahead };
            cx.asks.push_back((self.stream, ask));
            self.asked += 1;
        }
    }

    /// Lets the window follow the side that is behind, the reader or the disk. Where the object's
    /// owner is another shard, what the own disk has to do stands for its.
    fn adapt(&mut self, space: usize, cx: &Cx<'_>) {
        let starved = std::mem::take(&mut self.starved);
        let all_came = || {
            let mut asked = self.groups().start..self.asked;
            asked.all(|index| self.kept.has(index))
        };
        // What comes in one go may well fill the space for a moment.
        self.behind_since = match self.behind_since {
            _ if space > 0 || !all_came() => None,
            None => Some(cx.now.mono_ns),
            since => since,
        };
        let behind = |since| cx.now.mono_ns.saturating_sub(since) >= READER_BEHIND_NS;
        let busy = cx.tickets.in_progress();
        if self.behind_since.is_some_and(behind) || busy >= READS_IN_PROGRESS_MAX {
            self.ahead = 0;
        } else if starved && busy < READS_BUSY {
            let window = window(cx);
            let doubled = 2 * (window + self.ahead);
            self.ahead = doubled.min(WINDOW_GROUPS_MAX as u64) - window;
        }
    }

    /// A group that was asked for is there. One that was given up meanwhile is dropped.
    ///
    /// # Panics
    /// If it was not asked for, came before, or has not the length it must have: the store would
    /// have answered wrongly.
    pub fn on_group(&mut self, group: Verified) {
        let index = group.index();
        let asked = self.groups().start..self.asked;
        let place = self.kept.place(index);
        if self.dropping && (!asked.contains(&index) || place.is_some()) {
            return;
        }
        assert!(asked.contains(&index), "group {index} came, asked for were {asked:?}");
        assert_eq!(group.len(), group_len(self.size, index), "bytes of group {index}");
        assert!(place.is_none(), "group {index} came twice");
        *place = Some(group);
        self.under_pressure &= index != asked.start;
    }

    /// Whether a group was asked for and has yet to come.
    pub fn wants(&self, index: u64) -> bool {
        (self.groups().start..self.asked).contains(&index) && !self.kept.has(index)
    }

    /// Whether the group that was asked for is not the one that is sent next: others are sent or
    /// come before it.
    pub fn is_ahead(&self, index: u64) -> bool {
        self.wants(index) && index > self.groups().start
    }

    /// Memory is short: gives up what comes behind the next group, kept or asked for.
    pub fn drop_readahead(&mut self, cx: &mut Cx<'_>) {
        let next = self.groups().start;
        if self.phase != Phase::Flowing || self.asked <= next {
            return;
        }
        self.dropping |= self.asked > next + 1;
        self.give_up(next + 1, cx);
        (self.asked, self.ahead) = (next + 1, 0);
        self.under_pressure = true;
    }

    /// A group that was asked for ahead of its turn found no place to wait. If it is the next by
    /// now, the next `pump` asks for it again.
    pub fn crowded(&mut self, index: u64, cx: &mut Cx<'_>) {
        if !self.wants(index) {
            return;
        }
        self.crowded_until = cx.now.mono_ns.saturating_add(READ_AHEAD_PAUSE_NS);
        match self.is_ahead(index) {
            true => self.drop_readahead(cx),
            false => self.withdraw(cx),
        }
    }

    /// The question about the object was answered.
    pub fn answered(&mut self) {
        self.opening = None;
    }

    /// As `drop_readahead`, and the next group is not waited for either, unless it came: the
    /// session still has something to send, and asks for it when that has left.
    pub fn withdraw(&mut self, cx: &mut Cx<'_>) {
        self.drop_readahead(cx);
        let next = self.groups().start;
        if self.phase == Phase::Flowing && self.wants(next) {
            self.give_up(next, cx);
            (self.asked, self.dropping) = (next, true);
        }
    }

    /// Gives up all that is kept or asked for: it is asked for again when it can be sent.
    pub fn release(&mut self, cx: &mut Cx<'_>) {
        let next = self.groups().start;
        if self.phase == Phase::Flowing && self.asked > next {
            self.give_up(next, cx);
            (self.asked, self.ahead, self.dropping) = (next, 0, true);
        }
    }

    /// Whether the object is one of this shard's.
    pub fn is_local(&self, cx: &Cx<'_>) -> bool {
        cx.config.layout.owner(&self.address).1 == cx.config.shard
    }

    /// Whether memory was short when the next group was asked for, and it has not come.
    pub fn is_under_pressure(&self) -> bool {
        self.under_pressure
    }

    /// The end of a download that was not taken to its end: nothing is kept, and what was asked for
    /// is wanted no more.
    pub fn cancel(&mut self, cx: &mut Cx<'_>) {
        match (self.phase, self.opening.take()) {
            (Phase::Flowing, _) if self.is_done() => {}
            (Phase::Flowing, _) => {
                self.give_up(self.groups().start, cx);
                self.next = self.end;
            }
            (Phase::Opening, Some(index)) => {
                let ask = Ask::Cancel { address: self.address, index };
                cx.asks.push_back((self.stream, ask));
            }
            (Phase::New | Phase::Opening, _) => {}
        }
    }

    /// Drops the groups from this one on, kept or asked for.
    fn give_up(&mut self, from: u64, cx: &mut Cx<'_>) {
        for index in from..self.asked {
            if self.kept.place(index).take().is_none() {
                let ask = Ask::Cancel { address: self.address, index };
                cx.asks.push_back((self.stream, ask));
            }
        }
    }

    /// Bytes of memory that are kept besides the value itself and its blocks.
    pub fn heap(&self) -> usize {
        match &self.kept {
            Kept::Near(_) => 0,
            Kept::Far(places) => size_of_val(&**places),
        }
    }

    /// The block of a group that is kept.
    pub fn held(&self) -> Option<&Block> {
        let kept = match &self.kept {
            Kept::Near(places) => places.iter().flatten().next(),
            Kept::Far(places) => places.iter().flatten().next(),
        };
        kept.map(Verified::block)
    }

    /// The next bytes, at most `max` and never from two groups. `None` until they are there, and
    /// where `max` is 0 or all was taken.
    pub fn take(&mut self, max: usize) -> Option<Body> {
        if max == 0 || self.next == self.end {
            return None;
        }
        let index = self.next / GROUP_LEN as u64;
        let group_start = index * GROUP_LEN as u64;
        let place = self.kept.place(index);
        let Some(group) = place else {
            // What is hot comes from memory, and the next of it at once.
            self.starved = self.cold && self.asked > index;
            return None;
        };
        let group_end = (group_start + group.len() as u64).min(self.end);
        let until = self.next.saturating_add(max as u64).min(group_end);
        let body = group.body((self.next - group_start) as usize, (until - group_start) as usize);
        if until == group_end {
            *place = None;
        }
        (self.next, self.begun) = (until, true);
        self.cold = !body.is_hot();
        Some(body)
    }

    /// All that is left of the next group, if it is at most `max`: a group sent in pieces costs
    /// calls for each, and short pieces a copy.
    pub fn take_whole(&mut self, max: usize) -> Option<Body> {
        let group_end = (self.next / GROUP_LEN as u64 + 1) * GROUP_LEN as u64;
        let left = group_end.min(self.end) - self.next;
        if left > max as u64 { None } else { self.take(max) }
    }

    /// Whether the whole range was taken.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Flowing && self.next == self.end
    }

    /// Bytes of the range that were not taken yet; 0 before `begin`.
    pub fn remaining(&self) -> u64 {
        self.end - self.next
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The groups that are not wholly taken.
    fn groups(&self) -> Range<u64> {
        groups_of_range(self.next, self.end)
    }

    /// Bytes of the range that were asked for and not taken.
    pub fn in_progress(&self) -> u64 {
        (self.asked * GROUP_LEN as u64).min(self.end).saturating_sub(self.next)
    }
}

/// Groups of a window that has not grown.
fn window(cx: &Cx<'_>) -> u64 {
    cx.config.window_groups.clamp(1, WINDOW_GROUPS_MAX as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use proptest::prelude::*;
    use ron_codec::outboard::group_count;

    const GROUP: u64 = GROUP_LEN as u64;

    fn source(size: u64) -> Vec<u8> {
        (0..size).map(|n| (n ^ n >> 8 ^ n >> 16) as u8).collect()
    }

    fn group(bench: &mut Bench, source: &[u8], index: u64) -> Verified {
        let start = (index * GROUP) as usize;
        let bytes = &source[start..source.len().min(start + GROUP_LEN)];
        Verified::vouch(index, bench.block(bytes), false)
    }

    fn kept(download: &Download) -> usize {
        match &download.kept {
            Kept::Near(places) => places.iter().flatten().count(),
            Kept::Far(places) => places.iter().flatten().count(),
        }
    }

    fn asked(bench: &mut Bench) -> Vec<u64> {
        let index = |ask| match ask {
            (_, Ask::Group { index, .. }) => Some(index),
            (_, Ask::Cancel { .. }) => None,
            other => panic!("{other:?}"),
        };
        bench.asks.drain(..).filter_map(index).collect()
    }

    fn opened(bench: &mut Bench, first: Option<u64>) -> Download {
        let mut download = Download::new(Bench::STREAM, Address::of(b"an object"));
        assert!(!download.is_done());
        download.open(first, &mut bench.cx());
        let open = bench.asks.pop_front();
        assert!(matches!(open, Some((_, Ask::Open { first: f, .. })) if f == first));
        download
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// Whatever the range, the window, the order of replies, the sizes of takes and the
        /// shortages of memory, what arrives is the slice of the source, and the window is never
        /// exceeded.
        #[test]
        fn delivers_the_slice_of_the_source(
            size in prop_oneof![0..=4 * GROUP + 1, 0..30 * GROUP],
            ends: (prop::sample::Index, prop::sample::Index),
            window in 0u64..40,
            with_first: bool,
            alone: bool,
            mut shortages in 0u32..20,
            steps in prop::collection::vec(
                (any::<prop::sample::Index>(), 0usize..3 * GROUP_LEN, 1usize..2 * GROUP_LEN),
                1..40,
            ),
        ) {
            let (a, b) = (ends.0.index(size as usize + 1), ends.1.index(size as usize + 1));
            let (start, end) = (a.min(b), a.max(b));
            let source = source(size);
            let mut bench = Bench::new(64);
            bench.config.window_groups = window;
            let mut download = opened(&mut bench, with_first.then_some(start as u64));
            let has_first = with_first && (start as u64) < size;
            let first = has_first.then(|| group(&mut bench, &source, start as u64 / GROUP));
            download.begin(start as u64..end as u64, size, first);
            let least = window.clamp(1, WINDOW_GROUPS_MAX as u64);
            let (mut got, mut pending, mut seen) = (Vec::new(), Vec::new(), 0);
            let plenty = shortages == 0;
            for (which, space, max) in steps.iter().cycle() {
                if shortages > 0 && max % 3 == 0 {
                    shortages -= 1;
                    let all = space % 2 == 0;
                    match all {
                        true => download.release(&mut bench.cx()),
                        false => download.drop_readahead(&mut bench.cx()),
                    }
                    let kept = kept(&download);
                    prop_assert!(kept <= usize::from(!all), "{} groups kept", kept);
                }
                let before = pending.len();
                match alone {
                    true => download.pump_ahead(*space, &mut bench.cx()),
                    false => download.pump(*space, &mut bench.cx()),
                }
                pending.extend(asked(&mut bench));
                seen += pending.len() - before;
                let may_ask = *space > 0 || download.ahead > 0;
                prop_assert!(may_ask || pending.len() == before, "asked without space");
                let kept = kept(&download);
                prop_assert!(least + download.ahead <= WINDOW_GROUPS_MAX as u64);
                prop_assert!(!plenty || kept + pending.len() <= WINDOW_GROUPS_MAX);
                if !pending.is_empty() {
                    let index = pending.swap_remove(which.index(pending.len()));
                    download.on_group(group(&mut bench, &source, index));
                }
                while let Some(slice) = download.take(*max) {
                    prop_assert!(!slice.is_empty() && slice.len() <= *max);
                    got.extend_from_slice(slice.bytes());
                }
                prop_assert_eq!(download.remaining(), (end - start - got.len()) as u64);
                if download.is_done() || steps.iter().all(|(_, space, _)| *space == 0) {
                    break;
                }
            }
            if download.is_done() {
                prop_assert_eq!(&got, &source[start..end]);
            }
            if download.is_done() && plenty {
                prop_assert!(pending.is_empty());
                let groups = groups_of_range(start as u64, end as u64);
                let touched = groups.end - groups.start;
                prop_assert_eq!(seen as u64, touched - u64::from(has_first && touched > 0));
            }
        }
    }

    #[test]
    fn asks_for_no_more_than_the_window_and_the_room() {
        let mut bench = Bench::new(16);
        let source = source(10 * GROUP);
        let mut download = opened(&mut bench, None);
        download.begin(10..9 * GROUP, 10 * GROUP, None);
        download.pump(0, &mut bench.cx());
        assert_eq!(asked(&mut bench), [0; 0]);
        download.pump(1, &mut bench.cx());
        assert_eq!(asked(&mut bench), [0]);
        download.pump(GROUP_LEN - 10, &mut bench.cx());
        assert_eq!(asked(&mut bench), [0; 0], "the first group fills the space exactly");
        download.pump(GROUP_LEN - 9, &mut bench.cx());
        assert_eq!(asked(&mut bench), [1]);
        download.pump(usize::MAX, &mut bench.cx());
        assert_eq!(asked(&mut bench), [2, 3], "the window is four groups");
        download.on_group(group(&mut bench, &source, 3));
        assert!(download.take(1).is_none(), "it is not its turn");
        download.on_group(group(&mut bench, &source, 0));
        assert_eq!(download.take(100).unwrap().bytes(), &source[10..110]);
        download.pump(usize::MAX, &mut bench.cx());
        assert_eq!(asked(&mut bench), [0; 0], "a group begun is still kept");
        assert_eq!(download.take(usize::MAX).unwrap().len(), GROUP_LEN - 110);
        download.pump(usize::MAX, &mut bench.cx());
        assert_eq!(asked(&mut bench), [4]);
    }

    #[test]
    fn the_window_grows_while_the_disk_is_behind_and_not_when_the_reader_is() {
        let mut bench = Bench::new(64);
        let source = source(100 * GROUP);
        let mut download = opened(&mut bench, None);
        download.begin(0..100 * GROUP, 100 * GROUP, None);
        let space = 4 * GROUP_LEN;
        download.pump_ahead(space, &mut bench.cx());
        for (window, newly) in [(4, 4), (8, 5), (16, 9), (32, 17), (32, 1)] {
            assert_eq!(asked(&mut bench).len(), newly);
            let index = download.groups().start;
            assert_eq!(download.asked - index, window);
            // One is sent, and the one behind it would be, were it there.
            download.on_group(group(&mut bench, &source, index));
            assert_eq!(download.take(usize::MAX).unwrap().len(), GROUP_LEN);
            assert!(download.take(usize::MAX).is_none());
            download.pump_ahead(space, &mut bench.cx());
        }
        for index in download.groups().start..download.asked {
            download.pump_ahead(0, &mut bench.cx());
            assert_eq!(download.ahead, 28, "more is to come");
            download.on_group(group(&mut bench, &source, index));
        }
        for (after, ahead) in [(0, 28), (READER_BEHIND_NS - 1, 28), (READER_BEHIND_NS, 0)] {
            let mut cx = bench.cx();
            cx.now.mono_ns = after;
            download.pump_ahead(0, &mut cx);
            assert_eq!(download.ahead, ahead, "the reader is behind for {after} ns");
        }
        assert!(download.take(usize::MAX).is_some());
        let mut starve = |acts: usize| {
            while bench.tickets.in_progress() < acts {
                bench.tickets.issue(crate::flow::Waiter::Nobody);
            }
            download.starved = true;
            download.pump_ahead(space, &mut bench.cx());
            download.ahead
        };
        assert_eq!(starve(READS_BUSY - 1), 4);
        assert_eq!(starve(READS_BUSY), 4, "the disk has enough to do");
        assert_eq!(starve(READS_IN_PROGRESS_MAX), 0, "and now too much");
    }

    #[test]
    fn while_memory_is_short_only_the_next_group_is_kept_or_asked_for() {
        let mut bench = Bench::new(16);
        let source = source(10 * GROUP);
        let mut download = opened(&mut bench, None);
        download.drop_readahead(&mut bench.cx());
        download.begin(0..10 * GROUP, 10 * GROUP, None);
        download.pump(usize::MAX, &mut bench.cx());
        assert_eq!(asked(&mut bench), [0, 1, 2, 3]);
        download.on_group(group(&mut bench, &source, 2));
        let before = bench.memory.pages().free;
        download.drop_readahead(&mut bench.cx());
        assert_eq!(bench.memory.pages().free, before + GROUP_LEN / 4096, "a block is back");
        download.pump(usize::MAX, &mut bench.cx());
        assert_eq!(asked(&mut bench), [0; 0], "the next was asked for");
        download.on_group(group(&mut bench, &source, 1));
        download.on_group(group(&mut bench, &source, 0));
        download.pump(usize::MAX, &mut bench.cx());
        assert_eq!(asked(&mut bench), [1, 2, 3], "what was dropped is asked for again");
        for index in [3, 1, 2, 2] {
            download.on_group(group(&mut bench, &source, index));
        }
        let mut got = Vec::new();
        while let Some(slice) = download.take(usize::MAX) {
            got.extend_from_slice(slice.bytes());
        }
        assert_eq!(got, &source[..4 * GROUP_LEN]);
        download.pump(usize::MAX, &mut bench.cx());
        assert_eq!(asked(&mut bench), [4, 5, 6, 7]);
        download.on_group(group(&mut bench, &source, 4));
        download.drop_readahead(&mut bench.cx());
        download.pump(usize::MAX, &mut bench.cx());
        assert_eq!(asked(&mut bench), [0; 0], "else it would be notified again, without end");
        assert!(download.take(usize::MAX).is_some());
        download.pump(usize::MAX, &mut bench.cx());
        assert_eq!(asked(&mut bench), [5]);
    }

    #[test]
    fn what_comes_from_memory_needs_no_larger_window() {
        let mut bench = Bench::new(64);
        let mut download = opened(&mut bench, None);
        download.begin(0..50 * GROUP, 50 * GROUP, None);
        download.pump_ahead(usize::MAX, &mut bench.cx());
        let block = bench.block(&source(GROUP));
        download.on_group(Verified::vouch(0, block, true));
        assert!(download.take(usize::MAX).is_some() && download.take(usize::MAX).is_none());
        download.pump_ahead(usize::MAX, &mut bench.cx());
        assert_eq!(download.ahead, 0);
    }

    #[test]
    fn a_first_group_that_does_not_begin_the_range_is_dropped() {
        let source = source(3 * GROUP);
        for (range, index, used) in [
            (GROUP..2 * GROUP, 0, false),
            (GROUP..2 * GROUP, 1, true),
            (GROUP..2 * GROUP, 2, false),
            (GROUP..GROUP, 1, false),
        ] {
            let mut bench = Bench::new(16);
            let mut download = opened(&mut bench, Some(0));
            let first = group(&mut bench, &source, index);
            download.begin(range.clone(), 3 * GROUP, Some(first));
            assert_eq!(download.take(1).is_some(), used, "{range:?} {index}");
            assert_eq!(download.is_done(), range.is_empty());
        }
    }

    #[test]
    fn an_empty_object_is_done_at_once() {
        let mut bench = Bench::new(1);
        let mut download = opened(&mut bench, Some(0));
        assert_eq!(group_count(0), 0);
        download.begin(0..0, 0, None);
        download.pump(usize::MAX, &mut bench.cx());
        assert!(download.is_done() && bench.asks.is_empty() && download.take(1).is_none());
    }

    #[test]
    fn answers_to_no_question_stop_the_shard() {
        let source = source(3 * GROUP - 1);
        let wrong = |index, size| {
            let mut bench = Bench::new(16);
            let mut download = opened(&mut bench, None);
            download.begin(0..size, size, None);
            download.pump(1, &mut bench.cx());
            let group = group(&mut bench, &source, index);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| download.on_group(group)))
        };
        assert!(wrong(0, 3 * GROUP - 1).is_ok());
        assert!(wrong(1, 3 * GROUP - 1).is_err(), "never asked for");
        assert!(wrong(0, GROUP - 1).is_err(), "too long");
    }
}
