//! How many connections there are, and how much they keep, whatever their peers do.

use ron_io::limits::OUT_BUFFER_LEN;

use super::*;
use crate::{
    config::Listener,
    entropy::Secret,
    limits::{
        IDLE_CUT_NS, IDLE_LOOK_NS, MESH_OTHERS_WAITING_MAX, PIPELINE_LEN_MAX, UNSENT_SHORT_LEN_MAX,
        refused_max,
    },
    store::layout::Layout,
};

const HTTP: ListenerId = ListenerId(0);
const OAP: ListenerId = ListenerId(1);
const BUFFERS_LEN: usize = 512 * 1024;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// A shard, and a driver that sends nothing unless it is ordered to.
struct Rig {
    shard: Shard,
    stats: Arc<Stats>,
    now: Now,
    opened: u32,
    /// Bytes queued on each connection, by slot.
    queued: Vec<usize>,
    finished: Vec<u32>,
    aborted: Vec<u32>,
    /// What was logged.
    notes: Vec<String>,
    /// How often it was said that there are other names.
    names_reports: usize,
}

impl Rig {
    fn new(change: impl FnOnce(&mut Config)) -> Rig {
        let mut config = Config::new(ron_io::ports::ShardId(0), Layout::single("/x".into(), 1, 1));
        let plain = |proto| Listener { proto, tls: false };
        config.listeners = vec![plain(Proto::Http), plain(Proto::Oap)];
        config.arena_len = 1024 * 1024;
        config.connection_buffers = BUFFERS_LEN;
        change(&mut config);
        let stats = Arc::new(Stats::default());
        let shard = Shard::new(config, Arc::clone(&stats)).unwrap();
        let (queued, finished, aborted, notes, names_reports) = Default::default();
        let now = Now { mono_ns: 1, unix_ms: 0 };
        Rig { shard, stats, now, opened: 0, queued, finished, aborted, notes, names_reports }
    }

    fn tell(&mut self, event: Event<'_, Mail>) {
        self.now.mono_ns += 1_000;
        self.shard.apply(event, self.now);
        let mut gone = Vec::new();
        while let Some(act) = self.shard.acts().pop() {
            match act {
                Act::Send { conn, head, body } => {
                    let body = body.map_or(0, |body| body.len());
                    self.queued[conn.slot as usize] += head.len() + body;
                }
                Act::Report(Report::Note { message, .. }) => self.notes.push(message),
                Act::Report(Report::Names { .. }) => self.names_reports += 1,
                Act::Finish { conn } => self.finished.push(conn.slot),
                Act::Abort { conn } => {
                    self.aborted.push(conn.slot);
                    gone.push(conn);
                }
                _ => {}
            }
        }
        for conn in gone {
            self.tell(Event::Closed { conn });
        }
    }

    fn open(&mut self, listener: ListenerId, peer: &str) -> ConnId {
        let conn = ConnId { slot: self.opened, generation: 1 };
        self.opened += 1;
        self.queued.push(0);
        self.tell(Event::Opened { conn, listener, peer: peer.parse().unwrap() });
        conn
    }

    fn bytes(&mut self, conn: ConnId, data: &[u8]) {
        self.tell(Event::Bytes { conn, data });
    }

    fn held(&self) -> usize {
        self.stats.connection_buffer_bytes.get() as usize
    }
}

#[test]
fn connections_never_buffer_more_than_they_may() {
    let mut rig = Rig::new(|_| {});
    let modest = rig.open(HTTP, "192.0.2.1:1");
    rig.bytes(modest, REQUEST);
    for _ in 0..200 {
        let greedy = rig.open(HTTP, "192.0.2.1:1");
        for _ in 0..100 {
            rig.bytes(greedy, &REQUEST.repeat(20));
            // One step may go beyond it by what it adds; then others go.
            assert!(rig.held() <= BUFFERS_LEN, "{} bytes are kept", rig.held());
        }
        let honest = rig.open(HTTP, "192.0.2.1:1");
        rig.bytes(honest, REQUEST);
        assert!(rig.queued[honest.slot as usize] > 0, "others are served meanwhile");
        let (conn, len) = (honest, rig.queued[honest.slot as usize]);
        rig.tell(Event::Sent { conn, len });
        assert!(!rig.aborted.contains(&honest.slot));
    }
    assert!(!rig.aborted.contains(&modest.slot), "who keeps little is left alone");
    assert!(rig.stats.rejected(Rejected::Memory) > 100);
    assert_eq!(rig.stats.rejected(Rejected::Memory), rig.aborted.len() as u64);
    for slot in 0..rig.opened {
        let conn = ConnId { slot, generation: 1 };
        rig.tell(Event::Closed { conn });
    }
    assert_eq!((rig.held(), rig.stats.inflight.get()), (0, 0));
}

