//! The driver with a small machine in place of a shard, over real sockets and a real disk.

mod accept;
mod disk;
mod idle;
mod tls;
mod watch;

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use socket2::SockRef;

use super::*;
use crate::{
    arena::{Arena, Block},
    lane::{Sender, Waker, lane},
    ports::*,
    stats::Stats,
};

/// How long something may take that does not take long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers each line: `echo TEXT`, `block N HOT` (N bytes of a block), `file` (written, synced,
/// read back), `bye` (the node's side ends), anything else (the connection is dropped).
struct Toy {
    acts: Acts<&'static str>,
    arena: Arena,
    lines: HashMap<u32, Vec<u8>>,
    file: PathBuf,
    /// The connection that waits for the file, and how far it is.
    filing: Option<(ConnId, u64)>,
    held: Vec<Block>,
    /// Bytes reported as sent.
    sent: Arc<AtomicUsize>,
}

/// Holds for blocks whose bytes are all x.
#[derive(Debug)]
struct AllTheSame;

impl Seal for AllTheSame {
    fn holds(&self, block: &[u8]) -> bool {
        block.iter().all(|byte| *byte == b'x')
    }
}

impl Toy {
    fn line(&mut self, conn: ConnId, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["echo", text] => {
                let start = self.acts.scratch().len();
                self.acts.scratch().extend_from_slice(text.as_bytes());
                self.acts.send(conn, start, None);
            }
            ["block", len, hot] => {
                let len: usize = len.parse().unwrap();
                let start = self.acts.scratch().len();
                self.acts.scratch().push(b'>');
                let mut rest = len;
                while rest > 0 || self.acts.scratch().len() > start {
                    let part = rest.min(65536);
                    let mut block = self.arena.alloc_after(part, self.held.last()).unwrap();
                    block
                        .bytes_mut()
                        .iter_mut()
                        .enumerate()
                        .for_each(|(n, b)| *b = (n % 251) as u8);
                    let block = block.freeze(part);
                    self.held.push(block.clone());
                    let body = Slice::whole(block).hot(hot == "hot");
                    let head = if rest == len { start } else { self.acts.scratch().len() };
                    self.acts.send(conn, head, Some(body));
                    rest -= part;
                    if rest == 0 {
                        break;
                    }
                }
            }
            ["sealed", len, hot, state] => {
                let len: usize = len.parse().unwrap();
                let mut block = self.arena.alloc(len).unwrap();
                block.bytes_mut().fill(b'x');
                // One bit is other than when the block was verified.
                block.bytes_mut()[len - 1] ^= u8::from(state == "broken");
                let body = Slice::whole(block.freeze(len)).hot(hot == "hot");
                let start = self.acts.scratch().len();
                self.acts.send(conn, start, Some(body.sealed(Some(Arc::new(AllTheSame)))));
            }
            ["file"] => {
                self.filing = Some((conn, 0));
                let how = OpenHow::CreateNew;
                self.disk(0, DiskOp::Open { file: FileId(7), path: self.file.clone(), how });
            }
            ["bye"] => self.acts.push(Act::Finish { conn }),
            _ => self.acts.push(Act::Abort { conn }),
        }
    }

    fn disk(&mut self, ticket: u64, op: DiskOp) {
        self.acts.push(Act::Disk { ticket: Ticket(ticket), op });
    }

    fn filed(&mut self, ticket: u64, done: DiskDone) {
        let (conn, _) = self.filing.unwrap();
        let file = FileId(7);
        match (ticket, done) {
            (0, DiskDone::Opened { len: 0 }) => {
                let parts = vec![Part::Bytes(vec![b'a'; 5000]), Part::Zeros(8192 - 5000)];
                self.disk(1, DiskOp::Write { file, at: 4096, parts });
            }
            (1, DiskDone::Done) => self.disk(2, DiskOp::Sync { file }),
            (2, DiskDone::Done) => {
                let into = self.arena.alloc(2000).unwrap();
                self.disk(3, DiskOp::Read { file, at: 4096 + 4000, len: 2000, into });
            }
            (3, DiskDone::Read(block)) => {
                self.disk(4, DiskOp::Close { file });
                let start = self.acts.scratch().len();
                self.acts.send(conn, start, Some(Slice::whole(block)));
            }
            (4, DiskDone::Done) => {}
            (ticket, done) => panic!("{ticket}: {done:?}"),
        }
    }
}

