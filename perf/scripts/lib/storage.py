"""The bookkeeping of storage.sh: circumstances of a run, its record, and the report of all.

    storage.py before --pid PID                     CPU seconds so far, as one JSON line
    storage.py record [facts] --before JSON ...     appends one run, and prints it in short
    storage.py report --runs runs.jsonl --out PATH --profiles FILE [--set KEY VALUE]...

CPU times are those of measure.py, of the node's whole process tree, kernel workers included.
"""

import argparse
import json
import sys
import time

from host import host
from measure import cpu_seconds, machine_seconds, process_tree
from stats import (OTHERS_BUSY_MAX, add_report_arguments, in_order, machine_lines, ratio_of,
                   read_runs, row, ruler, spread, spread_cell, write_report)

MIB = 1024 * 1024
# What the ratio of a case is of, what it must reach, and the unit of its figure.
CASES = {
    "read": ("node", "bare", 0.9, "MiB/s", "cold sequential GET, against reads of 64 KiB, depth 32"),
    "write": ("node", "bare", 0.7, "MiB/s", "durable PUT, against writes of 1 MiB, depth 8"),
    "small": ("many", "one", 10.0, "objects/s", "durable PUT of 4 KiB, 64 connections against one"),
}
NAMES = {"node": "rond", "bare": "fio", "one": "1 connection", "many": "64 connections"}
# What interrupts and the kernel's threads may take of a core beside fio.
KERNEL_BUSY_MAX = 0.4


def circumstances(pid):
    busy, steal = machine_seconds()
    node = cpu_seconds(process_tree(pid))
    return {"time": time.time(), "busy": busy, "steal": steal, "node": node}


def parse(printed, case):
    """Rate, seconds and facts of what fio or ron-perf printed."""
    document = json.loads(printed[printed.index("{") :])
    if "jobs" not in document:
        rate = document["rps"] if case == "small" else document["mib_per_s"]
        return rate, document["seconds"], document, None
    job = document["jobs"][0]
    if job["error"]:
        sys.exit(f"storage.py: fio reports error {job['error']}")
    side = job["write"] if job["write"]["io_bytes"] else job["read"]
    # With a sync at the end, the runtime of the job includes it and that of its writes does not.
    milliseconds = max(side["runtime"], job["job_runtime"])
    seconds = milliseconds / 1000
    cpu = (job["usr_cpu"] + job["sys_cpu"]) / 100 * seconds
    facts = {"requests": side["total_ios"], "p50_us": None, "p99_us": None}
    percentiles = side["clat_ns"].get("percentile", {})
    for key, name in (("p50_us", "50.000000"), ("p99_us", "99.000000")):
        facts[key] = round(percentiles.get(name, 0) / 1000)
    return side["io_bytes"] / MIB / seconds, seconds, facts, cpu


def record(options):
    before, after = json.loads(options.before), circumstances(options.pid)
    with open(options.printed, encoding="utf-8") as file:
        rate, seconds, facts, bare_cpu = parse(file.read(), options.case)
    wall = after["time"] - before["time"]
    node_cpu = after["node"] - before["node"]
    run = {
        "round": options.round,
        "case": options.case,
        "side": options.side,
        "rate": round(rate, 1),
        "seconds": round(seconds, 4),
        "server_cpu_s": round(node_cpu if bare_cpu is None else bare_cpu, 3),
        "machine_busy": round((after["busy"] - before["busy"]) / wall, 3),
        "steal": round((after["steal"] - before["steal"]) / wall, 3),
        "requests": facts["requests"],
        "p50_us": facts["p50_us"],
        "p99_us": facts["p99_us"],
    }
    with open(options.out, "a", encoding="utf-8") as file:
        file.write(json.dumps(run) + "\n")
    unit = CASES[options.case][3]
    name = NAMES[options.side]
    print(f"round {options.round}  {options.case:5}  {name:14} {rate:10,.0f} {unit}"
          f"  server CPU {run['server_cpu_s']:.2f} s of {seconds:.2f} s")


def summarize(case, runs):
    over, under, goal, unit, title = CASES[case]
    rates = {side: {run["round"]: run["rate"] for run in runs if run["side"] == side}
             for side in (over, under)}
    return {
        "case": case,
        "title": title,
        "unit": unit,
        "goal": goal,
        over: spread(list(rates[over].values())),
        under: spread(list(rates[under].values())),
        "ratio": ratio_of(rates[over], rates[under]),
    }


def results(cases):
    lines = ["## Results", ""]
    lines += [
        row("case", "unit", "node", "beside", "ratio of medians", "ratios per round", "goal"),
        ruler(2, 5),
    ]
    for case in cases:
        over, under, goal = CASES[case["case"]][:3]
        each, whole = case["ratio"]["per_round"], case["ratio"]["of_medians"]
        rounds = f"{each['median']:.2f} ({each['min']:.2f}–{each['max']:.2f})"
        met = "met" if whole >= goal else "**missed**"
        lines.append(row(case["title"], case["unit"], spread_cell(case[over]),
                         spread_cell(case[under]),
                         f"**{whole:.2f}**", rounds, f"{goal:g}: {met}"))
    return lines + [""]


