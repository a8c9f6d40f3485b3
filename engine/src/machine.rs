//! What the machine gives this process: the cores it may run on and the memory it may use.
//!
//! Everything is read from `/proc` and `/sys` under a root that tests choose. A limit that cannot
//! be read is no limit; only the memory of the machine itself and the cores must be known.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::config::values;

/// What the machine gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Ids of the cores this process may run on, ascending.
    pub cores: Vec<usize>,
    /// Bytes of memory this process may use: those of the machine, or of its control group.
    pub memory_len: u64,
}

/// Why the machine is not known.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error("{path:?} cannot be read: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path:?} has no {what}")]
    Absent { path: PathBuf, what: &'static str },
}

impl Machine {
    /// Looks at this machine.
    ///
    /// # Errors
    /// `/proc` is not mounted, or lacks what every Linux has there.
    pub fn probe() -> Result<Machine, MachineError> {
        Machine::probe_at(Path::new("/"))
    }

    fn probe_at(root: &Path) -> Result<Machine, MachineError> {
        let status = root.join("proc/self/status");
        let absent = |path: &Path, what| MachineError::Absent { path: path.to_owned(), what };
        let cores = field(&read(&status)?, "Cpus_allowed_list:")
            .and_then(values::number_list)
            .ok_or_else(|| absent(&status, "Cpus_allowed_list"))?;
        let meminfo = root.join("proc/meminfo");
        let total = field(&read(&meminfo)?, "MemTotal:")
            .and_then(|total| total.strip_suffix("kB")?.trim().parse::<u64>().ok())
            .ok_or_else(|| absent(&meminfo, "MemTotal"))?;
        let total = total.saturating_mul(1024);
        let limits = group_limits(root).into_iter();
        Ok(Machine { cores, memory_len: limits.fold(total, u64::min) })
    }
}

fn read(path: &Path) -> Result<String, MachineError> {
    fs::read_to_string(path).map_err(|source| MachineError::Read { path: path.to_owned(), source })
}

/// The value of the line that starts with `name`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The memory limits of this process's control group and of all above it.
fn group_limits(root: &Path) -> Vec<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut limits = Vec::new();
    for line in groups.lines() {
        // hierarchy-ID:controllers:path; version 2 has the ID 0 and names no controller.
        let mut parts = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (mount, file) = if id == "0" && controllers.is_empty() {
            ("sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        // Inside a container the path may name a folder that is not visible; its mount is then
        // the group itself, which is last in the walk.
        let path = Path::new(path.trim_start_matches('/'));
        for above in path.ancestors() {
            let limit = fs::read_to_string(root.join(mount).join(above).join(file));
            // "max" is no number, and no limit.
            limits.extend(limit.ok().and_then(|limit| limit.trim().parse::<u64>().ok()));
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn root(cgroup: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let status = "Name:\tx\nCpus_allowed:\t2f\nCpus_allowed_list:\t0-3,5\n";
        write(root.path(), "proc/self/status", status);
        write(root.path(), "proc/meminfo", "MemTotal:       1048576 kB\nMemFree: 1 kB\n");
        write(root.path(), "proc/self/cgroup", cgroup);
        root
    }

    #[test]
    fn the_machine_is_the_limit_where_no_group_is() {
        let root = root("0::/user.slice\n");
        write(root.path(), "sys/fs/cgroup/user.slice/memory.max", "max\n");
        let machine = Machine::probe_at(root.path()).unwrap();
        assert_eq!(machine, Machine { cores: vec![0, 1, 2, 3, 5], memory_len: 1024 * MIB });
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let root = root("0::/a/b/c\n");
        write(root.path(), "sys/fs/cgroup/a/b/c/memory.max", "max\n");
        write(root.path(), "sys/fs/cgroup/a/b/memory.max", &format!("{}\n", 300 * MIB));
        write(root.path(), "sys/fs/cgroup/a/memory.max", &format!("{}\n", 400 * MIB));
        assert_eq!(Machine::probe_at(root.path()).unwrap().memory_len, 300 * MIB);
    }

    #[test]
    fn version_one_and_containers_are_understood() {
        let root = root("5:cpu,cpuacct:/x\n4:hugetlb,memory:/docker/77\n0::/\n");
        let file = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        write(root.path(), file, "9223372036854771712\n");
        assert_eq!(Machine::probe_at(root.path()).unwrap().memory_len, 1024 * MIB);
        write(root.path(), file, &(64 * MIB).to_string());
        assert_eq!(Machine::probe_at(root.path()).unwrap().memory_len, 64 * MIB);
    }

    #[test]
    fn what_must_be_known_is_missed_by_name() {
        let root = root("");
        write(root.path(), "proc/meminfo", "MemFree: 1 kB\n");
        let error = Machine::probe_at(root.path()).unwrap_err();
        assert!(matches!(error, MachineError::Absent { what: "MemTotal", .. }));
        fs::remove_file(root.path().join("proc/meminfo")).unwrap();
        assert!(matches!(Machine::probe_at(root.path()), Err(MachineError::Read { .. })));
    }

    #[test]
    fn this_machine_is_known() {
        let machine = Machine::probe().unwrap();
        assert!(!machine.cores.is_empty() && machine.memory_len > MIB);
    }
}
