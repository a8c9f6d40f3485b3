//! Frames out of a stream of bytes that arrives in slices of any size.
//!
//! Only the header is gathered, in a buffer of its own; capability and payload are handed on as
//! slices of the input, in as many fragments as they arrived in. Nothing is allocated and no
//! payload byte is copied. A stream that breaks a framing rule is refused for good: every later
//! call gives the same error. What a frame means is decided elsewhere.

use super::frame::{FrameError, FrameHeader, HEADER_LEN, check_prefix};

/// What the next bytes of a stream are. A frame is one `Head`, any number of `Cap`, any number of
/// `Payload`, one `End`; fragments are never empty, and add up to the lengths in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A header, as soon as its 37 bytes were there.
    Head(FrameHeader),
    /// The next bytes of the capability.
    Cap(&'a [u8]),
    /// The next bytes of the payload.
    Payload(&'a [u8]),
    /// The frame is complete.
    End,
}

/// Splits one direction of a connection into frames.
///
/// ```text
///            37 bytes            cap_len bytes         payload_len bytes
///  ┌─► Head ─────────► Cap ──────────────────► Payload ──────────────────► End ─┐
///  └────────────────────────────────────────────────────────────────────────────┘
///       any framing error ─► Failed
/// ```
///
/// ```
/// use ron_codec::oap::{Deframer, Flags, FrameHeader, Piece, append_frame};
///
/// let head = FrameHeader { flags: Flags::REQ | Flags::START | Flags::END, ..Default::default() };
/// let mut wire = Vec::new();
/// append_frame(&head, b"", b"hello", &mut wire)?;
///
/// // Bytes come in pieces of any length.
/// let (mut deframer, mut payload) = (Deframer::new(), Vec::new());
/// for mut input in wire.chunks(7) {
///     while let Some(piece) = deframer.next(&mut input)? {
///         if let Piece::Payload(bytes) = piece {
///             payload.extend_from_slice(bytes);
///         }
///     }
/// }
/// assert_eq!(payload, b"hello");
/// assert!(deframer.is_between_frames());
/// # Ok::<(), ron_codec::oap::FrameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Deframer {
    state: State,
    header: [u8; HEADER_LEN],
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// `got` bytes of `header` are filled; always fewer than all.
    Head {
        got: usize,
    },
    /// `cap` and `payload` bytes are still to come; `Cap` has none left when `cap` is 0.
    Body {
        cap: usize,
        payload: usize,
    },
    Failed(FrameError),
}

impl Default for Deframer {
    fn default() -> Self {
        Self::new()
    }
}

impl Deframer {
    /// At the beginning of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: State::Head { got: 0 }, header: [0; HEADER_LEN] }
    }

    /// The next piece, taken off the front of `input`; `None` when `input` is used up and more is
    /// needed. To be called until it gives `None`: an `End` may be due when no input is left.
    ///
    /// # Errors
    ///
    /// The first framing error of the stream, then and ever after. `input` is without use then.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, FrameError> {
        match self.state {
            State::Head { got } => {
                let head = self.take_header(got, input);
                if let Err(error) = head {
                    self.state = State::Failed(error);
                }
                Ok(head?.map(Piece::Head))
            }
            State::Body { cap: 0, payload: 0 } => {
                self.state = State::Head { got: 0 };
                Ok(Some(Piece::End))
            }
            State::Body { cap: 0, payload } => Ok(take(input, payload).map(|bytes| {
                self.state = State::Body { cap: 0, payload: payload - bytes.len() };
                Piece::Payload(bytes)
            })),
            State::Body { cap, payload } => Ok(take(input, cap).map(|bytes| {
                self.state = State::Body { cap: cap - bytes.len(), payload };
                Piece::Cap(bytes)
            })),
            State::Failed(error) => Err(error),
        }
    }

    /// Whether the stream stands between two frames, so that it may end here without a frame being
    /// truncated. False after an error.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Head { got: 0 })
    }

    fn take_header(
        &mut self,
        got: usize,
        input: &mut &[u8],
    ) -> Result<Option<FrameHeader>, FrameError> {
        let Some(bytes) = take(input, HEADER_LEN - got) else { return Ok(None) };
        let got_now = got + bytes.len();
        self.header[got..got_now].copy_from_slice(bytes);
        if got_now < HEADER_LEN {
            // What is wrong already must not wait for the rest. OAP/1 §3.1
            check_prefix(&self.header[..got_now])?;
            self.state = State::Head { got: got_now };
            return Ok(None);
        }
        let head = FrameHeader::decode(&self.header)?;
        self.state =
            State::Body { cap: usize::from(head.cap_len), payload: head.payload_len as usize };
        Ok(Some(head))
    }
}

/// Takes at most `max` bytes off the front of `input`; `None` when it is empty.
fn take<'a>(input: &mut &'a [u8], max: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(max).unwrap_or((*input, &[]));
    *input = rest;
    (!taken.is_empty()).then_some(taken)
}
