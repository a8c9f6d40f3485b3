//! What lies in the folders of a partition, by name and in order. What the names mean is not known
//! here.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    error::FsckError,
    report::{Finding, Report, What},
};

/// What is in a folder, sorted; nothing if the folder is not there.
pub(super) fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut paths =
        listed.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort_unstable();
    Ok(paths)
}

/// As `entries`; a folder that cannot be listed is a finding.
pub(super) fn list(folder: &Path, report: &mut Report<'_>) -> Result<Vec<PathBuf>, FsckError> {
    match entries(folder) {
        Ok(paths) => Ok(paths),
        Err(error) => {
            let what = What::Unreadable { reason: error.to_string() };
            report.found(&Finding::at(folder, what))?;
            Ok(Vec::new())
        }
    }
}

/// The last part of a path, as text; what is no text is no name of ours.
pub(super) fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
