//! What a shard keeps on disk, and how it is found, checked and kept safe.
//!
//! A [`Store`] is all partitions of one shard. It is asked ([`Ask`]) and answers into the
//! [`Cx`]; it acts on files by disk acts alone. The bytes it writes, and the argument why no crash
//! loses an acknowledged object, are `docs/STORAGE.md`.
//!
//! ```text
//!             ┌─ cache ── hit: answered at once
//!  on_ask ────┤
//!             └─ partition ── index ─┬─ reads: file, outboard, group, verified
//!                                    └─ log: group commit;  objects: files of their own
//! ```
//!
//! It refuses to hand out a byte that was not hashed since it was read, and to acknowledge one
//! that was not synced.

use std::{collections::VecDeque, io};

use ron_codec::address::Address;
use ron_io::ports::{Act, DiskDone, DiskOp, PartitionState, Report, Space};

use crate::{
    config::Config,
    flow::{Ask, Asker, Cx, Fault, Waiter},
    limits,
};

mod accounts;
pub mod audit;
mod boot;
mod compact;
mod damage;
mod deletes;
mod files;
mod flaw;
mod free_space;
mod handle;
mod hits;
mod index;
pub mod layout;
mod listing;
mod log;
mod marks;
mod notes;
mod objects;
mod orphans;
mod outboards;
mod pace;
mod partition;
mod place;
mod reads;
mod scan;
mod scrub;
mod site;
#[cfg(test)]
mod tests;

pub use accounts::Accounts;
pub use boot::BootError;
pub use damage::Damage;
pub use free_space::{FreeSpace, NotEnough};
#[cfg(feature = "bench")]
#[doc(hidden)]
pub use index::bench;

/// Bytes of memory that the questions to one partition may take which wait there: reads, and what
/// is to be committed, but for the blocks of either.
pub const fn waiting_bill() -> usize {
    reads::bill() + log::appends_bill()
}

/// Bytes of memory that the scrub of one shard may take, and what is verified besides.
pub const fn scrub_bill() -> usize {
    scrub::bill()
}

use boot::{Boot, Progress};
use flaw::Unverified;
use free_space::Update;
use hits::cached_answer;
use partition::Partition;
use place::{Absence, Place};
use scrub::Scrub;
use site::{Site, Tag};

/// All partitions of one shard.
#[derive(Debug)]
pub struct Store {
    sites: Vec<Site>,
    places: Vec<Place>,
    /// Partitions of the whole node, to find an object's.
    partitions: u16,
    shards: u16,
    /// Places that are not serving yet.
    booting: usize,
    failure: Option<BootError>,
    stopping: bool,
    /// Places whose `settle` may have something to do.
    runnable: VecDeque<u16>,
    /// Whether one of them waits for nothing but its next turn.
    has_immediate_work: bool,
    /// When reads that wait in a line are tried again.
    retry_at: Option<u64>,
    /// Whether reads wait for memory.
    short: bool,
    /// When the next checkpoint is due; `None` while nothing changed since the last.
    checkpoint_at: Option<u64>,
    scrub: Scrub,
}

impl Store {
    /// The store of a shard, with nothing open yet.
    pub fn new(config: &Config) -> Store {
        let numbers = config.layout.partitions_of(config.shard);
        let site = |(place, number)| Site { place: place as u16, number };
        let sites: Vec<Site> = numbers.enumerate().map(site).collect();
        Store {
            places: sites.iter().map(|_| Place::Cold).collect(),
            booting: sites.len(),
            sites,
            partitions: config.layout.partitions,
            shards: config.layout.shards,
            failure: None,
            stopping: false,
            runnable: VecDeque::new(),
            has_immediate_work: false,
            retry_at: None,
            short: false,
            checkpoint_at: None,
            scrub: Scrub::new(config),
        }
    }

    /// Starts to open all partitions. `is_ready` or `failed` says how it went.
    pub fn boot(&mut self, cx: &mut Cx<'_>) {
        self.ask_free_space(cx);
        for place in 0..self.places.len() {
            assert!(matches!(self.places[place], Place::Cold), "a store boots once");
            let site = self.sites[place];
            if cx.config.layout.is_lost(site.number) {
                self.absent(place, &Absence::FolderGone { partition: site.number }, cx);
            } else if cx.config.layout.is_absent(site.number) {
                self.absent(place, &Absence::Unusable, cx);
            } else {
                self.places[place] = Place::Booting(Box::new(Boot::start(site, cx)));
            }
        }
    }

    /// Whether all partitions serve.
    pub fn is_ready(&self) -> bool {
        self.booting == 0 && self.failure.is_none()
    }

