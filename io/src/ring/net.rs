//! The ring: accepts, receives and sends for all connections of a shard, and carries the transfers
//! of its disk.
//!
//! One io_uring with deferred task work, driven by one thread. Connections are accepted one at a
//! time. Receives are multishot and draw buffers from a pool the kernel knows. What a turn of the
//! loop asks for is submitted, and what completed is collected, in one system call. It waits if the
//! turn says so.

use std::{
    collections::VecDeque,
    io,
    mem::ManuallyDrop,
    net::SocketAddr,
    ops::Range,
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use io_uring::{
    IoUring, cqueue, opcode, squeue,
    types::{Fd, Timespec},
};
use slab::Slab;
use socket2::SockRef;

mod accept;
mod listener;
mod receive;
mod tag;

pub use listener::Listener;
use listener::ListenerState;
use tag::{Kind, conn_of, kind_of, listener_id, tag};

use super::{
    conn::{Conn, Ending, Next, Proofs, Spares},
    half_closed::HalfClosed,
    probe::{self, WaitArgument},
    recv_pool::RecvPool,
    tls::{self, Flushed},
};
use crate::{
    limits::{COPY_LEN_MAX, DISK_OPS_MAX, RING_COMPLETIONS, SEND_TURN_LEN_MAX},
    pipe::{Pipe, Sent},
    ports::{ConnId, ListenerId, Slice},
};

/// What the ring has to tell, in the driver's words.
#[derive(Debug)]
pub(super) enum NetEvent {
    Accepted {
        conn: ConnId,
        listener: ListenerId,
        peer: SocketAddr,
    },
    /// Bytes of the peer lie in this receive buffer, which must be given back.
    Received {
        conn: ConnId,
        buffer: u16,
        len: usize,
    },
    /// Plaintext bytes went to the kernel.
    Sent {
        conn: ConnId,
        len: usize,
    },
    Eof {
        conn: ConnId,
    },
    /// The connection is gone; its id is dead.
    Closed {
        conn: ConnId,
    },
}

/// How long a turn may wait when it has nothing at hand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wait {
    Not,
    For(Duration),
    Forever,
}

/// The ring and its connections.
pub(super) struct Net {
    ring: IoUring,
    /// Never unmapped: see `Drop`.
    pool: ManuallyDrop<RecvPool>,
    listeners: Vec<ListenerState>,
    conns: Slab<Conn>,
    generation: u32,
    /// Submissions that found the queue full.
    waiting: VecDeque<squeue::Entry>,
    /// Connections with something to send or to end.
    ready: Vec<ConnId>,
    completed: Vec<cqueue::Entry>,
    events: VecDeque<NetEvent>,
    /// Transfers of the disk that completed: their numbers and results.
    landed: VecDeque<(u32, i32)>,
    spares: Spares,
    /// Bodies sent by reference go through it.
    pipe: Pipe,
    /// Those whose peer sends no more, and that wait for space in the socket.
    half_closed: HalfClosed,
    /// The set of them is polled.
    awaits_writable: bool,
    accepting: bool,
    /// Connections with which no more are accepted.
    connections_max: usize,
    /// Accepting failed, and is tried again when the timer ends.
    retrying: bool,
    /// Whether that timer runs.
    timing: bool,
    /// How often in a row accepting was tried again.
    retries: u32,
    /// Why the last accept failed that did.
    accept_errno: i32,
    /// What a wait in the ring is called with besides.
    wait_flags: u32,
    waker: RawFd,
    counts: Counts,
}

/// What the ring did so far, for readers on other threads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) enters: u64,
    pub(super) completions: u64,
    /// Turns that found completions waiting in the kernel because the queue was full.
    pub(super) overflows: u64,
    /// Receives that found no free buffer.
    pub(super) starved: u64,
    /// Submissions that wait for space in the queue, as of now.
    pub(super) waiting: u64,
    /// Connections, as of now.
    pub(super) conns: u64,
    /// Bodies whose bytes were proved again right before they were sent, and those that failed.
    pub(super) proofs: Proofs,
    /// Bytes that sockets took by reference.
    pub(super) lent_bytes: u64,
    /// Accepts that failed, for lack of descriptors or memory most likely.
    pub(super) accept_failures: u64,
    /// Listeners that accept nothing until accepting is tried again, as of now.
    pub(super) accept_paused: u64,
}

