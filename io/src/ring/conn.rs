//! One connection of the driver: its socket, its TLS, and what is queued to be sent.
//!
//! ```text
//!   items   │ Bytes (heads, small bodies) │ Slice │ Slice │ Bytes │ …
//!             ▲ front: sent up to `front_sent`
//!             └── the first `in_flight` items belong to a send the kernel is working on
//! ```
//!
//! Bytes lie in buffers of [`OUT_BUFFER_LEN`], so a connection keeps at most one of them more than
//! its bytes fill, and one that is partly sent.

use std::{collections::VecDeque, os::fd::OwnedFd};

use super::tls::Tls;
use crate::{
    arena::Lent,
    limits::{COPY_LEN_MAX, OUT_BUFFER_LEN, OUT_BUFFERS_IDLE_MAX, SEND_SLICES_MAX},
    ports::{ListenerId, Slice},
};

/// The state of the multishot receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receive {
    /// The kernel receives for us.
    Armed,
    /// As before, but it was asked to stop.
    Stopping,
    /// Nothing is in progress.
    Idle,
}

/// How far the connection is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ending {
    /// It is not.
    Open,
    /// When the queue is empty, the sending side ends.
    Finishing,
    /// The sending side has ended.
    Finished,
    /// Shut down; what the kernel still works on must end, then the descriptor is closed.
    Dead,
}

pub(super) struct Conn {
    pub(super) socket: OwnedFd,
    pub(super) generation: u32,
    pub(super) listener: ListenerId,
    pub(super) tls: Option<Box<Tls>>,
    pub(super) out: Out,
    pub(super) receive: Receive,
    /// Pieces received since there was nothing left to receive.
    pub(super) burst: u32,
    pub(super) paused: bool,
    /// A send of the ring is in progress.
    pub(super) sending: bool,
    /// A poll for space in the socket is in progress.
    pub(super) polling: bool,
    pub(super) ending: Ending,
    /// The peer's end was delivered to the shard.
    pub(super) eof: bool,
    /// The ring's poll saw that the peer sends no more.
    pub(super) half_closed: bool,
    /// It is on the list of connections to be flushed in this turn.
    pub(super) listed: bool,
}

impl Conn {
    pub(super) fn new(socket: OwnedFd, generation: u32, listener: ListenerId) -> Conn {
        Conn {
            socket,
            generation,
            listener,
            tls: None,
            out: Out::default(),
            receive: Receive::Idle,
            burst: 0,
            paused: false,
            sending: false,
            polling: false,
            ending: Ending::Open,
            eof: false,
            half_closed: false,
            listed: false,
        }
    }

    /// Whether the kernel still works on something of this connection.
    pub(super) fn is_busy(&self) -> bool {
        self.sending || self.polling || self.receive != Receive::Idle
    }
}

/// One piece of what is to be sent.
#[derive(Debug)]
pub(super) enum Item {
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

/// Bodies that were proved again right before they were sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Proofs {
    pub(super) made: u64,
    pub(super) failed: u64,
}

impl Proofs {
    pub(super) fn add(&mut self, slice: &Slice) {
        if let Some(holds) = slice.prove() {
            self.made += 1;
            self.failed += u64::from(!holds);
        }
    }
}

/// What is queued to be sent on a connection.
#[derive(Debug, Default)]
pub(super) struct Out {
    items: VecDeque<Item>,
    /// Bytes of the front item that are sent.
    front_sent: usize,
    /// Items that the kernel reads from now.
    in_flight: usize,
    /// Where the kernel reads from; allocated for the first send of several pieces, then kept.
    message: Option<Box<Message>>,
}

/// A vectored send's description, which must stay where it is while the kernel works on it.
struct Message {
    header: libc::msghdr,
    slices: [libc::iovec; SEND_SLICES_MAX],
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").field("slices", &self.header.msg_iovlen).finish()
    }
}

/// Buffers for heads that are empty again, kept for the next connection that needs one.
#[derive(Debug, Default)]
pub(super) struct Spares(Vec<Vec<u8>>);

impl Spares {
    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(OUT_BUFFER_LEN))
    }

    fn keep(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < OUT_BUFFERS_IDLE_MAX {
            buffer.clear();
            self.0.push(buffer);
        }
    }

    /// Frees them all.
    pub(super) fn release(&mut self) {
        self.0 = Vec::new();
    }
}

/// What to do about the front of the queue.
pub(super) enum Next {
    Nothing,
    /// Bytes that a body sent by reference follows: send them with more to come.
    Head {
        start: *const u8,
        len: usize,
    },
    /// Hot slices at the front, to be sent by reference: see `lent`.
    Lend,
    /// One piece of memory.
    One {
        start: *const u8,
        len: usize,
    },
    /// Several pieces of memory.
    Many(*const libc::msghdr),
}

