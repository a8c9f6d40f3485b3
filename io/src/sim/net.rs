//! Connections of one shard: both ends, and everything on its way between them.
//!
//! ```text
//!             write ─► │ inbound │ ── Bytes ──►
//!    client                                       shard
//!             ◄─ read  │ in the sockets │ ◄─ Sent ── │ queued: heads, slices │ ◄── send
//! ```
//!
//! Under TLS both directions carry records: the client's end is rustls, and the node's is the
//! session that the ring has as well. What the shard sends is encrypted at once, as the ring does.
//!
//! A slice is held from `send` until its last byte was taken by the kernel, and is looked at only
//! then, as the kernel does. A hot one on a connection without TLS goes by reference: its pages lie
//! in the sockets, and the client reads what they hold when it reads. Bytes come and go in whatever
//! pieces the caller chooses. What the peer of an aborted connection still reads is chance.

use std::{collections::VecDeque, io};

use super::{Chance, tls::Ends};
use crate::{
    arena::{Block, Queued},
    limits::{COPY_LEN_MAX, RECV_BUFFER_LEN},
    ports::{ConnId, Slice},
    tls::Decrypted,
};

/// A connection, as its client knows it. A number is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link(pub usize);

/// Something that could happen on a connection next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The shard gets bytes, or TLS is given some.
    Bytes(Link),
    /// The shard learns that the client sends no more.
    Eof(Link),
    /// The kernel takes some of what is queued.
    Sent(Link),
    /// The shard learns that the connection is gone.
    Closed(Link),
    /// The client has something to read, or learns that nothing more comes.
    Read(Link),
}

#[derive(Debug)]
enum Item {
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

/// What lies in the sockets on its way to the client.
#[derive(Debug)]
enum Wire {
    Bytes(Pipe),
    Pages(VecDeque<Queued>),
}

impl Wire {
    fn len(&self) -> usize {
        match self {
            Wire::Bytes(bytes) => bytes.len(),
            Wire::Pages(pages) => pages.iter().map(Queued::len).sum(),
        }
    }
}

/// What lies in the sockets, in order.
#[derive(Debug, Default)]
struct Outbound {
    parts: VecDeque<Wire>,
    len: usize,
}

impl Outbound {
    fn push(&mut self, bytes: &[u8]) {
        if let Some(Wire::Bytes(last)) = self.parts.back_mut() {
            last.push(bytes);
        } else {
            let mut pipe = Pipe::default();
            pipe.push(bytes);
            self.parts.push_back(Wire::Bytes(pipe));
        }
        self.len += bytes.len();
    }

    fn push_pages(&mut self, pages: Vec<Queued>) {
        let pages: VecDeque<Queued> = pages.into();
        self.len += pages.iter().map(Queued::len).sum::<usize>();
        self.parts.push_back(Wire::Pages(pages));
    }

    /// The client reads: bytes as they were, pages as they are now.
    fn take(&mut self, len: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        while taken.len() < len {
            let rest = len - taken.len();
            match self.parts.front_mut() {
                None => break,
                Some(Wire::Bytes(bytes)) => taken.extend(bytes.take(rest)),
                Some(Wire::Pages(pages)) => {
                    if let Some(page) = pages.front_mut() {
                        page.read(rest, &mut taken);
                        if page.len() == 0 {
                            pages.pop_front();
                        }
                    }
                }
            }
            if self.parts.front().is_some_and(|part| part.len() == 0) {
                self.parts.pop_front();
            }
        }
        self.len -= taken.len();
        taken
    }

