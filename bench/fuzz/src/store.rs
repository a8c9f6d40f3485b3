//! The store: operations against a map, with processes and machines that end at any moment.
//!
//! An input is a seed and a list of operations of one or two bytes (`Op`). What must hold: what was
//! acknowledged is there with its bytes, what was deleted or never came is not, whatever ends the
//! process, in whatever act, and whatever happens to the snapshots of its index.

use std::{cell::OnceCell, fs};

use ron_codec::address::Address;
use ron_io::{ports::Order, sim::End};

use super::{
    Cuts,
    world::{HTTP, World},
};

/// Operations of an input that are looked at.
const OPS_MAX: usize = 60;

/// Longest object that is taken: one that gets a file of its own.
pub const OBJECT_LEN_MAX: u64 = 2 * 1024 * 1024;

/// Lengths of the objects: nothing, a record of one and of several blocks, a group, a group and a
/// byte, some groups, and two that have files of their own.
const LENS: [usize; 8] = [0, 100, 5000, 65_536, 65_537, 200_000, 1_048_577, 1_200_000];

const SECOND_NS: u64 = 1_000_000_000;

/// Something that is stored or not.
pub struct Object {
    pub address: Address,
    pub bytes: Vec<u8>,
}

thread_local! {
    static OBJECTS: OnceCell<Vec<Object>> = const { OnceCell::new() };
}

/// The objects that operations are about, in the order of their lengths.
pub fn with_objects<T>(run: impl FnOnce(&[Object]) -> T) -> T {
    let make = || {
        let bytes = |len: &usize| (0..*len).map(|at| (at * 31 + at / 251 + len) as u8).collect();
        let object = |bytes: Vec<u8>| Object { address: Address::of(&bytes), bytes };
        LENS.iter().map(bytes).map(object).collect()
    };
    OBJECTS.with(|objects| run(objects.get_or_init(make)))
}

/// An answer to one request.
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    /// The answer in what a connection was sent; none where it was cut.
    pub fn of(out: &[u8]) -> Option<Answer> {
        let end = out.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&out[..end]).expect("a head is text");
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|digits| digits.parse().ok()).expect("a status");
        Some(Answer { status, body: out[end + 4..].to_vec() })
    }
}

pub fn put(world: &mut World, object: &Object) -> u16 {
    let out = world.run(HTTP, Cuts::WHOLE, &put_request(object));
    Answer::of(&out).expect("a PUT is answered").status
}

/// The status of a body that was cut before its end: damage may lie behind groups that are whole.
pub const CUT: u16 = 0;

/// Asks for an object. Bytes that are not its own are a broken promise.
pub fn get(world: &mut World, object: &Object) -> u16 {
    let request = request("GET", object);
    let answer = Answer::of(&world.run(HTTP, Cuts::WHOLE, &request)).expect("a GET is answered");
    if answer.status != 200 {
        return answer.status;
    }
    assert!(object.bytes.starts_with(&answer.body), "wrong bytes of {}", object.address);
    if answer.body.len() < object.bytes.len() { CUT } else { 200 }
}

