//! What RFC 9110 and RFC 9112 ask of a server, clause by clause: requests as bytes, and what each
//! must be answered.
//!
//! The tables are `clauses/rfc9110.txt` and `clauses/rfc9112.txt`. A row begins with its clause and
//! is one connection:
//!
//! ```text
//! §14.1.2 a suffix                      the clause, and what it comes to
//! > GET {own} HTTP/1.1                  lines that are sent, each with CRLF, but for the last one
//! > Range: bytes=-2                     unless that is empty, and for one that ends in …
//! >
//! < eof                                 our side is ended
//! < 206                                 an answer with this status, and of it:
//! < Content-Range: bytes 24-25/26         a field, or that it is there:  < Date
//! < !Location                             a field that is not there
//! < = yz                                  all of its content
//! < ~ not_found                           an error with this code
//! < version HTTP/1.1                      the version it names
//! < closes                              the connection ends, and what came behind is not answered
//! ```
//!
//! A row without `closes` sends a plain GET at its end, which must be answered. `\\r`, `\\n`, `\\t`
//! and `\\xNN` are bytes, `{300}` is so many letters, and the names in braces are in `Names`.

use crate::common::{
    Data, Node, Object,
    curl::Curl,
    http::{Peer, Response},
    named,
};

const RFC9110: &str = include_str!("clauses/rfc9110.txt");
const RFC9112: &str = include_str!("clauses/rfc9112.txt");

/// What is stored before the first row.
struct Stored {
    own: Object,
    long: Object,
    empty: Object,
}

impl Stored {
    fn new() -> Stored {
        let own = named(b"abcdefghijklmnopqrstuvwxyz".to_vec());
        Stored { own, long: named(vec![b'x'; 100]), empty: named(Vec::new()) }
    }

    /// What stands for the names in braces.
    fn names(&self) -> Vec<(&'static str, String)> {
        let path = |object: &Object| format!("/o/{}", object.addr);
        let of = |bytes: &[u8]| path(&named(bytes.to_vec()));
        vec![
            ("{own}", path(&self.own)),
            ("{long}", path(&self.long)),
            ("{empty}", path(&self.empty)),
            ("{missing}", of(b"never stored")),
            ("{hello}", of(b"hello")),
            ("{new}", of(b"new")),
            ("{content}", String::from_utf8(self.own.bytes.clone()).expect("it is text")),
            ("{hex}", self.own.addr.replace("b3:", "")),
            ("{tag}", format!("\"{}\"", self.own.addr)),
            ("{methods}", "GET, HEAD, PUT, DELETE".to_owned()),
        ]
    }
}

/// A text of the table as the bytes that it stands for.
fn bytes(text: &str, names: &[(&str, String)]) -> Vec<u8> {
    let text = names.iter().fold(text.to_owned(), |text, (name, is)| text.replace(name, is));
    let (mut out, mut rest) = (Vec::new(), &text[..]);
    while let Some(at) = rest.find(['\\', '{']) {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let len = match &rest[at..] {
            escape if escape.starts_with("\\r") => (out.push(b'\r'), 2).1,
            escape if escape.starts_with("\\n") => (out.push(b'\n'), 2).1,
            escape if escape.starts_with("\\t") => (out.push(b'\t'), 2).1,
            escape if escape.starts_with("\\x") => {
                out.push(u8::from_str_radix(&escape[2..4], 16).expect("two digits"));
                4
            }
            brace if brace.starts_with('{') => {
                let end = brace.find('}').expect("a brace is closed");
                let count: usize = brace[1..end].parse().expect("a name, or a number");
                out.resize(out.len() + count, b'x');
                end + 1
            }
            other => panic!("{other:?} is no escape"),
        };
        rest = &rest[at + len..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// One row, its lines without their marks.
struct Row<'a> {
    title: &'a str,
    sent: Vec<&'a str>,
    expected: Vec<&'a str>,
}

fn rows(table: &str) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('§') {
            rows.push(Row { title: line, sent: Vec::new(), expected: Vec::new() });
            continue;
        }
        let row = rows.last_mut().expect("a row begins with its clause");
        let text = line.get(2..).unwrap_or_default();
        match line.as_bytes()[0] {
            b'>' if row.expected.is_empty() => row.sent.push(text),
            b'<' if !row.sent.is_empty() => row.expected.push(text),
            _ => panic!("{}: {line:?}", row.title),
        }
    }
    rows
}