    /// Loses what comes behind the first `len` bytes.
    fn cut(&mut self, len: usize) {
        let kept = self.take(len);
        *self = Outbound::default();
        self.push(&kept);
    }
}

/// Bytes in order, read from the front.
#[derive(Debug, Default)]
struct Pipe {
    bytes: Vec<u8>,
    read: usize,
}

impl Pipe {
    fn len(&self) -> usize {
        self.bytes.len() - self.read
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.read > self.bytes.len() / 2 {
            self.bytes.drain(..self.read);
            self.read = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let end = self.read + len.min(self.len());
        let taken = self.bytes[self.read..end].to_vec();
        self.read = end;
        taken
    }
}

#[derive(Debug)]
struct Conn {
    id: ConnId,
    /// Both ends of its TLS.
    tls: Option<Box<Ends>>,
    /// Bodies may go by reference.
    by_reference: bool,
    /// The client said over TLS that it will send no more, and the shard does not know it yet.
    noticed: bool,
    /// The node said over TLS that it will send no more.
    notified: bool,
    inbound: Pipe,
    client_ended: bool,
    eof_delivered: bool,
    paused: bool,
    /// Pieces that were taken from the kernel before the pause.
    taken_before: u32,
    queued: VecDeque<Item>,
    front_sent: usize,
    queued_len: usize,
    outbound: Outbound,
    /// Bytes that the sockets hold for a client that does not read.
    sockets_len: usize,
    finishing: bool,
    /// The shard's end is gone; `Closed` is to be delivered.
    dead: bool,
    closed_delivered: bool,
    /// The client has left, or knows that nothing more comes.
    left: bool,
}

/// The connections of one shard.
#[derive(Debug, Default)]
pub struct Net {
    conns: Vec<Conn>,
    /// Those whose end one side or the other has not learned.
    there: Vec<usize>,
    /// For each slot, the connection that has it.
    slots: Vec<Option<Link>>,
    generation: u32,
    stopped: bool,
    /// Where TLS decrypts to.
    plaintext: Vec<u8>,
}

impl Net {
    /// A client connects, if the shard still listens. Until its client reads, the sockets take
    /// `sockets_len` bytes and some more.
    pub fn connect(&mut self, tls: bool, sockets_len: usize) -> Option<(Link, ConnId)> {
        if self.stopped {
            return None;
        }
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        self.generation += 1;
        let id = ConnId { slot: slot as u32, generation: self.generation };
        let link = Link(self.conns.len());
        self.conns.push(Conn {
            id,
            tls: tls.then(|| Box::new(Ends::new())),
            by_reference: !tls,
            noticed: false,
            notified: false,
            inbound: Pipe::default(),
            client_ended: false,
            eof_delivered: false,
            paused: false,
            taken_before: 0,
            queued: VecDeque::new(),
            front_sent: 0,
            queued_len: 0,
            outbound: Outbound::default(),
            sockets_len,
            finishing: false,
            dead: false,
            closed_delivered: false,
            left: false,
        });
        let conns = &self.conns;
        self.there.retain(|at| !conns[*at].has_ended());
        self.there.push(link.0);
        if tls {
            self.write(link, b"");
        }
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(link);
        Some((link, id))
    }

    /// The client writes.
    pub fn write(&mut self, link: Link, bytes: &[u8]) {
        match &mut self.conns[link.0].tls {
            Some(ends) => {
                let records = ends.client_writes(bytes);
                self.write_raw(link, &records);
            }
            None => self.write_raw(link, bytes),
        }
    }

    /// The client writes to its socket, past its TLS.
    pub fn write_raw(&mut self, link: Link, bytes: &[u8]) {
        let conn = &mut self.conns[link.0];
        if !conn.dead && !conn.client_ended {
            conn.inbound.push(bytes);
        }
    }

    /// The client takes back what the shard did not get yet.
    pub fn withhold(&mut self, link: Link) -> Vec<u8> {
        self.conns[link.0].inbound.take(usize::MAX)
    }

    /// The client says over TLS that it will send no more. It may write to its socket still.
    pub fn close_notify(&mut self, link: Link) {
        if let Some(ends) = &mut self.conns[link.0].tls {
            let records = ends.client_closes();
            self.write_raw(link, &records);
        }
    }

    /// Whether the client's handshake is not complete.
    pub fn is_handshaking(&self, link: Link) -> bool {
        self.conns[link.0].tls.as_ref().is_some_and(|ends| ends.is_handshaking())
    }

    pub fn is_tls(&self, link: Link) -> bool {
        self.conns[link.0].tls.is_some()
    }

    /// Bytes the client wrote that the shard did not get.
    pub fn unread(&self, link: Link) -> usize {
        self.conns[link.0].inbound.len()
    }

    /// The client will write no more.
    pub fn end(&mut self, link: Link) {
        self.conns[link.0].client_ended = true;
    }