def shares(profiles):
    if not profiles:
        return []
    lines = ["## Where the node's CPU time goes", ""]
    lines += [row("case", "hashing", "kernel", "the rest"), ruler(1, 3)]
    for entry in profiles:
        cells = (entry[kind] for kind in ("verification", "kernel", "rest"))
        lines.append(row(CASES[entry["case"]][4], *(f"{share:.1%}" for share in cells)))
    return lines + [""]


def raw(runs):
    lines = ["## Raw runs, in the order they ran", ""]
    head = ("round", "case", "side", "rate", "seconds", "server CPU s", "p50 µs", "p99 µs",
            "busy cores", "steal")
    lines += [row(*head), "|---:|---|---|" + "---:|" * 7]
    for run in runs:
        lines.append(row(run["round"], run["case"], NAMES[run["side"]], f"{run['rate']:,.0f}",
                         f"{run['seconds']:.2f}", f"{run['server_cpu_s']:.2f}",
                         f"{run['p50_us']:,}", f"{run['p99_us']:,}",
                         f"{run['machine_busy']:.2f}", f"{run['steal']:.0%}"))
    return lines + [""]


def warnings(runs):
    found = []
    steal = max(run["steal"] for run in runs)
    if steal > OTHERS_BUSY_MAX:
        found.append(f"The hypervisor took up to {steal:.0%} of a core.")
    # Beside fio nothing else of ours runs, so what is busy and not fio is other work, and what the
    # kernel does for fio on its own threads.
    others = [run["machine_busy"] - run["server_cpu_s"] / run["seconds"]
              for run in runs if run["side"] == "bare"]
    if others and (least := min(others)) > KERNEL_BUSY_MAX:
        found.append(f"Other work kept {least:.1f} to {max(others):.1f} cores busy. fio needs little "
                     "CPU and loses little to it; the node and its load need both cores, so their "
                     "rates and ratios say little about an idle machine.")
    if not found:
        return []
    return ["## Warnings", ""] + [f"* {warning}" for warning in found] + [""]


def markdown(document):
    given = document["settings"]
    amount = int(given["objects"]) * int(given["object_mib"])
    lines = ["# The storage of one shard beside fio", ""]
    lines += machine_lines(document["host"], given) + [
        f"* File system: {given['file_system']}",
        f"* Node: {given['node']}, sha256 {given['node_sha256'][:16]}…, one shard on core "
        f"{given['server_core']}, cache {given['cache']}",
        f"* Load: ron-perf on core {given['client_core']}, HTTP/1.1 on loopback "
        f"({given['congestion_control']}): {given['objects']} objects of {given['object_mib']} MiB "
        f"({amount:,} MiB) over {given['connections']} connections; every PUT new objects",
        f"* Beside it: {given['fio']}, io_uring, O_DIRECT, on core {given['server_core']}, one file "
        f"of {amount:,} MiB; writes with fsync at the end",
        f"* Rounds: {given['rounds']}, interleaved, the order alternating",
        "",
    ]
    lines += warnings(document["runs"])
    lines += results(document["cases"]) + shares(document["profiles"]) + raw(document["runs"])
    lines += ["Medians with (least–greatest). How to read this: perf/README.md.", ""]
    return "\n".join(lines)


def report(options):
    runs = read_runs(options.runs)
    document = {
        "format": 2,
        "settings": dict(options.set),
        "host": host(),
        "cases": [summarize(name, [run for run in runs if run["case"] == name])
                  for name in in_order(runs, "case")],
        "profiles": read_runs(options.profiles),
        "runs": runs,
    }
    write_report(options.out, document, markdown(document))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    before = verbs.add_parser("before")
    before.add_argument("--pid", type=int, required=True)
    recorder = verbs.add_parser("record")
    for name in ("--round", "--pid"):
        recorder.add_argument(name, type=int, required=True)
    recorder.add_argument("--case", choices=CASES, required=True)
    recorder.add_argument("--side", choices=NAMES, required=True)
    for name in ("--before", "--printed", "--out"):
        recorder.add_argument(name, required=True)
    reporter = verbs.add_parser("report")
    reporter.add_argument("--profiles", required=True, help="JSON lines, one a profiled case")
    add_report_arguments(reporter)
    options = parser.parse_args()
    if options.verb == "before":
        print(json.dumps(circumstances(options.pid)))
    elif options.verb == "record":
        record(options)
    else:
        report(options)


if __name__ == "__main__":
    main()
