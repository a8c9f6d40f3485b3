//! The index against the log: each names what the other has.

use std::{collections::HashMap, fs::File, path::PathBuf};

use ron_codec::{
    address::Address,
    record::{RecordHeader, RecordKind},
};
use ron_shards::store::{
    audit::{Entry, Location, Position, View, is_whole},
    layout::Layout,
};

use super::{
    error::FsckError,
    log::{Latest, Log, read_up_to},
    report::{Finding, Report, What},
};

/// Objects in files of their own that only the index names, and their sizes: a rebuild found them
/// by their names.
pub(super) type Files = HashMap<Address, u64>;

/// Compares the index with the log.
pub(super) fn check(
    layout: &Layout,
    number: u16,
    view: &View,
    log: &mut Log,
    report: &mut Report<'_>,
) -> Result<Files, FsckError> {
    let dir = layout.index_dir(number);
    let reached = view.position();
    let Position { segment, offset } = reached;
    let there = log.segments.iter().any(|(number, len)| *number == segment && offset <= *len);
    if !there && segment > 0 {
        // What was deleted in the part of the log that is lost only the index knows.
        log.keeps_index = true;
        report.found(&Finding::at(&dir, What::IndexAhead { segment, offset }))?;
    }
    let mut files = Files::new();
    let comparing = Comparing { layout, number, reached, dir };
    for (address, entry) in view.entries() {
        comparing.entry(address, &entry, log, &mut files, report)?;
    }
    let mut forgotten = false;
    for (address, latest) in &log.latest {
        let stored = latest.kind != RecordKind::Tombstone;
        if stored && !latest.indexed && !latest.damaged && comparing.knows(latest) {
            let path = layout.segment_path(number, latest.segment);
            // The index is checked and knows the log to behind this record. It may not have seen
            // what damage hid; otherwise the object was deleted, and its tombstone is lost.
            let was_hidden = log.hidden.contains(&latest.segment);
            forgotten |= !was_hidden;
            let what = if was_hidden { What::NotIndexed } else { What::TombstoneLost };
            let finding = Finding::at(&path, what).offset(latest.offset);
            report.found(&finding.of(*address))?;
        }
    }
    log.keeps_index |= forgotten;
    Ok(files)
}

struct Comparing<'a> {
    layout: &'a Layout,
    number: u16,
    reached: Position,
    dir: PathBuf,
}

impl Comparing<'_> {
    /// Whether the index must know of a record.
    fn knows(&self, latest: &Latest) -> bool {
        let Latest { segment, offset, .. } = *latest;
        Position { segment, offset } < self.reached
    }

    fn entry(
        &self,
        address: Address,
        entry: &Entry,
        log: &mut Log,
        files: &mut Files,
        report: &mut Report<'_>,
    ) -> Result<(), FsckError> {
        let (owner, _) = self.layout.owner(&address);
        if owner != self.number {
            let finding = Finding::at(&self.dir, What::Partition { owner });
            return Ok(report.found(&finding.of(address))?);
        }
        let Some(latest) = log.latest.get_mut(&address) else {
            return self.unknown(address, entry, files, report);
        };
        latest.indexed = true;
        if is_named(entry, latest) {
            return Ok(());
        }
        if let Location::Segment { segment, offset } = entry.location {
            let place = (segment, u64::from(offset));
            // It may name a copy of the record, or the whole one before a damaged one.
            if place != (latest.segment, latest.offset) && self.record(address, entry).is_some() {
                return self.older(address, entry, *latest, report);
            }
        } else if entry.sequence != latest.sequence {
            return self.older(address, entry, *latest, report);
        }
        let finding = Finding::at(&self.dir, What::IndexWrong);
        Ok(report.found(&finding.of(address))?)
    }

    /// The index names a record that the log reaches, and has a later one for.
    fn older(
        &self,
        address: Address,
        entry: &Entry,
        latest: Latest,
        report: &mut Report<'_>,
    ) -> Result<(), FsckError> {
        if entry.sequence >= latest.sequence || latest.damaged || !self.knows(&latest) {
            return Ok(());
        }
        let finding = Finding::at(&self.dir, What::IndexOld);
        Ok(report.found(&finding.of(address))?)
    }

    /// The index names an object that the log does not.
    fn unknown(
        &self,
        address: Address,
        entry: &Entry,
        files: &mut Files,
        report: &mut Report<'_>,
    ) -> Result<(), FsckError> {
        let Location::Segment { segment, offset } = entry.location else {
            files.insert(address, entry.size);
            return Ok(());
        };
        let finding = match self.record(address, entry) {
            None => Finding::at(&self.dir, What::IndexWrong),
            Some(whole) => {
                let what = if whole { What::IndexOnly } else { What::Record };
                let path = self.layout.segment_path(self.number, segment);
                Finding::at(&path, what).offset(offset.into())
            }
        };
        Ok(report.found(&finding.of(address))?)
    }

    /// Whether the record that an entry names is whole; `None` if it is not there.
    fn record(&self, address: Address, entry: &Entry) -> Option<bool> {
        let Location::Segment { segment, offset } = entry.location else { return None };
        let header = RecordHeader::for_segment(address, entry.size, entry.sequence).ok()?;
        let file = File::open(self.layout.segment_path(self.number, segment)).ok()?;
        let mut bytes = vec![0; header.record_len() as usize];
        let got = read_up_to(&file, &mut bytes, offset.into()).ok()?;
        let found = RecordHeader::decode(&bytes[..got]).ok()?;
        (found == header).then(|| got == bytes.len() && is_whole(&header, &bytes))
    }
}

/// Whether an entry names exactly this record.
fn is_named(entry: &Entry, latest: &Latest) -> bool {
    let same = (entry.size, entry.sequence) == (latest.size, latest.sequence);
    same && match entry.location {
        Location::Segment { segment, offset } => {
            let place = (segment, u64::from(offset));
            latest.kind == RecordKind::Object && place == (latest.segment, latest.offset)
        }
        Location::File { .. } => latest.kind == RecordKind::File,
    }
}