    /// The client drops the connection, and everything that is on its way.
    pub fn reset(&mut self, link: Link) {
        let conn = &mut self.conns[link.0];
        conn.left = true;
        conn.dead = true;
        conn.outbound = Outbound::default();
    }

    /// The client reads up to `max` bytes of its socket. Nothing, if nothing more comes, or there
    /// was nothing but TLS: see `is_left`.
    pub fn read(&mut self, link: Link, max: usize) -> Vec<u8> {
        let conn = &mut self.conns[link.0];
        let mut bytes = conn.outbound.take(max);
        let mut over = bytes.is_empty();
        let mut answer = Vec::new();
        if let Some(ends) = &mut conn.tls {
            match ends.client_reads(&bytes) {
                Ok(plaintext) => bytes = plaintext,
                Err(_) => (bytes, over) = (Vec::new(), true),
            }
            answer = ends.client_sends();
        }
        self.write_raw(link, &answer);
        if over {
            let conn = &mut self.conns[link.0];
            (conn.left, conn.client_ended) = (true, true);
        }
        bytes
    }

    /// Whether the client has left, or learned that nothing more comes.
    pub fn is_left(&self, link: Link) -> bool {
        self.conns[link.0].left
    }

    /// The shard's name for a connection whose end it has not learned.
    pub fn id(&self, link: Link) -> ConnId {
        self.conns[link.0].id
    }

    /// Takes the bytes of the next `Bytes`, up to `max`.
    pub fn receive(&mut self, link: Link, max: usize) -> Vec<u8> {
        let conn = &mut self.conns[link.0];
        conn.taken_before = conn.taken_before.saturating_sub(1);
        conn.inbound.take(max.min(RECV_BUFFER_LEN))
    }

    /// Hands ciphertext to the node's TLS. `None` when the connection is gone.
    ///
    /// # Errors
    /// When the client broke the protocol.
    pub fn decrypt(
        &mut self,
        link: Link,
        mut input: &[u8],
    ) -> io::Result<Option<(usize, Decrypted)>> {
        let (conn, len) = (&mut self.conns[link.0], input.len());
        let Some(ends) = conn.tls.as_mut().filter(|_| !conn.dead) else { return Ok(None) };
        let decrypted = ends.decrypt(&mut input)?;
        Ok(Some((len - input.len(), decrypted)))
    }

    /// What the node's TLS has decrypted, some of it; nothing when there is none.
    pub fn plaintext(&mut self, link: Link) -> Vec<u8> {
        let conn = &mut self.conns[link.0];
        let Some(ends) = conn.tls.as_mut().filter(|_| !conn.dead) else { return Vec::new() };
        self.plaintext.resize(RECV_BUFFER_LEN, 0);
        let len = ends.plaintext(&mut self.plaintext);
        self.plaintext[..len].to_vec()
    }

    /// The client said over TLS that it sends no more.
    pub fn ended_by_notice(&mut self, link: Link) {
        self.conns[link.0].noticed = true;
    }

    /// TLS failed: what it says about that goes to the socket as far as it fits, and the
    /// connection is dropped.
    pub fn abort_after_flush(&mut self, link: Link) {
        let conn = &mut self.conns[link.0];
        conn.flush_tls(usize::MAX);
        conn.dead = true;
    }

    /// The shard gets `Eof`.
    pub fn tell_eof(&mut self, link: Link) {
        self.conns[link.0].eof_delivered = true;
    }

    /// The shard gets `Closed`: the slot is free.
    pub fn tell_closed(&mut self, link: Link) {
        let conn = &mut self.conns[link.0];
        conn.closed_delivered = true;
        conn.queued.clear();
        conn.inbound = Pipe::default();
        if let Some(ends) = &mut conn.tls {
            ends.drop_server();
        }
        self.slots[conn.id.slot as usize] = None;
    }

