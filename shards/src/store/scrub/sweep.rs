//! Sweeping a segment: every header in its order, and the data of every record that counts.
//!
//! ```text
//!   | header | data … | header | dead … | pad |      a window slides over the segment
//!    decoded, hashed    decoded, skipped
//! ```
//!
//! A record counts if the index points exactly at it. Records are reached by adding up lengths, so
//! a header that does not decode ends the sweep: what the index places behind it is looked for
//! there. What does not check is only *suspect*: it may have been moved or deleted meanwhile, so
//! somebody looks again before it is called damaged.
//!
//! A rebuild of the index cannot tell damage in the last batch of a segment from a batch that was
//! torn by a crash, and believes nothing from there on. So the last batch is hashed whether it
//! counts or not, and a segment with damage there ends before it, just as behind a broken header.

use std::collections::BTreeMap;

use ron_codec::{
    address::Address,
    limits::{RECORD_HEADER_LEN, SEGMENT_LEN_MAX},
    record::{RecordHeader, RecordKind, RecordPlace},
};
use ron_io::limits::DISK_OP_LEN_MAX;

use super::check::{Check, Fed, Outcome, Window};
use crate::{
    limits::{SCRUB_READ_LEN, SCRUB_STEP_RECORDS},
    store::{
        Damage,
        index::{Entry, Index, Location},
        scan::Break,
    },
};

/// Files that the index knows no object for, and the last that the log says about them.
pub(super) type Orphans = BTreeMap<Address, Met>;

/// What the record of the highest sequence says about an object.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Met {
    pub(super) sequence: u64,
    /// It is there.
    pub(super) named: bool,
}

/// What a sweep does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It wants the bytes from `at` on.
    Read { at: u64, len: u32 },
    /// Enough was looked at for one turn.
    Rest,
    /// An object does not check. The sweep has passed it.
    Suspect(Address),
    /// It has come to its end.
    End(End),
}

/// How a sweep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    /// From here on a rebuild of the index finds nothing.
    Broken {
        from: u64,
        why: Break,
    },
}

/// What is done with a record.
#[derive(Debug)]
enum Role {
    /// Nothing but its header is looked at.
    Passed,
    /// It is hashed, because it `counts` or because it may be of the last batch.
    Hashed { check: Check, counts: bool },
    /// The index points at it and means a record of another length.
    LengthMismatch,
}

/// A record that is being hashed.
#[derive(Debug)]
struct Hashing {
    address: Address,
    check: Check,
    counts: bool,
}

/// The sweep through one segment.
#[derive(Debug)]
pub(super) struct Sweep {
    segment: u32,
    at: u64,
    /// Where its committed part ends.
    end: u64,
    /// The record at `at`.
    hashing: Option<Hashing>,
    /// Whether the record before was a pad, which ends a batch.
    after_pad: bool,
    /// The first record of the present batch that is not whole.
    doubt: Option<u64>,
    /// Objects that were found whole and not yet taken; and of those, what was known as damaged.
    objects: u64,
    healed: Vec<Address>,
}

impl Sweep {
    pub(super) fn new(segment: u32, end: u64) -> Sweep {
        assert!(end <= SEGMENT_LEN_MAX, "segment {segment} is longer than any is made");
        let (hashing, doubt) = (None, None);
        let healed = Vec::new();
        Sweep { segment, at: 0, end, hashing, after_pad: true, doubt, objects: 0, healed }
    }

    pub(super) fn segment(&self) -> u32 {
        self.segment
    }

    /// From where on nothing is known to be right.
    pub(super) fn safe(&self) -> u64 {
        self.doubt.unwrap_or(self.at)
    }

    /// Objects found whole since the last time.
    pub(super) fn take_objects(&mut self) -> u64 {
        std::mem::take(&mut self.objects)
    }

    /// Objects found whole since the last time that were known as damaged.
    pub(super) fn take_healed(&mut self) -> Vec<Address> {
        std::mem::take(&mut self.healed)
    }