fn put_request(object: &Object) -> Vec<u8> {
    let Object { address, bytes } = object;
    let head = format!(
        "PUT /o/{address} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    [head.as_bytes(), bytes].concat()
}

fn request(method: &str, object: &Object) -> Vec<u8> {
    let address = object.address;
    format!("{method} /o/{address} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Absent,
    Present,
    /// A request to change it was in progress when a process ended.
    Unknown,
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Op {
    Put(usize),
    Get(usize),
    Delete(usize),
    End(End),
    /// The process ends so many things after the last byte of the request was there.
    PutAndEnd(usize, u32, End),
    DeleteAndEnd(usize, u32, End),
    /// A process ends so many things after it began to boot.
    BootAndEnd(u32, End),
    /// A process ends, and something happens to the snapshots.
    Snapshots(u8, u8),
    Scrub,
    Pass(u32),
    /// The disk has so many times 64 KiB more space than is used, or any amount.
    Space(Option<u64>),
    Drain,
}

impl Op {
    fn read(input: &mut &[u8]) -> Option<Op> {
        let (first, rest) = input.split_first()?;
        let (kind, low) = (first >> 4, first & 15);
        let object = usize::from(low) % LENS.len();
        let how = if low & 8 == 0 { End::Kill } else { End::Power };
        *input = rest;
        let mut next = || {
            let (next, rest) = input.split_first().unwrap_or((&0, &[]));
            *input = rest;
            *next
        };
        Some(match kind {
            0 | 1 => Op::Put(object),
            2 => Op::Get(object),
            3 | 4 => Op::Delete(object),
            5 => Op::End(End::Kill),
            6 => Op::End(End::Power),
            7 | 13 => Op::PutAndEnd(object, few(next()), how),
            8 => Op::DeleteAndEnd(object, few(next()), how),
            9 => Op::Snapshots(low, next()),
            10 => Op::Scrub,
            11 => Op::Pass(low.into()),
            12 => Op::Space((low > 0).then_some(u64::from(low))),
            14 => Op::Drain,
            _ => Op::BootAndEnd(few(next()), how),
        })
    }
}

/// How much happens before an end: seven things at most in a short run, thirty in others.
fn few(byte: u8) -> u32 {
    u32::from(if byte & 0x80 == 0 { byte & 7 } else { byte & 31 })
}

struct Store<'a> {
    world: World,
    objects: &'a [Object],
    known: [Known; LENS.len()],
    /// A snapshot was cut. Behind a frame it is as one that is older than a compaction: what was
    /// deleted may be called lost (502) until it is stored or deleted, and is never there again.
    older: bool,
}

/// Operations on a store.
pub fn store(input: &[u8]) {
    with_objects(|objects| {
        let (seed, mut script) = input.split_first().unwrap_or((&0, &[]));
        let world = World::new(OBJECT_LEN_MAX);
        let mut store = Store { world, objects, known: [Known::Absent; LENS.len()], older: false };
        store.world.disk.reseed(u64::from(*seed));
        for _ in 0..OPS_MAX {
            let Some(op) = Op::read(&mut script) else { break };
            store.perform(op);
        }
        store.finish();
    });
}

impl Store<'_> {
    fn perform(&mut self, op: Op) {
        match op {
            Op::Put(at) => {
                let status = put(&mut self.world, &self.objects[at]);
                self.was_put(at, status);
            }
            Op::Get(at) => self.look(at),
            Op::Delete(at) => {
                let request = request("DELETE", &self.objects[at]);
                let out = self.world.run(HTTP, Cuts::WHOLE, &request);
                self.was_deleted(at, Answer::of(&out).expect("a DELETE is answered").status);
            }
            Op::End(how) => self.end(how),
            Op::PutAndEnd(at, happen, how) => {
                let request = put_request(&self.objects[at]);
                self.cut(at, &request, Known::Absent, (happen, how), Store::was_put);
            }
            Op::DeleteAndEnd(at, happen, how) => {
                let request = request("DELETE", &self.objects[at]);
                self.cut(at, &request, Known::Present, (happen, how), Store::was_deleted);
            }
            Op::BootAndEnd(happen, how) => {
                self.world.end(how);
                self.world.boot_into_end(happen, how);
                self.boot();
            }
            Op::Snapshots(how, at) => {
                self.world.end(End::Kill);
                self.change_snapshots(how, at);
                self.boot();
            }
            Op::Scrub => {
                self.world.order(Order::Scrub);
                self.world.pass(60 * SECOND_NS);
            }
            Op::Pass(magnitude) => self.world.pass(SECOND_NS << (magnitude / 2) >> 2),
            Op::Space(Some(times)) => {
                let capacity = self.world.disk.used() + (times << 16);
                self.world.disk.set_capacity(Some(capacity));
            }
            Op::Space(None) => self.world.disk.set_capacity(None),
            Op::Drain => {
                self.world.drain();
                self.world.expect_nothing_held();
                assert_eq!(self.world.disk.opened(), 0, "files are open after the end");
                self.end(End::Power);
            }
        }
    }

    /// The process ends in the midst of a request. Where that was not answered and the object was
    /// as it was `before`, nobody knows any more what it is.
    fn cut(
        &mut self,
        at: usize,
        request: &[u8],
        before: Known,
        (happen, how): (u32, End),
        answered: impl FnOnce(&mut Self, usize, u16),
    ) {
        let out = self.world.run_into_end(request, happen, how);
        match Answer::of(&out) {
            Some(answer) => answered(self, at, answer.status),
            None if self.known[at] == before => self.known[at] = Known::Unknown,
            None => {}
        }
        self.boot();
    }

    /// A process ends and the next one boots.
    fn end(&mut self, how: End) {
        self.world.end(how);
        self.boot();
    }

    fn boot(&mut self) {
        self.world.boot();
        assert!(self.world.is_ready(), "a start is refused: {:?}", self.world.reason());
    }

    fn was_put(&mut self, at: usize, status: u16) {
        match (status, self.known[at]) {
            (201, Known::Present) => panic!("object {at} is new, and was acknowledged before"),
            (200, Known::Absent) => panic!("object {at} is there, and was not put"),
            (200 | 201, _) => self.known[at] = Known::Present,
            (503 | 507, _) => {}
            _ => panic!("a PUT of object {at} is answered with {status}"),
        }
    }

    fn was_deleted(&mut self, at: usize, status: u16) {
        match (status, self.known[at]) {
            (204, Known::Absent) if !self.older => {
                panic!("object {at} is deleted, and was not there")
            }
            (404, Known::Present) => panic!("object {at} is missing: it cannot be deleted"),
            (204, _) => self.known[at] = Known::Absent,
            (404, Known::Unknown | Known::Absent) => self.missed(at),
            (503 | 507, _) => {}
            _ => panic!("a DELETE of object {at} is answered with {status}"),
        }
    }

    fn look(&mut self, at: usize) {
        match (get(&mut self.world, &self.objects[at]), self.known[at]) {
            (200, Known::Absent) => panic!("object {at} is there, and was deleted or never put"),
            (404, Known::Present) => panic!("object {at} is missing"),
            (200, _) => self.known[at] = Known::Present,
            (404, _) => self.missed(at),
            (502, Known::Absent | Known::Unknown) if self.older => {}
            (status, _) => panic!("a GET of object {at} is answered with {status}"),
        }
    }

    /// What was not decided is. A file that got its name and no record is entered by a rebuild,
    /// though.
    fn missed(&mut self, at: usize) {
        if LENS[at] <= 1 << 20 {
            self.known[at] = Known::Absent;
        }
    }

    fn change_snapshots(&mut self, how: u8, at: u8) {
        let files = self.world.snapshots();
        let chosen = match how % 3 {
            0 => &files[..],
            1 => &files[files.len().saturating_sub(1)..],
            _ => &files[..files.len().min(1)],
        };
        for path in chosen {
            let mut bytes = fs::read(path).expect("a snapshot can be read");
            let place = bytes.len() * usize::from(at) / 256;
            match how / 3 % 4 {
                0 => {
                    fs::remove_file(path).expect("a snapshot can be removed");
                    continue;
                }
                1 => bytes.truncate(place),
                2 => bytes.truncate(place / 4096 * 4096),
                _ if bytes.is_empty() => {}
                _ => bytes[place] ^= 1 << (at % 8),
            }
            self.older |= matches!(how / 3 % 4, 1 | 2) && bytes.len().is_multiple_of(4096);
            fs::write(path, bytes).expect("a snapshot can be written");
        }
    }

    /// After one more process everything is as it was acknowledged, and nothing else is there.
    fn finish(&mut self) {
        self.world.disk.set_capacity(None);
        self.end(End::Power);
        // What is owed is done, and what is free is known.
        self.world.pass(10 * SECOND_NS);
        for at in 0..LENS.len() {
            self.look(at);
            if self.known[at] != Known::Present {
                let status = put(&mut self.world, &self.objects[at]);
                assert_eq!(status, 201, "a healthy node does not take object {at}");
                self.known[at] = Known::Present;
            }
        }
        self.end(End::Power);
        (0..LENS.len()).for_each(|at| self.look(at));
        self.world.drain();
        self.world.expect_nothing_held();
        let left = self.world.disk.files().find(|(name, ..)| name.ends_with(".tmp"));
        assert!(left.is_none(), "{left:?} is left of an upload");
    }
}
