//! TLS of a simulated connection: the node's own session on one end, rustls as a client on the
//! other, and both directions of ciphertext between them in the sockets.
//!
//! Keys and nonces come from the system and not from the seed, so the ciphertext of two runs
//! differs. Its lengths do not, and nothing else of it is ever looked at.

use std::{
    io::{self, BufRead, Write},
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
};

use crate::tls::{self, Certificate, Certificates, Decrypted, Flushed, Tls, TlsConfig, provider};

/// An Ed25519 key and its certificate, made for this: their signatures have one length.
const CERTIFICATE: &[u8] = include_bytes!("tls/cert.der");
const KEY: &[u8] = include_bytes!("tls/key.der");

/// The configuration of every simulated node.
pub fn server_config() -> TlsConfig {
    static CONFIG: OnceLock<TlsConfig> = OnceLock::new();
    let make = || {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(KEY));
        let certificate = Certificate::new(vec![CertificateDer::from(CERTIFICATE)], key);
        let certificate = certificate.expect("the key fits its certificate");
        tls::server_config(&Certificates::new(certificate), &[]).expect("the system has randomness")
    };
    Arc::clone(CONFIG.get_or_init(make))
}

/// The configuration of a client that takes every server for the right one.
pub fn client_config(provider: CryptoProvider) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    // One connection must not depend on those before it.
    config.resumption = Resumption::disabled();
    config
}

fn clients_config() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    Arc::clone(CONFIG.get_or_init(|| Arc::new(client_config(provider()))))
}

/// Both ends of one connection.
#[derive(Debug)]
pub(super) struct Ends {
    /// Until the driver forgets the connection.
    server: Option<Tls>,
    client: ClientConnection,
}

/// The client's half has come to its end: by an alert, or because there was one before.
#[derive(Debug)]
pub(super) struct ClientFailed;

impl Ends {
    pub(super) fn new() -> Ends {
        let name = ServerName::try_from("sim").expect("it is a name");
        let client = ClientConnection::new(clients_config(), name);
        let mut client = client.expect("a client can be made");
        client.set_buffer_limit(None);
        let server = super::heap::as_node(|| Tls::new(&server_config()));
        Ends { server: Some(server.expect("a session can be made")), client }
    }

    /// The driver forgets the connection.
    pub(super) fn drop_server(&mut self) {
        self.server = None;
    }

    fn server<T>(&mut self, what: impl FnOnce(&mut Tls) -> T) -> T {
        let server = self.server.as_mut().expect("the connection is not forgotten");
        super::heap::as_node(|| what(server))
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.client.is_handshaking()
    }

    /// The client writes, and has ciphertext to be sent.
    pub(super) fn client_writes(&mut self, plaintext: &[u8]) -> Vec<u8> {
        // After its own close_notify the client writes nothing.
        let _ = self.client.writer().write_all(plaintext);
        self.client_sends()
    }

    /// The client says that it will send no more.
    pub(super) fn client_closes(&mut self) -> Vec<u8> {
        self.client.send_close_notify();
        self.client_sends()
    }

    /// What the client wants to be sent.
    pub(super) fn client_sends(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut out).expect("memory takes everything");
        }
        out
    }

    /// The client reads ciphertext. Returns what was in it.
    ///
    /// # Panics
    /// If it is not what a node may send.
    pub(super) fn client_reads(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, ClientFailed> {
        let mut plaintext = Vec::new();
        while !bytes.is_empty() {
            // What comes after a close_notify is not looked at.
            if self.client.read_tls(&mut bytes).is_ok_and(|len| len == 0) {
                break;
            }
            match self.client.process_new_packets() {
                Ok(_) => {}
                Err(rustls::Error::AlertReceived(_)) => return Err(ClientFailed),
                Err(error) => panic!("violation: the client reads what is not TLS: {error}"),
            }
            let mut reader = self.client.reader();
            while let Ok(some @ [_, ..]) = reader.fill_buf() {
                plaintext.extend_from_slice(some);
                let len = some.len();
                reader.consume(len);
            }
        }
        Ok(plaintext)
    }

    pub(super) fn decrypt(&mut self, input: &mut &[u8]) -> io::Result<Decrypted> {
        self.server(|server| server.decrypt(input))
    }

    /// Takes plaintext of the node's side; 0 when there is none.
    pub(super) fn plaintext(&mut self, into: &mut [u8]) -> usize {
        self.server(|server| server.read(into))
    }

    pub(super) fn say(&mut self, head: &[u8], body: &[u8]) {
        let said = self.server(|server| server.say(head, body));
        said.expect("no connection here uses its keys up");
    }

    pub(super) fn close_notify(&mut self) {
        self.server(Tls::close_notify);
    }

    pub(super) fn wants_write(&self) -> bool {
        self.server.as_ref().is_some_and(Tls::wants_write)
    }

    /// Lets the socket take up to `max` bytes of records.
    pub(super) fn flush(&mut self, max: usize) -> (Vec<u8>, Flushed) {
        let mut socket = Socket { taken: Vec::new(), space: max };
        let flushed = self.server(|server| server.flush_into(&mut socket));
        (socket.taken, flushed.expect("a socket that is full says so"))
    }
}

