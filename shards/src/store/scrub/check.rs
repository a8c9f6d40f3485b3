//! Checking one record: its header, its data, its outboard, fed with bytes as they are read.
//!
//! ```text
//!   Header ──► Data, hashed as they come ──► Outboard, compared with what was hashed ──► Over
//! ```
//!
//! The digest in the index decides. Data that do not hash to it are damaged, whatever the header
//! says; a header or an outboard that is wrong beside data that are right is a flaw, and the record
//! can be made again from what was kept. What fills the gaps between the parts is not looked at:
//! nobody ever reads it.

use ron_codec::{
    address::Address,
    limits::RECORD_HEADER_LEN,
    outboard::{Hashed, Hashing},
    record::{RecordHeader, RecordKind},
};

use crate::store::{
    flaw::{Beside, Wrong},
    index::{Entry, Location},
};

/// Bytes that were read from a file at once.
#[derive(Debug, Default)]
pub(super) struct Window {
    at: u64,
    bytes: Vec<u8>,
    /// The file ends with them.
    ended: bool,
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Whole,
    /// The data are right, and this is not.
    Flawed(Beside),
    /// The data are not what was stored.
    Damaged(Wrong),
}

#[derive(Debug)]
enum Part {
    Header,
    Data(Box<Hashing>),
    Outboard { hashed: Hashed, compared: usize },
    Over(Hashed),
}

/// One record that is being checked.
#[derive(Debug)]
pub(super) struct Check {
    /// What its header must say.
    expected: RecordHeader,
    location: Location,
    /// Where it starts in its file.
    base: u64,
    /// How far it was looked at, counted from its start.
    at: u64,
    part: Part,
    /// The first thing that is wrong although the data are right.
    flaw: Option<Beside>,
    /// The data, if the record may have to be made again.
    kept: Option<Vec<u8>>,
}

impl Window {
    /// What a read of `asked` bytes at `at` brought.
    pub(super) fn new(at: u64, bytes: Vec<u8>, asked: u32) -> Window {
        let ended = bytes.len() < asked as usize;
        Window { at, bytes, ended }
    }

    /// What it holds from `at` on, and whether the file has nothing behind that.
    pub(super) fn from(&self, at: u64) -> (&[u8], bool) {
        match at.checked_sub(self.at) {
            None => (&[], false),
            Some(skipped) => {
                let skipped = skipped.min(self.bytes.len() as u64) as usize;
                (&self.bytes[skipped..], self.ended)
            }
        }
    }
}

impl Check {
    /// Begins to check the record that the index places at `entry`. With `keep` it can be made
    /// again afterwards, which only objects in segments are short enough for.
    ///
    /// `None` if no record can be as the entry says: the entry itself is damaged.
    pub(super) fn new(address: &Address, entry: &Entry, keep: bool) -> Option<Check> {
        let expected = entry.header(address).ok()?;
        let in_segment = matches!(entry.location, Location::Segment { .. });
        let kept = (keep && in_segment).then(|| Vec::with_capacity(expected.size() as usize));
        Some(Check {
            expected,
            location: entry.location,
            base: entry.base(),
            at: 0,
            part: Part::Header,
            flaw: None,
            kept,
        })
    }

    /// Where in the file the next bytes are wanted from.
    pub(super) fn at(&self) -> u64 {
        self.base + self.at
    }

    /// Bytes of the file from `at` to the end of what is looked at.
    pub(super) fn rest(&self) -> u64 {
        self.expected.record_len().saturating_sub(self.at)
    }

    /// Bytes of the record.
    pub(super) fn record_len(&self) -> u64 {
        self.expected.record_len()
    }

    /// Takes what there is from `at` on, and says how it ended if it did. Otherwise it goes on
    /// with bytes from the new `at`: not fewer than a header's, unless the file ends before.
    ///
    /// # Panics
    /// If it was over before.
    pub(super) fn feed(&mut self, window: &Window) -> Option<Outcome> {
        loop {
            let (bytes, ended) = window.from(self.at());
            let part = std::mem::replace(&mut self.part, Part::Header);
            match part {
                Part::Header => {
                    if bytes.len() < RECORD_HEADER_LEN && !ended {
                        return None;
                    }
                    if !self.is_expected(bytes) {
                        self.flaw = Some(Beside::Header);
                    }
                    self.at = u64::from(self.expected.data_offset());
                    self.part = Part::Data(Box::default());
                }
                Part::Data(hashing) => {
                    if let Some(over) = self.hash(hashing, bytes, ended) {
                        return over;
                    }
                }
                Part::Outboard { hashed, compared } => {
                    if let Some(over) = self.compare(hashed, compared, bytes, ended) {
                        return over;
                    }
                }
                Part::Over(_) => unreachable!("a check is over once"),
            }
        }
    }

