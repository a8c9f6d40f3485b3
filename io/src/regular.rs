//! Files that an operator names: regular ones, which keep nobody waiting who opens them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Opens a regular file to be read. A FIFO that nobody writes to, a terminal or another device is
/// refused, and is not waited for.
///
/// # Errors
/// What the system answered, or that it is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let refused = || io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
    // To open a device may do something by itself, so it is looked at before; and again, because
    // it may have become another one since.
    if !fs::metadata(path)?.is_file() {
        return Err(refused());
    }
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(refused()) }
}

/// Reads all of a regular file that has at most `len_max` bytes.
///
/// # Errors
/// As [`open`], and [`io::ErrorKind::FileTooLarge`] for one that is longer.
pub fn read(path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(len_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > len_max {
        let why = format!("it has more than {len_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{ffi::CString, os::unix::ffi::OsStrExt};

    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link, fifo) =
            (folder.path().join("file"), folder.path().join("link"), folder.path().join("fifo"));
        fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let name = CString::new(fifo.as_os_str().as_bytes()).unwrap();
        // SAFETY: the name lives through the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        for path in [&file, &link] {
            let mut text = String::new();
            open(path).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "text");
        }
        for path in [fifo.as_path(), Path::new("/dev/zero"), folder.path()] {
            let error = open(path).unwrap_err().to_string();
            assert_eq!(error, "it is no regular file", "{path:?}");
        }
        assert_eq!(read(&file, 4).unwrap(), b"text");
        let error = read(&file, 3).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 3 bytes");
        // What is sparse, or grows without an end, is not taken into memory.
        fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read(&file, 1000).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let missing = open(&folder.path().join("none")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
