//! The node under test: real shards, each with its half of a machine made of dice.

use std::{io, sync::Arc};

use ron_io::{
    ports::{Act, Event, ListenerId, Machine, Now, Report},
    sim::{Chance, Disk, End, Link, Mesh, Move, Net, Queue, heap::as_node},
    stats::{Proto, Stats},
    tls,
};
use ron_shards::{
    cache::Pages,
    config::{Config, Listener},
    flow::{Body, Mail},
    limits::MESH_LANE_LEN,
    shard::Shard,
};

use super::{ledger::Ledger, plan::Hunt, trace::Trace, trace::violation};

/// What is spoken on the listeners, by number.
pub const LISTENERS: [Listener; 4] = [
    Listener { proto: Proto::Http, tls: false },
    Listener { proto: Proto::Https, tls: true },
    Listener { proto: Proto::Oap, tls: false },
    Listener { proto: Proto::Oap, tls: true },
];

/// Those of them that a world of churn has.
pub const HTTP: usize = 0;
pub const OAP: usize = 2;

/// Ticks in a row, with nothing else between them, that lead to no act: more are a loop that
/// never sleeps.
const IDLE_TICKS_MAX: u32 = 2000;

/// Ticks of a shard while time stands still: more are a loop that never sleeps, whatever it does.
const TICKS_AT_ONCE_MAX: u32 = 20_000;

/// Acts that one event leads to: more are a shard that answers itself.
const ACTS_MAX: usize = 20_000;

/// Slow acts take up to this long, in nanoseconds.
const SLOW_NS: u64 = 100_000_000_000;

/// One shard and what drives it.
pub struct Part {
    shard: Shard,
    pub stats: Arc<Stats>,
    pub net: Net,
    pub queue: Queue,
    /// It got the first tick.
    ticked: bool,
    idle_ticks: u32,
    /// When it was ticked last, and how often since time stands still.
    ticked_at: (u64, u32),
    pub ready: bool,
    pub stopped: bool,
}

/// What a node needs of the world while it acts.
pub struct Deck<'a> {
    pub now: Now,
    pub disk: &'a mut Disk,
    pub ledger: &'a mut Ledger,
    /// Counts the failures that a shard got.
    pub trouble: &'a mut u64,
    pub chance: &'a mut Chance,
    pub trace: &'a mut Trace,
    /// One in so many disk acts is slow.
    pub slow: u32,
    /// Nanoseconds that the others take, at most; 0 for none.
    pub disk_ns: u64,
    /// What failures are aimed at, and whether it happened.
    pub hunt: Option<Hunt>,
    pub prey_seen: &'a mut bool,
}

pub struct Node {
    pub parts: Vec<Part>,
    pub mesh: Mesh<Mail>,
    /// Acts until the process ends in the midst of them.
    pub fuse: Option<u32>,
    pub reports: Vec<Report>,
    /// A shard ended because it could not go on.
    pub failed: bool,
}

impl Node {
    /// A process that was just started.
    pub fn new(configs: Vec<Config>) -> Node {
        let shards = configs.len();
        let part = |config| {
            let stats = Arc::new(Stats::default());
            Part {
                shard: as_node(|| Shard::new(config, Arc::clone(&stats))).expect("there is memory"),
                stats,
                net: Net::default(),
                queue: Queue::default(),
                ticked: false,
                idle_ticks: 0,
                ticked_at: (0, 0),
                ready: false,
                stopped: false,
            }
        };
        let parts = configs.into_iter().map(part).collect();
        let mesh = Mesh::new(shards, MESH_LANE_LEN);
        Node { parts, mesh, fuse: None, reports: Vec::new(), failed: false }
    }

    /// Whether the process has ended in the midst of its acts.
    pub fn is_blown(&self) -> bool {
        self.fuse == Some(0)
    }

    pub fn is_ready(&self) -> bool {
        self.parts.iter().all(|part| part.ready)
    }

    pub fn is_stopped(&self) -> bool {
        self.parts.iter().all(|part| part.stopped)
    }

    /// Whether a shard is due a tick.
    pub fn is_due(&self, at: usize, now: Now) -> bool {
        let part = &self.parts[at];
        !part.stopped && (!part.ticked || part.wake_at().is_some_and(|at| at <= now.mono_ns))
    }

    /// When something will be due, if nothing happens before.
    pub fn next_at(&self) -> Option<u64> {
        let parts = self.parts.iter().filter(|part| !part.stopped);
        parts
            .filter_map(|part| [part.wake_at(), part.queue.next_at()].into_iter().flatten().min())
            .min()
    }

    /// Whether nothing is in progress and nobody is connected.
    pub fn is_at_rest(&self) -> bool {
        let quiet = |part: &Part| {
            part.net.open() == 0 && part.queue.in_progress() == 0 && part.queue.undelivered() == 0
        };
        self.mesh.waiting().next().is_none() && self.parts.iter().all(quiet)
    }

