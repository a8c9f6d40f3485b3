"""The bookkeeping of syscalls.sh: one record a side and case, and the report of all.

    syscalls.py record --case NAME --side SIDE ... --scratch DIR    one JSON line on stdout
    syscalls.py report --runs runs.jsonl --out PATH [--set KEY VALUE]...

CPU time per request comes from the untouched run; its parts in user and system mode are the
kernel's ticks of 10 ms, scaled to it. Counts per request come from the counted run. Submissions to
an io_uring are no system calls; they are counted beside them where the kernel has the tracepoint.
"""

import argparse
import json
import re
import sys

from host import host
from measure import TOOLS
from stats import (add_report_arguments, in_order, machine_lines, read_runs, row, ruler,
                   write_report)

# What is not a system call, among what perf counts.
RING, SWITCHES = "io_uring:io_uring_submit_req", "context-switches"
# Calls rarer than this are summed up as others.
CALLS_PER_REQUEST_MIN = 0.001


def counts_of_perf(text):
    """`perf stat --field-separator ';'`: value;unit;event;..."""
    counts = {}
    for line in text.splitlines():
        cells = line.split(";")
        if len(cells) > 2 and cells[0].isdigit():
            name = cells[2].removeprefix("syscalls:sys_enter_")
            counts[name] = counts.get(name, 0) + int(cells[0])
    return counts


def counts_of_strace(text):
    """`strace -c`: % time, seconds, usecs/call, calls, [errors,] name."""
    pattern = r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)\s*$"
    found = re.findall(pattern, text, re.MULTILINE)
    return {name: int(calls) for calls, name in found if name != "total"}


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def record(options):
    stem = f"{options.case}-{options.side}"
    timed = json.loads(read(f"{options.scratch}/timed-{stem}.json"))
    if timed["faults"]:
        sys.exit(f"syscalls.py: {options.case} on {options.side}: {'; '.join(timed['faults'])}")
    totals = TOOLS[options.tool](read(f"{options.scratch}/counted-{stem}.load"))
    if not totals or not totals["requests"]:
        sys.exit(f"syscalls.py: {options.case} on {options.side}: no request was counted")
    parse = counts_of_perf if options.counter == "perf" else counts_of_strace
    counts = parse(read(f"{options.scratch}/counted-{stem}.counts"))
    per_request = {name: count / totals["requests"] for name, count in counts.items()}
    calls = {name: value for name, value in per_request.items() if name not in (RING, SWITCHES)}
    modes = timed["server_user_s"] + timed["server_system_s"]
    user = timed["server_user_s"] / modes if modes else 0.0
    often = {name: round(value, 4) for name, value in
             sorted(calls.items(), key=lambda item: -item[1]) if value >= CALLS_PER_REQUEST_MIN}
    others = sum(value for name, value in calls.items() if name not in often)
    print(json.dumps({
        "case": options.case, "side": options.side, "server": options.server,
        "requests": totals["requests"], "rps": timed["rps"],
        "cpu_us": timed["cpu_us"], "user_us": round(timed["cpu_us"] * user, 3),
        "system_us": round(timed["cpu_us"] * (1 - user), 3),
        "calls_per_request": round(sum(calls.values()), 4),
        "ring_submissions_per_request": round(per_request.get(RING, 0.0), 4),
        "switches_per_request":
            round(per_request[SWITCHES], 4) if SWITCHES in per_request else None,
        "calls": often | {"others": round(others, 4)},
    }))


def table(runs):
    lines = ["## Per request", "",
             row("case", "server", "CPU µs", "user µs", "system µs", "system calls",
                 "ring submissions", "context switches", "requests/s"), ruler(2, 7)]
    for run in runs:
        switches = run["switches_per_request"]
        lines.append(row(run["case"], run["server"], f"**{run['cpu_us']:.2f}**",
                         f"{run['user_us']:.2f}", f"{run['system_us']:.2f}",
                         f"**{run['calls_per_request']:.3f}**",
                         f"{run['ring_submissions_per_request']:.3f}",
                         "—" if switches is None else f"{switches:.4f}", f"{run['rps']:,.0f}"))
    return lines + [""]


def call_tables(runs):
    lines = []
    for case in in_order(runs, "case"):
        lines += [f"## System calls per request: {case}", "", row("server", "calls"), ruler(2, 0)]
        for run in (run for run in runs if run["case"] == case):
            calls = ", ".join(f"{name} {value:.3f}" for name, value in run["calls"].items())
            lines.append(row(run["server"], calls))
        lines.append("")
    return lines


def report(options):
    runs, given = read_runs(options.runs), dict(options.set)
    document = {"format": 1, "settings": given, "host": host(given["congestion_control"]),
                "runs": runs}
    lines = [f"# System calls: {given['candidate']} beside {given['baseline']}", ""]
    lines += machine_lines(document["host"], given) + [
        f"* Runs of {given['seconds']} s, {given['connections']} connections unless the case says "
        f"otherwise, {given['congestion_control']}; counted by {given['counter']}, apart from the "
        "timed run", ""]
    lines += table(runs) + call_tables(runs)
    write_report(options.out, document, "\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    recorder = verbs.add_parser("record")
    for name in ("--case", "--side", "--server", "--scratch"):
        recorder.add_argument(name, required=True)
    recorder.add_argument("--tool", choices=TOOLS, required=True)
    recorder.add_argument("--counter", choices=("perf", "strace"), required=True)
    add_report_arguments(verbs.add_parser("report"))
    options = parser.parse_args()
    if options.verb == "record":
        record(options)
    else:
        report(options)


if __name__ == "__main__":
    main()
