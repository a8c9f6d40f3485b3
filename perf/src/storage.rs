//! Load for the storage of a node: objects nobody has seen before are stored, or those of an
//! earlier run fetched, each once in every pass, over a fixed number of kept HTTP/1.1 connections.
//!
//! The objects follow from a seed ([`crate::objects`]), so a fetching run knows the addresses that
//! a storing one made.
//!
//! All objects are one buffer with another beginning, so the load costs hardly more than its
//! system calls. An answer that is not wholly as expected ends the run with an error: a number of
//! a run in which something went wrong would say nothing.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ron_codec::address::Address;
use thiserror::Error;

use crate::objects::{Family, ObjectsError, noise, stamp};

/// Longest line of an answer's head.
const LINE_LEN_MAX: u64 = 16 * 1024;

/// Longest answer to a PUT.
const RECEIPT_LEN_MAX: u64 = 64 * 1024;

/// Bytes of one read of a body.
const READ_LEN: usize = 256 * 1024;

/// How long a peer may be silent before the run fails.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What is asked of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Put,
    Get,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Load {
    /// `HOST:PORT` of the node's HTTP listener.
    pub node: String,
    pub verb: Verb,
    /// Bytes of each object.
    pub size: usize,
    /// Different objects.
    pub count: u64,
    /// How often each is fetched.
    pub passes: u64,
    pub connections: usize,
    /// Chooses the objects.
    pub seed: u64,
    /// Whether fetched bodies are hashed, and not only counted.
    pub verify: bool,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub requests: u64,
    /// Bytes of all bodies.
    pub bytes: u64,
    /// From the first request to the last answer.
    pub took: Duration,
    /// How long each request took, sorted.
    pub latencies: Vec<Duration>,
}

/// Why a run has no outcome.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    #[error("connecting to {node}: {source}")]
    Connect { node: String, source: io::Error },
    #[error("talking to the node: {0}")]
    Io(#[from] io::Error),
    #[error("the node answered {status:?}")]
    Status { status: String },
    #[error("the node's head has no length, or one above {max} bytes")]
    Length { max: u64 },
    #[error("the body of {address} is not what was stored")]
    Content { address: Address },
}

impl Outcome {
    /// Bodies in MiB a second.
    pub fn mib_per_s(&self) -> f64 {
        self.bytes as f64 / (1024.0 * 1024.0) / self.took.as_secs_f64()
    }

    pub fn requests_per_s(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64()
    }

    /// The latency that `share` (0 to 1) of the requests did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let at = (share * last as f64).round() as usize;
        self.latencies.get(at).copied().unwrap_or_default()
    }
}

/// Performs a run.
///
/// # Errors
/// The first thing that went wrong on any connection.
pub fn run(load: &Load) -> Result<Outcome, LoadError> {
    let family = Family::new(load.size, &Arc::new(noise(load.size)))?;
    let addresses = match load.verb {
        Verb::Put => Vec::new(),
        Verb::Get => addresses(load, &family),
    };
    let next = AtomicU64::new(0);
    let start = Barrier::new(load.connections + 1);
    let (begun, results) = thread::scope(|scope| {
        let work = || {
            // All reach the barrier, whatever becomes of their connections.
            let peer = Peer::connect(&load.node);
            start.wait();
            worker(load, peer?, family.rest(), &addresses, &next)
        };
        let workers: Vec<_> = (0..load.connections).map(|_| scope.spawn(work)).collect();
        start.wait();
        let begun = Instant::now();
        let join = |worker: thread::ScopedJoinHandle<'_, _>| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        (begun, workers.into_iter().map(join).collect::<Vec<Result<_, LoadError>>>())
    });
    let took = begun.elapsed();
    let mut latencies = Vec::new();
    for result in results {
        latencies.append(&mut result?);
    }
    latencies.sort_unstable();
    let requests = latencies.len() as u64;
    Ok(Outcome { requests, bytes: requests * load.size as u64, took, latencies })
}

fn addresses(load: &Load, family: &Family) -> Vec<Address> {
    (0..load.count).map(|number| family.address(&stamp(load.seed, number))).collect()
}

/// Takes numbers until all are taken. Returns how long each request took.
fn worker(
    load: &Load,
    mut peer: Peer,
    rest: &[u8],
    addresses: &[Address],
    next: &AtomicU64,
) -> Result<Vec<Duration>, LoadError> {
    let passes = if load.verb == Verb::Put { 1 } else { load.passes };
    let mut latencies = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.count * passes {
            return Ok(latencies);
        }
        let begun = Instant::now();
        match load.verb {
            Verb::Put => peer.put(&stamp(load.seed, number), rest)?,
            Verb::Get => {
                let address = &addresses[(number % load.count) as usize];
                peer.get(address, load.size, load.verify)?;
            }
        }
        latencies.push(begun.elapsed());
    }
}

/// A connection to the node.
struct Peer {
    stream: BufReader<TcpStream>,
    host: String,
    body: Vec<u8>,
}

impl Peer {
    fn connect(node: &str) -> Result<Peer, LoadError> {
        let failed = |source| LoadError::Connect { node: node.to_string(), source };
        let stream = TcpStream::connect(node).map_err(failed)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        let stream = BufReader::with_capacity(READ_LEN, stream);
        Ok(Peer { stream, host: node.to_string(), body: Vec::new() })
    }

