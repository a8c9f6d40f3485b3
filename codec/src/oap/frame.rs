//! The header of an OAP/1 frame: its fields, its flags, and its 37 bytes.
//!
//! Headers are encoded apart from what follows them, so that payload bytes can be sent from where
//! they lie. This module refuses to encode a header that the deframer would refuse to read; it
//! knows nothing of streams and their order.

use std::fmt;
use std::ops::BitOr;

use thiserror::Error;

use super::limits::{FRAME_FIXED_LEN, FRAME_LEN_MAX};
use crate::error::ErrorCode;

/// Bytes of the `len` field.
const LEN_LEN: usize = 4;

/// Bytes of a frame before its capability, the `len` field included.
pub const HEADER_LEN: usize = LEN_LEN + FRAME_FIXED_LEN;

/// The one version of the protocol that is spoken here.
pub const VERSION: u8 = 1;

/// `app_proto_id` of HELLO.
pub const APP_HELLO: u16 = 0;

/// `app_proto_id` of the mailbox.
pub const APP_MAILBOX: u16 = 0x0201;

/// `app_proto_id` of storage.
pub const APP_STORAGE: u16 = 0x0301;

// Where the fields of a header begin. OAP/1 §2.1
const VERSION_AT: usize = 4;
const FLAGS_AT: usize = 5;
const CODE_AT: usize = 7;
const APP_AT: usize = 9;
const TENANT_AT: usize = 11;
const CAP_LEN_AT: usize = 27;
const CORR_AT: usize = 29;

const _: () = assert!(VERSION_AT == LEN_LEN);
const _: () = assert!(CORR_AT + size_of::<u64>() == HEADER_LEN);
const _: () = assert!(FRAME_LEN_MAX <= u32::MAX as usize);

/// The flags of a frame. Reserved bits are never held: they are dropped on receipt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u16);

impl Flags {
    /// No flag at all.
    pub const NONE: Self = Self(0);
    /// From a client.
    pub const REQ: Self = Self(1);
    /// From a node.
    pub const RESP: Self = Self(1 << 1);
    /// Pushed by a node.
    pub const EVENT: Self = Self(1 << 2);
    /// First frame of a stream, in its direction.
    pub const START: Self = Self(1 << 3);
    /// Last frame of a stream, in its direction.
    pub const END: Self = Self(1 << 4);
    /// The client will grant credit.
    pub const ACK_REQ: Self = Self(1 << 5);
    /// The payload is compressed.
    pub const COMP: Self = Self(1 << 6);
    /// The payload is meaningful to the application alone.
    pub const APP_E2E: Self = Self(1 << 7);

    /// Every flag that has a meaning.
    const KNOWN: u16 = 0x00ff;

    const NAMES: [&'static str; 8] =
        ["REQ", "RESP", "EVENT", "START", "END", "ACK_REQ", "COMP", "APP_E2E"];

    /// The flags among `bits`, without the reserved ones.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        // OAP/1 §2.4
        Self(bits & Self::KNOWN)
    }

    /// The flags as they are sent; the reserved bits are zero.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags set in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Self::NAMES
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.0 & (1 << bit) != 0)
            .map(|(_, name)| *name);
        f.write_str(names.next().unwrap_or("0"))?;
        names.try_for_each(|name| write!(f, "|{name}"))
    }
}

/// The fixed part of a frame. `len` and the version are implied: see [`FrameHeader::wire_len`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameHeader {
    /// The flags, reserved bits dropped.
    pub flags: Flags,
    /// Status of an answer; 0 in requests.
    pub code: u16,
    /// Which protocol the payload speaks: [`APP_HELLO`], [`APP_MAILBOX`], [`APP_STORAGE`] or one
    /// that is unknown here.
    pub app_proto_id: u16,
    /// 0 is unspecified.
    pub tenant_id: u128,
    /// The stream on its connection.
    pub corr_id: u64,
    /// Bytes of the capability that follows the header.
    pub cap_len: u16,
    /// Bytes of the payload that follows the capability.
    pub payload_len: u32,
}

