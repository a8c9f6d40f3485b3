//! What one run is like: every seed draws its own few faults, sizes and habits, so that runs differ
//! much and each is short.

use ron_codec::limits::SEGMENT_LEN_MAX;
use ron_io::{
    ports::{DiskOp, OpenHow},
    sim::{Chance, Weather},
};
use ron_shards::{
    config::{Deadlines, Storage},
    limits,
};

use super::{
    objects::{self, ObjectId},
    rude::Habit,
};

const SECOND_NS: u64 = 1_000_000_000;
const MIB: u64 = 1024 * 1024;

/// Steps of the shortest and of the longest run before it is brought to its end.
const STEPS_MIN: u64 = 200;
const STEPS_MAX: u64 = 2000;

/// Shards of a node, at most.
pub const SHARDS_MAX: u16 = 3;

/// Peers of a flood.
const PEERS_MIN: u64 = 10;
const PEERS_MAX: u64 = 150;

/// Files that a shard keeps open at least: one of each partition that it may have.
const FILES_IDLE_MIN: usize = 5;

/// What the connections of one shard may buffer in a flood.
const BUFFERS_LEN: [usize; 3] = [1 << 20, 4 << 20, limits::CONNECTION_BUFFERS_LEN];

/// How often each thing happens: once in so many steps, acts or connections; 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub power: u32,
    pub kill: u32,
    pub drain: u32,
    /// A client drops its connection.
    pub reset: u32,
    pub rot: u32,
    /// The time of day is set.
    pub jump: u32,
    /// Time passes and nothing else happens.
    pub leap: u32,
    /// A disk act takes long.
    pub slow: u32,
    /// The disk becomes full, or has space again.
    pub full: u32,
    /// The weather of the disk changes.
    pub weather: u32,
    /// A client does not keep to any protocol.
    pub hostile: u32,
    /// A client reads slowly.
    pub lazy: u32,
    /// The end of a process takes its index along, or part of it.
    pub index_loss: u32,
    /// The control plane orders something.
    pub orders: u32,
    /// A process is started with another number of shards.
    pub shards: u32,
    /// A process is started without one of several volumes.
    pub absent: u32,
}

/// How likely what is next, by kind.
#[derive(Clone, Copy, Debug)]
pub struct Pulls {
    pub perform: usize,
    pub tell: usize,
    pub mail: usize,
    pub net: usize,
    pub client: usize,
}

/// Slow, silent, greedy and rude peers, many at once, around a few that behave.
#[derive(Clone, Debug)]
pub struct Flood {
    pub peers: usize,
    /// What they are like.
    pub habits: Vec<Habit>,
    /// Clients that behave.
    pub polite: usize,
    /// Nanoseconds that the flood lasts.
    pub lasts_ns: u64,
    /// Nanoseconds of the longest disk act.
    pub disk_ns: u64,
}

/// An event of the store after which failures are aimed at what follows it. Each is rare, and so is
/// the failure that could undo a promise there: left to chance, they would hardly ever meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hunt {
    /// Records are moved by compaction: their commit fails.
    Move,
    /// A batch is cut off: the cut fails, or the power does.
    Cut,
    /// A file is removed: that fails.
    Removal,
    /// An index is rebuilt: part of the log cannot be read.
    Rebuild,
    /// A checkpoint is written: it fails.
    Checkpoint,
    /// The file of an upload gets its name: the commit of its record fails.
    Record,
}

impl Hunt {
    const ALL: [Hunt; 6] =
        [Hunt::Move, Hunt::Cut, Hunt::Removal, Hunt::Rebuild, Hunt::Checkpoint, Hunt::Record];

    /// Whether this act is such an event. Moves are seen otherwise.
    pub fn is_prey(self, op: &DiskOp) -> bool {
        match self {
            Hunt::Cut => matches!(op, DiskOp::Truncate { .. }),
            Hunt::Removal => matches!(op, DiskOp::Remove { durable: true, .. }),
            // A segment that a boot is about to walk.
            Hunt::Rebuild => matches!(op, DiskOp::Open { how: OpenHow::ReadWrite, .. }),
            Hunt::Checkpoint => matches!(op, DiskOp::Run(_)),
            Hunt::Record => matches!(op, DiskOp::Rename { .. }),
            Hunt::Move => false,
        }
    }

