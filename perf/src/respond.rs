//! A server that does next to nothing: to whatever ends with an empty line it gives the same
//! answer, made beforehand. What a load generator reaches against it is what the generator can do.
//!
//! The body is object 0 of seed 0 of its length, so that `load --objects SIZE` finds every byte as
//! it should be. Requests are not parsed, and must have no body.

use std::{
    io::{self, BufRead, ErrorKind, Read, Write},
    net::SocketAddr,
    sync::Arc,
};

use mio::{
    Events, Interest, Poll, Token, Waker,
    net::{TcpListener, TcpStream},
};
use rustls::{
    ServerConfig, ServerConnection,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use slab::Slab;
use thiserror::Error;

use crate::objects::{ClassSpec, ObjectsError, classes, stamp};

/// Most connections at once.
pub const CONNECTIONS_MAX: usize = 20_000;

/// Bytes of one read.
const READ_LEN: usize = 64 * 1024;

/// Most requests of a connection that wait for their answer.
const OWED_MAX: u64 = 1024;

/// Most connections that are accepted at one look.
const ACCEPTS_MAX: u32 = 64;

const EVENTS_MAX: usize = 1024;

const REQUEST_END: &[u8] = b"\r\n\r\n";

const LISTENER: Token = Token(usize::MAX);
const STOP: Token = Token(usize::MAX - 1);

const _: () = assert!(CONNECTIONS_MAX < usize::MAX - 1);

/// Why there is no responder.
#[derive(Debug, Error)]
pub enum RespondError {
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    #[error("listening: {0}")]
    Io(#[from] io::Error),
    #[error("making a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// The responder, which listens already.
pub struct Responder {
    poll: Poll,
    listener: TcpListener,
    address: SocketAddr,
    /// Head and body.
    answer: Vec<u8>,
    tls: Option<Arc<ServerConfig>>,
    peers: Slab<Peer>,
    buffer: Vec<u8>,
}

impl Responder {
    /// Listens, with a certificate of its own if `tls`, to answer with `body` bytes.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub fn bind(listen: SocketAddr, body: usize, tls: bool) -> Result<Self, RespondError> {
        let mut listener = TcpListener::bind(listen)?;
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            address: listener.local_addr()?,
            listener,
            answer: answer(body)?,
            tls: tls.then(server_config).transpose()?,
            peers: Slab::new(),
            buffer: vec![0; READ_LEN],
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What ends it, if it still exists when the responder looks.
    ///
    /// # Errors
    /// When the system has none.
    pub fn stopper(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), STOP)
    }

    /// Answers until it is stopped.
    ///
    /// # Errors
    /// Those of epoll.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    STOP => return Ok(()),
                    LISTENER => self.accept(),
                    Token(key) => self.serve(key, event.is_read_closed()),
                }
            }
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_MAX {
            // What a peer breaks off while it waits is its own affair, and when the process has no
            // more descriptors the peers have to wait.
            let Ok((socket, _)) = self.listener.accept() else { return };
            self.admit(socket);
        }
        // More may wait than were taken, and the listener will not say so again.
        let again = Interest::READABLE;
        let _ = self.poll.registry().reregister(&mut self.listener, LISTENER, again);
    }

    fn admit(&mut self, mut socket: TcpStream) {
        if self.peers.len() == CONNECTIONS_MAX {
            return;
        }
        let entry = self.peers.vacant_entry();
        let token = Token(entry.key());
        let interest = Interest::READABLE | Interest::WRITABLE;
        let tls = self.tls.as_ref().map(|config| ServerConnection::new(Arc::clone(config)));
        let (Ok(()), Ok(()), Ok(tls)) = (
            socket.set_nodelay(true),
            self.poll.registry().register(&mut socket, token, interest),
            tls.transpose(),
        ) else {
            return;
        };
        entry.insert(Peer {
            socket,
            tls: tls.map(Box::new),
            tail: Tail::default(),
            owed: 0,
            at: 0,
        });
    }

    fn serve(&mut self, key: usize, closing: bool) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        match peer.serve(&self.answer, &mut self.buffer, closing) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // Whatever else it is, the peer is gone.
            _ => drop(self.peers.remove(key)),
        }
    }
}

