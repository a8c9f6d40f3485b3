//! Nodes of a few lines, for the tests of the client: each answers as its test says.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ron_codec::oap::{
    APP_STORAGE, Deframer, Flags, FrameHeader, Piece, StorageRequest, append_frame,
};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use super::tls;

/// A request that never ends shall not keep a test.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node that takes one connection for each of `answers`, reads one request from it, sends the
/// answer and closes. Joining it yields the requests as they came.
pub(super) fn http_node(answers: Vec<Vec<u8>>) -> (String, JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = move || {
        answers.iter().map(|answer| serve_http(listener.accept().unwrap().0, answer)).collect()
    };
    (url, thread::spawn(serve))
}

/// An answer with the fields every answer needs, and those of `fields`, each ended by CRLF.
pub(super) fn http_answer(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let len = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\n{fields}Connection: close");
    [head.as_bytes(), b"\r\n\r\n", body].concat()
}

fn serve_http(mut socket: TcpStream, answer: &[u8]) -> Vec<u8> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = Vec::new();
    let head_end = loop {
        if let Some(at) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        read_some(&mut socket, &mut request);
    };
    let head = String::from_utf8(request[..head_end].to_vec()).unwrap().to_lowercase();
    if head.contains("expect: 100-continue") && answer.starts_with(b"HTTP/1.1 2") {
        socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    } else if head.contains("expect: 100-continue") {
        socket.write_all(answer).unwrap();
        return request;
    }
    let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let len: usize = len.map_or(0, |len| len.parse().unwrap());
    let chunked = head.contains("transfer-encoding: chunked");
    while request.len() < head_end + len || chunked && !request.ends_with(b"0\r\n\r\n") {
        read_some(&mut socket, &mut request);
    }
    socket.write_all(answer).unwrap();
    request
}

fn read_some(stream: &mut impl Read, into: &mut Vec<u8>) {
    let mut buffer = [0; 64 * 1024];
    let read = stream.read(&mut buffer).unwrap();
    assert!(read > 0, "the client closed before its request was complete");
    into.extend_from_slice(&buffer[..read]);
}

/// What a node that speaks OAP/1 was asked.
pub(super) struct Asked {
    pub(super) head: FrameHeader,
    pub(super) cap: Vec<u8>,
    pub(super) request: StorageRequest,
}

/// A node that speaks OAP/1 to one client.
pub(super) struct OapNode {
    pub(super) at: String,
    /// The file of the certificate to trust.
    pub(super) ca: PathBuf,
    _dir: TempDir,
    serving: JoinHandle<Option<Asked>>,
}

impl OapNode {
    /// A node for `localhost` that reads one request, sends `answer` and closes.
    pub(super) fn start(answer: Vec<u8>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        let (config, ca_pem) = server_config();
        fs::write(&ca, ca_pem).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = format!("localhost:{}", listener.local_addr().unwrap().port());
        let serving =
            thread::spawn(move || serve_oap(listener.accept().unwrap().0, config, &answer));
        Self { at, ca, _dir: dir, serving }
    }

    /// What it was asked; nothing when there was no handshake.
    pub(super) fn asked(self) -> Option<Asked> {
        self.serving.join().unwrap()
    }
}

fn server_config() -> (Arc<ServerConfig>, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.into())
        .unwrap();
    config.alpn_protocols = vec![b"ron/1".to_vec()];
    (Arc::new(config), ca.pem())
}

fn serve_oap(mut socket: TcpStream, config: Arc<ServerConfig>, answer: &[u8]) -> Option<Asked> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut conn = ServerConnection::new(config).unwrap();
    while conn.is_handshaking() {
        conn.complete_io(&mut socket).ok()?;
    }
    assert_eq!(conn.alpn_protocol(), Some(&b"ron/1"[..]));
    let mut stream = StreamOwned::new(conn, socket);
    let asked = read_request(&mut stream);
    // The client may hang up as soon as it has seen enough.
    let _ = stream.write_all(answer);
    stream.conn.send_close_notify();
    let _ = stream.flush();
    Some(asked)
}

fn read_request(stream: &mut impl Read) -> Asked {
    let mut deframer = Deframer::new();
    let (mut head, mut cap, mut payload) = (FrameHeader::default(), Vec::new(), Vec::new());
    loop {
        let mut bytes = Vec::new();
        read_some(stream, &mut bytes);
        let mut input = &bytes[..];
        while let Some(piece) = deframer.next(&mut input).unwrap() {
            match piece {
                Piece::Head(found) => head = found,
                Piece::Cap(bytes) => cap.extend_from_slice(bytes),
                Piece::Payload(bytes) => payload.extend_from_slice(bytes),
                Piece::End => {
                    let request = StorageRequest::parse(&payload).unwrap();
                    return Asked { head, cap, request };
                }
            }
        }
    }
}

/// A frame of an answer on the stream that the client uses.
pub(super) fn frame(flags: Flags, code: u16, payload: &[u8]) -> Vec<u8> {
    let flags = Flags::RESP | flags;
    let head =
        FrameHeader { flags, code, app_proto_id: APP_STORAGE, corr_id: 1, ..Default::default() };
    let mut out = Vec::new();
    append_frame(&head, b"", payload, &mut out).unwrap();
    out
}
