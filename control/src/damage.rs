//! The damaged objects that shards reported, as many as an operator can look at.
//!
//! An object is here once, however often it is found. Beyond [`DAMAGED_MAX`] the one that was not
//! found for the longest time is dropped, and the list has a count of those. An object leaves, too,
//! when it was read again as a whole and found right or gone. Nothing of this outlives the process:
//! the next scrub finds again what is still damaged.

use std::collections::{BTreeMap, HashMap};

use ron_codec::address::Address;
use serde::{Deserialize, Serialize};

use crate::limits::{DAMAGED_MAX, REASON_LEN_MAX};

/// One damaged object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedObject {
    pub addr: Address,
    /// The shard that owns it.
    pub shard: u16,
    /// What was wrong with it the last time.
    pub what: String,
    /// How often it was reported.
    pub count: u64,
    /// When it was first and last reported, in Unix seconds.
    pub first_unix_s: u64,
    pub last_unix_s: u64,
}

/// The list of damage, the latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DamageReport {
    pub objects: Vec<DamagedObject>,
    /// Objects that had to leave the list because it was full.
    pub cut: u64,
}

/// The list as it is kept.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    objects: HashMap<Address, (u64, DamagedObject)>,
    /// Addresses by the number of their last report.
    order: BTreeMap<u64, Address>,
    reports: u64,
    cut: u64,
}

impl Damage {
    /// Takes note of a report. Returns whether it says something new.
    pub(crate) fn note(&mut self, shard: u16, addr: Address, what: &str, unix_s: u64) -> bool {
        let what = shortened(what);
        self.reports += 1;
        let number = self.reports;
        self.order.insert(number, addr);
        if let Some((last, known)) = self.objects.get_mut(&addr) {
            self.order.remove(last);
            *last = number;
            let is_new = known.what != what;
            *known = DamagedObject {
                shard,
                what,
                count: known.count + 1,
                last_unix_s: unix_s,
                ..known.clone()
            };
            return is_new;
        }
        let object = DamagedObject {
            addr,
            shard,
            what,
            count: 1,
            first_unix_s: unix_s,
            last_unix_s: unix_s,
        };
        self.objects.insert(addr, (number, object));
        while self.objects.len() > DAMAGED_MAX {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.objects.remove(&oldest);
            self.cut += 1;
        }
        true
    }

    /// The object is damaged no more. Returns whether it was here.
    pub(crate) fn forget(&mut self, addr: &Address) -> bool {
        let Some((last, _)) = self.objects.remove(addr) else { return false };
        self.order.remove(&last);
        true
    }

    pub(crate) fn report(&self) -> DamageReport {
        let latest = self.order.values().rev();
        let objects = latest.filter_map(|addr| Some(self.objects.get(addr)?.1.clone())).collect();
        DamageReport { objects, cut: self.cut }
    }
}

/// A reason, of at most `REASON_LEN_MAX` characters.
pub(crate) fn shortened(reason: &str) -> String {
    reason.chars().take(REASON_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(number: usize) -> Address {
        Address::of(&number.to_le_bytes())
    }

    #[test]
    fn an_object_is_listed_once_with_what_was_found_last() {
        let mut damage = Damage::default();
        assert!(damage.note(0, addr(1), "data", 10));
        assert!(damage.note(1, addr(2), "data", 11));
        assert!(!damage.note(0, addr(1), "data", 12), "the same again is nothing new");
        assert!(damage.note(0, addr(1), "outboard", 13));
        let report = damage.report();
        let found: Vec<_> =
            report.objects.iter().map(|object| (object.addr, object.count)).collect();
        assert_eq!((found, report.cut), (vec![(addr(1), 3), (addr(2), 1)], 0));
        let first = &report.objects[0];
        assert_eq!((first.first_unix_s, first.last_unix_s), (10, 13));
        assert_eq!((first.what.as_str(), first.shard), ("outboard", 0));
    }

    #[test]
    fn beyond_the_limit_the_oldest_goes_and_is_counted() {
        let mut damage = Damage::default();
        for number in 0..DAMAGED_MAX {
            damage.note(0, addr(number), "x", 1);
        }
        assert_eq!((damage.report().objects.len(), damage.report().cut), (DAMAGED_MAX, 0));
        // The first is found again, so that the second is now the oldest.
        damage.note(0, addr(0), "x", 2);
        damage.note(0, addr(DAMAGED_MAX), "x", 3);
        let report = damage.report();
        let has = |number: usize| report.objects.iter().any(|found| found.addr == addr(number));
        assert_eq!((report.objects.len(), report.cut), (DAMAGED_MAX, 1));
        assert!(has(0) && !has(1) && has(2) && has(DAMAGED_MAX));
        assert_eq!(damage.order.len(), damage.objects.len());
    }

    #[test]
    fn what_is_repaired_leaves() {
        let mut damage = Damage::default();
        damage.note(0, addr(1), "x", 1);
        damage.note(0, addr(2), "x", 1);
        assert!(damage.forget(&addr(1)) && !damage.forget(&addr(1)));
        assert_eq!(damage.report().objects.len(), 1);
        assert_eq!((damage.order.len(), damage.report().cut), (1, 0));
        assert!(damage.note(0, addr(1), "x", 2), "it is news when it comes back");
    }

    #[test]
    fn a_reason_has_a_limit() {
        let mut damage = Damage::default();
        damage.note(0, addr(1), &"ä".repeat(REASON_LEN_MAX + 1), 1);
        assert_eq!(damage.report().objects[0].what.chars().count(), REASON_LEN_MAX);
    }
}