impl Row<'_> {
    fn closes(&self) -> bool {
        self.expected.last() == Some(&"closes")
    }

    fn is_cut(&self) -> bool {
        self.sent.last().is_some_and(|line| line.ends_with('…'))
    }

    fn request(&self, names: &[(&str, String)]) -> Vec<u8> {
        let mut all = Vec::new();
        for (at, line) in self.sent.iter().enumerate() {
            let is_last = at + 1 == self.sent.len();
            all.extend_from_slice(&bytes(line.trim_end_matches('…'), names));
            if !line.ends_with('…') && (!is_last || line.is_empty()) {
                all.extend_from_slice(b"\r\n");
            }
        }
        // Nobody can know, or is to know, that this is a request.
        if self.closes() && !self.is_cut() {
            let own = bytes("GET {own} HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n", names);
            all.extend_from_slice(&own);
        }
        all
    }

    /// The methods of what is answered, in order.
    fn methods(&self) -> impl Iterator<Item = &str> {
        let lines = self.sent.iter().filter(|line| line.contains(" HTTP/"));
        lines.map(|line| line.trim_start_matches("hello").split(' ').next().unwrap_or_default())
    }

    /// Does what the row says on a connection of its own.
    fn run(&self, node: &Node, names: &[(&str, String)]) {
        let said = |text: &str| String::from_utf8_lossy(&bytes(text, names)).into_owned();
        let mut peer = Peer::new(node.connect());
        peer.send(&self.request(names));
        let (mut methods, mut answer) = (self.methods(), None::<Response>);
        for line in &self.expected {
            let last = || answer.as_ref().unwrap_or_else(|| panic!("{}: no answer", self.title));
            let what = format!("{}: {line}, {answer:?}", self.title);
            if let Ok(status) = line.parse::<u16>() {
                let method = if status == 100 { "PUT" } else { methods.next().unwrap_or("GET") };
                let next = peer.try_response(method).unwrap_or_else(|| panic!("{what}: the end"));
                assert_eq!(next.status, status, "{}: {next:?}", self.title);
                answer = Some(next);
            } else if *line == "eof" {
                peer.shutdown();
            } else if *line == "closes" {
                peer.expect_end();
            } else if let Some(code) = line.strip_prefix("~ ") {
                assert_eq!(last().envelope(), code, "{what}");
            } else if let Some(version) = line.strip_prefix("version ") {
                assert_eq!(last().version, version, "{what}");
            } else if let Some(content) = line.strip_prefix('=') {
                let content = bytes(content.strip_prefix(' ').unwrap_or(content), names);
                assert!(last().body == content, "{what}");
            } else if let Some(name) = line.strip_prefix('!') {
                assert_eq!(last().field(name), None, "{what}");
            } else if let Some((name, value)) = line.split_once(": ") {
                assert_eq!(last().field(name), Some(&*said(value)), "{what}");
            } else {
                assert!(last().field(line).is_some(), "{what}");
            }
        }
        if !self.closes() {
            let next = peer.get(&said("{own}"));
            assert_eq!((next.status, &next.body[..]), (200, said("{content}").as_bytes()));
        }
    }
}

fn run(table: &str, rows_min: usize, sections: std::ops::RangeInclusive<u32>) {
    let rows = rows(table);
    assert!(rows.len() >= rows_min, "{} rows are found", rows.len());
    let (data, stored) = (Data::new(), Stored::new());
    let node = data.setup().args(&["--deadline-head", "2"]).start();
    for object in [&stored.own, &stored.long, &stored.empty] {
        Curl::http(&node).store(object);
    }
    let names = stored.names();
    for row in &rows {
        let number: String = row.title.chars().skip(1).take_while(char::is_ascii_digit).collect();
        let section: u32 = number.parse().expect("a clause has a number");
        assert!(sections.contains(&section), "{} is of another document", row.title);
        assert!(row.expected.iter().any(|line| *line == "closes" || line.parse::<u16>().is_ok()));
        row.run(&node, &names);
    }
    assert_eq!(node.metrics().sum("ron_inflight"), 0);
    node.terminate();
}

#[test]
fn rfc_9110() {
    run(RFC9110, 115, 8..=15);
}

#[test]
fn rfc_9112() {
    run(RFC9112, 70, 2..=9);
}

/// RFC 9110 §9.3.2: every field of a GET, whatever is asked for.
#[test]
fn head_has_the_fields_of_get() {
    let (data, stored) = (Data::new(), Stored::new());
    let node = data.start(1);
    Curl::http(&node).store(&stored.own);
    let names = stored.names();
    let mut peer = Peer::new(node.connect());
    for path in ["{own}", "{missing}", "/o/", "/o/x", "/", "{own}/Manifest.toml", "{own}?x"] {
        for fields in [
            "",
            "If-None-Match: {tag}\\r\\n",
            "If-Match: \"x\"\\r\\n",
            "Accept-Encoding: *;q=0\\r\\n",
            "Accept-Encoding: br, gzip\\r\\n",
            "Content-Length: 0\\r\\n",
            "If-Range: {tag}\\r\\n",
        ] {
            let mut ask = |method: &str| {
                let lines = "Host: localhost\\r\\nX-Corr-Id: same\\r\\n";
                let text = format!("{method} {path} HTTP/1.1\\r\\n{lines}{fields}\\r\\n");
                peer.send(&bytes(&text, &names));
                let mut answer = peer.response(method);
                answer.fields.retain(|(name, _)| name != "Date");
                answer
            };
            let (get, head) = (ask("GET"), ask("HEAD"));
            assert_eq!((head.status, head.fields), (get.status, get.fields), "{path} {fields}");
            assert!(head.body.is_empty());
        }
    }
    node.terminate();
}
