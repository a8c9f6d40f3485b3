//! One shard's store on the disk twin, and all that passes between them.
//!
//! Acts in progress are performed one by one, in an order that the world's seed chooses among those
//! that the driver may choose.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    path::PathBuf,
};

use ron_codec::{
    address::Address,
    limits::GROUP_LEN,
    outboard::{Hashed, Hashing, group_count, group_len},
    record::RecordHeader,
};
use ron_io::{
    arena::Block,
    listing::{ListPage, ListRange},
    ports::{Act, ConnId, DiskDone, DiskOp, Report, ShardId, Ticket, VerifyOutcome},
    sim::{Chance, PlantedDisk, file_of},
};

use crate::{
    config::Config,
    flow::{Ask, Asker, Cx, Fault, Place, Reply, StreamId, Waiter},
    limits,
    store::{Accounts, Store, layout::Layout},
    testing::Bench,
    turns::Client,
};

/// One shard's store, its disk, and what passes between them.
pub(in crate::store) struct World {
    pub(in crate::store) store: Store,
    pub(in crate::store) disk: PlantedDisk,
    /// What a context lends the store.
    lent: Bench,
    chance: Chance,
    pub(in crate::store) pending: Vec<(Ticket, DiskOp)>,
    pub(in crate::store) answers: BTreeMap<u32, Reply>,
    /// Who was told that memory is short, in order.
    pub(in crate::store) short: Vec<u32>,
    pub(in crate::store) notes: Vec<String>,
    /// Digests of objects that were reported as damaged.
    pub(in crate::store) damaged: Vec<[u8; 32]>,
    /// Digests of objects that were reported as whole again, or gone.
    pub(in crate::store) healed: Vec<[u8; 32]>,
    /// Answers to `list`.
    pub(in crate::store) listed: Vec<(u64, Option<Box<ListPage>>)>,
    /// Answers to `verify`.
    pub(in crate::store) verified: Vec<(u64, VerifyOutcome)>,
    asked: u32,
    /// Whose questions come next.
    pub(in crate::store) peer: Client,
    _dir: tempfile::TempDir,
}

impl Deref for World {
    type Target = Bench;

    fn deref(&self) -> &Bench {
        &self.lent
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Bench {
        &mut self.lent
    }
}

fn stream(number: u32) -> StreamId {
    StreamId { conn: ConnId { slot: 0, generation: 0 }, stream: number }
}

impl World {
    pub(in crate::store) fn new(seed: u64) -> World {
        // The index is real, and its syncs are free in memory.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let data_dir = dir.path().to_path_buf();
        let layout = Layout::single(data_dir, 1, 1);
        let mut config = Config::new(ShardId(0), layout);
        config.arena_len = 4 * 1024 * 1024;
        // Only who tests the scrub wants one.
        config.storage.scrub_bytes_per_s = 0;
        config.storage.scrub_every_ms = 0;
        let mut world = World {
            store: Store::new(&config),
            disk: PlantedDisk::new(seed),
            lent: Bench::with(config),
            chance: Chance::new(seed),
            pending: Vec::new(),
            answers: BTreeMap::new(),
            short: Vec::new(),
            notes: Vec::new(),
            damaged: Vec::new(),
            healed: Vec::new(),
            listed: Vec::new(),
            verified: Vec::new(),
            asked: 0,
            peer: None,
            _dir: dir,
        };
        world.boot();
        world.run();
        assert!(world.store.is_ready(), "{:?}", world.store.failed());
        world
    }

