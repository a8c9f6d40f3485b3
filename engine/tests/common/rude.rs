//! Peers without manners: they send and do not read, trickle, stop, half-close, reset, and put
//! bytes where none belong. TLS is done by hand over the socket, so that a peer can also send what
//! no TLS library would.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustls::{ClientConnection, pki_types::ServerName};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{DEADLINE, Node, oap::client_config};

/// A socket that takes nothing for so long is full.
const FULL_AFTER: Duration = Duration::from_millis(300);

/// Where a peer connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Http,
    Https,
    OapPlain,
    Oap,
    Admin,
}

impl Door {
    /// Those of content.
    pub const ALL: [Door; 4] = [Door::Http, Door::Https, Door::OapPlain, Door::Oap];

    /// Its key in the ready line.
    pub fn key(self) -> &'static str {
        match self {
            Door::Http => "http",
            Door::Https => "https",
            Door::OapPlain => "oap_plain",
            Door::Oap => "oap",
            Door::Admin => "admin",
        }
    }

    /// What is spoken over TLS, when TLS is spoken.
    fn alpn(self) -> Option<&'static [u8]> {
        match self {
            Door::Http | Door::OapPlain | Door::Admin => None,
            Door::Https => Some(b"http/1.1"),
            Door::Oap => Some(b"ron/1"),
        }
    }
}

/// How a connection came to its end, as its peer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// FIN.
    Closed,
    Reset,
    /// It is still open.
    Open,
}

/// One rude peer.
pub struct Rude {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Rude {
    /// A connection, its handshake done. `receive_len` is SO_RCVBUF: small for a peer that will
    /// not read, so that the node and not the kernel holds what it is sent.
    pub fn connect(node: &Node, door: Door, receive_len: Option<usize>) -> Rude {
        Rude::try_connect(node, door, receive_len).unwrap_or_else(|e| panic!("{door:?}: {e}"))
    }

    /// The same where the node may refuse.
    pub fn try_connect(node: &Node, door: Door, receive_len: Option<usize>) -> io::Result<Rude> {
        let mut rude = Rude::without_handshake(node, door, receive_len)?;
        if let Some(mut client) = greeter(node, door) {
            while client.is_handshaking() {
                client.complete_io(&mut rude.socket)?;
            }
            rude.tls = Some(client);
        }
        Ok(rude)
    }

    /// A connection on which nothing was said yet, also where TLS is spoken.
    pub fn without_handshake(
        node: &Node,
        door: Door,
        receive_len: Option<usize>,
    ) -> io::Result<Rude> {
        let at = node.at(door.key());
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(len) = receive_len {
            socket.set_recv_buffer_size(len)?;
        }
        socket.connect_timeout(&SockAddr::from(at), DEADLINE)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        Ok(Rude { socket: socket.into(), tls: None })
    }

    /// So many of them.
    pub fn many(node: &Node, door: Door, count: usize, receive_len: Option<usize>) -> Vec<Rude> {
        (0..count).map(|_| Rude::connect(node, door, receive_len)).collect()
    }

    /// The socket under TLS.
    pub fn raw(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Sends all of this; an error when the node cut the connection or takes nothing for a minute.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return self.socket.write_all(bytes) };
        for chunk in bytes.chunks(16 * 1024) {
            tls.writer().write_all(chunk)?;
            while tls.wants_write() {
                tls.write_tls(&mut self.socket)?;
            }
        }
        Ok(())
    }

    /// Sends these bytes again and again, reading nothing, until the socket stays full, the node
    /// cuts the connection, or so many were sent. Returns how many were.
    pub fn send_until_full(&mut self, again: &[u8], at_most: usize) -> usize {
        flood(std::slice::from_mut(self), again, at_most)
    }

