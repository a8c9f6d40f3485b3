//! Waiting for space in the sockets of peers that send no more.
//!
//! The ring's own poll reports that a peer has closed its side whether it was asked to or not. So
//! with such a socket it completes at once, full or not, and a thread that waits by it spins for as
//! long as the peer reads slowly. epoll reports what it was asked for. The few connections that
//! need it are in one set of it, and the ring polls the set.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// Most events taken in one call.
const EVENTS_MAX: usize = 64;

/// Sockets that are waited for.
pub(super) struct HalfClosed {
    epoll: OwnedFd,
    waiting: usize,
}

impl HalfClosed {
    /// # Errors
    /// What `epoll_create1(2)` answered.
    pub(super) fn new() -> io::Result<HalfClosed> {
        // SAFETY: plain system call with valid flags.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call returned a new descriptor that nobody else owns.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(HalfClosed { epoll, waiting: 0 })
    }

    /// The descriptor that is readable when some socket has space.
    pub(super) fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Whether any socket is waited for.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Waits, once, until a socket has space or is dead. A socket that is closed leaves by itself.
    ///
    /// # Errors
    /// What `epoll_ctl(2)` answered: no memory, or too many for this user.
    pub(super) fn wait(&mut self, socket: RawFd, number: u64) -> io::Result<()> {
        let events = (libc::EPOLLOUT | libc::EPOLLONESHOT) as u32;
        let mut event = libc::epoll_event { events, u64: number };
        let mut control = |how| {
            // SAFETY: two open descriptors and one valid event.
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), how, socket, &raw mut event) }
        };
        // It may be there from the last time.
        if control(libc::EPOLL_CTL_MOD) < 0 && control(libc::EPOLL_CTL_ADD) < 0 {
            return Err(io::Error::last_os_error());
        }
        self.waiting += 1;
        Ok(())
    }

    /// Appends the numbers of sockets that are waited for no longer.
    ///
    /// # Errors
    /// What `epoll_wait(2)` answered.
    pub(super) fn take(&mut self, into: &mut Vec<u64>) -> io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        let (set, most) = (self.epoll.as_raw_fd(), EVENTS_MAX as i32);
        // SAFETY: the call fills at most as many events as there are.
        let count = unsafe { libc::epoll_wait(set, events.as_mut_ptr(), most, 0) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        let count = count as usize;
        into.extend(events[..count].iter().map(|event| event.u64));
        self.waiting -= count;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::{Shutdown, TcpListener, TcpStream},
    };

    /// Whether it happens in so many milliseconds.
    fn polls(fd: RawFd, events: i16, timeout_ms: i32) -> bool {
        let mut poll = libc::pollfd { fd, events, revents: 0 };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&mut poll, 1, timeout_ms) == 1 }
    }

    fn readable(set: &HalfClosed) -> bool {
        polls(set.fd(), libc::POLLIN, 0)
    }

    /// Writes until the socket takes no more, and what is on its way has come as far as it can.
    fn fill(socket: &mut TcpStream) -> usize {
        let mut len = 0;
        while polls(socket.as_raw_fd(), libc::POLLOUT, 200) {
            while let Ok(more) = socket.write(&[0; 65536]) {
                len += more;
            }
        }
        len
    }

    #[test]
    fn a_full_socket_is_waited_for_though_its_peer_sends_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(socket.read(&mut [0]).unwrap(), 0);
        socket.set_nonblocking(true).unwrap();
        let (mut set, mut told) = (HalfClosed::new().unwrap(), Vec::new());
        for number in [7, 8] {
            let len = fill(&mut socket);
            set.wait(socket.as_raw_fd(), number).unwrap();
            assert!(!readable(&set) && set.is_waiting());
            peer.read_exact(&mut vec![0; len]).unwrap();
            assert!(polls(set.fd(), libc::POLLIN, 10_000));
            set.take(&mut told).unwrap();
            assert!(!set.is_waiting() && !readable(&set), "it is reported once");
        }
        assert_eq!(told, [7, 8]);
        // One that dies is reported too.
        fill(&mut socket);
        set.wait(socket.as_raw_fd(), 9).unwrap();
        socket.shutdown(Shutdown::Both).unwrap();
        assert!(readable(&set));
        set.take(&mut told).unwrap();
        assert_eq!(told, [7, 8, 9]);
        assert!(set.wait(set.fd(), 1).is_err(), "not itself");
    }
}