impl Counts {
    /// Counts proofs. An error when one failed: nothing of it may be sent.
    fn note(&mut self, proofs: Proofs) -> io::Result<()> {
        self.proofs.made += proofs.made;
        self.proofs.failed += proofs.failed;
        if proofs.failed == 0 {
            return Ok(());
        }
        let fault = "a body is not what was verified when it is sent: its connection is closed";
        tracing::error!("{fault}");
        Err(io::Error::new(io::ErrorKind::InvalidData, fault))
    }
}

impl Net {
    /// Sets up the ring, which polls `waker`.
    pub(super) fn new(
        waker: RawFd,
        listeners: Vec<Listener>,
        connections_max: usize,
    ) -> Result<Net, probe::Refused> {
        let ring = probe::ring()?;
        let pool = RecvPool::new(&ring).map_err(|source| probe::refused("buffers", source))?;
        let wait_flags = probe::wait_flags(&ring);
        let mut net = Net {
            ring,
            pool: ManuallyDrop::new(pool),
            listeners: listeners.into_iter().map(ListenerState::new).collect(),
            conns: Slab::with_capacity(1024),
            generation: 0,
            waiting: VecDeque::new(),
            ready: Vec::with_capacity(1024),
            completed: Vec::with_capacity(RING_COMPLETIONS as usize),
            events: VecDeque::with_capacity(1024),
            landed: VecDeque::with_capacity(DISK_OPS_MAX),
            spares: Spares::default(),
            pipe: Pipe::new().map_err(|source| probe::refused("a pipe", source))?,
            half_closed: HalfClosed::new().map_err(|source| probe::refused("epoll", source))?,
            awaits_writable: false,
            accepting: true,
            connections_max,
            retrying: false,
            timing: false,
            retries: 0,
            accept_errno: 0,
            wait_flags,
            waker,
            counts: Counts::default(),
        };
        net.arm_waker();
        net.arm_listeners();
        Ok(net)
    }

    /// Sends what was asked for. Returns how long `turn` may wait then.
    pub(super) fn flush_all(&mut self, wait: Wait) -> Wait {
        self.flush_ready();
        self.pool.publish();
        let at_hand = !self.events.is_empty() || !self.ready.is_empty() || !self.waiting.is_empty();
        if at_hand { Wait::Not } else { wait }
    }

    /// Submits what was asked for and collects what completed, after a wait if there is one.
    pub(super) fn turn(&mut self, wait: Wait) -> io::Result<()> {
        self.enter(wait)?;
        self.completed.extend(self.ring.completion());
        self.counts.enters += 1;
        self.counts.completions += self.completed.len() as u64;
        self.counts.overflows += u64::from(self.ring.submission().cq_overflow());
        let mut completed = std::mem::take(&mut self.completed);
        for entry in completed.drain(..) {
            self.complete(&entry);
        }
        self.completed = completed;
        Ok(())
    }

    /// Submits a transfer of the disk in the next turn; `number` is reported when it has completed.
    pub(super) fn transfer(&mut self, number: u32, entry: squeue::Entry) {
        let number = ConnId { slot: number, generation: 0 };
        self.submit(entry.user_data(tag(Kind::Transfer, number)));
    }

    /// The next transfer that completed, and its result.
    pub(super) fn landed(&mut self) -> Option<(u32, i32)> {
        self.landed.pop_front()
    }

    pub(super) fn counts(&self) -> Counts {
        let (waiting, conns) = (self.waiting.len() as u64, self.conns.len() as u64);
        Counts { waiting, conns, accept_paused: self.accept_paused(), ..self.counts }
    }

    /// How many events were not delivered.
    pub(super) fn pending(&self) -> usize {
        self.events.len()
    }