#[test]
fn the_stalest_go_first() {
    let space = UNSENT_SHORT_LEN_MAX + 2 * PIPELINE_LEN_MAX + OUT_BUFFER_LEN + 4096;
    let mut rig = Rig::new(|config| config.connection_buffers = 8 * space);
    let stale = rig.open(HTTP, "192.0.2.1:1");
    let taking = rig.open(HTTP, "192.0.2.1:1");
    for conn in [stale, taking] {
        rig.bytes(conn, &REQUEST.repeat(600));
    }
    let mut others = 0;
    while rig.aborted.is_empty() {
        rig.now.mono_ns += 1_000_000;
        rig.tell(Event::Sent { conn: taking, len: 100 });
        let greedy = rig.open(HTTP, "192.0.2.1:1");
        rig.bytes(greedy, &REQUEST.repeat(600));
        others += 1;
        assert!(others < 1000);
    }
    assert_eq!(rig.aborted[0], stale.slot);
    assert!(!rig.aborted.contains(&taking.slot));
}

#[test]
fn connections_beyond_the_most_are_told_and_those_beyond_that_are_closed() {
    let mut rig = Rig::new(|config| {
        config.connections_max = 2;
        config.connection_buffers = 32 * BUFFERS_LEN;
    });
    let first = rig.open(HTTP, "192.0.2.1:1");
    rig.open(OAP, "192.0.2.1:1");
    for _ in 0..refused_max(2) {
        let refused = rig.open(HTTP, "192.0.2.1:1");
        assert!(rig.queued[refused.slot as usize] > 0);
        assert_eq!(rig.finished.last(), Some(&refused.slot));
    }
    assert_eq!(rig.aborted, [] as [u32; 0]);
    let (http, oap) = (rig.open(HTTP, "192.0.2.1:1"), rig.open(OAP, "192.0.2.1:1"));
    assert_eq!(rig.aborted, [http.slot, oap.slot]);
    let refused = refused_max(2) as u64 + 2;
    assert_eq!(rig.stats.rejected(Rejected::Connections), refused);
    assert_eq!(rig.notes.len(), 1, "once a minute: {:?}", rig.notes);
    rig.bytes(first, REQUEST);
    assert!(rig.queued[first.slot as usize] > 0, "those that are served are served on");
    rig.now.mono_ns += REFUSED_TELL_NS;
    rig.open(OAP, "192.0.2.1:1");
    let said = format!("connections_max ({refused} since the last such line)");
    assert!(rig.notes[1].contains(&said), "{:?}", rig.notes);
    let of_peer = rig.stats.peers.all().map(|work| work.unconnected).max();
    assert_eq!(of_peer, Some(refused + 1), "all of one peer");
}

/// While all places are used, those of connections that get a refusal as well, the
/// shard still accepts one more, and closes idle connections for it.
#[test]
fn idle_connections_are_closed_while_every_place_is_used() {
    let mut rig = Rig::new(|config| {
        config.connections_max = 2;
        config.connection_buffers = 32 * BUFFERS_LEN;
    });
    let idle = [rig.open(HTTP, "192.0.2.1:1"), rig.open(OAP, "192.0.2.1:1")];
    for _ in 0..refused_max(2) {
        rig.open(HTTP, "192.0.2.2:1");
    }
    let early = rig.open(OAP, "192.0.2.3:1");
    assert_eq!(rig.aborted, [early.slot], "none was idle for long");
    rig.now.mono_ns += IDLE_CUT_NS;
    rig.open(OAP, "192.0.2.3:1");
    assert!(idle.iter().any(|conn| rig.aborted.contains(&conn.slot)), "{:?}", rig.aborted);
}

#[test]
fn idle_connections_make_room_for_newcomers() {
    let mut rig = Rig::new(|config| {
        config.connections_max = 32;
        config.connections_per_peer = 24;
    });
    // Two peers have all places that are not kept free, and ask for nothing.
    let busy = rig.open(HTTP, "192.0.2.1:1");
    rig.bytes(busy, b"GET / HTTP/1.1\r\n");
    let of = |nth: usize| if nth < 20 { "192.0.2.1:1" } else { "192.0.2.2:1" };
    let idle: Vec<ConnId> = (0..29).map(|nth| rig.open([HTTP, OAP][nth % 2], of(nth))).collect();
    assert!(rig.aborted.is_empty(), "none was idle for long");
    rig.now.mono_ns += IDLE_CUT_NS;
    for nth in 0..24 {
        let honest = rig.open(HTTP, &format!("198.51.100.{nth}:1"));
        rig.bytes(honest, REQUEST);
        assert!(rig.queued[honest.slot as usize] > 0, "newcomer {nth} is served");
        rig.now.mono_ns += IDLE_LOOK_NS;
    }
    assert_eq!(rig.aborted[0], idle[0].slot, "the peer that has most gives first");
    assert!(!rig.aborted.contains(&busy.slot), "who is within a request is not idle");
    assert_eq!(rig.stats.rejected(Rejected::Idle), rig.aborted.len() as u64);
    assert_eq!(rig.stats.rejected(Rejected::Connections), 0);
}

