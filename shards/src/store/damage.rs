//! The objects of a shard that are known to be damaged.
//!
//! Everyone who finds damage says so here, and everyone who answers for an object asks: opening one
//! whose data are damaged fails before its first byte, and a client that brings its bytes again
//! heals it.
//!
//! ```text
//!             a read, the scrub, a verification, the boot
//!   whole ────────────────────────────────────────────────► damaged
//!     ▲                                                        │
//!     └── stored again, deleted, found whole by scrub or verify ┘
//! ```
//!
//! What a read finds is read once more as a whole, at once: it may have been an error that passes.
//! It is kept in memory only. What a process does not know yet it learns at the first read, or from
//! the scrub. Beyond `DAMAGED_MAX` an object is not taken up, and is found anew each time.

use ron_codec::address::Address;
use ron_io::ports::{Act, Report};

use super::flaw::Flaw;
use crate::flow::Cx;

mod list;

pub use list::Damage;

/// A read did not get what it should: the same, and the object is to be looked at again.
pub(super) fn report_read(address: &Address, flaw: &Flaw, cx: &mut Cx<'_>) {
    let known = cx.damage.objects.len();
    report(address, flaw, cx);
    if cx.damage.objects.len() > known {
        cx.damage.doubts.push_back(*address);
    }
}

/// A stored object is not what it should be: it is counted, remembered, and reported.
pub(super) fn report(address: &Address, flaw: &Flaw, cx: &mut Cx<'_>) {
    cx.damage.note(address, flaw.harm());
    cx.stats.damaged_objects.add(1);
    cx.stats.damaged_now.set(cx.damage.objects.len() as u64);
    let (shard, digest, what) = (cx.config.shard, *address.as_bytes(), flaw.to_string());
    cx.acts.push(Act::Report(Report::Damaged { shard, digest, what }));
}

/// An object is whole, or there no more: nobody refuses it now.
pub(super) fn healed(address: &Address, cx: &mut Cx<'_>) {
    if cx.damage.objects.remove(address).is_some() {
        cx.stats.damaged_now.set(cx.damage.objects.len() as u64);
        let (shard, digest) = (cx.config.shard, *address.as_bytes());
        cx.acts.push(Act::Report(Report::Healed { shard, digest }));
    }
}
