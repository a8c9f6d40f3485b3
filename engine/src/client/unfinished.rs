//! Files that are worth nothing unless they are finished: they are removed also when a signal ends
//! the process.
//!
//! ```text
//!   create ─► finish: has its name        SIGHUP, SIGINT, SIGTERM at any time: all are removed,
//!      └────► dropped: removed            then the process ends by the signal, as a shell expects
//! ```
//!
//! A signal that the process was started with as ignored, as by `nohup`, stays ignored.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, Once, PoisonError},
    thread,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};

/// Those that there are. A signal takes the lock and never gives it back.
static FILES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A file under its first name; removed when it is dropped before `finish`.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: PathBuf,
    finished: bool,
}

impl Unfinished {
    /// Makes a file that nobody else has, and follows no link to make it.
    ///
    /// # Errors
    /// What `open(2)` answered, `AlreadyExists` among it.
    pub(super) fn create(path: &Path) -> io::Result<(File, Unfinished)> {
        watch();
        let mut files = lock();
        let file = File::options().write(true).create_new(true).open(path)?;
        files.push(path.to_path_buf());
        Ok((file, Unfinished { path: path.to_path_buf(), finished: false }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its last name.
    ///
    /// # Errors
    /// What `rename(2)` answered.
    pub(super) fn finish(&mut self, target: &Path) -> io::Result<()> {
        let mut files = lock();
        fs::rename(&self.path, target)?;
        files.retain(|path| *path != self.path);
        self.finished = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            let mut files = lock();
            // It cannot be reported, and the next one has another name.
            let _ = fs::remove_file(&self.path);
            files.retain(|path| *path != self.path);
        }
    }
}

fn lock() -> MutexGuard<'static, Vec<PathBuf>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts to listen for signals, once. Where that fails, a signal leaves the files behind.
fn watch() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let ignored = fs::read_to_string("/proc/self/status").map_or(0, |text| ignored(&text));
        let heeded = [SIGHUP, SIGINT, SIGTERM].into_iter();
        let heeded = heeded.filter(|signal| ignored & (1 << (signal - 1)) == 0);
        let Ok(mut signals) = Signals::new(heeded) else { return };
        let end = move || {
            for signal in signals.forever() {
                let files = lock();
                for path in files.iter() {
                    let _ = fs::remove_file(path);
                }
                // Does not return for any of these.
                let _ = emulate_default_handler(signal);
            }
        };
        let _ = thread::Builder::new().name("signals".to_owned()).spawn(end);
    });
}

/// The set of ignored signals in what `/proc/self/status` says.
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001003\nSigCgt:\t1\n"), 0x1003);
        assert_eq!(ignored("Name:\tx\n"), 0);
    }
}
