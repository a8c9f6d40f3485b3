//! One fetch: a group that is wanted, those who want it, and what it waits for.
//!
//! A fetch stands in one line at most. Its first asker says in whose turn it goes on. All of its
//! askers together say from which part of the memory it may take.

use std::sync::Arc;

use ron_codec::{address::Address, outboard::Outboard};
use ron_io::limits::COPY_LEN_MAX;

use super::askers::{Need, Wanting};
use crate::{cache::Purpose, limits, store::index::Entry, turns::Client};

#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) address: Address,
    pub(super) index: u64,
    pub(super) entry: Entry,
    /// What the first who wanted it needs it for.
    pub(super) need: Need,
    pub(super) wanting: Vec<Wanting>,
    pub(super) line: Option<Line>,
    /// Since when it waits for memory, in `Now::mono_ns`.
    pub(super) since: Option<u64>,
    /// While it is being read: the file, and what the group is compared with.
    pub(super) reading: Option<(usize, Option<Arc<Outboard>>)>,
}

impl Fetch {
    /// In whose turn it goes on: of those who want it, the first.
    pub(super) fn client(&self) -> Client {
        self.wanting.first()?.asker.peer
    }

    /// When it has waited too long for memory, in `Now::mono_ns`.
    pub(super) fn late_at(&self, line: Line) -> Option<u64> {
        Some(self.since?.saturating_add(line.wait_ns()))
    }

    /// What its `len` bytes are for.
    pub(super) fn purpose(&self, len: usize) -> Purpose {
        if len <= COPY_LEN_MAX {
            Purpose::ReadShort
        } else if self.wanting.iter().any(|wanting| wanting.notified && !wanting.need.begins) {
            // A notified asker asks for no more than this one.
            Purpose::ReadNext
        } else if self.wanting.iter().any(|wanting| wanting.need.begins) {
            Purpose::ReadFirst
        } else {
            Purpose::ReadAhead
        }
    }
}

/// What a fetch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Others to be done.
    Turn,
    /// Memory for a group that is copied when it is sent.
    Short,
    /// Memory for an answer that has begun, or may do without.
    Next,
    /// Memory for an answer that begins.
    First,
}

impl Line {
    /// In the order in which they go on. An answer that begins comes last: it can still be refused.
    pub(super) const ALL: [Line; 4] = [Line::Turn, Line::Short, Line::Next, Line::First];
    pub(super) const OF_MEMORY: [Line; 3] = [Line::Short, Line::Next, Line::First];

    /// Nanoseconds after which those in it are refused.
    fn wait_ns(self) -> u64 {
        if self == Line::Next { limits::READ_NEXT_WAIT_NS } else { limits::READ_WAIT_NS }
    }
}
