//! TLS 1.3 as the driver uses it: records out and in, and the server's side of a handshake.
//!
//! The limit of a record is the bare cipher on as many bytes in records of the same length, in
//! place; of a handshake, its key agreement and, without a ticket, its signature. Only the
//! server's time counts: what the client does happens between two measurements.

use std::{
    hint::black_box,
    io::{self, IoSlice, Read, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    agreement::{PrivateKey, UnparsedPublicKey, X25519, agree},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ron_bench::{brief, random_bytes};
use ron_io::{
    limits::RECV_BUFFER_LEN,
    ring::{Certificate, Certificates, TlsConfig, server_config},
};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore,
    ServerConnection,
    client::Resumption,
    crypto::aws_lc_rs::default_provider,
    pki_types::{PrivateKeyDer, ServerName},
};

/// Most plaintext in one record.
const RECORD_LEN: usize = 16 * 1024;

/// Bytes that a handshake signs: a hash of it and the words before.
const SIGNED_LEN: usize = 130;

/// A node's settings and those of clients that trust it.
struct Peers {
    server: TlsConfig,
    /// PKCS#8 of the node's key.
    key: Vec<u8>,
    roots: RootCertStore,
}

impl Peers {
    fn new() -> Peers {
        let params = rcgen::CertificateParams::new(["localhost".to_string()]);
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let params = params.expect("the name is one");
        let certificate = params.self_signed(&key).expect("a certificate can be made");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("the certificate is sound");
        let der = PrivateKeyDer::try_from(key.serialize_der()).expect("the key is PKCS#8");
        let shown = Certificate::new(vec![certificate.der().clone()], der)
            .expect("the key is the certificate's");
        let server = server_config(&Certificates::new(shown), &[]).expect("it can be served");
        Peers { server, key: key.serialize_der(), roots }
    }

    fn client(&self, resumption: Resumption) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the version is supported")
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.resumption = resumption;
        Arc::new(config)
    }

    /// A connection in memory, after its handshake, and the time the server took for that.
    fn connect(
        &self,
        client: &Arc<ClientConfig>,
    ) -> (ClientConnection, ServerConnection, Duration) {
        let name = ServerName::try_from("localhost").expect("the name is one");
        let mut client = ClientConnection::new(Arc::clone(client), name).expect("it is whole");
        let (mut said, mut answered) = (Vec::new(), Vec::new());
        write_all(&mut client, &mut said);
        let start = Instant::now();
        let mut server = ServerConnection::new(Arc::clone(&self.server)).expect("it is whole");
        server.set_buffer_limit(None);
        let mut spent = start.elapsed();
        while !said.is_empty() {
            let start = Instant::now();
            receive(&mut server, &said);
            while server.wants_write() {
                server.write_tls(&mut answered).expect("memory takes all");
            }
            spent += start.elapsed();
            said.clear();
            let mut rest = answered.as_slice();
            while !rest.is_empty() {
                client.read_tls(&mut rest).expect("memory gives all");
                client.process_new_packets().expect("the server is sound");
            }
            answered.clear();
            write_all(&mut client, &mut said);
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        (client, server, spent)
    }
}

/// Takes all records that a client has to send.
fn write_all(client: &mut ClientConnection, to: &mut Vec<u8>) {
    while client.wants_write() {
        client.write_tls(to).expect("memory takes all");
    }
}

/// Gives a server what arrived, as much at once as a receive buffer of the driver holds. Returns
/// how much plaintext came of it.
fn receive(server: &mut ServerConnection, bytes: &[u8]) -> usize {
    let mut into = [0; RECV_BUFFER_LEN];
    let mut received = 0;
    for mut arrival in bytes.chunks(RECV_BUFFER_LEN) {
        while !arrival.is_empty() {
            server.read_tls(&mut arrival).expect("there is space: all was read");
            server.process_new_packets().expect("the client is sound");
            while let Ok(len @ 1..) = server.reader().read(&mut into) {
                received += len;
            }
        }
    }
    received
}

/// A socket that takes everything and keeps nothing.
struct Gone;

impl Write for Gone {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(slices.iter().map(|slice| black_box(slice).len()).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn key(algorithm: &'static Algorithm) -> LessSafeKey {
    let bytes = random_bytes(1, algorithm.key_len());
    LessSafeKey::new(UnboundKey::new(algorithm, &bytes).expect("the key is as long as it must be"))
}

/// The same for all: nobody reads what is sealed here.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([7; NONCE_LEN])
}

fn seal(key: &LessSafeKey, bytes: &mut [u8]) {
    for record in bytes.chunks_mut(RECORD_LEN) {
        let tag = key.seal_in_place_separate_tag(nonce(), Aad::empty(), record);
        let _ = black_box(tag.expect("the record is short"));
    }
}

fn seals(c: &mut Criterion) {
    let peers = Peers::new();
    let (_client, mut server, _) = peers.connect(&peers.client(Resumption::disabled()));
    let suite = server.negotiated_cipher_suite().map(|suite| suite.suite());
    assert_eq!(suite, Some(CipherSuite::TLS13_AES_128_GCM_SHA256), "as the limit");
    for (name, len) in [("encrypt 16 KiB", RECORD_LEN), ("encrypt 64 KiB", 4 * RECORD_LEN)] {
        let plain = random_bytes(2, len);
        let mut bytes = plain.clone();
        let mut bench = c.benchmark_group(name);
        bench.throughput(Throughput::Bytes(len as u64));
        for (name, algorithm) in
            [("limit: AES-128-GCM", &AES_128_GCM), ("beside: AES-256-GCM", &AES_256_GCM)]
        {
            let key = key(algorithm);
            bench.bench_function(name, |b| b.iter(|| seal(&key, black_box(&mut bytes))));
        }
        bench.bench_function("beside: memcpy", |b| {
            b.iter(|| bytes.copy_from_slice(black_box(&plain)));
        });
        bench.bench_function("rustls", |b| {
            b.iter(|| {
                server.writer().write_all(black_box(&plain)).expect("the keys are fresh");
                while server.wants_write() {
                    server.write_tls(&mut Gone).expect("it takes everything");
                }
            });
        });
        bench.finish();
    }
}

fn opens(c: &mut Criterion) {
    let peers = Peers::new();
    let (mut client, mut server, _) = peers.connect(&peers.client(Resumption::disabled()));
    client.set_buffer_limit(None);
    for (name, len) in [("decrypt 16 KiB", RECORD_LEN), ("decrypt 64 KiB", 4 * RECORD_LEN)] {
        let plain = random_bytes(3, len);
        let mut opened = vec![0; RECORD_LEN];
        let mut bench = c.benchmark_group(name);
        bench.throughput(Throughput::Bytes(len as u64));
        for (name, algorithm) in
            [("limit: AES-128-GCM", &AES_128_GCM), ("beside: AES-256-GCM", &AES_256_GCM)]
        {
            let key = key(algorithm);
            let mut sealed = plain[..RECORD_LEN].to_vec();
            let tag = key.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut sealed);
            let tag = tag.expect("the record is short");
            let open = |opened: &mut [u8]| {
                let (sealed, tag) = (black_box(&sealed), tag.as_ref());
                key.open_separate_gather(nonce(), Aad::empty(), sealed, tag, opened)
            };
            open(&mut opened).expect("it was sealed with this key");
            bench.bench_function(name, |b| {
                b.iter(|| (0..len / RECORD_LEN).filter(|_| open(&mut opened).is_ok()).count());
            });
        }
        bench.bench_function("rustls", |b| {
            b.iter_batched_ref(
                || {
                    let mut sealed = Vec::with_capacity(len + RECORD_LEN);
                    client.writer().write_all(&plain).expect("the keys are fresh");
                    write_all(&mut client, &mut sealed);
                    sealed
                },
                |sealed| assert_eq!(receive(&mut server, sealed), len),
                BatchSize::SmallInput,
            );
        });
        bench.finish();
    }
}

/// A fresh key pair and what it agrees on with the peer's.
fn agree_once(peer: &[u8]) -> u8 {
    let key = PrivateKey::generate(&X25519).expect("a key can be made");
    black_box(key.compute_public_key().expect("a key has its public half"));
    let peer = UnparsedPublicKey::new(&X25519, peer);
    agree(&key, peer, (), |secret| Ok(secret[0])).expect("the peer's key is one")
}

fn handshakes(c: &mut Criterion) {
    let peers = Peers::new();
    let theirs = PrivateKey::generate(&X25519).expect("a key can be made");
    let theirs = theirs.compute_public_key().expect("a key has its public half");
    let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &peers.key)
        .expect("the node's key is for P-256");
    let (random, signed) = (SystemRandom::new(), random_bytes(4, SIGNED_LEN));
    for (name, limit, resumption, kind) in [
        ("handshake, full", "limit: X25519 and P-256", Resumption::disabled(), HandshakeKind::Full),
        (
            "handshake, resumed",
            "limit: X25519",
            Resumption::in_memory_sessions(1),
            HandshakeKind::Resumed,
        ),
    ] {
        let client = peers.client(resumption);
        // The first one is full, and brings tickets if they are wanted.
        peers.connect(&client);
        let (_, server, _) = peers.connect(&client);
        assert_eq!(server.handshake_kind(), Some(kind));
        let group = server.negotiated_key_exchange_group().map(|group| group.name());
        assert_eq!(group, Some(NamedGroup::X25519), "as the limit");
        let mut bench = c.benchmark_group(name);
        bench.throughput(Throughput::Elements(1));
        bench.bench_function(limit, |b| {
            b.iter(|| {
                if kind == HandshakeKind::Full {
                    black_box(signer.sign(&random, black_box(&signed)).is_ok());
                }
                agree_once(black_box(theirs.as_ref()))
            });
        });
        bench.bench_function("server's side", |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| peers.connect(&client).2).sum());
        });
        bench.finish();
    }
}

criterion_group! { name = benches; config = brief(); targets = seals, opens, handshakes }
criterion_main!(benches);
