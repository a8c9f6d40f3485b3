//! Clients that store, read and delete, and remember the answers they got. Each object has one
//! client that changes it; every client reads everybody's.

use std::{
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::common::{Dice, KIB, MIB, Object, assert_same, connect, http::Peer, object};

/// Every kind of store: packed, many groups, around every border, and in a file of its own.
const SIZES: [usize; 10] =
    [100, 4096, 64 * KIB, 64 * KIB + 1, 300 * KIB, MIB, MIB + 1, 2 * MIB + 77, 20_000, 130 * KIB];

/// What the last answer to the client of an object said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastAnswer {
    There,
    Gone,
    /// Something was begun and not answered, or failed.
    Nothing,
}

/// What is known of the damage below, for a client that was answered strangely.
pub(crate) trait Damage: Sync {
    /// Whether bits were flipped of what is stored about this object, so that anything but a
    /// wrong byte may come of it.
    fn excuses(&self, object: &Object) -> bool;

    /// It was stored anew or deleted: what was damaged before is of no more consequence.
    fn over(&self, object: &Object);

    /// Whether the disk has failed since the node was started.
    fn disk_failed(&self) -> bool;
}

/// What was done, over all clients.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) puts: AtomicU64,
    pub(crate) deletes: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) whole: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) unanswered: AtomicU64,
    pub(crate) excused: AtomicU64,
    pub(crate) healed: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// All that a client needs besides its own objects.
pub(crate) struct World<'a> {
    pub(crate) counts: &'a Counts,
    pub(crate) damage: &'a dyn Damage,
    /// How many clients there are, and how many objects each has.
    pub(crate) clients: u64,
    pub(crate) objects: u64,
}

/// The `nth` object of a client.
pub(crate) fn nth_object(client: u64, nth: u64) -> Object {
    object(client * 1_000_000 + nth, SIZES[((nth + client) % SIZES.len() as u64) as usize])
}

/// Whether the object can lie in a file of its own: large ones do, and those for which memory was
/// short.
pub(crate) fn may_be_file(object: &Object) -> bool {
    object.bytes.len() > 64 * KIB
}

