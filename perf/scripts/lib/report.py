"""Turns the raw runs of a comparison into PATH.json and PATH.md, and prints the latter.

    report.py --runs runs.jsonl --out PATH [--set KEY VALUE]...

A case in which any run had a fault has no numbers, only the faults. Exits with 3 when there is one.
"""

import argparse
import json
import os
import platform
import re
import statistics
import sys

SIDES = ("baseline", "candidate")
# The figures of merit: (key in a run, name for people).
FIGURES = (("rps", "requests/s"), ("per_cpu", "requests per server CPU-s"))
EXIT_VOID = 3
# Beyond this share of one core, somebody else's work is worth a warning.
OTHERS_BUSY_MAX = 0.05


def read_text(path):
    """The file's text without surrounding space, or None where the kernel has no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return None


def machine():
    """What the numbers were measured on."""
    cpuinfo = read_text("/proc/cpuinfo") or ""
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB$", read_text("/proc/meminfo") or "", re.MULTILINE)
    release = read_text("/etc/os-release") or ""
    system = re.search(r'^PRETTY_NAME="?([^"\n]+)', release, re.MULTILINE)
    core = "/sys/devices/system/cpu/cpu0"
    return {
        "cpu": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count(),
        "core0_siblings": read_text(f"{core}/topology/thread_siblings_list"),
        "governor": read_text(f"{core}/cpufreq/scaling_governor"),
        "virtual": bool(re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE)),
        "memory_mib": int(memory.group(1)) // 1024 if memory else None,
        "kernel": platform.release(),
        "system": system.group(1) if system else None,
    }


def spread(values):
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def by_round(runs, side, figure):
    return {run["round"]: run[figure] for run in runs if run["side"] == side}


def ratios(runs, figure):
    """Candidate over baseline: of the medians, and round by round."""
    rounds = {side: by_round(runs, side, figure) for side in SIDES}
    medians = {side: statistics.median(rounds[side].values()) for side in SIDES}
    each = [value / rounds["baseline"][n] for n, value in rounds["candidate"].items()]
    return {
        "of_medians": round(medians["candidate"] / medians["baseline"], 4),
        "per_round": {key: round(value, 4) for key, value in spread(each).items()},
    }


def summarize(name, runs):
    """One case: spreads and ratios, or why it is void."""
    faults = [
        f"round {run['round']}, {run['side']}: {fault}" for run in runs for fault in run["faults"]
    ]
    case = {"case": name, "void": bool(faults), "faults": faults}
    if faults:
        return case
    figures = [key for key, _ in FIGURES]
    figures += ["server_busy", "client_busy", "others_busy", "steal", "p50_us", "p99_us"]
    for side in SIDES:
        mine = [run for run in runs if run["side"] == side]
        case[side] = {figure: spread([run[figure] for run in mine]) for figure in figures}
    case["ratio"] = {figure: ratios(runs, figure) for figure, _ in FIGURES}
    return case


def row(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def ruler(labels, numbers):
    return "|" + "---|" * labels + "---:|" * numbers


def spread_cell(values):
    return f"**{values['median']:,.0f}** ({values['min']:,.0f}–{values['max']:,.0f})"


def ratio_cells(ratio):
    each = ratio["per_round"]
    return (
        f"**{ratio['of_medians']:.2f}**",
        f"{each['median']:.2f} ({each['min']:.2f}–{each['max']:.2f})",
    )


def figure_table(cases, figure, title, names):
    """One figure of merit, a row per case."""
    lines = [f"## {title[0].upper()}{title[1:]}", ""]
    lines += [row("case", *names, "ratio of medians", "ratios per round"), ruler(1, 4)]
    for case in cases:
        if case["void"]:
            lines.append(row(case["case"], "void", "void", "—", "—"))
            continue
        cells = [spread_cell(case[side][figure]) for side in SIDES]
        lines.append(row(case["case"], *cells, *ratio_cells(case["ratio"][figure])))
    return lines + [""]


def circumstances(cases, names):
    """Who was busy, and the latencies: medians of the runs."""
    lines = ["## Circumstances (medians; others and steal: worst run)", ""]
    lines += [
        row("case", "server", "server busy", "client busy", "others busy", "steal", "p50", "p99"),
        ruler(2, 6),
    ]
    for case in (case for case in cases if not case["void"]):
        for side, name in zip(SIDES, names):
            facts = case[side]
            busy = [f"{facts[key]['median']:.0%}" for key in ("server_busy", "client_busy")]
            worst = [f"{facts[key]['max']:.0%}" for key in ("others_busy", "steal")]
            late = [f"{facts[key]['median']:,.0f} µs" for key in ("p50_us", "p99_us")]
            lines.append(row(case["case"], name, *busy, *worst, *late))
    return lines + [""]


def raw_table(runs, names):
    lines = ["## Raw runs, in the order they ran", ""]
    head = ("round", "case", "server", "requests", "seconds", "CPU s", "req/s", "req/CPU-s")
    lines += [row(*head, "faults"), "|---:|---|---|" + "---:|" * 5 + "---|"]
    for run in runs:
        name = names[SIDES.index(run["side"])]
        counted = [f"{run.get('requests', 0):,}", f"{run.get('seconds', 0):.2f}"]
        rates = [f"{run.get(figure) or 0:,.0f}" for figure, _ in FIGURES]
        cpu = f"{run['server_cpu_s']:.2f}"
        faults = "; ".join(run["faults"]) or "none"
        lines.append(row(run["round"], run["case"], name, *counted, cpu, *rates, faults))
    return lines + [""]


def warnings(document):
    """What a reader must know before believing a number."""
    found = []
    for case in document["cases"]:
        found += [f"**{case['case']} is void**: {fault}" for fault in case["faults"]]
    worst = max((run["others_busy"] + run["steal"] for run in document["runs"]), default=0)
    if worst > OTHERS_BUSY_MAX:
        found.append(
            f"Other work (or the hypervisor) took up to {worst:.0%} of a core during a run."
        )
    siblings = document["machine"]["core0_siblings"]
    if siblings not in (None, "0"):
        found.append(f"Core 0 shares its silicon with the hardware threads {siblings}.")
    if "modified" in document["settings"]["commit"]:
        found.append("The checkout had uncommitted changes.")
    return found


def facts_list(document, names):
    """Machine and settings, a line each."""
    box, given = document["machine"], document["settings"]
    kind = "virtual" if box["virtual"] else "bare metal"
    lines = [
        f"* Date: {given['started']}; commit: {given['commit']}",
        f"* Machine: {box['cpu']}, {box['cores']} cores ({kind}), {box['memory_mib']:,} MiB, "
        f"governor: {box['governor'] or 'none exposed'}",
        f"* System: {box['system']}, Linux {box['kernel']}; "
        f"load at start: {given['load_at_start']}",
        f"* Baseline: {given['baseline']} (TLS: {given['baseline_tls']})",
        f"* Candidate: {given['candidate']} (TLS: {given['candidate_tls']})"
        + (f", sha256 {given['candidate_sha256'][:16]}…" if given["candidate_sha256"] else ""),
        f"* Client: {given['wrk']}, one thread on core {given['client_core']}, "
        f"{given['connections']} connections; servers on core {given['server_core']}; "
        f"{given['openssl']}",
        f"* Congestion control: {given['congestion_control']}, in a network namespace of its own; "
        f"nginx's tcp_nopush: {given['nginx_tcp_nopush']}",
        f"* Rounds: {given['rounds']}; every run {given['seconds']} s, after "
        f"{given['warmup']} s of warm-up; {names[0]} and {names[1]} interleaved, the order "
        "alternating",
    ]
    return lines + [""]


def markdown(document):
    given = document["settings"]
    names = [given[f"{side}_kind"] for side in SIDES]
    if names[0] == names[1]:
        names = [f"{name} ({side})" for name, side in zip(names, SIDES)]
    lines = [f"# {names[1]} against {names[0]}", ""]
    lines += facts_list(document, names)
    alarms = warnings(document)
    if alarms:
        lines += ["## Warnings", ""] + [f"* {alarm}" for alarm in alarms] + [""]
    for figure, title in FIGURES:
        lines += figure_table(document["cases"], figure, title, names)
    lines += circumstances(document["cases"], names) + raw_table(document["runs"], names)
    lines += ["Medians with (least–greatest). How to read this: perf/README.md.", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"))
    options = parser.parse_args()
    with open(options.runs, encoding="utf-8") as file:
        runs = [json.loads(line) for line in file]
    names = list(dict.fromkeys(run["case"] for run in runs))
    document = {
        "format": 1,
        "settings": dict(options.set),
        "machine": machine(),
        "cases": [summarize(name, [run for run in runs if run["case"] == name]) for name in names],
        "runs": runs,
    }
    with open(f"{options.out}.json", "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1, ensure_ascii=False)
        file.write("\n")
    text = markdown(document)
    with open(f"{options.out}.md", "w", encoding="utf-8") as file:
        file.write(text)
    print(text)
    sys.exit(EXIT_VOID if any(case["void"] for case in document["cases"]) else 0)


if __name__ == "__main__":
    main()