    /// What fails, one in so `often`.
    pub fn weather(self, often: u32) -> Weather {
        let calm = Weather::default();
        match self {
            Hunt::Move => Weather { writes: often, syncs: often, ..calm },
            Hunt::Cut => Weather { syncs: often, others: 8 * often, ..calm },
            Hunt::Removal => Weather { removes: often, ..calm },
            Hunt::Rebuild => Weather { reads: often, short_reads: often, ..calm },
            Hunt::Checkpoint => Weather { jobs: often, ..calm },
            Hunt::Record => Weather { writes: often, ..calm },
        }
    }
}

/// A part of a run in which nothing is stored, so that what was deleted stays deleted for long.
#[derive(Clone, Copy, Debug)]
pub struct Tide {
    /// Steps of a flow and of the ebb that follows it.
    pub flow: u64,
    pub ebb: u64,
}

#[derive(Clone, Debug)]
pub struct Plan {
    /// In place of the faults.
    pub flood: Option<Flood>,
    pub hunt: Option<Hunt>,
    pub tide: Option<Tide>,
    /// Objects that nobody deletes: they keep the segments in which they are.
    pub kept: Vec<ObjectId>,
    pub shards: u16,
    pub partitions: u16,
    /// File systems that the partitions are spread over.
    pub volumes: u16,
    pub arena_blocks: usize,
    /// What the connections of one shard may buffer.
    pub connection_buffers: usize,
    /// Reads, and other questions, that one shard may have open with another.
    pub mesh_reads: usize,
    pub mesh_others: usize,
    pub fetches_max: usize,
    /// The store's work is most of what happens.
    pub churn: bool,
    pub segment_len_max: u64,
    pub compact_dead_min: u64,
    /// Files that a shard keeps open for the next reader; twice as many are open for reads.
    pub files_idle: usize,
    pub steps: u64,
    pub clients: usize,
    /// Requests a client has in progress at once.
    pub depth: usize,
    pub objects: Vec<ObjectId>,
    /// Nanoseconds that pass with a step, at most.
    pub pace_ns: u64,
    /// Bytes that come or go at once, at most.
    pub piece_max: u64,
    pub faults: Faults,
    pub stormy: Weather,
    pub pulls: Pulls,
    pub storage: Storage,
    pub window_groups: u64,
    pub deadlines: Deadlines,
    pub deletes: bool,
    /// Of eight requests, about so many are writes.
    pub writes: usize,
}

impl Plan {
    /// Whether so many short questions may be asked at once that some are refused.
    pub fn is_crowd(&self) -> bool {
        let flood = self.flood.as_ref();
        flood.is_none_or(|flood| flood.habits.contains(&Habit::NeverReadsShort))
    }

    /// Draws a plan; one in `floods` is a flood.
    pub fn new(chance: &mut Chance, floods: u32) -> Plan {
        let flood = chance.one_in(floods).then(|| flood(chance));
        let shards = chance.between(1, SHARDS_MAX.into()) as u16;
        let faults =
            if flood.is_some() || chance.one_in(8) { Faults::default() } else { faults(chance) };
        let deadlines = deadlines(chance, flood.is_some());
        let objects = match flood.is_some() {
            true => objects_of_a_flood(chance),
            false => some_objects(chance),
        };
        // Small pieces take many steps, and a flood has many peers to move.
        let piece_max = match flood.is_some() {
            true => chance.pick(&[16_384, 65_536, 1 << 20]),
            false => chance.pick(&[256, 4096, 65_536, 1 << 20]),
        };
        let connection_buffers = match flood.is_some() {
            true => chance.pick(&BUFFERS_LEN),
            false => limits::CONNECTION_BUFFERS_LEN,
        };
        let mut plan = Plan {
            flood,
            hunt: None,
            tide: None,
            kept: Vec::new(),
            connection_buffers,
            mesh_reads: chance.pick(&[1, 2, 8, limits::MESH_READS_MAX]),
            mesh_others: chance.pick(&[2, 4, 16, limits::MESH_OTHERS_MAX]),
            fetches_max: chance.pick(&[32, 256, limits::FETCHES_MAX]),
            churn: false,
            segment_len_max: chance.pick(&[8 * MIB, SEGMENT_LEN_MAX]),
            compact_dead_min: chance.pick(&[8 << 10, 64 << 10, limits::COMPACT_DEAD_MIN]),
            files_idle: chance.pick(&[FILES_IDLE_MIN, 8, limits::FILES_IDLE_MAX]),
            shards,
            partitions: shards + chance.below(3) as u16,
            volumes: chance.pick(&[1, 1, 2]),
            arena_blocks: chance.between(20, 64) as usize,
            steps: chance.between(STEPS_MIN, STEPS_MAX),
            clients: chance.between(1, 8) as usize,
            depth: chance.between(1, 4) as usize,
            objects,
            pace_ns: chance.pick(&[100_000, 10_000_000, SECOND_NS]),
            piece_max,
            faults,
            stormy: stormy(chance),
            pulls: pulls(chance),
            storage: storage(chance, &faults),
            window_groups: chance.between(1, 6),
            deadlines,
            deletes: chance.toss(),
            writes: chance.between(1, 6) as usize,
        };
        if plan.flood.is_none() && chance.one_in(3) {
            plan.churn(chance);
        }
        plan
    }

