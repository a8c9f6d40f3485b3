//! A deframer that has the whole stream before it, and how ours is compared with it: for the tests
//! beside this file, and for `bench/fuzz`, which includes it.

use super::{Deframer, Flags, FrameError, FrameHeader, Piece};

/// A whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) head: FrameHeader,
    pub(super) cap: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

/// What came out of a stream: its whole frames, what there was of the last one, and the error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Outcome {
    pub(super) frames: Vec<Frame>,
    pub(super) begun: Option<Frame>,
    pub(super) error: Option<FrameError>,
}

/// The twin: looks at everything at once and copies freely.
pub(super) fn parse_whole(mut stream: &[u8]) -> Outcome {
    let mut outcome = Outcome::default();
    loop {
        let number = |from: usize, to: usize| {
            stream[from..to].iter().rev().fold(0u128, |sum, byte| sum << 8 | u128::from(*byte))
        };
        if stream.len() >= 4 && !(33..=1_048_576).contains(&number(0, 4)) {
            outcome.error = Some(FrameError::Len { len: number(0, 4) as u64 });
            return outcome;
        }
        if stream.len() >= 5 && stream[4] != 1 {
            outcome.error = Some(FrameError::Version { version: stream[4] });
            return outcome;
        }
        if stream.len() < 37 {
            return outcome;
        }
        let space = number(0, 4) as u32 - 33;
        let cap_len = number(27, 29) as u16;
        let head = FrameHeader {
            flags: Flags::from_bits(number(5, 7) as u16),
            code: number(7, 9) as u16,
            app_proto_id: number(9, 11) as u16,
            tenant_id: number(11, 27),
            corr_id: number(29, 37) as u64,
            cap_len,
            payload_len: space.saturating_sub(u32::from(cap_len)),
        };
        if u32::from(cap_len) > space {
            outcome.error = Some(FrameError::CapTooLong { head, len: cap_len, space });
            return outcome;
        }
        if cap_len > 0 && number(5, 6) & 8 == 0 {
            outcome.error = Some(FrameError::CapWithoutStart { head });
            return outcome;
        }
        let (cap_end, end) = (37 + usize::from(cap_len), 37 + space as usize);
        let cap = stream[37..cap_end.min(stream.len())].to_vec();
        let payload = stream.get(cap_end..end.min(stream.len())).unwrap_or(&[]).to_vec();
        let frame = Frame { head, cap, payload };
        if stream.len() < end {
            outcome.begun = Some(frame);
            return outcome;
        }
        outcome.frames.push(frame);
        stream = &stream[end..];
    }
}

/// Feeds `slices` to a deframer and gathers what comes out, checking the contract of the pieces.
pub(super) fn deframe<'a>(slices: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut deframer = Deframer::new();
    let mut outcome = Outcome::default();
    for mut input in slices {
        loop {
            let piece = match deframer.next(&mut input) {
                Ok(Some(piece)) => piece,
                Ok(None) => break assert!(input.is_empty()),
                Err(error) => {
                    // For good, whatever comes.
                    assert_eq!(deframer.next(&mut &[0; 99][..]), Err(error));
                    assert!(!deframer.is_between_frames());
                    outcome.error = Some(error);
                    return outcome;
                }
            };
            match (piece, &mut outcome.begun) {
                (Piece::Head(head), begun @ None) => {
                    *begun = Some(Frame { head, cap: Vec::new(), payload: Vec::new() });
                }
                (Piece::Cap(bytes), Some(frame)) if !bytes.is_empty() => {
                    assert!(frame.payload.is_empty());
                    frame.cap.extend_from_slice(bytes);
                }
                (Piece::Payload(bytes), Some(frame)) if !bytes.is_empty() => {
                    frame.payload.extend_from_slice(bytes);
                }
                (Piece::End, begun @ Some(_)) => {
                    outcome.frames.extend(begun.take());
                    assert!(deframer.is_between_frames());
                }
                (piece, begun) => panic!("{piece:?} after {begun:?}"),
            }
            assert_eq!(deframer.is_between_frames(), outcome.begun.is_none());
        }
    }
    outcome
}