    /// The record as it must be, if it was kept and the data are right.
    pub(super) fn into_record(self) -> Option<Vec<u8>> {
        let (Part::Over(hashed), Some(data)) = (self.part, self.kept) else { return None };
        let header = self.expected;
        let mut record = Vec::with_capacity(header.record_len() as usize);
        record.extend(header.encode());
        record.extend(data);
        record.resize(header.outboard_offset() as usize, 0);
        record.extend(hashed.outboard.as_bytes());
        record.resize(header.record_len() as usize, 0);
        Some(record)
    }

    /// What must stand beside the data of a record in a file of its own, if they are right: the
    /// header's block, and the outboard with what fills it up.
    pub(super) fn into_writes(self) -> Option<Vec<(u64, Vec<u8>)>> {
        let (Part::Over(hashed), Location::File { .. }) = (self.part, self.location) else {
            return None;
        };
        let header = self.expected;
        let mut block = header.encode().to_vec();
        block.resize(header.data_offset() as usize, 0);
        let mut outboard = hashed.outboard.as_bytes().to_vec();
        outboard.resize((header.record_len() - header.outboard_offset()) as usize, 0);
        let writes = [(0, block), (header.outboard_offset(), outboard)];
        Some(writes.into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect())
    }

    fn is_expected(&self, bytes: &[u8]) -> bool {
        let Ok(found) = RecordHeader::decode(bytes) else { return false };
        // The sequence of an object file is nobody's: who wrote it did not know the log's.
        let in_file = matches!(self.location, Location::File { .. });
        found.kind() == RecordKind::Object
            && found.digest() == self.expected.digest()
            && found.size() == self.expected.size()
            && found.place() == self.expected.place()
            && (in_file || found.sequence() == self.expected.sequence())
    }

