//! HTTP/1.1 as a client that measures speaks it: requests are put together from pieces made
//! beforehand, and an answer's head is read as far as it says where its body ends.
//!
//! What is refused is what cannot be measured well: bodies in chunks, and bodies that end with the
//! connection.

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Response};
use memchr::memmem;

use super::{
    fault::Odd,
    mix::{Corpus, Job, Op},
    reply::{Body, Reply},
};

/// Longest head of an answer.
pub(super) const HEAD_LEN_MAX: usize = 64 * 1024;

/// Most fields of one.
const FIELDS_MAX: usize = 128;

/// Most answers of the kind 1xx before the one that counts.
const INTERIM_MAX: u32 = 8;

const HEAD_END: &[u8] = b"\r\n\r\n";

/// The parts of requests.
#[derive(Debug)]
pub(super) struct HttpRequests {
    /// What follows the path, without the empty line that ends the head.
    fields: Vec<u8>,
}

impl HttpRequests {
    /// For a server of this name. `extra` are fields for every head; `close` says that each
    /// connection is for one request.
    pub(super) fn new(authority: &str, extra: &[String], close: bool) -> Self {
        let mut fields = format!(" HTTP/1.1\r\nHost: {authority}\r\n");
        for field in extra {
            fields += field;
            fields += "\r\n";
        }
        if close {
            fields += "Connection: close\r\n";
        }
        Self { fields: fields.into_bytes() }
    }

    /// Appends the head of the request for `job`, and for [`Op::Put`] the beginning of the object.
    pub(super) fn write(&self, job: &Job, corpus: &Corpus, out: &mut Vec<u8>) {
        let method: &[u8] = match job.op {
            Op::Put => b"PUT ",
            Op::Has => b"HEAD ",
            Op::Fetch | Op::Get | Op::Range { .. } => b"GET ",
        };
        out.extend_from_slice(method);
        match (&corpus.path, job.address) {
            (Some(path), _) => out.extend_from_slice(path.as_bytes()),
            (None, Some(address)) => {
                out.extend_from_slice(b"/o/");
                out.extend_from_slice(&address.to_text());
            }
            // Every request but for the one path has an address.
            (None, None) => out.push(b'/'),
        }
        out.extend_from_slice(&self.fields);
        match job.op {
            Op::Range { first, len } => {
                out.extend_from_slice(b"Range: bytes=");
                number(first, out);
                out.push(b'-');
                number(first + len - 1, out);
                out.extend_from_slice(b"\r\n\r\n");
            }
            Op::Put => {
                out.extend_from_slice(b"Content-Length: ");
                number(corpus.classes[job.class].spec.size as u64, out);
                out.extend_from_slice(HEAD_END);
                out.extend_from_slice(&job.stamp);
            }
            Op::Fetch | Op::Get | Op::Has => out.extend_from_slice(b"\r\n"),
        }
    }
}

fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// An answer as far as it has arrived.
///
/// ```text
///   ┌──1xx──┐
///   ▼       │
///   Head ───┴──► Body ──► complete
/// ```
#[derive(Debug, Default)]
pub(super) struct HttpAnswer {
    state: State,
    /// The beginning of a head that came in pieces.
    held: Vec<u8>,
    bodiless: bool,
    interim: u32,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Head,
    Body {
        reply: Reply,
        left: u64,
    },
}

/// What is wanted of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    len: Option<u64>,
    close: bool,
    /// Its bytes.
    head_len: usize,
}

impl HttpAnswer {
    /// Prepares for the answer to `job`.
    pub(super) fn begin(&mut self, job: &Job) {
        self.state = State::Head;
        self.held.clear();
        self.bodiless = job.op == Op::Has;
        self.interim = 0;
    }

    pub(super) fn has_begun(&self) -> bool {
        !self.held.is_empty() || matches!(self.state, State::Body { .. })
    }

    /// See [`super::answer::Answer::feed`].
    pub(super) fn feed(
        &mut self,
        input: &mut &[u8],
        body: &mut Body<'_>,
    ) -> Result<Option<Reply>, Odd> {
        loop {
            match self.state {
                State::Head => {
                    let Some(head) = self.take_head(input)? else { return Ok(None) };
                    if (100..200).contains(&head.status) {
                        self.pass_over(head.status)?;
                        continue;
                    }
                    let reply = Reply { status: head.status, close: head.close };
                    let bodiless = self.bodiless || matches!(head.status, 204 | 304);
                    let left = if bodiless { 0 } else { head.len.ok_or(Odd::NoLength)? };
                    self.state = State::Body { reply, left };
                }
                State::Body { reply, left } => {
                    // What is longer than memory does not end within this input.
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let (bytes, rest) = input.split_at(here);
                    *input = rest;
                    body.take(bytes);
                    let left = left - here as u64;
                    if left == 0 {
                        return Ok(Some(reply));
                    }
                    self.state = State::Body { reply, left };
                    return Ok(None);
                }
            }
        }
    }

