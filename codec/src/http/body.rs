//! Chunked request bodies (RFC 9112 §7.1), decoded as they arrive.
//!
//! ```text
//! 5;ext=1\r\n hello\r\n 0\r\n Trailer: x\r\n \r\n
//! ^size       ^data     ^last ^trailer       ^end
//! ```
//!
//! Payload is handed on in place; only the bytes around it are looked at one by one, and their
//! number is bounded. Chunk extensions and trailers are read and ignored. Lines end in CRLF and
//! nothing else. How long a body may become is the caller's to watch.

use thiserror::Error;

use crate::error::ErrorCode;
use crate::limits::{CHUNK_EXTENSIONS_EXCESS_MAX, CHUNK_LINE_LEN_MAX, TRAILER_LEN_MAX};

/// Bytes of a chunk line that never count as extensions: as many as a size may have digits.
const CHUNK_LINE_LEN_FREE: u64 = 16;

/// Decoder of one chunked body. Feed it what has arrived, starting each time behind what the last
/// step consumed, until it says `Done`. After an error the connection has lost its framing and
/// can only be closed.
#[derive(Debug, Clone)]
pub struct ChunkedDecoder {
    state: State,
    /// Bytes of the current chunk line, or of the trailer section so far.
    line_len: usize,
    /// Bytes of extensions not yet paid for by payload.
    excess: u64,
}

/// What a call of `decode` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// `payload`, never empty, is the next part of the body; `consumed` bytes of the input are
    /// done with, `payload` and the framing before it.
    Data { payload: &'a [u8], consumed: usize },
    /// All of the input is done with and the body goes on.
    NeedMore,
    /// The body has ended; what stands behind `consumed` bytes belongs to the next request.
    Done { consumed: usize },
}

/// How a chunked body broke the rules. All of these are 400 and end the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// A chunk line does not start with a hex digit, or has `byte` where none may be.
    #[error("chunk line has byte {byte:#04x} where it may not stand")]
    Line { byte: u8 },
    /// A size has more than 64 bits.
    #[error("chunk size has more than 64 bits")]
    SizeOverflow,
    #[error("chunk line is longer than {max} bytes")]
    LineTooLong { max: usize },
    /// Extensions outweigh the payload.
    #[error("chunk extensions exceed the payload by more than {max} bytes")]
    ExtensionsTooLong { max: u64 },
    /// The payload of a chunk is not followed by CRLF, but by `byte`.
    #[error("chunk payload is followed by byte {byte:#04x} instead of a line end")]
    DataEnd { byte: u8 },
    #[error("trailer has byte {byte:#04x} where it may not stand")]
    Trailer { byte: u8 },
    #[error("trailer is longer than {max} bytes")]
    TrailerTooLong { max: usize },
}

impl From<ChunkError> for ErrorCode {
    fn from(_: ChunkError) -> Self {
        Self::BadRequest
    }
}

