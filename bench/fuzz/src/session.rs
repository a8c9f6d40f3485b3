//! Whole sessions: a shard with a disk in memory, and one connection whose bytes are the input.
//!
//! The shard lives through many inputs, as a node does. What must hold for each: the shard does
//! not panic, its answers are well-formed, the connection ends within its deadlines once its peer
//! has ended, and nothing that it held is held afterwards.

use std::{cell::RefCell, collections::VecDeque, sync::Arc};

use ron_codec::oap::{Deframer, Flags, Piece};
use ron_io::{
    limits::RECV_BUFFER_LEN,
    ports::{Act, ConnId, Event, ListenerId, Machine, Report, ShardId, Slice},
    sim::{Chance, Clock, Disk, Queue},
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

const HTTP: u8 = 0;
const OAP: u8 = 1;

/// Inputs until another shard takes over: what was stored is forgotten then.
const RUNS_MAX: u32 = 256;

/// Longest object that is taken: a few groups.
const OBJECT_LEN_MAX: u64 = 300 * 1024;

/// Ticks until a connection whose peer has ended must have ended, too.
const TICKS_MAX: u32 = 1000;

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// An HTTP connection. Without writes, its answers are the same however the bytes are cut.
pub fn http(input: &[u8]) {
    let (cuts, stream) = Cuts::of(input);
    let writes = |name: &[u8]| stream.windows(name.len()).any(|some| some == name);
    with_world(|world| {
        let cut = statuses(&world.run(HTTP, cuts, stream));
        if !writes(b"PUT") && !writes(b"DELETE") {
            let whole = statuses(&world.run(HTTP, Cuts::WHOLE, stream));
            assert_eq!(cut, whole, "cut and whole are answered alike");
        }
    });
}

/// An OAP connection.
pub fn oap(input: &[u8]) {
    let (cuts, stream) = Cuts::of(input);
    let out = with_world(|world| world.run(OAP, cuts, stream));
    let mut rest = &out[..];
    let mut deframer = Deframer::new();
    while let Some(piece) = deframer.next(&mut rest).expect("the node's frames are well-formed") {
        if let Piece::Head(head) = piece {
            assert!(head.flags.contains(Flags::RESP) && head.cap_len == 0, "{head:?}");
            assert!(!head.flags.contains(Flags::REQ), "{head:?}");
        }
    }
}

/// The classes of the statuses of final answers. Which error is found first may depend on where
/// the bytes were cut; that there is one does not.
fn statuses(out: &[u8]) -> Vec<u8> {
    const START: &[u8] = b"HTTP/1.1 ";
    assert!(out.is_empty() || out.starts_with(START), "{:?}", String::from_utf8_lossy(out));
    let found = (0..out.len()).filter(|at| out[*at..].starts_with(START));
    found.filter_map(|at| out.get(at + START.len()).copied()).filter(|c| *c != b'1').collect()
}

fn with_world<T>(run: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(|place| {
        // A world that a panic was seen in is not used again.
        let fresh = |world: &World| world.runs < RUNS_MAX;
        let mut world = place.take().filter(fresh).unwrap_or_else(World::new);
        let result = run(&mut world);
        *place = Some(world);
        result
    })
}

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

struct World {
    shard: Shard,
    queue: Queue,
    disk: Disk,
    chance: Chance,
    clock: Clock,
    conn: Conn,
    ready: bool,
    runs: u32,
    _index: TempDir,
}

impl World {
    fn new() -> World {
        let index = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let index = index.expect("a folder can be made");
        let mut config = Config::new(ShardId(0), Layout::single(index.path().into(), 1, 1));
        let listener = |proto| Listener { proto, tls: false };
        config.listeners = vec![listener(Proto::Http), listener(Proto::Oap)];
        config.arena_len = 8 * 1024 * 1024;
        config.object_len_max = OBJECT_LEN_MAX;
        config.storage.scrub_bytes_per_s = 0;
        config.storage.scrub_every_ms = 0;
        let mut chance = Chance::new(1);
        let disk = Disk::new(&[index.path().into()], chance.fork());
        let shard = Shard::new(config, Arc::new(Stats::default())).expect("there is memory");
        let mut world = World {
            shard,
            queue: Queue::default(),
            disk,
            chance,
            clock: Clock::default(),
            conn: Conn::new(0),
            ready: false,
            runs: 0,
            _index: index,
        };
        world.apply(Event::Tick);
        world.settle();
        assert!(world.ready, "the shard boots");
        world.stored();
        world
    }

    /// Something to ask for: `hello` and an object of three groups of zeros.
    fn stored(&mut self) {
        for body in [b"hello".to_vec(), vec![0; 150_000]] {
            let head = format!(
                "PUT /o/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let out = self.run(HTTP, Cuts::WHOLE, &[head.as_bytes(), &body].concat());
            assert!(out.starts_with(b"HTTP/1.1 201"), "{:?}", String::from_utf8_lossy(&out));
        }
    }

    /// One connection from its beginning to its end; what it was sent.
    fn run(&mut self, listener: u8, cuts: Cuts, stream: &[u8]) -> Vec<u8> {
        self.runs += 1;
        self.chance = Chance::new(u64::from(cuts.seed()));
        self.conn = Conn::new(self.runs);
        let (conn, peer) = (self.conn.id, ([127, 0, 0, 1], 1000).into());
        self.apply(Event::Opened { conn, listener: ListenerId(listener), peer });
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
        let pages = self.shard.pages();
        assert_eq!(pages.free + pages.cached, pages.total, "blocks are held by nobody");
        std::mem::take(&mut self.conn.out)
    }

    /// Lets time pass while this is so and the connection is there.
    fn pass_while(&mut self, goes_on: impl Fn(&World) -> bool) {
        self.settle();
        let mut ticks = 0;
        while goes_on(self) && !self.conn.closed {
            let at = self.shard.wake_at().expect("an open connection has a deadline");
            self.clock.pass_until(at);
            self.apply(Event::Tick);
            self.settle();
            ticks += 1;
            assert!(ticks < TICKS_MAX, "the connection does not end");
        }
    }

    /// Performs and tells everything that is under way: disk and sending.
    fn settle(&mut self) {
        loop {
            if self.queue.under_way() > 0 {
                self.queue.perform(u64::MAX, &mut self.disk, &mut self.chance, false);
            } else if self.queue.untold() > 0 {
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
                return;
            }
        }
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
            Act::Report(Report::Stopped { reason, .. }) => panic!("the shard stops: {reason:?}"),
            Act::Mail { mail, .. } => panic!("there is nobody to get {mail:?}"),
            _ => {}
        }
    }
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
