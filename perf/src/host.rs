//! The machine that a result was measured on.

use std::fs;

use serde_json::{Value, json};

/// What is said of the machine. What it does not tell is `null`.
#[must_use]
pub fn facts() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    json!({
        "kernel": line("/proc/sys/kernel/osrelease"),
        "cpu": cpu_name(&cpuinfo),
        "cores": cores(&cpuinfo),
        "governor": line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_bytes": memory_bytes(&meminfo),
        "congestion_control": line("/proc/sys/net/ipv4/tcp_congestion_control"),
    })
}

fn line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

fn cpu_name(cpuinfo: &str) -> Option<&str> {
    field(cpuinfo, "model name")
}

/// All that are online, not only those that this process may use.
fn cores(cpuinfo: &str) -> usize {
    cpuinfo.lines().filter(|line| line.starts_with("processor")).count()
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let kib: u64 = field(meminfo, "MemTotal")?.strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A: b\n\nprocessor\t: 1\nmodel name\t: c\n";
        assert_eq!((cpu_name(cpuinfo), cores(cpuinfo)), (Some("A: b"), 2));
        assert_eq!(memory_bytes("MemTotal:        2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        assert_eq!((cpu_name(""), cores(""), memory_bytes("MemTotal: x")), (None, 0, None));
    }

    #[test]
    fn this_machine_is_described() {
        let facts = facts();
        assert!(facts["kernel"].is_string() && facts["memory_bytes"].is_u64(), "{facts}");
    }
}