    /// Tells a shard the time. Returns whether it did something.
    pub fn tick(&mut self, at: usize, deck: &mut Deck<'_>) -> bool {
        let part = &mut self.parts[at];
        part.ticked = true;
        let idle_ticks = part.idle_ticks;
        let acted = self.apply(at, Event::Tick, deck);
        let idle_ticks = if acted { 0 } else { idle_ticks + 1 };
        if idle_ticks > IDLE_TICKS_MAX && self.is_due(at, deck.now) {
            violation!("shard {at} wants ticks and does nothing");
        }
        let part = &mut self.parts[at];
        part.idle_ticks = idle_ticks;
        let (before, times) = part.ticked_at;
        let again = before == deck.now.mono_ns;
        part.ticked_at = (deck.now.mono_ns, if again { times + 1 } else { 0 });
        if part.ticked_at.1 > TICKS_AT_ONCE_MAX {
            violation!("shard {at} wants ticks without end, and time stands still");
        }
        acted
    }

    pub fn perform(&mut self, at: usize, deck: &mut Deck<'_>) {
        let queue = &mut self.parts[at].queue;
        let told = deck.trace.is_on();
        let what = queue.perform(deck.now.mono_ns, deck.disk, deck.chance, told);
        deck.trace.note(|| format!("{at}: performed {what}"));
    }

    pub fn tell(&mut self, at: usize, deck: &mut Deck<'_>) {
        let (ticket, done) = self.parts[at].queue.tell(deck.chance);
        *deck.trouble += self.parts[at].queue.take_troubles();
        self.apply(at, Event::Disk { ticket, done }, deck);
    }

    pub fn deliver(&mut self, from: usize, to: usize, deck: &mut Deck<'_>) {
        if let Some(mail) = self.mesh.take(from, to) {
            deck.trace.note(|| format!("{to}: mail from {from}: {mail:?}"));
            self.apply(to, Event::Mail(mail), deck);
        }
    }

    /// A client connects to a shard, unless the shard refuses.
    pub fn connect(
        &mut self,
        at: usize,
        listener: usize,
        sockets_len: usize,
        deck: &mut Deck<'_>,
    ) -> Option<Link> {
        let net = &mut self.parts[at].net;
        let (link, conn) = net.connect(LISTENERS[listener].tls, sockets_len)?;
        deck.trace.note(|| format!("{at}: {link:?} opened on listener {listener}"));
        let listener = ListenerId(listener as u8);
        let peer = ([127, 0, 0, 1], 1000 + link.0 as u16).into();
        self.apply(at, Event::Opened { conn, listener, peer }, deck);
        Some(link)
    }

    /// Lets happen on a connection what could happen there; no more than `max` bytes move.
    pub fn happen(&mut self, at: usize, what: Move, max: usize, deck: &mut Deck<'_>) {
        let net = &mut self.parts[at].net;
        match what {
            Move::Bytes(link) if net.is_tls(link) => {
                let records = net.receive(link, max);
                deck.trace.note(|| format!("{at}: {link:?} brings {} of TLS", records.len()));
                let len = records.len();
                let mut receiving =
                    Receiving { node: self, at, link, records: &records, rounds: 0, deck };
                if tls::receive(&mut receiving, len).is_err() {
                    deck.trace.note(|| format!("{at}: TLS of {link:?} fails"));
                    self.parts[at].net.abort_after_flush(link);
                }
            }
            Move::Bytes(link) => {
                let (conn, data) = (net.id(link), net.receive(link, max));
                deck.trace.note(|| format!("{at}: {link:?} brings {} bytes", data.len()));
                self.apply(at, Event::Bytes { conn, data: &data }, deck);
            }
            Move::Eof(link) => {
                net.tell_eof(link);
                let conn = net.id(link);
                deck.trace.note(|| format!("{at}: {link:?} brings no more"));
                self.apply(at, Event::Eof { conn }, deck);
            }
            Move::Sent(link) => {
                let (conn, len) = (net.id(link), net.sent(link, max));
                deck.trace.note(|| format!("{at}: {link:?} takes {len} bytes"));
                if len > 0 {
                    self.apply(at, Event::Sent { conn, len }, deck);
                }
            }
            Move::Closed(link) => {
                net.tell_closed(link);
                let conn = net.id(link);
                deck.trace.note(|| format!("{at}: {link:?} is closed"));
                self.apply(at, Event::Closed { conn }, deck);
            }
            Move::Read(_) => {}
        }
    }

    /// The process ends, in the midst of whatever it did.
    pub fn end(self, how: End, disk: &mut Disk, chance: &mut Chance) {
        for part in self.parts {
            part.queue.abandon(disk, chance);
        }
        match how {
            End::Kill => disk.close_all(),
            End::Power => disk.crash(),
        }
    }

