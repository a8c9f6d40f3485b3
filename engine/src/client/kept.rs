//! A partial file that outlives a failure, for `get --continue`.
//!
//! What is in it is hashed again from its start, because nobody knows what became of it meanwhile.
//! The last group of it is fetched once more, so that there is always something to ask for.

use std::{
    ffi::OsString,
    fs::{File, TryLockError},
    io::{self, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use ron_codec::{limits::GROUP_LEN, outboard::Hashing};
use rustix::fs::OFlags;

use super::{
    args::Range,
    error::{ClientError, TreeFault},
    progress::Progress,
    source::hash_into,
};

/// How the name of the partial file ends.
const SUFFIX: &str = ".part";

/// What is there of an object.
pub(super) struct Kept {
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// Of all bytes before `from`.
    pub(super) hashing: Hashing,
    /// Where to go on; the file ends there.
    pub(super) from: u64,
}

impl Kept {
    /// Opens the partial file of `target`, or makes it; with `anew`, nothing in it counts.
    ///
    /// # Errors
    ///
    /// `InUse` when another process has it, and what the file system says.
    pub(super) fn open(target: &Path, anew: bool, quiet: bool) -> Result<Self, ClientError> {
        let mut name = OsString::from(target);
        name.push(SUFFIX);
        let path = PathBuf::from(name);
        let failed = |source| ClientError::file(&path, source);
        // Neither a link to elsewhere nor a FIFO is a partial file.
        let flags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits();
        let mut options = File::options();
        options.read(true).write(true).create(true).custom_flags(flags as i32);
        let mut file = options.open(&path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(ClientError::Tree { path, why: TreeFault::NotFile });
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ClientError::InUse { path }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let from = if anew { 0 } else { go_on_at(file.metadata().map_err(failed)?.len()) };
        let mut hashing = Hashing::new();
        let progress = Progress::new("hashing", Some(from), quiet);
        hash_into(&mut hashing, &file, &path, from, progress)?;
        let cut = file.set_len(from).and_then(|()| file.seek(SeekFrom::Start(from)));
        cut.map_err(failed)?;
        Ok(Self { file, path, hashing, from })
    }

    /// What to ask for; everything when there is nothing yet.
    pub(super) fn range(&self) -> Option<Range> {
        (self.from > 0).then_some(Range { first: self.from, last: None })
    }
}

/// Where to go on with a file of this length: at the start of its last group.
fn go_on_at(len: u64) -> u64 {
    let group = GROUP_LEN as u64;
    len.saturating_sub(1) / group * group
}

/// Removes a partial file whose bytes are wrong.
///
/// # Errors
///
/// What the file system says.
pub(super) fn discard(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ron_codec::address::Address;

    use super::*;

    #[test]
    fn it_goes_on_with_the_last_group() {
        let group = GROUP_LEN as u64;
        for (len, from) in [
            (0, 0),
            (1, 0),
            (group, 0),
            (group + 1, group),
            (2 * group, group),
            (2 * group + 1, 2 * group),
        ] {
            assert_eq!(go_on_at(len), from, "{len}");
        }
    }

    #[test]
    fn what_is_there_is_hashed_and_cut() {
        let dir = tempfile::tempdir().unwrap();
        let (target, part) = (dir.path().join("out"), dir.path().join("out.part"));
        let kept = Kept::open(&target, false, true).unwrap();
        assert_eq!((kept.from, kept.range()), (0, None));
        assert!(matches!(Kept::open(&target, false, true), Err(ClientError::InUse { .. })));
        drop(kept);
        let bytes = vec![7; GROUP_LEN + 10];
        fs::write(&part, &bytes).unwrap();
        let kept = Kept::open(&target, false, true).unwrap();
        assert_eq!(kept.from, GROUP_LEN as u64);
        assert_eq!(kept.hashing.finish().address, Address::of(&bytes[..GROUP_LEN]));
        assert_eq!(fs::metadata(&part).unwrap().len(), GROUP_LEN as u64);
        drop(kept.file);
        assert_eq!(Kept::open(&target, true, true).unwrap().from, 0);
        assert_eq!(fs::metadata(&part).unwrap().len(), 0);
        fs::remove_file(&part).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &part).unwrap();
        assert!(matches!(Kept::open(&target, false, true), Err(ClientError::File { .. })));
    }
}
