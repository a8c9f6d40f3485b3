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

/// What is looked at next.
#[derive(Debug)]
enum Part {
    Header,
    Data(Box<Hashing>),
    Outboard { hashed: Hashed, compared: usize },
}

/// What a look at some bytes leads to.
enum Look {
    /// The next part, whose bytes may be there already.
    On(Part),
    /// The bytes that are there are used up.
    Wants(Part),
    /// With what the data hash to, if they are right.
    Over(Outcome, Option<Hashed>),
}

/// One record that is being checked.
#[derive(Debug)]
pub(super) struct Check {
    record: Box<Record>,
    part: Part,
}

/// One record that was checked.
#[derive(Debug)]
pub(super) struct Checked {
    record: Box<Record>,
    /// What its data hash to, if they are right.
    hashed: Option<Hashed>,
}

/// What became of a check that was fed.
#[derive(Debug)]
pub(super) enum Fed {
    /// It goes on with bytes from its new `at`: not fewer than a header's, unless the file ends
    /// before.
    More(Check),
    Over(Outcome, Checked),
}

/// What is known of the record.
#[derive(Debug)]
struct Record {
    /// What its header must say.
    expected: RecordHeader,
    location: Location,
    /// Where it starts in its file.
    base: u64,
    /// How far it was looked at, counted from its start.
    at: u64,
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
        let (location, base, at, flaw) = (entry.location, entry.base(), 0, None);
        let record = Record { expected, location, base, at, flaw, kept };
        Some(Check { record: Box::new(record), part: Part::Header })
    }

    /// Where in the file the next bytes are wanted from.
    pub(super) fn at(&self) -> u64 {
        self.record.at()
    }

    /// Bytes of the file from `at` to the end of what is looked at.
    pub(super) fn rest(&self) -> u64 {
        self.record_len().saturating_sub(self.record.at)
    }

    /// Bytes of the record.
    pub(super) fn record_len(&self) -> u64 {
        self.record.expected.record_len()
    }

    /// Takes what there is from `at` on, and says how it ended if it did.
    pub(super) fn feed(self, window: &Window) -> Fed {
        let Check { mut record, mut part } = self;
        loop {
            let (bytes, ended) = window.from(record.at());
            part = match record.look(part, bytes, ended) {
                Look::On(part) => part,
                Look::Wants(part) => return Fed::More(Check { record, part }),
                Look::Over(outcome, hashed) => {
                    return Fed::Over(outcome, Checked { record, hashed });
                }
            };
        }
    }
}

impl Checked {
    /// Bytes of the record.
    pub(super) fn record_len(&self) -> u64 {
        self.record.expected.record_len()
    }

    /// The record as it must be, if it was kept and the data are right.
    pub(super) fn into_record(self) -> Option<Vec<u8>> {
        let Record { expected: header, kept, .. } = *self.record;
        let (hashed, data) = (self.hashed?, kept?);
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
        let Record { expected: header, location: Location::File { .. }, .. } = *self.record else {
            return None;
        };
        let hashed = self.hashed?;
        let mut block = header.encode().to_vec();
        block.resize(header.data_offset() as usize, 0);
        let mut outboard = hashed.outboard.as_bytes().to_vec();
        outboard.resize((header.record_len() - header.outboard_offset()) as usize, 0);
        let writes = [(0, block), (header.outboard_offset(), outboard)];
        Some(writes.into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect())
    }
}

impl Record {
    fn at(&self) -> u64 {
        self.base + self.at
    }

    fn look(&mut self, part: Part, bytes: &[u8], ended: bool) -> Look {
        match part {
            Part::Header if bytes.len() < RECORD_HEADER_LEN && !ended => Look::Wants(part),
            Part::Header => {
                if !self.is_expected(bytes) {
                    self.flaw = Some(Beside::Header);
                }
                self.at = u64::from(self.expected.data_offset());
                Look::On(Part::Data(Box::default()))
            }
            Part::Data(hashing) => self.hash(hashing, bytes, ended),
            Part::Outboard { hashed, compared } => self.compare(hashed, compared, bytes, ended),
        }
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

    fn hash(&mut self, mut hashing: Box<Hashing>, bytes: &[u8], ended: bool) -> Look {
        let left = self.expected.size() - hashing.size();
        let taken = &bytes[..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        if hashing.update(taken).is_err() {
            return Look::Over(Outcome::Damaged(Wrong::Length), None);
        }
        if let Some(kept) = &mut self.kept {
            kept.extend(taken);
        }
        self.at += taken.len() as u64;
        if hashing.size() < self.expected.size() {
            return match ended {
                true => Look::Over(Outcome::Damaged(Wrong::TooShort), None),
                false => Look::Wants(Part::Data(hashing)),
            };
        }
        let hashed = hashing.finish();
        if hashed.address != self.expected.digest() {
            return Look::Over(Outcome::Damaged(Wrong::Data), None);
        }
        self.at = self.expected.outboard_offset();
        Look::On(Part::Outboard { hashed, compared: 0 })
    }

    fn compare(&mut self, hashed: Hashed, compared: usize, bytes: &[u8], ended: bool) -> Look {
        let left = &hashed.outboard.as_bytes()[compared..];
        let (left_len, len) = (left.len(), left.len().min(bytes.len()));
        let differs = left[..len] != bytes[..len];
        if differs || (len < left_len && ended) {
            self.flaw.get_or_insert(Beside::Outboard);
        } else if len < left_len {
            self.at += len as u64;
            return Look::Wants(Part::Outboard { hashed, compared: compared + len });
        }
        Look::Over(self.flaw.map_or(Outcome::Whole, Outcome::Flawed), Some(hashed))
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
    fn check(address: &Address, file: &[u8], entry: &Entry, len: u32) -> (Outcome, Checked) {
        let mut check = Check::new(address, entry, true).unwrap();
        loop {
            let at = check.at() as usize;
            let start = at.min(file.len());
            let end = (start + len as usize).min(file.len());
            let window = Window::new(at as u64, file[start..end].to_vec(), len);
            check = match check.feed(&window) {
                Fed::More(check) => check,
                Fed::Over(outcome, checked) => return (outcome, checked),
            };
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
