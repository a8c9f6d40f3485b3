//! A client that speaks OAP/1: many streams on one connection, each checked byte by byte.

use std::collections::BTreeMap;

use ron_codec::oap::{
    APP_HELLO, APP_STORAGE, Flags, FrameHeader, GetRequest, GetWhat, HasAnswer, Hello, Meta,
    PutAnswer, append_frame, parse_answer, write_credit, write_get_request, write_has_request,
    write_put_request,
};
use ron_io::sim::Chance;

use super::{
    client::Waits,
    http::compare,
    objects::{self, ObjectId},
    oracle::Token,
    stage::Stage,
    trace::violation,
};

/// Bytes of a frame before its payload; `len` does not count the first four.
const HEADER_LEN: usize = 37;

/// Bytes of the longest frame of data that a client sends.
const DATA_LEN_MAX: u64 = 100_000;

#[derive(Debug)]
enum What {
    Hello,
    Has,
    Get {
        /// The bytes that are still to come.
        at: u64,
        end: u64,
        is_part: bool,
        started: bool,
        /// A description comes first.
        meta: bool,
        credit: bool,
    },
    Put,
    WrongPut,
}

#[derive(Debug)]
struct Asked {
    what: What,
    token: Token,
}

/// One connection.
#[derive(Debug)]
pub struct Oap {
    streams: BTreeMap<u64, Asked>,
    corr: u64,
    bytes: Vec<u8>,
    lenient: bool,
}

impl Oap {
    pub fn new(lenient: bool) -> Oap {
        Oap { streams: BTreeMap::new(), corr: 0, bytes: Vec::new(), lenient }
    }

    /// Streams that were not answered.
    pub fn in_progress(&self) -> usize {
        self.streams.len()
    }

    /// What an answer waits for, if there is one.
    pub fn waits_for(&self) -> Waits {
        match self.streams.values().next().map(|asked| &asked.what) {
            Some(What::Hello | What::Has) => Waits::Answer,
            Some(What::Get { started: false, .. }) => Waits::Read,
            _ => Waits::Other,
        }
    }

    /// Writes the frames of a request about one of the run's objects.
    pub fn request(&mut self, stage: &mut Stage<'_>) -> Vec<u8> {
        let object = stage.chance.pick(&stage.plan.objects);
        self.corr += 1;
        let (what, token, bytes) = match stage.chance.below(8) {
            0 => {
                let frame = FrameHeader { app_proto_id: APP_HELLO, ..self.header(Flags::REQ) };
                (What::Hello, stage.oracle.begin_read(object), encode(&frame, b""))
            }
            1 => {
                let mut json = Vec::new();
                write_has_request(&mut json, &objects::all()[object].address);
                let frame = self.header(Flags::REQ | Flags::START | Flags::END);
                (What::Has, stage.oracle.begin_read(object), encode(&frame, &json))
            }
            n if stage.sky.ebb || n >= 2 + stage.plan.writes => self.get(object, stage),
            _ => self.put(object, stage),
        };
        self.streams.insert(self.corr, Asked { what, token });
        bytes
    }

    /// Writes the frame that asks for the whole of an object.
    pub fn get_whole(&mut self, object: ObjectId, stage: &mut Stage<'_>) -> Vec<u8> {
        self.corr += 1;
        let Object { size, address } = Object::of(object);
        let what = GetWhat::ByAddress(address);
        let mut json = Vec::new();
        write_get_request(&mut json, &GetRequest { what, offset: 0, len: None, meta: false });
        let frame = self.header(Flags::REQ | Flags::START);
        let (is_part, started, meta, credit) = (false, false, false, false);
        let what = What::Get { at: 0, end: size, is_part, started, meta, credit };
        let token = stage.oracle.begin_read(object);
        self.streams.insert(self.corr, Asked { what, token });
        encode(&frame, &json)
    }

    /// Writes a frame whose answer is short.
    pub fn short_read(&mut self, object: ObjectId, stage: &mut Stage<'_>) -> Vec<u8> {
        self.corr += 1;
        let token = stage.oracle.begin_read(object);
        let (what, bytes) = match stage.chance.toss() {
            true => {
                let frame = FrameHeader { app_proto_id: APP_HELLO, ..self.header(Flags::REQ) };
                (What::Hello, encode(&frame, b""))
            }
            false => {
                let mut json = Vec::new();
                write_has_request(&mut json, &objects::all()[object].address);
                let frame = self.header(Flags::REQ | Flags::START | Flags::END);
                (What::Has, encode(&frame, &json))
            }
        };
        self.streams.insert(self.corr, Asked { what, token });
        bytes
    }

