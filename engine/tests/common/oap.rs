//! An OAP/1 client of its own: frames are written and read here by hand, from `docs/OAP1.md` alone,
//! so that a mistake in the node's codec cannot hide itself.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};

use super::{Node, Object, assert_same, connect};

pub const REQ: u16 = 1;
pub const RESP: u16 = 2;
pub const EVENT: u16 = 4;
pub const START: u16 = 8;
pub const END: u16 = 16;
pub const ACK_REQ: u16 = 32;
pub const COMP: u16 = 64;
pub const APP_E2E: u16 = 128;

pub const HELLO: u16 = 0;
pub const MAILBOX: u16 = 0x0201;
pub const STORAGE: u16 = 0x0301;

pub const MAX_FRAME: usize = 1024 * 1024;
/// Bytes of a header that `len` counts.
const FIXED: usize = 33;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub flags: u16,
    pub code: u16,
    pub app: u16,
    pub tenant: u128,
    pub corr: u64,
    pub cap: Vec<u8>,
    pub payload: Vec<u8>,
}

/// A frame of a client for a stream of storage.
pub fn frame(flags: u16, corr: u64, payload: &[u8]) -> Frame {
    let payload = payload.to_vec();
    Frame { flags, code: 0, app: STORAGE, tenant: 0, corr, cap: Vec::new(), payload }
}

/// The first frame of a stream of storage.
pub fn request(corr: u64, json: &Value) -> Frame {
    frame(REQ | START, corr, json.to_string().as_bytes())
}

impl Frame {
    pub fn encode(&self) -> Vec<u8> {
        let len = FIXED + self.cap.len() + self.payload.len();
        let mut out = Vec::with_capacity(4 + len);
        out.extend_from_slice(&(len as u32).to_le_bytes());
        out.push(1);
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.extend_from_slice(&self.code.to_le_bytes());
        out.extend_from_slice(&self.app.to_le_bytes());
        out.extend_from_slice(&self.tenant.to_le_bytes());
        out.extend_from_slice(&(self.cap.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.corr.to_le_bytes());
        out.extend_from_slice(&self.cap);
        out.extend_from_slice(&self.payload);
        out
    }

    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag == flag
    }

    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.payload);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    /// Checks that this is an error as every error must be; returns its status and code.
    pub fn error(&self) -> (u16, String) {
        assert_eq!(self.flags, RESP | END, "an error is RESP|END: {self:?}");
        let envelope = self.json();
        let fields = envelope.as_object().expect("an envelope is an object");
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        let mut wanted = vec!["code", "corr_id", "message", "retryable"];
        if matches!(self.code, 429 | 503) {
            wanted.insert(3, "retry_after_ms");
            assert!(fields["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0));
        }
        assert_eq!(names, wanted);
        assert_eq!(fields["corr_id"], json!(self.corr.to_string()));
        assert!(fields["retryable"].is_boolean() && fields["message"].is_string());
        (self.code, fields["code"].as_str().expect("a code is text").to_owned())
    }
}

/// Reads one frame; `None` at the end of the connection.
pub fn read_frame(from: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut len = [0; 4];
    match from.read_exact(&mut len) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let len = u32::from_le_bytes(len) as usize;
    assert!((FIXED..=MAX_FRAME).contains(&len), "the node sent a frame of length {len}");
    let mut rest = vec![0; len];
    from.read_exact(&mut rest)?;
    assert_eq!(rest[0], 1, "the version of the node's frames");
    let u16_at = |at: usize| u16::from_le_bytes([rest[at], rest[at + 1]]);
    let cap_len = usize::from(u16_at(23));
    assert_eq!(cap_len, 0, "answers carry no capability");
    let frame = Frame {
        flags: u16_at(1),
        code: u16_at(3),
        app: u16_at(5),
        tenant: u128::from_le_bytes(rest[7..23].try_into().expect("16 bytes")),
        corr: u64::from_le_bytes(rest[25..33].try_into().expect("8 bytes")),
        cap: Vec::new(),
        payload: rest[33..].to_vec(),
    };
    assert!(frame.has(RESP) && !frame.has(REQ), "flags of the node: {:#x}", frame.flags);
    assert_eq!(frame.flags & 0xff00, 0, "reserved flags are zero when sent");
    Ok(Some(frame))
}

/// What a client's bytes go through.
enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.read(buf),
            Wire::Tls(stream) => stream.read(buf),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.write(buf),
            Wire::Tls(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(stream) => stream.flush(),
            Wire::Tls(stream) => stream.flush(),
        }
    }
}

