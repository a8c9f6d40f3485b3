//! How the blocks of an arena are divided: what each owner may hold at most.
//!
//! ```text
//!   uploads        │ short   │ downloads                                         │ back- │ cache
//!   more … │ first │ uploads │ ahead (soft) │ first … │ next … │ hot … │ short    │ ground│ alone
//! ```
//!
//! The shares add up to less than the arena, so no owner can take what is another's, and some of
//! the cache can always be evicted. A piece counts as a block whatever its length, because no whole
//! block can be won from around it while it is held.

use ron_io::arena::Owner;

use crate::limits::{
    BACKGROUND_PERCENT, READS_AHEAD_PERCENT, READS_FIRST_PERCENT, READS_HOT_PERCENT,
    READS_NEXT_PERCENT, READS_SHORT_PERCENT, UPLOADS_FIRST_PERCENT, UPLOADS_MORE_PERCENT,
    UPLOADS_PERCENT, UPLOADS_SHORT_PERCENT,
};

/// What memory is asked for. Each purpose has a limit, see `limits`: of one owner's purposes those
/// that come later may use what the earlier ones must leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A block of an upload that has one.
    UploadMore,
    /// The first block of an upload.
    UploadFirst,
    /// The only block of an upload that is known to be short.
    UploadShort,
    /// A group of a download that may do without it.
    ReadAhead,
    /// The group that an answer begins with.
    ReadFirst,
    /// The only group that a download asks for whose answer has begun.
    ReadNext,
    /// The same where that group is cached, and hot.
    ReadHot,
    /// A group that is copied when it is sent.
    ReadShort,
    Background,
}

impl Purpose {
    pub(super) fn owner(self) -> Owner {
        match self {
            Purpose::UploadMore | Purpose::UploadFirst => Owner::Uploads,
            Purpose::UploadShort => Owner::ShortUploads,
            Purpose::ReadAhead
            | Purpose::ReadFirst
            | Purpose::ReadNext
            | Purpose::ReadHot
            | Purpose::ReadShort => Owner::Downloads,
            Purpose::Background => Owner::Background,
        }
    }
}

/// Blocks that may be held for each purpose, those held for the purposes before it included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    uploads_more: usize,
    uploads_first: usize,
    uploads_short: usize,
    reads_ahead: usize,
    reads_first: usize,
    reads_next: usize,
    reads_hot: usize,
    reads_short: usize,
    background: usize,
}

impl Shares {
    /// The shares of an arena of `blocks` blocks; none is nothing.
    pub(super) const fn of(blocks: usize) -> Shares {
        Shares {
            uploads_more: part(blocks, UPLOADS_MORE_PERCENT),
            uploads_first: part(blocks, UPLOADS_FIRST_PERCENT),
            uploads_short: part(blocks, UPLOADS_SHORT_PERCENT),
            reads_ahead: part(blocks, READS_AHEAD_PERCENT),
            reads_first: part(blocks, READS_FIRST_PERCENT),
            reads_next: part(blocks, READS_NEXT_PERCENT),
            reads_hot: part(blocks, READS_HOT_PERCENT),
            reads_short: part(blocks, READS_SHORT_PERCENT),
            background: part(blocks, BACKGROUND_PERCENT),
        }
    }

    pub(super) const fn limit(&self, purpose: Purpose) -> usize {
        match purpose {
            Purpose::UploadMore => self.uploads_more,
            Purpose::UploadFirst => self.uploads_first,
            Purpose::UploadShort => self.uploads_short,
            Purpose::ReadAhead => self.reads_ahead,
            Purpose::ReadFirst => self.reads_first,
            Purpose::ReadNext => self.reads_next,
            Purpose::ReadHot => self.reads_hot,
            Purpose::ReadShort => self.reads_short,
            Purpose::Background => self.background,
        }
    }
}

const fn part(blocks: usize, percent: usize) -> usize {
    let part = blocks * percent / 100;
    if part == 0 { 1 } else { part }
}

const _: () = assert!(UPLOADS_MORE_PERCENT < UPLOADS_FIRST_PERCENT);
const _: () = assert!(READS_AHEAD_PERCENT < READS_FIRST_PERCENT);
const _: () = assert!(READS_FIRST_PERCENT < READS_NEXT_PERCENT);
const _: () = assert!(READS_NEXT_PERCENT < READS_HOT_PERCENT);
const _: () = assert!(READS_HOT_PERCENT < READS_SHORT_PERCENT);
const _: () = assert!(UPLOADS_PERCENT + READS_SHORT_PERCENT + BACKGROUND_PERCENT <= 90);
// In the smallest arena, 8 MiB, each purpose still has a block that the one before it has not, and
// some are nobody's.
const _: () = {
    let least = Shares::of(8 * 1024 * 1024 / ron_io::limits::BLOCK_LEN);
    assert!(least.uploads_more < least.uploads_first);
    assert!(least.uploads_short > 0);
    assert!(least.reads_ahead < least.reads_first && least.reads_first < least.reads_next);
    assert!(least.reads_next < least.reads_hot && least.reads_hot < least.reads_short);
    assert!(least.background > 0);
    assert!(least.uploads_first + least.uploads_short < 128 - least.reads_short - least.background);
};
