//! A session on a rig: a naive store answers its questions, and what it sends is read back.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::{Deref, DerefMut},
    path::PathBuf,
};

use ron_codec::{
    address::Address,
    error::ErrorReply,
    limits::GROUP_LEN,
    oap::{APP_STORAGE, Deframer, Flags, FrameHeader, Piece, append_frame},
    record::RecordPlace,
};
use ron_io::{
    ports::{Act, ConnId, DiskDone, DiskOp, FileId, Now, Part, Report, ShardId, Ticket},
    splitmix::SplitMix64,
    stats::{CODES, Op, Proto},
};

use super::OapSession;
use crate::{
    config::{Config, Listener},
    flow::{Ask, Cx, Fault, Reply, StreamId, Verified, Waiter},
    ingest,
    store::layout::Layout,
    testing::Bench,
};

mod frames;
mod gets;
mod life;
mod puts;

const CONN: ConnId = ConnId { slot: 3, generation: 7 };
const LOCAL: &str = "127.0.0.1:50000";
const REMOTE: &str = "192.0.2.7:50000";
const SECOND: u64 = 1_000_000_000;

/// A frame as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    head: FrameHeader,
    payload: Vec<u8>,
}

impl Frame {
    fn has(&self, flags: Flags) -> bool {
        self.head.flags.contains(flags)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }

    /// The error in the frame, after a look at its envelope.
    fn error(&self) -> (u16, String) {
        assert_eq!(self.head.flags, Flags::RESP | Flags::END, "{self:?}");
        let reply = ErrorReply::parse(&self.payload).unwrap();
        let code = reply.known_code().unwrap();
        assert_eq!((code.status(), code.retryable()), (self.head.code, reply.retryable));
        assert_eq!(reply.corr_id, self.head.corr_id.to_string());
        assert!(!reply.message.is_empty());
        // OAP/1 §9.2
        let json: serde_json::Value = serde_json::from_slice(&self.payload).unwrap();
        let is_limit = matches!(self.head.code, 429 | 503);
        assert_eq!(json["retry_after_ms"].as_u64(), is_limit.then_some(1000), "{json}");
        (self.head.code, reply.code)
    }
}

fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let (mut deframer, mut frames) = (Deframer::new(), Vec::<Frame>::new());
    while let Some(piece) = deframer.next(&mut bytes).unwrap() {
        match piece {
            Piece::Head(head) => frames.push(Frame { head, payload: Vec::new() }),
            Piece::Cap(_) => panic!("an answer with a capability"),
            Piece::Payload(bytes) => frames.last_mut().unwrap().payload.extend_from_slice(bytes),
            Piece::End => {}
        }
    }
    assert!(deframer.is_between_frames());
    frames
}

const START: Flags = Flags::REQ.union(Flags::START);

/// A storage frame of a client.
fn frame(flags: Flags, corr_id: u64, payload: &[u8]) -> Vec<u8> {
    let head = FrameHeader { flags, corr_id, app_proto_id: APP_STORAGE, ..Default::default() };
    let head = FrameHeader { tenant_id: 99, ..head };
    raw(&head, b"", payload)
}

fn raw(head: &FrameHeader, cap: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    append_frame(head, cap, payload, &mut out).unwrap();
    out
}

