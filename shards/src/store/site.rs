//! Which partition an act is of, and how its outcome finds back to who waits for it.

use ron_io::ports::{Act, DiskOp, Report};

use super::notes::Note;
use crate::flow::{Cx, Waiter};

/// Which partition this is, and how its acts find back to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    /// Among those of its shard.
    pub(super) place: u16,
    /// Among all.
    pub(super) number: u16,
}

impl Site {
    pub(super) fn disk(self, cx: &mut Cx<'_>, tag: Tag, op: DiskOp) {
        cx.disk(Waiter::Partition { partition: self.place, tag: tag.pack() }, op);
    }

    pub(super) fn note(self, cx: &mut Cx<'_>, note: &Note<'_>) {
        let (severity, message) = (note.severity(), format!("partition {}: {note}", self.number));
        cx.acts.push(Act::Report(Report::Note { shard: cx.config.shard, severity, message }));
    }
}

/// What an act of a partition was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Boot,
    Log,
    Checkpoint,
    File { slot: usize },
    Outboard { slot: usize, piece: u8 },
    Read { slot: usize },
    Adopt { slot: usize },
    Delete { slot: usize },
    Compact,
    Scrub { slot: usize },
    Mark,
}

impl Tag {
    pub(super) fn pack(self) -> u64 {
        let (kind, piece, slot) = match self {
            Tag::Boot => (0, 0, 0),
            Tag::Log => (1, 0, 0),
            Tag::Checkpoint => (2, 0, 0),
            Tag::File { slot } => (3, 0, slot),
            Tag::Outboard { slot, piece } => (4, piece, slot),
            Tag::Read { slot } => (5, 0, slot),
            Tag::Adopt { slot } => (6, 0, slot),
            Tag::Delete { slot } => (7, 0, slot),
            Tag::Compact => (8, 0, 0),
            Tag::Scrub { slot } => (9, 0, slot),
            Tag::Mark => (10, 0, 0),
        };
        let slot = u32::try_from(slot).expect("tables of a partition are far smaller");
        kind << 40 | u64::from(piece) << 32 | u64::from(slot)
    }

    pub(super) fn unpack(tag: u64) -> Tag {
        let slot = tag as u32 as usize;
        match tag >> 40 {
            0 => Tag::Boot,
            1 => Tag::Log,
            2 => Tag::Checkpoint,
            3 => Tag::File { slot },
            4 => Tag::Outboard { slot, piece: (tag >> 32) as u8 },
            5 => Tag::Read { slot },
            6 => Tag::Adopt { slot },
            7 => Tag::Delete { slot },
            8 => Tag::Compact,
            9 => Tag::Scrub { slot },
            10 => Tag::Mark,
            other => unreachable!("tag of kind {other}"),
        }
    }
}
