//! One connection: it is made, sends one request at a time, and understands what comes back.
//!
//! ```text
//!   Closed ──connect──► Connecting ──TCP──► Securing ──TLS──► Open ──close──► Closed
//!                            └───────────without TLS───────────▲
//! ```
//!
//! Nothing here waits or looks at the clock. [`Conn::drive`] does what the socket has space or
//! bytes for and says what came of it; the connection's owner decides what is next. On the way of a
//! request nothing is allocated: heads and frames go into buffers that stay, bodies come out of
//! the objects' memory and are read into a buffer that all connections of a thread share.

use std::{
    io::{self, BufRead, ErrorKind, IoSlice, Read, Write},
    mem,
    sync::Arc,
};

use mio::{Interest, Registry, Token, net::TcpStream};
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    answer::Answer,
    fault::{Fault, Odd},
    http::{HttpAnswer, HttpRequests},
    mix::{Corpus, Job, Op},
    oap::{self, OapAnswer},
    options::{Options, Scheme},
    reply::{Body, Reply},
    target::{Target, TargetError},
};

/// Bytes of the buffer that answers are read into.
pub(super) const READ_LEN: usize = 256 * 1024;

/// What all connections of a thread have in common.
#[derive(Debug)]
pub(super) struct Setup<'a> {
    pub(super) target: &'a Target,
    pub(super) corpus: &'a Corpus,
    tls: Option<Arc<ClientConfig>>,
    requests: Requests,
    /// Bytes of the kernel's receive buffer, where it is not the kernel's choice.
    receive_len: Option<usize>,
}

#[derive(Debug)]
enum Requests {
    Http(HttpRequests),
    Oap,
}

impl<'a> Setup<'a> {
    /// # Errors
    /// When TLS cannot be set up.
    pub(super) fn new(
        target: &'a Target,
        corpus: &'a Corpus,
        options: &Options,
        receive_len: Option<usize>,
    ) -> Result<Self, TargetError> {
        let requests = match target.scheme {
            Scheme::Oap => Requests::Oap,
            Scheme::Http | Scheme::Https => Requests::Http(HttpRequests::new(
                &target.authority,
                &options.header,
                options.reconnect.is_some(),
            )),
        };
        Ok(Self { target, corpus, tls: target.tls()?, requests, receive_len })
    }
}

/// What came of driving a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Progress {
    /// Nothing more before the socket says so.
    Idle,
    /// There may be more to read: drive it again after the others.
    Again,
    /// The connection is open now.
    Ready(Option<HandshakeKind>),
    /// The answer is complete.
    Done(Reply),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Connecting,
    Securing,
    Open,
}

/// A connection; see the module.
#[derive(Debug)]
pub(super) struct Conn<'a> {
    phase: Phase,
    socket: Option<TcpStream>,
    tls: Option<Box<ClientConnection>>,
    out: Out<'a>,
    answer: Answer,
    pub(super) body: Body<'a>,
    job: Option<Job>,
    corr_id: u64,
    /// Whether any byte went either way since somebody asked.
    stirred: bool,
    /// Bytes that came from the socket.
    pub(super) received: u64,
    /// Most reads of one turn.
    reads_max: u32,
    /// Scratch for payloads.
    payload: Vec<u8>,
}

impl<'a> Conn<'a> {
    /// A connection that reads up to `reads_max` times before it says [`Progress::Again`].
    pub(super) fn new(scheme: Scheme, reads_max: u32) -> Self {
        let answer = match scheme {
            Scheme::Oap => Answer::Oap(OapAnswer::new()),
            Scheme::Http | Scheme::Https => Answer::Http(HttpAnswer::default()),
        };
        Self {
            phase: Phase::Closed,
            socket: None,
            tls: None,
            out: Out::default(),
            answer,
            body: Body::new(),
            job: None,
            corr_id: 0,
            stirred: false,
            received: 0,
            reads_max,
            payload: Vec::new(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.phase, Phase::Connecting | Phase::Securing)
    }

    /// The request in progress.
    pub(super) fn job(&self) -> Option<&Job> {
        self.job.as_ref()
    }

    /// Whether bytes went either way since the last call.
    pub(super) fn take_stirred(&mut self) -> bool {
        mem::take(&mut self.stirred)
    }

    /// Begins to connect. `registry`, if there is one, watches its readiness.
    ///
    /// # Errors
    /// [`Fault::Connect`] and [`Fault::Handshake`].
    pub(super) fn connect(
        &mut self,
        setup: &Setup<'_>,
        registry: Option<(&Registry, Token)>,
    ) -> Result<(), Fault> {
        self.close();
        let mut socket = open(setup).map_err(Fault::Connect)?;
        if let Some((registry, token)) = registry {
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut socket, token, interest).map_err(Fault::Connect)?;
        }
        if let Some(config) = &setup.tls {
            let client = ClientConnection::new(Arc::clone(config), setup.target.name.clone());
            self.tls = Some(Box::new(client.map_err(Fault::Handshake)?));
        }
        if let Answer::Oap(answer) = &mut self.answer {
            answer.reconnect();
        }
        self.socket = Some(socket);
        self.phase = Phase::Connecting;
        Ok(())
    }