    fn get(&self, object: ObjectId, stage: &mut Stage<'_>) -> (What, Token, Vec<u8>) {
        let Object { size, address } = Object::of(object);
        let chance = &mut *stage.chance;
        let offset = if chance.one_in(3) { chance.between(0, size) } else { 0 };
        let len = if chance.one_in(3) { Some(chance.magnitude(2 * size + 1)) } else { None };
        let (meta, credit) = (chance.one_in(4), chance.one_in(4));
        let request = GetRequest { what: GetWhat::ByAddress(address), offset, len, meta };
        let mut json = Vec::new();
        write_get_request(&mut json, &request);
        let wants_credit = if credit { Flags::ACK_REQ } else { Flags::NONE };
        let frame = self.header(Flags::REQ | Flags::START | wants_credit);
        let end = len.map_or(size, |len| size.min(offset.saturating_add(len)));
        let is_part = request.is_range();
        let what = What::Get { at: offset, end, is_part, started: false, meta, credit };
        (what, stage.oracle.begin_read(object), encode(&frame, &json))
    }

    fn put(&self, object: ObjectId, stage: &mut Stage<'_>) -> (What, Token, Vec<u8>) {
        let Object { size, address } = Object::of(object);
        let other = stage.chance.pick(&stage.plan.objects);
        let wrong = stage.chance.one_in(12) && other != object;
        let named = wrong || stage.chance.toss();
        let (what, body) = if wrong { (What::WrongPut, other) } else { (What::Put, object) };
        let len = if stage.chance.one_in(30) { size + 1 } else { Object::of(body).size };
        let what = if len != Object::of(body).size { What::WrongPut } else { what };
        if self.lenient {
            // Garbled, a wrong put may become a right one.
            stage.oracle.begin_put(body);
        }
        let token = match what {
            What::WrongPut => stage.oracle.begin_read(object),
            _ => stage.oracle.begin_put(object),
        };
        let mut json = Vec::new();
        write_put_request(&mut json, len, named.then_some(&address));
        let mut bytes = encode(&self.header(Flags::REQ | Flags::START), &json);
        let mut rest = objects::all()[body].bytes.as_slice();
        while !rest.is_empty() {
            let len = (stage.chance.magnitude(DATA_LEN_MAX) as usize).min(rest.len());
            let (now, later) = rest.split_at(len);
            let last = later.is_empty() && stage.chance.toss();
            let end = if last { Flags::END } else { Flags::NONE };
            bytes.extend(encode(&self.header(Flags::REQ | end), now));
            rest = later;
            if last {
                return (what, token, bytes);
            }
        }
        bytes.extend(encode(&self.header(Flags::REQ | Flags::END), b""));
        (what, token, bytes)
    }

    fn header(&self, flags: Flags) -> FrameHeader {
        let corr_id = self.corr;
        FrameHeader { flags, app_proto_id: APP_STORAGE, corr_id, ..FrameHeader::default() }
    }

    /// Takes bytes of the node; returns what the client answers.
    pub fn receive(&mut self, bytes: &[u8], stage: &mut Stage<'_>) -> Vec<u8> {
        self.bytes.extend_from_slice(bytes);
        let (mut at, mut out) = (0, Vec::new());
        while let Some(frame) = Frame::parse(&self.bytes[at..]) {
            let payload = self.bytes[at + HEADER_LEN..at + frame.len].to_vec();
            at += frame.len;
            stage.trace.note(|| format!("  OAP {frame:?}"));
            if !self.lenient {
                self.take(&frame, &payload, &mut out, stage);
            }
        }
        self.bytes.drain(..at);
        out
    }

    /// The connection ended.
    pub fn over(&mut self, stage: &mut Stage<'_>) {
        for (_, asked) in std::mem::take(&mut self.streams) {
            stage.cut(&asked.token);
        }
    }