impl Machine for Toy {
    type Mail = &'static str;
    type Body = Slice;

    fn apply(&mut self, event: Event<'_, &'static str>, _now: Now) {
        match event {
            Event::Bytes { conn, data } => {
                let mut kept = self.lines.remove(&conn.slot).unwrap_or_default();
                kept.extend_from_slice(data);
                while let Some(end) = kept.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = kept.drain(..=end).collect();
                    self.line(conn, std::str::from_utf8(&line[..end]).unwrap());
                }
                self.lines.insert(conn.slot, kept);
            }
            Event::Sent { len, .. } => drop(self.sent.fetch_add(len, Ordering::Relaxed)),
            Event::Eof { conn } => self.acts.push(Act::Finish { conn }),
            Event::Closed { conn } => drop(self.lines.remove(&conn.slot)),
            Event::Disk { ticket, done } => self.filed(ticket.0, done.unwrap()),
            Event::Mail("stop") => self.acts.push(Act::Stopped),
            _ => {}
        }
    }

    fn acts(&mut self) -> &mut Acts<&'static str> {
        &mut self.acts
    }

    fn wake_at(&self) -> Option<u64> {
        None
    }
}

struct Running {
    address: SocketAddr,
    orders: Sender<&'static str>,
    stats: Arc<Stats>,
    thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

fn start() -> Running {
    start_with(None, Arc::default())
}

fn start_with(tls: Option<TlsConfig>, sent: Arc<AtomicUsize>) -> Running {
    start_for(1024, tls, sent)
}

/// One that has so many connections at most.
fn start_for(connections_max: usize, tls: Option<TlsConfig>, sent: Arc<AtomicUsize>) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let (address, mut sockets) = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
    // Under one that paces, which may be the system's own, nothing would leave by reference.
    sockets[0].set_tcp_congestion(b"reno").unwrap();
    let waker = Arc::new(Waker::new().unwrap());
    let (orders, from) = lane(8, &waker);
    let (reports, _) = lane(8, &Arc::new(Waker::new().unwrap()));
    let file = folder.path().join("toy");
    let stats = Arc::new(Stats::default());
    let driver = Driver {
        core: None,
        name: "toy".into(),
        listeners: vec![Listener { socket: sockets.remove(0), tls }],
        connections_max,
        mailboxes: Mailboxes { waker, from: vec![from], to: vec![None], reports },
        stats: Arc::clone(&stats),
    };
    let thread = std::thread::spawn(move || {
        let make = || {
            Ok(Toy {
                acts: Acts::default(),
                arena: Arena::new(512)?,
                lines: HashMap::new(),
                file,
                filing: None,
                held: Vec::new(),
                sent,
            })
        };
        driver.run(make).unwrap();
    });
    Running { address, orders, stats, thread: Some(thread), _folder: folder }
}

impl Running {
    fn stop(mut self) {
        self.orders.send("stop").unwrap();
        self.thread.take().unwrap().join().unwrap();
    }

    fn ask(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        SockRef::from(&stream).set_recv_buffer_size(65536).unwrap();
        stream.write_all(request).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }
}

#[test]
fn answers_come_in_order_and_the_sleeping_loop_wakes_for_mail() {
    let node = start();
    assert_eq!(node.ask(b"echo one\necho two\n"), b"onetwo");
    let many = "echo 0123456789\n".repeat(5000);
    assert_eq!(node.ask(many.as_bytes()), "0123456789".repeat(5000).as_bytes());
    node.stop();
}

