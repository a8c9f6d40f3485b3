//! HTTP/1.1 by hand over one connection, for what no well-behaved client sends.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
};

use serde_json::Value;

/// One end of a connection to a node.
pub struct Peer {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// `HTTP/1.1`.
    pub version: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a field, whatever its case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} is there twice");
        value
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// Checks that this is an error as every error must be; returns its code.
    pub fn envelope(&self) -> String {
        assert_eq!(self.field("content-type"), Some("application/json"));
        let envelope = self.json();
        let fields = envelope.as_object().expect("an envelope is an object");
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        assert_eq!(names, ["code", "corr_id", "message", "retryable"], "{envelope}");
        assert_eq!(fields["corr_id"].as_str(), self.field("x-corr-id"));
        assert!(fields["retryable"].is_boolean());
        let message = fields["message"].as_str().expect("a message is text");
        assert!(
            !message.is_empty() && message.len() < 200 && !message.contains("/tmp"),
            "{message}"
        );
        fields["code"].as_str().expect("a code is text").to_owned()
    }

    /// The parts of a `multipart/byteranges`: what each says that it is, and its bytes.
    pub fn parts(&self) -> Vec<(String, Vec<u8>)> {
        let kind = self.field("content-type").expect("content has a type");
        let (kind, boundary) = kind.split_once("; boundary=").expect("parts have a boundary");
        assert_eq!(kind, "multipart/byteranges");
        let delimiter = format!("\r\n--{boundary}");
        let find = |bytes: &[u8], wanted: &[u8]| {
            bytes.windows(wanted.len()).position(|some| some == wanted).expect("it is there")
        };
        // The line end before the first one may be that of the head.
        let body = self.body.strip_prefix(b"\r\n").unwrap_or(&self.body);
        let first = &delimiter.as_bytes()[2..];
        let mut rest = body.strip_prefix(first).expect("it begins with a delimiter");
        let mut parts = Vec::new();
        while let Some(part) = rest.strip_prefix(b"\r\n") {
            let head_end = find(part, b"\r\n\r\n");
            let head = std::str::from_utf8(&part[..head_end]).expect("heads are text");
            let range = head.split_once("Content-Range: ").expect("each part says what it is").1;
            let content = &part[head_end + 4..];
            let end = find(content, delimiter.as_bytes());
            parts.push((range.to_owned(), content[..end].to_vec()));
            rest = &content[end + delimiter.len()..];
        }
        assert_eq!(rest, b"--\r\n", "it ends with a delimiter");
        parts
    }

    /// Whether the node keeps the connection, as far as it says.
    pub fn keeps(&self) -> bool {
        let connection = self.field("connection").unwrap_or_default().to_ascii_lowercase();
        match self.version.as_str() {
            "HTTP/1.1" => connection != "close",
            _ => connection == "keep-alive",
        }
    }
}

impl Peer {
    pub fn new(stream: TcpStream) -> Peer {
        let reader = BufReader::new(stream.try_clone().expect("a socket can be shared"));
        Peer { stream, reader }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the node takes what it is sent");
    }

    /// Sends. Returns whether that was possible.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// A GET of a path on this connection.
    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        self.response("GET")
    }

    /// A PUT of bytes on this connection; `None` when it broke.
    pub fn try_put(&mut self, addr: &str, bytes: &[u8]) -> Option<Response> {
        let head = put_head(addr, bytes.len());
        (self.try_send(head.as_bytes()) && self.try_send(bytes)).then_some(())?;
        self.try_response("PUT")
    }

    /// The next answer, to a request with this method.
    pub fn response(&mut self, method: &str) -> Response {
        self.try_response(method).expect("there is an answer")
    }

    /// The next answer, or `None` when the connection ended before there was a whole one.
    pub fn try_response(&mut self, method: &str) -> Option<Response> {
        let mut response = self.try_head()?;
        let bodiless = method == "HEAD" || matches!(response.status, 100 | 204 | 304);
        let len = response.field("content-length").map_or(0, |len| len.parse().expect("a length"));
        if !bodiless {
            response.body = vec![0; len];
            self.reader.read_exact(&mut response.body).ok()?;
        }
        Some(response)
    }

    /// The next head, its body still to come.
    pub fn try_head(&mut self) -> Option<Response> {
        let first = self.line()?;
        let mut words = first.splitn(3, ' ');
        let version = words.next()?.to_owned();
        assert!(version.starts_with("HTTP/1."), "{first:?}");
        let status = words.next()?.parse().expect("a status is a number");
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").expect("a field has a colon and a space");
            fields.push((name.to_owned(), value.to_owned()));
        }
        Some(Response { status, version, fields, body: Vec::new() })
    }

    /// One line, which must end as lines end.
    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).ok()?;
        let line = line.strip_suffix(b"\r\n")?;
        Some(String::from_utf8(line.to_vec()).expect("heads are text"))
    }

    /// Exactly so many bytes of a body, or what came of them.
    pub fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A connection that was cut has given what it has given.
        let _ = (&mut self.reader).take(len as u64).read_to_end(&mut bytes);
        bytes
    }

    /// Expects that the node sends nothing more and closes.
    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection is still open: {error}"),
        }
        assert!(rest.is_empty(), "more came: {:?}", String::from_utf8_lossy(&rest));
    }

    /// The same connection, for a thread that sends while this one reads.
    pub fn sender(&self) -> TcpStream {
        self.stream.try_clone().expect("it is a socket")
    }

    /// Ends our side.
    pub fn shutdown(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is open");
    }
}

/// The head of a PUT.
pub fn put_head(addr: &str, len: usize) -> String {
    format!("PUT /o/{addr} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n\r\n")
}