    /// The kernel takes up to `max` bytes of what is queued. Returns how many the shard learns of.
    pub fn sent(&mut self, link: Link, max: usize) -> usize {
        let conn = &mut self.conns[link.0];
        if conn.tls.is_some() {
            return conn.flush_tls(max);
        }
        let mut left = max;
        while left > 0 {
            let Some(front) = conn.queued.front() else { break };
            let rest = &front.bytes()[conn.front_sent..];
            let len = rest.len().min(left);
            match front {
                _ if conn.left => {}
                Item::Slice(slice) if conn.by_reference && slice.hot => {
                    let start = slice.start as usize + conn.front_sent;
                    conn.outbound.push_pages(slice.block.lend(start..start + len).queue());
                }
                _ => conn.outbound.push(&rest[..len]),
            }
            left -= len;
            conn.front_sent += len;
            if conn.front_sent == front.bytes().len() {
                conn.queued.pop_front();
                conn.front_sent = 0;
            }
        }
        conn.queued_len -= max - left;
        max - left
    }

    /// Bytes queued to be sent.
    pub fn queued(&self, link: Link) -> usize {
        self.conns[link.0].queued_len
    }

    /// Bytes that were copied to be sent, and that the kernel has not taken: memory of the node.
    pub fn copied_len(&self) -> usize {
        let items = self.there().flat_map(|conn| &conn.queued);
        let copied = items.map(|item| if let Item::Bytes(bytes) = item { bytes.len() } else { 0 });
        copied.sum()
    }

    /// Bytes that are copied or encrypted on connections that the shard has not dropped, and that
    /// it does not know are sent.
    pub fn unsent_copies_len(&self) -> usize {
        let of = |conn: &Conn| match conn.tls {
            Some(_) => conn.queued_len,
            None => conn.copies_len(),
        };
        self.there().filter(|conn| !conn.dead).map(of).sum()
    }

    fn there(&self) -> impl Iterator<Item = &Conn> {
        self.there.iter().map(|at| &self.conns[*at])
    }

    /// The blocks that lie in the queues to be sent, each as often as it is queued.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        let items = self.there().flat_map(|conn| &conn.queued);
        items.filter_map(|item| match item {
            Item::Slice(slice) => Some(&slice.block),
            Item::Bytes(_) => None,
        })
    }

    /// Whether the shard's end of a connection is open: it was neither dropped, nor has it sent its
    /// last byte.
    pub fn is_open(&self, link: Link) -> bool {
        let conn = &self.conns[link.0];
        !conn.dead && (!conn.finishing || conn.has_more())
    }

    /// Adds all that could happen next.
    pub fn moves(&self, moves: &mut Vec<Move>) {
        for at in self.there.iter().copied() {
            let conn = &self.conns[at];
            if conn.has_ended() {
                continue;
            }
            let link = Link(at);
            let over = conn.dead || (conn.finishing && !conn.has_more());
            if !conn.left && (conn.outbound.len > 0 || over) {
                moves.push(Move::Read(link));
            }
            if conn.dead {
                if !conn.closed_delivered {
                    moves.push(Move::Closed(link));
                }
                continue;
            }
            let hears = !conn.paused || conn.taken_before > 0;
            if hears && conn.inbound.len() > 0 {
                moves.push(Move::Bytes(link));
            } else if !conn.paused && conn.client_ended && !conn.eof_delivered {
                moves.push(Move::Eof(link));
            }
            if conn.noticed && !conn.eof_delivered && !moves.ends_with(&[Move::Eof(link)]) {
                moves.push(Move::Eof(link));
            }
            if conn.has_more() && (conn.left || conn.outbound.len < conn.sockets_len) {
                moves.push(Move::Sent(link));
            }
        }
    }

    /// Connections whose end the shard has not learned.
    pub fn open(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// `Act::Send`.
    pub fn send(&mut self, id: ConnId, head: &[u8], body: Option<Slice>) {
        let Some(conn) = self.conn(id).filter(|conn| !conn.finishing) else { return };
        if let Some(ends) = &mut conn.tls {
            ends.say(head, body.as_ref().map_or(&[], Slice::bytes));
            conn.queued_len += head.len() + body.as_ref().map_or(0, Slice::len);
            return;
        }
        if !head.is_empty() {
            conn.queue(head);
        }
        match body {
            // A short body is copied behind its head.
            Some(slice) if slice.len() <= COPY_LEN_MAX => conn.queue(slice.bytes()),
            Some(slice) => {
                conn.queued_len += slice.len();
                conn.queued.push_back(Item::Slice(slice));
            }
            None => {}
        }
    }

    /// `Act::Finish`.
    pub fn finish(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id) {
            conn.finishing = true;
        }
    }

