//! What the process takes of the system: memory, descriptors, time.
//!
//! Read from `/proc/self` when somebody asks. What cannot be read is absent.

use std::fs;

/// Ticks a second in which the kernel reports times to user space: the same on all of Linux.
const TICKS_PER_S: f64 = 100.0;

/// The process as it is now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Process {
    resident_len: Option<u64>,
    /// Resident bytes by kind.
    anonymous_len: Option<u64>,
    file_len: Option<u64>,
    shared_len: Option<u64>,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
    /// In seconds since 1970.
    started_s: Option<f64>,
}

impl Process {
    pub(crate) fn look() -> Process {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (status, limits) = (read("/proc/self/status"), read("/proc/self/limits"));
        let (stat, machine) = (read("/proc/self/stat"), read("/proc/stat"));
        // The folder is open itself while it is read.
        let open = fs::read_dir("/proc/self/fd").ok().map(|found| found.count() as u64);
        Process {
            open_fds: open.map(|count| count.saturating_sub(1)),
            started_s: started(&stat, &machine),
            ..Process::parse(&status, &limits)
        }
    }

    fn parse(status: &str, limits: &str) -> Process {
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
        };
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let soft = files.and_then(|line| line.split_whitespace().next());
        Process {
            resident_len: kib("VmRSS:"),
            anonymous_len: kib("RssAnon:"),
            file_len: kib("RssFile:"),
            shared_len: kib("RssShmem:"),
            max_fds: soft.and_then(|soft| soft.parse().ok()),
            ..Process::default()
        }
    }

    /// Name, help and value of what is one number.
    pub(crate) fn gauges(&self) -> [(&'static str, &'static str, Option<f64>); 4] {
        let whole = |number: Option<u64>| number.map(|number| number as f64);
        [
            ("process_resident_memory_bytes", "Resident memory.", whole(self.resident_len)),
            ("process_open_fds", "Open file descriptors.", whole(self.open_fds)),
            ("process_max_fds", "File descriptors that may be open.", whole(self.max_fds)),
            (
                "process_start_time_seconds",
                "When the process started, in seconds since 1970.",
                self.started_s,
            ),
        ]
    }

    /// Resident bytes that are the process's own, pages of files, and shared memory.
    pub(crate) fn resident_by_kind(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let kinds = [
            ("anonymous", self.anonymous_len),
            ("file", self.file_len),
            ("shared", self.shared_len),
        ];
        kinds.into_iter().filter_map(|(kind, len)| Some((kind, len?)))
    }
}

/// When the process started, in seconds since 1970, from the texts of its `stat` and the machine's.
fn started(stat: &str, machine: &str) -> Option<f64> {
    // The name in the second field may hold anything, and ends with the last parenthesis.
    let fields = stat.get(stat.rfind(')')? + 1..)?;
    let ticks: f64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let boot = machine.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.trim().parse::<f64>().ok()? + ticks / TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_the_kernel_are_read() {
        let status = "Name:\tx\nVmRSS:\t   12 kB\nRssAnon:\t 7 kB\nRssFile:\t 4 kB\n";
        let limits = "Limit Soft Hard Units\nMax open files            1024  524288  files\n";
        let process = Process::parse(status, limits);
        assert_eq!((process.resident_len, process.max_fds), (Some(12_288), Some(1024)));
        let kinds: Vec<_> = process.resident_by_kind().collect();
        assert_eq!(kinds, [("anonymous", 7168), ("file", 4096)]);
        assert_eq!(Process::parse("", "Max open files unlimited"), Process::default());
        let stat = "1 (a ) b) S 1 1 1 0 -1 4 5 6 7 8 9 10 11 12 20 0 3 0 250 1000 9";
        assert_eq!(started(stat, "cpu 1\nbtime 1000\n"), Some(1002.5));
        assert_eq!(started("", ""), None);
    }

    #[test]
    fn this_process_is_seen() {
        let process = Process::look();
        assert!(process.gauges().iter().all(|(_, _, value)| value.is_some_and(|v| v > 0.0)));
        assert!(process.resident_by_kind().any(|(kind, len)| kind == "anonymous" && len > 0));
    }
}
