//! A client that speaks HTTP/1.1, written from the specification, and checks every byte it gets.

use std::collections::VecDeque;

use ron_codec::address::Address;
use ron_io::sim::Chance;

use super::{
    client::Waits,
    objects::{self, ObjectId},
    oracle::Token,
    stage::Stage,
    trace::violation,
};

/// Bytes of the longest head of an answer.
const HEAD_LEN_MAX: usize = 4096;

/// What was asked for, and what may come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Get,
    /// These bytes of it, the end excluded.
    Part(u64, u64),
    Unsatisfiable,
    NotModified,
    Head,
    Put,
    /// With bytes of another object.
    WrongPut,
    Delete,
}

impl What {
    fn needs_memory(self) -> bool {
        !matches!(self, What::Head | What::NotModified)
    }
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    what: What,
    token: Token,
}

#[derive(Debug)]
enum Reading {
    Head(Vec<u8>),
    Body {
        status: u16,
        left: u64,
        /// The object whose bytes these are, and the place of the next.
        of: Option<(ObjectId, u64)>,
        text: Vec<u8>,
    },
}

/// One connection.
#[derive(Debug)]
pub struct Http {
    asked: VecDeque<Asked>,
    reading: Reading,
    /// The node said that this is the last answer.
    last: bool,
    /// Answers belong to no request: the client they are for broke the protocol.
    lenient: bool,
}

impl Http {
    pub fn new(lenient: bool) -> Http {
        Http { asked: VecDeque::new(), reading: Reading::Head(Vec::new()), last: false, lenient }
    }

    /// Requests that were not answered.
    pub fn in_progress(&self) -> usize {
        self.asked.len()
    }

    /// What the next answer waits for.
    pub fn waits_for(&self) -> Waits {
        let began = !matches!(&self.reading, Reading::Head(head) if head.is_empty());
        match self.asked.front() {
            Some(asked) if !asked.what.needs_memory() => Waits::Answer,
            Some(Asked { what: What::Get | What::Part(..), .. }) if !began => Waits::Read,
            _ => Waits::Other,
        }
    }

    /// Whether another request may be sent.
    pub fn is_open(&self) -> bool {
        !self.last
    }

    /// Writes a request about one of the run's objects.
    pub fn request(&mut self, stage: &mut Stage<'_>) -> Vec<u8> {
        let object = stage.chance.pick(&stage.plan.objects);
        if stage.chance.below(8) >= stage.plan.writes {
            return self.read(object, stage);
        }
        let deletes = if stage.plan.churn { 2 } else { 3 };
        let may_delete = stage.plan.deletes && !stage.plan.kept.contains(&object);
        if may_delete && !*stage.no_deletes && stage.chance.one_in(deletes) {
            let token = stage.oracle.begin_delete(object);
            return self.ask(What::Delete, token, head("DELETE", object, ""));
        }
        if stage.sky.ebb { self.read(object, stage) } else { self.put(object, stage) }
    }

    /// Writes the request for the whole of an object.
    pub fn get(&mut self, object: ObjectId, stage: &mut Stage<'_>) -> Vec<u8> {
        let token = stage.oracle.begin_read(object);
        self.ask(What::Get, token, head("GET", object, ""))
    }

    /// Writes a request whose answer is short, whatever the object is.
    pub fn short_read(&mut self, object: ObjectId, stage: &mut Stage<'_>) -> Vec<u8> {
        let token = stage.oracle.begin_read(object);
        let tag = objects::all()[object].address;
        let (what, method, fields) = match stage.chance.toss() {
            true => (What::Head, "HEAD", String::new()),
            false => (What::NotModified, "GET", format!("If-None-Match: \"{tag}\"\r\n")),
        };
        self.ask(what, token, head(method, object, &fields))
    }