    /// Why a partition cannot be opened.
    pub fn failed(&self) -> Option<&BootError> {
        self.failure.as_ref()
    }

    /// Takes a question about an object of this shard. Its one answer is in `cx.replies`, at once
    /// or later.
    pub fn on_ask(&mut self, asker: Asker, ask: Ask, cx: &mut Cx<'_>) {
        let refused = match &ask {
            Ask::Open { address, .. } => cx.damage.bars(address),
            Ask::Whole { address } => cx.damage.doubts(address),
            _ => false,
        };
        if refused {
            return ask.refuse(asker, Fault::Integrity, cx);
        }
        if let Some(reply) = cached_answer(&ask, cx) {
            cx.stats.cache_hits.add(1);
            cx.replies.push_back((asker, reply));
            return;
        }
        let place = self.place_of(ask.address());
        match &mut self.places[usize::from(place)] {
            Place::Serving(partition) => {
                partition.on_ask(asker, ask, cx);
                self.schedule(place);
            }
            Place::Cold | Place::Booting(_) | Place::Failed => {
                ask.refuse(asker, Fault::Busy, cx);
            }
            Place::Absent => ask.refuse(asker, Fault::Absent, cx),
        }
    }

    /// The outcome of a disk act of the partition at `place` among this shard's.
    pub fn on_disk(&mut self, place: u16, tag: u64, done: io::Result<DiskDone>, cx: &mut Cx<'_>) {
        match &mut self.places[usize::from(place)] {
            Place::Serving(partition) => {
                match Tag::unpack(tag) {
                    Tag::Scrub { slot } => self.scrub.on_disk(slot, done, partition, cx),
                    tag => partition.on_disk(tag, done, cx),
                }
                self.schedule(place);
            }
            Place::Booting(boot) => match boot.on_disk(done, cx) {
                Ok(Progress::Going) => {}
                Ok(Progress::Ready(recovered)) => {
                    let site = self.sites[usize::from(place)];
                    let idle_max = (cx.config.files_idle_max / self.places.len()).max(1);
                    let mut partition = Partition::new(site, *recovered, idle_max, cx);
                    if self.stopping {
                        partition.stop();
                    }
                    self.places[usize::from(place)] = Place::Serving(Box::new(partition));
                    self.booting -= 1;
                    self.schedule(place);
                }
                Err(failure) if failure.may_be_absent(cx.config.layout.volumes.len()) => {
                    self.absent(usize::from(place), &Absence::Boot(failure), cx);
                }
                Err(failure) => {
                    self.places[usize::from(place)] = Place::Failed;
                    self.failure.get_or_insert(failure);
                }
            },
            Place::Cold | Place::Absent | Place::Failed => {
                unreachable!("no act of this partition is in progress")
            }
        }
    }

    /// Begins a round of the scrub now.
    pub fn scrub_now(&mut self, cx: &mut Cx<'_>) {
        self.scrub.order(cx);
    }

    /// Reads an object again and hashes all of it, if it is one of this shard's. The answer is a
    /// report, at once or later.
    pub fn verify(&mut self, id: u64, address: Address, cx: &mut Cx<'_>) {
        if cx.config.layout.owner(&address).1 != cx.config.shard {
            return;
        }
        let place = self.place_of(&address);
        match &mut self.places[usize::from(place)] {
            Place::Serving(partition) => self.scrub.verify(id, address, partition, cx),
            Place::Cold | Place::Booting(_) | Place::Failed => {
                scrub::refuse(id, &Unverified::Busy, cx);
            }
            Place::Absent => scrub::refuse(id, &Unverified::Absent, cx),
        }
    }

    /// Starts what can be started: commits, reads that waited for memory, checkpoints. To be
    /// called after every event, whatever it was about.
    pub fn settle(&mut self, cx: &mut Cx<'_>) {
        self.ask_free_space(cx);
        if self.checkpoint_at.is_some_and(|at| at <= cx.now.mono_ns) {
            self.checkpoint_at = None;
            for place in 0..self.places.len() {
                self.settle_one(place as u16, true, cx);
            }
        }
        (self.has_immediate_work, self.retry_at, self.short) = (false, None, false);
        self.recheck_damaged(cx);
        // Before commits are begun again: it may have to end a segment between two of them.
        if self.is_ready()
            && let Some(place) = self.scrub.settle(&mut self.places, cx)
        {
            self.schedule(place);
        }
        for _ in 0..self.runnable.len() {
            if let Some(place) = self.runnable.pop_front() {
                self.settle_one(place, false, cx);
            }
        }
        if cx.tickets.take_wants_file() {
            for place in &mut self.places {
                if let Place::Serving(partition) = place {
                    partition.close_idle_file(cx);
                }
            }
        }
    }