#[test]
fn one_peer_leaves_connections_to_others() {
    let mut rig = Rig::new(|config| {
        config.connections_per_peer = 2;
        config.connections_max = 5;
        config.connection_buffers = 32 * BUFFERS_LEN;
    });
    let ours = [rig.open(HTTP, "[2001:db8::1]:1"), rig.open(HTTP, "[2001:db8::2]:1")];
    rig.open(OAP, "[2001:db8::3]:1");
    assert_eq!((rig.aborted.len(), rig.stats.rejected(Rejected::PeerConnections)), (1, 1));
    let other = rig.open(HTTP, "192.0.2.1:1");
    rig.bytes(other, REQUEST);
    assert!(rig.queued[other.slot as usize] > 0 && rig.finished.is_empty());
    // Those that get a refusal take nobody's place, however many come and stay.
    for _ in 0..refused_max(5) + 10 {
        rig.open(HTTP, "[2001:db8::4]:1");
    }
    assert_eq!(rig.finished.len(), refused_max(5));
    assert_eq!(rig.stats.rejected(Rejected::Connections), 0);
    let (finished, aborted) = (rig.finished.len(), rig.aborted.len());
    let last = rig.open(HTTP, "192.0.2.2:1");
    rig.bytes(last, REQUEST);
    assert!(rig.queued[last.slot as usize] > 0);
    assert_eq!((rig.finished.len(), rig.aborted.len()), (finished, aborted));
    rig.tell(Event::Closed { conn: ours[0] });
    rig.open(OAP, "[2001:db8::3]:1");
    assert_eq!(rig.aborted.len(), aborted, "one that leaves frees its place");
}

fn shard(seed: u64, secret: u64) -> Shard {
    let layout = Layout::single("/nowhere".into(), 1, 1);
    let config = Config {
        arena_len: 1024 * 1024,
        seed,
        cache_secret: Secret::of_seed(secret),
        ..Config::new(ron_io::ports::ShardId(0), layout)
    };
    Shard::new(config, Arc::default()).unwrap()
}

fn ids(shard: &Shard) -> Vec<u128> {
    let mut entropy = shard.entropy.clone();
    std::iter::repeat_with(|| entropy.next_u128()).take(100).collect()
}

/// The generator of ids can be run backwards, so nothing else may come from it.
#[test]
fn ids_tell_nothing_about_the_secret_of_the_cache() {
    assert_eq!(ids(&shard(7, 1)), ids(&shard(7, 2)), "whatever the secret is, ids are the same");
    assert_ne!(ids(&shard(7, 1)), ids(&shard(8, 1)));
    let key = |seed, secret| shard(seed, secret).memory.hash_of(&Address::of(b"x"), 0);
    assert_eq!(key(7, 1), key(8, 1), "whatever the seed is, the hash is the same");
    assert_ne!(key(7, 1), key(7, 2));
}

#[test]
fn one_turn_delivers_so_much_and_the_next_goes_on() {
    let mut rig = Rig::new(|_| {});
    let conn = rig.open(HTTP, "192.0.2.1:1");
    let asker = rig.shard.own(StreamId { conn, stream: 99 });
    for _ in 0..SETTLE_ROUNDS_MAX + 10 {
        rig.shard.replies.push_back((asker, Reply::Missing));
    }
    rig.tell(Event::Tick);
    assert_eq!(rig.shard.replies.len(), 10);
    assert_eq!(rig.shard.wake_at(), Some(0), "it is to be called again at once");
    rig.tell(Event::Tick);
    assert!(rig.shard.replies.is_empty());
    assert!(rig.shard.replies.capacity() <= QUEUE_KEPT, "what a burst took is not kept");
    assert_ne!(rig.shard.wake_at(), Some(0));
}

