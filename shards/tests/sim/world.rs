//! The world: a node, its clients, and the dice that decide what happens next.
//!
//! ```text
//!   boot ──► steps, faults among them ──► rest ──► the process ends ──► boot ──► all is checked
//!     ▲              │
//!     └── crash, kill, drain
//! ```
//!
//! Whatever can happen next is a move; each step lets one of them happen. When nothing can, time
//! passes until something is due.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use ron_io::{
    ports::{PartitionState, Report, ShardId, VerifyOutcome},
    sim::{self, Chance, Clock, Disk, Injected, Link, Weather},
    stats::Rejected,
};
use ron_shards::{
    config::Config,
    entropy::Secret,
    limits::refused_max,
    store::{Accounts, layout::Layout},
};

use super::{
    client::{Client, Deed},
    ledger::Ledger,
    memory::{Bill, Held},
    node::{Deck, HTTP, LISTENERS, Node, OAP},
    objects::{self, ObjectId},
    oracle::{Known, Oracle},
    plan::{Faults, Hunt, Plan, SHARDS_MAX},
    stage::{Sky, Stage},
    trace::{Telling, Trace, violation},
};

/// Connections whose end the shard has not learned, beside those of the run's clients.
const SPARE_CONNECTIONS: usize = 4;

/// Without a flood, one step in so many is followed by a count of the memory.
const CALM_STEPS_COUNTED: u64 = 16;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub steps: u64,
    pub boots: u64,
    /// Requests that were answered and judged.
    pub answers: u64,
    pub digest: u64,
}

/// Something that could happen next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Move {
    Tick(usize),
    Perform(usize),
    Tell(usize),
    Mail(usize, usize),
    Net(usize, sim::Move),
    Act(usize),
    Connect,
}

/// The real folder that holds the indexes of a run. It is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() };
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("ron-sim-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for indexes");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing depends on it: the name is not used again.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub struct World {
    pub(super) plan: Plan,
    pub(super) chance: Chance,
    pub(super) clock: Clock,
    pub(super) disk: Disk,
    pub(super) node: Option<Node>,
    pub(super) clients: Vec<Client>,
    pub(super) oracle: Oracle,
    pub(super) ledger: Ledger,
    pub(super) sky: Sky,
    pub(super) trace: Trace,
    pub(super) layout: Layout,
    pub(super) summary: Summary,
    pub(super) draining: bool,
    /// The process that ends next is not followed by another.
    pub(super) ending: bool,
    no_deletes: bool,
    /// Partitions that serve no more, or not all that is asked.
    pub(super) crippled: BTreeSet<u16>,
    /// Objects that were reported as damaged since a read failed. When they are found whole,
    /// answers may be on their way that say otherwise.
    unreadable: BTreeSet<ObjectId>,
    /// Objects with a damaged record that a boot found and nothing excuses: a newer one must follow
    /// before the shard is ready. By their shards.
    accused: BTreeSet<(ShardId, ObjectId)>,
    /// Partitions whose last rebuild could not read everything: what is there is not all known.
    holes: BTreeSet<u16>,
    /// Partitions whose index lost what was durable: it may name segments that are gone.
    pub(super) stale: BTreeSet<u16>,
    /// Partitions with object files whose names this process could not make durable.
    pub(super) unsynced: BTreeSet<u16>,
    /// A disk act failed, or a read was short, in some process.
    pub(super) erred: bool,
    /// Shards of this process that were ready.
    booted: BTreeSet<ShardId>,
    /// The last step was a tick that led to no act.
    pub(super) nothing_came_of_it: bool,
    /// Whether clients come and ask for more.
    pub(super) busy: bool,
    /// What failures are aimed at happened, the steps for which they last, and the bytes that
    /// compaction had moved when it was looked at.
    pub(super) prey_seen: bool,
    pub(super) hunting: u64,
    pub(super) moved: u64,
    /// What `heap::node_len` was before the first node.
    heap_before: isize,
    /// What the heap of the node may hold.
    bill: Bill,
    /// The most the node ever held.
    pub(super) peak: Held,
    /// What it held before the flood.
    pub(super) before_flood: Option<Held>,
    moves: Vec<(Move, usize)>,
    net_moves: Vec<sim::Move>,
    // Last, so that the indexes in it are closed before it is removed.
    _folder: Folder,
}

