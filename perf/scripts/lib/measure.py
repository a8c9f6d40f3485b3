"""Runs a load generator and charges the servers for the CPU time they used meanwhile.

    measure.py pids PID                         the process and its descendants, comma-separated
    measure.py run [facts] -- COMMAND...        one measured run, one JSON line on stdout

CPU time is utime + stime of /proc/PID/stat, which sums over all threads of a process, living and
ended, kernel workers of io_uring included; it is summed over the server's process tree. A run in
which anything went wrong is still printed, with the reasons in `faults`: hiding it is the one
thing this file must not do.
"""

import argparse
import json
import os
import subprocess
import sys
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


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
    """utime + stime of the processes, in seconds; one that is gone counts as nothing."""
    rows = [fields for fields in map(stat_fields, pids) if fields]
    return sum(int(fields[11]) + int(fields[12]) for fields in rows) / TICKS_PER_SECOND


def machine_seconds():
    """Busy and stolen seconds of the whole machine since boot."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq) / TICKS_PER_SECOND, steal / TICKS_PER_SECOND


def run_client(command):
    """Runs the load generator; returns its totals (None when it died), CPU seconds and stderr."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # wrk prints a few lines at its end, less than a pipe holds, so reading in turn cannot block.
    output, complaint = child.stdout.read(), child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    totals = None
    if child.returncode == 0:
        lines = [line for line in output.splitlines() if line.startswith("{")]
        totals = json.loads(lines[-1]) if lines else None
    return totals, usage.ru_utime + usage.ru_stime, complaint.strip()


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
    if server_cpu <= 0:
        faults.append("no server CPU time was seen")
    return faults


def run(options):
    """One measured run as a dictionary."""
    before_tree, bystanders = process_tree(options.server), process_tree(options.bystander)
    cpu, idle_cpu = cpu_seconds(before_tree), cpu_seconds(bystanders)
    busy, steal = machine_seconds()
    started = time.time()
    totals, client_cpu, complaint = run_client(options.command)
    wall = time.time() - started
    cpu, idle_cpu = cpu_seconds(before_tree) - cpu, cpu_seconds(bystanders) - idle_cpu
    busy_after, steal_after = machine_seconds()
    same = bool(before_tree) and before_tree == process_tree(options.server)
    others = busy_after - busy - cpu - idle_cpu - client_cpu
    record = {
        "case": options.case,
        "round": options.round,
        "side": options.side,
        "place": options.place,
        "started": round(started, 3),
        "server_cpu_s": round(cpu, 2),
        "server_busy": round(cpu / wall, 4),
        "client_busy": round(client_cpu / wall, 4),
        "bystander_cpu_s": round(idle_cpu, 2),
        "others_busy": round(max(others, 0.0) / wall, 4),
        "steal": round((steal_after - steal) / wall, 4),
        "faults": faults_of(totals, complaint, options.body_len, same, cpu),
    }
    if totals:
        record |= totals
        record["rps"] = round(totals["requests"] / totals["seconds"], 1)
        record["per_cpu"] = round(totals["requests"] / cpu, 1) if cpu > 0 else None
    return record


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("pids").add_argument("pid", type=int)
    runner = verbs.add_parser("run")
    for name in ("--case", "--side", "--place"):
        runner.add_argument(name, required=True)
    for name in ("--round", "--server", "--bystander", "--body-len"):
        runner.add_argument(name, type=int, required=True)
    runner.add_argument("command", nargs="+")
    options = parser.parse_args()
    if options.verb == "pids":
        pids = process_tree(options.pid)
        print(",".join(map(str, pids)))
        sys.exit(0 if pids else 1)
    print(json.dumps(run(options)))


if __name__ == "__main__":
    main()
