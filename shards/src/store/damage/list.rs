//! The list of damaged objects.

use std::collections::{HashMap, VecDeque};

use ron_codec::address::Address;

use crate::{limits::DAMAGED_MAX, store::flaw::Harm};

/// The damaged objects of one shard.
#[derive(Debug, Default)]
pub struct Damage {
    pub(super) objects: HashMap<Address, Harm>,
    /// Those of them that a read has found and nobody has looked at since.
    pub(super) doubts: VecDeque<Address>,
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

    /// Whether something of the object may be damaged: it is known to be, or the list is full, and
    /// it may be one of those that found no place.
    pub(in crate::store) fn doubts(&self, address: &Address) -> bool {
        self.knows(address) || self.objects.len() >= DAMAGED_MAX
    }

    /// One that is to be looked at again.
    pub(in crate::store) fn next_doubt(&mut self) -> Option<Address> {
        self.doubts.pop_front()
    }

    pub(in crate::store) fn note(&mut self, address: &Address, harm: Harm) {
        if let Some(known) = self.objects.get_mut(address) {
            *known = harm.max(*known);
        } else if self.objects.len() < DAMAGED_MAX {
            self.objects.insert(*address, harm);
        }
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
        assert!(damage.doubts(&address(DAMAGED_MAX)), "it may have found no place");
        assert!(!damage.bars(&address(0)), "it may be readable");
        damage.note(&address(0), Harm::Data);
        damage.note(&address(0), Harm::Beside);
        assert!(damage.bars(&address(0)), "the worst that was found");
    }
}