    /// `Act::Abort`. What is on its way to a client is lost if that has written, or may yet write,
    /// what nobody reads: then it ends with a reset, which overtakes.
    pub fn abort(&mut self, id: ConnId, chance: &mut Chance) {
        let Some(conn) = self.conn(id) else { return };
        conn.dead = true;
        // What the kernel works on is dropped when that ends; the rest at once.
        conn.queued.truncate(1);
        let unread = conn.inbound.len() > 0 || !conn.client_ended;
        if unread && chance.toss() {
            let lost = chance.below(conn.outbound.len + 1);
            let kept = conn.outbound.len - lost;
            conn.outbound.cut(kept);
        }
    }

    /// `Act::Pause`. What was taken from the kernel before may still be delivered.
    pub fn pause(&mut self, id: ConnId, chance: &mut Chance) {
        if let Some(conn) = self.conn(id) {
            conn.paused = true;
            conn.taken_before = chance.below(3) as u32;
        }
    }

    /// `Act::Resume`.
    pub fn resume(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id) {
            conn.paused = false;
        }
    }

    /// `Act::StopAccepting`.
    pub fn stop_accepting(&mut self) {
        self.stopped = true;
    }

    /// The living connection of this name.
    fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        let link = (*self.slots.get(id.slot as usize)?)?;
        let conn = &mut self.conns[link.0];
        (conn.id == id && !conn.dead).then_some(conn)
    }
}

impl Conn {
    /// Whether both ends know that it has ended.
    fn has_ended(&self) -> bool {
        self.closed_delivered && self.left
    }

    /// Bytes that are copied and not sent.
    fn copies_len(&self) -> usize {
        let len = |item: &Item| if let Item::Bytes(bytes) = item { bytes.len() } else { 0 };
        let all: usize = self.queued.iter().map(len).sum();
        let is_copy = matches!(self.queued.front(), Some(Item::Bytes(_)));
        all - if is_copy { self.front_sent } else { 0 }
    }

    /// Whether something is to be sent, or the end of it over TLS.
    fn has_more(&self) -> bool {
        let tls = |ends: &Ends| ends.wants_write() || (self.finishing && !self.notified);
        !self.queued.is_empty() || self.tls.as_deref().is_some_and(tls)
    }

    /// The socket takes up to `max` bytes of records. Returns the bytes that the shard learns of.
    fn flush_tls(&mut self, max: usize) -> usize {
        let Some(ends) = &mut self.tls else { return 0 };
        if self.finishing && !std::mem::replace(&mut self.notified, true) {
            ends.close_notify();
        }
        let (records, flushed) = ends.flush(if self.left { usize::MAX } else { max });
        if !self.left {
            self.outbound.push(&records);
        }
        self.queued_len -= flushed.len;
        flushed.len
    }

