//! What a process asks of the system before it does anything else: signals that do no harm, and
//! as many open files as it may have.

use std::io;

/// How many files a process may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimit {
    /// The limit in force.
    pub soft: u64,
    /// What it may be raised to.
    pub hard: u64,
}

/// Signals that end a process by default, and must not. SIGXFSZ comes with a write beyond the limit
/// of a file's size, which is an error as well, and is answered as such.
const HARMLESS: [libc::c_int; 5] =
    [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2, libc::SIGPIPE, libc::SIGXFSZ];

/// From now on SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE and SIGXFSZ do nothing, until a handler is
/// installed. Without this they end a process that has not come far enough to handle them.
pub fn ignore_signals() {
    for signal in HARMLESS {
        // SAFETY: ignoring a signal runs no code of ours in its context.
        let before = unsafe { libc::signal(signal, libc::SIG_IGN) };
        assert_ne!(before, libc::SIG_ERR, "signal {signal} can be ignored");
    }
}

/// The limit of open files.
///
/// # Errors
/// What `getrlimit(2)` answered.
pub fn file_limit() -> io::Result<FileLimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes to a structure of the right type that lives through it.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    if done == 0 {
        Ok(FileLimit { soft: limit.rlim_cur, hard: limit.rlim_max })
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Raises the limit of open files to the highest that this process may have, and returns it.
///
/// # Errors
/// What the system answered; the limit is as before then.
pub fn raise_file_limit() -> io::Result<FileLimit> {
    let FileLimit { hard, .. } = file_limit()?;
    let raised = libc::rlimit { rlim_cur: hard, rlim_max: hard };
    // SAFETY: the call reads a structure of the right type that lives through it.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) };
    if done == 0 { file_limit() } else { Err(io::Error::last_os_error()) }
}

/// Whether the process, or the system, has as many files open as it may: it passes when one is
/// closed.
pub fn is_out_of_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// How many files this process has open; `None` where `/proc` does not tell.
pub fn open_files() -> Option<u64> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // The directory itself was open while it was read.
    Some(open.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_the_highest_allowed() {
        let raised = raise_file_limit().unwrap();
        assert_eq!(raised.soft, raised.hard);
        assert_eq!(file_limit().unwrap(), raised);
    }

    #[test]
    fn open_files_are_counted() {
        let before = open_files().unwrap();
        let held: Vec<_> = (0..64).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        // Other tests open and close files at the same time.
        assert!(open_files().unwrap() >= before.saturating_sub(16) + held.len() as u64 / 2);
    }

    #[test]
    fn signals_that_are_ignored_end_nothing() {
        ignore_signals();
        for signal in HARMLESS {
            // SAFETY: the signal is ignored.
            assert_eq!(unsafe { libc::raise(signal) }, 0);
        }
    }
}
