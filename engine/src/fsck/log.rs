//! The log of a partition: every record of every segment, all data hashed.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry as Slot},
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use ron_codec::{address::Address, limits::SEGMENT_LEN_MAX, record::RecordKind};
use ron_io::limits::DISK_OP_LEN_MAX;
use ron_shards::store::{
    audit::{Break, Found, Next, Position, Walk, hidden_number, segment_number},
    layout::Layout,
};

use super::{
    error::FsckError,
    listing::{list, name},
    report::{Finding, Report, What},
};

/// The record that decides what becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Latest {
    pub(super) kind: RecordKind,
    pub(super) size: u64,
    pub(super) sequence: u64,
    pub(super) segment: u32,
    pub(super) offset: u64,
    pub(super) damaged: bool,
    /// Whether the index names it, and whether its file was seen.
    pub(super) indexed: bool,
    pub(super) has_file: bool,
}

/// What the log of a partition says.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) latest: HashMap<Address, Latest>,
    /// A rebuild of the index would lose what it knows: some of a segment is not reached, though it
    /// was once, or would be cut off.
    pub(super) keeps_index: bool,
    /// Segments that are marked, because damage hid records in them.
    pub(super) hidden: BTreeSet<u32>,
    /// Numbers and lengths.
    pub(super) segments: Vec<(u32, u64)>,
    damaged: Vec<(Address, Latest)>,
}

impl Log {
    /// The records of all objects there are.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Latest> {
        self.latest.values().filter(|latest| latest.kind != RecordKind::Tombstone)
    }

    /// Takes up a record that was found.
    fn take(&mut self, segment: u32, found: &Found) {
        let Found { kind, digest, size, sequence, offset, damaged, .. } = *found;
        let new = Latest {
            kind,
            size,
            sequence,
            segment,
            offset,
            damaged,
            indexed: false,
            has_file: false,
        };
        if damaged {
            self.damaged.push((digest, new));
        }
        match self.latest.entry(digest) {
            Slot::Vacant(slot) => drop(slot.insert(new)),
            Slot::Occupied(mut slot) => {
                let old = slot.get();
                // A record that was moved is there twice for a while.
                let moved = old.sequence == sequence && !damaged;
                if old.sequence < sequence || moved {
                    slot.insert(new);
                }
            }
        }
    }
}

/// Walks through all segments of a partition. The index knows the log to `reached`.
pub(super) fn walk(
    layout: &Layout,
    number: u16,
    reached: Option<Position>,
    report: &mut Report<'_>,
) -> Result<Log, FsckError> {
    let mut log = Log::default();
    for path in list(&layout.segments_dir(number), report)? {
        // To open anything but a file might wait without an end.
        match (segment_number(name(&path)), hidden_number(name(&path))) {
            _ if !path.is_file() => report.found(&Finding::at(&path, What::Foreign))?,
            (Some(segment), _) => log.segments.push((segment, 0)),
            (None, Some(segment)) => drop(log.hidden.insert(segment)),
            (None, None) => report.found(&Finding::at(&path, What::Foreign))?,
        }
    }
    log.segments.sort_unstable();
    let last = log.segments.last().map_or(0, |(segment, _)| *segment);
    for at in 0..log.segments.len() {
        let segment = log.segments[at].0;
        let path = layout.segment_path(number, segment);
        // A segment is begun only when the one before is durable to its end.
        let known = reached.filter(|reached| reached.segment == segment);
        let synced_to = if segment < last { u64::MAX } else { known.map_or(0, |to| to.offset) };
        report.summary.segments += 1;
        let mut walking = Walking { layout, number, segment, path: &path, synced_to };
        match walking.run(&mut log, report)? {
            Ok(len) => {
                log.segments[at].1 = len;
                // Without the index, the last batch is taken for one that a crash has torn.
                let batch = len.saturating_sub(DISK_OP_LEN_MAX as u64)..synced_to;
                log.keeps_index |= log
                    .damaged
                    .iter()
                    .any(|(_, record)| record.segment == segment && batch.contains(&record.offset));
            }
            Err(error) => {
                let what = What::Unreadable { reason: error.to_string() };
                report.found(&Finding::at(&path, what))?;
                log.keeps_index = true;
            }
        }
    }
    for (address, record) in std::mem::take(&mut log.damaged) {
        let what =
            if log.latest.get(&address) == Some(&record) { What::Record } else { What::DeadRecord };
        let path = layout.segment_path(number, record.segment);
        report.found(&Finding::at(&path, what).offset(record.offset).of(address))?;
    }
    Ok(log)
}