    fn queue(&mut self, bytes: &[u8]) {
        self.queued_len += bytes.len();
        if let Some(Item::Bytes(last)) = self.queued.back_mut() {
            last.extend_from_slice(bytes);
        } else if !bytes.is_empty() {
            self.queued.push_back(Item::Bytes(bytes.to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{arena::Arena, limits::BLOCK_LEN};

    fn net() -> (Net, Link, ConnId) {
        let mut net = Net::default();
        let (link, id) = net.connect(false, 10).unwrap();
        (net, link, id)
    }

    fn moves(net: &Net) -> Vec<Move> {
        let mut moves = Vec::new();
        net.moves(&mut moves);
        moves
    }

    #[test]
    fn bytes_arrive_in_order_whatever_the_pieces() {
        let (mut net, link, id) = net();
        let mut arena = Arena::new(1).unwrap();
        let mut block = arena.alloc(COPY_LEN_MAX + 1).unwrap();
        block.bytes_mut().fill(b'x');
        let body = Slice::whole(block.freeze(COPY_LEN_MAX + 1));
        net.send(id, b"head", Some(body));
        net.send(id, b"tail", None);
        let mut got = Vec::new();
        while net.queued(link) > 0 {
            if moves(&net).contains(&Move::Sent(link)) {
                assert!((1..=7).contains(&net.sent(link, 7)));
            }
            got.extend(net.read(link, 3));
        }
        loop {
            let some = net.read(link, 3);
            if some.is_empty() {
                break;
            }
            got.extend(some);
        }
        let expected = [&b"head"[..], &[b'x'; COPY_LEN_MAX + 1], b"tail"].concat();
        assert!(got == expected);
        arena.collect();
        assert_eq!(arena.free_pages(), arena.total_pages(), "the slice was dropped");
    }

    /// Pages that lie in the sockets are read late, as they are then, unless they were renewed.
    #[test]
    fn what_goes_by_reference_is_read_when_the_client_reads() {
        let (mut net, link, id) = net();
        let mut arena = Arena::new(1).unwrap();
        let mut block = arena.alloc(BLOCK_LEN).unwrap();
        block.bytes_mut().fill(b'x');
        let body = Slice::whole(block.freeze(BLOCK_LEN)).hot(true);
        net.send(id, b"head", Some(body.clone()));
        assert_eq!(net.sent(link, 4 + 5000), 5004);
        assert_eq!(net.sent(link, BLOCK_LEN), BLOCK_LEN - 5000);
        // A violation of the rule: the client sees it.
        let page = body.block.page();
        drop(body);
        arena.scribble(page, b'y');
        assert_eq!(net.read(link, 4 + 4096), [&b"head"[..], &[b'y'; 4096]].concat());
        // Renewed pages stay as they were.
        let mut pieces: Vec<_> = std::iter::from_fn(|| arena.alloc(4096)).collect();
        pieces.iter_mut().for_each(|piece| piece.bytes_mut().fill(b'z'));
        assert!(net.read(link, BLOCK_LEN) == vec![b'x'; BLOCK_LEN - 4096]);
    }

    #[test]
    fn a_client_that_does_not_read_stops_the_sending() {
        let (mut net, link, id) = net();
        net.send(id, &[0; 25], None);
        assert_eq!(moves(&net), [Move::Sent(link)]);
        net.sent(link, 12);
        assert_eq!(moves(&net), [Move::Read(link)]);
        net.read(link, 5);
        assert_eq!(moves(&net), [Move::Read(link), Move::Sent(link)]);
    }

    #[test]
    fn a_paused_connection_is_told_little_and_no_end() {
        let (mut net, link, id) = net();
        net.write(link, &[1; 100]);
        net.end(link);
        net.pause(id, &mut Chance::new(1));
        let mut told = 0;
        while moves(&net).contains(&Move::Bytes(link)) {
            told += net.receive(link, 1).len();
        }
        assert!(told < 3 && moves(&net).is_empty());
        net.resume(id);
        assert_eq!(net.receive(link, 1000).len(), 100 - told);
        assert_eq!(moves(&net), [Move::Eof(link)]);
    }

    #[test]
    fn an_aborted_connection_is_closed_once_and_its_slot_used_again() {
        let (mut net, link, id) = net();
        net.send(id, b"lost", None);
        net.abort(id, &mut Chance::new(1));
        net.send(id, b"never", None);
        assert_eq!(moves(&net), [Move::Read(link), Move::Closed(link)]);
        net.tell_closed(link);
        assert_eq!(net.read(link, 9), b"");
        assert!(moves(&net).is_empty());
        let (again, other) = net.connect(false, 10).unwrap();
        assert_eq!((other.slot, again), (id.slot, Link(1)));
        net.send(id, b"to a dead one", None);
        assert!(moves(&net).is_empty());
        net.stop_accepting();
        assert!(net.connect(false, 10).is_none());
    }

    #[test]
    fn a_finished_connection_ends_behind_what_is_queued() {
        let (mut net, link, id) = net();
        net.send(id, b"last", None);
        net.finish(id);
        net.send(id, b"too late", None);
        assert_eq!(moves(&net), [Move::Sent(link)]);
        net.sent(link, 100);
        assert_eq!(net.read(link, 100), b"last");
        assert_eq!(moves(&net), [Move::Read(link)]);
        assert_eq!(net.read(link, 100), b"");
        assert_eq!(moves(&net), [Move::Eof(link)]);
    }
}
