//! Opening files, past the page cache where the file system has direct I/O.
//!
//! It may block, and runs on threads that may. What becomes of the open file is not known here.

use std::{
    fs, io,
    mem::MaybeUninit,
    ops::Deref,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
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
    let file = patiently(|| options.open(path))?;
    if how == OpenHow::CreateNew {
        sync_folder(parent(path))?;
    }
    let facts = file.metadata()?;
    let kind = file_system(&file)?;
    // Newer kernels take the flag on tmpfs and go through the page cache, which is all there is.
    let may = access == Access::Direct && kind != libc::TMPFS_MAGIC;
    let direct = may && make_direct(&file)?;
    let file = OpenFile { file, holds_up: kind == libc::FUSE_SUPER_MAGIC };
    Ok(Opened { file, len: facts.len(), device: facts.dev(), direct })
}

/// Asks for direct I/O on an open file. It is not asked for while opening, because a file system
/// that refuses it then has created the file already.
fn make_direct(file: &fs::File) -> io::Result<bool> {
    // SAFETY: the descriptor is open, and the call takes and changes flags only.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_DIRECT) } {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            error => Err(error),
        },
    }
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