#[test]
fn blocks_go_out_by_copy_and_by_reference() {
    let node = start();
    let mut lent = 0;
    // The longest is more than the sockets on both sides keep: it goes in many parts.
    for (len, hot) in [
        (4096, "hot"),
        (65536, "cold"),
        (65536, "hot"),
        (4_000_000, "hot"),
        (3_000_001, "cold"),
        (20_000_000, "hot"),
    ] {
        let request = format!("block {len} {hot}\necho end\n");
        let answer = node.ask(request.as_bytes());
        assert_eq!(answer.len(), 1 + len + 3, "{len} {hot}");
        assert_eq!(answer[0], b'>');
        let expected = |n: usize| ((n % 65536) % 251) as u8;
        assert!((0..len).all(|n| answer[1 + n] == expected(n)), "{len} {hot}");
        assert!(answer.ends_with(b"end"));
        // Only whole blocks are lent.
        lent += if hot == "hot" { len / 65536 * 65536 } else { 0 };
    }
    let stats = Arc::clone(&node.stats);
    node.stop();
    assert_eq!(stats.lent_bytes.get(), lent as u64, "what is hot, and nothing else");
}

/// What is no longer as it was verified does not leave, on no way out.
#[test]
fn a_body_that_changed_since_it_was_verified_is_not_sent() {
    let node = start();
    let ways = [(4096, "cold"), (65536, "cold"), (65536, "hot")];
    for (at, (len, hot)) in ways.into_iter().enumerate() {
        let answer = node.ask(format!("sealed {len} {hot} whole\necho end\n").as_bytes());
        assert_eq!(answer.len(), len + 3, "{len} {hot}");
        let mut stream = TcpStream::connect(node.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("sealed {len} {hot} broken\necho end\n").as_bytes()).unwrap();
        let mut got = Vec::new();
        // It ends, by a reset or without one, and nothing of the body came before.
        let _ = stream.read_to_end(&mut got);
        assert_eq!(got, b"", "{len} {hot}");
        // It is shown when the turn ends in which the connection did.
        let until = Instant::now() + PATIENCE;
        while node.stats.verify_send_failures.get() <= at as u64 {
            assert!(Instant::now() < until, "{len} {hot}: the failure is not counted");
            std::thread::yield_now();
        }
        assert_eq!(node.stats.verify_send_failures.get(), at as u64 + 1);
    }
    assert_eq!(node.stats.verify_sends.get(), 6);
    node.stop();
}

#[test]
fn a_peer_that_sends_no_more_and_reads_slowly_costs_nothing() {
    let node = start();
    let bodies = [("hot", 9_000_000), ("cold", 9_000_001)].map(|(hot, len)| {
        let mut stream = TcpStream::connect(node.address).unwrap();
        SockRef::from(&stream).set_recv_buffer_size(65536).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("block {len} {hot}\n").as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        (stream, vec![0; 1 + len])
    });
    for (mut stream, mut received) in bodies {
        for part in received.chunks_mut(3_000_000) {
            // The sockets are full: the loop comes to rest, as one that spins never does.
            let (deadline, mut turns) = (Instant::now() + PATIENCE, 0);
            while turns != node.stats.watch.turns.get() {
                assert!(Instant::now() < deadline, "{turns} turns and no end");
                turns = node.stats.watch.turns.get();
                std::thread::park_timeout(Duration::from_millis(100));
            }
            stream.read_exact(part).unwrap();
        }
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        assert!(received[1..].iter().enumerate().all(|(n, b)| *b == ((n % 65536) % 251) as u8));
    }
    node.stop();
}

#[test]
fn a_file_is_written_synced_and_read_back() {
    let node = start();
    let mut stream = TcpStream::connect(node.address).unwrap();
    stream.write_all(b"file\n").unwrap();
    let mut answer = vec![1; 2000];
    stream.read_exact(&mut answer).unwrap();
    assert!(answer[..1000].iter().all(|byte| *byte == b'a'));
    assert!(answer[1000..].iter().all(|byte| *byte == 0));
    node.stop();
}

#[test]
fn an_abort_ends_the_connection_and_others_go_on() {
    let node = start();
    let mut other = TcpStream::connect(node.address).unwrap();
    let mut stream = TcpStream::connect(node.address).unwrap();
    stream.write_all(b"nonsense\n").unwrap();
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    assert!(ended.is_err() || rest.is_empty());
    other.write_all(b"echo alive\n").unwrap();
    let mut answer = [0; 5];
    other.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"alive");
    node.stop();
}