    /// Objects come and go fast, on few connections and few shards, and the disk fails now and
    /// then: the acts of the store are most of the steps. No bits flip: what rot may have done to
    /// an object is not known exactly enough where its records move so often.
    fn churn(&mut self, chance: &mut Chance) {
        self.churn = true;
        self.shards = chance.pick(&[1, 1, 2]);
        self.partitions = self.shards;
        self.steps = chance.between(2 * STEPS_MAX, 8 * STEPS_MAX);
        self.clients = chance.between(2, 6) as usize;
        self.arena_blocks = 64;
        self.pace_ns = chance.pick(&[10_000_000, SECOND_NS / 10]);
        self.objects = objects_of_a_churn(chance);
        self.deletes = true;
        self.writes = 7;
        let mut some = |often: u64| chance.between(often / 2, often * 2) as u32;
        self.faults = Faults {
            power: some(1200),
            kill: some(1600),
            leap: some(200),
            slow: self.faults.slow,
            full: self.faults.full,
            weather: some(400),
            index_loss: some(8),
            orders: some(100),
            shards: self.faults.shards,
            absent: self.faults.absent,
            ..Faults::default()
        };
        let mut often = || if chance.toss() { chance.pick(&[4, 16, 64, 256]) } else { 0 };
        self.stormy = Weather {
            reads: often(),
            short_reads: often(),
            writes: often(),
            syncs: often(),
            jobs: often(),
            removes: 0,
            // A rebuild lists hundreds of folders.
            others: 4 * often(),
        };
        match chance.below(4) {
            0 => self.remains(chance),
            1 | 2 => self.hunt(chance),
            _ => {}
        }
        self.pulls = Pulls { perform: 24, tell: 24, mail: 24, net: 8, client: 8 };
        self.storage.compact_below_percent =
            chance.pick(&[50, limits::COMPACT_BELOW_MAX, limits::COMPACT_BELOW_MAX]);
    }

    /// Failures are aimed at what follows one kind of event, soon after which the process may end
    /// and its index with it. Some objects stay, and so do deletions.
    fn hunt(&mut self, chance: &mut Chance) {
        self.hunt = Some(chance.pick(&Hunt::ALL));
        self.tide = Some(Tide { flow: chance.between(200, 1000), ebb: chance.between(200, 3000) });
        self.kept = self.objects.iter().copied().filter(|_| chance.one_in(3)).collect();
        self.faults.weather = 0;
        self.faults.index_loss = chance.pick(&[1, 1, 2]);
        self.faults.kill = chance.between(400, 3000) as u32;
        self.compact_dead_min = 8 << 10;
        if chance.toss() {
            // What is left over stays longer.
            self.faults.orders = 0;
            self.storage.scrub_every_ms = Storage::default().scrub_every_ms;
        }
    }

    /// Whether nothing is stored at this step.
    pub fn is_ebb(&self, step: u64) -> bool {
        self.tide.is_some_and(|Tide { flow, ebb }| step % (flow + ebb) >= flow)
    }

    /// What is to be removed often stays, and the index is often lost: a rebuild meets what only
    /// tombstones hide.
    fn remains(&mut self, chance: &mut Chance) {
        self.stormy.removes = chance.pick(&[1, 2, 4]);
        self.faults.index_loss = chance.pick(&[1, 2]);
        self.faults.kill = chance.between(300, 1200) as u32;
        self.faults.weather = chance.between(50, 400) as u32;
    }
}

fn flood(chance: &mut Chance) -> Flood {
    let habits = (0..chance.between(1, 3)).map(|_| chance.pick(&Habit::ALL)).collect();
    Flood {
        peers: chance.between(PEERS_MIN, PEERS_MAX) as usize,
        habits,
        polite: chance.between(2, 4) as usize,
        lasts_ns: chance.between(20, 200) * SECOND_NS,
        disk_ns: chance.magnitude(10_000_000),
    }
}