    /// Goes as far as the bytes of `window` take it: at most one turn's records, and no byte is
    /// hashed twice.
    pub(super) fn go(
        &mut self,
        window: &Window,
        index: &Index,
        known: &Damage,
        orphans: &mut Orphans,
    ) -> Next {
        for _ in 0..SCRUB_STEP_RECORDS {
            if let Some(hashing) = self.hashing.take() {
                if let Some(next) = self.hash(hashing, window, known) {
                    return next;
                }
                continue;
            }
            let left = self.end - self.at;
            if left == 0 {
                return self.over(None);
            }
            let (bytes, ended) = window.from(self.at);
            match bytes.len() {
                _ if left < RECORD_HEADER_LEN as u64 => return self.over(Some(Break::CutHeader)),
                len if len >= RECORD_HEADER_LEN => {}
                _ if ended => return self.over(Some(Break::TooShort)),
                _ => return self.read(self.at),
            }
            let header = match RecordHeader::decode(bytes) {
                Ok(header) if header.place() == RecordPlace::Segment => header,
                Ok(_) => return self.over(Some(Break::FileHeader)),
                Err(_) => return self.over(Some(Break::NoHeader)),
            };
            if header.record_len() > left {
                return self.over(Some(Break::BeyondEnd));
            }
            if std::mem::take(&mut self.after_pad) {
                // This batch was written after the one before was synced: that was not torn.
                self.doubt = None;
            }
            if let Some(met) = orphans.get_mut(&header.digest())
                && met.sequence <= header.sequence()
            {
                let (sequence, is_tombstone) =
                    (header.sequence(), header.kind() == RecordKind::Tombstone);
                *met = Met { sequence, named: !is_tombstone };
            }
            match self.role_of(&header, index) {
                Role::Hashed { check, counts } => {
                    let address = header.digest();
                    self.hashing = Some(Hashing { address, check, counts });
                }
                Role::Passed => {
                    self.after_pad = header.kind() == RecordKind::Pad;
                    self.at += header.record_len();
                }
                Role::LengthMismatch => {
                    self.at += header.record_len();
                    return Next::Suspect(header.digest());
                }
            }
        }
        Next::Rest
    }

    /// Hashes on. `None` once the record is passed and there was nothing wrong that counts.
    fn hash(&mut self, hashing: Hashing, window: &Window, known: &Damage) -> Option<Next> {
        let Hashing { address, check, counts } = hashing;
        let (outcome, checked) = match check.feed(window) {
            Fed::More(check) => {
                let next = self.read(check.at());
                self.hashing = Some(Hashing { address, check, counts });
                return Some(next);
            }
            Fed::Over(outcome, checked) => (outcome, checked),
        };
        let whole = outcome == Outcome::Whole;
        if !whole {
            self.doubt.get_or_insert(self.at);
        }
        self.at += checked.record_len();
        self.objects += u64::from(whole && counts);
        if whole && counts && known.knows(&address) {
            self.healed.push(address);
        }
        (counts && !whole).then_some(Next::Suspect(address))
    }

    /// What is to be done with the record at `at`.
    fn role_of(&self, header: &RecordHeader, index: &Index) -> Role {
        if header.kind() != RecordKind::Object {
            return Role::Passed;
        }
        let address = header.digest();
        let offset = u32::try_from(self.at).expect("a segment's offsets fit 32 bits");
        let location = Location::Segment { segment: self.segment, offset };
        let known = index.get(&address).filter(|entry| entry.location == location);
        let counts = known.is_some();
        if !counts && self.end - self.at > DISK_OP_LEN_MAX as u64 {
            return Role::Passed;
        }
        let (size, sequence) = (header.size(), header.sequence());
        let entry = known.unwrap_or(Entry { location, size, sequence });
        match Check::new(&address, &entry, false) {
            Some(check) if check.record_len() == header.record_len() => {
                Role::Hashed { check, counts }
            }
            _ => Role::LengthMismatch,
        }
    }

    fn read(&self, at: u64) -> Next {
        let left = self.end.saturating_sub(at);
        Next::Read { at, len: left.min(u64::from(SCRUB_READ_LEN)) as u32 }
    }

    fn over(&self, why: Option<Break>) -> Next {
        Next::End(match (self.doubt, why) {
            (Some(from), _) => End::Broken { from, why: Break::LastBatch },
            (None, Some(why)) => End::Broken { from: self.at, why },
            (None, None) => End::Whole,
        })
    }
}
