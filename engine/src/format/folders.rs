//! Directories made durably. What they are for is not known here.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use super::error::DataDirError;

/// Makes a directory and those above it, durably.
pub(super) fn make_dir(path: &Path) -> Result<(), DataDirError> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|above| !above.as_os_str().is_empty() && !above.exists())
        .collect();
    fs::create_dir_all(path).map_err(refused("create", path))?;
    for made in missing.into_iter().rev() {
        sync_dir(parent(made))?;
    }
    Ok(())
}

/// The error of a call that the system refused, by what it was to do.
pub(super) fn refused<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> DataDirError + 'a {
    move |source| DataDirError::Io { what, path: path.to_owned(), source }
}

/// The directory that a path is in; that of a plain name is the current one.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), DataDirError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(refused("sync", path))
}

/// Whether a folder is not empty, or may not be.
pub(super) fn holds_something(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}
