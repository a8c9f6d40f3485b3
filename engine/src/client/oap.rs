//! OAP/1 to a node: get, over TLS 1.3.
//!
//! ```text
//!   Description ──RESP|START, JSON──► Data ──RESP … RESP|END──► done
//!        └────────── RESP|END with a code of an error ──────────┴──► refused
//! ```
//!
//! One connection, one stream. Every frame is checked against the question: its stream, its flags,
//! its code, and the description against what was asked for. Anything else ends the transfer.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use ron_codec::{
    address::Address,
    error::ErrorReply,
    oap::{
        APP_STORAGE, Deframer, Flags, FrameHeader, GetRequest, Meta, Piece, append_frame,
        parse_answer, write_get_request,
    },
};
use rustls::{
    ClientConnection, StreamOwned,
    pki_types::{CertificateDer, ServerName},
};

use super::{
    args::{Cap, HostPort, Range},
    download::{Download, Part},
    error::{AnswerFault, ClientError},
    http::{is_tls, is_unreachable},
    tls,
};

/// The one stream of the connection.
const CORR_ID: u64 = 1;

/// Longest JSON of an answer that is read.
const JSON_LEN_MAX: u32 = 16 * 1024;

/// Bytes that are read from the connection at once.
const READ_LEN: usize = 128 * 1024;

/// The lowest code of an error.
const CODE_ERROR_MIN: u16 = 400;

/// A node that speaks OAP/1.
pub(super) struct Oap<'a> {
    pub(super) at: &'a HostPort,
    /// The name that its certificate must be for; the host when absent.
    pub(super) name: Option<&'a str>,
    pub(super) cap: Option<&'a Cap>,
    /// The certificates to trust.
    pub(super) ca: &'a [CertificateDer<'static>],
    pub(super) timeout: Duration,
}

impl Oap<'_> {
    /// Fetches an object, or a part of it, into `download`. Returns whether it was verified.
    ///
    /// # Errors
    ///
    /// Those of the connection, the node and the download.
    pub(super) fn get(
        &self,
        address: &Address,
        range: Option<&Range>,
        download: &mut Download,
    ) -> Result<bool, ClientError> {
        let mut request = GetRequest { meta: true, ..GetRequest::whole(*address) };
        if let Some(range) = range {
            (request.offset, request.len) = (range.first, range.len_max());
        }
        let mut stream = self.connect()?;
        self.ask(&mut stream, &request)?;
        let mut answer = Answer::new(*address, &request, download);
        receive(&mut stream, &mut answer)?;
        // The answer is complete, so it does not matter whether the goodbye arrives.
        stream.conn.send_close_notify();
        let _ = stream.flush();
        download.finish()
    }

    fn connect(&self) -> Result<StreamOwned<ClientConnection, TcpStream>, ClientError> {
        let name = self.name.unwrap_or(&self.at.host);
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| ClientError::ServerName { name: name.to_owned() })?;
        let untrusted = |error: rustls::Error| ClientError::Untrusted {
            node: self.at.to_string(),
            reason: error.to_string(),
        };
        let config = tls::oap_config(self.ca).map_err(untrusted)?;
        let mut socket = self.connect_tcp()?;
        let mut conn = ClientConnection::new(config, server_name).map_err(untrusted)?;
        while conn.is_handshaking() {
            conn.complete_io(&mut socket).map_err(|error| self.broken(&error))?;
        }
        Ok(StreamOwned::new(conn, socket))
    }

    fn connect_tcp(&self) -> Result<TcpStream, ClientError> {
        let unreachable =
            |reason: String| ClientError::Unreachable { node: self.at.to_string(), reason };
        let places = (self.at.host.as_str(), self.at.port).to_socket_addrs();
        let places = places.map_err(|error| unreachable(error.to_string()))?;
        let mut last = "the name has no address".to_owned();
        for place in places {
            match TcpStream::connect_timeout(&place, self.timeout) {
                Ok(socket) => {
                    let set = socket
                        .set_nodelay(true)
                        .and_then(|()| socket.set_read_timeout(Some(self.timeout)))
                        .and_then(|()| socket.set_write_timeout(Some(self.timeout)));
                    return set.map(|()| socket).map_err(|error| self.broken(&error));
                }
                Err(error) => last = error.to_string(),
            }
        }
        Err(unreachable(last))
    }

    fn ask(&self, stream: &mut impl Write, request: &GetRequest) -> Result<(), ClientError> {
        let mut payload = Vec::new();
        write_get_request(&mut payload, request);
        let head = FrameHeader {
            // OAP/1 §6.1
            flags: Flags::REQ | Flags::START | Flags::END,
            app_proto_id: APP_STORAGE,
            corr_id: CORR_ID,
            ..FrameHeader::default()
        };
        let cap = self.cap.map_or(&b""[..], |cap| cap.secret().as_bytes());
        let mut frame = Vec::new();
        append_frame(&head, cap, &payload, &mut frame)
            .map_err(|error| ClientError::Request { reason: error.to_string() })?;
        let sent = stream.write_all(&frame).and_then(|()| stream.flush());
        sent.map_err(|error| self.broken(&error))
    }

    /// What a failure before the answer means.
    fn broken(&self, error: &io::Error) -> ClientError {
        let (node, reason) = (self.at.to_string(), error.to_string());
        if is_tls(error) {
            ClientError::Untrusted { node, reason }
        } else if is_unreachable(error) {
            ClientError::Unreachable { node, reason }
        } else {
            ClientError::Lost { got: 0, len: None, reason }
        }
    }
}