impl World {
    pub fn new(seed: u64, floods: u32, telling: Telling) -> World {
        let mut chance = Chance::new(seed);
        let plan = Plan::new(&mut chance, floods);
        let folder = Folder::new();
        let volume = |number| folder.0.join(format!("v{number}"));
        let layout = Layout {
            volumes: (0..plan.volumes).map(volume).collect(),
            absent: Vec::new(),
            lost: Vec::new(),
            partitions: plan.partitions,
            shards: plan.shards,
        };
        let mut world = World {
            disk: Disk::new(&layout.volumes, chance.fork()),
            plan,
            chance,
            clock: Clock::default(),
            node: None,
            clients: Vec::new(),
            oracle: Oracle::new(),
            ledger: Ledger::default(),
            sky: Sky { chaos: true, ..Sky::default() },
            trace: Trace::new(telling, &folder.0),
            layout,
            summary: Summary::default(),
            draining: false,
            ending: false,
            no_deletes: false,
            crippled: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            accused: BTreeSet::new(),
            holes: BTreeSet::new(),
            stale: BTreeSet::new(),
            unsynced: BTreeSet::new(),
            erred: false,
            booted: BTreeSet::new(),
            nothing_came_of_it: false,
            busy: true,
            prey_seen: false,
            hunting: 0,
            moved: 0,
            heap_before: sim::heap::node_len(),
            bill: Bill::default(),
            peak: Held::default(),
            before_flood: None,
            moves: Vec::new(),
            net_moves: Vec::new(),
            _folder: folder,
        };
        let plan = format!("{:?}", world.plan);
        world.trace.note(|| plan);
        world
    }

    /// Runs the world from its first boot to its last check.
    pub fn run(mut self) -> Summary {
        self.boot();
        match self.plan.flood.clone() {
            Some(flood) => self.flood(&flood),
            None => self.run_with_faults(),
        }
        self.finish();
        self.summary.digest = self.trace.digest();
        self.summary
    }

    fn run_with_faults(&mut self) {
        for _ in 0..self.plan.steps {
            self.strike();
            self.step();
        }
    }

    /// Starts a process on the disk as it is.
    pub(super) fn boot(&mut self) {
        self.summary.boots += 1;
        self.draining = false;
        self.disk.injected = Injected::default();
        self.moved = 0;
        if self.plan.hunt.is_some() {
            (self.disk.weather, self.hunting) = (Weather::default(), 0);
        }
        self.crippled.clear();
        self.accused.clear();
        self.booted.clear();
        self.sky = Sky { chaos: self.sky.chaos, ..Sky::default() };
        self.lay_out();
        let boot_id = self.chance.next_u64();
        let accounts = Accounts::default();
        let config = |shard| {
            let mut config = Config::new(ShardId(shard), self.layout.clone());
            config.arena_len = self.plan.arena_blocks * ron_io::limits::BLOCK_LEN;
            config.listeners = LISTENERS.to_vec();
            config.connections_max = self.connections_max();
            config.connection_buffers = self.plan.connection_buffers;
            config.mesh_reads = self.plan.mesh_reads;
            config.mesh_others = self.plan.mesh_others;
            config.fetches_max = self.plan.fetches_max;
            config.segment_len_max = self.plan.segment_len_max;
            config.compact_dead_min = self.plan.compact_dead_min;
            config.files_idle_max = self.plan.files_idle;
            config.read_files_max = 2 * self.plan.files_idle;
            config.window_groups = self.plan.window_groups;
            config.deadlines = self.plan.deadlines;
            config.storage = self.plan.storage;
            config.accounts = accounts.clone();
            config.seed = boot_id ^ u64::from(shard);
            config.cache_secret = Secret::of_seed(config.seed);
            config.boot_id = boot_id;
            config
        };
        let configs = (0..self.plan.shards).map(config).collect();
        self.trace.note(|| format!("boot {boot_id:x}"));
        let before = sim::heap::node_len();
        self.node = Some(Node::new(configs));
        let connections_max = self.connections_max();
        self.bill = Bill {
            fixed: usize::try_from(sim::heap::node_len() - before).unwrap_or_default(),
            shards: self.plan.shards.into(),
            connections: connections_max + refused_max(connections_max),
            buffers: self.plan.connection_buffers,
        };
    }

