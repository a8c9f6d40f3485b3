//! What only the file system's tables know: names, folders, lengths and free space. All of it
//! may block, and runs on threads that may.

use std::{
    ffi::CString,
    fs, io,
    mem::MaybeUninit,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::Path,
};

use crate::{
    limits::{BACKGROUND_READ_LEN, FREE_INODES_MIN, OPEN_AGAIN, OPEN_TRIES},
    ports::{DiskDone, DiskOp, Space},
    process::is_out_of_files,
};

/// Opens something, again and again for a moment while there are as many open files as there may
/// be: connections that were one too many are being closed then.
pub(super) fn patiently<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..OPEN_TRIES {
        match open() {
            Err(error) if is_out_of_files(&error) => std::thread::sleep(OPEN_AGAIN),
            outcome => return outcome,
        }
    }
    open()
}

/// Reads into `buffer` at `at`, both aligned, with the lowest priority there is. Returns how many
/// bytes; fewer than asked for only at the end of the file.
pub(super) fn read_idly(file: &fs::File, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let _idle = Idle::begin();
    let mut done = 0;
    // In short pieces: who comes meanwhile waits for one of them at most.
    for piece in buffer.chunks_mut(BACKGROUND_READ_LEN) {
        let read = file.read_at(piece, at + done as u64)?;
        done += read;
        if read < piece.len() {
            break;
        }
    }
    Ok(done)
}

/// While it lives, disk accesses of this thread come after everybody else's, where the scheduler
/// of the disk knows priorities. It is only a hint, so errors are of no interest.
struct Idle;

impl Idle {
    fn begin() -> Idle {
        const IDLE_CLASS: libc::c_int = 3 << 13;
        Idle::set(IDLE_CLASS);
        Idle
    }

    fn set(priority: libc::c_int) {
        const THIS_THREAD: (libc::c_int, libc::c_int) = (1, 0);
        // SAFETY: the call takes numbers only and changes nothing but the thread's priority.
        unsafe { libc::syscall(libc::SYS_ioprio_set, THIS_THREAD.0, THIS_THREAD.1, priority) };
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        Idle::set(0);
    }
}

/// Performs an operation that names files instead of using open ones.
pub(super) fn perform(op: DiskOp) -> io::Result<DiskDone> {
    match op {
        DiskOp::Remove { path, durable } => match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            // An earlier try may have removed it and not been able to make that durable.
            _ if durable => match sync_folder(parent(&path)) {
                // No folder, no file.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                synced => synced?,
            },
            _ => {}
        },
        DiskOp::MakeDir { path } => make_dir(&path)?,
        DiskOp::List { path } => return list(&path).map(DiskDone::Listed),
        DiskOp::Run(job) => return Ok(DiskDone::Ran(job())),
        DiskOp::Space { path } => return space(&path),
        op => unreachable!("{op:?} needs an open file"),
    }
    Ok(DiskDone::Done)
}

/// Gives a file another name, durably.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<DiskDone> {
    fs::rename(from, to)?;
    sync_names(from, to)
}

fn sync_names(from: &Path, to: &Path) -> io::Result<DiskDone> {
    sync_folder(parent(to))?;
    if parent(from) != parent(to) {
        sync_folder(parent(from))?;
    }
    Ok(DiskDone::Done)
}

/// Moves a file to another file system: a durable copy takes its name there, then the file goes.
pub(super) fn carry(from: &Path, to: &Path) -> io::Result<DiskDone> {
    let copy = to.with_extension("part");
    let copied = fs::copy(from, &copy)
        .and_then(|_| fs::File::open(&copy)?.sync_all())
        .and_then(|()| fs::rename(&copy, to));
    if let Err(error) = copied {
        // What is left of a copy has no name that counts; that it cannot be removed changes that
        // no more than the error that is reported.
        let _ = fs::remove_file(&copy);
        return Err(error);
    }
    fs::remove_file(from)?;
    sync_names(from, to)
}

/// The folder of a name.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    }
}

fn space(path: &Path) -> io::Result<DiskDone> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut facts = MaybeUninit::<libc::statvfs64>::uninit();
    // SAFETY: the path ends with a zero, and the call fills `facts` when it returns 0.
    let facts = match unsafe { libc::statvfs64(path.as_ptr(), facts.as_mut_ptr()) } {
        // SAFETY: see above.
        0 => unsafe { facts.assume_init() },
        _ => return Err(io::Error::last_os_error()),
    };
    let (free, total) = (facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize);
    // Where inodes are made as they are needed, there are none in all.
    let few_inodes = facts.f_favail < FREE_INODES_MIN.min(facts.f_files / 16);
    Ok(DiskDone::Space(Space { free, total, few_inodes }))
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    patiently(|| fs::File::open(path))?.sync_all()
}

/// Makes a folder and those above it, and makes the folder durable also if it was there: its
/// maker may not have synced it yet, or may have failed to.
fn make_dir(path: &Path) -> io::Result<()> {
    let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) else {
        return Ok(());
    };
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_dir(above)?;
            match fs::create_dir(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Err(_) if path.is_dir() => {}
        made => made?,
    }
    sync_folder(above)
}

fn list(path: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // Of what a link leads to: it is opened through the link.
        let facts = match fs::metadata(entry.path()) {
            // It was removed meanwhile, or leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            facts => facts?,
        };
        // A name that is not text is not ours.
        if let (true, Ok(name)) = (facts.is_file(), entry.file_name().into_string()) {
            found.push((name, facts.len()));
        }
    }
    Ok(found)
}