/// A socket with space for so many bytes.
struct Socket {
    taken: Vec<u8>,
    space: usize,
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.space == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = bytes.len().min(self.space);
        self.taken.extend_from_slice(&bytes[..len]);
        self.space -= len;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes every server for the right one.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::{HANDSHAKE_LEN_MAX, TLS_SHORT_LEN};

    /// Bytes that a record is longer than what is in it.
    const OVERHEAD: usize = 5 + 1 + 16;

    fn receive(ends: &mut Ends, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            ends.decrypt(&mut bytes)?;
        }
        Ok(())
    }

    /// A pair that has shaken hands, with nothing left to be sent.
    fn shaken() -> Ends {
        let mut ends = Ends::new();
        for _ in 0..2 {
            let bytes = ends.client_sends();
            receive(&mut ends, &bytes).unwrap();
            let (bytes, _) = ends.flush(usize::MAX);
            ends.client_reads(&bytes).unwrap();
        }
        assert!(!ends.is_handshaking() && !ends.wants_write());
        ends
    }

    /// A ClientHello of 60,000 bytes, in records: rustls keeps them until it is whole.
    #[test]
    fn of_a_message_without_end_only_so_much_is_kept() {
        let mut hello = vec![0; 60_000];
        hello[..4].copy_from_slice(&[1, 0, 0xea, 0x5c]);
        for record_len in [100, 1000, 16 * 1024] {
            let (mut ends, mut sent) = (Ends::new(), 0);
            let error = hello.chunks(record_len).find_map(|part| {
                let len = u16::try_from(part.len()).unwrap().to_be_bytes();
                let record = [&[22, 3, 1][..], &len, part].concat();
                sent += record.len();
                let decrypted = receive(&mut ends, &record);
                assert!(decrypted.is_err() || sent <= HANDSHAKE_LEN_MAX, "{sent} bytes are kept");
                decrypted.err()
            });
            let error = error.expect("it is refused").to_string();
            assert!(error.contains("messages are too long"), "{error}");
            assert!(sent > HANDSHAKE_LEN_MAX, "{sent} bytes are not too much");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Pieces of any length to a socket that has space now and then. All of them come, in their
        /// order, and are reported as sent; and short ones that wait share records.
        #[test]
        fn short_pieces_that_wait_share_records(
            pieces in proptest::collection::vec(
                (
                    prop_oneof![4 => 1usize..300, 1 => 1usize..5000, 1 => 1usize..40_000],
                    prop_oneof![3 => Just(0), 1 => 1usize..40_000],
                ),
                1..120,
            ),
        ) {
            let mut ends = shaken();
            let (mut said, mut sent, mut told, mut spaces) = (Vec::new(), Vec::new(), 0, 0);
            for (nth, (len, space)) in pieces.into_iter().chain([(1, usize::MAX)]).enumerate() {
                let piece = vec![nth as u8; len];
                ends.say(&piece[..len / 3], &piece[len / 3..]);
                said.extend(piece);
                let (bytes, flushed) = ends.flush(space);
                sent.extend(bytes);
                told += flushed.len;
                spaces += usize::from(space > 0);
                prop_assert!(told <= said.len());
                prop_assert_eq!(told == said.len(), !flushed.full);
            }
            // A shorter one stands only where the socket took all before it, and at the start.
            let records = said.len() / TLS_SHORT_LEN + 2 * spaces + 1;
            prop_assert!(sent.len() <= said.len() + records * OVERHEAD, "{} records", records);
            prop_assert!(ends.client_reads(&sent).unwrap() == said);
        }
    }
}
