"""Runs a load generator and charges the servers for the CPU time they used meanwhile.

    measure.py pids PID                         the process and its descendants, comma-separated
    measure.py run [facts] -- COMMAND...        one measured run, one JSON line on stdout

CPU time is that of the process clocks (in nanoseconds, over all threads, living and ended, kernel
workers of io_uring included), summed over the server's process tree. Around wrk it is read when
wrk starts and when it ends. `ron-perf load` has a warm-up of its own and charges the window after
it by itself; it is given the pids. A run in which anything went wrong is still printed, with the
reasons in `faults`: hiding it is the one thing this file must not do.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import urllib.request

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# What a load generator may take beyond its run before it counts as hung.
HANG_SECONDS = 120
# A node's counters that a run's record keeps, as differences.
NODE_COUNTERS = ("ron_verify_bytes_total", "ron_cache_hits_total", "ron_cache_misses_total",
                 "ron_mesh_hops_total", "ron_integrity_fail_total")
# One line for each protocol, operation and status; the sum is kept.
NODE_REQUESTS = "ron_requests_total{"
SCRAPE_SECONDS_MAX = 10


def stat_fields(pid):
    """Fields of /proc/PID/stat from the third on, or None when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The command name may hold spaces and parentheses; its last one ends it.
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def process_tree(root):
    """Pids of `root` and all its descendants, sorted; empty when `root` is gone or a zombie."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := stat_fields(name)) and fields[0] != "Z":
            parents[int(name)] = int(fields[1])
    if root not in parents:
        return []
    tree = {root}
    grown = True
    while grown:
        fresh = {pid for pid, parent in parents.items() if parent in tree} - tree
        tree |= fresh
        grown = bool(fresh)
    return sorted(tree)


def cpu_seconds(pids):
    """CPU time of the processes, in seconds; one that is gone counts as nothing."""
    total = 0
    for pid in pids:
        try:
            # clock_getcpuclockid(3): the scheduler's clock of a whole process.
            total += time.clock_gettime_ns((~pid << 3) | 2)
        except OSError:
            pass
    return total / 1e9


def mode_seconds(pids):
    """User and system seconds of the processes, in ticks of 10 ms."""
    rows = [fields for fields in map(stat_fields, pids) if fields]
    return tuple(sum(int(row[at]) for row in rows) / TICKS_PER_SECOND for at in (11, 12))


def machine_seconds():
    """Busy and stolen seconds of the whole machine since boot."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq) / TICKS_PER_SECOND, steal / TICKS_PER_SECOND