/// Feeds what arrives to `answer` until that is complete.
fn receive(stream: &mut impl Read, answer: &mut Answer<'_>) -> Result<(), ClientError> {
    let mut deframer = Deframer::new();
    let mut buffer = vec![0; READ_LEN];
    loop {
        let read = match stream.read(&mut buffer) {
            Ok(0) => return Err(answer.lost("the node closed it".to_owned())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(answer.lost(error.to_string())),
        };
        let mut input = &buffer[..read];
        while let Some(piece) = deframer.next(&mut input).map_err(AnswerFault::Frame)? {
            if answer.on_piece(piece)? {
                return Ok(());
            }
        }
    }
}

/// The node's answer, as far as it has arrived.
struct Answer<'a> {
    address: Address,
    offset: u64,
    len_max: Option<u64>,
    /// 0 or 206, as the request is for all bytes or for some.
    code: u16,
    download: &'a mut Download,
    /// The current frame.
    head: FrameHeader,
    /// The JSON of the current frame.
    json: Vec<u8>,
}

impl<'a> Answer<'a> {
    fn new(address: Address, request: &GetRequest, download: &'a mut Download) -> Self {
        Self {
            address,
            offset: request.offset,
            len_max: request.len,
            // OAP/1 §6.4
            code: if request.is_range() { 206 } else { 0 },
            download,
            head: FrameHeader::default(),
            json: Vec::new(),
        }
    }

    /// Takes the next piece, and says whether it was the last.
    fn on_piece(&mut self, piece: Piece<'_>) -> Result<bool, ClientError> {
        match piece {
            Piece::Head(head) => self.on_head(head).map(|()| false),
            // `on_head` has refused every frame with a capability.
            Piece::Cap(_) => Err(self.unexpected()),
            Piece::Payload(bytes) if self.is_json() => {
                self.json.extend_from_slice(bytes);
                Ok(false)
            }
            Piece::Payload(bytes) => self.download.write(bytes).map(|()| false),
            Piece::End => self.on_end(),
        }
    }

    fn on_head(&mut self, head: FrameHeader) -> Result<(), ClientError> {
        self.head = head;
        self.json.clear();
        let flags = head.flags;
        let strange =
            [Flags::REQ, Flags::EVENT, Flags::COMP].iter().any(|bit| flags.contains(*bit));
        // OAP/1 §2.6, and §3.5 for the answer to a frame that the node could not read.
        let ours = head.corr_id == CORR_ID && head.app_proto_id == APP_STORAGE;
        let expected = if self.is_error() {
            flags.contains(Flags::END) && (ours || head.corr_id == 0)
        } else {
            // OAP/1 §6.5, §6.6: START comes once, with the description.
            ours && head.code == self.code
                && flags.contains(Flags::START) != self.download.has_begun()
        };
        let fits = head.cap_len == 0 && (!self.is_json() || head.payload_len <= JSON_LEN_MAX);
        if strange || !flags.contains(Flags::RESP) || !expected || !fits {
            return Err(self.unexpected());
        }
        Ok(())
    }

    fn on_end(&mut self) -> Result<bool, ClientError> {
        if self.is_error() {
            return Err(ClientError::Node {
                status: self.head.code,
                reply: ErrorReply::parse(&self.json).unwrap_or_default(),
                retry_after: None,
                begun: self.download.has_begun(),
            });
        }
        if self.is_json() {
            let meta: Meta = parse_answer(&self.json).map_err(AnswerFault::Payload)?;
            self.download.begin(self.part(&meta)?)?;
        }
        Ok(self.head.flags.contains(Flags::END))
    }

    /// What the description announces, if it answers the question.
    fn part(&self, meta: &Meta) -> Result<Part, ClientError> {
        // OAP/1 §6.4
        let rest = meta.size.checked_sub(self.offset).ok_or(AnswerFault::Meta)?;
        let len = self.len_max.map_or(rest, |max| max.min(rest));
        if meta.obj != self.address || meta.offset != self.offset || meta.len != len {
            return Err(AnswerFault::Meta.into());
        }
        let whole = meta.offset == 0 && meta.len == meta.size;
        Ok(Part { offset: meta.offset, len: Some(len), whole })
    }

    fn is_error(&self) -> bool {
        self.head.code >= CODE_ERROR_MIN
    }

    /// Whether the payload of the current frame is JSON, not data.
    fn is_json(&self) -> bool {
        self.is_error() || !self.download.has_begun()
    }

    fn unexpected(&self) -> ClientError {
        let FrameHeader { flags, code, corr_id, .. } = self.head;
        AnswerFault::Unexpected { flags: flags.bits(), code, corr_id }.into()
    }

    fn lost(&self, reason: String) -> ClientError {
        let (got, len) = self.download.position();
        ClientError::Lost { got, len, reason }
    }
}