    /// The next thing that happened.
    pub(super) fn next_event(&mut self) -> Option<NetEvent> {
        self.events.pop_front()
    }

    pub(super) fn received(&self, buffer: u16, len: usize) -> &[u8] {
        self.pool.bytes(buffer, len)
    }

    /// Hands ciphertext of a receive buffer to the TLS of a connection. Returns how much of it was
    /// taken and what came of it, or `None` when the connection is gone.
    pub(super) fn decrypt(
        &mut self,
        id: ConnId,
        buffer: u16,
        range: Range<usize>,
    ) -> io::Result<Option<(usize, tls::Decrypted)>> {
        let mut input = &self.pool.bytes(buffer, range.end)[range.start..];
        let conn = self.conns.get_mut(id.slot as usize);
        let conn = conn.filter(|c| c.generation == id.generation && c.ending != Ending::Dead);
        let Some(tls) = conn.and_then(|conn| conn.tls.as_mut()) else { return Ok(None) };
        let decrypted = tls.decrypt(&mut input)?;
        Ok(Some((range.len() - input.len(), decrypted)))
    }

    pub(super) fn give_back(&mut self, buffer: u16) {
        self.pool.give_back(buffer);
    }

    /// Frees the buffers that are kept for later.
    pub(super) fn release_spares(&mut self) {
        self.spares.release();
    }

