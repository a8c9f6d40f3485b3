//! What lies on the disk of a node that is not running: where an object is, and how to damage it.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{Data, Object};

/// Every segment and object file below a directory.
pub fn files(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).expect("the directory can be read") {
        let path = entry.expect("an entry").path();
        let kept = path.extension().is_some_and(|ending| ending == "seg" || ending == "obj");
        if path.is_dir() {
            files(&path, found);
        } else if kept {
            found.push(path);
        }
    }
}

/// The file that holds an object, and where in it the object begins: at a multiple of 128
/// (docs/STORAGE.md, "Records"), in exactly one place.
pub fn find(data: &Data, object: &Object) -> (PathBuf, u64) {
    let mut all = Vec::new();
    files(&data.path().join("data"), &mut all);
    let mut places = Vec::new();
    for path in all {
        let bytes = fs::read(&path).expect("the file can be read");
        for at in (0..bytes.len()).step_by(128) {
            if bytes[at..].starts_with(&object.bytes) {
                places.push((path.clone(), at as u64));
            }
        }
    }
    assert_eq!(places.len(), 1, "{} bytes are stored once: {places:?}", object.bytes.len());
    places.remove(0)
}

/// Flips the lowest bit of a byte.
pub fn flip(path: &Path, at: u64) {
    flip_bit(path, at, 0);
}

/// Flips one bit of a byte.
pub fn flip_bit(path: &Path, at: u64, bit: u8) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the file is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("the byte is there");
    byte[0] ^= 1 << bit;
    file.write_all_at(&byte, at).expect("the byte can be written");
    file.sync_all().expect("the file can be synced");
}