    /// Looks again at what reads have found damaged.
    fn recheck_damaged(&mut self, cx: &mut Cx<'_>) {
        while self.scrub.has_capacity()
            && let Some(address) = cx.damage.next_doubt()
        {
            let place = self.place_of(&address);
            if let Place::Serving(partition) = &mut self.places[usize::from(place)] {
                self.scrub.recheck(address, partition, cx);
            }
        }
    }

    /// When `settle` is to be called although nothing happened, in `Now::mono_ns`.
    pub fn wake_at(&self, space: &FreeSpace) -> Option<u64> {
        let times = [
            self.checkpoint_at,
            space.wake_at(),
            self.has_immediate_work.then_some(0),
            self.retry_at,
            self.scrub.wake_at(),
        ];
        times.into_iter().flatten().min()
    }

    /// Whether reads wait for memory, as of the last `settle`.
    pub fn awaits_memory(&self) -> bool {
        self.short
    }

    /// The free space of a volume is known; `None` if it cannot be asked for.
    pub fn on_space(&mut self, volume: u16, space: Option<Space>, cx: &mut Cx<'_>) {
        let update = cx.free_space.update(volume, space);
        cx.stats.disk_free_bytes.set(cx.free_space.least_free());
        let Update::Changed(note) = update else { return };
        let (shard, severity, message) = (cx.config.shard, note.severity(), note.to_string());
        cx.acts.push(Act::Report(Report::Note { shard, severity, message }));
        for place in 0..self.places.len() {
            if let Place::Serving(partition) = &mut self.places[place] {
                partition.on_free_space(cx);
                self.schedule(place as u16);
            }
        }
    }

    fn ask_free_space(&mut self, cx: &mut Cx<'_>) {
        while let Some((volume, path)) = cx.free_space.ask(cx.now.mono_ns) {
            cx.disk(Waiter::FreeSpace { volume }, DiskOp::Space { path });
        }
    }

    fn absent(&mut self, place: usize, why: &Absence, cx: &mut Cx<'_>) {
        self.places[place] = Place::Absent;
        self.booting -= 1;
        cx.stats.partitions_absent.add(1);
        let (shard, partition) = (cx.config.shard, self.sites[place].number);
        let reason = format!("{}: {why}", cx.config.layout.volume(partition).display());
        let report = Report::Partition { shard, partition, state: PartitionState::Absent, reason };
        cx.acts.push(Act::Report(report));
    }

    /// Finishes what is in progress, makes a last checkpoint and closes all files. Requests from
    /// now on are refused as unavailable.
    pub fn stop(&mut self, cx: &mut Cx<'_>) {
        self.stopping = true;
        self.scrub.stop(&mut self.places, cx);
        for place in 0..self.places.len() {
            if let Place::Serving(partition) = &mut self.places[place] {
                partition.stop();
                self.settle_one(place as u16, false, cx);
            }
        }
    }

    /// Whether nothing is open or in progress any more, after `stop`.
    pub fn is_stopped(&self) -> bool {
        let over = |place: &Place| match place {
            Place::Cold | Place::Absent | Place::Failed => true,
            Place::Booting(_) => false,
            Place::Serving(partition) => partition.is_closed(),
        };
        self.stopping && self.scrub.is_quiet() && self.places.iter().all(over)
    }

    #[inline]
    fn place_of(&self, address: &Address) -> u16 {
        address.partition(self.partitions) / self.shards
    }

    fn schedule(&mut self, place: u16) {
        if !self.runnable.contains(&place) {
            self.runnable.push_back(place);
        }
    }

    fn settle_one(&mut self, place: u16, checkpoint: bool, cx: &mut Cx<'_>) {
        let Place::Serving(partition) = &mut self.places[usize::from(place)] else { return };
        partition.settle(checkpoint, cx);
        if partition.is_dirty() && self.checkpoint_at.is_none() {
            self.checkpoint_at = Some(cx.now.mono_ns + limits::CHECKPOINT_AFTER_NS);
        }
        self.has_immediate_work |= partition.has_more_work(cx);
        self.short |= partition.awaits_memory();
        let waiting = partition.has_waiting_reads();
        let memory = waiting.then_some(cx.now.mono_ns + limits::MEMORY_RETRY_NS);
        let retry_at = [self.retry_at, memory, partition.retry_at(cx)].into_iter().flatten().min();
        self.retry_at = retry_at;
        if partition.is_runnable(cx) {
            self.schedule(place);
        }
    }
}