    pub(super) fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        let conn = self.conns.get_mut(id.slot as usize)?;
        (conn.generation == id.generation && conn.ending != Ending::Dead).then_some(conn)
    }

    /// Queues bytes and a body. They go out when the turn ends.
    pub(super) fn send(&mut self, id: ConnId, head: &[u8], body: Option<Slice>) {
        let Some(conn) = self.conns.get_mut(id.slot as usize) else { return };
        if conn.generation != id.generation || conn.ending != Ending::Open {
            return;
        }
        // What is encrypted, or copied behind its head, is handed over here.
        let is_copied =
            conn.tls.is_some() || body.as_ref().is_some_and(|b| b.len() <= COPY_LEN_MAX);
        if let Some(body) = body.as_ref().filter(|_| is_copied) {
            let mut proofs = Proofs::default();
            proofs.add(body);
            if self.counts.note(proofs).is_err() {
                self.abort(id);
                return;
            }
        }
        match &mut conn.tls {
            Some(tls) => {
                let body = body.as_ref().map_or(&[][..], Slice::bytes);
                // Encrypting fails only when the keys are used up beyond renewal.
                if tls.say(head, body).is_err() {
                    self.abort(id);
                    return;
                }
            }
            None => {
                conn.out.push_bytes(head, &mut self.spares);
                if let Some(body) = body {
                    conn.out.push_slice(body, &mut self.spares);
                }
            }
        }
        self.list(id);
    }

    /// Ends the sending side once all that is queued has gone.
    pub(super) fn finish(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id).filter(|conn| conn.ending == Ending::Open) {
            conn.ending = Ending::Finishing;
            self.list(id);
        }
    }

    /// Puts the connection on the list of those that are flushed when the turn ends.
    pub(super) fn list(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id).filter(|conn| !conn.listed) {
            conn.listed = true;
            self.ready.push(id);
        }
    }

    /// Drops the connection. Its memory stays until the kernel has released it.
    ///
    /// Where everything went to the kernel with the end behind it, the kernel still delivers it,
    /// and answers with a reset what the peer goes on sending. Otherwise the peer is sent a reset:
    /// a mere end would leave it waiting for space that this side does not give any more.
    pub(super) fn abort(&mut self, id: ConnId) {
        self.finish_now(id);
        let Some(conn) = self.conn(id) else { return };
        let all_sent = conn.ending == Ending::Finished && !conn.polling;
        conn.ending = Ending::Dead;
        conn.out.clear();
        conn.tls = None;
        if all_sent {
            self.stop_receiving(id);
        } else {
            let socket = SockRef::from(&conn.socket);
            let _ = socket.set_linger(Some(Duration::ZERO));
            // Ends a receive, a send and a poll that are in progress.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
        self.remove_dead(id);
    }

    /// Ends the sending side at once if that was asked for and nothing is left to be sent.
    fn finish_now(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id).filter(|conn| conn.ending == Ending::Finishing) else {
            return;
        };
        if conn.sending || conn.polling || !conn.out.is_empty() {
            return;
        }
        if let Some(tls) = &mut conn.tls {
            tls.close_notify();
            let flushed = tls.flush(conn.socket.as_raw_fd());
            if !matches!(flushed, Ok(Flushed { full: false, .. })) {
                return;
            }
        }
        self.end_sending(id);
    }

    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        {
            let mut queue = self.ring.submission();
            while let Some(entry) = self.waiting.front() {
                // SAFETY: as in `submit`.
                if unsafe { queue.push(entry) }.is_err() {
                    break;
                }
                self.waiting.pop_front();
            }
        }
        let (least, timeout) = match wait {
            Wait::Not => (0, None),
            Wait::For(duration) => (1, Some(Timespec::from(duration))),
            Wait::Forever => (1, None),
        };
        let entered = self.enter_for(least, timeout.as_ref());
        match entered.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) => Ok(()),
            // Interrupted, out of time, or completions must be collected first.
            Err((Some(libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ETIME), _)) => Ok(()),
            Err((_, error)) => Err(error),
        }
    }

    /// Submits, waits for so many completions, at most for this long, and collects.
    fn enter_for(&mut self, least: u32, timeout: Option<&Timespec>) -> io::Result<usize> {
        const GET_EVENTS: u32 = 1;
        const EXTENDED: u32 = 8;
        let submit = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        let Some(timeout) = timeout else {
            let flags = GET_EVENTS | if least > 0 { self.wait_flags } else { 0 };
            // SAFETY: no argument is passed.
            return unsafe { submitter.enter::<libc::sigset_t>(submit, least, flags, None) };
        };
        let argument = WaitArgument { timeout: std::ptr::from_ref(timeout), ..WaitArgument::NONE };
        let flags = GET_EVENTS | EXTENDED | self.wait_flags;
        // SAFETY: the argument is what the flag for it says, and points at a time that lives
        // through the call.
        unsafe { submitter.enter(submit, least, flags, Some(&argument)) }
    }

    fn submit(&mut self, entry: squeue::Entry) {
        // SAFETY: what an entry points at (blocks, head buffers, message headers) belongs to its
        // connection, which is kept, with these unchanged, until the entry has completed. What a
        // transfer points at is kept by the disk, until the process ends if it does not complete.
        // For what is left when the ring goes, see `Drop`.
        let full =
            !self.waiting.is_empty() || unsafe { self.ring.submission().push(&entry) }.is_err();
        if full {
            self.waiting.push_back(entry);
        }
    }

    fn arm_waker(&mut self) {
        let poll = opcode::PollAdd::new(Fd(self.waker), libc::POLLIN as u32).multi(true).build();
        self.submit(poll.user_data(tag(Kind::Waker, listener_id(0))));
    }

    fn complete(&mut self, entry: &cqueue::Entry) {
        let data = entry.user_data();
        let conn = conn_of(data);
        match kind_of(data) {
            Kind::Accept => self.accepted(conn.slot as usize, entry),
            Kind::Receive => self.received_some(conn, entry),
            Kind::Send => self.sent_some(conn, entry.result()),
            Kind::Poll => self.polled(conn, entry.result()),
            Kind::Writable => self.writable_again(),
            Kind::Retry => self.accept_again(),
            Kind::Cancel => {}
            // The loop looks into its mailboxes in every turn.
            Kind::Waker if cqueue::more(entry.flags()) => {}
            Kind::Waker => self.arm_waker(),
            Kind::Transfer => self.landed.push_back((conn.slot, entry.result())),
        }
    }

    /// The peer said over TLS that it will send no more.
    pub(super) fn ended_by_notice(&mut self, id: ConnId) {
        self.ended(id);
    }

    /// Sends what is queued if the socket takes it at once, then drops the connection.
    pub(super) fn abort_after_flush(&mut self, id: ConnId) {
        self.flush(id);
        if let Some(conn) = self.conn(id).filter(|conn| !conn.sending && !conn.polling) {
            // All of it went: the kernel delivers it.
            conn.ending = Ending::Finishing;
            self.end_sending(id);
        }
        self.abort(id);
    }

    fn ended(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id).filter(|conn| !conn.eof) {
            conn.eof = true;
            self.events.push_back(NetEvent::Eof { conn: id });
        }
    }

    fn sent_some(&mut self, id: ConnId, result: i32) {
        let Some(conn) = self.conns.get_mut(id.slot as usize) else { return };
        assert_eq!(conn.generation, id.generation, "a send outlived its connection");
        conn.sending = false;
        conn.out.landed();
        if conn.ending == Ending::Dead {
            self.remove_dead(id);
        } else if result >= 0 {
            conn.out.advance(result as usize, &mut self.spares);
            self.events.push_back(NetEvent::Sent { conn: id, len: result as usize });
            self.list(id);
        } else if result == -libc::EAGAIN || result == -libc::EINTR {
            self.poll(id);
        } else {
            self.abort(id);
        }
    }

    /// A poll completed: with the events, or an error.
    fn polled(&mut self, id: ConnId, result: i32) {
        let Some(conn) = self.conns.get_mut(id.slot as usize) else { return };
        assert_eq!(conn.generation, id.generation, "a poll outlived its connection");
        conn.polling = false;
        conn.half_closed |= result & i32::from(libc::POLLRDHUP) != 0;
        if conn.ending == Ending::Dead {
            self.remove_dead(id);
        } else {
            self.list(id);
        }
    }

    /// Some of those that are half closed have space, or are dead.
    fn writable_again(&mut self) {
        self.awaits_writable = false;
        let mut numbers = Vec::new();
        // Nothing can be wrong with a set that is there, and what was not taken is reported again.
        let _ = self.half_closed.take(&mut numbers);
        for data in numbers {
            self.polled(conn_of(data), 0);
        }
        self.await_writable();
    }

    fn await_writable(&mut self) {
        if self.half_closed.is_waiting() && !self.awaits_writable {
            self.awaits_writable = true;
            let poll = opcode::PollAdd::new(Fd(self.half_closed.fd()), libc::POLLIN as u32);
            self.submit(poll.build().user_data(tag(Kind::Writable, listener_id(0))));
        }
    }

    fn flush_ready(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        for id in ready.drain(..) {
            if let Some(conn) = self.conn(id) {
                conn.listed = false;
                self.flush(id);
            }
        }
        // What was listed meanwhile waits for the next turn.
        if self.ready.is_empty() {
            self.ready = ready;
        }
    }

    fn flush(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id).filter(|conn| !conn.sending && !conn.polling) else {
            return;
        };
        let flushed = match conn.tls.is_some() {
            true => self.flush_tls(id),
            false => self.flush_plain(id),
        };
        if flushed.is_err() {
            self.abort(id);
        }
    }

    fn flush_tls(&mut self, id: ConnId) -> io::Result<()> {
        let Some(conn) = self.conn(id) else { return Ok(()) };
        let (fd, ending) = (conn.socket.as_raw_fd(), conn.ending);
        let Some(tls) = &mut conn.tls else { return Ok(()) };
        if ending == Ending::Finishing {
            tls.close_notify();
        }
        let Flushed { len, full } = tls.flush(fd)?;
        if len > 0 {
            self.events.push_back(NetEvent::Sent { conn: id, len });
        }
        match full {
            true => self.poll(id),
            false => self.end_sending(id),
        }
        Ok(())
    }

    fn flush_plain(&mut self, id: ConnId) -> io::Result<()> {
        let mut budget = SEND_TURN_LEN_MAX;
        loop {
            let Some(conn) = self.conns.get_mut(id.slot as usize) else { return Ok(()) };
            let by_reference = self.listeners[usize::from(conn.listener.0)].by_reference;
            let by_reference = by_reference && self.pipe.ready();
            let fd = conn.socket.as_raw_fd();
            let sent = match conn.out.next(by_reference) {
                Next::Nothing => {
                    self.end_sending(id);
                    return Ok(());
                }
                Next::One { start, len } => {
                    self.counts.note(conn.out.prove()).inspect_err(|_| conn.out.landed())?;
                    conn.sending = true;
                    let send = opcode::Send::new(Fd(fd), start, len as u32);
                    let entry = send.flags(libc::MSG_NOSIGNAL).build();
                    self.submit(entry.user_data(tag(Kind::Send, id)));
                    return Ok(());
                }
                Next::Many(message) => {
                    self.counts.note(conn.out.prove()).inspect_err(|_| conn.out.landed())?;
                    conn.sending = true;
                    let send = opcode::SendMsg::new(Fd(fd), message);
                    let entry = send.flags(libc::MSG_NOSIGNAL as u32).build();
                    self.submit(entry.user_data(tag(Kind::Send, id)));
                    return Ok(());
                }
                Next::Head { start, len } => {
                    let len = send_head(fd, start, len)?;
                    Sent { len: len.unwrap_or(0), full: len.is_none() }
                }
                Next::Lend => {
                    self.counts.note(conn.out.prove())?;
                    let sent = self.pipe.send(fd, conn.out.lent())?;
                    self.counts.lent_bytes += sent.len as u64;
                    sent
                }
            };
            let Sent { len, full } = sent;
            if len > 0 {
                conn.out.advance(len, &mut self.spares);
                self.events.push_back(NetEvent::Sent { conn: id, len });
            }
            // Nothing was taken: the socket says when to go on.
            if full || len == 0 {
                self.poll(id);
                return Ok(());
            }
            budget = budget.saturating_sub(len);
            if budget == 0 {
                // The others get their turn; this one goes on in the next.
                self.list(id);
                return Ok(());
            }
        }
    }

    fn end_sending(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id).filter(|conn| conn.ending == Ending::Finishing) {
            conn.ending = Ending::Finished;
            let _ = SockRef::from(&conn.socket).shutdown(std::net::Shutdown::Write);
        }
    }

    fn poll(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id).filter(|conn| !conn.polling) else { return };
        let (fd, number) = (conn.socket.as_raw_fd(), tag(Kind::Poll, id));
        conn.polling = true;
        if !conn.half_closed {
            let poll = opcode::PollAdd::new(Fd(fd), libc::POLLOUT as u32).build();
            self.submit(poll.user_data(number));
        } else if self.half_closed.wait(fd, number).is_ok() {
            self.await_writable();
        } else {
            // For lack of memory: nothing will tell when it has space.
            self.conns[id.slot as usize].polling = false;
            self.abort(id);
        }
    }

    /// Forgets a dead connection once the kernel works on nothing of it.
    fn remove_dead(&mut self, id: ConnId) {
        let slot = id.slot as usize;
        if self.conns.get(slot).is_some_and(|conn| !conn.is_busy()) {
            self.conns.remove(slot);
            self.arm_listeners();
            self.events.push_back(NetEvent::Closed { conn: id });
        }
    }
}

impl Drop for Net {
    /// Closing a ring does not wait for what it works on: the kernel cancels that later. So the
    /// memory that it may still read from or write to is given up, and not given back.
    fn drop(&mut self) {
        for (_, conn) in &mut self.conns {
            if conn.sending {
                std::mem::forget(std::mem::take(&mut conn.out));
            }
        }
    }
}

/// Sends bytes with more to come. `None` when the socket is full.
fn send_head(fd: RawFd, start: *const u8, len: usize) -> io::Result<Option<usize>> {
    let flags = libc::MSG_MORE | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `start` and `len` describe bytes at the front of the connection's queue, which is
    // not touched before this returns.
    sent(unsafe { libc::send(fd, start.cast(), len, flags) })
}

fn sent(result: isize) -> io::Result<Option<usize>> {
    if result >= 0 {
        return Ok(Some(result as usize));
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
        _ => Err(error),
    }
}
