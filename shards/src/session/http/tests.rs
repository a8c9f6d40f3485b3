//! A session on a bench: a store of plain bytes answers its questions, and what it sends is read
//! as a client reads it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::{Deref, DerefMut},
    path::PathBuf,
};

use ron_codec::{
    address::Address,
    authority::Authority,
    limits::GROUP_LEN,
    outboard::{group_count, group_len},
};
use ron_io::{
    limits::BLOCK_LEN,
    ports::{DiskOp, Now, Report, ShardId, Ticket},
    stats::{CODES, Op, Proto, Rejected},
};

use super::*;
use crate::{
    config::Config,
    flow::{Ask, Body, Fault, Mail, Verified, Waiter},
    store::layout::Layout,
    testing,
};

mod bundle;
mod conn;
mod delete;
mod get;
mod late;
mod parts;
mod put;
mod split;

const CONN: ConnId = ConnId { slot: 3, generation: 7 };
const SECOND_NS: u64 = 1_000_000_000;
const ARENA_BLOCKS: usize = 192;
/// 2001-09-09 01:46:40 UTC.
const UNIX_MS: u64 = 1_000_000_000_000;

pub(super) fn config() -> Config {
    let layout = Layout::single("/nowhere".into(), 1, 1);
    let mut config = Config::new(ShardId(0), layout);
    config.arena_len = ARENA_BLOCKS * BLOCK_LEN;
    config.object_len_max = 6 * 1024 * 1024;
    config.server = "ron/test".into();
    // Most tests are about other deadlines.
    config.deadlines.body_rate = 0;
    config
}

/// What a session did to its connection, besides sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    Finish,
    Abort,
    Pause,
    Resume,
}

struct Bench {
    /// What a context lends the session.
    lent: testing::Bench,
    session: Option<HttpSession>,
    objects: BTreeMap<Address, Vec<u8>>,
    disk: VecDeque<(Ticket, DiskOp)>,
    /// Files that exist.
    files: BTreeSet<PathBuf>,
    /// All that was sent, and how much of it the kernel has not taken.
    out: Vec<u8>,
    unsent: usize,
    did: Vec<Did>,
    /// What was reported.
    reports: Vec<Report>,
    /// Questions asked so far, as text.
    asked: Vec<String>,
    /// Whether the kernel, the store and the disk do nothing for now.
    hold_sends: bool,
    hold_asks: bool,
    hold_disk: bool,
    /// What the question of this number, from 0, is answered with.
    fault: Option<(usize, Fault)>,
    /// Whether there is no place for groups that are asked for ahead of their turn.
    crowded: bool,
    /// The question of this number is answered as if the object were gone.
    missing: Option<usize>,
}

impl Deref for Bench {
    type Target = testing::Bench;

    fn deref(&self) -> &testing::Bench {
        &self.lent
    }
}

impl DerefMut for Bench {
    fn deref_mut(&mut self) -> &mut testing::Bench {
        &mut self.lent
    }
}

impl Bench {
    fn new() -> Bench {
        Bench::from("127.0.0.1", false)
    }

    fn from(peer: &str, tls: bool) -> Bench {
        Bench::with(config(), peer, tls)
    }

    fn with(config: Config, peer: &str, tls: bool) -> Bench {
        let now = Now { mono_ns: SECOND_NS, unix_ms: UNIX_MS };
        let mut bench = Bench {
            lent: testing::Bench { now, ..testing::Bench::with(config) },
            session: None,
            objects: BTreeMap::new(),
            disk: VecDeque::new(),
            files: BTreeSet::new(),
            out: Vec::new(),
            unsent: 0,
            did: Vec::new(),
            reports: Vec::new(),
            asked: Vec::new(),
            hold_sends: false,
            hold_asks: false,
            hold_disk: false,
            fault: None,
            crowded: false,
            missing: None,
        };
        let proto = if tls { Proto::Https } else { Proto::Http };
        let peer = SocketAddr::new(peer.parse().unwrap(), 1234);
        let session = bench.cx(|_, cx| HttpSession::new(CONN, Listener { proto, tls }, peer, cx));
        bench.session = Some(session);
        bench
    }