    /// Closes it, whatever is in progress, with a close_notify for a peer with TLS.
    pub(super) fn close(&mut self) {
        if let (Some(tls), Some(socket), Phase::Open) =
            (&mut self.tls, &mut self.socket, self.phase)
        {
            tls.send_close_notify();
            // A goodbye that does not fit the socket's buffer is not worth waiting for.
            let _ = tls.write_tls(socket);
        }
        self.phase = Phase::Closed;
        self.socket = None;
        self.tls = None;
        self.job = None;
        self.out.clear();
    }

    /// Sends a request. The connection is open, and nothing is in progress.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(super) fn send(&mut self, setup: &Setup<'a>, job: Job) -> Result<(), Fault> {
        assert!(self.is_open() && self.job.is_none(), "one request at a time");
        self.out.clear();
        self.corr_id += 1;
        match (&setup.requests, &mut self.answer) {
            (Requests::Http(requests), Answer::Http(answer)) => {
                requests.write(&job, setup.corpus, &mut self.out.head);
                answer.begin(&job);
            }
            (_, Answer::Oap(answer)) => {
                let (payload, head) = (&mut self.payload, &mut self.out.head);
                oap::write(&job, setup.corpus, self.corr_id, payload, head)
                    .map_err(|reason| Odd::Frame { reason })?;
                answer.begin(&job, self.corr_id);
                self.out.framing = Some(self.corr_id);
            }
            (Requests::Oap, Answer::Http(_)) => return Err(Odd::Surplus.into()),
        }
        if job.op == Op::Put {
            self.out.attach(setup.corpus.classes[job.class].family.rest());
        }
        self.body.begin(&job, setup.corpus);
        self.job = Some(job);
        self.stirred = true;
        self.flush()
    }

    /// The request that was answered; the connection takes the next one. `None` in place of it
    /// when nothing was in progress. The flag says whether all of the request was sent: if not, the
    /// connection cannot be used again.
    pub(super) fn finish(&mut self) -> (Option<Job>, bool) {
        let sent = self.out.is_empty();
        (self.job.take(), sent)
    }

    /// Does what can be done without waiting. `closing` says that the peer has closed its side, so
    /// that the end is looked for.
    ///
    /// # Errors
    /// When the connection is of no more use; it is to be closed then.
    pub(super) fn drive(&mut self, buffer: &mut [u8], closing: bool) -> Result<Progress, Fault> {
        match self.phase {
            Phase::Closed => return Ok(Progress::Idle),
            Phase::Connecting => {
                if !self.is_connected()? {
                    return Ok(Progress::Idle);
                }
                self.stirred = true;
                if self.tls.is_none() {
                    self.phase = Phase::Open;
                    return Ok(Progress::Ready(None));
                }
                self.phase = Phase::Securing;
            }
            Phase::Securing | Phase::Open => {}
        }
        if !self.out.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write()) {
            self.flush()?;
        }
        self.receive(buffer, closing)
    }

    /// Whether the connection that was begun has come about.
    fn is_connected(&self) -> Result<bool, Fault> {
        let Some(socket) = &self.socket else { return Ok(false) };
        if let Some(error) = socket.take_error().map_err(Fault::Connect)? {
            return Err(Fault::Connect(error));
        }
        match socket.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(Fault::Connect(error)),
        }
    }

    fn receive(&mut self, buffer: &mut [u8], closing: bool) -> Result<Progress, Fault> {
        for _ in 0..self.reads_max {
            let Some(socket) = &mut self.socket else { return Ok(Progress::Idle) };
            let read = match socket.read(buffer) {
                Ok(0) => return Err(self.ended()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Idle),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(error)),
            };
            self.stirred = true;
            self.received += read as u64;
            let input = &buffer[..read];
            let came = if self.tls.is_some() { self.parse_tls(input)? } else { self.parse(input)? };
            if let Some(progress) = came {
                return Ok(progress);
            }
            // A read that does not fill the buffer has emptied the socket, and whatever comes
            // later is an event of its own.
            if read < buffer.len() && !closing {
                return Ok(Progress::Idle);
            }
        }
        Ok(Progress::Again)
    }

    /// Takes bytes of an answer.
    fn parse(&mut self, mut input: &[u8]) -> Result<Option<Progress>, Fault> {
        if self.job.is_none() {
            return Err(Odd::Surplus.into());
        }
        let reply = self.answer.feed(&mut input, &mut self.body)?;
        match reply {
            Some(_) if !input.is_empty() => Err(Odd::Surplus.into()),
            reply => Ok(reply.map(Progress::Done)),
        }
    }

    /// Takes ciphertext: of the handshake, or of an answer.
    fn parse_tls(&mut self, mut input: &[u8]) -> Result<Option<Progress>, Fault> {
        let mut came = None;
        while !input.is_empty() {
            let Some(tls) = &mut self.tls else { return Ok(None) };
            let before = input.len();
            tls.read_tls(&mut input)?;
            if let Err(error) = tls.process_new_packets() {
                // What the alert says matters to the peer only if it can still be sent.
                let _ = self.flush();
                let securing = self.phase == Phase::Securing;
                return Err(if securing { Fault::Handshake(error) } else { Fault::Tls(error) });
            }
            if self.phase == Phase::Securing && !tls.is_handshaking() {
                self.phase = Phase::Open;
                came = Some(Progress::Ready(tls.handshake_kind()));
            }
            if let Some(reply) = self.parse_plaintext()? {
                came = Some(Progress::Done(reply));
            }
            // After a goodbye nothing is read any more.
            if input.len() == before {
                return came.map_or_else(|| Err(self.ended()), |came| Ok(Some(came)));
            }
        }
        if self.tls.as_ref().is_some_and(|tls| tls.wants_write()) {
            self.flush()?;
        }
        Ok(came)
    }

    /// Takes what was decrypted.
    fn parse_plaintext(&mut self) -> Result<Option<Reply>, Fault> {
        let mut came = None;
        while let Some(tls) = &mut self.tls {
            // Nothing yet is an error here, as is an end without notice, which the socket reports.
            let Ok(plaintext) = tls.reader().into_first_chunk() else { break };
            let len = plaintext.len();
            if len == 0 {
                break;
            }
            if self.job.is_none() || came.is_some() {
                return Err(Odd::Surplus.into());
            }
            let mut input = plaintext;
            came = self.answer.feed(&mut input, &mut self.body)?;
            if !input.is_empty() {
                return Err(Odd::Surplus.into());
            }
            tls.reader().consume(len);
        }
        Ok(came)
    }

    /// What it means that the peer sends no more.
    fn ended(&self) -> Fault {
        match self.job {
            None if self.phase == Phase::Open => Fault::Idle,
            None => Fault::Connect(ErrorKind::UnexpectedEof.into()),
            Some(_) if self.answer.has_begun() => Fault::Short,
            Some(_) => Fault::Closed,
        }
    }

    fn failed(&self, error: io::Error) -> Fault {
        match self.job {
            None if self.phase == Phase::Open => Fault::Idle,
            None => Fault::Connect(error),
            Some(_) => Fault::Io(error),
        }
    }

    /// Hands the socket what is to be sent, as far as it has space.
    fn flush(&mut self) -> Result<(), Fault> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        let done = match &mut self.tls {
            None => send_plain(socket, &mut self.out),
            Some(tls) => send_tls(socket, tls, &mut self.out, self.phase == Phase::Open),
        };
        match done {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(self.failed(error)),
            _ => Ok(()),
        }
    }
}