impl FrameHeader {
    /// The header of an answer to the frame with this one: same protocol, tenant and stream, no
    /// capability.
    #[must_use]
    pub fn answer(&self, flags: Flags, code: u16, payload_len: u32) -> Self {
        // OAP/1 §2.6
        Self { flags: Flags::RESP | flags, code, cap_len: 0, payload_len, ..*self }
    }

    /// The value of the `len` field: bytes of the frame behind that field.
    #[must_use]
    pub fn wire_len(&self) -> u64 {
        FRAME_FIXED_LEN as u64 + u64::from(self.cap_len) + u64::from(self.payload_len)
    }

    /// Reads a whole header.
    pub(crate) fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let len = check_len(field(bytes, 0))?;
        check_version(bytes[VERSION_AT])?;
        let cap_len = u16::from_le_bytes(field(bytes, CAP_LEN_AT));
        // `check_len` saw to it that `len` is at least FRAME_FIXED_LEN.
        let space = len - FRAME_FIXED_LEN as u32;
        let mut head = Self {
            flags: Flags::from_bits(u16::from_le_bytes(field(bytes, FLAGS_AT))),
            code: u16::from_le_bytes(field(bytes, CODE_AT)),
            app_proto_id: u16::from_le_bytes(field(bytes, APP_AT)),
            tenant_id: u128::from_le_bytes(field(bytes, TENANT_AT)),
            corr_id: u64::from_le_bytes(field(bytes, CORR_AT)),
            cap_len,
            payload_len: 0,
        };
        // OAP/1 §3.3
        head.payload_len = space.checked_sub(u32::from(cap_len)).ok_or(FrameError::CapTooLong {
            head,
            len: cap_len,
            space,
        })?;
        head.check_cap()?;
        Ok(head)
    }

    fn check_cap(&self) -> Result<(), FrameError> {
        // OAP/1 §3.3
        if self.cap_len > 0 && !self.flags.contains(Flags::START) {
            return Err(FrameError::CapWithoutStart { head: *self });
        }
        Ok(())
    }
}

/// Why bytes are not a frame. All of these are framing errors: where the next frame begins is
/// unknown, so they are answered once, and then the connection is closed (OAP/1 §3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// `len` is not within `FRAME_FIXED_LEN..=FRAME_LEN_MAX`.
    #[error("frame len {len} is not within {FRAME_FIXED_LEN} to {FRAME_LEN_MAX}")]
    Len { len: u64 },
    /// The version is not 1.
    #[error("frame version {version} is unknown, {VERSION} is spoken")]
    Version { version: u8 },
    /// The frame has space for `space` bytes of capability and payload, and the capability alone
    /// claims `len`. The `payload_len` of `head` is 0.
    #[error("capability of {len} bytes in a frame with room for {space}")]
    CapTooLong { head: FrameHeader, len: u16, space: u32 },
    /// A capability in a frame without START.
    #[error("capability of {} bytes without START", head.cap_len)]
    CapWithoutStart { head: FrameHeader },
}

impl FrameError {
    /// The status of the answer: 400.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        ErrorCode::BadRequest
    }

    /// The header of the frame that is refused, whose ids the answer carries. All zero when the
    /// error was found before its ids were read.
    #[must_use]
    pub fn header(&self) -> FrameHeader {
        match self {
            Self::CapTooLong { head, .. } | Self::CapWithoutStart { head } => *head,
            Self::Len { .. } | Self::Version { .. } => FrameHeader::default(),
        }
    }
}

/// Judges the `len` field alone, so that it can be refused before anything else has arrived.
pub(crate) fn check_len(bytes: [u8; LEN_LEN]) -> Result<u32, FrameError> {
    // OAP/1 §3.1
    let len = u32::from_le_bytes(bytes);
    if (FRAME_FIXED_LEN as u32..=FRAME_LEN_MAX as u32).contains(&len) {
        Ok(len)
    } else {
        Err(FrameError::Len { len: u64::from(len) })
    }
}

/// Judges the version alone.
fn check_version(version: u8) -> Result<(), FrameError> {
    // OAP/1 §3.2
    if version == VERSION { Ok(()) } else { Err(FrameError::Version { version }) }
}

