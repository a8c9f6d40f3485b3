//! A shard with a disk in memory and one connection at a time, which lives through many processes.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use ron_io::{
    limits::RECV_BUFFER_LEN,
    ports::{Act, ConnId, Event, ListenerId, Machine, Order, Report, ShardId, Slice},
    sim::{Chance, Clock, Disk, End, Queue},
    stats::{Proto, Stats},
};
use ron_shards::{
    config::{Config, Listener},
    flow::Mail,
    shard::Shard,
    store::layout::Layout,
};
use tempfile::TempDir;

use super::Cuts;

/// The listeners, by their numbers.
pub const HTTP: u8 = 0;
pub const OAP: u8 = 1;

/// Ticks until a connection whose peer has ended must have ended, too.
const TICKS_MAX: u32 = 1000;

/// Acts until a shard must be ready, or stop, and until it must have come to rest.
const ACTS_MAX: u32 = 100_000;

const ARENA_LEN: usize = 8 * 1024 * 1024;

enum Item {
    Bytes(Vec<u8>),
    Slice(Slice),
}

impl Item {
    fn bytes(&self) -> &[u8] {
        match self {
            Item::Bytes(bytes) => bytes,
            Item::Slice(slice) => slice.bytes(),
        }
    }
}

/// The one connection.
struct Conn {
    id: ConnId,
    queued: VecDeque<Item>,
    out: Vec<u8>,
    paused: bool,
    finishing: bool,
    aborted: bool,
    closed: bool,
}

pub struct World {
    shard: Shard,
    queue: Queue,
    pub disk: Disk,
    pub chance: Chance,
    clock: Clock,
    conn: Conn,
    ready: bool,
    /// The shard has stopped, and why if it was not asked to.
    stopped: Option<Option<String>>,
    runs: u32,
    boots: u64,
    object_len_max: u64,
    /// Where the snapshots of the index are, which are files of the system.
    root: TempDir,
}

impl World {
    /// An empty data directory, and a shard of it that is ready.
    pub fn new(object_len_max: u64) -> World {
        let mut world = World::lay(object_len_max, &Image::default());
        world.boot();
        assert!(world.ready, "the shard boots: {:?}", world.stopped);
        world
    }

    /// The files of an image, and a shard that has not booted yet.
    pub fn lay(object_len_max: u64, image: &Image) -> World {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let root = root.expect("a folder can be made");
        let mut chance = Chance::new(1);
        let mut disk = Disk::new(&[root.path().into()], chance.fork());
        for (name, bytes) in &image.files {
            disk.lay(&root.path().join(name), bytes);
        }
        for (name, bytes) in &image.snapshots {
            let path = root.path().join(name);
            let folder = path.parent().expect("a file is in a folder");
            fs::create_dir_all(folder).expect("a folder can be made");
            fs::write(&path, bytes).expect("a file can be written");
        }
        World {
            shard: shard(root.path(), 0, object_len_max),
            queue: Queue::default(),
            disk,
            chance,
            clock: Clock::default(),
            conn: Conn::new(0),
            ready: false,
            stopped: None,
            runs: 0,
            boots: 0,
            object_len_max,
            root,
        }
    }

    /// Everything that is in the data directory.
    pub fn image(&self) -> Image {
        let root = self.root.path();
        let inside = |name: &str| {
            let path = Path::new(name).strip_prefix(root).expect("it is in the data directory");
            path.to_path_buf()
        };
        let files = self.disk.files();
        let files = files.map(|(name, id, _)| (inside(name), self.disk.bytes(id).to_vec()));
        let snapshots = self.snapshots().into_iter().map(|path| {
            let bytes = fs::read(&path).expect("a snapshot can be read");
            (inside(&path.display().to_string()), bytes)
        });
        Image { files: files.collect(), snapshots: snapshots.collect() }
    }

    /// The snapshots of the index, and what else is beside them, by name.
    pub fn snapshots(&self) -> Vec<PathBuf> {
        let listed = fs::read_dir(self.root.path().join("p000/index")).into_iter().flatten();
        let mut all: Vec<_> = listed.map(|entry| entry.expect("an entry").path()).collect();
        all.sort_unstable();
        all
    }

    pub fn runs(&self) -> u32 {
        self.runs
    }

    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Why the shard stopped by itself.
    pub fn reason(&self) -> Option<&str> {
        self.stopped.as_ref()?.as_deref()
    }