    /// The next process may have another number of shards, and miss a volume that comes back later.
    fn lay_out(&mut self) {
        // Nothing is made while a volume is absent.
        let faults = if self.summary.boots > 1 { self.plan.faults } else { Faults::default() };
        if self.chance.one_in(faults.shards) {
            let most = u64::from(self.plan.partitions.min(SHARDS_MAX));
            self.plan.shards = self.chance.between(1, most) as u16;
            self.layout.shards = self.plan.shards;
        }
        let without = self.plan.volumes > 1 && self.chance.one_in(faults.absent);
        let volume = self.chance.below(self.plan.volumes.into()) as u16;
        self.layout.absent = if without { vec![volume] } else { Vec::new() };
        let Layout { shards, absent, .. } = &self.layout;
        self.trace.note(|| format!("{shards} shards, without volumes {absent:?}"));
    }

    /// Connections that a shard takes.
    fn connections_max(&self) -> usize {
        let peers = self.plan.flood.as_ref().map_or(0, |flood| 2 * flood.peers);
        self.plan.clients + peers + SPARE_CONNECTIONS
    }

    /// Lets one thing happen. False if nothing will, however long one waits.
    pub(super) fn step(&mut self) -> bool {
        self.summary.steps += 1;
        self.clock.pass(self.chance.magnitude(self.plan.pace_ns));
        let Some(chosen) = self.choose() else {
            let next = self.node.as_ref().and_then(Node::next_at);
            let Some(at) = next else { return false };
            self.clock.pass_until(at);
            return true;
        };
        self.happen(chosen);
        self.after();
        true
    }

    pub(super) fn choose(&mut self) -> Option<Move> {
        let mut moves = std::mem::take(&mut self.moves);
        moves.clear();
        self.list(&mut moves);
        let all: usize = moves.iter().map(|(_, pull)| *pull).sum();
        let mut left = if all == 0 { 0 } else { self.chance.below(all) };
        let mut chosen = None;
        for (what, pull) in &moves {
            if left < *pull {
                chosen = Some(*what);
                break;
            }
            left -= pull;
        }
        self.moves = moves;
        chosen
    }

    /// All that could happen next, each with its pull.
    fn list(&mut self, moves: &mut Vec<(Move, usize)>) {
        let Some(node) = &self.node else { return };
        let (now, pulls) = (self.clock.now(), self.plan.pulls);
        for (at, part) in node.parts.iter().enumerate() {
            if node.is_due(at, now) {
                moves.push((Move::Tick(at), 4));
            }
            let ready = part.queue.ready(now.mono_ns);
            if ready > 0 {
                moves.push((Move::Perform(at), pulls.perform * ready.min(4)));
            }
            if part.queue.undelivered() > 0 {
                moves.push((Move::Tell(at), pulls.tell * part.queue.undelivered().min(4)));
            }
            self.net_moves.clear();
            part.net.moves(&mut self.net_moves);
            for what in &self.net_moves {
                if let sim::Move::Read(link) = what
                    && let Some(client) = client_on(&self.clients, at, *link)
                {
                    let client = &self.clients[client];
                    let withholds = client.rude.is_some() && !part.net.is_handshaking(*link);
                    if withholds || (client.lazy && !self.chance.one_in(16)) {
                        continue;
                    }
                }
                moves.push((Move::Net(at, *what), pulls.net));
            }
        }
        let waiting = node.mesh.waiting();
        moves.extend(waiting.map(|(from, to)| (Move::Mail(from, to), pulls.mail)));
        if !self.busy {
            return;
        }
        // Where the store is what matters, nobody asks while it cannot answer.
        let knows_all = self.summary.boots > 1 && !self.plan.churn;
        for (at, client) in self.clients.iter().enumerate() {
            if client.is_eager(self.plan.depth) {
                moves.push((Move::Act(at), pulls.client));
            }
        }
        // Nobody comes before the folders of a new data directory were made.
        let open = !self.draining && (knows_all || node.is_ready());
        if self.clients.len() < self.plan.clients && open {
            moves.push((Move::Connect, pulls.client));
        }
    }

