//! The objects of a run as files, so that another server serves the same paths.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::objects::{ClassSpec, ObjectsError, classes, stamp};

/// Why the files are not there.
#[derive(Debug, Error)]
pub enum FilesError {
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
}

/// Writes the objects of these classes and this seed as `dir/o/b3:<hex>`. One that is there with
/// its length is left as it is. Returns how many there are.
///
/// # Errors
/// The first file that could not be written.
pub fn write(dir: &Path, specs: &[ClassSpec], seed: u64) -> Result<u64, FilesError> {
    let folder = dir.join("o");
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| FilesError::Write { path, source }
    };
    fs::create_dir_all(&folder).map_err(failed(&folder))?;
    let mut count = 0;
    for class in classes(specs, seed)? {
        for (number, address) in class.addresses.iter().enumerate() {
            let path = folder.join(address.to_string());
            let there = fs::metadata(&path).is_ok_and(|file| file.len() == class.spec.size as u64);
            if !there {
                let stamp = stamp(seed, number as u64);
                write_one(&path, &stamp, class.family.rest()).map_err(failed(&path))?;
            }
            count += 1;
        }
    }
    Ok(count)
}

fn write_one(path: &Path, stamp: &[u8], rest: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(stamp)?;
    file.write_all(rest)
}

#[cfg(test)]
mod tests {
    use ron_codec::address::Address;

    use super::*;

    #[test]
    fn files_are_named_by_their_bytes() {
        let temp = tempfile::tempdir().unwrap();
        let specs = ["100:3".parse().unwrap(), "5000:2".parse().unwrap()];
        assert_eq!(write(temp.path(), &specs, 7).unwrap(), 5);
        let mut lengths = Vec::new();
        for entry in fs::read_dir(temp.path().join("o")).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(name, Address::of(&bytes).to_string());
            lengths.push(bytes.len());
        }
        lengths.sort_unstable();
        assert_eq!(lengths, [100, 100, 100, 5000, 5000]);
        // Once more, with one that was cut off.
        let cut = fs::read_dir(temp.path().join("o")).unwrap().next().unwrap().unwrap().path();
        File::create(&cut).unwrap();
        assert_eq!(write(temp.path(), &specs, 7).unwrap(), 5);
        assert!(fs::metadata(&cut).unwrap().len() > 0);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_reported() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, "").unwrap();
        let specs = ["100".parse().unwrap()];
        assert!(matches!(write(&file, &specs, 0), Err(FilesError::Write { .. })));
    }
}