#[test]
fn a_shard_asks_what_waits_before_it_says_that_it_asks_no_more() {
    let mut rig = Rig::new(|config| {
        config.layout = Layout::single("/x".into(), 2, 2);
        config.mesh_others = 1;
    });
    let conn = ConnId { slot: 0, generation: 1 };
    let (other, to) = (ron_io::ports::ShardId(1), StreamId { conn, stream: 1 });
    let from =
        Asker { shard: ron_io::ports::ShardId(0), stream: to, peer: None, place: Place::Other };
    for _ in 0..2 {
        let ask = Ask::Open { address: Address::of(b""), first: None };
        assert!(rig.shard.mesh.ask(other, from, ask, &mut rig.shard.acts).is_none());
    }
    // The connection of both has gone. What is said to the other shard:
    let mut said = |mail| {
        rig.shard.apply(Event::Mail(mail), rig.now);
        let acts = std::iter::from_fn(|| rig.shard.acts().pop());
        let mails = acts.filter_map(|act| match act {
            Act::Mail { mail: Mail::Ask { .. }, .. } => Some("ask"),
            Act::Mail { mail: Mail::Drained { .. }, .. } => Some("drained"),
            _ => None,
        });
        mails.collect::<Vec<_>>()
    };
    let reply = || Mail::Reply { from: other, to, place: Place::Other, reply: Reply::Missing };
    assert_eq!(said(Mail::Order(Order::Drain { within_ms: 1000 })), ["ask"]);
    assert_eq!(said(reply()), ["ask", "drained"]);
}

#[test]
fn a_question_that_finds_no_room_is_refused_and_counted_once() {
    let mut rig = Rig::new(|config| {
        config.layout = Layout::single("/x".into(), 2, 2);
        config.mesh_others = 1;
        config.connections_max = 2048;
        config.connections_per_peer = 2048;
    });
    let owner = |n: &u32| rig.shard.config.layout.owner(&Address::of(&n.to_le_bytes())).1.0;
    let n = (0..).find(|n| owner(n) == 1).unwrap();
    let address = Address::of(&n.to_le_bytes());
    let head = format!("HEAD /o/{address} HTTP/1.1\r\nHost: h\r\n\r\n");
    let places = 1 + MESH_OTHERS_WAITING_MAX;
    for _ in 0..places + 5 {
        let conn = rig.open(HTTP, "192.0.2.1:1");
        rig.bytes(conn, head.as_bytes());
    }
    assert!(rig.queued[..places].iter().all(|queued| *queued == 0), "these wait");
    assert!(rig.queued[places..].iter().all(|queued| *queued > 0), "these have an answer");
    assert_eq!(rig.stats.rejected(Rejected::Overload), 5);
    // One of another address has its turn: the newest of who has most gives up its place.
    let other = rig.open(HTTP, "192.0.2.2:1");
    rig.bytes(other, head.as_bytes());
    assert_eq!(rig.queued[other.slot as usize], 0);
    assert!(rig.queued[places - 1] > 0);
    assert_eq!(rig.stats.rejected(Rejected::Overload), 6);
    let most = rig.stats.peers.all().map(|work| (work.asked, work.turned_away)).max();
    assert_eq!(most, Some((6, 6)), "all of them of one peer");
}

#[test]
fn names_are_replaced_whole_between_two_events() {
    use ron_io::names::NameTable;

    let table = |version, names: &[(&str, u8)]| {
        let names = names.iter().map(|(path, seed)| (*path, [*seed; 32]));
        Arc::new(NameTable::new(version, names))
    };
    let first = table(1, &[("/a", 1), ("/b", 1)]);
    let mut rig = Rig::new(|config| config.names = Names::new(Arc::clone(&first)));
    let seen = |rig: &Rig| {
        let names = &rig.shard.names;
        let of = |path| names.resolve(path).map(|found| (found.address.as_bytes()[0], found.rest));
        (names.version(), of("/a/x/y"), of("b"))
    };
    assert_eq!(seen(&rig), (1, Some((1, "x/y")), Some((1, ""))));
    assert_eq!(rig.stats.names_version.get(), 1, "before it is ready");

    let conn = rig.open(HTTP, "192.0.2.1:1");
    let (head, tail) = REQUEST.split_at(REQUEST.len() / 2);
    rig.bytes(conn, head);
    rig.tell(Event::Mail(Mail::Order(Order::Names(table(2, &[("/a/x", 2)])))));
    assert_eq!(seen(&rig), (2, Some((2, "y")), None), "all of them at once");
    assert_eq!((rig.stats.names_version.get(), rig.names_reports), (2, 1));
    assert_eq!(rig.queued[conn.slot as usize], 0, "the request that had begun goes on");
    rig.bytes(conn, tail);
    assert!(rig.queued[conn.slot as usize] > 0);
    assert_eq!(Arc::strong_count(&first), 1, "the shard holds nothing of the names before");
}