    /// Lets the shard come up: afterwards it is ready, or has stopped.
    pub fn boot(&mut self) {
        self.apply(Event::Tick);
        for _ in 0..ACTS_MAX {
            if self.ready || self.stopped.is_some() {
                return self.settle();
            }
            if !self.step() {
                self.tick();
            }
        }
        panic!("the shard is not ready, and does not stop");
    }

    /// The process ends in the midst of whatever it does, and the next one begins: it has not
    /// booted yet.
    pub fn end(&mut self, how: End) {
        std::mem::take(&mut self.queue).abandon(&mut self.disk, &mut self.chance);
        match how {
            End::Kill => self.disk.close_all(),
            End::Power => self.disk.crash(),
        }
        self.boots += 1;
        self.conn = Conn::new(self.runs);
        self.shard = shard(self.root.path(), self.boots, self.object_len_max);
        (self.ready, self.stopped) = (false, None);
    }

    /// A process that ends so many things after it began, however far its boot is.
    pub fn boot_into_end(&mut self, happen: u32, how: End) {
        self.apply(Event::Tick);
        for _ in 0..happen {
            if !self.step() {
                break;
            }
        }
        self.end(how);
    }

    /// Asks the shard to end in good order, and waits until it has.
    pub fn drain(&mut self) {
        self.order(Order::Drain { within_ms: 1000 });
        for _ in 0..ACTS_MAX {
            if self.stopped.is_some() {
                return self.settle();
            }
            if !self.step() {
                self.tick();
            }
        }
        panic!("the shard does not end");
    }

    pub fn order(&mut self, order: Order) {
        self.apply(Event::Mail(Mail::Order(order)));
    }

    /// Lets this much time pass, and all that is due in it happen.
    pub fn pass(&mut self, ns: u64) {
        let until = self.clock.now().mono_ns + ns;
        self.settle();
        while let Some(at) = self.shard.wake_at().filter(|at| *at <= until) {
            self.clock.pass_until(at);
            self.apply(Event::Tick);
            self.settle();
        }
        self.clock.pass_until(until);
        self.apply(Event::Tick);
        self.settle();
    }

    /// One connection from its beginning to its end; what it was sent.
    pub fn run(&mut self, listener: u8, cuts: Cuts, stream: &[u8]) -> Vec<u8> {
        let conn = self.open(listener, cuts);
        for piece in cuts.pieces(stream) {
            for data in piece.chunks(RECV_BUFFER_LEN) {
                self.pass_while(|world| world.conn.paused);
                if self.conn.closed {
                    break;
                }
                self.apply(Event::Bytes { conn, data });
                if self.chance.toss() {
                    self.settle();
                }
            }
        }
        self.settle();
        self.pass_while(|world| world.conn.paused);
        if !self.conn.closed {
            self.apply(Event::Eof { conn });
        }
        self.pass_while(|_| true);
        std::mem::take(&mut self.conn.out)
    }

    /// A connection whose process ends when so many things have happened since its last byte, or
    /// when nothing happens any more. What it was sent.
    pub fn run_into_end(&mut self, stream: &[u8], happen: u32, how: End) -> Vec<u8> {
        let conn = self.open(HTTP, Cuts::WHOLE);
        for data in stream.chunks(RECV_BUFFER_LEN) {
            self.pass_while(|world| world.conn.paused);
            if self.conn.closed {
                break;
            }
            self.apply(Event::Bytes { conn, data });
        }
        for _ in 0..happen {
            if !self.step() {
                break;
            }
        }
        let out = std::mem::take(&mut self.conn.out);
        self.end(how);
        out
    }

    /// No block is held by anybody but the cache.
    pub fn expect_nothing_held(&mut self) {
        let pages = self.shard.pages();
        assert_eq!(pages.free + pages.cached, pages.total, "blocks are held by nobody");
    }

    fn open(&mut self, listener: u8, cuts: Cuts) -> ConnId {
        self.runs += 1;
        self.chance = Chance::new(u64::from(cuts.seed()));
        self.conn = Conn::new(self.runs);
        let (conn, peer) = (self.conn.id, ([127, 0, 0, 1], 1000).into());
        self.apply(Event::Opened { conn, listener: ListenerId(listener), peer });
        conn
    }

