"""What numbers were measured on: facts of this host, as a dictionary or as JSON on stdout.

    host.py [--congestion ALGORITHM]

Everything is read from /proc and /sys; nothing is changed and nothing is run. A fact that the
kernel does not tell is null, never a guess. `--congestion` names the algorithm of the namespace
that is measured in, where that is not the one of the host.
"""

import argparse
import datetime
import glob
import json
import os
import platform
import re
import resource

CPU = "/sys/devices/system/cpu"
URING_KNOBS = ("io_uring_disabled", "io_uring_group")
TCP_KNOBS = ("tcp_congestion_control", "tcp_allowed_congestion_control", "tcp_rmem", "tcp_wmem",
             "tcp_tw_reuse", "ip_local_port_range")
# Of the kernel's command line, what moves numbers; the rest is nobody's business.
BOOT_OPTIONS = ("mitigations", "isolcpus", "nohz_full", "rcu_nocbs", "idle", "processor.max_cstate",
                "intel_pstate", "amd_pstate", "transparent_hugepage", "hugepages", "iommu",
                "preempt", "nosmt", "maxcpus")
THP_KNOBS = ("enabled", "defrag", "shmem_enabled")


def read_text(path):
    """The file's text without surrounding space, or None where the kernel has no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def found(pattern, text):
    """The first group of the first match, or None."""
    match = re.search(pattern, text or "", re.MULTILINE)
    return match.group(1) if match else None


def chosen(text):
    """The word in brackets of a sysfs choice such as `always [madvise] never`."""
    return found(r"\[([^\]]+)\]", text) or text


def cpu_facts():
    cpuinfo = read_text("/proc/cpuinfo") or ""
    flags = (found(r"^flags\s*:\s*(.+)$", cpuinfo) or "").split()
    return {
        "cpu": found(r"^model name\s*:\s*(.+)$", cpuinfo) or platform.machine(),
        "cores": os.cpu_count(),
        "core0_siblings": read_text(f"{CPU}/cpu0/topology/thread_siblings_list"),
        "governor": read_text(f"{CPU}/cpu0/cpufreq/scaling_governor"),
        "virtual": "hypervisor" in flags,
        "smt": read_text(f"{CPU}/smt/control"),
        "turbo_off": read_text(f"{CPU}/intel_pstate/no_turbo"),
        "numa_nodes": len(glob.glob("/sys/devices/system/node/node[0-9]*")) or None,
        "hashing_flags": [flag for flag in ("sse4_1", "avx2", "avx512f", "avx512vl", "sha_ni",
                                            "vaes", "aes") if flag in flags],
        "clocksource": read_text(
            "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "isolated": read_text(f"{CPU}/isolated") or None,
        "mitigations": {
            os.path.basename(path): read_text(path)
            for path in sorted(glob.glob(f"{CPU}/vulnerabilities/*"))
        },
    }


def memory_facts():
    meminfo = read_text("/proc/meminfo") or ""
    total = found(r"^MemTotal:\s*(\d+) kB$", meminfo)
    free = found(r"^MemAvailable:\s*(\d+) kB$", meminfo)
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    bytes_of = lambda limit: None if limit == resource.RLIM_INFINITY else limit
    huge = "/sys/kernel/mm/transparent_hugepage"
    return {
        "memory_mib": int(total) // 1024 if total else None,
        "memory_available_mib": int(free) // 1024 if free else None,
        "swap_kib": int(found(r"^SwapTotal:\s*(\d+) kB$", meminfo) or 0),
        "thp": {knob: chosen(read_text(f"{huge}/{knob}")) for knob in THP_KNOBS},
        "hugepages": found(r"^HugePages_Total:\s*(\d+)$", meminfo),
        "memlock_soft_bytes": bytes_of(soft),
        "memlock_hard_bytes": bytes_of(hard),
    }


def network_facts(congestion):
    tcp = {knob: read_text(f"/proc/sys/net/ipv4/{knob}") for knob in TCP_KNOBS}
    if congestion:
        tcp["measured_under"] = congestion
    cards = []
    for path in sorted(glob.glob("/sys/class/net/*/device")):
        folder = os.path.dirname(path)
        cards.append({
            "name": os.path.basename(folder),
            "driver": os.path.basename(os.path.realpath(f"{path}/driver")),
            "speed_mbit": read_text(f"{folder}/speed"),
            "mtu": read_text(f"{folder}/mtu"),
            "queues": len(glob.glob(f"{folder}/queues/rx-*")),
        })
    return {"tcp": tcp, "cards": cards}


def interrupt_facts():
    """Which cores serve the interrupts of devices: number, name and affinity."""
    rows = []
    for line in (read_text("/proc/interrupts") or "").splitlines():
        match = re.match(r"\s*(\d+):(?:\s+\d+)+\s+(.*)$", line)
        if match:
            cores = read_text(f"/proc/irq/{match.group(1)}/smp_affinity_list")
            rows.append({"irq": int(match.group(1)), "what": " ".join(match.group(2).split()),
                         "cores": cores})
    return rows


def disk_facts():
    disks = []
    for folder in sorted(glob.glob("/sys/block/*")):
        name = os.path.basename(folder)
        if name.startswith(("loop", "ram", "zram")):
            continue
        disks.append({
            "name": name,
            "maker": read_text(f"{folder}/device/model"),
            "scheduler": chosen(read_text(f"{folder}/queue/scheduler")),
            "rotational": read_text(f"{folder}/queue/rotational") == "1",
            "requests": read_text(f"{folder}/queue/nr_requests"),
            "gib": int(read_text(f"{folder}/size") or 0) * 512 // 2**30,
        })
    return disks


def host(congestion=None):
    """All facts; the keys are stable, so that documents of two hosts can be compared."""
    release = read_text("/etc/os-release")
    facts = {
        "recorded": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "name": platform.node(),
        "kernel": platform.release(),
        "kernel_build": platform.version(),
        "boot_options": [word for word in (read_text("/proc/cmdline") or "").split()
                         if word.partition("=")[0] in BOOT_OPTIONS],
        "system": found(r'^PRETTY_NAME="?([^"\n]+)', release),
        "load_average": read_text("/proc/loadavg"),
        "io_uring": {knob: read_text(f"/proc/sys/kernel/{knob}") for knob in URING_KNOBS},
        "perf_event_paranoid": read_text("/proc/sys/kernel/perf_event_paranoid"),
    }
    facts |= cpu_facts() | memory_facts()
    facts["network"] = network_facts(congestion)
    facts["interrupts"] = interrupt_facts()
    facts["disks"] = disk_facts()
    return facts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--congestion")
    options = parser.parse_args()
    print(json.dumps(host(options.congestion), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