fn send(peer: &mut Peer, method: &str, addr: &str) -> Option<()> {
    let head = format!("{method} /o/{addr} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    peer.try_send(head.as_bytes()).then_some(())
}

impl World<'_> {
    /// One change of an object. `None` when the connection broke.
    pub(crate) fn change(
        &self,
        peer: &mut Peer,
        object: &Object,
        last: &mut LastAnswer,
        put: bool,
    ) -> Option<()> {
        let before = std::mem::replace(last, LastAnswer::Nothing);
        let answer = match put {
            true => peer.try_put(&object.addr, &object.bytes),
            false => send(peer, "DELETE", &object.addr).and_then(|()| peer.try_response("DELETE")),
        };
        let Some(answer) = answer else {
            count(&self.counts.unanswered);
            // What was there is there, whether its bytes came again or not.
            if put && before == LastAnswer::There {
                *last = before;
            }
            return None;
        };
        count(if put { &self.counts.puts } else { &self.counts.deletes });
        let status = answer.status;
        *last = match (put, status, before) {
            (true, 201, LastAnswer::There) => {
                let may = self.damage.disk_failed() || self.damage.excuses(object);
                assert!(may, "{} was stored again, and was there", object.addr);
                count(&self.counts.healed);
                LastAnswer::There
            }
            (true, 201, _) | (true, 200, LastAnswer::There | LastAnswer::Nothing) => {
                LastAnswer::There
            }
            (false, 204, LastAnswer::There | LastAnswer::Nothing) => LastAnswer::Gone,
            // Its file may be there, of a put that failed, and could not be removed.
            (false, 404, LastAnswer::Nothing) if may_be_file(object) => LastAnswer::Nothing,
            (false, 404, LastAnswer::Gone | LastAnswer::Nothing) => LastAnswer::Gone,
            // It came back with its tombstone lost, or went with its record.
            (true, 200, LastAnswer::Gone) => {
                self.excused(object, "stored without bytes, was deleted")?
            }
            (false, 204, LastAnswer::Gone) => {
                self.excused(object, "deleted twice").map(|_| LastAnswer::Gone)?
            }
            (false, 404, LastAnswer::There) => self.excused(object, "not there to delete")?,
            (_, 500 | 503 | 507, _) => {
                self.may_fail(status, object);
                if put && before == LastAnswer::There { before } else { LastAnswer::Nothing }
            }
            _ => panic!("{before:?}, put {put}: {status} for {}", object.addr),
        };
        if matches!(status, 201 | 204) {
            self.damage.over(object);
        }
        Some(())
    }

    /// Something that only damage explains.
    fn excused(&self, object: &Object, what: &str) -> Option<LastAnswer> {
        let len = object.bytes.len();
        assert!(self.damage.excuses(object), "{} of {len} bytes: {what}", object.addr);
        count(&self.counts.excused);
        Some(LastAnswer::Nothing)
    }

    /// 503 may come at any time; the others need a reason.
    fn may_fail(&self, status: u16, object: &Object) {
        count(if status == 503 { &self.counts.refused } else { &self.counts.failed });
        let may = status == 503 || self.damage.disk_failed();
        assert!(may, "{status} for {}, of a disk without faults", object.addr);
    }

    /// One read. What comes must be the object, and must come or not as its client was answered.
    pub(crate) fn read(&self, peer: &mut Peer, object: &Object, last: LastAnswer) -> Option<()> {
        send(peer, "GET", &object.addr)?;
        let head = peer.try_head()?;
        count(&self.counts.reads);
        let len = head.field("content-length").map_or(0, |len| len.parse().expect("a length"));
        let body = peer.read(len);
        match head.status {
            200 => {
                assert_eq!(len, object.bytes.len(), "{}", object.addr);
                assert_same(&body, &object.bytes[..body.len()], &object.addr);
                if last == LastAnswer::Gone {
                    self.excused(object, "it was deleted")?;
                }
                if body.len() < len {
                    // Damage that is found in the midst cuts the answer, as does the node's end.
                    count(&self.counts.unanswered);
                    return None;
                }
                count(&self.counts.whole);
            }
            404 if last == LastAnswer::There => drop(self.excused(object, "it is gone")),
            404 => {}
            502 if self.damage.disk_failed() => count(&self.counts.failed),
            502 => drop(self.excused(object, "it is damaged")),
            status @ (500 | 503) => self.may_fail(status, object),
            status => panic!("{status} for {}", object.addr),
        }
        Some(())
    }

    /// Works until the connection breaks or `stop` is set.
    pub(crate) fn work(
        &self,
        (client, dice): (u64, &mut Dice),
        last: &mut [LastAnswer],
        stream: TcpStream,
        stop: &AtomicBool,
    ) {
        let mut peer = Peer::new(stream);
        while !stop.load(Ordering::Relaxed) {
            let nth = dice.below(self.objects);
            let own = nth_object(client, nth);
            let known = &mut last[nth as usize];
            let done = match dice.below(10) {
                0..=3 => self.change(&mut peer, &own, known, true),
                4 | 5 => self.change(&mut peer, &own, known, false),
                6..=8 => self.read(&mut peer, &own, *known),
                _ => {
                    let other = dice.below(self.clients);
                    let theirs = nth_object(other, dice.below(self.objects));
                    // What its client was answered is not known here.
                    self.read(&mut peer, &theirs, LastAnswer::Nothing)
                }
            };
            if done.is_none() {
                break;
            }
        }
    }

    /// Reads all objects once, each as its client was answered. Returns how many are there, gone,
    /// and unknown.
    pub(crate) fn check_all(&self, at: std::net::SocketAddr, last: &[Vec<LastAnswer>]) -> [u64; 3] {
        let mut known = [0; 3];
        let mut peer = Peer::new(connect(at));
        for (client, last) in (0..).zip(last) {
            for (nth, last) in (0..).zip(last) {
                known[*last as usize] += 1;
                if self.read(&mut peer, &nth_object(client, nth), *last).is_none() {
                    peer = Peer::new(connect(at));
                }
            }
        }
        known
    }
}