/// Where in a body the next byte stands.
///
/// ```text
/// LineStart ─► Size ─► [Space] ─► [Extension] ─► LineLf
/// LineLf ─► Data ─► DataCr ─► DataLf ─► LineStart
///    └ size 0 ─► TrailerStart ─► [Trailer ─► TrailerLf ─► TrailerStart] ─► EndLf ─► Done
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    LineStart,
    Size {
        size: u64,
    },
    /// White space behind a size, which only an extension may follow.
    Space {
        size: u64,
    },
    Extension {
        size: u64,
    },
    LineLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkedDecoder {
    /// A decoder at the first byte of a body.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: State::LineStart, line_len: 0, excess: 0 }
    }

    /// Takes the next step through `input`.
    ///
    /// # Errors
    ///
    /// `ChunkError`, as soon as the first wrong byte is seen.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, ChunkError> {
        let mut at = 0;
        loop {
            match self.state {
                State::Done => return Ok(Step::Done { consumed: at }),
                _ if at == input.len() => return Ok(Step::NeedMore),
                State::Data { left } => {
                    let rest = &input[at..];
                    let len = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                    let left = left - len as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                    return Ok(Step::Data { payload: &rest[..len], consumed: at + len });
                }
                state => {
                    self.state = self.after(state, input[at])?;
                    at += 1;
                }
            }
        }
    }

    /// Bytes of payload that the current chunk has announced and that were not decoded.
    #[must_use]
    pub const fn announced(&self) -> u64 {
        match self.state {
            State::Data { left } => left,
            _ => 0,
        }
    }

    /// Whether the body has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The state behind one byte that is not payload.
    fn after(&mut self, state: State, byte: u8) -> Result<State, ChunkError> {
        match state {
            State::LineStart
            | State::Size { .. }
            | State::Space { .. }
            | State::Extension { .. } => self.after_line_byte(state, byte),
            State::LineLf { size } if byte == b'\n' => self.after_line(size),
            State::LineLf { .. } => Err(ChunkError::Line { byte }),
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => Ok(State::LineStart),
            State::DataCr | State::DataLf => Err(ChunkError::DataEnd { byte }),
            State::TrailerStart | State::Trailer | State::TrailerLf | State::EndLf => {
                self.after_trailer_byte(state, byte)
            }
            State::Data { .. } | State::Done => unreachable!("{state:?} has no framing byte"),
        }
    }

    fn after_line_byte(&mut self, state: State, byte: u8) -> Result<State, ChunkError> {
        let next = match (state, byte) {
            (State::LineStart, _) => State::Size { size: hex_digit(byte)? },
            (State::Size { size } | State::Extension { size }, b'\r') => {
                return Ok(State::LineLf { size });
            }
            (State::Size { size } | State::Space { size }, b' ' | b'\t') => State::Space { size },
            (State::Size { size } | State::Space { size }, b';') => State::Extension { size },
            (State::Size { size }, _) => {
                let digit = hex_digit(byte)?;
                if size >> 60 != 0 {
                    return Err(ChunkError::SizeOverflow);
                }
                State::Size { size: size << 4 | digit }
            }
            (State::Extension { size }, _) if is_text(byte) => State::Extension { size },
            _ => return Err(ChunkError::Line { byte }),
        };
        self.line_len += 1;
        if self.line_len > CHUNK_LINE_LEN_MAX {
            return Err(ChunkError::LineTooLong { max: CHUNK_LINE_LEN_MAX });
        }
        Ok(next)
    }

    fn after_line(&mut self, size: u64) -> Result<State, ChunkError> {
        let paid = CHUNK_LINE_LEN_FREE.saturating_add(size);
        self.excess = (self.excess + self.line_len as u64).saturating_sub(paid);
        self.line_len = 0;
        if self.excess > CHUNK_EXTENSIONS_EXCESS_MAX {
            return Err(ChunkError::ExtensionsTooLong { max: CHUNK_EXTENSIONS_EXCESS_MAX });
        }
        Ok(if size == 0 { State::TrailerStart } else { State::Data { left: size } })
    }

    fn after_trailer_byte(&mut self, state: State, byte: u8) -> Result<State, ChunkError> {
        self.line_len += 1;
        if self.line_len > TRAILER_LEN_MAX {
            return Err(ChunkError::TrailerTooLong { max: TRAILER_LEN_MAX });
        }
        match (state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::Trailer, b'\r') => Ok(State::TrailerLf),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::TrailerStart | State::Trailer, _) if is_text(byte) => Ok(State::Trailer),
            _ => Err(ChunkError::Trailer { byte }),
        }
    }
}

fn hex_digit(byte: u8) -> Result<u64, ChunkError> {
    char::from(byte).to_digit(16).map(u64::from).ok_or(ChunkError::Line { byte })
}

