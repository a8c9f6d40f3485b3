//! What became of the last reload, for the metrics. Nothing is read or put in force here.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What became of the last attempt, and what is in force.
#[derive(Debug)]
pub struct ReloadState {
    succeeded: AtomicBool,
    /// When settings were last put in force, in seconds since 1970.
    applied_unix_s: AtomicU64,
    /// When the certificate ends; 0 without a certificate.
    tls_not_after: AtomicU64,
}

impl ReloadState {
    /// The settings of a node that starts are in force.
    pub fn new(tls_not_after: Option<u64>) -> ReloadState {
        ReloadState {
            succeeded: AtomicBool::new(true),
            applied_unix_s: AtomicU64::new(unix_s()),
            tls_not_after: AtomicU64::new(tls_not_after.unwrap_or(0)),
        }
    }

    /// Settings were read again, and put in force or not.
    pub(super) fn attempted(&self, applied: bool) {
        self.succeeded.store(applied, Ordering::Relaxed);
        if applied {
            self.applied_unix_s.store(unix_s(), Ordering::Relaxed);
        }
    }

    /// Another certificate is served, which ends then, in seconds since 1970.
    pub(super) fn renewed(&self, not_after: u64) {
        self.tls_not_after.store(not_after, Ordering::Relaxed);
    }

    pub fn succeeded(&self) -> bool {
        self.succeeded.load(Ordering::Relaxed)
    }

    pub fn applied_unix_s(&self) -> u64 {
        self.applied_unix_s.load(Ordering::Relaxed)
    }

    pub fn tls_not_after(&self) -> Option<u64> {
        Some(self.tls_not_after.load(Ordering::Relaxed)).filter(|not_after| *not_after > 0)
    }
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
