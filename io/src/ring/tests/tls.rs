//! TLS over real sockets, with a client that also sends what no TLS library would.

use std::{
    io,
    net::TcpStream,
    sync::atomic::{AtomicUsize, Ordering},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};

use super::*;

struct Secure {
    node: Running,
    sent: Arc<AtomicUsize>,
    config: Arc<ClientConfig>,
}

fn start_tls() -> Secure {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let shown = Certificate::new(vec![cert.der().clone()], key).unwrap();
    let server = server_config(&Certificates::new(shown), &[]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let sent = Arc::new(AtomicUsize::new(0));
    let node = start_with(Some(server), Arc::clone(&sent));
    Secure { node, sent, config: Arc::new(config) }
}

/// A client that has shaken hands.
struct Client {
    socket: TcpStream,
    tls: ClientConnection,
}

impl Secure {
    fn connect(&self, receive_len: Option<usize>) -> Client {
        let mut socket = TcpStream::connect(self.node.address).unwrap();
        if let Some(len) = receive_len {
            SockRef::from(&socket).set_recv_buffer_size(len).unwrap();
        }
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).unwrap();
        }
        Client { socket, tls }
    }

    /// Somebody else is served as ever.
    fn check(&self) {
        let mut other = self.connect(None);
        other.say(b"echo alive\n");
        other.tls.send_close_notify();
        other.flush();
        assert_eq!(other.rest().unwrap(), b"alive");
    }

    /// Waits until the loop turns no more, as one that spins never does.
    fn rest(&self) {
        let (deadline, mut turns) = (Instant::now() + PATIENCE, u64::MAX);
        let watch = &self.node.stats.watch;
        // A thread that gets no core for a while makes no turns either, but it is doing something.
        while turns != watch.turns.get() || watch.doing().is_some() {
            assert!(Instant::now() < deadline, "{turns} turns and no end");
            turns = watch.turns.get();
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

impl Client {
    fn say(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).unwrap();
    }

    fn flush(&mut self) {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket).unwrap();
        }
    }

    /// All that comes until the end.
    fn rest(&mut self) -> io::Result<Vec<u8>> {
        let (mut all, mut part) = (Vec::new(), vec![0; 65536]);
        loop {
            match self.tls.reader().read(&mut part) {
                Ok(0) => return Ok(all),
                Ok(len) => {
                    all.extend_from_slice(&part[..len]);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if self.tls.read_tls(&mut self.socket)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.tls.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

#[test]
fn bytes_behind_a_close_notify_are_ignored() {
    let secure = start_tls();
    for len in [1, 5, 100, 4096, 16_000, 100_000] {
        let mut client = secure.connect(None);
        client.say(b"echo one\n");
        client.tls.send_close_notify();
        let mut bytes = Vec::new();
        while client.tls.wants_write() {
            client.tls.write_tls(&mut bytes).unwrap();
        }
        // All of it in one receive buffer, as far as it fits there.
        bytes.extend((0..len).map(|n| (n * 31 % 251) as u8));
        client.socket.write_all(&bytes).unwrap();
        assert_eq!(client.rest().unwrap(), b"one", "{len}");
        secure.check();
    }
    secure.rest();
    secure.node.stop();
}

#[test]
fn a_byte_behind_a_close_notify_does_not_end_the_body_that_is_being_sent() {
    let secure = start_tls();
    const LEN: usize = 9_000_000;
    let mut client = secure.connect(Some(65536));
    client.say(format!("block {LEN} cold\n").as_bytes());
    client.tls.send_close_notify();
    client.flush();
    secure.rest();
    for _ in 0..3 {
        client.socket.write_all(&[23]).unwrap();
        secure.rest();
    }
    secure.check();
    let body = client.rest().unwrap();
    assert_eq!(body.len(), 1 + LEN);
    assert!(body[1..].iter().enumerate().all(|(n, b)| *b == ((n % 65536) % 251) as u8));
    secure.node.stop();
}

#[test]
fn what_a_slow_reader_takes_is_told_before_all_is_taken() {
    let secure = start_tls();
    const LEN: usize = 9_000_000;
    let mut client = secure.connect(Some(65536));
    client.say(format!("block {LEN} cold\n").as_bytes());
    client.flush();
    let sent = || secure.sent.load(Ordering::Relaxed);
    let deadline = Instant::now() + PATIENCE;
    while sent() == 0 {
        assert!(Instant::now() < deadline, "nothing is reported as sent while the reader reads");
        client.tls.read_tls(&mut client.socket).unwrap();
        client.tls.process_new_packets().unwrap();
        let mut part = vec![0; 65536];
        let _ = client.tls.reader().read(&mut part);
        // Otherwise a shard that was not run for a while sends all in one turn.
        secure.rest();
    }
    assert!(sent() < 1 + LEN, "{} of {LEN}", sent());
    client.tls.send_close_notify();
    client.flush();
    client.rest().unwrap();
    assert_eq!(sent(), 1 + LEN, "all is reported in the end, and no more");
    secure.node.stop();
}

#[test]
fn what_breaks_tls_is_answered_with_an_alert() {
    let secure = start_tls();
    for bytes in [
        // A record that does not decrypt, one of no kind, one that is too long.
        &[23, 3, 3, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &[0, 3, 3, 0, 1, 0],
        &[23, 3, 3, 0xff, 0xff, 0],
    ] {
        let mut client = secure.connect(None);
        client.socket.write_all(bytes).unwrap();
        let error = client.rest().unwrap_err().to_string();
        assert!(error.contains("alert"), "{bytes:?}: {error}");
        secure.check();
    }
    secure.rest();
    secure.node.stop();
}
