//! What is printed: findings as they come, and a summary at the end.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use indicatif::{ProgressBar, ProgressStyle};
use ron_codec::address::Address;
use ron_shards::store::audit::Break;
use serde::Serialize;

use crate::config::values::human_size;

const BAR: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Nothing is lost and nothing has to be done.
    Note,
    /// Something that was stored is not there as it was.
    Damage,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum What {
    #[error("cannot be read: {reason}")]
    Unreadable { reason: String },
    #[error("the folder of a partition is not there")]
    NoPartition,
    #[error("the log ends here ({why}); what is behind, {len} bytes, is not reached by it")]
    LogEnds { why: Break, len: u64 },
    #[error("a torn end of {len} bytes ({why}), which the next start cuts off")]
    TornEnd { why: Break, len: u64 },
    #[error("data or outboard are not those of the address")]
    Record,
    #[error("data or outboard are not those of the address; a later record stands for it")]
    DeadRecord,
    #[error("the address belongs to partition {owner}")]
    Partition { owner: u16 },
    #[error("the object's file is not there")]
    NoFile,
    #[error("the header of the file is not that of the object: {reason}")]
    FileHeader { reason: String },
    #[error("the file has {len} bytes instead of {expected}")]
    FileLength { len: u64, expected: u64 },
    #[error("{more} bytes lie behind the object, which is whole; nothing reads them")]
    Trailing { more: u64 },
    #[error("the outboard is not that of the address; the data are")]
    Outboard,
    #[error("neither outboard nor data are those of the address")]
    OutboardAndData,
    #[error("{bad} of {count} groups do not match, this is the first")]
    Groups { bad: u64, count: u64 },
    #[error("a file that no record names")]
    Orphan,
    #[error("what an upload left, which the next start removes")]
    Upload,
    #[error("a name that nothing of a node has")]
    Foreign,
    #[error("there is no index; the next start makes it")]
    NoIndex,
    #[error("the last checkpoint of the index is torn ({why}); the log has what is in it")]
    IndexTorn { why: String },
    #[error("the index cannot be read: {reason}")]
    IndexDamaged { reason: String },
    #[error("the index knows the log to {offset} of segment {segment}, which is not there")]
    IndexAhead { segment: u32, offset: u64 },
    #[error("the index names a record that is not there")]
    IndexWrong,
    #[error("the index names an older record than the log")]
    IndexOld,
    #[error("the log does not reach this record; only the index does")]
    IndexOnly,
    #[error("the index does not name this record")]
    NotIndexed,
    #[error("a record of an object that was deleted, which only the index knows")]
    TombstoneLost,
    #[error("the index is removed; the next start makes it again")]
    IndexRemoved,
    #[error("the index is kept: a rebuild would lose what it knows")]
    IndexKept,
}

impl What {
    fn severity(&self) -> Severity {
        match self {
            What::TornEnd { .. }
            | What::DeadRecord
            | What::Trailing { .. }
            | What::Orphan
            | What::Upload
            | What::Foreign
            | What::NoIndex
            | What::IndexTorn { .. }
            | What::IndexOnly
            | What::TombstoneLost
            | What::IndexRemoved
            | What::IndexKept => Severity::Note,
            _ => Severity::Damage,
        }
    }

    /// A word for programs.
    fn kind(&self) -> &'static str {
        match self {
            What::Unreadable { .. } => "unreadable",
            What::NoPartition => "no_partition",
            What::LogEnds { .. } => "log_ends",
            What::TornEnd { .. } => "torn_end",
            What::Record => "record",
            What::DeadRecord => "dead_record",
            What::Partition { .. } => "partition",
            What::NoFile => "no_file",
            What::FileHeader { .. } => "file_header",
            What::FileLength { .. } => "file_length",
            What::Trailing { .. } => "trailing",
            What::Outboard => "outboard",
            What::OutboardAndData => "outboard_and_data",
            What::Groups { .. } => "groups",
            What::Orphan => "orphan",
            What::Upload => "upload",
            What::Foreign => "foreign",
            What::NoIndex => "no_index",
            What::IndexTorn { .. } => "index_torn",
            What::IndexDamaged { .. } => "index_damaged",
            What::IndexAhead { .. } => "index_ahead",
            What::IndexWrong => "index_wrong",
            What::IndexOld => "index_old",
            What::IndexOnly => "index_only",
            What::NotIndexed => "not_indexed",
            What::TombstoneLost => "tombstone_lost",
            What::IndexRemoved => "index_removed",
            What::IndexKept => "index_kept",
        }
    }
}

/// Something that is not as it should be, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The object it is about, if it is about one.
    pub(super) address: Option<Address>,
    pub(super) file: PathBuf,
    /// In the file.
    pub(super) offset: Option<u64>,
    pub(super) what: What,
}

impl Finding {
    pub(super) fn at(file: &Path, what: What) -> Finding {
        Finding { address: None, file: file.to_owned(), offset: None, what }
    }

    pub(super) fn offset(self, offset: u64) -> Finding {
        Finding { offset: Some(offset), ..self }
    }

    pub(super) fn of(self, address: Address) -> Finding {
        Finding { address: Some(address), ..self }
    }
}