struct Peer {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    tail: Tail,
    /// Answers that are to be sent, the current one included.
    owed: u64,
    /// Bytes of the current one that were sent.
    at: usize,
}

impl Peer {
    /// Reads and answers until the socket has no more of one, which is an error here; anything else
    /// is the end. `closing` says that the peer has closed its side.
    fn serve(&mut self, answer: &[u8], buffer: &mut [u8], closing: bool) -> io::Result<()> {
        loop {
            self.send(answer)?;
            let read = self.socket.read(buffer)?;
            if read == 0 {
                return Ok(());
            }
            self.receive(&buffer[..read])?;
            if self.owed > OWED_MAX {
                return Ok(());
            }
            // A read that does not fill the buffer has emptied the socket, and whatever comes
            // later is an event of its own.
            if read < buffer.len() && !closing {
                self.send(answer)?;
                return Err(ErrorKind::WouldBlock.into());
            }
        }
    }

    fn receive(&mut self, mut input: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            self.owed += self.tail.ends(input);
            return Ok(());
        };
        while !input.is_empty() {
            if tls.read_tls(&mut input)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            tls.process_new_packets().map_err(io::Error::other)?;
            // Nothing yet is an error here.
            while let Ok(plaintext) = tls.reader().into_first_chunk() {
                let len = plaintext.len();
                if len == 0 {
                    break;
                }
                self.owed += self.tail.ends(plaintext);
                tls.reader().consume(len);
            }
        }
        Ok(())
    }

    fn send(&mut self, answer: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            while self.owed > 0 {
                self.at += self.socket.write(&answer[self.at..])?;
                if self.at == answer.len() {
                    (self.at, self.owed) = (0, self.owed - 1);
                }
            }
            return Ok(());
        };
        loop {
            while tls.wants_write() {
                tls.write_tls(&mut self.socket)?;
            }
            if self.owed == 0 || tls.is_handshaking() {
                return Ok(());
            }
            self.at += tls.writer().write(&answer[self.at..])?;
            if self.at == answer.len() {
                (self.at, self.owed) = (0, self.owed - 1);
            }
        }
    }
}

/// How much of an end of a request was seen last.
#[derive(Default)]
struct Tail {
    matched: usize,
}

impl Tail {
    /// How many requests end in `bytes`, the next ones of the stream.
    fn ends(&mut self, bytes: &[u8]) -> u64 {
        let (mut rest, mut count) = (bytes, 0);
        loop {
            if self.matched == 0 {
                let Some(at) = memchr::memchr(REQUEST_END[0], rest) else { return count };
                rest = &rest[at..];
            }
            let Some((byte, after)) = rest.split_first() else { return count };
            rest = after;
            self.matched = if *byte == REQUEST_END[self.matched] {
                self.matched + 1
            } else {
                usize::from(*byte == REQUEST_END[0])
            };
            if self.matched == REQUEST_END.len() {
                (self.matched, count) = (0, count + 1);
            }
        }
    }
}

fn answer(body: usize) -> Result<Vec<u8>, ObjectsError> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n\r\n");
    let made = classes(&[ClassSpec { size: body, count: 1, weight: 1.0 }], 0)?;
    let object = made.first().map_or(&[][..], |class| class.family.rest());
    Ok([head.as_bytes(), &stamp(0, 0), object].concat())
}

/// TLS 1.3 with AES-128-GCM first and a certificate made now.
fn server_config() -> Result<Arc<ServerConfig>, RespondError> {
    use aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384};
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384];
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    config.ignore_client_order = true;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_in_any_pieces() {
        let text = b"GET / HTTP/1.1\r\nA: b\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\nGET\r\n\r\n";
        for step in 1..=text.len() {
            let mut tail = Tail::default();
            let count: u64 = text.chunks(step).map(|piece| tail.ends(piece)).sum();
            assert_eq!(count, 3, "{step}");
        }
    }

    #[test]
    fn the_answer_is_an_object() {
        let whole = answer(5000).unwrap();
        let body = &whole[whole.len() - 5000..];
        let made = classes(&["5000".parse().unwrap()], 0).unwrap();
        assert_eq!(ron_codec::address::Address::of(body), made[0].addresses[0]);
        assert!(whole.starts_with(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"));
        assert!(answer(1).is_err());
    }
}