    /// Tells a shard something and performs its acts. Returns whether there were any.
    fn apply(&mut self, at: usize, event: Event<'_, Mail>, deck: &mut Deck<'_>) -> bool {
        if self.is_blown() || self.parts[at].stopped {
            return false;
        }
        self.parts[at].idle_ticks = 0;
        as_node(|| self.parts[at].shard.apply(event, deck.now));
        let mut acts = 0;
        while let Some(act) = self.parts[at].shard.acts().pop() {
            acts += 1;
            if acts > ACTS_MAX {
                violation!("one event leads shard {at} to more than {ACTS_MAX} acts");
            }
            if let Some(fuse) = &mut self.fuse {
                *fuse -= 1;
                if *fuse == 0 {
                    deck.trace.note(|| format!("{at}: the process ends before {act:?}"));
                    return true;
                }
            }
            self.act(at, act, deck);
        }
        acts > 0
    }

    fn act(&mut self, at: usize, act: Act<Mail, Body>, deck: &mut Deck<'_>) {
        let part = &mut self.parts[at];
        match act {
            Act::Send { conn, head, body } => {
                part.net.send(conn, part.shard.acts().bytes(head), body.map(Into::into));
            }
            Act::Finish { conn } => part.net.finish(conn),
            Act::Abort { conn } => part.net.abort(conn, deck.chance),
            Act::Pause { conn } => part.net.pause(conn, deck.chance),
            Act::Resume { conn } => part.net.resume(conn),
            Act::Disk { ticket, op } => {
                deck.trace.note(|| format!("{at}: wants {op:?}"));
                *deck.prey_seen |= deck.hunt.is_some_and(|hunt| hunt.is_prey(&op));
                if let Some(inode) = part.queue.inode_of(&op) {
                    deck.ledger.note(&op, inode);
                }
                let slow = deck.chance.one_in(deck.slow);
                let delay = match slow {
                    true => deck.chance.magnitude(SLOW_NS),
                    false if deck.disk_ns > 0 => deck.chance.magnitude(deck.disk_ns),
                    false => 0,
                };
                part.queue.submit(ticket, op, deck.now.mono_ns + delay);
                let in_progress = part.queue.in_progress() + part.queue.undelivered();
                assert!(in_progress <= ron_io::limits::DISK_OPS_MAX, "{in_progress} disk acts");
            }
            Act::Mail { to, mail } => self.mesh.send(at, usize::from(to.0), mail),
            Act::Report(report) => {
                deck.trace.note(|| format!("{at}: reports {report:?}"));
                part.ready |= matches!(report, Report::Ready { .. });
                self.failed |= matches!(report, Report::Stopped { reason: Some(_), .. });
                self.reports.push(report);
            }
            Act::StopAccepting => part.net.stop_accepting(),
            Act::Stopped => part.stopped = true,
        }
    }
}

impl Part {
    pub fn wake_at(&self) -> Option<u64> {
        self.shard.wake_at()
    }

    /// Where the pages of its arena are.
    pub fn pages(&mut self) -> Pages {
        self.shard.pages()
    }

    /// Pages of the arena that are neither free nor in the cache: somebody holds them.
    pub fn pages_held(&mut self) -> usize {
        let pages = self.pages();
        match pages.total.checked_sub(pages.free + pages.cached) {
            Some(held) => held,
            None => violation!("pages are free and cached at once: {pages:?}"),
        }
    }
}

/// Some ciphertext of a connection.
struct Receiving<'a, 'd> {
    node: &'a mut Node,
    at: usize,
    link: Link,
    records: &'a [u8],
    rounds: usize,
    deck: &'a mut Deck<'d>,
}

impl tls::Receiver for Receiving<'_, '_> {
    fn decrypt(&mut self, at: usize) -> io::Result<Option<(usize, tls::Decrypted)>> {
        self.rounds += 1;
        if self.rounds > self.records.len() {
            violation!("TLS is handed {} bytes without end", self.records.len());
        }
        self.node.parts[self.at].net.decrypt(self.link, &self.records[at..])
    }

    fn secured(&mut self) {
        let conn = self.node.parts[self.at].net.id(self.link);
        self.node.apply(self.at, Event::Secured { conn }, self.deck);
    }

    fn tell_plaintext(&mut self) -> bool {
        let net = &mut self.node.parts[self.at].net;
        let (conn, data) = (net.id(self.link), net.plaintext(self.link));
        if !data.is_empty() {
            self.node.apply(self.at, Event::Bytes { conn, data: &data }, self.deck);
        }
        !data.is_empty()
    }

    fn answer(&mut self) {}

    fn closed(&mut self) {
        self.node.parts[self.at].net.ended_by_notice(self.link);
    }
}