    fn take(&mut self, frame: &Frame, payload: &[u8], out: &mut Vec<u8>, stage: &mut Stage<'_>) {
        // A frame that was begun and came too late, of no stream that is open. OAP/1 §10.2
        if !self.streams.contains_key(&frame.corr) && frame.code == 408 && stage.sky.chaos {
            return;
        }
        let Some(asked) = self.streams.get_mut(&frame.corr) else {
            violation!("a frame for no stream: {frame:?}");
        };
        let token = asked.token;
        let object = Object::of(token.object);
        let over = frame.flags.contains(Flags::END);
        match (&mut asked.what, frame.code) {
            (What::Hello, 0) => {
                let hello: Hello = parse_answer(payload).expect("an answer to HELLO");
                assert_eq!(hello.oap_versions, [1]);
            }
            (What::Has, 0) => {
                let HasAnswer { has, size } = parse_answer(payload).expect("an answer to has");
                assert!(!has || size == object.size, "{size} bytes of object {}", token.object);
                if has { stage.seen(&token) } else { stage.missed(&token) }
            }
            (What::Get { at, end, is_part, started, meta, credit }, code @ (0 | 206)) => {
                assert_eq!(code == 206, *is_part, "the code of a get");
                assert_eq!(frame.flags.contains(Flags::START), !*started, "START comes first");
                *started = true;
                if std::mem::take(meta) {
                    let Meta { obj, size, offset, len, .. } = parse_answer(payload).expect("meta");
                    let expected = (object.address, object.size, *at, *end - *at);
                    assert_eq!((obj, size, offset, len), expected);
                } else {
                    compare(token.object, at, payload);
                    if *credit && !payload.is_empty() {
                        out.extend(grant(frame.corr, payload.len() as u64));
                    }
                }
                if over {
                    assert_eq!(at, end, "all that was asked for");
                    stage.seen(&token);
                }
            }
            (What::Put, 0) => {
                let PutAnswer { addr, size, new } = parse_answer(payload).expect("an answer");
                assert_eq!((addr, size), (object.address, object.size));
                stage.stored(&token, new);
            }
            (What::WrongPut, 400) => *stage.answers += 1,
            (What::Get { .. }, 404) => stage.missed(&token),
            (what, code @ (500.. | 408)) => {
                let needs_memory = !matches!(what, What::Hello | What::Has);
                stage.failed(code, &token, needs_memory);
                if matches!((what, code), (What::Put, 500 | 507)) {
                    stage.put_refused(&token);
                }
            }
            (what, code) => violation!("{what:?} was answered {code}"),
        }
        if over {
            self.streams.remove(&frame.corr);
        }
    }
}

/// Bytes that are not OAP/1, or not quite.
pub fn garble(stage: &mut Stage<'_>) -> Vec<u8> {
    // Whatever was to be put, without its length it is the empty object.
    stage.oracle.begin_put(objects::EMPTY);
    let mut client = Oap::new(true);
    let mut bytes = Vec::new();
    for _ in 0..stage.chance.between(1, 3) {
        bytes.extend(client.request(stage));
    }
    match stage.chance.below(4) {
        0 => bytes.truncate(stage.chance.below(bytes.len() + 1)),
        1 => {
            let at = stage.chance.below(bytes.len().min(200));
            bytes[at] ^= 1 << stage.chance.below(8);
        }
        2 => {
            let from = stage.chance.below(bytes.len().min(2000));
            bytes.extend_from_within(from..);
        }
        _ => bytes.extend((0..100).map(|_| Chance::next_u64(stage.chance) as u8)),
    }
    bytes
}

struct Object {
    size: u64,
    address: ron_codec::address::Address,
}

impl Object {
    fn of(id: ObjectId) -> Object {
        let object = &objects::all()[id];
        Object { size: object.len(), address: object.address }
    }
}

pub fn encode(head: &FrameHeader, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    append_frame(head, b"", payload, &mut out).expect("clients keep to the limits of frames");
    out
}

/// What a client looks at in a frame's header.
#[derive(Debug)]
struct Frame {
    /// Bytes of all of it.
    len: usize,
    flags: Flags,
    code: u16,
    corr: u64,
}

impl Frame {
    /// The frame that these bytes begin with, if it is complete. OAP/1 §2.1
    fn parse(bytes: &[u8]) -> Option<Frame> {
        let head = bytes.first_chunk::<HEADER_LEN>()?;
        let number = |at: usize, len: usize| {
            head[at..at + len].iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let len = number(0, 4) as usize + 4;
        assert!((HEADER_LEN..=1024 * 1024 + 4).contains(&len), "a frame of {len} bytes");
        assert_eq!((number(4, 1), number(27, 2)), (1, 0), "the version, and no capability");
        let flags = Flags::from_bits(number(5, 2) as u16);
        let (code, corr) = (number(7, 2) as u16, number(29, 8));
        (bytes.len() >= len).then_some(Frame { len, flags, code, corr })
    }
}

/// A frame that gives a stream credit for so many more bytes.
fn grant(corr_id: u64, len: u64) -> Vec<u8> {
    let mut json = Vec::new();
    write_credit(&mut json, len);
    let (flags, app_proto_id) = (Flags::REQ, APP_STORAGE);
    let head = FrameHeader { flags, app_proto_id, corr_id, ..FrameHeader::default() };
    encode(&head, &json)
}