def node_counters(admin):
    """The counters of a node by name; empty without an address, or when it does not answer."""
    if not admin:
        return {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{admin}/metrics", timeout=SCRAPE_SECONDS_MAX) as answer:
            text = answer.read().decode("utf-8", "replace")
    except OSError:
        return {}
    counters = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name in NODE_COUNTERS:
            counters[name.removeprefix("ron_").removesuffix("_total")] = int(float(value))
        elif name.startswith(NODE_REQUESTS):
            counters["requests"] = counters.get("requests", 0) + int(float(value))
    return counters


def totals_of_wrk(output):
    """The line that wrk.lua printed."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else None


def totals_of_ron_perf(output):
    """The document of `ron-perf load`, in the words of wrk.lua."""
    start = output.find("{")
    if start < 0:
        return None
    document = json.loads(output[start:])
    errors = dict(document["errors"])
    status = errors.pop("status", {})
    errors["status"] = sum(status.values()) if isinstance(status, dict) else status
    latency = document["latency_us"]
    totals = {
        "requests": document["requests"],
        "seconds": document["window_seconds"],
        "wire_bytes": document["bytes"],
        "errors": errors,
        "window_cpu_s": document["server_cpu_seconds"],
        "window_client_busy": document["client_busy"],
    }
    for key, name in (("p50_us", "p50"), ("p99_us", "p99"), ("p999_us", "p999"),
                      ("max_us", "max")):
        totals[key] = latency[name]
    for key in ("handshakes", "late"):
        totals[key] = document.get(key)
    # Microseconds and counts; of an open loop it is kept whole, of a closed one it says little.
    if document["config"].get("rate"):
        totals["histogram"] = " ".join(
            f"{value}:{count}" for value, count in document.get("histogram", []))
    return totals


TOOLS = {"wrk": totals_of_wrk, "ron-perf": totals_of_ron_perf}


def run_client(command, tool, seconds):
    """Runs the load generator; returns its totals (None when it died), CPU seconds, complaint."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, complaint = child.communicate(timeout=seconds + HANG_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        output, complaint = child.communicate()
        complaint = f"hung for {HANG_SECONDS} s: {complaint}"
        output = ""
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    try:
        totals = TOOLS[tool](output)
    except (ValueError, KeyError, TypeError) as error:
        totals, complaint = None, f"unreadable totals, {error!r}: {complaint}"
    # ron-perf reports errors both in its document and as status 3.
    if child.returncode not in (0, 3) or totals is None:
        return None, cpu, f"status {child.returncode}: {complaint.strip()[-500:]}"
    return totals, cpu, complaint.strip()


def faults_of(totals, complaint, body_len, trees_same, server_cpu):
    """Every reason for which this run must not count."""
    faults = [] if trees_same else ["the server's processes changed during the run"]
    if totals is None:
        return faults + [f"the load generator failed: {complaint or 'no output'}"]
    faults += [f"{count} {kind} errors" for kind, count in totals["errors"].items() if count]
    if totals["requests"] == 0:
        faults.append("no request was answered")
    # wrk counts only statuses of 400 and above as errors; a redirect or a cut body shows here.
    if totals["wire_bytes"] < totals["requests"] * body_len:
        faults.append("answers were shorter than the object")
    if not server_cpu or server_cpu <= 0:
        faults.append("no server CPU time was seen")
    return faults


def rates(totals, cpu):
    """What is derived from the totals of a run and the server's CPU time in its window."""
    seconds, requests = totals["seconds"], totals["requests"]
    return {
        "rps": round(requests / seconds, 1),
        "per_cpu": round(requests / cpu, 1) if cpu else None,
        "cpu_us": round(cpu * 1e6 / requests, 3) if requests else None,
    }


def run(options):
    """One measured run as a dictionary."""
    tree = process_tree(options.server)
    idle = [pid for root in options.bystander for pid in process_tree(root)]
    command = [",".join(map(str, tree)) if word == "@PIDS" else word for word in options.command]
    counters = node_counters(options.admin)
    modes, idle_cpu = mode_seconds(tree), cpu_seconds(idle)
    busy, steal = machine_seconds()
    started = time.time()
    cpu = cpu_seconds(tree)
    totals, client_cpu, complaint = run_client(command, options.tool, options.seconds)
    whole_cpu = cpu_seconds(tree) - cpu
    wall = time.time() - started
    busy_after, steal_after = machine_seconds()
    idle_cpu, modes_after = cpu_seconds(idle) - idle_cpu, mode_seconds(tree)
    same = bool(tree) and tree == process_tree(options.server)
    counted = node_counters(options.admin)
    # The window is the whole run, unless the generator knows better.
    facts = totals or {}
    window_cpu = facts.pop("window_cpu_s", whole_cpu)
    client_busy = facts.pop("window_client_busy", client_cpu / wall)
    others = busy_after - busy - whole_cpu - idle_cpu - client_cpu
    record = {
        "case": options.case,
        "round": options.round,
        "side": options.side,
        "place": options.place,
        "tool": options.tool,
        "started": round(started, 3),
        "server_cpu_s": round(window_cpu or 0.0, 4),
        "server_busy": round((window_cpu or 0.0) / facts.get("seconds", wall), 4),
        "server_user_s": round(modes_after[0] - modes[0], 2),
        "server_system_s": round(modes_after[1] - modes[1], 2),
        "client_busy": round(client_busy, 4),
        "bystander_cpu_s": round(idle_cpu, 4),
        "others_busy": round(max(others, 0.0) / wall, 4),
        "steal": round((steal_after - steal) / wall, 4),
        "faults": faults_of(totals, complaint, options.body_len, same, window_cpu),
    }
    if options.rate:
        record["rate"] = options.rate
    if counters and counted:
        record["node"] = {name: counted[name] - counters.get(name, 0) for name in counted}
    if totals:
        record |= totals | rates(totals, window_cpu)
    return record


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("pids").add_argument("pid", type=int)
    runner = verbs.add_parser("run")
    for name in ("--case", "--side", "--place"):
        runner.add_argument(name, required=True)
    for name in ("--round", "--server", "--body-len", "--seconds"):
        runner.add_argument(name, type=int, required=True)
    runner.add_argument("--tool", choices=TOOLS, required=True)
    runner.add_argument("--bystander", type=int, action="append", default=[])
    runner.add_argument("--admin", help="HOST:PORT of the node's metrics, if it is one")
    runner.add_argument("--rate", type=int, help="requests a second of an open loop")
    runner.add_argument("command", nargs="+", help="@PIDS stands for the server's processes")
    options = parser.parse_args()
    if options.verb == "pids":
        pids = process_tree(options.pid)
        print(",".join(map(str, pids)))
        sys.exit(0 if pids else 1)
    print(json.dumps(run(options)))


if __name__ == "__main__":
    main()
