//! Opening files, past the page cache where the file system has direct I/O.
//!
//! It may block, and runs on threads that may. What becomes of the open file is not known here.

use std::{
    fs, io,
    mem::MaybeUninit,
    ops::Deref,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use super::names::{parent, patiently, sync_folder};
use crate::ports::OpenHow;

/// Whether files are opened for direct I/O where that can be had, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ring) enum Access {
    Direct,
    #[cfg_attr(not(test), expect(dead_code, reason = "what happens without is tested anywhere"))]
    Buffered,
}

/// An open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: fs::File,
    /// Whether the kernel waits for the disk while it takes an operation on the file, where it
    /// should say that it would have to. FUSE does, also in Linux 6.18.
    pub(super) holds_up: bool,
}

impl Deref for OpenFile {
    type Target = fs::File;

    fn deref(&self) -> &fs::File {
        &self.file
    }
}

/// A file that was just opened.
#[derive(Debug)]
pub(in crate::ring) struct Opened {
    pub(super) file: OpenFile,
    pub(super) len: u64,
    pub(super) device: u64,
    /// Whether what is read and written goes past the page cache.
    pub(super) direct: bool,
}

/// Opens a file, for direct I/O where the file system has that.
pub(super) fn open(path: &Path, how: OpenHow, access: Access) -> io::Result<Opened> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(how != OpenHow::Read).create_new(how == OpenHow::CreateNew);
    // A pipe would wait for who opens its other end.
    options.custom_flags(libc::O_NONBLOCK);
    let file = patiently(|| options.open(path))?;
    if how == OpenHow::CreateNew {
        sync_folder(parent(path))?;
    }
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let kind = file_system(&file)?;
    // Newer kernels take the flag on tmpfs and go through the page cache, which is all there is.
    let may = access == Access::Direct && kind != libc::TMPFS_MAGIC;
    let direct = set_flags(&file, may)?;
    let file = OpenFile { file, holds_up: kind == libc::FUSE_SUPER_MAGIC };
    Ok(Opened { file, len: facts.len(), device: facts.dev(), direct })
}

/// Makes a file one that waits, and asks for direct I/O on it with `direct`. That is not asked for
/// while opening, because a file system that refuses it then has created the file already. Whether
/// it was had.
fn set_flags(file: &fs::File, direct: bool) -> io::Result<bool> {
    // SAFETY: the descriptor is open, and the call takes and changes flags only.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = flags & !libc::O_NONBLOCK;
    let set = |flags: libc::c_int| {
        // SAFETY: as above.
        match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    if direct {
        match set(flags | libc::O_DIRECT) {
            Ok(()) => return Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    set(flags).map(|()| false)
}

/// The kind of file system that a file lies on.
fn file_system(file: &fs::File) -> io::Result<libc::__fsword_t> {
    let mut facts = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open, and the call fills `facts` when it returns 0.
    match unsafe { libc::fstatfs(file.as_raw_fd(), facts.as_mut_ptr()) } {
        // SAFETY: see above.
        0 => Ok(unsafe { facts.assume_init() }.f_type),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_in_place_of_a_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the name ends with a zero.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        for how in [OpenHow::Read, OpenHow::ReadWrite] {
            let error = open(&path, how, Access::Direct).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
        assert!(open(dir.path(), OpenHow::Read, Access::Direct).is_err());
    }

    #[test]
    fn reads_of_an_open_file_wait() {
        let dir = tempfile::tempdir().unwrap();
        for access in [Access::Direct, Access::Buffered] {
            let path = dir.path().join(format!("{access:?}"));
            let opened = open(&path, OpenHow::CreateNew, access).unwrap();
            // SAFETY: the descriptor is open, and the call only tells flags.
            let flags = unsafe { libc::fcntl(opened.file.as_raw_fd(), libc::F_GETFL) };
            assert_eq!(flags & libc::O_NONBLOCK, 0, "{access:?}");
        }
    }
}