    /// `Some` once there is nothing more to do for now.
    fn hash(
        &mut self,
        mut hashing: Box<Hashing>,
        bytes: &[u8],
        ended: bool,
    ) -> Option<Option<Outcome>> {
        let left = self.expected.size() - hashing.size();
        let taken = &bytes[..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        if hashing.update(taken).is_err() {
            return Some(Some(Outcome::Damaged(Wrong::Length)));
        }
        if let Some(kept) = &mut self.kept {
            kept.extend(taken);
        }
        self.at += taken.len() as u64;
        if hashing.size() < self.expected.size() {
            self.part = Part::Data(hashing);
            return Some(ended.then_some(Outcome::Damaged(Wrong::TooShort)));
        }
        let hashed = hashing.finish();
        if hashed.address != self.expected.digest() {
            return Some(Some(Outcome::Damaged(Wrong::Data)));
        }
        self.at = self.expected.outboard_offset();
        self.part = Part::Outboard { hashed, compared: 0 };
        None
    }

    fn compare(
        &mut self,
        hashed: Hashed,
        compared: usize,
        bytes: &[u8],
        ended: bool,
    ) -> Option<Option<Outcome>> {
        let left = &hashed.outboard.as_bytes()[compared..];
        let (left_len, len) = (left.len(), left.len().min(bytes.len()));
        let differs = left[..len] != bytes[..len];
        if differs || (len < left_len && ended) {
            self.flaw.get_or_insert(Beside::Outboard);
        } else if len < left_len {
            self.at += len as u64;
            self.part = Part::Outboard { hashed, compared: compared + len };
            return Some(None);
        }
        self.part = Part::Over(hashed);
        Some(Some(self.flaw.map_or(Outcome::Whole, Outcome::Flawed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::world::{hashed, object};
    use proptest::prelude::*;

    /// The object's record as it lies at `base` of a file, and its entry.
    fn stored(bytes: &[u8], in_file: bool, base: usize) -> (Vec<u8>, Entry) {
        let Hashed { address, size, outboard } = hashed(bytes);
        let segment = 3;
        let location = match in_file {
            true => Location::File { segment },
            false => Location::Segment { segment, offset: base as u32 },
        };
        let entry = Entry { location, size, sequence: 9 };
        let header = entry.header(&address).unwrap();
        let mut file = vec![0xaa; base];
        file.extend(header.encode());
        file.resize(base + header.data_offset() as usize, 0);
        file.extend(bytes);
        file.resize(base + header.outboard_offset() as usize, 0);
        file.extend(outboard.as_bytes());
        file.resize(base + header.record_len() as usize, 0);
        (file, entry)
    }

    /// Checks what lies in `file` by reads of `len` bytes.
    fn check(address: &Address, file: &[u8], entry: &Entry, len: u32) -> (Outcome, Check) {
        let mut check = Check::new(address, entry, true).unwrap();
        loop {
            let at = check.at() as usize;
            let start = at.min(file.len());
            let end = (start + len as usize).min(file.len());
            let window = Window::new(at as u64, file[start..end].to_vec(), len);
            if let Some(outcome) = check.feed(&window) {
                return (outcome, check);
            }
            assert!(check.at() as usize > at, "it goes on");
        }
    }

    const LENS: [usize; 8] = [0, 1, 127, 4096, 65_536, 65_537, 200_000, 1024 * 1024];

    #[test]
    fn whole_records_are_whole_by_reads_of_any_length() {
        for (n, len) in LENS.into_iter().enumerate() {
            let bytes = object(n as u64, len);
            let address = Address::of(&bytes);
            for (in_file, base) in [(false, 0), (false, 4096 + 128), (true, 0)] {
                let (file, entry) = stored(&bytes, in_file, base);
                for read in [128, 4096, 65_536, 2 * 1024 * 1024] {
                    let (outcome, check) = check(&address, &file, &entry, read);
                    assert_eq!(outcome, Outcome::Whole, "{len} bytes by {read}");
                    let record = check.into_record();
                    assert_eq!(record.as_deref(), (!in_file).then_some(&file[base..]));
                }
            }
        }
    }

    #[test]
    fn a_record_of_another_sequence_is_not_the_one() {
        let bytes = object(1, 100);
        let (file, entry) = stored(&bytes, false, 0);
        let entry = Entry { sequence: entry.sequence + 1, ..entry };
        let (outcome, check) = check(&Address::of(&bytes), &file, &entry, 65_536);
        assert_eq!(outcome, Outcome::Flawed(Beside::Header));
        let header = RecordHeader::decode(&check.into_record().unwrap()).unwrap();
        assert_eq!(header.sequence(), entry.sequence, "what is made again is what the index says");
    }

    #[test]
    fn an_entry_that_no_record_can_have_is_refused() {
        let size = ron_codec::limits::SEGMENT_OBJECT_LEN_MAX + 1;
        let location = Location::Segment { segment: 1, offset: 0 };
        let entry = Entry { location, size, sequence: 1 };
        assert!(Check::new(&Address::of(b""), &entry, true).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_flipped_bit_is_told_by_where_it_is(
            len in prop::sample::select(LENS.to_vec()),
            in_file: bool,
            spot: prop::sample::Index,
            bit in 0..8_u32,
            read in prop::sample::select(vec![128_u32, 4096, 65_536]),
        ) {
            let bytes = object(len as u64, len);
            let address = Address::of(&bytes);
            let (mut file, entry) = stored(&bytes, in_file, 0);
            let header = entry.header(&address).unwrap();
            let at = spot.index(file.len());
            file[at] ^= 1 << bit;
            let data = header.data_offset() as usize..header.data_offset() as usize + len;
            let start = header.outboard_offset() as usize;
            let outboard = start..start + header.outboard_len() as usize;
            let expected = if at < RECORD_HEADER_LEN {
                Outcome::Flawed(Beside::Header)
            } else if data.contains(&at) {
                Outcome::Damaged(Wrong::Data)
            } else if outboard.contains(&at) {
                Outcome::Flawed(Beside::Outboard)
            } else {
                Outcome::Whole
            };
            let (outcome, check) = check(&address, &file, &entry, read);
            prop_assert_eq!(outcome, expected);
            if !in_file && !matches!(expected, Outcome::Damaged(_)) {
                prop_assert_eq!(check.into_record(), Some(stored(&bytes, false, 0).0));
            }
        }

        #[test]
        fn a_cut_file_is_told_by_where_it_is_cut(
            len in prop::sample::select(LENS.to_vec()),
            spot: prop::sample::Index,
            read in prop::sample::select(vec![128_u32, 4096, 65_536]),
        ) {
            let bytes = object(len as u64, len);
            let address = Address::of(&bytes);
            let (mut file, entry) = stored(&bytes, true, 0);
            let header = entry.header(&address).unwrap();
            let cut = spot.index(file.len());
            file.truncate(cut);
            let (data, data_end) = (4096, 4096 + len);
            let outboard_end = header.outboard_offset() as usize + header.outboard_len() as usize;
            let (outcome, _) = check(&address, &file, &entry, read);
            let expected = match len {
                _ if cut < data_end && len > 0 => Outcome::Damaged(Wrong::TooShort),
                _ if cut < RECORD_HEADER_LEN => Outcome::Flawed(Beside::Header),
                _ if header.outboard_len() > 0 && cut < outboard_end => {
                    Outcome::Flawed(Beside::Outboard)
                }
                _ => Outcome::Whole,
            };
            prop_assert!(data <= data_end);
            prop_assert_eq!(outcome, expected);
        }
    }
}