    /// Writes the request that stores an object, as plain as it can be.
    pub fn store(&mut self, object: ObjectId, stage: &mut Stage<'_>) -> Vec<u8> {
        let token = stage.oracle.begin_put(object);
        let body = &objects::all()[object].bytes;
        let mut bytes = head("PUT", object, &format!("Content-Length: {}\r\n", body.len()));
        bytes.extend_from_slice(body);
        self.ask(What::Put, token, bytes)
    }

    fn read(&mut self, object: ObjectId, stage: &mut Stage<'_>) -> Vec<u8> {
        let token = stage.oracle.begin_read(object);
        let size = objects::all()[object].len();
        let (what, method, fields) = match stage.chance.below(8) {
            0 => (What::Head, "HEAD", String::new()),
            1 => {
                let tag = objects::all()[object].address;
                (What::NotModified, "GET", format!("If-None-Match: \"{tag}\"\r\n"))
            }
            2..=4 if size > 0 => {
                let (what, range) = part(size, stage.chance);
                (what, "GET", format!("Range: bytes={range}\r\n"))
            }
            _ => (What::Get, "GET", String::new()),
        };
        self.ask(what, token, head(method, object, &fields))
    }

    /// Writes a PUT, framed in one of the ways there are.
    pub fn put(&mut self, object: ObjectId, stage: &mut Stage<'_>) -> Vec<u8> {
        let all = objects::all();
        let (named, chunked) = (stage.chance.toss(), stage.chance.one_in(3));
        let other = stage.chance.pick(&stage.plan.objects);
        let wrong = named && other != object && stage.chance.one_in(12);
        let (what, body) = if wrong { (What::WrongPut, other) } else { (What::Put, object) };
        if self.lenient {
            // Garbled, a wrong PUT may become a right one.
            stage.oracle.begin_put(body);
        }
        let token = match wrong {
            true => stage.oracle.begin_read(object),
            false => stage.oracle.begin_put(object),
        };
        let body = &all[body].bytes;
        let mut fields = match chunked {
            true => "Transfer-Encoding: chunked\r\n".to_string(),
            false => format!("Content-Length: {}\r\n", body.len()),
        };
        if stage.chance.one_in(8) {
            fields += "Expect: 100-continue\r\n";
        }
        let mut bytes = match named {
            true => head("PUT", object, &fields),
            false => format!("PUT /o/ HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n").into_bytes(),
        };
        if chunked {
            write_chunks(body, &mut bytes, stage.chance);
        } else {
            bytes.extend_from_slice(body);
        }
        self.ask(what, token, bytes)
    }

    fn ask(&mut self, what: What, token: Token, bytes: Vec<u8>) -> Vec<u8> {
        self.asked.push_back(Asked { what, token });
        bytes
    }

    /// Takes bytes of the node.
    pub fn receive(&mut self, mut bytes: &[u8], stage: &mut Stage<'_>) {
        while !bytes.is_empty() {
            match &mut self.reading {
                Reading::Head(head) => {
                    let before = head.len();
                    head.extend_from_slice(bytes);
                    let from = before.saturating_sub(3);
                    let end = head[from..].windows(4).position(|four| four == b"\r\n\r\n");
                    let Some(end) = end.map(|end| from + end + 4) else {
                        assert!(head.len() <= HEAD_LEN_MAX, "a head of {} bytes", head.len());
                        return;
                    };
                    bytes = &bytes[end - before..];
                    let mut head = std::mem::take(head);
                    head.truncate(end);
                    self.begin(&head, stage);
                }
                Reading::Body { left, of, text, .. } => {
                    let len = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let (now, later) = bytes.split_at(len);
                    match of {
                        Some((object, at)) => compare(*object, at, now),
                        None => text.extend_from_slice(now),
                    }
                    *left -= len as u64;
                    bytes = later;
                    if *left == 0 {
                        self.end(stage);
                    }
                }
            }
        }
    }