/// Whether a byte may stand in an extension or a trailer line: all but control characters.
fn is_text(byte: u8) -> bool {
    !byte.is_ascii_control() || byte == b'\t'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, Eq, Clone)]
    enum Outcome {
        Done { payload: Vec<u8>, consumed: usize },
        NeedMore { payload: Vec<u8> },
        Error(ChunkError),
    }

    /// Feeds `input` in pieces that end at `cuts`, carrying over nothing but the decoder.
    fn decode_in_pieces(input: &[u8], cuts: &[usize]) -> Outcome {
        let mut decoder = ChunkedDecoder::new();
        let (mut payload, mut at) = (Vec::new(), 0);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
        ends.push(input.len());
        ends.sort_unstable();
        for end in ends {
            loop {
                match decoder.decode(&input[at..end]) {
                    Ok(Step::Data { payload: part, consumed }) => {
                        assert!(!part.is_empty());
                        payload.extend_from_slice(part);
                        at += consumed;
                    }
                    Ok(Step::NeedMore) => {
                        at = end;
                        break;
                    }
                    Ok(Step::Done { consumed }) => {
                        assert!(decoder.is_done());
                        return Outcome::Done { payload, consumed: at + consumed };
                    }
                    Err(error) => return Outcome::Error(error),
                }
            }
        }
        assert!(!decoder.is_done());
        Outcome::NeedMore { payload }
    }

    fn decode(input: &[u8]) -> Outcome {
        decode_in_pieces(input, &[])
    }

    /// The obvious decoder, which has everything before it starts. `Ok(None)` wants more.
    fn naive(input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, ()> {
        fn line(input: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, ()> {
            let Some(lf) = input[at..].iter().position(|&b| b == b'\n') else { return Ok(None) };
            let line = input[at..at + lf].strip_suffix(b"\r").ok_or(())?;
            let clean = line.iter().all(|&b| b == b'\t' || (b >= 0x20 && b != 0x7f));
            if clean { Ok(Some((line, at + lf + 1))) } else { Err(()) }
        }
        let (mut payload, mut at) = (Vec::new(), 0);
        loop {
            let Some((text, next)) = line(input, at)? else { return Ok(None) };
            let digits = text.iter().take_while(|b| b.is_ascii_hexdigit()).count();
            let behind = text[digits..].trim_ascii_start();
            if !(text.len() == digits || behind.first() == Some(&b';')) {
                return Err(());
            }
            let digits = std::str::from_utf8(&text[..digits]).unwrap();
            let size = u64::from_str_radix(digits, 16).map_err(|_| ())?;
            at = next;
            if size == 0 {
                break;
            }
            let Ok(size) = usize::try_from(size) else { return Ok(None) };
            let Some(data) = input.get(at..).and_then(|rest| rest.get(..size)) else {
                return Ok(None);
            };
            payload.extend_from_slice(data);
            at += size;
            match input[at..] {
                [b'\r', b'\n', ..] => at += 2,
                [] | [b'\r'] => return Ok(None),
                _ => return Err(()),
            }
        }
        loop {
            match line(input, at)? {
                None => return Ok(None),
                Some(([], next)) => return Ok(Some((payload, next))),
                Some((_, next)) => at = next,
            }
        }
    }

    fn error(input: &[u8]) -> ChunkError {
        match decode(input) {
            Outcome::Error(error) => error,
            other => panic!("{other:?} of {:?}", String::from_utf8_lossy(input)),
        }
    }

    #[test]
    fn bodies_and_what_follows_them() {
        for (body, payload) in [
            ("0\r\n\r\n", ""),
            ("00000\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789"),
            ("1;a\r\nx\r\n1 ; b=\"c;d\"\r\ny\r\n0;last\r\n\r\n", "xy"),
            ("2\r\n\r\n\r\n0\r\nTrailer: 1\r\nOther: 2\r\n\r\n", "\r\n"),
        ] {
            let input = format!("{body}GET / HTTP/1.1\r\n");
            let (payload, consumed) = (payload.as_bytes().to_vec(), body.len());
            assert_eq!(decode(input.as_bytes()), Outcome::Done { payload, consumed }, "{body:?}");
        }
    }

    #[test]
    fn broken_framing_is_refused_at_its_first_byte() {
        let line = |byte| ChunkError::Line { byte };
        for (body, expected) in [
            ("\r", line(b'\r')),
            ("g", line(b'g')),
            (" ", line(b' ')),
            ("-", line(b'-')),
            ("+", line(b'+')),
            ("0x", line(b'x')),
            ("1_", line(b'_')),
            (";", line(b';')),
            ("1\n", line(b'\n')),
            ("1\rx", line(b'x')),
            ("1 \r", line(b'\r')),
            ("1 1", line(b'1')),
            ("1;a\n", line(b'\n')),
            ("1;a\0", line(0)),
            ("1;a\r\r", line(b'\r')),
            ("1\r\nab", ChunkError::DataEnd { byte: b'b' }),
            ("1\r\na\n", ChunkError::DataEnd { byte: b'\n' }),
            ("1\r\na\rb", ChunkError::DataEnd { byte: b'b' }),
            ("0\r\n\n", ChunkError::Trailer { byte: b'\n' }),
            ("0\r\n\rx", ChunkError::Trailer { byte: b'x' }),
            ("0\r\nA: b\n", ChunkError::Trailer { byte: b'\n' }),
            ("0\r\nA: b\r\r", ChunkError::Trailer { byte: b'\r' }),
            ("0\r\nA: \0", ChunkError::Trailer { byte: 0 }),
        ] {
            assert_eq!(error(body.as_bytes()), expected, "{body:?}");
            let before = &body.as_bytes()[..body.len() - 1];
            assert!(matches!(decode(before), Outcome::NeedMore { .. }), "{body:?}");
        }
    }

    #[test]
    fn sizes_end_at_64_bits() {
        let mut decoder = ChunkedDecoder::new();
        assert_eq!(decoder.decode(b"00ffffffffffffffff\r\n"), Ok(Step::NeedMore));
        assert_eq!(decoder.state, State::Data { left: u64::MAX });
        assert_eq!(decoder.decode(b"xyz"), Ok(Step::Data { payload: b"xyz", consumed: 3 }));
        assert_eq!(error(b"10000000000000000"), ChunkError::SizeOverflow);
        assert_eq!(error(b"fffffffffffffffff"), ChunkError::SizeOverflow);
    }

    #[test]
    fn lines_and_trailers_have_their_limits() {
        let line = |len: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(len - 2)).into_bytes();
        for len in [CHUNK_LINE_LEN_MAX - 1, CHUNK_LINE_LEN_MAX] {
            assert!(matches!(decode(&line(len)), Outcome::Done { .. }));
        }
        let expected = ChunkError::LineTooLong { max: CHUNK_LINE_LEN_MAX };
        assert_eq!(error(&line(CHUNK_LINE_LEN_MAX + 1)), expected);
        assert_eq!(error(&[b'0'; CHUNK_LINE_LEN_MAX + 1]), expected);

        let trailer = |len: usize| format!("0\r\n{}\r\n\r\n", "t".repeat(len - 4)).into_bytes();
        for len in [TRAILER_LEN_MAX - 1, TRAILER_LEN_MAX] {
            assert!(matches!(decode(&trailer(len)), Outcome::Done { .. }));
        }
        let expected = ChunkError::TrailerTooLong { max: TRAILER_LEN_MAX };
        assert_eq!(error(&trailer(TRAILER_LEN_MAX + 1)), expected);
    }

    #[test]
    fn extensions_are_paid_for_by_payload() {
        // Each line exceeds what its payload pays for by exactly 1000 bytes.
        let dear = format!("1;{}\r\nx\r\n", "e".repeat(1000 + 17 - 2));
        let allowed = CHUNK_EXTENSIONS_EXCESS_MAX as usize / 1000;
        let body = |count: usize| format!("{}0\r\n\r\n", dear.repeat(count)).into_bytes();
        assert!(matches!(decode(&body(allowed)), Outcome::Done { .. }));
        assert_eq!(
            error(&body(allowed + 1)),
            ChunkError::ExtensionsTooLong { max: CHUNK_EXTENSIONS_EXCESS_MAX }
        );
        // The same extensions on chunks of an honest size never add up.
        let fair = format!("400;{}\r\n{}\r\n", "e".repeat(1000), "x".repeat(1024));
        let body = format!("{}0\r\n\r\n", fair.repeat(100));
        assert!(matches!(decode(body.as_bytes()), Outcome::Done { .. }));
    }

    fn chunk() -> impl Strategy<Value = Vec<u8>> {
        let extension = "(|[ \t]{0,2};[ -~]{0,5})";
        ("0{0,2}", any::<bool>(), extension, prop::collection::vec(any::<u8>(), 1..40)).prop_map(
            |(zeros, upper, extension, data)| {
                let size = format!("{:x}", data.len());
                let size = if upper { size.to_uppercase() } else { size };
                let mut chunk = format!("{zeros}{size}{extension}\r\n").into_bytes();
                chunk.extend_from_slice(&data);
                chunk.extend_from_slice(b"\r\n");
                chunk
            },
        )
    }

    fn body() -> impl Strategy<Value = Vec<u8>> {
        (prop::collection::vec(chunk(), 0..6), "(A: b\r\n){0,2}", "[ -~\r\n]{0,8}").prop_map(
            |(chunks, trailer, behind)| {
                let mut body = chunks.concat();
                body.extend_from_slice(format!("0\r\n{trailer}\r\n{behind}").as_bytes());
                body
            },
        )
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(body in body(), cuts: [usize; 5]) {
            let expected = naive(&body).unwrap().unwrap();
            let outcome = Outcome::Done { payload: expected.0, consumed: expected.1 };
            prop_assert_eq!(decode_in_pieces(&body, &cuts), outcome.clone());
            let each: Vec<usize> = (0..body.len()).collect();
            prop_assert_eq!(decode_in_pieces(&body, &each), outcome);
        }

        #[test]
        fn damaged_bodies_are_judged_as_the_naive_decoder_does(
            body in body(), at: prop::sample::Index, byte in "[\r\n 0-9a-g;]|\\PC|\0",
            remove: bool, cuts: [usize; 3],
        ) {
            let mut body = body;
            let at = at.index(body.len());
            let with = byte.bytes().take(usize::from(!remove));
            body.splice(at..at + usize::from(remove), with);
            let outcome = decode(&body);
            prop_assert_eq!(decode_in_pieces(&body, &cuts), outcome.clone());
            match naive(&body) {
                Ok(Some((payload, consumed))) => {
                    prop_assert_eq!(outcome, Outcome::Done { payload, consumed });
                }
                // The naive decoder looks at whole lines only, so it may see an error later.
                Ok(None) => {
                    let done = matches!(outcome, Outcome::Done { .. });
                    prop_assert!(!done, "{:?}", outcome);
                }
                Err(()) => prop_assert!(matches!(outcome, Outcome::Error(_)), "{:?}", outcome),
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(input: Vec<u8>, cuts: [usize; 3]) {
            prop_assert_eq!(decode_in_pieces(&input, &cuts), decode(&input));
        }
    }
}
