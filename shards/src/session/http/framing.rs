//! Where the body of a request ends, and what becomes of a body that nobody wants.

use ron_codec::http::{
    body::{ChunkError, ChunkedDecoder, Step},
    request::BodyKind,
};

use crate::limits::LINGER_LEN_MAX;

/// Finds the payload of one body in the bytes behind its head. For each call of `next`, the caller
/// drops `before` bytes, uses some of the payload, says how much with `took` and drops that too.
#[derive(Debug)]
pub(super) enum Framing {
    Length {
        left: u64,
    },
    Chunked {
        decoder: ChunkedDecoder,
        /// Payload the decoder has passed and nobody has taken yet. It is next in the input.
        ready: usize,
    },
}

/// What stands at the start of an input.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// Bytes of framing before the payload.
    pub(super) before: usize,
    /// Empty when the input or the body ends here.
    pub(super) payload: &'a [u8],
}

impl Framing {
    pub(super) fn new(body: BodyKind) -> Framing {
        match body {
            BodyKind::None => Framing::Length { left: 0 },
            BodyKind::Length(left) => Framing::Length { left },
            BodyKind::Chunked => Framing::Chunked { decoder: ChunkedDecoder::new(), ready: 0 },
        }
    }

    /// Whether all of the body was taken.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Framing::Length { left } => *left == 0,
            Framing::Chunked { decoder, ready } => *ready == 0 && decoder.is_done(),
        }
    }

    /// Reads on at `input`.
    ///
    /// # Errors
    /// When chunks are malformed. The end of the body is lost then.
    pub(super) fn next<'a>(&mut self, input: &'a [u8]) -> Result<Part<'a>, ChunkError> {
        match self {
            Framing::Length { left } => {
                let len = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                Ok(Part { before: 0, payload: &input[..len] })
            }
            Framing::Chunked { ready, .. } if *ready > 0 => {
                Ok(Part { before: 0, payload: &input[..input.len().min(*ready)] })
            }
            Framing::Chunked { decoder, ready } => match decoder.decode(input)? {
                Step::Data { payload, consumed } => {
                    *ready = payload.len();
                    Ok(Part { before: consumed - payload.len(), payload })
                }
                Step::NeedMore => Ok(Part { before: input.len(), payload: &[] }),
                Step::Done { consumed } => Ok(Part { before: consumed, payload: &[] }),
            },
        }
    }

    /// Bytes of payload that the current chunk still brings, as far as it has said.
    pub(super) fn announced(&self) -> u64 {
        match self {
            Framing::Length { .. } => 0,
            Framing::Chunked { decoder, ready } => decoder.announced() + *ready as u64,
        }
    }

    /// `len` bytes of the last payload were used.
    pub(super) fn took(&mut self, len: usize) {
        match self {
            Framing::Length { left } => *left -= len as u64,
            Framing::Chunked { ready, .. } => *ready -= len,
        }
    }

    /// What to do about the rest of the body when nobody wants it any more.
    pub(super) fn leftover(&self) -> Leftover {
        match self {
            Framing::Length { left } => Leftover::of_length(*left),
            Framing::Chunked { .. } if self.is_done() => Leftover::Skip(0),
            Framing::Chunked { .. } => Leftover::Close,
        }
    }
}

/// What to do about a body, or the rest of one, that is not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leftover {
    /// Pass over that many bytes; the next request stands behind them.
    Skip(usize),
    /// The connection ends with the answer.
    Close,
}

impl Leftover {
    /// Of a body that was not read at all. A client that waits for a 100 may or may not send its
    /// body after a final answer (RFC 9110 §10.1.1), so nobody knows where a next request starts.
    pub(super) fn of(body: BodyKind, expect_continue: bool) -> Leftover {
        match body {
            BodyKind::None => Leftover::Skip(0),
            BodyKind::Length(len) if !expect_continue => Leftover::of_length(len),
            BodyKind::Length(_) | BodyKind::Chunked => Leftover::Close,
        }
    }

    fn of_length(len: u64) -> Leftover {
        match usize::try_from(len) {
            Ok(len) if len <= LINGER_LEN_MAX => Leftover::Skip(len),
            _ => Leftover::Close,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the body of `input` in bites of at most `bite`; returns it and what was consumed.
    fn take(body: BodyKind, input: &[u8], bite: usize) -> (Vec<u8>, usize) {
        let (mut framing, mut payload, mut at) = (Framing::new(body), Vec::new(), 0);
        loop {
            let part = framing.next(&input[at..]).unwrap();
            at += part.before;
            let len = part.payload.len().min(bite);
            payload.extend_from_slice(&part.payload[..len]);
            framing.took(len);
            at += len;
            if len == 0 {
                assert!(framing.is_done());
                return (payload, at);
            }
        }
    }

    #[test]
    fn any_bite_takes_the_same_body() {
        let chunked = b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nT: 1\r\n\r\nGET /";
        for bite in 1..9 {
            let end = chunked.len() - b"GET /".len();
            assert_eq!(take(BodyKind::Chunked, chunked, bite), (b"abcdefg".to_vec(), end));
            assert_eq!(take(BodyKind::Length(7), b"abcdefgGET /", bite), (b"abcdefg".to_vec(), 7));
            assert_eq!(take(BodyKind::None, b"GET /", bite), (Vec::new(), 0));
        }
    }

    #[test]
    fn a_short_body_is_not_done() {
        let mut framing = Framing::new(BodyKind::Length(3));
        assert_eq!(framing.next(b"ab"), Ok(Part { before: 0, payload: b"ab" }));
        framing.took(2);
        assert_eq!(framing.next(b""), Ok(Part { before: 0, payload: b"" }));
        assert!(!framing.is_done());
        assert_eq!(framing.leftover(), Leftover::Skip(1));
    }

    #[test]
    fn payload_that_waits_is_offered_again() {
        let mut framing = Framing::new(BodyKind::Chunked);
        assert_eq!(framing.next(b"3\r\nabc\r\n0"), Ok(Part { before: 3, payload: b"abc" }));
        framing.took(1);
        assert_eq!(framing.next(b"bc\r\n0"), Ok(Part { before: 0, payload: b"bc" }));
        assert_eq!(framing.leftover(), Leftover::Close);
        framing.took(2);
        assert_eq!(framing.next(b"\r\n0\r\n\r\n"), Ok(Part { before: 7, payload: b"" }));
        assert!(framing.is_done());
        assert_eq!(framing.leftover(), Leftover::Skip(0));
        assert!(Framing::new(BodyKind::Chunked).next(b"x").is_err());
    }

    #[test]
    fn only_short_bodies_are_passed_over() {
        let max = LINGER_LEN_MAX as u64;
        for (body, expect, leftover) in [
            (BodyKind::None, false, Leftover::Skip(0)),
            (BodyKind::Length(max - 1), false, Leftover::Skip(LINGER_LEN_MAX - 1)),
            (BodyKind::Length(max), false, Leftover::Skip(LINGER_LEN_MAX)),
            (BodyKind::Length(max + 1), false, Leftover::Close),
            (BodyKind::Length(u64::MAX), false, Leftover::Close),
            (BodyKind::Length(1), true, Leftover::Close),
            (BodyKind::Chunked, false, Leftover::Close),
        ] {
            assert_eq!(Leftover::of(body, expect), leftover, "{body:?}");
        }
    }
}
