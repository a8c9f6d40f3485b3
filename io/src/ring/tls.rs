//! TLS 1.3 for a connection: ciphertext in, plaintext out, and back.
//!
//! rustls does the protocol. Plaintext to be sent is encrypted from where it lies (a block of the
//! arena) into rustls' records, and those go to the socket in one vectored system call. Short
//! pieces are gathered first and become one record together: a record costs an allocation and a
//! place in a list, which is several times what is in the shortest answers.
//!
//! ```text
//!   short pieces ──► gathered ──┐ when rustls has nothing left to send,
//!                               ├─────► records ─────► socket
//!   long pieces ────────────────┘ or before a long piece
//! ```
//!
//! The simulation runs the same session, and the same loop over what was received: [`receive`].

#[cfg(feature = "ring")]
use std::os::fd::RawFd;
use std::{
    io::{self, IoSlice, Read, Write},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    ServerConfig, ServerConnection,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::limits::{HANDSHAKE_LEN_MAX, TLS_GATHER_LEN, TLS_RECORD_LEN, TLS_SHORT_LEN};

/// Bytes that a record is longer than what is in it: a header, its kind, and a tag.
const RECORD_OVERHEAD: usize = 5 + 1 + 16;

/// What a TLS listener needs: shared by all its connections.
pub type TlsConfig = Arc<ServerConfig>;

/// A certificate chain and its private key, which belong together.
#[derive(Clone, Debug)]
pub struct Certificate(Arc<CertifiedKey>);

impl Certificate {
    /// The certificate of the leaf that `chain` begins with.
    ///
    /// # Errors
    /// When the key does not fit the leaf or is of a kind that is not supported.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Certificate, rustls::Error> {
        CertifiedKey::from_der(chain, key, &provider()).map(|key| Certificate(Arc::new(key)))
    }

    /// The leaf, and what vouches for it.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.cert
    }
}

/// The certificate that the listeners of a node show. Another thread may replace it while they
/// serve: a handshake that begins after that shows the new one, and connections go on.
#[derive(Debug)]
pub struct Certificates(RwLock<Certificate>);

impl Certificates {
    pub fn new(certificate: Certificate) -> Arc<Certificates> {
        Arc::new(Certificates(RwLock::new(certificate)))
    }

    pub fn replace(&self, certificate: Certificate) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certificate;
    }
}

impl ResolvesServerCert for Certificates {
    /// Taken once for each full handshake, which costs a thousand times as much as the lock.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&shown.0))
    }
}

/// Settings for TLS 1.3 with these certificates. A client that offers protocol names must offer
/// one of `alpn`; one that offers none is accepted.
///
/// # Errors
/// When no key for session tickets can be made.
pub fn server_config(
    certificates: &Arc<Certificates>,
    alpn: &[&[u8]],
) -> Result<TlsConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(certificates) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // AES-128-GCM costs the least on both ends, and it is the server's to choose.
    config.ignore_client_order = true;
    config.send_half_rtt_data = false;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// aws-lc-rs with AES-128-GCM first.
pub(crate) fn provider() -> CryptoProvider {
    use aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let cipher_suites =
        vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() }
}

/// The TLS side of one connection.
#[derive(Debug)]
pub struct Tls {
    connection: ServerConnection,
    handshaking: bool,
    /// Bytes of the peer since plaintext last came, or the handshake was complete. rustls keeps a
    /// record until it is whole, and a message that is in several records, of up to 64 KiB.
    pending_len: usize,
    /// The peer said that it will send no more.
    closed: bool,
    /// Short pieces that are not encrypted: they stand behind all that is.
    gathered: Vec<u8>,
    /// Bytes of records that the kernel has not taken.
    records_len: usize,
    /// Plaintext bytes that were not reported as sent.
    unsent: usize,
}

/// What came of bytes of the peer, beside plaintext to read.
#[derive(Debug, PartialEq, Eq)]
pub struct Decrypted {
    /// The handshake is complete as of now.
    pub secured: bool,
    /// The peer said that it will send no more.
    pub closed: bool,
}

/// What the loop over the ciphertext of a connection needs of its driver.
pub trait Receiver {
    /// Hands the ciphertext behind its first `at` bytes to the session. Returns how much of it was
    /// taken and what came of it; `None` when the connection is gone.
    ///
    /// # Errors
    /// When the peer broke the protocol.
    fn decrypt(&mut self, at: usize) -> io::Result<Option<(usize, Decrypted)>>;

    /// Tells the shard that the handshake is complete.
    fn secured(&mut self);

    /// Tells the shard some of the plaintext. False when there is none, or the connection is gone.
    fn tell_plaintext(&mut self) -> bool;

    /// Sends what the session wants to be sent: the handshake, a key update, a ticket.
    fn answer(&mut self);

    /// The peer said that it will send no more.
    fn closed(&mut self);
}

/// Decrypts `len` bytes of ciphertext and tells the shard what was in them. Every round takes some
/// of the bytes, or fails.
///
/// # Errors
/// When the peer broke the protocol.
pub fn receive(driver: &mut impl Receiver, len: usize) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        let Some((taken, decrypted)) = driver.decrypt(at)? else { return Ok(()) };
        assert!(taken > 0, "TLS took nothing of {} bytes", len - at);
        at += taken;
        if decrypted.secured {
            driver.secured();
        }
        while driver.tell_plaintext() {}
        driver.answer();
        if decrypted.closed {
            driver.closed();
        }
    }
    Ok(())
}

/// What the kernel took of all that rustls has to say.
#[derive(Debug, PartialEq, Eq)]
pub struct Flushed {
    /// Bytes of plaintext that are done with.
    pub len: usize,
    /// The socket is full, and something is left.
    pub full: bool,
}

