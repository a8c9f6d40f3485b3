//! Whether this machine lets us have the ring we need, and what to do when it does not.
//!
//! Features are probed, never versions: a ring is set up as it will be used, and what the kernel
//! answers decides.

use std::{fmt, io};

use io_uring::{IoUring, Probe, opcode, types::Timespec};

use crate::limits::{RING_COMPLETIONS, RING_ENTRIES};

/// The ring cannot be had. Displays as what was refused, why, and the remedy.
#[derive(Debug)]
pub struct Refused {
    what: &'static str,
    source: io::Error,
}

pub(super) fn refused(what: &'static str, source: io::Error) -> Refused {
    Refused { what, source }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "io_uring: the kernel refused {}: {}. ", self.what, self.source)?;
        f.write_str(remedy(self.source.raw_os_error(), disabled()))
    }
}

/// The value of `kernel.io_uring_disabled`, where there is one.
fn disabled() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

fn remedy(error: Option<i32>, disabled: Option<u8>) -> &'static str {
    match (error, disabled) {
        (Some(libc::EPERM | libc::EACCES), Some(1 | 2)) => {
            "It is switched off on this machine: run `sysctl -w kernel.io_uring_disabled=0`."
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "A seccomp filter forbids it, as container runtimes do by default: run with a profile \
             that allows io_uring_setup, io_uring_enter and io_uring_register \
             (docker: --security-opt seccomp=PROFILE.json)."
        }
        (Some(libc::ENOMEM), _) => {
            "The locked-memory limit is too small: raise it with `ulimit -l 65536`, \
             LimitMEMLOCK=64M in a systemd unit, or memlock in /etc/security/limits.conf."
        }
        (Some(libc::ENOSYS), _) => {
            "This kernel has no io_uring: use Linux 6.1 or newer, built with CONFIG_IO_URING."
        }
        (Some(libc::EINVAL), _) => {
            "This kernel lacks a feature that is needed (deferred task work, multishot receive): \
             use Linux 6.1 or newer."
        }
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            "There are no file descriptors left: raise the limit with `ulimit -n 65536` or \
             LimitNOFILE=65536 in a systemd unit."
        }
        _ => "See the manual page io_uring_setup(2).",
    }
}

/// A ring as the driver uses it.
pub(super) fn ring() -> Result<IoUring, Refused> {
    let ring: IoUring = IoUring::builder()
        // One thread submits: the shard's.
        .setup_single_issuer()
        // Completions run when we ask, not by interrupting us.
        .setup_defer_taskrun()
        .setup_cqsize(RING_COMPLETIONS)
        .build(RING_ENTRIES)
        .map_err(|source| refused("a ring", source))?;
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|source| refused("to say what it can do", source))?;
    let needed = [
        opcode::AcceptMulti::CODE,
        opcode::RecvMulti::CODE,
        opcode::Send::CODE,
        opcode::SendMsg::CODE,
        opcode::PollAdd::CODE,
        opcode::AsyncCancel::CODE,
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::Writev::CODE,
        opcode::Fsync::CODE,
    ];
    if !needed.iter().all(|code| probe.is_supported(*code)) {
        return Err(refused("an operation", io::Error::from_raw_os_error(libc::EINVAL)));
    }
    Ok(ring)
}

/// What a wait in this ring is called with besides, as far as the kernel knows it.
///
/// A thread that waits in a ring counts as waiting for a disk, so that a node with nothing to do
/// looks like one whose disk is slow. Newer kernels can be asked not to count it.
pub(super) fn wait_flags(ring: &IoUring) -> u32 {
    const NO_IOWAIT: u32 = 1 << 7;
    // SAFETY: nothing is submitted, nothing waited for, and no argument passed.
    let known = unsafe { ring.submitter().enter::<libc::sigset_t>(0, 0, NO_IOWAIT, None) };
    if known.is_ok() { NO_IOWAIT } else { 0 }
}

/// What a wait takes besides numbers: `struct io_uring_getevents_arg` of the kernel.
#[repr(C)]
pub(super) struct WaitArgument {
    pub(super) signals: u64,
    pub(super) signals_len: u32,
    pub(super) min_wait_us: u32,
    pub(super) timeout: *const Timespec,
}

impl WaitArgument {
    pub(super) const NONE: WaitArgument =
        WaitArgument { signals: 0, signals_len: 0, min_wait_us: 0, timeout: std::ptr::null() };
}

const _: () = assert!(size_of::<WaitArgument>() == 24 && size_of::<*const Timespec>() == 8);

/// Checks, before anything else is set up, that this thread can have a ring.
///
/// # Errors
/// What was refused, and the remedy.
pub fn check() -> Result<(), Refused> {
    ring().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_its_remedy() {
        for (errno, setting, remedy) in [
            (libc::EPERM, Some(2), "kernel.io_uring_disabled=0"),
            (libc::EPERM, Some(0), "seccomp"),
            (libc::EPERM, None, "seccomp"),
            (libc::ENOMEM, Some(0), "ulimit -l"),
            (libc::ENOSYS, None, "6.1"),
            (libc::EINVAL, Some(0), "6.1"),
            (libc::EMFILE, Some(0), "ulimit -n"),
        ] {
            assert!(super::remedy(Some(errno), setting).contains(remedy), "{errno}");
        }
        let shown = refused("a ring", io::Error::from_raw_os_error(libc::ENOMEM)).to_string();
        assert!(shown.contains("refused a ring") && shown.contains("memlock"), "{shown}");
    }
}
