//! Looks at all that a stopped node keeps, and says what is not as it should be.
//!
//! ```text
//!   lock ─► for each partition:  log, hashed ─► index against log ─► object files, hashed ─► tmp
//! ```
//!
//! Nothing is changed, except that with `--rebuild-index` the folders of the index are removed, so
//! that the next start makes them again. It refuses directories that a node has open. What is
//! found is printed as it is found, because a disk that fails may end the check early.
//!
//! A partition is checked at a time, and takes memory for each of its objects: about 100 bytes.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use ron_shards::store::{audit::View, layout::Layout};

use crate::format::Stopped;

mod error;
mod files;
mod index;
mod listing;
mod log;
mod report;

pub use error::FsckError;
use listing::entries;
use report::{Finding, Report, What};

/// The exit codes as `--help` shows them.
pub const EXIT_HELP: &str = "\
Exit codes:
  0  nothing is damaged; there may be notes
  1  damage was found
  2  it could not be checked: in use, no data directory, of another version, or wrong arguments";

/// What to check, and how to tell.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(after_help = EXIT_HELP)]
pub struct Options {
    /// Data directories of one node, all of them or some.
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
    /// Remove the index afterwards, so that the next start makes it again from the log.
    #[arg(long)]
    pub rebuild_index: bool,
}

/// Checks what `options` name. Findings and the summary go to `out`, as lines of JSON if `json` is
/// set; the progress to stderr if it is a terminal.
///
/// # Errors
/// `Damaged` when everything was checked and some of it is not as it was; anything else when it
/// could not be checked to the end.
pub fn run(
    options: &Options,
    json: bool,
    quiet: bool,
    out: &mut dyn Write,
) -> Result<(), FsckError> {
    let stopped = Stopped::open(&options.dirs)?;
    let layout = stopped.layout();
    let mine: Vec<u16> =
        (0..layout.partitions).filter(|number| !layout.is_absent(*number)).collect();
    let dirs: Vec<PathBuf> = mine.iter().map(|number| layout.partition_dir(*number)).collect();
    let total = dirs.iter().map(|dir| bytes_below(dir)).sum();
    let mut report = Report::new(out, json, quiet, total);
    let mut keep = Vec::new();
    for (number, dir) in mine.iter().zip(&dirs) {
        report.summary.partitions += 1;
        if dir.exists() {
            let leads = check_partition(&layout, *number, &mut report)?;
            keep.extend(leads.then_some(*number));
        } else {
            report.found(&Finding::at(dir, What::NoPartition))?;
        }
    }
    if options.rebuild_index {
        for number in mine {
            remove_index(&layout.index_dir(number), keep.contains(&number), &mut report)?;
        }
    }
    match report.finish()?.damage {
        0 => Ok(()),
        damage => Err(FsckError::Damaged { damage }),
    }
}

/// Returns whether the index knows what a rebuild of it would not find.
fn check_partition(
    layout: &Layout,
    number: u16,
    report: &mut Report<'_>,
) -> Result<bool, FsckError> {
    let view = open_index(&layout.index_dir(number), report)?;
    let reached = view.as_ref().map(View::position);
    let mut log = log::walk(layout, number, reached, report)?;
    let by_index = match view {
        Some(view) => index::check(layout, number, &view, &mut log, report)?,
        None => index::Files::new(),
    };
    files::check(layout, number, &mut log, &by_index, report)?;
    let objects = log.objects().map(|latest| latest.size).chain(by_index.values().copied());
    for size in objects {
        report.summary.objects += 1;
        report.summary.object_bytes += size;
    }
    Ok(log.keeps_index)
}

/// The index of a partition, if there is one that is whole.
fn open_index(dir: &Path, report: &mut Report<'_>) -> Result<Option<View>, FsckError> {
    let what = match View::open(dir) {
        Ok(Some(view)) => {
            for reason in view.damaged() {
                let what = What::IndexDamaged { reason: reason.to_string() };
                report.found(&Finding::at(dir, what))?;
            }
            if let Some(why) = view.torn() {
                report.found(&Finding::at(dir, What::IndexTorn { why: why.to_string() }))?;
            }
            return Ok(Some(view));
        }
        Ok(None) => What::NoIndex,
        Err(error) => What::IndexDamaged { reason: error.to_string() },
    };
    report.found(&Finding::at(dir, what))?;
    Ok(None)
}

fn remove_index(dir: &Path, keep: bool, report: &mut Report<'_>) -> Result<(), FsckError> {
    if !dir.exists() {
        return Ok(());
    }
    if keep {
        return Ok(report.found(&Finding::at(dir, What::IndexKept))?);
    }
    fs::remove_dir_all(dir).map_err(|source| FsckError::Remove { path: dir.to_owned(), source })?;
    Ok(report.found(&Finding::at(dir, What::IndexRemoved))?)
}

/// Bytes of segments and object files, for the progress; what cannot be listed counts for nothing.
fn bytes_below(partition: &Path) -> u64 {
    let len = |path: &Path| fs::metadata(path).map_or(0, |data| data.len());
    let mut total = 0;
    for path in entries(&partition.join("segments")).unwrap_or_default() {
        total += len(&path);
    }
    for folder in entries(&partition.join("objects")).unwrap_or_default() {
        for path in entries(&folder).unwrap_or_default() {
            total += len(&path);
        }
    }
    total
}