impl Tls {
    pub fn new(config: &TlsConfig) -> Result<Tls, rustls::Error> {
        let mut connection = ServerConnection::new(Arc::clone(config))?;
        // The shard bounds what it has unsent on a connection.
        connection.set_buffer_limit(None);
        Ok(Tls {
            connection,
            handshaking: true,
            closed: false,
            pending_len: 0,
            gathered: Vec::new(),
            records_len: 0,
            unsent: 0,
        })
    }

    /// Takes ciphertext off the front of `input`, as much as rustls takes. At least one byte
    /// is taken of an input that is not empty, so that a loop over the input ends.
    ///
    /// # Errors
    /// When the peer broke the protocol; what is to be said about it is there for `flush`.
    pub fn decrypt(&mut self, input: &mut &[u8]) -> io::Result<Decrypted> {
        let before = input.len();
        let mut secured = false;
        if !self.closed {
            self.pending_len += self.connection.read_tls(input)?;
            let state = self.connection.process_new_packets().map_err(|error| {
                // RFC 8446 §6.2: behind the alert that says so nothing is sent.
                self.gathered = Vec::new();
                io::Error::other(error)
            })?;
            // Exact again: of tickets and key updates nothing was known here.
            self.records_len = state.tls_bytes_to_write();
            secured = self.handshaking && !self.connection.is_handshaking();
            self.handshaking &= !secured;
            if secured || state.plaintext_bytes_to_read() > 0 {
                self.pending_len = 0;
            } else if self.pending_len > HANDSHAKE_LEN_MAX {
                return Err(io::Error::other("the peer's messages are too long"));
            }
            self.closed = state.peer_has_closed();
        }
        if self.closed {
            // RFC 8446 §6.1: what follows a close_notify is ignored. rustls does not take it.
            *input = &[];
        }
        if before > 0 && input.len() == before {
            return Err(io::Error::other("TLS takes no more of the peer's bytes"));
        }
        Ok(Decrypted { secured, closed: self.closed })
    }

    /// Takes decrypted bytes; 0 when there are none for now.
    pub fn read(&mut self, into: &mut [u8]) -> usize {
        // `WouldBlock` means nothing yet; the socket itself reports an end without notice.
        self.connection.reader().read(into).unwrap_or(0)
    }

    /// Takes plaintext to be sent, a head and what follows it. It is on its way after `flush`.
    pub fn say(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let len = head.len() + body.len();
        self.unsent += len;
        if len < TLS_SHORT_LEN && self.gathered.len() + len <= TLS_GATHER_LEN {
            if self.gathered.capacity() == 0 {
                self.gathered.reserve_exact(TLS_GATHER_LEN);
            }
            self.gathered.extend_from_slice(head);
            self.gathered.extend_from_slice(body);
            return Ok(());
        }
        self.encrypt(head, body)
    }

    /// Encrypts what was gathered, and this behind it. The records are as long as they may be.
    fn encrypt(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        let len = gathered.len() + head.len() + body.len();
        self.records_len += len + len.div_ceil(TLS_RECORD_LEN) * RECORD_OVERHEAD;
        let mut slices = [&gathered, head, body].map(IoSlice::new);
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            // Less than all is taken only where the keys are renewed in between.
            match self.connection.writer().write_vectored(left)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                taken => IoSlice::advance_slices(&mut left, taken),
            }
        }
        Ok(())
    }

    /// Says that nothing more will come.
    pub fn close_notify(&mut self) {
        // Encrypting fails only when the keys are used up beyond renewal.
        if self.encrypt(&[], &[]).is_ok() {
            self.connection.send_close_notify();
        }
    }

    /// Whether something is to be sent.
    pub fn wants_write(&self) -> bool {
        self.connection.wants_write() || !self.gathered.is_empty()
    }

    /// Hands records to the kernel until there are none or the socket is full.
    #[cfg(feature = "ring")]
    pub fn flush(&mut self, fd: RawFd) -> io::Result<Flushed> {
        self.flush_into(&mut Direct { fd })
    }

    /// As `flush`, for whatever the socket is.
    pub fn flush_into(&mut self, socket: &mut impl Write) -> io::Result<Flushed> {
        while self.wants_write() {
            if !self.connection.wants_write() {
                self.encrypt(&[], &[])?;
            }
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => self.records_len = self.records_len.saturating_sub(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Flushed { len: self.done(), full: true });
                }
                Err(error) => return Err(error),
            }
        }
        self.records_len = 0;
        Ok(Flushed { len: std::mem::take(&mut self.unsent), full: false })
    }

    /// How much plaintext is done with while there is more. Records are longer than what is in
    /// them, so no less is left than lies in memory. The last byte is kept back: all is reported as
    /// sent when all was taken, and not before.
    fn done(&mut self) -> usize {
        let left = (self.records_len + self.gathered.len()).max(1).min(self.unsent);
        let len = self.unsent - left;
        self.unsent = left;
        len
    }
}

/// Writes straight to a socket, without waiting.
#[cfg(feature = "ring")]
struct Direct {
    fd: RawFd,
}

#[cfg(feature = "ring")]
impl Write for Direct {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // SAFETY: an all-zero msghdr is a valid empty one.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        // `IoSlice` is guaranteed to be laid out as `iovec`; sendmsg does not write to it.
        message.msg_iov = slices.as_ptr().cast_mut().cast();
        message.msg_iovlen = slices.len();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the message points at slices that live through the call.
        let sent = unsafe { libc::sendmsg(self.fd, &message, flags) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