    pub(super) fn happen(&mut self, what: Move) {
        self.nothing_came_of_it = false;
        match what {
            Move::Tick(at) => {
                self.nothing_came_of_it =
                    self.with_node(|node, deck| !node.tick(at, deck)) == Some(true);
            }
            Move::Perform(at) => self.tell_node(|node, deck| node.perform(at, deck)),
            Move::Tell(at) => self.tell_node(|node, deck| node.tell(at, deck)),
            Move::Mail(from, to) => self.tell_node(|node, deck| node.deliver(from, to, deck)),
            Move::Net(at, sim::Move::Read(link)) => {
                let least = if self.plan.flood.is_some() { 8192 } else { 512 };
                let max = (self.chance.magnitude(self.plan.piece_max) as usize).max(least);
                self.read(at, link, max);
            }
            Move::Net(at, what) => {
                let max = self.piece(at, what);
                self.tell_node(|node, deck| node.happen(at, what, max, deck));
            }
            Move::Act(at) => self.let_act(at),
            Move::Connect => {
                let shard = self.chance.below(self.plan.shards.into());
                let listener = match self.plan.churn {
                    true => self.chance.pick(&[HTTP, HTTP, HTTP, OAP]),
                    false => self.chance.below(LISTENERS.len()),
                };
                self.connect(shard, listener);
            }
        }
    }

    /// Bytes that move at once: any number, but a lot only in large pieces, for the sake of time.
    fn piece(&mut self, at: usize, what: sim::Move) -> usize {
        let piece = self.chance.magnitude(self.plan.piece_max) as usize;
        let Some(node) = &self.node else { return piece };
        let waiting = match what {
            sim::Move::Bytes(link) => node.parts[at].net.unread(link),
            sim::Move::Sent(link) => node.parts[at].net.queued(link),
            _ => 0,
        };
        let part = match &self.plan.flood {
            Some(_) => 4,
            None if self.plan.churn => 1,
            None => 24,
        };
        piece.max(waiting / part)
    }

    pub(super) fn connect(&mut self, shard: usize, listener: usize) {
        let sockets_len = self.chance.magnitude(1 << 20) as usize;
        let link =
            self.with_node(|node, deck| node.connect(shard, listener, sockets_len, deck)).flatten();
        if let Some(link) = link {
            let is_oap = LISTENERS[listener].proto == ron_io::stats::Proto::Oap;
            let client = self.with_stage(|stage| Client::new(shard, link, is_oap, stage));
            self.clients.push(client);
        }
    }

    pub(super) fn let_act(&mut self, at: usize) {
        self.let_do(at, Client::act);
    }

