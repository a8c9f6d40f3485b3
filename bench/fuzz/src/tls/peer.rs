//! A client that shakes hands as rustls does, and from then on encrypts whatever it is asked to.

use std::{
    io::Read,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Prk},
};
use ron_io::sim::tls::client_config;
use rustls::{
    ClientConnection, KeyLog, crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    pki_types::ServerName,
};

/// Types of records.
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const DATA: u8 = 23;

/// A client, its keys, and what it read.
pub(super) struct Peer {
    tls: ClientConnection,
    secret: Arc<Secret>,
    keys: Option<Keys>,
    pub(super) read: Vec<u8>,
    /// It cannot go on, as rustls sees it.
    failed: bool,
}

impl Peer {
    pub(super) fn new() -> Peer {
        let secret = Arc::new(Secret::default());
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256];
        let mut config = client_config(provider);
        config.key_log = Arc::clone(&secret) as Arc<dyn KeyLog>;
        let name = ServerName::try_from("fuzz").expect("it is a name");
        let tls = ClientConnection::new(Arc::new(config), name).expect("a client can be made");
        Peer { tls, secret, keys: None, read: Vec::new(), failed: false }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Whether it has sent all of its handshake, and encrypts by itself.
    pub(super) fn is_secure(&self) -> bool {
        self.keys.is_some()
    }

    /// What its handshake wants to be sent.
    pub(super) fn shakes(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).expect("memory takes everything");
        }
        if !self.tls.is_handshaking() && !self.failed && self.keys.is_none() {
            self.keys = self.secret.take().map(Keys::new);
        }
        out
    }

    /// Reads what the node sent, which is as it should be while this is `lawful`.
    pub(super) fn reads(&mut self, mut bytes: &[u8], lawful: bool) {
        while !bytes.is_empty() && !self.failed {
            match self.tls.read_tls(&mut bytes) {
                // Behind the node's close_notify.
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => panic!("the client takes no more: {error}"),
            }
            let processed = self.tls.process_new_packets();
            assert!(processed.is_ok() || !lawful, "the node's answer is no TLS: {processed:?}");
            self.failed = processed.is_err();
            let mut some = [0; 16 * 1024];
            while let Ok(len @ 1..) = self.tls.reader().read(&mut some) {
                self.read.extend_from_slice(&some[..len]);
            }
        }
    }

    /// A record, encrypted if there are keys, and the application data in it.
    pub(super) fn record(&mut self, kind: u8, bytes: &[u8], padding: usize) -> (Vec<u8>, Vec<u8>) {
        let Some(keys) = &mut self.keys else {
            let header = [&[kind, 3, 3][..], &(bytes.len() as u16).to_be_bytes()].concat();
            return ([&header[..], bytes].concat(), Vec::new());
        };
        let mut inner = [bytes, &[kind]].concat();
        inner.resize(inner.len() + padding, 0);
        // The last byte that is not zero is the type.
        let kind_at = inner.iter().rposition(|byte| *byte != 0);
        let data = kind_at.filter(|at| inner[*at] == DATA).map_or(&[][..], |at| &inner[..at]);
        (keys.seal(&inner), data.to_vec())
    }

    /// What comes next is encrypted with the next key.
    pub(super) fn next_key(&mut self) {
        if let Some(keys) = &mut self.keys {
            *keys = keys.next();
        }
    }
}

/// Keys of one direction (RFC 8446 §7.2, §7.3), and how many records they have encrypted.
struct Keys {
    secret: Vec<u8>,
    key: LessSafeKey,
    iv: Vec<u8>,
    records: u64,
}

impl Keys {
    fn new(secret: Vec<u8>) -> Keys {
        let key = UnboundKey::new(&AES_128_GCM, &expand(&secret, b"key", 16));
        let key = LessSafeKey::new(key.expect("16 bytes are a key"));
        Keys { iv: expand(&secret, b"iv", 12), secret, key, records: 0 }
    }

    fn next(&self) -> Keys {
        Keys::new(expand(&self.secret, b"traffic upd", 32))
    }

    fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        const TAG_LEN: usize = 16;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.records.to_be_bytes());
        nonce.iter_mut().zip(&self.iv).for_each(|(byte, iv)| *byte ^= iv);
        self.records += 1;
        // A length that does not fit is a lie, which peers may tell.
        let len = ((inner.len() + TAG_LEN) as u16).to_be_bytes();
        let header = [DATA, 3, 3, len[0], len[1]];
        let mut sealed = inner.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(header), &mut sealed)
            .expect("it is short enough");
        [&header[..], &sealed].concat()
    }
}

/// HKDF-Expand-Label without a context (RFC 8446 §7.1).
fn expand(secret: &[u8], label: &[u8], len: usize) -> Vec<u8> {
    struct Len(usize);
    impl KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let prk = Prk::new_less_safe(HKDF_SHA256, secret);
    let label_len = [6 + label.len() as u8];
    let out_len = (len as u16).to_be_bytes();
    let info = [&out_len[..], &label_len, b"tls13 ", label, &[0]];
    let mut out = vec![0; len];
    let okm = prk.expand(&info, Len(len)).expect("it is not long");
    okm.fill(&mut out).expect("as long as was said");
    out
}

/// The secret that a client's first application keys come from.
#[derive(Debug, Default)]
struct Secret(Mutex<Option<Vec<u8>>>);

impl Secret {
    fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl KeyLog for Secret {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == "CLIENT_TRAFFIC_SECRET_0" {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(secret.to_vec());
        }
    }
}
