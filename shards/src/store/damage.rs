//! The objects of a shard that are known to be damaged.
//!
//! Everyone who finds damage says so here, and everyone who answers for an object asks: opening one
//! whose data are damaged fails before its first byte, and whoever brings its bytes again heals it.
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
//! the scrub. Beyond [`DAMAGED_MAX`] an object is not taken up, and is found anew each time.

use std::collections::{HashMap, VecDeque};

use ron_codec::address::Address;
use ron_io::ports::{Act, Report};

use crate::{flow::Cx, limits::DAMAGED_MAX};

/// What is damaged of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Harm {
    /// Only what lies beside its data: it may be readable.
    Beside,
    /// The object cannot be read as a whole.
    Data,
}

/// The damaged objects of one shard.
#[derive(Debug, Default)]
pub struct Damage {
    objects: HashMap<Address, Harm>,
    /// Those of them that a read has found and nobody has looked at since.
    doubts: VecDeque<Address>,
}

impl Damage {
    /// Whether the object is not to be opened.
    pub fn bars(&self, address: &Address) -> bool {
        self.objects.get(address) == Some(&Harm::Data)
    }

    /// Whether anything of the object is known to be damaged.
    pub fn knows(&self, address: &Address) -> bool {
        self.objects.contains_key(address)
    }

    /// One that is to be looked at again.
    pub(super) fn doubt(&mut self) -> Option<Address> {
        self.doubts.pop_front()
    }

    fn note(&mut self, address: &Address, harm: Harm) {
        if let Some(known) = self.objects.get_mut(address) {
            *known = harm.max(*known);
        } else if self.objects.len() < DAMAGED_MAX {
            self.objects.insert(*address, harm);
        }
    }
}

/// A read did not get what it should: the same, and the object is to be looked at again.
pub(super) fn report_read(address: &Address, what: &str, cx: &mut Cx<'_>) {
    let known = cx.damage.objects.len();
    report(address, Harm::Data, what, cx);
    if cx.damage.objects.len() > known {
        cx.damage.doubts.push_back(*address);
    }
}

/// A stored object is not what it should be: it is counted, remembered, and reported.
pub(super) fn report(address: &Address, harm: Harm, what: &str, cx: &mut Cx<'_>) {
    cx.damage.note(address, harm);
    cx.stats.damaged_objects.add(1);
    cx.stats.damaged_now.set(cx.damage.objects.len() as u64);
    let (shard, digest, what) = (cx.config.shard, *address.as_bytes(), what.to_owned());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_bounded() {
        let mut damage = Damage::default();
        let address = |n: usize| Address::of(&n.to_le_bytes());
        for n in 0..DAMAGED_MAX + 10 {
            damage.note(&address(n), Harm::Beside);
        }
        assert_eq!(damage.objects.len(), DAMAGED_MAX);
        assert!(damage.knows(&address(0)) && !damage.knows(&address(DAMAGED_MAX)));
        assert!(!damage.bars(&address(0)), "it may be readable");
        damage.note(&address(0), Harm::Data);
        damage.note(&address(0), Harm::Beside);
        assert!(damage.bars(&address(0)), "the worst that was found");
    }
}