    /// Takes a head off the front of `input`; `None` when it has not all arrived.
    fn take_head(&mut self, input: &mut &[u8]) -> Result<Option<Head>, Odd> {
        if input.is_empty() {
            return Ok(None);
        }
        if self.held.is_empty() {
            // Nearly always all of it is there at once.
            if let Some(head) = parse(input)? {
                *input = &input[head.head_len..];
                return Ok(Some(head));
            }
        }
        // A head is parsed once more when its end is there, not at every piece.
        let before = self.held.len();
        let space = HEAD_LEN_MAX - before;
        let (piece, _) = input.split_at(input.len().min(space));
        self.held.extend_from_slice(piece);
        let from = before.saturating_sub(HEAD_END.len() - 1);
        let Some(end) = memmem::find(&self.held[from..], HEAD_END) else {
            if self.held.len() == HEAD_LEN_MAX {
                return Err(Odd::HeadTooLong { max: HEAD_LEN_MAX });
            }
            *input = &[];
            return Ok(None);
        };
        let end = from + end + HEAD_END.len();
        let head = parse(&self.held[..end])?;
        *input = &input[end - before..];
        self.held.clear();
        // The end is there, so a parser that wants more sees no head at all.
        head.map(Some).ok_or(Odd::Head { reason: httparse::Error::NewLine })
    }

    /// An answer of the kind 1xx is skipped, if it is one and not too many.
    fn pass_over(&mut self, status: u16) -> Result<(), Odd> {
        self.interim += 1;
        if status == 101 || self.interim > INTERIM_MAX {
            return Err(Odd::Interim { status });
        }
        Ok(())
    }
}

/// Reads a head; `None` when it has no end.
fn parse(bytes: &[u8]) -> Result<Option<Head>, Odd> {
    let mut fields = [const { MaybeUninit::<Header<'_>>::uninit() }; FIELDS_MAX];
    let mut response = Response::new(&mut []);
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        &bytes[..bytes.len().min(HEAD_LEN_MAX)],
        &mut fields,
    );
    let head_len = match parsed {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(reason) => return Err(Odd::Head { reason }),
    };
    let mut head = Head {
        // A complete head has a status.
        status: response.code.unwrap_or_default(),
        len: None,
        close: response.version == Some(0),
        head_len,
    };
    for field in response.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        match field.name.len() {
            14 if is("content-length") => {
                let len = length(field.value).ok_or(Odd::Length)?;
                if head.len.is_some_and(|other| other != len) {
                    return Err(Odd::Length);
                }
                head.len = Some(len);
            }
            17 if is("transfer-encoding") => return Err(Odd::Chunked),
            10 if is("connection") => {
                let says = |word: &[u8]| {
                    field
                        .value
                        .split(|byte| *byte == b',')
                        .any(|token| token.trim_ascii().eq_ignore_ascii_case(word))
                };
                head.close = says(b"close") || (head.close && !says(b"keep-alive"));
            }
            _ => {}
        }
    }
    Ok(Some(head))
}

