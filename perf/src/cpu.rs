//! CPU time of processes, as `/proc` shows it.
//!
//! The scheduler's own account (`schedstat`, nanoseconds) is exact but has only threads that live.
//! Where one ended in between, the process's account in ticks of 10 ms is used for that process:
//! it keeps what its ended threads used.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    time::Duration,
};

use thiserror::Error;

/// A tick of the accounts in `/proc/PID/stat`: `USER_HZ` is 100 on every Linux of today.
const TICK: Duration = Duration::from_millis(10);

/// Why CPU time is not known.
#[derive(Debug, Error)]
pub enum CpuError {
    #[error("there is no process {pid}: {source}")]
    Gone { pid: u32, source: io::Error },
    #[error("the account of process {pid} is not understood")]
    Account { pid: u32 },
}

/// What processes had used at one time.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    processes: BTreeMap<u32, Usage>,
}

#[derive(Clone, Debug, Default)]
struct Usage {
    /// Of the whole process, ended threads included.
    ticks: u64,
    /// Nanoseconds of each thread; empty where the kernel does not say.
    threads: BTreeMap<u32, u64>,
}

impl Snapshot {
    /// Of these processes and all that descend from them.
    ///
    /// # Errors
    /// When one of `pids` is not there.
    pub fn take(pids: &[u32]) -> Result<Self, CpuError> {
        let mut processes = BTreeMap::new();
        for pid in pids {
            processes.insert(*pid, Usage::read(*pid)?);
        }
        for pid in descendants(pids) {
            // It may have ended since it was listed.
            if let Ok(usage) = Usage::read(pid) {
                processes.insert(pid, usage);
            }
        }
        Ok(Self { processes })
    }

    /// What was used since an earlier snapshot of the same processes.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Duration {
        let none = Usage::default();
        let used =
            |(pid, now): (&u32, &Usage)| now.since(earlier.processes.get(pid).unwrap_or(&none));
        self.processes.iter().map(used).sum()
    }

    /// Processes of an earlier snapshot that have ended, so that what they used is not known.
    #[must_use]
    pub fn ended(&self, earlier: &Self) -> Vec<u32> {
        let gone = |pid: &&u32| !self.processes.contains_key(pid);
        earlier.processes.keys().filter(gone).copied().collect()
    }
}

impl Usage {
    fn read(pid: u32) -> Result<Self, CpuError> {
        let gone = |source| CpuError::Gone { pid, source };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(gone)?;
        let (_, ticks) = parse_stat(&stat).ok_or(CpuError::Account { pid })?;
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task")).map_err(gone)?.flatten() {
            let Some(tid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
            if let Some(nanos) = parse_schedstat(&text) {
                threads.insert(tid, nanos);
            }
        }
        Ok(Self { ticks, threads })
    }

    fn since(&self, earlier: &Self) -> Duration {
        let lost = earlier.threads.keys().any(|tid| !self.threads.contains_key(tid));
        if lost || self.threads.is_empty() {
            let ticks = self.ticks.saturating_sub(earlier.ticks);
            return TICK * u32::try_from(ticks).unwrap_or(u32::MAX);
        }
        let nanos = self.threads.iter().map(|(tid, nanos)| {
            nanos.saturating_sub(earlier.threads.get(tid).copied().unwrap_or(0))
        });
        Duration::from_nanos(nanos.sum())
    }
}

/// CPU time of the calling thread.
#[must_use]
pub fn own_thread() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    parse_schedstat(&text).map(Duration::from_nanos)
}

/// Everything that descends from `pids`, without themselves.
fn descendants(pids: &[u32]) -> BTreeSet<u32> {
    let mut parents = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if let Some((parent, _)) = parse_stat(&stat) {
            parents.insert(pid, parent);
        }
    }
    let mut found: BTreeSet<u32> = BTreeSet::new();
    // Each round goes one generation further.
    loop {
        let child = |(pid, parent): (&u32, &u32)| {
            let ours = pids.contains(parent) || found.contains(parent);
            (ours && !found.contains(pid) && !pids.contains(pid)).then_some(*pid)
        };
        let children: Vec<u32> = parents.iter().filter_map(child).collect();
        if children.is_empty() {
            return found;
        }
        found.extend(children);
    }
}

/// The parent, and the ticks used in user and kernel mode.
fn parse_stat(text: &str) -> Option<(u32, u64)> {
    // The name stands in parentheses and may contain anything, parentheses too.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let parent = fields.get(1)?.parse().ok()?;
    Some((parent, number(11)? + number(12)?))
}

/// Nanoseconds on a CPU.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{hint::black_box, process};

    use super::*;

    fn usage(ticks: u64, threads: &[(u32, u64)]) -> Usage {
        Usage { ticks, threads: threads.iter().copied().collect() }
    }

    #[test]
    fn accounts_are_read() {
        let stat = "7 (a) b) S 3 7 7 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 1 0";
        assert_eq!(parse_stat(stat), Some((3, 175)));
        assert_eq!(parse_stat("7 (a"), None);
        assert_eq!(parse_schedstat("123456 7 8\n"), Some(123_456));
        assert_eq!(parse_schedstat(""), None);
    }

    #[test]
    fn ticks_are_used_when_a_thread_has_ended() {
        let before = usage(10, &[(1, 100), (2, 50)]);
        let more = usage(30, &[(1, 300), (2, 50), (3, 7)]);
        assert_eq!(more.since(&before), Duration::from_nanos(207));
        let fewer = usage(30, &[(1, 300)]);
        assert_eq!(fewer.since(&before), Duration::from_millis(200));
        assert_eq!(usage(30, &[]).since(&before), Duration::from_millis(200));
    }

    #[test]
    fn work_of_this_process_and_its_children_is_seen() {
        let mut child = process::Command::new("sleep").arg("60").spawn().unwrap();
        let pids = [process::id()];
        let before = Snapshot::take(&pids).unwrap();
        assert!(before.processes.contains_key(&child.id()));
        // Enough for the coarse account too: threads of other tests may end meanwhile.
        let work = TICK * 5;
        let own = own_thread().unwrap();
        while own_thread().unwrap() - own < work {
            black_box(blake3::hash(&[0; 4096]));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let after = Snapshot::take(&pids).unwrap();
        assert!(after.since(&before) >= work - TICK);
        assert_eq!(after.ended(&before), [child.id()]);
    }

    #[test]
    fn processes_that_are_not_there_are_reported() {
        assert!(matches!(Snapshot::take(&[u32::MAX]), Err(CpuError::Gone { .. })));
    }
}