/// Judges the first bytes of a header as far as they are there.
pub(crate) fn check_prefix(bytes: &[u8]) -> Result<(), FrameError> {
    if let Some(len) = bytes.first_chunk() {
        check_len(*len)?;
    }
    bytes.get(VERSION_AT).map_or(Ok(()), |version| check_version(*version))
}

/// The bytes that precede capability and payload on the wire.
///
/// # Errors
///
/// [`FrameError::Len`] and [`FrameError::CapWithoutStart`]: what a peer would refuse is not sent.
pub fn encode_header(head: &FrameHeader) -> Result<[u8; HEADER_LEN], FrameError> {
    let len = head.wire_len();
    if len > FRAME_LEN_MAX as u64 {
        return Err(FrameError::Len { len });
    }
    head.check_cap()?;
    let mut out = [0; HEADER_LEN];
    // The bound above makes this cast exact.
    out[..VERSION_AT].copy_from_slice(&(len as u32).to_le_bytes());
    out[VERSION_AT] = VERSION;
    out[FLAGS_AT..CODE_AT].copy_from_slice(&head.flags.bits().to_le_bytes());
    out[CODE_AT..APP_AT].copy_from_slice(&head.code.to_le_bytes());
    out[APP_AT..TENANT_AT].copy_from_slice(&head.app_proto_id.to_le_bytes());
    out[TENANT_AT..CAP_LEN_AT].copy_from_slice(&head.tenant_id.to_le_bytes());
    out[CAP_LEN_AT..CORR_AT].copy_from_slice(&head.cap_len.to_le_bytes());
    out[CORR_AT..].copy_from_slice(&head.corr_id.to_le_bytes());
    Ok(out)
}

/// Appends a whole frame to `out`. The lengths in `head` are replaced by those of the slices.
///
/// # Errors
///
/// As [`encode_header`]; `out` is untouched then.
pub fn append_frame(
    head: &FrameHeader,
    cap: &[u8],
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    let too_long = FrameError::Len { len: (FRAME_FIXED_LEN + cap.len() + payload.len()) as u64 };
    let cap_len = u16::try_from(cap.len()).map_err(|_| too_long)?;
    let payload_len = u32::try_from(payload.len()).map_err(|_| too_long)?;
    let head = encode_header(&FrameHeader { cap_len, payload_len, ..*head })?;
    out.reserve(HEADER_LEN + cap.len() + payload.len());
    out.extend_from_slice(&head);
    out.extend_from_slice(cap);
    out.extend_from_slice(payload);
    Ok(())
}