/// What was looked at, and what was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    pub(super) partitions: u64,
    pub(super) segments: u64,
    /// Records of objects, deletions and files, those that no longer count included.
    pub(super) records: u64,
    /// Objects there are.
    pub(super) objects: u64,
    pub(super) object_bytes: u64,
    /// Object files that were checked.
    pub(super) files: u64,
    /// Bytes that were read.
    pub(super) read: u64,
    pub(super) damage: u64,
    pub(super) notes: u64,
}

/// Where findings go.
pub(super) struct Report<'a> {
    out: &'a mut dyn Write,
    json: bool,
    bar: ProgressBar,
    pub(super) summary: Summary,
}

impl<'a> Report<'a> {
    /// A report of what is found in `total` bytes.
    pub(super) fn new(out: &'a mut dyn Write, json: bool, quiet: bool, total: u64) -> Report<'a> {
        let bar = if !quiet && io::stderr().is_terminal() {
            ProgressBar::new(total)
        } else {
            ProgressBar::hidden()
        };
        // A template that is wrong is no reason not to look.
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style);
        }
        Report { out, json, bar: bar.with_message("checking"), summary: Summary::default() }
    }

    /// `len` more bytes were read.
    pub(super) fn read(&mut self, len: usize) {
        self.summary.read += len as u64;
        self.bar.inc(len as u64);
    }

    /// Prints a finding.
    pub(super) fn found(&mut self, finding: &Finding) -> io::Result<()> {
        let severity = finding.what.severity();
        match severity {
            Severity::Note => self.summary.notes += 1,
            Severity::Damage => self.summary.damage += 1,
        }
        let line = if self.json { json_line(severity, finding)? } else { line(severity, finding) };
        let out = &mut self.out;
        self.bar.suspend(|| writeln!(out, "{line}"))
    }

    /// Prints the summary, and returns it.
    pub(super) fn finish(self) -> io::Result<Summary> {
        self.bar.finish_and_clear();
        let summary = self.summary;
        if self.json {
            let line = serde_json::json!({ "summary": summary });
            writeln!(self.out, "{line}")?;
        } else {
            let Summary { partitions, segments, records, objects, files, .. } = summary;
            let Summary { damage, notes, .. } = summary;
            let (bytes, read) = (human_size(summary.object_bytes), human_size(summary.read));
            writeln!(
                self.out,
                "{partitions} partitions, {segments} segments, {records} records, {files} object \
                 files, {read} read; {objects} objects of {bytes}; {damage} damaged, {notes} notes"
            )?;
        }
        self.out.flush()?;
        Ok(summary)
    }
}

fn line(severity: Severity, finding: &Finding) -> String {
    let Finding { address, file, offset, what } = finding;
    let mut line = match severity {
        Severity::Note => "note: ".to_owned(),
        Severity::Damage => "damage: ".to_owned(),
    };
    if let Some(address) = address {
        line += &format!("{address} ");
    }
    line += &format!("{file:?}");
    if let Some(offset) = offset {
        line += &format!(" at {offset}");
    }
    line + &format!(": {what}")
}

fn json_line(severity: Severity, finding: &Finding) -> io::Result<String> {
    #[derive(Serialize)]
    struct Line<'a> {
        finding: &'static str,
        severity: Severity,
        addr: Option<Address>,
        file: &'a str,
        offset: Option<u64>,
        what: String,
    }
    let Finding { address, file, offset, what } = finding;
    Ok(serde_json::to_string(&Line {
        finding: what.kind(),
        severity,
        addr: *address,
        file: &file.to_string_lossy(),
        offset: *offset,
        what: what.to_string(),
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(json: bool, findings: &[Finding]) -> (String, Summary) {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out, json, true, 10);
        report.read(7);
        findings.iter().for_each(|finding| report.found(finding).unwrap());
        let summary = report.finish().unwrap();
        (String::from_utf8(out).unwrap(), summary)
    }

    fn findings() -> [Finding; 2] {
        let address = Address::of(b"");
        [
            Finding::at(Path::new("/d/\n.seg"), What::Record).offset(128).of(address),
            Finding::at(Path::new("/d/x"), What::Orphan),
        ]
    }

    #[test]
    fn a_finding_is_a_line() {
        let (text, summary) = printed(false, &findings());
        let lines: Vec<&str> = text.lines().collect();
        let address = Address::of(b"");
        let first = format!("damage: {address} \"/d/\\n.seg\" at 128: data or outboard are not");
        assert!(lines[0].starts_with(&first), "{text}");
        assert_eq!(lines[1], "note: \"/d/x\": a file that no record names");
        assert!(lines[2].ends_with("7 B read; 0 objects of 0 B; 1 damaged, 1 notes"), "{text}");
        assert_eq!((summary.damage, summary.notes, summary.read), (1, 1, 7));
    }

    #[test]
    fn a_finding_is_an_object_of_json() {
        let (text, _) = printed(true, &findings());
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["finding"], "record");
        assert_eq!(lines[0]["severity"], "damage");
        assert_eq!(lines[0]["addr"], Address::of(b"").to_string());
        assert_eq!(lines[0]["offset"], 128);
        assert_eq!((&lines[1]["severity"], &lines[1]["addr"]), (&"note".into(), &().into()));
        assert_eq!(lines[2]["summary"]["damage"], 1);
    }

    #[test]
    fn the_bar_is_sound() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }
}