/// The walk through one segment.
struct Walking<'a> {
    layout: &'a Layout,
    number: u16,
    segment: u32,
    path: &'a Path,
    synced_to: u64,
}

impl Walking<'_> {
    /// Returns the segment's length, or why it cannot be read.
    fn run(
        &mut self,
        log: &mut Log,
        report: &mut Report<'_>,
    ) -> Result<io::Result<u64>, FsckError> {
        let opened = File::open(self.path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (len, file) = match opened {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error)),
        };
        if len > SEGMENT_LEN_MAX {
            // No start takes anything of it up.
            log.keeps_index = true;
            let what = What::LogEnds { why: Break::TooLong, len };
            report.found(&Finding::at(self.path, what).offset(0))?;
            return Ok(Ok(len));
        }
        let mut walk = Walk::new(0, len, 0).synced_to(self.synced_to.min(len));
        let mut next = walk.start();
        let mut bytes = Vec::new();
        let mut seen = 0;
        let (end, torn) = loop {
            for found in walk.take() {
                self.take(&found, log, report)?;
            }
            let (at, want) = match next {
                Next::Read { at, len } => (at, len),
                Next::End { end, torn } => break (end, torn),
            };
            bytes.resize(want as usize, 0);
            let got = match read_up_to(&file, &mut bytes, at) {
                Ok(got) => got,
                Err(error) => return Ok(Err(error)),
            };
            // A record that did not fit is read again.
            let now = at + got as u64;
            report.read(now.saturating_sub(seen) as usize);
            seen = seen.max(now);
            next = walk
                .feed(&bytes[..got])
                .map_err(|version| FsckError::TooNew { file: self.path.to_owned(), version })?;
        };
        if let Some(why) = torn {
            let len = len - end;
            // A crash tears the last batch at most; the next start cuts off no more than that.
            let cut = end < self.synced_to || len > DISK_OP_LEN_MAX as u64;
            log.keeps_index |= cut;
            let what = if cut { What::LogEnds { why, len } } else { What::TornEnd { why, len } };
            report.found(&Finding::at(self.path, what).offset(end))?;
        }
        Ok(Ok(len))
    }

    fn take(&self, found: &Found, log: &mut Log, report: &mut Report<'_>) -> Result<(), FsckError> {
        if found.kind == RecordKind::Pad {
            return Ok(());
        }
        report.summary.records += 1;
        let (owner, _) = self.layout.owner(&found.digest);
        if owner != self.number {
            let finding = Finding::at(self.path, What::Partition { owner });
            report.found(&finding.offset(found.offset).of(found.digest))?;
            return Ok(());
        }
        log.take(self.segment, found);
        Ok(())
    }
}

/// Fills `bytes` from `at` on; fewer only at the end of the file.
pub(super) fn read_up_to(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < bytes.len() {
        match file.read_at(&mut bytes[got..], at + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(sequence: u64, offset: u64, damaged: bool) -> Found {
        let digest = Address::of(b"x");
        let (kind, size, record_len) = (RecordKind::Object, 1, 256);
        Found { kind, digest, size, sequence, offset, record_len, damaged }
    }

    #[test]
    fn the_highest_sequence_decides_and_of_equals_the_whole_one() {
        for (records, wanted) in [
            (vec![found(1, 0, false), found(2, 128, false)], 128),
            (vec![found(2, 0, false), found(1, 128, false)], 0),
            (vec![found(2, 0, false), found(2, 128, true)], 0),
            (vec![found(2, 0, true), found(2, 128, false)], 128),
            (vec![found(1, 0, false), found(2, 128, true)], 128),
        ] {
            let mut log = Log::default();
            records.iter().for_each(|found| log.take(1, found));
            assert_eq!(log.latest[&Address::of(b"x")].offset, wanted, "{records:?}");
        }
    }

    #[test]
    fn reads_end_with_the_file() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"hello", 0).unwrap();
        let mut bytes = [0; 4];
        assert_eq!(read_up_to(&file, &mut bytes, 0).unwrap(), 4);
        assert_eq!(read_up_to(&file, &mut bytes, 3).unwrap(), 2);
        assert_eq!(read_up_to(&file, &mut bytes, 9).unwrap(), 0);
    }
}
