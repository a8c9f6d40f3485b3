//! What a submission carries in its `user_data`, so that its completion finds what it belongs to.
//!
//! ```text
//!   │ kind, 4 bits │ generation, 28 bits │ slot, 32 bits │
//! ```

use crate::ports::ConnId;

/// What a completion is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Accept = 0,
    Receive = 1,
    Send = 2,
    Poll = 3,
    Cancel = 4,
    Waker = 5,
    Transfer = 6,
    /// Some of the half-closed connections have space.
    Writable = 7,
    /// It is time to try again to accept.
    Retry = 8,
}

/// The kinds, each at its own number.
const KINDS: [Kind; 9] = [
    Kind::Accept,
    Kind::Receive,
    Kind::Send,
    Kind::Poll,
    Kind::Cancel,
    Kind::Waker,
    Kind::Transfer,
    Kind::Writable,
    Kind::Retry,
];

const GENERATION_BITS: u32 = 28;

/// The bits of a generation that fit in a tag.
pub(super) const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;

/// The tag of a submission.
pub(super) fn tag(kind: Kind, conn: ConnId) -> u64 {
    (kind as u64) << 60 | u64::from(conn.generation & GENERATION_MASK) << 32 | u64::from(conn.slot)
}

/// What a completion with this tag is of.
pub(super) fn kind_of(data: u64) -> Kind {
    KINDS[(data >> 60) as usize]
}

/// The connection that a tag names.
pub(super) fn conn_of(data: u64) -> ConnId {
    ConnId { slot: data as u32, generation: (data >> 32) as u32 & GENERATION_MASK }
}

/// A listener, in place of a connection.
pub(super) fn listener_id(at: usize) -> ConnId {
    ConnId { slot: at as u32, generation: 0 }
}