    /// What the socket takes now.
    fn try_send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return none_if_full(self.socket.write(bytes)) };
        while tls.wants_write() {
            if none_if_full(tls.write_tls(&mut self.socket))? == 0 {
                return Ok(0);
            }
        }
        let taken = tls.writer().write(&bytes[..bytes.len().min(16 * 1024)])?;
        none_if_full(tls.write_tls(&mut self.socket))?;
        Ok(taken)
    }

    /// Says over TLS that nothing more comes; the socket stays open for more all the same.
    pub fn close_notify(&mut self) {
        let tls = self.tls.as_mut().expect("it is TLS");
        tls.send_close_notify();
        while tls.wants_write() {
            tls.write_tls(&mut self.socket).expect("the node takes an alert");
        }
    }

    /// Changes the keys of the connection, and asks the node to change its own.
    pub fn update_keys(&mut self) -> io::Result<()> {
        let tls = self.tls.as_mut().expect("it is TLS");
        tls.refresh_traffic_keys().map_err(io::Error::other)?;
        tls.write_tls(&mut self.socket).map(drop)
    }

    /// Ends our side, in TLS too, and keeps the other open.
    pub fn half_close(&mut self) {
        if self.tls.is_some() {
            self.close_notify();
        }
        // A node that has cut the connection already has ended it for us.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends the connection by RST.
    pub fn reset(self) {
        let socket = Socket::from(self.socket);
        socket.set_linger(Some(Duration::ZERO)).expect("it is TCP");
    }

    /// Reads what comes within this time, up to a length; nothing when nothing came.
    pub fn read_within(&mut self, len_max: usize, within: Duration) -> (Vec<u8>, End) {
        let until = Instant::now() + within;
        let mut all = Vec::new();
        let mut buf = vec![0; 16 * 1024];
        while all.len() < len_max {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return (all, End::Open);
            }
            self.socket.set_read_timeout(Some(left)).expect("a time can be set");
            let space = (len_max - all.len()).min(buf.len());
            match self.read(&mut buf[..space]) {
                Ok(0) => return (all, End::Closed),
                Ok(len) => all.extend_from_slice(&buf[..len]),
                Err(error) if is_full(&error) => return (all, End::Open),
                // TLS that ends without close_notify ends all the same.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return (all, End::Closed);
                }
                Err(_) => return (all, End::Reset),
            }
        }
        (all, End::Open)
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.read(buf) };
        loop {
            match tls.reader().read(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            if tls.read_tls(&mut self.socket)? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

/// The client's side of TLS as this door speaks it, before its first byte.
pub fn greeter(node: &Node, door: Door) -> Option<Box<ClientConnection>> {
    let name = ServerName::try_from("localhost").expect("a name");
    let client = ClientConnection::new(client_config(node, door.alpn()?), name);
    Some(Box::new(client.expect("the settings are good")))
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn none_if_full(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if is_full(&error) => Ok(0),
        other => other,
    }
}

/// All of them send the same again and again, reading nothing, until none can send more, or each
/// has sent so many bytes. Returns how many all of them sent.
pub fn flood(peers: &mut [Rude], again: &[u8], at_most_each: usize) -> usize {
    peers.iter().for_each(|peer| peer.socket.set_nonblocking(true).expect("it is a socket"));
    let mut sent = vec![0; peers.len()];
    let mut moved = Instant::now();
    while moved.elapsed() < FULL_AFTER && sent.iter().any(|sent| *sent < at_most_each) {
        let before: usize = sent.iter().sum();
        for (peer, sent) in peers.iter_mut().zip(&mut sent) {
            if *sent < at_most_each {
                // Whom the node has cut sends no more.
                *sent += peer.try_send(&again[*sent % again.len()..]).unwrap_or(0);
            }
        }
        if sent.iter().sum::<usize>() > before {
            moved = Instant::now();
        } else {
            thread::sleep(Duration::from_millis(5));
        }
    }
    peers.iter().for_each(|peer| peer.socket.set_nonblocking(false).expect("it is a socket"));
    sent.iter().sum()
}

/// Peers that each send one byte from time to time until this is dropped or ended.
pub struct Trickle {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Rude>>>,
}

impl Trickle {
    /// Bytes are taken from `bytes` in turn, one for each peer and `pause`.
    pub fn start(mut peers: Vec<Rude>, bytes: Vec<u8>, pause: Duration) -> Trickle {
        let stop = Arc::new(AtomicBool::new(false));
        let has_ended = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut bytes = bytes.iter().cycle();
            while !has_ended.load(Ordering::Acquire) {
                let Some(byte) = bytes.next() else { break };
                for peer in &mut peers {
                    // The node may have cut it: so be it.
                    let _ = peer.send(&[*byte]);
                }
                thread::sleep(pause);
            }
            peers
        });
        Trickle { stop, thread: Some(thread) }
    }

    /// Ends the trickle; the peers, still connected.
    pub fn end(mut self) -> Vec<Rude> {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().expect("it is ended once");
        thread.join().expect("a trickle does not panic")
    }
}

impl Drop for Trickle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A GET of an object.
pub fn get(addr: &str) -> Vec<u8> {
    format!("GET /o/{addr} HTTP/1.1\r\nHost: rude\r\n\r\n").into_bytes()
}