fn faults(chance: &mut Chance) -> Faults {
    // One of three faults is at work in a run, so that they meet in all combinations.
    let mut rare = |often: u64| {
        let on = chance.one_in(3);
        let about = chance.between(often / 2, often * 2) as u32;
        if on { about } else { 0 }
    };
    Faults {
        power: rare(400),
        kill: rare(500),
        drain: rare(600),
        reset: rare(100),
        rot: rare(150),
        jump: rare(50),
        leap: rare(100),
        slow: rare(10),
        full: rare(80),
        weather: rare(100),
        hostile: rare(4),
        lazy: rare(4),
        index_loss: rare(2),
        orders: rare(60),
        shards: rare(2),
        absent: rare(4),
    }
}

fn stormy(chance: &mut Chance) -> Weather {
    let mut often = || if chance.toss() { chance.between(5, 60) as u32 } else { 0 };
    Weather {
        reads: often(),
        short_reads: often(),
        writes: often(),
        syncs: often(),
        jobs: often(),
        removes: 0,
        others: often(),
    }
}

fn pulls(chance: &mut Chance) -> Pulls {
    let mut pull = || chance.pick(&[1, 2, 8, 24]);
    Pulls { perform: pull(), tell: pull(), mail: pull(), net: pull(), client: pull() }
}

fn storage(chance: &mut Chance, faults: &Faults) -> Storage {
    let mut storage = Storage { reserve_bytes: 0, ..Storage::default() };
    if faults.full > 0 {
        storage.reserve_bytes = chance.pick(&[0, MIB / 4, MIB]);
    }
    if chance.one_in(8) {
        storage.max_bytes = Some(chance.between(1, 16) * MIB);
    }
    storage.compact_below_percent =
        chance.pick(&[0, 50, limits::COMPACT_BELOW_MAX, limits::COMPACT_BELOW_MAX]);
    if chance.toss() {
        // A node that is always about to scrub never comes to rest.
        storage.scrub_every_ms = chance.between(1_000, 60_000);
        storage.scrub_bytes_per_s = chance.magnitude(64 * MIB);
    }
    storage
}

/// Mostly small ones: they make short runs, and are most of what the world stores.
fn some_objects(chance: &mut Chance) -> Vec<ObjectId> {
    let all = objects::all();
    let large = chance.one_in(3);
    let middle = large || chance.toss();
    let fits = |id: &ObjectId| match all[*id].bytes.len() {
        0..=70_000 => true,
        70_001..=524_288 => middle,
        _ => large,
    };
    let fitting: Vec<ObjectId> = (0..all.len()).filter(fits).collect();
    let count = chance.between(2, 16) as usize;
    (0..count).map(|_| chance.pick(&fitting)).collect()
}

/// A few of each kind: in shared groups of a segment, in groups of their own, in files.
fn objects_of_a_churn(chance: &mut Chance) -> Vec<ObjectId> {
    let all = objects::all();
    let mut some = |lens: std::ops::Range<usize>| {
        let fits = |id: &ObjectId| lens.contains(&all[*id].bytes.len());
        let fitting: Vec<ObjectId> = (0..all.len()).filter(fits).collect();
        let count = chance.below(4);
        (0..count).map(|_| chance.pick(&fitting)).collect::<Vec<_>>()
    };
    let mut objects = [some(0..4096), some(4096..262_144), some(262_144..usize::MAX)].concat();
    objects.push(chance.below(all.len()));
    objects
}

/// Some that take many blocks, and some that take few.
fn objects_of_a_flood(chance: &mut Chance) -> Vec<ObjectId> {
    let all = objects::all();
    let (large, small): (Vec<_>, Vec<_>) =
        (0..all.len()).partition(|id| all[*id].bytes.len() > 200_000);
    let mut objects: Vec<_> = (0..chance.between(3, 8)).map(|_| chance.pick(&large)).collect();
    objects.extend((0..chance.between(3, 8)).map(|_| chance.pick(&small)));
    objects
}

/// In half of the floods short ones, which are met within a flood however busy it is.
fn deadlines(chance: &mut Chance, in_flood: bool) -> Deadlines {
    let allowed = Deadlines::default();
    let part = if in_flood { chance.pick(&[1, 5]) } else { 1 };
    Deadlines {
        stream_ns: 3600 * SECOND_NS,
        handshake_ns: allowed.handshake_ns / part,
        head_ns: allowed.head_ns / part,
        idle_ns: allowed.idle_ns / part,
        body_ns: allowed.body_ns / part,
        send_ns: allowed.send_ns / part,
        ..allowed
    }
}