impl Out {
    /// Queues bytes, copied: into what is left of the last buffer, then into further ones.
    pub(super) fn push_bytes(&mut self, bytes: &[u8], spares: &mut Spares) {
        let mut rest = bytes;
        let open = self.items.len() > self.in_flight;
        if let Some(Item::Bytes(last)) = self.items.back_mut().filter(|_| open) {
            rest = fill(last, rest);
        }
        while !rest.is_empty() {
            let mut buffer = spares.take();
            rest = fill(&mut buffer, rest);
            self.items.push_back(Item::Bytes(buffer));
        }
    }

    /// Queues part of a block: a short one is copied behind what stands before it.
    pub(super) fn push_slice(&mut self, slice: Slice, spares: &mut Spares) {
        if slice.len() <= COPY_LEN_MAX {
            self.push_bytes(slice.bytes(), spares);
        } else {
            self.items.push_back(Item::Slice(slice));
        }
    }

    /// Forgets everything that the kernel does not read from.
    pub(super) fn clear(&mut self) {
        self.items.truncate(self.in_flight);
        if self.in_flight == 0 {
            self.front_sent = 0;
        }
    }

    /// `len` bytes from the front went to the kernel.
    pub(super) fn advance(&mut self, len: usize, spares: &mut Spares) {
        self.front_sent += len;
        while let Some(front) = self.items.front() {
            let whole = front.bytes().len();
            if self.front_sent < whole {
                return;
            }
            self.front_sent -= whole;
            if let Some(Item::Bytes(buffer)) = self.items.pop_front() {
                spares.keep(buffer);
            }
        }
        assert_eq!(self.front_sent, 0, "more was sent than was queued");
    }

    /// Whether nothing is queued.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The kernel is done with the send that `next` described.
    pub(super) fn landed(&mut self) {
        self.in_flight = 0;
    }

    /// What to send next. `One` and `Many` are in flight until `landed`: until then their memory
    /// stays where it is and unchanged. `by_reference` allows `Head` and `Lend`.
    pub(super) fn next(&mut self, by_reference: bool) -> Next {
        assert_eq!(self.in_flight, 0, "one send at a time");
        let lends = |item: &Item| matches!(item, Item::Slice(slice) if by_reference && slice.hot);
        match (self.items.front(), self.items.get(1)) {
            (None, _) => Next::Nothing,
            (Some(front), _) if lends(front) => Next::Lend,
            (Some(Item::Bytes(bytes)), Some(body)) if lends(body) => {
                let rest = &bytes[self.front_sent..];
                Next::Head { start: rest.as_ptr(), len: rest.len() }
            }
            (Some(front), None) => {
                self.in_flight = 1;
                let rest = &front.bytes()[self.front_sent..];
                Next::One { start: rest.as_ptr(), len: rest.len() }
            }
            (Some(_), Some(_)) => {
                let many = self.items.iter().take_while(|item| !lends(item)).count();
                self.gather(many.min(SEND_SLICES_MAX))
            }
        }
    }

    fn gather(&mut self, items: usize) -> Next {
        // SAFETY: all-zero is a valid empty msghdr and iovec.
        let message = self.message.get_or_insert_with(|| Box::new(unsafe { std::mem::zeroed() }));
        let mut skip = self.front_sent;
        for (item, slice) in self.items.iter().take(items).zip(&mut message.slices) {
            let bytes = &item.bytes()[skip..];
            skip = 0;
            slice.iov_base = bytes.as_ptr().cast_mut().cast();
            slice.iov_len = bytes.len();
        }
        message.header.msg_iov = message.slices.as_mut_ptr();
        message.header.msg_iovlen = items;
        self.in_flight = items;
        Next::Many(&raw const message.header)
    }

    /// Proves again what the send that `next` described is made of, and what `lent` gives, as far
    /// as there are proofs.
    pub(super) fn prove(&self) -> Proofs {
        let by_copy = self.in_flight;
        let lent = |item: &&Item| matches!(item, Item::Slice(slice) if slice.hot);
        let count = if by_copy > 0 { by_copy } else { self.items.iter().take_while(lent).count() };
        let mut proofs = Proofs::default();
        for item in self.items.iter().take(count) {
            if let Item::Slice(slice) = item {
                proofs.add(slice);
            }
        }
        proofs
    }

    /// The hot slices at the front, what is left of them. Each is marked as lent when it is taken.
    pub(super) fn lent(&self) -> impl Iterator<Item = Lent<'_>> {
        let slices = self.items.iter().map_while(|item| match item {
            Item::Slice(slice) if slice.hot => Some(slice),
            _ => None,
        });
        let mut skip = self.front_sent;
        slices.map(move |slice| {
            let start = slice.start as usize + std::mem::take(&mut skip);
            slice.block.lend(start..slice.end as usize)
        })
    }
}