fn get(corr_id: u64, address: Address, more: &str) -> Vec<u8> {
    let json = format!(r#"{{"op":"get","addr":"{address}"{more}}}"#);
    frame(START, corr_id, json.as_bytes())
}

fn has(corr_id: u64, address: Address) -> Vec<u8> {
    frame(START, corr_id, format!(r#"{{"op":"has","addr":"{address}"}}"#).as_bytes())
}

fn put_start(corr_id: u64, len: usize, address: Option<Address>) -> Vec<u8> {
    let addr = address.map_or(String::new(), |address| format!(r#","addr":"{address}""#));
    frame(START, corr_id, format!(r#"{{"op":"put","len":{len}{addr}}}"#).as_bytes())
}

/// All frames of a put, its bytes in frames of `cut` bytes.
fn put(corr_id: u64, data: &[u8], address: Option<Address>, cut: usize) -> Vec<u8> {
    let mut out = put_start(corr_id, data.len(), address);
    let mut rest = data.chunks(cut).peekable();
    while let Some(chunk) = rest.next() {
        let end = if rest.peek().is_none() { Flags::END } else { Flags::NONE };
        out.extend(frame(Flags::REQ | end, corr_id, chunk));
    }
    if data.is_empty() {
        out.extend(frame(Flags::REQ | Flags::END, corr_id, b""));
    }
    out
}

/// Bytes that differ from group to group.
fn sample(len: usize, seed: u64) -> Vec<u8> {
    let mut numbers = SplitMix64::new(seed);
    std::iter::repeat_with(|| numbers.next_u64().to_le_bytes()).flatten().take(len).collect()
}

/// A session, all it works with, and what came of it.
struct Rig {
    /// What a context lends the session.
    lent: Bench,
    reports: Vec<Report>,
    session: Option<OapSession>,
    /// Bytes sent, and how many of them the session has not learned of.
    out: Vec<u8>,
    unsent: usize,
    /// Finish, Abort, Pause and Resume, in order.
    ends: Vec<&'static str>,
    disk: VecDeque<(Ticket, DiskOp)>,
    files: HashMap<FileId, PathBuf>,
    contents: HashMap<PathBuf, Vec<u8>>,
    objects: BTreeMap<Address, Vec<u8>>,
}

impl Deref for Rig {
    type Target = Bench;

    fn deref(&self) -> &Bench {
        &self.lent
    }
}

impl DerefMut for Rig {
    fn deref_mut(&mut self) -> &mut Bench {
        &mut self.lent
    }
}

impl Rig {
    /// A session with a peer on this machine, over plain TCP.
    fn new() -> Rig {
        Rig::with(LOCAL, false, |_| {})
    }

    fn with(peer: &str, tls: bool, change: impl FnOnce(&mut Config)) -> Rig {
        let layout = Layout::single(PathBuf::from("/data"), 1, 1);
        let mut config = Config::new(ShardId(0), layout);
        // Most tests are about other deadlines.
        config.deadlines.body_rate = 0;
        config.arena_len = 16 * 1024 * 1024;
        change(&mut config);
        let now = Now { mono_ns: 1_000 * SECOND, unix_ms: 0 };
        let mut rig = Rig {
            lent: Bench { now, ..Bench::with(config) },
            reports: Vec::new(),
            session: None,
            out: Vec::new(),
            unsent: 0,
            ends: Vec::new(),
            disk: VecDeque::new(),
            files: HashMap::new(),
            contents: HashMap::new(),
            objects: BTreeMap::new(),
        };
        let listener = Listener { proto: Proto::Oap, tls };
        let peer = peer.parse().unwrap();
        let session = rig.with_cx(|_, cx| OapSession::new(CONN, listener, peer, cx));
        rig.session = Some(session);
        rig
    }

    fn with_cx<T>(&mut self, f: impl FnOnce(&mut Option<OapSession>, &mut Cx<'_>) -> T) -> T {
        f(&mut self.session, &mut self.lent.cx())
    }

    fn tell(&mut self, f: impl FnOnce(&mut OapSession, &mut Cx<'_>)) {
        self.with_cx(|session, cx| f(session.as_mut().unwrap(), cx));
        while let Some(act) = self.acts.pop() {
            match act {
                Act::Send { conn, head, body } => {
                    assert_eq!(conn, CONN);
                    let before = self.out.len();
                    self.out.extend_from_slice(self.lent.acts.bytes(head));
                    self.out.extend(body.iter().flat_map(|body| body.bytes()));
                    self.unsent += self.out.len() - before;
                }
                Act::Finish { .. } => self.ends.push("finish"),
                Act::Abort { .. } => self.ends.push("abort"),
                Act::Pause { .. } => self.ends.push("pause"),
                Act::Resume { .. } => self.ends.push("resume"),
                Act::Report(report) => self.reports.push(report),
                Act::Disk { ticket, op } => self.disk.push_back((ticket, op)),
                other => panic!("{other:?}"),
            }
        }
    }

    fn bytes(&mut self, data: &[u8]) {
        self.tell(|session, cx| session.on_bytes(data, cx));
    }

    /// Tells that everything sent so far went out.
    fn sent(&mut self) {
        let len = std::mem::take(&mut self.unsent);
        self.tell(|session, cx| session.on_sent(len, cx));
    }

    fn reply(&mut self, id: StreamId, reply: Reply) {
        assert_eq!(id.conn, CONN);
        self.tell(|session, cx| session.on_reply(id.stream, reply, cx));
    }

    /// The oldest question, which must be there.
    fn ask(&mut self) -> (StreamId, Ask) {
        self.asks.pop_front().expect("a question")
    }

    /// Answers the oldest question out of the naive store.
    fn answer_one(&mut self) -> bool {
        let Some((id, ask)) = self.asks.pop_front() else { return false };
        let address = *ask.address();
        let reply = match ask {
            Ask::Open { first, .. } => match self.objects.get(&address).map(Vec::len) {
                None => Reply::Missing,
                Some(len) => {
                    let first = first.filter(|at| *at < len as u64);
                    let first = first.map(|at| self.group(address, at / GROUP_LEN as u64));
                    Reply::Opened { size: len as u64, first }
                }
            },
            Ask::Whole { .. } => match self.objects.get(&address).map(Vec::len) {
                None => Reply::Missing,
                Some(len) => Reply::Opened { size: len as u64, first: None },
            },
            Ask::Group { index, .. } => Reply::Group(self.group(address, index)),
            Ask::Put { size, outboard, blocks, .. } => {
                let data: Vec<u8> =
                    blocks.iter().flat_map(|block| block.bytes()).copied().collect();
                assert_eq!(data.len() as u64, size);
                outboard.verify_root(&address).unwrap();
                self.keep(address, data)
            }
            Ask::Adopt { size, path, .. } => {
                let record = self.contents.remove(&path).expect("the file is there");
                let data = &record[RecordPlace::File.unit() as usize..][..size as usize];
                self.keep(address, data.to_vec())
            }
            Ask::Delete { .. } => panic!("no operation of OAP/1 deletes objects"),
            Ask::Cancel { .. } => return true,
        };
        self.reply(id, reply);
        true
    }

    fn keep(&mut self, address: Address, data: Vec<u8>) -> Reply {
        assert_eq!(Address::of(&data), address);
        Reply::Stored { new: self.objects.insert(address, data).is_none() }
    }

    fn group(&mut self, address: Address, index: u64) -> Verified {
        let data = &self.objects[&address];
        let start = index as usize * GROUP_LEN;
        let bytes = &data[start..data.len().min(start + GROUP_LEN)];
        Verified::vouch(index, self.lent.block(bytes), false)
    }

    /// Performs the oldest disk act.
    fn disk_one(&mut self) -> bool {
        let Some((ticket, op)) = self.disk.pop_front() else { return false };
        let done = match op {
            DiskOp::Open { file, path, .. } => {
                self.contents.entry(path.clone()).or_default();
                self.files.insert(file, path);
                DiskDone::Opened { len: 0 }
            }
            DiskOp::Write { file, at, parts } => {
                let content = self.contents.get_mut(&self.files[&file]).unwrap();
                let bytes: Vec<u8> = parts.iter().flat_map(part_bytes).collect();
                let end = at as usize + bytes.len();
                content.resize(content.len().max(end), 0);
                content[at as usize..end].copy_from_slice(&bytes);
                DiskDone::Done
            }
            DiskOp::Rename { from, to } => {
                let content = self.contents.remove(&from).unwrap();
                self.contents.insert(to, content);
                DiskDone::Done
            }
            DiskOp::Remove { path, .. } => {
                self.contents.remove(&path);
                DiskDone::Done
            }
            _ => DiskDone::Done,
        };
        match self.tickets.redeem(ticket) {
            Waiter::Stream { stream, tag } => {
                self.tell(|session, cx| session.on_disk(stream.stream, tag, Ok(done), cx));
            }
            Waiter::Discard { file, upload } => {
                self.tell(|_, cx| ingest::discard(file, upload, Ok(done), cx));
            }
            other => assert_eq!(other, Waiter::Nobody),
        }
        true
    }

    /// Lets store, disk and network work until nothing is left to do.
    fn run(&mut self) {
        loop {
            let unsent = self.unsent;
            if unsent > 0 {
                self.sent();
            }
            if !self.answer_one() && !self.disk_one() && unsent == 0 {
                return;
            }
        }
    }

    /// The frames sent since the last call.
    fn frames(&mut self) -> Vec<Frame> {
        frames(&std::mem::take(&mut self.out))
    }

    /// The only frame sent since the last call.
    fn frame(&mut self) -> Frame {
        let mut frames = self.frames();
        assert_eq!(frames.len(), 1, "{frames:?}");
        frames.remove(0)
    }

    fn store(&mut self, data: &[u8]) -> Address {
        let address = Address::of(data);
        self.objects.insert(address, data.to_vec());
        address
    }

    fn deadline(&self) -> Option<u64> {
        let at = self.session.as_ref().unwrap().deadline();
        at.map(|at| at.checked_sub(self.now.mono_ns).expect("a deadline in the future"))
    }

    fn pass(&mut self, ns: u64) {
        self.now.mono_ns += ns;
    }

    /// Lets the time come to the session's deadline, which is `ns` away, but for one nanosecond;
    /// then to it.
    fn miss(&mut self, ns: u64) {
        assert_eq!(self.deadline(), Some(ns));
        let (ends, out) = (self.ends.len(), self.out.len());
        self.pass(ns - 1);
        self.tell(|session, cx| session.on_deadline(cx));
        assert_eq!((self.ends.len(), self.out.len()), (ends, out), "nothing is due yet");
        self.pass(1);
        self.tell(|session, cx| session.on_deadline(cx));
    }

    fn counted(&self, op: Op, code: u16) -> u64 {
        let at = CODES.iter().position(|known| *known == code).unwrap();
        self.stats.requests(Proto::Oap, op, at)
    }

    /// Streams that are open, by the gauges.
    fn open(&self) -> u64 {
        assert_eq!(self.stats.open_streams.get(), self.stats.inflight.get());
        self.stats.open_streams.get()
    }
}

fn part_bytes(part: &Part) -> Vec<u8> {
    match part {
        Part::Bytes(bytes) => bytes.clone(),
        Part::Block(slice) => slice.bytes().to_vec(),
        Part::Zeros(len) => vec![0; *len],
    }
}

/// The payloads of the data frames of an answer, joined, after a look at their flags and codes.
fn body(frames: &[Frame], code: u16) -> Vec<u8> {
    let last = frames.len() - 1;
    for (at, frame) in frames.iter().enumerate() {
        assert_eq!(frame.has(Flags::RESP | Flags::START), at == 0, "{at} of {last}");
        assert_eq!(frame.has(Flags::END), at == last, "{at} of {last}");
        assert_eq!(frame.head.code, code);
        assert_eq!((frame.head.app_proto_id, frame.head.tenant_id), (APP_STORAGE, 99));
        assert!(frame.payload.len() <= 64 * 1024);
    }
    frames.iter().flat_map(|frame| frame.payload.iter().copied()).collect()
}
