//! One DELETE, from its question to its answer.
//!
//! ```text
//!   waiting ── durably gone ──► 204
//!      └─ not there: 404, failed: the fault's status, too slow: 504
//! ```
//!
//! One whose condition is that the object is not there only asks whether it is: 412, or 404.
//!
//! An answer is sent only once the object stays gone over a crash. A client that hangs up before
//! cannot take its wish back: the owner of the object has been asked.

use ron_codec::address::Address;

use super::{
    refusal::Refusal,
    request::{Existence, Request},
};
use crate::flow::{Ask, Cx, Fault, Reply, StreamId};

/// A DELETE in progress.
#[derive(Debug)]
pub(super) struct Delete {
    pub(super) request: Request,
    condition: Option<Existence>,
}

/// What a DELETE is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Deleted,
    Refuse(Refusal),
}

impl Delete {
    /// Asks the owner of the object.
    pub(super) fn begin(
        request: Request,
        stream: StreamId,
        (address, condition): (Address, Option<Existence>),
        cx: &mut Cx<'_>,
    ) -> Delete {
        let ask = match condition {
            Some(Existence::NotThere) => Ask::Open { address, first: None },
            Some(Existence::There) | None => Ask::Delete { address },
        };
        cx.asks.push_back((stream, ask));
        Delete { request, condition }
    }

    /// The store answered.
    pub(super) fn on_reply(&self, reply: &Reply) -> Turn {
        match reply {
            Reply::Deleted => Turn::Deleted,
            Reply::Opened { .. } if self.condition == Some(Existence::NotThere) => {
                Turn::Refuse(Refusal::Precondition)
            }
            Reply::Missing => Turn::Refuse(Refusal::NoObject),
            Reply::Failed(fault) => Turn::Refuse((*fault).into()),
            // No answer to this question: whether the object is gone is not known.
            Reply::Opened { .. }
            | Reply::Group(_)
            | Reply::MemoryPressure
            | Reply::Late { .. }
            | Reply::Stored { .. } => Turn::Refuse(Fault::Disk.into()),
        }
    }
}