    /// The connection ended.
    pub fn over(&mut self, stage: &mut Stage<'_>) {
        for asked in self.asked.drain(..) {
            // After the last answer the node reads no more.
            if !self.last {
                stage.cut(&asked.token);
            }
        }
    }

    /// The head of an answer is complete.
    fn begin(&mut self, bytes: &[u8], stage: &mut Stage<'_>) {
        let head = Answer::parse(bytes);
        stage.trace.note(|| format!("  HTTP {}", head.status));
        self.last |= head.closes;
        if head.status == 100 {
            self.reading = Reading::Head(Vec::new());
            return;
        }
        let asked = self.asked.front().copied();
        let turned_away = head.status == 503 && head.closes && stage.sky.short;
        if asked.is_none() && !self.lenient && !turned_away {
            violation!("an answer {} that nobody asked for", head.status);
        }
        let no_body =
            asked.is_some_and(|asked| asked.what == What::Head) || matches!(head.status, 204 | 304);
        let of = match head.status {
            200 | 206 => head.content(asked.as_ref()),
            _ => None,
        };
        let left = if no_body { 0 } else { head.len.unwrap_or(0) };
        self.reading = Reading::Body { status: head.status, left, of, text: Vec::new() };
        if left == 0 {
            self.end(stage);
        }
    }

    /// An answer is complete.
    fn end(&mut self, stage: &mut Stage<'_>) {
        let reading = std::mem::replace(&mut self.reading, Reading::Head(Vec::new()));
        let Reading::Body { status, text, .. } = reading else { return };
        let Some(Asked { what, token }) = self.asked.pop_front() else { return };
        match (what, status) {
            (What::Get | What::Head, 200)
            | (What::Part(..), 206)
            | (What::Unsatisfiable, 416)
            | (What::NotModified, 304) => stage.seen(&token),
            (What::Put, 200 | 201) => {
                let object = &objects::all()[token.object];
                let (address, size) = (object.address, object.len());
                let told = format!("{{\"addr\":\"{address}\",\"size\":{size}}}\n");
                let right = text == told.as_bytes();
                assert!(right, "{} in place of {told}", String::from_utf8_lossy(&text));
                stage.stored(&token, status == 201);
            }
            (What::WrongPut, 400) => *stage.answers += 1,
            (What::Delete, 204 | 200) => stage.deleted(&token),
            (What::Delete, 404) => stage.delete_missed(&token),
            (What::Delete, 405) => stage.delete_refused(&token),
            (What::Put | What::WrongPut, 404) => violation!("a PUT was answered 404"),
            (_, 404) => stage.missed(&token),
            (_, 500..) | (_, 408) => {
                stage.failed(status, &token, what.needs_memory());
                if matches!((what, status), (What::Put, 500 | 507)) {
                    stage.put_refused(&token);
                }
            }
            (what, status) => violation!("{what:?} was answered {status}"),
        }
    }
}

/// Bytes that are not HTTP, or not quite, and what they may do to objects.
pub fn garble(stage: &mut Stage<'_>) -> Vec<u8> {
    // Whatever was to be put, without its length it is the empty object.
    stage.oracle.begin_put(objects::EMPTY);
    let object = stage.chance.pick(&stage.plan.objects);
    let mut client = Http::new(true);
    let mut bytes = match stage.chance.below(4) {
        0 => (0..stage.chance.magnitude(4096)).map(|_| stage.chance.next_u64() as u8).collect(),
        1 => client.put(object, stage),
        2 => head("GET", object, "X-Corr-Id: \r\nRange: bytes=0-,5-9\r\n"),
        _ => client.get(object, stage),
    };
    match stage.chance.below(4) {
        0 => bytes.truncate(stage.chance.below(bytes.len() + 1)),
        1 => {
            let at = stage.chance.below(bytes.len());
            bytes[at] ^= 1 << stage.chance.below(8);
        }
        2 => {
            let from = stage.chance.below(bytes.len().min(2000));
            bytes.extend_from_within(from..);
        }
        _ => {}
    }
    bytes
}