    /// Lets time pass while this is so and the connection is there.
    fn pass_while(&mut self, goes_on: impl Fn(&World) -> bool) {
        self.settle();
        let mut ticks = 0;
        while goes_on(self) && !self.conn.closed {
            self.tick();
            self.settle();
            ticks += 1;
            assert!(ticks < TICKS_MAX, "the connection does not end");
        }
    }

    /// Lets time pass until the shard wants to be woken.
    fn tick(&mut self) {
        let at = self.shard.wake_at().expect("what is waited for has a deadline");
        self.clock.pass_until(at);
        self.apply(Event::Tick);
    }

    /// Performs and reports all that is in progress: disk and sending.
    fn settle(&mut self) {
        for _ in 0..ACTS_MAX {
            if !self.step() {
                return;
            }
        }
        panic!("the shard does not come to rest");
    }

    /// One thing happens, if there is any but that time passes.
    fn step(&mut self) -> bool {
        if self.queue.in_progress() > 0 {
            self.queue.perform(u64::MAX, &mut self.disk, &mut self.chance, false);
        } else if self.queue.undelivered() > 0 {
            let (ticket, done) = self.queue.tell(&mut self.chance);
            self.apply(Event::Disk { ticket, done });
        } else if self.conn.aborted && !self.conn.closed {
            self.conn.closed = true;
            self.conn.queued.clear();
            self.apply(Event::Closed { conn: self.conn.id });
        } else if let Some(item) = self.conn.queued.pop_front() {
            self.conn.out.extend_from_slice(item.bytes());
            let (conn, len) = (self.conn.id, item.bytes().len());
            drop(item);
            self.apply(Event::Sent { conn, len });
        } else {
            return false;
        }
        true
    }

    fn apply(&mut self, event: Event<'_, Mail>) {
        self.shard.apply(event, self.clock.now());
        while let Some(act) = self.shard.acts().pop() {
            self.act(act);
        }
    }

    fn act(&mut self, act: Act<Mail, <Shard as Machine>::Body>) {
        match act {
            Act::Send { conn, head, body } => {
                let head = self.shard.acts().bytes(head).to_vec();
                let alive = self.conn.is(conn) && !self.conn.finishing;
                if alive {
                    let items =
                        [Some(Item::Bytes(head)), body.map(|body| Item::Slice(body.into()))];
                    let items = items.into_iter().flatten();
                    self.conn.queued.extend(items.filter(|item| !item.bytes().is_empty()));
                }
            }
            Act::Finish { conn } => self.conn.finishing |= self.conn.is(conn),
            Act::Abort { conn } => self.conn.aborted |= self.conn.is(conn),
            Act::Pause { conn } if self.conn.is(conn) => self.conn.paused = true,
            Act::Resume { conn } if self.conn.is(conn) => self.conn.paused = false,
            Act::Disk { ticket, op } => self.queue.submit(ticket, op, 0),
            Act::Report(Report::Ready { .. }) => self.ready = true,
            Act::Report(Report::Stopped { reason, .. }) => self.stopped = Some(reason),
            Act::Mail { mail, .. } => panic!("there is nobody to get {mail:?}"),
            _ => {}
        }
    }
}

/// The files of a data directory, by their names in it.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub files: Vec<(PathBuf, Vec<u8>)>,
    pub snapshots: Vec<(PathBuf, Vec<u8>)>,
}

fn shard(root: &Path, boot_id: u64, object_len_max: u64) -> Shard {
    let mut config = Config::new(ShardId(0), Layout::single(root.into(), 1, 1));
    let listener = |proto| Listener { proto, tls: false };
    config.listeners = vec![listener(Proto::Http), listener(Proto::Oap)];
    config.arena_len = ARENA_LEN;
    config.object_len_max = object_len_max;
    config.storage.scrub_every_ms = 0;
    config.boot_id = boot_id;
    Shard::new(config, Arc::new(Stats::default())).expect("there is memory")
}

impl Conn {
    fn new(generation: u32) -> Conn {
        Conn {
            id: ConnId { slot: 0, generation },
            queued: VecDeque::new(),
            out: Vec::new(),
            paused: false,
            finishing: false,
            aborted: false,
            closed: false,
        }
    }

    fn is(&self, conn: ConnId) -> bool {
        self.id == conn && !self.aborted
    }
}