    pub(super) fn let_do(&mut self, at: usize, act: fn(&mut Client, &mut Stage<'_>) -> Deed) {
        let mut client = self.clients.swap_remove(at);
        let deed = self.with_stage(|stage| act(&mut client, stage));
        self.trace.note(|| match &deed {
            Deed::Write(bytes) => {
                let head = &bytes[..bytes.len().min(60)];
                format!("{:?} writes {} bytes: {}", client.link, bytes.len(), head.escape_ascii())
            }
            Deed::End => format!("{:?} ends", client.link),
        });
        if let Some(node) = &mut self.node {
            let net = &mut node.parts[client.shard].net;
            match deed {
                Deed::Write(bytes) => net.write(client.link, &bytes),
                Deed::End => net.end(client.link),
            }
        }
        self.clients.push(client);
    }

    pub(super) fn read(&mut self, shard: usize, link: Link, max: usize) {
        let Some(node) = &mut self.node else { return };
        let bytes = node.parts[shard].net.read(link, max);
        let over = node.parts[shard].net.is_left(link);
        self.trace.note(|| format!("{shard}: {link:?} reads {} bytes", bytes.len()));
        let Some(at) = client_on(&self.clients, shard, link) else { return };
        let mut client = self.clients.swap_remove(at);
        let rude = client.rude.is_some();
        if over {
            return self.with_stage(|stage| client.over(stage.excusing(rude)));
        }
        let answer = self.with_stage(|stage| client.receive(&bytes, stage.excusing(rude)));
        if let Some(node) = &mut self.node {
            node.parts[shard].net.write(link, &answer);
        }
        self.clients.push(client);
    }

    /// A client drops its connection.
    pub(super) fn reset(&mut self, at: usize) {
        let client = self.clients.swap_remove(at);
        self.trace.note(|| format!("{}: {:?} is reset", client.shard, client.link));
        if let Some(node) = &mut self.node {
            node.parts[client.shard].net.reset(client.link);
        }
        // It is the one that leaves.
        self.with_stage(|stage| client.over(stage.excusing(true)));
    }

    /// Looks at what came of a step.
    pub(super) fn after(&mut self) {
        let Injected { errors, kept, short_reads, full } = self.disk.injected;
        self.sky.kept |= kept > 0;
        self.sky.errors |= errors > 0;
        self.erred |= errors + short_reads > 0;
        self.sky.short_reads |= short_reads > 0;
        self.sky.full |= full > 0;
        if self.nothing_came_of_it {
            return;
        }
        self.hunt();
        let Some(node) = &mut self.node else { return };
        // Somebody looks after a node that failed, and starts it once more.
        let gone = node.is_blown() || node.failed;
        let often = self.plan.flood.is_some();
        // What a process said when it ended in the midst of its acts says nothing.
        if !gone && (often || self.summary.steps.is_multiple_of(CALM_STEPS_COUNTED)) {
            self.count_memory();
        }
        let Some(node) = &mut self.node else { return };
        let reports = std::mem::take(&mut node.reports);
        let over = self.draining && node.is_stopped();
        for report in reports {
            self.take_report(&report);
        }
        if gone {
            self.crash();
        } else if over && !self.ending {
            self.drained();
        }
    }

    /// Whether the node knows all that is on the disk.
    pub(super) fn knows_all(&self) -> bool {
        self.ledger.is_sound() && self.holes.is_empty() && self.stale.is_empty()
    }

    /// Counts all memory that the node holds.
    pub(super) fn count_memory(&mut self) -> Option<Held> {
        let held = Held::count(self.node.as_mut()?, self.heap_before);
        held.check(&self.bill);
        if held.heap + held.copied > self.peak.heap + self.peak.copied {
            self.peak = held;
        }
        Some(held)
    }

    /// Lets fail what follows an event that is hunted, and the process end soon, if chance will.
    fn hunt(&mut self) {
        let Some(hunt) = self.plan.hunt else { return };
        let mut seen = std::mem::take(&mut self.prey_seen);
        if hunt == Hunt::Move
            && let Some(node) = &self.node
        {
            let moved = node.parts.iter().map(|part| part.stats.compact_moved_bytes.get()).sum();
            seen |= moved != std::mem::replace(&mut self.moved, moved);
        }
        if seen && self.hunting == 0 && self.chance.toss() {
            self.aim(hunt);
            if self.chance.one_in(3) {
                self.light_fuse();
            }
        }
    }

    fn take_report(&mut self, report: &Report) {
        let sick = self.sky.errors || self.sky.short_reads;
        match report {
            Report::Ready { shard } => {
                self.booted.insert(*shard);
                let mut accused = self.accused.iter().filter(|(of, _)| of == shard);
                // What followed may have rotted meanwhile.
                if let Some((_, object)) = accused.find(|(_, id)| !self.ledger.excuses(*id)) {
                    violation!("object {object} was reported damaged by the boot");
                }
            }
            Report::Healed { shard, digest } => {
                let object = objects::find(&ron_codec::address::Address::from_bytes(*digest));
                object.map(|object| self.accused.remove(&(*shard, object)));
            }
            Report::Note { message, .. } => self.take_note(message),
            Report::Stalled { .. } | Report::Failed { .. } | Report::Listed { .. } => {}
            Report::Stopped { reason: None, .. } if self.draining => {}
            Report::Stopped { reason, .. } => {
                if !sick && !self.sky.full {
                    violation!("a shard ended: {reason:?}");
                }
            }
            Report::Partition { state: PartitionState::Serving, partition, .. } => {
                self.crippled.remove(partition);
                // Who was refused before may not have read it yet.
                self.oracle.trouble += 1;
            }
            Report::Partition { partition, reason, .. } => {
                self.crippled.insert(*partition);
                let layout = &self.layout;
                let here = |object: ObjectId| layout.owner(&objects::all()[object].address).0;
                self.accused.retain(|(_, object)| here(*object) != *partition);
                let absent = self.layout.is_absent(*partition);
                if !absent && !sick && !self.sky.full && self.plan.storage.max_bytes.is_none() {
                    violation!("a partition serves no more: {reason}");
                }
            }
            Report::Damaged { shard, digest, what } => {
                let address = ron_codec::address::Address::from_bytes(*digest);
                let owner = self.layout.owner(&address).0;
                let sick = sick || self.stale.contains(&owner) || self.holes.contains(&owner);
                let object = objects::find(&address);
                if let Some(object) = object.filter(|object| !self.ledger.excuses(*object) && !sick)
                {
                    if self.booted.contains(shard) {
                        violation!("object {object} is reported damaged: {what}");
                    }
                    self.accused.insert((*shard, object));
                }
                self.unreadable.extend(object.filter(|_| sick));
            }
            Report::Verified { id, outcome, .. } => self.take_verified(*id as usize, outcome),
            // Nobody orders other names.
            Report::Names { .. } => {}
        }
    }

    fn take_verified(&mut self, object: usize, outcome: &VerifyOutcome) {
        let owner = self.layout.owner(&objects::all()[object].address).0;
        let excused = self.ledger.excuses(object) || self.sky.errors || self.sky.short_reads;
        let excused = excused || self.stale.contains(&owner) || self.holes.contains(&owner);
        let known = self.oracle.known(object);
        let size = objects::all()[object].len();
        let right = match outcome {
            VerifyOutcome::Whole { size: found } => *found == size,
            VerifyOutcome::Damaged { .. } => excused,
            // Known now is not known when it was looked for, except that it never changed.
            VerifyOutcome::Missing => known != Known::Present || excused || self.plan.writes > 0,
            VerifyOutcome::Failed { .. } => self.sky.chaos || excused,
        };
        if !right {
            violation!("object {object} was verified: {outcome:?}");
        }
    }

    /// What a rebuild says of its partition.
    fn take_note(&mut self, message: &str) {
        let parts = message.strip_prefix("partition ").and_then(|text| text.split_once(": "));
        let Some((Ok(partition), text)) = parts.map(|(number, text)| (number.parse(), text)) else {
            return;
        };
        if text.starts_with("rebuilding the index") {
            self.holes.remove(&partition);
            self.stale.remove(&partition);
        } else if text.contains("cannot be read") {
            self.holes.insert(partition);
        } else if text.contains("cannot be synced: ") {
            self.unsynced.insert(partition);
        }
    }

    pub(super) fn tell_node(&mut self, what: impl FnOnce(&mut Node, &mut Deck<'_>)) {
        self.with_node(what).unwrap_or_default();
    }

    pub(super) fn with_node<T>(
        &mut self,
        what: impl FnOnce(&mut Node, &mut Deck<'_>) -> T,
    ) -> Option<T> {
        let node = self.node.as_mut()?;
        let mut deck = Deck {
            now: self.clock.now(),
            disk: &mut self.disk,
            ledger: &mut self.ledger,
            trouble: &mut self.oracle.trouble,
            chance: &mut self.chance,
            trace: &mut self.trace,
            slow: if self.sky.chaos { self.plan.faults.slow } else { 0 },
            disk_ns: self.plan.flood.as_ref().map_or(0, |flood| flood.disk_ns),
            hunt: self.plan.hunt,
            prey_seen: &mut self.prey_seen,
        };
        Some(what(node, &mut deck))
    }

    pub(super) fn with_stage<T>(&mut self, what: impl FnOnce(&mut Stage<'_>) -> T) -> T {
        let short = |part: &super::node::Part| {
            let shed = part.stats.rejected(Rejected::Memory);
            let cut = part.stats.readers_cut.get() + part.stats.uploads_cut.get();
            let turned_away = part.stats.rejected(Rejected::Connections);
            shed + part.stats.memory_refusals.get() + cut + turned_away > 0
        };
        let parts = self.node.as_ref().map(|node| &node.parts);
        let short = parts.is_some_and(|parts| parts.iter().any(short));
        let crippled = !self.crippled.is_empty();
        let holes = !self.holes.is_empty() || !self.stale.is_empty();
        self.oracle.holes = holes;
        let ebb = self.plan.is_ebb(self.summary.steps);
        let sky = Sky { short, crippled, holes, ebb, ..self.sky };
        what(&mut Stage {
            plan: &self.plan,
            oracle: &mut self.oracle,
            ledger: &mut self.ledger,
            disk: &self.disk,
            chance: &mut self.chance,
            trace: &mut self.trace,
            sky,
            answers: &mut self.summary.answers,
            unreadable: &self.unreadable,
            no_deletes: &mut self.no_deletes,
        })
    }
}

fn client_on(clients: &[Client], shard: usize, link: Link) -> Option<usize> {
    clients.iter().position(|client| client.shard == shard && client.link == link)
}