    /// Tells the store something, and lets it settle.
    fn tell(&mut self, event: impl FnOnce(&mut Store, &mut Cx<'_>)) {
        let mut cx = self.lent.cx();
        event(&mut self.store, &mut cx);
        self.store.settle(&mut cx);
        self.collect();
    }

    pub(in crate::store) fn boot(&mut self) {
        self.tell(|store, cx| store.boot(cx));
    }

    /// Another process takes over the disk as it is.
    pub(in crate::store) fn restart(&mut self) {
        self.begin_restart();
        self.run();
    }

    /// Another process takes over the disk and begins to boot.
    pub(in crate::store) fn begin_restart(&mut self) {
        let mut config = self.config.clone();
        config.boot_id += 1;
        config.accounts = Accounts::default();
        self.store = Store::new(&config);
        self.pending.clear();
        self.answers.clear();
        self.notes.clear();
        self.lent = Bench { now: self.now, ..Bench::with(config) };
        self.boot();
    }

    pub(in crate::store) fn crash(&mut self, seed: u64) {
        self.disk.crash(seed);
        self.restart();
        assert!(self.store.is_ready(), "{:?}", self.store.failed());
    }

    /// No process runs, and the index is lost.
    pub(in crate::store) fn lose_index(&mut self) {
        self.store = Store::new(&self.config);
        std::fs::remove_dir_all(self.config.layout.index_dir(0)).unwrap();
    }

    pub(in crate::store) fn kill(&mut self) {
        self.disk.kill();
        self.restart();
        assert!(self.store.is_ready(), "{:?}", self.store.failed());
    }

    fn collect(&mut self) {
        while let Some(act) = self.acts.pop() {
            match act {
                Act::Disk { ticket, op } => self.pending.push((ticket, op)),
                Act::Report(Report::Note { message, .. }) => self.notes.push(message),
                Act::Report(Report::Partition { reason, .. }) => self.notes.push(reason),
                Act::Report(Report::Damaged { digest, .. }) => self.damaged.push(digest),
                Act::Report(Report::Healed { digest, .. }) => self.healed.push(digest),
                Act::Report(Report::Listed { id, page, .. }) => self.listed.push((id, page)),
                Act::Report(Report::Verified { id, outcome, .. }) => {
                    self.verified.push((id, outcome));
                }
                other => panic!("{other:?}"),
            }
        }
        while let Some((asker, reply)) = self.replies.pop_front() {
            if matches!(reply, Reply::MemoryPressure) {
                self.short.push(asker.stream.stream);
                continue;
            }
            let before = self.answers.insert(asker.stream.stream, reply);
            assert!(before.is_none(), "answered twice");
        }
    }

    /// Performs one act, any that is in progress. `false` if there is none.
    pub(in crate::store) fn step(&mut self) -> bool {
        self.step_where(|_| true)
    }

    /// Performs one act in progress that is so. `false` if there is none.
    pub(in crate::store) fn step_where(&mut self, is_so: impl Fn(&DiskOp) -> bool) -> bool {
        let all = self.pending.iter().enumerate();
        let some: Vec<usize> = all.filter(|(_, (_, op))| is_so(op)).map(|(nth, _)| nth).collect();
        if some.is_empty() {
            return false;
        }
        let nth = some[self.chance.below(some.len())];
        let nth = self.first_before(nth);
        let (ticket, op) = self.pending.remove(nth);
        let done = self.disk.perform(op);
        match self.tickets.redeem(ticket) {
            Waiter::Partition { partition, tag } => {
                self.tell(|store, cx| store.on_disk(partition, tag, done, cx));
            }
            Waiter::FreeSpace { volume } => {
                let space = match done {
                    Ok(DiskDone::Space(space)) => Some(space),
                    _ => None,
                };
                self.tell(|store, cx| store.on_space(volume, space, cx));
            }
            // A shard settles after every event.
            _ => self.settle(),
        }
        true
    }

    /// What must be performed before the act at `nth`, or it: a file is closed after all that was
    /// asked of it before, and all that was asked later comes after.
    fn first_before(&self, nth: usize) -> usize {
        let ends = |op: &DiskOp| matches!(op, DiskOp::Close { .. } | DiskOp::Open { .. });
        let (_, chosen) = &self.pending[nth];
        let Some(file) = file_of(chosen) else { return nth };
        let before = self.pending[..nth].iter();
        let mut same =
            before.map(|(_, op)| file_of(op) == Some(file) && (ends(op) || ends(chosen)));
        same.position(|same| same).map_or(nth, |before| self.first_before(before))
    }

    pub(in crate::store) fn run(&mut self) {
        while self.step() {}
    }

    pub(in crate::store) fn ask(&mut self, ask: Ask) -> u32 {
        self.ask_from(ShardId(0), ask)
    }

    /// A question of any shard; this one is 0.
    pub(in crate::store) fn ask_from(&mut self, shard: ShardId, ask: Ask) -> u32 {
        self.asked += 1;
        let asker =
            Asker { shard, stream: stream(self.asked), peer: self.peer, place: ask.place() };
        self.tell(|store, cx| store.on_ask(asker, ask, cx));
        self.asked
    }

    /// The asker wants the group no more.
    pub(in crate::store) fn cancel(&mut self, asked: u32, address: Address, index: u64) {
        let asker =
            Asker { shard: ShardId(0), stream: stream(asked), peer: None, place: Place::Other };
        self.tell(|store, cx| store.on_ask(asker, Ask::Cancel { address, index }, cx));
    }

    pub(in crate::store) fn answer(&mut self, ask: Ask) -> Reply {
        let asked = self.ask(ask);
        self.run();
        self.answers.remove(&asked).expect("every ask is answered")
    }

    pub(in crate::store) fn blocks(&mut self, bytes: &[u8]) -> Vec<Block> {
        bytes.chunks(GROUP_LEN).map(|group| self.block(group)).collect()
    }

    pub(in crate::store) fn put_ask(&mut self, bytes: &[u8]) -> Ask {
        let Hashed { address, size, outboard } = hashed(bytes);
        let blocks = self.blocks(bytes);
        Ask::Put { address, size, outboard, blocks }
    }

    /// What brings these bytes: an upload if they are many.
    pub(in crate::store) fn store_ask(&mut self, bytes: &[u8]) -> Ask {
        if bytes.len() > 1024 * 1024 { self.upload(bytes) } else { self.put_ask(bytes) }
    }

    pub(in crate::store) fn put(&mut self, bytes: &[u8]) -> Reply {
        let ask = self.put_ask(bytes);
        self.answer(ask)
    }

    pub(in crate::store) fn upload(&mut self, bytes: &[u8]) -> Ask {
        let Hashed { address, size, outboard } = hashed(bytes);
        let header = RecordHeader::for_file(address, size, 0).unwrap();
        let mut file = header.encode().to_vec();
        file.resize(header.data_offset() as usize, 0);
        file.extend(bytes);
        file.resize(header.outboard_offset() as usize, 0);
        file.extend(outboard.as_bytes());
        file.resize(header.record_len() as usize, 0);
        let path =
            self.config.layout.tmp_path(0, self.config.boot_id, ShardId(0), u64::from(self.asked));
        self.disk.place(&path, &file);
        Ask::Adopt { address, size, path }
    }

    pub(in crate::store) fn get(&mut self, address: &Address) -> Result<Vec<u8>, Option<Fault>> {
        let opened = self.answer(Ask::Open { address: *address, first: Some(0) });
        let (size, first) = match opened {
            Reply::Opened { size, first } => (size, first),
            Reply::Missing => return Err(None),
            Reply::Failed(fault) => return Err(Some(fault)),
            other => panic!("{other:?}"),
        };
        let Some(first) = first else { return Ok(Vec::new()) };
        let mut bytes = first.body(0, first.len()).bytes().to_vec();
        for index in 1..group_count(size) {
            match self.answer(Ask::Group { address: *address, index, begins: false, ahead: false })
            {
                Reply::Group(group) => {
                    assert_eq!((group.index(), group.len()), (index, group_len(size, index)));
                    bytes.extend(group.body(0, group.len()).bytes());
                }
                Reply::Failed(fault) => return Err(Some(fault)),
                other => panic!("{other:?}"),
            }
        }
        Ok(bytes)
    }

    pub(in crate::store) fn holds(&mut self, bytes: &[u8]) -> bool {
        match self.get(&Address::of(bytes)) {
            Ok(found) => {
                assert!(found == bytes, "other bytes than were stored");
                true
            }
            Err(None) => false,
            Err(Some(fault)) => panic!("{fault:?} for {} bytes", bytes.len()),
        }
    }

    pub(in crate::store) fn begin_stop(&mut self) {
        self.tell(|store, cx| store.stop(cx));
    }

    pub(in crate::store) fn stop(&mut self) {
        self.begin_stop();
        self.run();
        assert!(self.store.is_stopped());
    }

    pub(in crate::store) fn checkpoint(&mut self) {
        assert!(self.store.wake_at(&self.free_space).is_some(), "something to carry over");
        self.now.mono_ns += limits::CHECKPOINT_AFTER_NS;
        self.settle();
        self.run();
    }

    pub(in crate::store) fn settle(&mut self) {
        self.tell(|store, cx| store.settle(cx));
    }

    pub(in crate::store) fn scrub_now(&mut self) {
        self.tell(|store, cx| store.scrub_now(cx));
    }

    pub(in crate::store) fn list(&mut self, id: u64, range: ListRange) {
        self.tell(|store, cx| store.list(id, range, cx));
    }

    pub(in crate::store) fn verify(&mut self, id: u64, address: Address) {
        self.tell(|store, cx| store.verify(id, address, cx));
    }

    pub(in crate::store) fn segments(&self) -> Vec<PathBuf> {
        let paths = self.disk.paths().into_iter();
        paths.filter(|path| path.extension().is_some_and(|name| name == "seg")).collect()
    }
}

pub(in crate::store) fn hashed(bytes: &[u8]) -> Hashed {
    let mut hashing = Hashing::new();
    hashing.update(bytes).unwrap();
    hashing.finish()
}

pub(in crate::store) fn object(n: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Objects of every shape: none, one and many groups, in segments and files.
pub(in crate::store) fn shapes() -> Vec<Vec<u8>> {
    let lens = [0, 1, 3967, 3968, 3969, 4096, 65_535, 65_536, 65_537, 131_072, 1024 * 1024];
    lens.iter().enumerate().map(|(n, len)| object(n as u64, *len)).collect()
}

pub(in crate::store) fn is_new(reply: &Reply) -> bool {
    match reply {
        Reply::Stored { new } => *new,
        other => panic!("{other:?}"),
    }
}