/// Digits, and nothing else.
fn length(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{super::reply::tests::corpus, *};

    /// Feeds `bytes` in pieces of `step`. Returns the answer, the bytes of its body, and what is
    /// left over.
    fn read(bytes: &[u8], op: Op, step: usize) -> Result<(Option<Reply>, u64, usize), Odd> {
        let corpus = corpus(100);
        let job = corpus.job(op, 0, 0, false);
        let mut answer = HttpAnswer::default();
        answer.begin(&job);
        let mut body = Body::new();
        body.begin(&job, &corpus);
        let mut fed = 0;
        for piece in bytes.chunks(step) {
            let mut input = piece;
            let reply = answer.feed(&mut input, &mut body)?;
            fed += piece.len() - input.len();
            if reply.is_some() {
                return Ok((reply, body.seen, bytes.len() - fed));
            }
            assert!(input.is_empty());
        }
        Ok((None, body.seen, 0))
    }

    #[test]
    fn answers_are_read_in_any_pieces() {
        let text = b"HTTP/1.1 206 Partial Content\r\nA: b\r\ncontent-LENGTH:  5 \r\n\r\nhello!";
        for step in 1..=text.len() {
            let found = read(text, Op::Get, step).unwrap();
            assert_eq!(found.0, Some(Reply { status: 206, close: false }), "{step}");
            assert_eq!(found.1, 5);
        }
        assert_eq!(read(text, Op::Get, text.len()).unwrap().2, 1);
    }

    #[test]
    fn answers_without_body_end_with_their_head() {
        let text = b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\n";
        assert_eq!(read(text, Op::Has, 9).unwrap().0.map(|reply| reply.status), Some(404));
        assert_eq!(read(text, Op::Get, 9).unwrap().0, None);
        let text = b"HTTP/1.1 304 Not Modified\r\n\r\n";
        assert_eq!(read(text, Op::Get, 100).unwrap().0.map(|reply| reply.status), Some(304));
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read(text, Op::Get, 100).unwrap().0.map(|reply| reply.status), Some(200));
    }

    #[test]
    fn who_closes_is_read() {
        let close = |head: &str| {
            let text = format!("{head}\r\nContent-Length: 0\r\n\r\n");
            read(text.as_bytes(), Op::Get, 1000).unwrap().0.unwrap().close
        };
        assert!(!close("HTTP/1.1 200 OK"));
        assert!(close("HTTP/1.1 200 OK\r\nConnection: x, Close"));
        assert!(close("HTTP/1.0 200 OK"));
        assert!(!close("HTTP/1.0 200 OK\r\nConnection: keep-alive"));
    }

    #[test]
    fn interim_answers_are_skipped_up_to_a_limit() {
        let end = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let with = |count: u32| "HTTP/1.1 100 Continue\r\n\r\n".repeat(count as usize) + end;
        for step in [1, 30, 1000] {
            let reply = read(with(INTERIM_MAX).as_bytes(), Op::Get, step).unwrap().0;
            assert_eq!(reply.map(|reply| reply.status), Some(200));
            let refused = read(with(INTERIM_MAX + 1).as_bytes(), Op::Get, step);
            assert_eq!(refused, Err(Odd::Interim { status: 100 }));
        }
        let upgrade = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
        assert_eq!(read(upgrade, Op::Get, 100), Err(Odd::Interim { status: 101 }));
    }

    #[test]
    fn odd_answers_are_refused_by_kind() {
        let cases = [
            ("HTTP/1.1 200 OK\r\n\r\n", "no_length"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "chunked"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", "length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", "length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "length"),
            ("SSH-2.0-x\r\n\r\n", "head"),
            ("HTTP/1.1 abc\r\n\r\n", "head"),
        ];
        for (text, kind) in cases {
            for step in [1, 1000] {
                let found = read(text.as_bytes(), Op::Get, step).map_err(Odd::kind);
                assert_eq!(found, Err(kind), "{text:?} {step}");
            }
        }
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(FIELDS_MAX + 1));
        assert_eq!(read(many.as_bytes(), Op::Get, 9).map_err(Odd::kind), Err("head"));
    }

    #[test]
    fn heads_have_a_longest_length() {
        let frame = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\na: \r\n\r\n".len();
        for (spare, good) in [(0, true), (1, false)] {
            let long = "x".repeat(HEAD_LEN_MAX - frame + spare);
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\na: {long}\r\n\r\n");
            for step in [1000, 65_536, 70_000] {
                let found = read(text.as_bytes(), Op::Get, step);
                let refused = Err(Odd::HeadTooLong { max: HEAD_LEN_MAX });
                if good {
                    assert!(matches!(found, Ok((Some(_), 0, 0))), "{step} {found:?}");
                } else {
                    assert_eq!(found, refused, "{step}");
                }
            }
        }
        let endless = "HTTP/1.1 200 OK\r\na: ".to_owned() + &"x".repeat(2 * HEAD_LEN_MAX);
        let found = read(endless.as_bytes(), Op::Get, 100_000).map_err(Odd::kind);
        assert_eq!(found, Err("head_too_long"));
    }

    #[test]
    fn requests_are_as_written_by_hand() {
        let corpus = corpus(100);
        let extra = ["X-A: b".to_owned()];
        let write = |requests: &HttpRequests, op| {
            let job = corpus.job(op, 0, 0, false);
            let mut out = Vec::new();
            requests.write(&job, &corpus, &mut out);
            (String::from_utf8_lossy(&out).into_owned(), job)
        };
        let requests = HttpRequests::new("h:1", &extra, true);
        let (text, job) = write(&requests, Op::Range { first: 10, len: 20 });
        let address = job.address.unwrap();
        let expected = format!(
            "GET /o/{address} HTTP/1.1\r\nHost: h:1\r\nX-A: b\r\nConnection: close\r\n\
             Range: bytes=10-29\r\n\r\n"
        );
        assert_eq!(text, expected);
        let requests = HttpRequests::new("h:1", &[], false);
        let (text, _) = write(&requests, Op::Has);
        assert_eq!(text, format!("HEAD /o/{address} HTTP/1.1\r\nHost: h:1\r\n\r\n"));
        let (text, _) = write(&requests, Op::Put);
        let head = format!("PUT /o/{address} HTTP/1.1\r\nHost: h:1\r\nContent-Length: 100\r\n\r\n");
        assert!(text.starts_with(&head) && text.len() == head.len() + 16, "{text}");
    }
}