fn open(setup: &Setup<'_>) -> io::Result<TcpStream> {
    let address = setup.target.address;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(len) = setup.receive_len {
        socket.set_recv_buffer_size(len)?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        // It has begun.
        Err(error) if error.raw_os_error() == Some(IN_PROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// `EINPROGRESS` of Linux, which the standard library has no name for.
const IN_PROGRESS: i32 = 115;

fn send_plain(socket: &mut TcpStream, out: &mut Out<'_>) -> io::Result<()> {
    while !out.is_empty() {
        let sent = match out.slices() {
            (head, []) => socket.write(head),
            (head, chunk) => socket.write_vectored(&[IoSlice::new(head), IoSlice::new(chunk)]),
        };
        match sent {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(sent) => out.advance(sent)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn send_tls(
    socket: &mut TcpStream,
    tls: &mut ClientConnection,
    out: &mut Out<'_>,
    open: bool,
) -> io::Result<()> {
    loop {
        while tls.wants_write() {
            match tls.write_tls(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        if !open || out.is_empty() {
            return Ok(());
        }
        let (head, chunk) = out.slices();
        let mut taken = tls.writer().write(head)?;
        if taken == head.len() && !chunk.is_empty() {
            taken += tls.writer().write(chunk)?;
        }
        if taken == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        out.advance(taken)?;
    }
}

/// What is to be sent.
///
/// ```text
///   head[head_at..]     chunk          rest
///   ├───────────────┤├─────────┤├───────────────┤
///    copied for this  as it lies  not begun; with framing, each
///    request          in memory   chunk of it gets a head of its own
/// ```
#[derive(Debug, Default)]
struct Out<'a> {
    head: Vec<u8>,
    head_at: usize,
    chunk: &'a [u8],
    rest: &'a [u8],
    /// The stream whose frames the bytes of an object are put into.
    framing: Option<u64>,
}

impl<'a> Out<'a> {
    fn clear(&mut self) {
        self.head.clear();
        self.head_at = 0;
        (self.chunk, self.rest, self.framing) = (&[], &[], None);
    }

    /// Adds the bytes of an object behind its stamp, which is in the head.
    fn attach(&mut self, rest: &'a [u8]) {
        let first = match self.framing {
            Some(_) => rest.len().min(oap::CHUNK_LEN - crate::objects::STAMP_LEN),
            None => rest.len(),
        };
        (self.chunk, self.rest) = rest.split_at(first);
    }

    /// Whether everything was sent. There is never a rest without a chunk before it.
    fn is_empty(&self) -> bool {
        self.head_at == self.head.len() && self.chunk.is_empty()
    }

    fn slices(&self) -> (&[u8], &'a [u8]) {
        (&self.head[self.head_at..], self.chunk)
    }

    /// Counts `sent` bytes as sent, and prepares the next chunk when this one is done.
    fn advance(&mut self, sent: usize) -> io::Result<()> {
        let of_head = sent.min(self.head.len() - self.head_at);
        self.head_at += of_head;
        self.chunk = &self.chunk[sent - of_head..];
        if let (true, false, Some(corr_id)) = (self.is_empty(), self.rest.is_empty(), self.framing)
        {
            let (chunk, rest) = self.rest.split_at(self.rest.len().min(oap::CHUNK_LEN));
            (self.chunk, self.rest) = (chunk, rest);
            self.head.clear();
            self.head_at = 0;
            oap::write_data_header(corr_id, chunk.len(), rest.is_empty(), &mut self.head)
                .map_err(io::Error::other)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ron_codec::oap::{Deframer, Flags, Piece};

    use super::*;
    use crate::load::reply::tests::{corpus, object};

    /// Takes everything out of `out`, `step` bytes at a time.
    fn drain(out: &mut Out<'_>, step: usize) -> Vec<u8> {
        let mut sent = Vec::new();
        while !out.is_empty() {
            let (head, chunk) = out.slices();
            let all = [head, chunk].concat();
            let len = all.len().min(step);
            sent.extend_from_slice(&all[..len]);
            out.advance(len).unwrap();
        }
        sent
    }

    #[test]
    fn objects_are_sent_as_they_are() {
        let corpus = corpus(3000);
        let job = corpus.job(Op::Put, 0, 0, false);
        for step in [1, 999, 10_000] {
            let mut out = Out::default();
            HttpRequests::new("h", &[], false).write(&job, &corpus, &mut out.head);
            out.attach(corpus.classes[0].family.rest());
            assert!(drain(&mut out, step).ends_with(&object(&corpus)));
        }
    }

    #[test]
    fn objects_are_framed_with_one_end() {
        for size in [16, 17, oap::CHUNK_LEN - 1, oap::CHUNK_LEN, oap::CHUNK_LEN + 1, 200_000] {
            let corpus = corpus(size);
            let job = corpus.job(Op::Put, 0, 0, false);
            let mut out = Out { framing: Some(3), ..Out::default() };
            oap::write(&job, &corpus, 3, &mut Vec::new(), &mut out.head).unwrap();
            out.attach(corpus.classes[0].family.rest());
            let sent = drain(&mut out, 1 << 14);
            let (mut deframer, mut input) = (Deframer::new(), &sent[..]);
            let (mut ends, mut frames, mut data) = (0, 0, Vec::new());
            while let Some(piece) = deframer.next(&mut input).unwrap() {
                match piece {
                    Piece::Head(head) => {
                        frames += 1;
                        ends += u32::from(head.flags.contains(Flags::END));
                        assert!(head.payload_len as usize <= oap::CHUNK_LEN);
                    }
                    Piece::Payload(bytes) if frames > 1 => data.extend_from_slice(bytes),
                    _ => {}
                }
            }
            assert_eq!(ends, 1, "{size}");
            assert!(deframer.is_between_frames() && data == object(&corpus), "{size}");
        }
    }
}