/// The `N` bytes from `at`. Callers pass constants that lie within a header.
fn field<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: FrameHeader = FrameHeader {
        flags: Flags::RESP.union(Flags::START),
        code: 206,
        app_proto_id: APP_STORAGE,
        tenant_id: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
        corr_id: 0x1112_1314_1516_1718,
        cap_len: 3,
        payload_len: 5,
    };

    #[test]
    fn fields_stand_where_the_table_says() {
        // OAP/1 §2.1
        let bytes = encode_header(&HEAD).unwrap();
        assert_eq!(bytes.len(), 37);
        assert_eq!(bytes[0..4], [41, 0, 0, 0]);
        assert_eq!(bytes[4], 1);
        assert_eq!(bytes[5..7], [10, 0]);
        assert_eq!(bytes[7..9], [206, 0]);
        assert_eq!(bytes[9..11], [0x01, 0x03]);
        let tenant: Vec<u8> = (1..=16).rev().collect();
        assert_eq!(bytes[11..27], tenant);
        assert_eq!(bytes[27..29], [3, 0]);
        let corr: Vec<u8> = (0x11..=0x18).rev().collect();
        assert_eq!(bytes[29..37], corr);
        assert_eq!(FrameHeader::decode(&bytes), Ok(HEAD));
    }

    #[test]
    fn reserved_flags_are_ignored_and_never_sent() {
        // OAP/1 §2.4
        let mut bytes = encode_header(&HEAD).unwrap();
        bytes[6] = 0xff;
        let head = FrameHeader::decode(&bytes).unwrap();
        assert_eq!(head, HEAD);
        assert_eq!(encode_header(&head).unwrap()[6], 0);
        assert_eq!(Flags::from_bits(u16::MAX).bits(), 0x00ff);
    }

    #[test]
    fn flags_have_the_documented_values() {
        // OAP/1 §2.3
        let flags = [
            Flags::REQ,
            Flags::RESP,
            Flags::EVENT,
            Flags::START,
            Flags::END,
            Flags::ACK_REQ,
            Flags::COMP,
            Flags::APP_E2E,
        ];
        assert_eq!(flags.map(Flags::bits), [1, 2, 4, 8, 16, 32, 64, 128]);
        assert_eq!(format!("{:?}", Flags::REQ | Flags::APP_E2E), "REQ|APP_E2E");
        assert_eq!(format!("{:?}", Flags::NONE), "0");
        assert!((Flags::REQ | Flags::END).contains(Flags::END));
        assert!(!Flags::REQ.contains(Flags::REQ | Flags::END));
    }

    #[test]
    fn the_longest_frame_is_encoded_and_one_more_byte_is_not() {
        let space = (FRAME_LEN_MAX - FRAME_FIXED_LEN) as u32;
        let mut head = FrameHeader { cap_len: 0, payload_len: space, ..HEAD };
        assert_eq!(encode_header(&head).unwrap()[..4], [0, 0, 0x10, 0]);
        head.payload_len += 1;
        assert_eq!(encode_header(&head), Err(FrameError::Len { len: 0x10_0001 }));
        head.payload_len = u32::MAX;
        head.cap_len = u16::MAX;
        assert!(matches!(encode_header(&head), Err(FrameError::Len { .. })));
    }

    #[test]
    fn lengths_at_the_edges() {
        for (len, good) in [
            (0, false),
            (32, false),
            (33, true),
            (0x10_0000, true),
            (0x10_0001, false),
            (u32::MAX, false),
        ] {
            let found = check_prefix(&len.to_le_bytes());
            let want = if good { Ok(()) } else { Err(FrameError::Len { len: len.into() }) };
            assert_eq!(found, want);
        }
        // Three bytes are no length yet.
        assert_eq!(check_prefix(&[0, 0, 0]), Ok(()));
    }

    #[test]
    fn a_capability_needs_start_and_room() {
        let head = FrameHeader { flags: Flags::REQ, ..HEAD };
        assert_eq!(encode_header(&head), Err(FrameError::CapWithoutStart { head }));

        let mut bytes = encode_header(&HEAD).unwrap();
        bytes[CAP_LEN_AT] = 8;
        assert_eq!(FrameHeader::decode(&bytes).unwrap().payload_len, 0);
        bytes[CAP_LEN_AT] = 9;
        let error = FrameHeader::decode(&bytes).unwrap_err();
        assert!(matches!(error, FrameError::CapTooLong { len: 9, space: 8, .. }), "{error:?}");
        assert_eq!(error.header().corr_id, HEAD.corr_id);
        assert_eq!(error.code().status(), 400);
    }

    #[test]
    fn whole_frames_are_appended_or_nothing_is() {
        let mut out = vec![7];
        append_frame(&HEAD, b"cap", b"hello", &mut out).unwrap();
        assert_eq!(out[1..1 + HEADER_LEN], encode_header(&HEAD).unwrap());
        assert_eq!(&out[1 + HEADER_LEN..], b"caphello");

        let long = vec![0; FRAME_LEN_MAX];
        let error = append_frame(&HEAD, b"", &long, &mut out).unwrap_err();
        assert_eq!(error, FrameError::Len { len: 0x10_0021 });
        let error = append_frame(&HEAD, &long[..0x1_0000], b"", &mut out).unwrap_err();
        assert_eq!(error, FrameError::Len { len: 0x1_0021 });
        assert_eq!(out.len(), 1 + HEADER_LEN + 8);
    }

    #[test]
    fn an_answer_keeps_the_ids() {
        let answer = HEAD.answer(Flags::END, 404, 9);
        assert_eq!(answer.flags, Flags::RESP | Flags::END);
        assert_eq!((answer.code, answer.cap_len, answer.payload_len), (404, 0, 9));
        assert_eq!(answer.tenant_id, HEAD.tenant_id);
        assert_eq!((answer.app_proto_id, answer.corr_id), (APP_STORAGE, HEAD.corr_id));
    }
}