    fn cx<T>(&mut self, act: impl FnOnce(Option<&mut HttpSession>, &mut Cx<'_>) -> T) -> T {
        act(self.session.as_mut(), &mut self.lent.cx())
    }

    /// Tells the session something, and lets everything happen that follows from it.
    fn tell(&mut self, event: impl FnOnce(&mut HttpSession, &mut Cx<'_>)) {
        self.cx(|session, cx| event(session.unwrap(), cx));
        self.run();
    }

    fn session(&self) -> &HttpSession {
        self.session.as_ref().unwrap()
    }

    fn bytes(&mut self, data: impl AsRef<[u8]>) {
        self.tell(|session, cx| session.on_bytes(data.as_ref(), cx));
    }

    fn eof(&mut self) {
        self.tell(|session, cx| session.on_eof(cx));
    }

    fn drain(&mut self) {
        self.tell(|session, cx| session.on_drain(cx));
    }

    /// Moves to the deadline, which must be `after` nanoseconds away, and tells it.
    fn run_out(&mut self, after: u64) {
        let due = self.session().deadline().expect("a deadline");
        assert_eq!(due - self.now.mono_ns, after);
        self.now.mono_ns = due - 1;
        let before = (self.out.len(), self.did.len());
        self.tell(|session, cx| session.on_deadline(cx));
        assert_eq!((self.out.len(), self.did.len()), before, "it was early");
        self.now.mono_ns = due;
        self.tell(|session, cx| session.on_deadline(cx));
    }

    fn store(&mut self, bytes: &[u8]) -> Address {
        let address = Address::of(bytes);
        self.objects.insert(address, bytes.to_vec());
        address
    }

    fn run(&mut self) {
        loop {
            if let Some(act) = self.acts.pop() {
                self.perform(act);
            } else if self.unsent > 0 && !self.hold_sends {
                self.take(self.unsent);
            } else if !self.asks.is_empty() && !self.hold_asks {
                let (id, ask) = self.asks.pop_front().unwrap();
                if let Ask::Cancel { .. } = ask {
                    continue;
                }
                let reply = self.answer(ask);
                self.cx(|session, cx| session.unwrap().on_reply(id.stream, reply, cx));
            } else if !self.disk.is_empty() && !self.hold_disk {
                let (ticket, op) = self.disk.pop_front().unwrap();
                let done = match op {
                    DiskOp::Open { path, .. } => {
                        assert!(self.files.insert(path));
                        DiskDone::Opened { len: 0 }
                    }
                    DiskOp::Remove { path, .. } => {
                        self.files.remove(&path);
                        DiskDone::Done
                    }
                    DiskOp::Run(job) => DiskDone::Ran(job()),
                    _ => DiskDone::Done,
                };
                match self.tickets.redeem(ticket) {
                    Waiter::Stream { stream: StreamId { stream, .. }, tag } => {
                        let told = Ok(done);
                        self.cx(|session, cx| session.unwrap().on_disk(stream, tag, told, cx));
                    }
                    Waiter::Discard { file, upload } => {
                        self.cx(|_, cx| crate::ingest::discard(file, upload, Ok(done), cx));
                    }
                    _ => {}
                }
            } else {
                return;
            }
        }
    }

    fn perform(&mut self, act: Act<Mail, Body>) {
        match act {
            Act::Send { conn, head, body } => {
                assert_eq!(conn, CONN);
                self.out.extend_from_slice(self.lent.acts.bytes(head));
                self.unsent += head.len() + body.as_ref().map_or(0, |body| body.len());
                self.out.extend_from_slice(body.as_ref().map_or(&[], |body| body.bytes()));
            }
            Act::Finish { .. } => self.did.push(Did::Finish),
            Act::Abort { .. } => self.did.push(Did::Abort),
            Act::Pause { .. } => self.did.push(Did::Pause),
            Act::Resume { .. } => self.did.push(Did::Resume),
            Act::Disk { ticket, op } => self.disk.push_back((ticket, op)),
            Act::Report(report) => self.reports.push(report),
            other => panic!("{other:?}"),
        }
    }

    /// The kernel takes `len` bytes.
    fn take(&mut self, len: usize) {
        self.unsent -= len;
        self.cx(|session, cx| session.unwrap().on_sent(len, cx));
    }

    fn answer(&mut self, ask: Ask) -> Reply {
        let number = self.asked.len();
        let text = match &ask {
            Ask::Open { first, .. } => format!("open {first:?}"),
            Ask::Whole { .. } => "whole".to_owned(),
            Ask::Group { index, .. } => format!("group {index}"),
            Ask::Put { size, .. } => format!("put {size}"),
            Ask::Adopt { size, .. } => format!("adopt {size}"),
            Ask::Delete { .. } => "delete".to_owned(),
            Ask::Cancel { .. } => unreachable!("it has no answer"),
        };
        self.asked.push(text);
        if self.missing == Some(number) {
            return Reply::Missing;
        }
        match self.fault {
            Some((at, fault)) if at == number => return Reply::Failed(fault),
            _ => {}
        }
        match ask {
            Ask::Open { address, first } => match self.objects.get(&address) {
                None => Reply::Missing,
                Some(object) => {
                    let size = object.len() as u64;
                    let first = first.filter(|first| *first < size);
                    let first = first.map(|byte| self.group(&address, byte / GROUP_LEN as u64));
                    Reply::Opened { size, first }
                }
            },
            Ask::Whole { address } => match self.objects.get(&address) {
                None => Reply::Missing,
                Some(object) => Reply::Opened { size: object.len() as u64, first: None },
            },
            Ask::Group { index, ahead: true, .. } if self.crowded => {
                Reply::Late { index, ahead: true }
            }
            Ask::Group { address, index, .. } => Reply::Group(self.group(&address, index)),
            Ask::Put { address, size, blocks, .. } => {
                let bytes: Vec<u8> =
                    blocks.iter().flat_map(|block| block.bytes().to_vec()).collect();
                assert_eq!((bytes.len() as u64, Address::of(&bytes)), (size, address));
                Reply::Stored { new: self.objects.insert(address, bytes).is_none() }
            }
            Ask::Adopt { path, .. } => {
                assert!(self.files.remove(&path));
                Reply::Stored { new: true }
            }
            Ask::Delete { address } => match self.objects.remove(&address) {
                Some(_) => Reply::Deleted,
                None => Reply::Missing,
            },
            Ask::Cancel { .. } => unreachable!("it has no answer"),
        }
    }

    fn group(&mut self, address: &Address, index: u64) -> Verified {
        let object = &self.objects[address];
        assert!(index < group_count(object.len() as u64));
        let start = index as usize * GROUP_LEN;
        let bytes = object[start..start + group_len(object.len() as u64, index)].to_vec();
        Verified::vouch(index, self.block(&bytes), false)
    }

    /// The answers sent so far, as a client reads them that sent these methods.
    fn answers(&self, methods: &[&str]) -> Vec<Answer> {
        let (mut answers, mut rest, mut methods) = (Vec::new(), &self.out[..], methods.iter());
        while !rest.is_empty() {
            let (mut answer, after) = Answer::read(rest);
            rest = after;
            if answer.status != 100 {
                let method = methods.next().unwrap_or(&"GET");
                let bodiless = *method == "HEAD" || matches!(answer.status, 204 | 304);
                let len = if bodiless { 0 } else { answer.len() };
                let (body, after) = rest.split_at(len.min(rest.len()));
                (answer.body, rest) = (body.to_vec(), after);
            }
            answers.push(answer);
        }
        answers
    }

    /// Sends one request on a fresh connection of the same node and returns its answer.
    fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        let request = request.as_ref();
        let method = String::from_utf8_lossy(request.split(|byte| *byte == b' ').next().unwrap());
        self.out.clear();
        self.bytes(request);
        let mut answers = self.answers(&[&method]);
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }

    /// Requests counted under these labels.
    fn counted(&self, op: Op, status: u16) -> u64 {
        let at = CODES.iter().position(|code| *code == status).unwrap_or(CODES.len() - 1);
        self.stats.requests(self.session().wire.proto(), op, at)
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn read(bytes: &[u8]) -> (Answer, &[u8]) {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
        (Answer { status, head, body: Vec::new() }, &bytes[end..])
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    fn len(&self) -> usize {
        self.field("Content-Length").expect("a length").parse().unwrap()
    }

    /// Checks that this is an error answer as it must be, and returns its code.
    fn error(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).expect("an envelope");
        assert_eq!(self.field("Content-Type"), Some("application/json"));
        assert_eq!(self.field("X-Corr-Id"), json["corr_id"].as_str());
        assert!(!json["message"].as_str().unwrap().is_empty());
        let code = ron_codec::error::ErrorCode::parse(json["code"].as_str().unwrap()).unwrap();
        assert_eq!(
            (code.status(), Some(code.retryable())),
            (self.status, json["retryable"].as_bool())
        );
        code.as_str().into()
    }
}

/// Bytes that differ from group to group.
fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 8) ^ (n >> 16).wrapping_mul(31)) as u8).collect()
}

fn get(path: impl std::fmt::Display, fields: &str) -> String {
    request("GET", path, fields)
}

fn request(method: &str, path: impl std::fmt::Display, fields: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}
