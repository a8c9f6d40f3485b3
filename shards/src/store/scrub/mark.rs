//! What the scrub leaves in a partition's index, so that a restart neither begins a round anew nor
//! forgets when the last one was.
//!
//! | at | bytes | field |
//! |---:|---:|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 8 | when the last round began that came to this partition, in Unix milliseconds |
//! | 9 | 8 | when the last round over all partitions of the shard ended; 0: never |
//! | 17 | 1 | how far that round came: 0 through all, 1 segments, 2 the index |
//! | 18 | 4 | 1: the segment it was through; otherwise 0 |
//! | 22 | 32 | 2: the address it was through; zeros: none |
//!
//! Integers are little-endian. A mark that says anything else counts as none: a round is begun
//! anew.

use ron_codec::address::Address;

const VERSION: u8 = 1;
const MARK_LEN: usize = 54;

/// How far a round is in one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reached {
    #[default]
    All,
    /// All segments up to this one.
    Segment(u32),
    /// All segments, and the entries of the index up to this address.
    Address(Option<Address>),
}

/// What is known about the rounds of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) round_unix_ms: u64,
    pub(super) finished_unix_ms: u64,
    pub(super) reached: Reached,
}

impl Mark {
    pub(super) fn encode(&self) -> Vec<u8> {
        let nobody = [0; 32];
        let (kind, segment, address) = match self.reached {
            Reached::All => (0, 0, nobody),
            Reached::Segment(segment) => (1, segment, nobody),
            Reached::Address(None) => (2, 0, nobody),
            Reached::Address(Some(address)) => (2, 0, *address.as_bytes()),
        };
        let mut bytes = Vec::with_capacity(MARK_LEN);
        bytes.push(VERSION);
        bytes.extend(self.round_unix_ms.to_le_bytes());
        bytes.extend(self.finished_unix_ms.to_le_bytes());
        bytes.push(kind);
        bytes.extend(segment.to_le_bytes());
        bytes.extend(address);
        assert_eq!(bytes.len(), MARK_LEN);
        bytes
    }

    /// `None` for what no mark of this version is.
    pub(super) fn decode(bytes: &[u8]) -> Option<Mark> {
        let (version, rest) = bytes.split_first()?;
        let (round, rest) = rest.split_first_chunk()?;
        let (finished, rest) = rest.split_first_chunk()?;
        let (kind, rest) = rest.split_first()?;
        let (segment, rest) = rest.split_first_chunk()?;
        let address: [u8; 32] = rest.try_into().ok()?;
        let segment = u32::from_le_bytes(*segment);
        let reached = match kind {
            0 => Reached::All,
            1 => Reached::Segment(segment),
            2 => Reached::Address((address != [0; 32]).then(|| Address::from_bytes(address))),
            _ => return None,
        };
        let mark = Mark {
            round_unix_ms: u64::from_le_bytes(*round),
            finished_unix_ms: u64::from_le_bytes(*finished),
            reached,
        };
        (*version == VERSION).then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn marks_come_back_as_they_went() {
        let some = Some(Address::of(b"an object"));
        let all = [
            Reached::All,
            Reached::Segment(u32::MAX),
            Reached::Address(None),
            Reached::Address(some),
        ];
        for reached in all {
            let mark = Mark { round_unix_ms: 7, finished_unix_ms: u64::MAX, reached };
            let bytes = mark.encode();
            assert_eq!(Mark::decode(&bytes), Some(mark));
            assert_eq!(Mark::decode(&bytes[1..]), None);
            assert_eq!(Mark::decode(&bytes[..bytes.len() - 1]), None);
            assert_eq!(Mark::decode(&[&bytes[..], &[0]].concat()), None);
            assert_eq!(Mark::decode(&[&[2], &bytes[1..]].concat()), None, "another version");
        }
        assert_eq!(Mark::decode(b""), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Mark::decode(&bytes);
            bytes.resize(MARK_LEN, 0);
            bytes[0] = VERSION;
            prop_assert_eq!(Mark::decode(&bytes).is_some(), bytes[17] <= 2);
        }
    }
}