/// Appends as many of the bytes as fit in the buffer, and returns the others.
fn fill<'a>(buffer: &mut Vec<u8>, bytes: &'a [u8]) -> &'a [u8] {
    let space = OUT_BUFFER_LEN - buffer.len();
    let (now, later) = bytes.split_at(space.min(bytes.len()));
    buffer.extend_from_slice(now);
    later
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;

    fn hot(arena: &mut Arena, len: usize, hot: bool) -> Slice {
        let block = arena.alloc(len).unwrap().freeze(len);
        Slice::whole(block).hot(hot)
    }

    #[test]
    fn a_head_and_a_short_body_become_one_piece() {
        let (mut out, mut spares) = (Out::default(), Spares::default());
        let mut arena = Arena::new(2).unwrap();
        out.push_bytes(b"head", &mut spares);
        out.push_slice(hot(&mut arena, 4096, true), &mut spares);
        match out.next(true) {
            Next::One { len, .. } => assert_eq!(len, 4 + 4096),
            _ => panic!("one piece"),
        }
        out.push_bytes(b"later", &mut spares);
        assert_eq!(out.items.len(), 2, "what is in flight does not grow");
        out.landed();
        out.advance(4 + 4096 + 2, &mut spares);
        assert!(matches!(out.next(true), Next::One { len: 3, .. }));
    }

    #[test]
    fn memory_follows_what_is_queued() {
        let (mut out, mut spares) = (Out::default(), Spares::default());
        let answer: Vec<u8> = (0..4436u32).map(|n| n as u8).collect();
        let held = |out: &Out| {
            let of = |item: &Item| match item {
                Item::Bytes(bytes) => bytes.capacity(),
                Item::Slice(_) => 0,
            };
            out.items.iter().map(of).sum::<usize>()
        };
        for count in 1..=60 {
            out.push_bytes(&answer, &mut spares);
            assert!(held(&out) < count * answer.len() + OUT_BUFFER_LEN, "{count} answers");
        }
        let mut wanted = answer.repeat(60);
        while let Some(front) = out.items.front() {
            let piece = front.bytes().to_vec();
            assert_eq!(wanted.drain(..piece.len()).collect::<Vec<u8>>(), piece);
            out.advance(piece.len(), &mut spares);
        }
        assert!(wanted.is_empty() && held(&out) == 0);
        // The buffers are there for the next, and none is a larger one than was asked for.
        assert_eq!(spares.0.len(), (60 * answer.len()).div_ceil(OUT_BUFFER_LEN));
        assert!(spares.0.iter().all(|buffer| buffer.capacity() == OUT_BUFFER_LEN));
        spares.release();
        assert_eq!(spares.0.capacity(), 0);
    }

    #[test]
    fn few_empty_buffers_are_kept() {
        let mut spares = Spares::default();
        for _ in 0..2 * OUT_BUFFERS_IDLE_MAX {
            spares.keep(Vec::with_capacity(OUT_BUFFER_LEN));
        }
        assert_eq!(spares.0.len(), OUT_BUFFERS_IDLE_MAX);
    }

    #[test]
    fn hot_slices_go_out_together() {
        let (mut out, mut spares) = (Out::default(), Spares::default());
        let mut arena = Arena::new(4).unwrap();
        let slices: Vec<_> = (0..3).map(|_| hot(&mut arena, 65536, true)).collect();
        out.push_bytes(b"head", &mut spares);
        slices.into_iter().for_each(|slice| out.push_slice(slice, &mut spares));
        assert!(matches!(out.next(true), Next::Head { len: 4, .. }));
        out.advance(4, &mut spares);
        let lens = |out: &Out| out.lent().map(|piece| piece.bytes().len()).collect::<Vec<_>>();
        assert!(matches!(out.next(true), Next::Lend));
        assert_eq!(lens(&out), [65536; 3]);
        out.advance(70_000, &mut spares);
        assert!(matches!(out.next(true), Next::Lend));
        assert_eq!(lens(&out), [61_072, 65536]);
        match out.next(false) {
            Next::Many(message) => {
                // SAFETY: the message lives in `out`.
                assert_eq!(unsafe { (*message).msg_iovlen }, 2);
            }
            _ => panic!("by copy it is two pieces"),
        }
    }

    #[test]
    fn cold_slices_are_sent_from_memory_up_to_the_first_hot_one() {
        let (mut out, mut spares) = (Out::default(), Spares::default());
        let mut arena = Arena::new(4).unwrap();
        out.push_bytes(b"head", &mut spares);
        for is_hot in [false, false, true] {
            out.push_slice(hot(&mut arena, 65536, is_hot), &mut spares);
        }
        match out.next(true) {
            Next::Many(message) => {
                // SAFETY: the message lives in `out`.
                assert_eq!(unsafe { (*message).msg_iovlen }, 3);
            }
            _ => panic!("head and two cold slices"),
        }
        out.landed();
        out.advance(4 + 2 * 65536, &mut spares);
        assert!(matches!(out.next(true), Next::Lend));
    }
}
