//! Whether the bytes of an upload come as fast as they must.
//!
//! A deadline between two arrivals alone lets a peer keep memory for as long as it sends one byte
//! now and then. So in each span of time, as long as that deadline, so many bytes must come. Each
//! upload has a pace of its own, fed by its payload alone: neither another upload of the same
//! connection nor what frames the payload excuses one that stands still.

use crate::config::Deadlines;

/// What came in the span that runs now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    since_ns: u64,
    len: u64,
}

impl Pace {
    pub(super) fn new(now_ns: u64) -> Pace {
        Pace { since_ns: now_ns, len: 0 }
    }

    /// `len` bytes of payload came.
    pub(super) fn count(&mut self, len: u64) {
        self.len = self.len.saturating_add(len);
    }

    /// A span begins now.
    pub(super) fn restart(&mut self, now_ns: u64) {
        *self = Pace::new(now_ns);
    }

    /// The peer was held back for so long: the span lasts that much longer. It does not begin anew,
    /// or a peer that is held back again and again would never be late.
    pub(super) fn extend(&mut self, ns: u64) {
        self.since_ns = self.since_ns.saturating_add(ns);
    }

    /// When the span ends, unless any pace will do.
    pub(super) fn due(&self, allowed: &Deadlines) -> Option<u64> {
        (allowed.body_rate > 0).then(|| self.since_ns.saturating_add(allowed.body_ns))
    }

    /// Whether a span has ended with too few bytes. With enough, the next begins.
    pub(super) fn is_late(&mut self, now_ns: u64, allowed: &Deadlines) -> bool {
        if self.due(allowed).is_none_or(|due| now_ns < due) {
            return false;
        }
        const SECOND_NS: u128 = 1_000_000_000;
        let least = u128::from(allowed.body_rate) * u128::from(allowed.body_ns) / SECOND_NS;
        let late = u128::from(self.len) < least;
        self.restart(now_ns);
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_span_must_bring_its_bytes() {
        let allowed = Deadlines { body_rate: 100, body_ns: 2_000_000_000, ..Deadlines::default() };
        let mut pace = Pace::new(5);
        assert_eq!(pace.due(&allowed), Some(2_000_000_005));
        pace.count(10_000);
        assert!(!pace.is_late(2_000_000_004, &allowed), "the span has not ended");
        assert!(!pace.is_late(2_000_000_005, &allowed));
        // Much in the last span is nothing in this one.
        pace.count(199);
        assert_eq!(pace.due(&allowed), Some(4_000_000_005));
        assert!(pace.is_late(4_000_000_005, &allowed));
        pace.count(200);
        assert!(!pace.is_late(6_000_000_005, &allowed));
        // Held back for a second, a peer has a second more, and not a span.
        pace.count(200);
        pace.extend(1_000_000_000);
        assert!(!pace.is_late(8_000_000_005, &allowed));
        assert!(!pace.is_late(9_000_000_005, &allowed) && pace.is_late(11_000_000_005, &allowed));
        let any = Deadlines { body_rate: 0, ..allowed };
        assert!(pace.due(&any).is_none() && !pace.is_late(u64::MAX, &any));
    }
}
