//! Accepting connections, and what happens when there is nothing left to accept them with.
//!
//! Each accept is asked for by itself, a few at a time: an accept that goes on by itself takes all
//! that wait in the kernel, and with them every descriptor that uploads, reads and the admin
//! listener need. With [`Net::connections_max`] open, none is asked for; the kernel keeps
//! newcomers waiting until one has closed.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr::null_mut,
};

use io_uring::{
    cqueue, opcode,
    types::{Fd, Timespec},
};
use socket2::SockRef;

use super::{
    super::{conn::Conn, tls::Tls},
    Net, NetEvent,
    tag::{GENERATION_MASK, Kind, listener_id, tag},
};
use crate::{
    limits::{ACCEPT_RETRIES_PAUSED, ACCEPT_RETRY_AFTER, ACCEPTS_MAX},
    ports::{ConnId, ListenerId},
};

/// How long accepting pauses after it failed. It lies still for as long as a ring may read it.
static ACCEPT_RETRY: Timespec = Timespec::new().nsec(ACCEPT_RETRY_AFTER.subsec_nanos());

impl Net {
    /// Takes no more connections: from now on they are refused, and so are those that wait.
    pub(in crate::ring) fn stop_accepting(&mut self) {
        self.accepting = false;
        for listener in &self.listeners {
            // Ends the accept in progress as well. It fails only if nothing listens any more.
            let _ = listener.socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Why the last accept failed that did.
    pub(in crate::ring) fn accept_error(&self) -> io::Error {
        io::Error::from_raw_os_error(self.accept_errno)
    }

    pub(super) fn arm_listeners(&mut self) {
        for at in 0..self.listeners.len() {
            while self.may_accept() && self.listeners[at].armed < ACCEPTS_MAX {
                self.listeners[at].armed += 1;
                let fd = Fd(self.listeners[at].socket.as_raw_fd());
                // Sockets do not block, for the sake of `splice`; the ring waits all the same.
                let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
                let accept = opcode::Accept::new(fd, null_mut(), null_mut()).flags(flags).build();
                self.submit(accept.user_data(tag(Kind::Accept, listener_id(at))));
            }
        }
    }

    fn may_accept(&self) -> bool {
        self.accepting && !self.retrying && self.conns.len() < self.connections_max
    }

    /// Tries again to accept after it failed, or finds that the last try has not failed: then
    /// nobody came yet, and accepting goes on.
    pub(super) fn accept_again(&mut self) {
        self.timing = false;
        if std::mem::take(&mut self.retrying) {
            self.arm_listeners();
            self.look_again_at_accepts();
        } else {
            self.retries = 0;
        }
    }

    fn look_again_at_accepts(&mut self) {
        if !std::mem::replace(&mut self.timing, true) {
            let timer = opcode::Timeout::new(&ACCEPT_RETRY).build();
            self.submit(timer.user_data(tag(Kind::Retry, listener_id(0))));
        }
    }

    /// Listeners that accept nothing since a while, because accepting fails.
    pub(super) fn accept_paused(&self) -> u64 {
        let lasts = self.accepting && self.retries >= ACCEPT_RETRIES_PAUSED;
        if lasts { self.listeners.len() as u64 } else { 0 }
    }

    pub(super) fn accepted(&mut self, listener: usize, entry: &cqueue::Entry) {
        self.listeners[listener].armed -= 1;
        match -entry.result() {
            // The connection was gone before it was accepted, or the ring was interrupted.
            libc::ECONNABORTED | libc::EINTR | libc::EAGAIN => self.arm_listeners(),
            error if error > 0 => self.accept_failed(error),
            _ => {
                // SAFETY: the kernel made this descriptor for us just now.
                let socket = unsafe { OwnedFd::from_raw_fd(entry.result()) };
                self.retries = 0;
                self.open(listener, socket);
                self.arm_listeners();
            }
        }
    }

    /// Arming again at once would fail at once. What frees a descriptor may be a file, another
    /// shard or another process, which do not tell: accepting is tried again after a while.
    fn accept_failed(&mut self, errno: i32) {
        if !self.accepting {
            return;
        }
        self.counts.accept_failures += 1;
        self.accept_errno = errno;
        if !self.retrying {
            self.retrying = true;
            self.retries = self.retries.saturating_add(1);
            self.look_again_at_accepts();
        }
    }

    fn open(&mut self, listener: usize, socket: OwnedFd) {
        // A peer that is gone already has no address; so is the connection.
        let Some(peer) = SockRef::from(&socket).peer_addr().ok().and_then(|peer| peer.as_socket())
        else {
            return;
        };
        self.generation = (self.generation + 1) & GENERATION_MASK;
        let mut conn = Conn::new(socket, self.generation, ListenerId(listener as u8));
        if let Some(config) = &self.listeners[listener].tls {
            match Tls::new(config) {
                Ok(tls) => conn.tls = Some(Box::new(tls)),
                Err(error) => {
                    tracing::error!(%error, "cannot start TLS on a connection");
                    return;
                }
            }
        }
        let slot = self.conns.insert(conn) as u32;
        let conn = ConnId { slot, generation: self.generation };
        let listener = ListenerId(listener as u8);
        self.events.push_back(NetEvent::Accepted { conn, listener, peer });
        self.arm_receive(conn);
    }
}