/// How a client speaks TLS with a node: it trusts its CA, and speaks one protocol inside.
pub fn client_config(node: &Node, alpn: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let pem = fs::read(node.ca()).expect("the CA can be read");
    let ca = CertificateDer::from_pem_slice(&pem).expect("the CA is a certificate");
    roots.add(ca).expect("the CA can be trusted");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is built in")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

/// A client on one connection.
pub struct Oap {
    wire: Wire,
    last_corr: u64,
}

/// What a get was answered.
#[derive(Debug)]
pub struct Got {
    pub code: u16,
    pub bytes: Vec<u8>,
    /// The JSON before the bytes, when `meta` was asked for.
    pub meta: Option<Value>,
    /// The error that ended it.
    pub error: Option<(u16, String)>,
    pub frames: usize,
}

impl Oap {
    /// A connection to the listener without TLS.
    pub fn plain(node: &Node) -> Oap {
        Oap { wire: Wire::Plain(connect(node.at("oap_plain"))), last_corr: 0 }
    }

    /// A connection to the listener with TLS.
    pub fn tls(node: &Node) -> Oap {
        Oap::tls_at(node, node.at("oap"))
    }

    /// A connection with TLS to an address of the node that its ready line does not tell.
    pub fn tls_at(node: &Node, at: SocketAddr) -> Oap {
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(client_config(node, b"ron/1"), name)
            .expect("the settings are good");
        let stream = StreamOwned::new(client, connect(at));
        Oap { wire: Wire::Tls(Box::new(stream)), last_corr: 0 }
    }

    /// Both kinds of connection.
    pub fn both(node: &Node) -> [Oap; 2] {
        [Oap::tls(node), Oap::plain(node)]
    }

    /// Changes the keys of the connection, and asks the node to change its own.
    pub fn update_keys(&mut self) {
        if let Wire::Tls(stream) = &mut self.wire {
            stream.conn.refresh_traffic_keys().expect("keys can be changed");
            stream.flush().expect("the node takes it");
        }
    }

    pub fn new_corr(&mut self) -> u64 {
        self.last_corr += 1;
        self.last_corr
    }

    pub fn send(&mut self, frame: &Frame) {
        self.send_bytes(&frame.encode());
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.wire.write_all(bytes).expect("the node takes what it is sent");
        self.wire.flush().expect("the node takes what it is sent");
    }

    /// The next frame.
    pub fn recv(&mut self) -> Frame {
        let frame = read_frame(&mut self.wire).expect("the connection holds");
        frame.expect("there is a frame")
    }

    /// Expects that the node sends nothing more and closes.
    pub fn expect_end(&mut self) {
        match read_frame(&mut self.wire) {
            Ok(None) => {}
            Ok(Some(frame)) => panic!("more came: {frame:?}"),
            Err(error) => assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "it is still open"),
        }
    }

    /// Asks for what the node can do, and returns the answer. Nothing else may come before it.
    pub fn hello(&mut self) -> Frame {
        let corr = self.new_corr();
        self.send(&Frame { app: HELLO, ..frame(REQ, corr, b"") });
        let answer = self.recv();
        assert_eq!((answer.app, answer.corr, answer.code), (HELLO, corr, 0), "{answer:?}");
        answer
    }

    /// A request that is answered by one frame.
    pub fn ask(&mut self, json: &Value) -> Frame {
        let corr = self.new_corr();
        self.send(&request(corr, json));
        let answer = self.recv();
        assert_eq!((answer.app, answer.corr), (STORAGE, corr), "{answer:?}");
        answer
    }

    /// A get, alone on this connection.
    pub fn get(&mut self, json: &Value) -> Got {
        let corr = self.new_corr();
        self.send(&request(corr, json));
        let mut gathering = Gathering::new(json["meta"] == json!(true));
        loop {
            let frame = self.recv();
            assert_eq!(frame.corr, corr, "{frame:?}");
            if gathering.take(&frame) {
                return gathering.got;
            }
        }
    }

    /// Fetches an object and expects that it is right.
    pub fn check(&mut self, object: &Object) {
        let got = self.get(&json!({"op": "get", "addr": object.addr}));
        assert_eq!((got.code, &got.error), (0, &None), "{}", object.addr);
        assert_same(&got.bytes, &object.bytes, &object.addr);
    }

    /// A put in frames of so many bytes; its answer.
    pub fn put(&mut self, bytes: &[u8], addr: Option<&str>, frame_len: usize) -> Frame {
        let corr = self.new_corr();
        let mut json = json!({"op": "put", "len": bytes.len()});
        if let Some(addr) = addr {
            json["addr"] = addr.into();
        }
        self.send(&request(corr, &json));
        for chunk in bytes.chunks(frame_len) {
            self.send(&frame(REQ, corr, chunk));
        }
        self.send(&frame(REQ | END, corr, b""));
        let answer = self.recv();
        assert_eq!(answer.corr, corr);
        answer
    }
}

/// Puts the frames of one get together, checking their order.
pub struct Gathering {
    pub got: Got,
    wants_meta: bool,
}

impl Gathering {
    pub fn new(wants_meta: bool) -> Gathering {
        let got = Got { code: 0, bytes: Vec::new(), meta: None, error: None, frames: 0 };
        Gathering { got, wants_meta }
    }

    /// Takes the next frame; true when it was the last.
    pub fn take(&mut self, frame: &Frame) -> bool {
        let got = &mut self.got;
        if frame.code >= 400 {
            got.error = Some(frame.error());
            return true;
        }
        assert_eq!(frame.has(START), got.frames == 0, "START is on the first frame only");
        assert!(got.frames == 0 || frame.code == got.code, "the code does not change");
        got.code = frame.code;
        got.frames += 1;
        if self.wants_meta && got.frames == 1 {
            got.meta = Some(frame.json());
        } else {
            assert!(frame.payload.len() <= super::GROUP, "a chunk has {}", frame.payload.len());
            got.bytes.extend_from_slice(&frame.payload);
        }
        frame.has(END)
    }
}