    fn put(&mut self, stamp: &[u8], rest: &[u8]) -> Result<(), LoadError> {
        let len = stamp.len() + rest.len();
        let head =
            format!("PUT /o/ HTTP/1.1\r\nHost: {}\r\nContent-Length: {len}\r\n\r\n", self.host);
        self.body.clear();
        self.body.extend_from_slice(head.as_bytes());
        self.body.extend_from_slice(stamp);
        // A short object goes out in one piece with its head.
        let (joined, apart) = rest.split_at(rest.len().min(READ_LEN));
        self.body.extend_from_slice(joined);
        self.stream.get_mut().write_all(&self.body)?;
        self.stream.get_mut().write_all(apart)?;
        let len = self.head("201")?;
        if len > RECEIPT_LEN_MAX {
            return Err(LoadError::Length { max: RECEIPT_LEN_MAX });
        }
        self.body.clear();
        (&mut self.stream).take(len).read_to_end(&mut self.body)?;
        Ok(())
    }

    fn get(&mut self, address: &Address, size: usize, verify: bool) -> Result<(), LoadError> {
        let head = format!("GET /o/{address} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.stream.get_mut().write_all(head.as_bytes())?;
        let len = self.head("200")?;
        if len != size as u64 {
            return Err(LoadError::Length { max: size as u64 });
        }
        if verify {
            self.body.resize(size, 0);
            self.stream.read_exact(&mut self.body)?;
            if Address::of(&self.body) != *address {
                return Err(LoadError::Content { address: *address });
            }
            return Ok(());
        }
        let mut rest = size;
        while rest > 0 {
            let len = self.stream.fill_buf()?.len().min(rest);
            if len == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.stream.consume(len);
            rest -= len;
        }
        Ok(())
    }

    /// Reads the head of an answer of this status. Returns the length of its body.
    fn head(&mut self, status: &str) -> Result<u64, LoadError> {
        let first = self.line()?;
        if first.split(' ').nth(1) != Some(status) {
            return Err(LoadError::Status { status: first });
        }
        let mut len = None;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return len.ok_or(LoadError::Length { max: u64::MAX });
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                len = value.trim().parse().ok();
            }
        }
    }

    fn line(&mut self) -> Result<String, LoadError> {
        let mut line = Vec::new();
        (&mut self.stream).take(LINE_LEN_MAX).read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{collections::HashMap, net::TcpListener, sync::Mutex};

    use super::*;
    use crate::objects::STAMP_LEN;

    /// A node that keeps what it is given in a map, and answers `connections` connections.
    fn serve(listener: &TcpListener, connections: usize, spoil: bool) {
        let objects = Mutex::new(HashMap::new());
        thread::scope(|scope| {
            for _ in 0..connections {
                let (stream, _) = listener.accept().unwrap();
                let objects = &objects;
                scope.spawn(move || while answer(&stream, objects, spoil).is_some() {});
            }
        });
    }

    fn answer(
        mut stream: &TcpStream,
        objects: &Mutex<HashMap<String, Vec<u8>>>,
        spoil: bool,
    ) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        if head.starts_with("PUT") {
            let len = head.split("Content-Length: ").nth(1).unwrap().trim().parse().unwrap();
            let mut body = vec![0; len];
            stream.read_exact(&mut body).unwrap();
            objects.lock().unwrap().insert(Address::of(&body).to_string(), body);
            stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        } else {
            let name = head.split(['/', ' ']).nth(3).unwrap().to_string();
            let objects = objects.lock().unwrap();
            let Some(body) = objects.get(&name) else {
                stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap();
                return None;
            };
            let mut body = body.clone();
            body[0] ^= u8::from(spoil);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
        }
        Some(())
    }

    fn both(size: usize, spoil: bool) -> (Outcome, Result<Outcome, LoadError>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let node = listener.local_addr().unwrap().to_string();
        let load = Load {
            node,
            verb: Verb::Put,
            size,
            count: 7,
            passes: 2,
            connections: 3,
            seed: 1,
            verify: true,
        };
        thread::scope(|scope| {
            scope.spawn(|| serve(&listener, 6, spoil));
            let put = run(&load).unwrap();
            (put, run(&Load { verb: Verb::Get, ..load.clone() }))
        })
    }

    #[test]
    fn what_was_put_is_got() {
        for size in [STAMP_LEN, 4096, READ_LEN + STAMP_LEN, 1_000_003] {
            let (put, get) = both(size, false);
            let get = get.unwrap();
            assert_eq!((put.requests, put.bytes), (7, 7 * size as u64));
            assert_eq!((get.requests, get.bytes), (14, 14 * size as u64));
            assert!(get.latencies.is_sorted() && get.quantile(1.0) <= get.took);
        }
    }

    #[test]
    fn wrong_content_and_objects_that_are_too_small_fail_the_run() {
        let (_, get) = both(100, true);
        assert!(matches!(get, Err(LoadError::Content { .. })), "{get:?}");
        let load = Load {
            node: String::new(),
            verb: Verb::Put,
            size: STAMP_LEN - 1,
            count: 1,
            passes: 1,
            connections: 1,
            seed: 0,
            verify: false,
        };
        let refused = run(&load);
        assert!(matches!(refused, Err(LoadError::Objects(ObjectsError::Size { size: 15 }))));
    }
}