fn head(method: &str, object: ObjectId, fields: &str) -> Vec<u8> {
    let address = objects::all()[object].address;
    format!("{method} /o/{address} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n").into_bytes()
}

/// A range of an object that is not empty, and what must come of it.
fn part(size: u64, chance: &mut Chance) -> (What, String) {
    let start = chance.between(0, size - 1);
    match chance.below(5) {
        0 => (What::Part(start, size), format!("{start}-")),
        1 => {
            let len = chance.magnitude(2 * size);
            (What::Part(size.saturating_sub(len), size), format!("-{len}"))
        }
        2 if chance.toss() => {
            let beyond = size + chance.between(0, 5);
            (What::Unsatisfiable, format!("{beyond}-"))
        }
        _ => {
            let last = start + chance.magnitude(size) - 1;
            (What::Part(start, size.min(last + 1)), format!("{start}-{last}"))
        }
    }
}

fn write_chunks(mut body: &[u8], out: &mut Vec<u8>, chance: &mut Chance) {
    while !body.is_empty() {
        let len = (chance.magnitude(200_000) as usize).min(body.len());
        let (now, later) = body.split_at(len);
        out.extend_from_slice(format!("{len:x}\r\n").as_bytes());
        out.extend_from_slice(now);
        out.extend_from_slice(b"\r\n");
        body = later;
    }
    out.extend_from_slice(b"0\r\n\r\n");
}

/// Every byte of a body must be the object's byte at its place.
pub fn compare(object: ObjectId, at: &mut u64, bytes: &[u8]) {
    let whole = &objects::all()[object].bytes;
    let start = *at as usize;
    let expected = whole.get(start..start + bytes.len());
    if expected != Some(bytes) {
        let wrong =
            expected.and_then(|expected| expected.iter().zip(bytes).position(|(a, b)| a != b));
        violation!("a wrong byte of object {object} behind {start}, the {wrong:?}th");
    }
    *at += bytes.len() as u64;
}

/// The head of an answer.
#[derive(Debug, Default)]
struct Answer {
    status: u16,
    len: Option<u64>,
    closes: bool,
    tag: Option<Address>,
    /// First and last byte, and the size.
    range: Option<(u64, u64, u64)>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Answer {
        let text = std::str::from_utf8(bytes).expect("a head is text");
        let mut lines = text.split("\r\n");
        let status = lines.next().unwrap_or_default();
        let mut answer = Answer::default();
        let code = status.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        answer.status = code.and_then(|code| code.parse().ok()).expect("a status line");
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            match name {
                "Content-Length" => answer.len = value.parse().ok(),
                "Connection" => answer.closes = value == "close",
                "ETag" => answer.tag = value.trim_matches('"').parse().ok(),
                "Content-Range" => answer.range = range(value),
                _ => {}
            }
        }
        answer
    }

    /// The object and the place that the body must be compared with.
    fn content(&self, asked: Option<&Asked>) -> Option<(ObjectId, u64)> {
        let object = objects::find(self.tag.as_ref()?);
        let Some(asked) = asked else {
            return object.map(|object| (object, self.range.map_or(0, |(first, _, _)| first)));
        };
        assert_eq!(object, Some(asked.token.object), "the tag is the address");
        let size = objects::all()[asked.token.object].len();
        let (first, end) = match (asked.what, self.range) {
            (What::Part(first, end), Some(range)) => {
                assert_eq!(range, (first, end - 1, size), "the range asked for");
                (first, end)
            }
            (_, None) => (0, size),
            (what, range) => violation!("{range:?} in answer to {what:?}"),
        };
        assert_eq!(self.len, Some(end - first), "bytes of {asked:?}");
        Some((asked.token.object, first))
    }
}

fn range(value: &str) -> Option<(u64, u64, u64)> {
    let (part, size) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = part.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, size.parse().ok()?))
}
