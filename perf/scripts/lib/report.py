"""Turns the raw runs of a comparison into PATH.json, PATH.md and PATH.svg, and prints the second.

    report.py --runs runs.jsonl --out PATH [--profiles FILE] [--set KEY VALUE]...

A case in which any run had a fault has no numbers, only the faults. Exits with 3 when there is one.
"""

import os
import sys

from goals import AT_MOST, MESH_COST_MAX, NAMES, judge
from host import host
from plot import plot
from stats import (OTHERS_BUSY_MAX, by_round, in_order, machine_lines, ratio_cells, ratio_of,
                   read_runs, report_parser, row, ruler, spread, spread_cell, write_report)

SIDES = ("baseline", "candidate")
# The figures of merit: (key in a run, name for people).
FIGURES = (("rps", "requests/s"), ("per_cpu", "requests per server CPU-s"))
LATENCIES = ("p50_us", "p99_us", "p999_us", "max_us")
BUSY = ("server_busy", "client_busy", "others_busy", "steal")
EXIT_VOID = 3
# A client this busy, beside a server less busy than that, is what was measured.
CLIENT_BOUND, SERVER_BOUND = 0.95, 0.9
MODES = ("local", "uniform", "remote")


def sides_of(runs):
    """The two that are compared, then the peers that were measured beside them."""
    present = in_order(runs, "side")
    return [side for side in SIDES if side in present] + \
        sorted(side for side in present if side not in SIDES)


PAUSES = ("p99_us", "p999_us", "max_us", "share")


def summarize(name, runs, pauses, congestion, judged):
    """One case: spreads and ratios, or why it is void. An open loop has the machine's pauses."""
    faults = [
        f"round {run['round']}, {run['side']}: {fault}" for run in runs for fault in run["faults"]
    ]
    case = {"case": name, "void": bool(faults), "faults": faults, "sides": sides_of(runs)}
    if not faults:
        for side in case["sides"]:
            facts = {}
            for figure in ("rps", "per_cpu", "cpu_us", *BUSY, *LATENCIES):
                if values := list(by_round(runs, side, figure).values()):
                    facts[figure] = spread(values)
            # Both are the node's own counts, a warm-up of the client included.
            verified = [run["node"]["verify_bytes"] / run["node"]["requests"] for run in runs
                        if run["side"] == side and run.get("node", {}).get("requests")]
            if verified:
                facts["verified_bytes_per_request"] = spread(verified)
            case[side] = facts
        case["ratio"] = {
            figure: ratio_of(*(by_round(runs, side, figure) for side in ("candidate", "baseline")))
            for figure in ("rps", "per_cpu", *LATENCIES)
        }
        if pauses and any(run.get("rate") for run in runs):
            case["pauses"] = {key: spread([run[key] for run in pauses]) for key in PAUSES}
        case["client_bound"] = all(
            case[side]["client_busy"]["median"] >= CLIENT_BOUND
            and case[side]["server_busy"]["median"] < SERVER_BOUND for side in SIDES)
    case["goals"] = judge(case, congestion) if judged else []
    return case


def summarize_shards(runs):
    """CPU per request of two shards by the way of their keys, or None when it was not measured."""
    if not runs:
        return None
    faults = [f"round {run['round']}, {run['side']}: {fault}"
              for run in runs for fault in run["faults"]]
    result = {"void": bool(faults), "faults": faults, "goal": MESH_COST_MAX}
    if faults:
        return result
    for mode in MODES:
        mine = [run for run in runs if run["side"] == mode]
        result[mode] = {key: spread([run[key] for run in mine])
                        for key in ("cpu_us", "rps", "hops_per_request")}
    for mode in MODES[1:]:
        result[f"{mode}_over_local"] = ratio_of(by_round(runs, mode, "cpu_us"),
                                                by_round(runs, "local", "cpu_us"))
    result["met"] = result["uniform_over_local"]["of_medians"] <= MESH_COST_MAX
    return result


def verdict(met):
    return {None: "not measured", True: "met", False: "**not met**"}[met]


def goal_table(document):
    """Every goal beside what was measured."""
    lines = ["## Goals", "", row("case", "figure", "goal", "measured", "verdict"), ruler(2, 3)]
    count = len(lines)
    for case in document["cases"]:
        for goal in case["goals"]:
            mark = "×" if goal["figure"] != "p99_ms" else " ms"
            value = "void" if case["void"] else "—"
            if goal["value"] is not None:
                value = f"**{goal['value']:.2f}**{mark}"
            text = "void" if case["void"] else verdict(goal["met"])
            if goal["met"] is False and goal["figure"] == "rps" and case["client_bound"]:
                text += " (the client is the bottleneck)"
            lines.append(row(case["case"], NAMES[goal["figure"]],
                             f"{goal['relation']} {goal['goal']:g}{mark}", value, text))
    shards = document["shards2"]
    if shards:
        ratio = None if shards["void"] else shards["uniform_over_local"]["of_medians"]
        lines.append(row("shards2", "CPU per request, uniform keys over local ones",
                         f"{AT_MOST} {MESH_COST_MAX:g}×",
                         "void" if ratio is None else f"**{ratio:.2f}**×",
                         "void" if ratio is None else verdict(shards["met"])))
    return lines + [""] if len(lines) > count else []


def figure_table(cases, figure, title, names):
    """One figure of merit, a row per case."""
    present = in_order([{"side": side} for case in cases for side in case["sides"]], "side")
    columns = [side for side in names if side in present]
    lines = [f"## {title[0].upper()}{title[1:]}", ""]
    lines += [row("case", *(names[side] for side in columns), "ratio of medians",
                  "ratios per round"), ruler(1, len(columns) + 2)]
    for case in cases:
        if case["void"]:
            lines.append(row(case["case"], *("void" for _ in columns), "—", "—"))
            continue
        cells = [spread_cell(case[side][figure]) if side in case["sides"] else "—"
                 for side in columns]
        lines.append(row(case["case"], *cells, *ratio_cells(case["ratio"][figure])))
    return lines + [""]


def open_loop_table(cases, runs, names):
    """Latencies at one rate for both, counted from when a request was due."""
    lines = []
    for case in cases:
        rates = [run["rate"] for run in runs if run["case"] == case["case"] and run.get("rate")]
        if case["void"] or not rates:
            continue
        lines += ["## Open loop", "",
                  f"{rates[0]:,} requests/s for both, half of the candidate's closed-loop rate of "
                  "this run; latency counts from the moment a request was due.", "",
                  row("server", "p50 µs", "p99 µs", "p99.9 µs", "greatest µs", "server busy"),
                  ruler(1, 5)]
        for side in case["sides"]:
            cells = [spread_cell(case[side][key]) if key in case[side] else "—"
                     for key in LATENCIES]
            lines.append(row(names[side], *cells, f"{case[side]['server_busy']['median']:.0%}"))
        if pauses := case.get("pauses"):
            taken = pauses["share"]
            lines += [row("the machine's pauses", "—",
                          *(spread_cell(pauses[key]) for key in PAUSES[:3]), "—"), "",
                      "The last line is what a request would wait for that comes while a thread "
                      "which only reads the clock is not running: the latency of a server that needs "
                      "no time. It was measured on both cores at once in every round, and the worse "
                      f"core is given; {taken['median']:.1%} ({taken['min']:.1%}–{taken['max']:.1%}) "
                      "of the time was taken away."]
        lines.append("")
    return lines


def shards_table(shards):
    if not shards or shards["void"]:
        return []
    lines = ["## Two shards", "",
             "4 KiB from the cache of two shards. `local`: every connection asks for objects of "
             "the shard that has it; `uniform`: for both shards' in turn; `remote`: only for the "
             "other shard's.", "",
             row("keys", "server CPU µs per request", "hops per request", "requests/s",
                 "CPU over local", "per round"), ruler(1, 5)]
    for mode in MODES:
        facts = shards[mode]
        lines.append(row(mode, spread_cell(facts["cpu_us"], "{:.2f}"),
                         f"{facts['hops_per_request']['median']:.3f}", spread_cell(facts["rps"]),
                         *ratio_cells(shards.get(f"{mode}_over_local"))))
    return lines + [""]


def verification_table(document, names):
    """What verifying costs: bytes hashed a request, and its share of the server's CPU."""
    profiles = {entry["case"]: entry for entry in document["profiles"]}
    lines = []
    for case in document["cases"]:
        for side in [] if case["void"] else SIDES:
            facts = case[side].get("verified_bytes_per_request")
            if facts is None:
                continue
            share = profiles.get(case["case"]) if side == "candidate" else None
            cells = ("—", "—", "—")
            if share:
                cells = [f"{share[key]:.1%}" for key in ("verification", "kernel", "encryption")]
            lines.append(row(case["case"], names[side], f"{facts['median']:,.0f}", *cells))
    if not lines:
        return []
    note = [] if profiles else ["Shares of CPU are measured by `--profile`.", ""]
    return ["## Verification", "", *note,
            row("case", "server", "bytes hashed per request", "share of CPU: hashing", "kernel",
                "encryption"), ruler(2, 4), *lines, ""]


def circumstances(cases, names):
    """Who was busy, and the latencies: medians of the runs."""
    lines = ["## Circumstances (medians; others and steal: worst run)", ""]
    lines += [
        row("case", "server", "server busy", "client busy", "others busy", "steal", "p50", "p99"),
        ruler(2, 6),
    ]
    for case in (case for case in cases if not case["void"]):
        for side in case["sides"]:
            facts = case[side]
            busy = [f"{facts[key]['median']:.0%}" for key in BUSY[:2]]
            worst = [f"{facts[key]['max']:.0%}" for key in BUSY[2:]]
            late = [f"{facts[key]['median']:,.0f} µs" for key in LATENCIES[:2]]
            lines.append(row(case["case"], names[side], *busy, *worst, *late))
    return lines + [""]


def raw_table(runs, names):
    lines = ["## Raw runs, in the order they ran", ""]
    head = ("round", "case", "server", "requests", "seconds", "CPU s", "req/s", "req/CPU-s")
    lines += [row(*head, "faults"), "|---:|---|---|" + "---:|" * 5 + "---|"]
    for run in runs:
        name = names.get(run["side"], run["side"])
        counted = [f"{run.get('requests', 0):,}", f"{run.get('seconds', 0):.2f}"]
        rates = [f"{run.get(figure) or 0:,.0f}" for figure, _ in FIGURES]
        cpu = f"{run['server_cpu_s']:.3f}"
        faults = "; ".join(run["faults"]) or "none"
        lines.append(row(run["round"], run["case"], name, *counted, cpu, *rates, faults))
    return lines + [""]


def warnings(document):
    """What a reader must know before believing a number."""
    found = []
    void = [(case["case"], fault) for case in document["cases"] for fault in case["faults"]]
    void += [("shards2", fault) for fault in (document["shards2"] or {}).get("faults", [])]
    found += [f"**{name} is void**: {fault}" for name, fault in void]
    compared = [run for run in document["runs"] if "others_busy" in run]
    worst = max((run["others_busy"] + run["steal"] for run in compared), default=0)
    if worst > OTHERS_BUSY_MAX:
        found.append(
            f"Other work (or the hypervisor) took up to {worst:.0%} of a core during a run."
        )
    bound = [case["case"] for case in document["cases"]
             if not case["void"] and case["client_bound"]]
    if bound:
        found.append(f"In {', '.join(bound)} the client is the bottleneck on both sides: its "
                     "requests/s compare clients; requests per server CPU-s compare servers.")
    siblings = document["host"]["core0_siblings"]
    if siblings not in (None, "0"):
        found.append(f"Core 0 shares its silicon with the hardware threads {siblings}.")
    if "modified" in document["settings"]["commit"]:
        found.append("The checkout had uncommitted changes.")
    return ["## Warnings", "", *(f"* {warning}" for warning in found), ""] if found else []


def facts_list(document, names):
    """Machine and settings, a line each."""
    given = document["settings"]
    sha = given["candidate_sha256"]
    lines = machine_lines(document["host"], given)
    if document["cases"]:
        tls = given["baseline_tls"] or "not asked"
        lines.append(f"* Baseline: {given['baseline']} (TLS: {tls})")
    lines += [
        f"* Candidate: {given['candidate']} (TLS: {given['candidate_tls'] or 'not asked'})"
        + (f", sha256 {sha[:16]}…" if sha else ""),
    ]
    if given["peers"]:
        lines.append(f"* Also measured, one core each: {given['peers']}")
    lines += [
        f"* Clients: {given['wrk']}; ron-perf for range64k, TLS, handshake, open4k and zipf; one thread "
        f"on core {given['client_core']}, {given['connections']} connections unless the case says "
        f"otherwise; servers on core {given['server_core']}; {given['openssl']}",
        f"* Congestion control: {given['congestion_control']}, in a network namespace of its own; "
        f"nginx's tcp_nopush: {given['nginx_tcp_nopush']}, aio: {given['nginx_aio']}",
        f"* Rounds: {given['rounds']}; every run {given['seconds']} s, after "
        f"{given['warmup']} s of warm-up; interleaved, the order alternating",
    ]
    if any(case["case"] == "zipf" for case in document["cases"]):
        lines.append(f"* zipf: {given['zipf_data']}; memory: {given['zipf_memory']}")
    return lines + [""]


def names_of(given):
    """What each side is called in tables, in the order of their columns."""
    names = {side: given[f"{side}_kind"] for side in SIDES}
    if names["baseline"] == names["candidate"]:
        names = {side: f"{name} ({side})" for side, name in names.items()}
    return names | {"h2o": "h2o", "varnish": "varnish"}


def markdown(document):
    given, cases = document["settings"], document["cases"]
    names = names_of(given)
    against = f" against {names['baseline']}" if cases else ""
    lines = [f"# {names['candidate']}{against}", ""]
    lines += facts_list(document, names) + warnings(document)
    lines += goal_table(document)
    if document["plot"]:
        lines += [f"![Ratios by case]({document['plot']})", ""]
    if cases:
        for figure, title in FIGURES:
            lines += figure_table(cases, figure, title, names)
    lines += open_loop_table(cases, document["runs"], names)
    lines += shards_table(document["shards2"]) + verification_table(document, names)
    if cases:
        lines += circumstances(cases, names)
    lines += raw_table(document["runs"], names)
    lines += ["Medians with (least–greatest). How to read this: perf/README.md.", ""]
    return "\n".join(lines)


def main():
    parser = report_parser(__doc__)
    parser.add_argument("--profiles", help="JSON lines, one a profiled case")
    options = parser.parse_args()
    given = dict(options.set)
    runs = read_runs(options.runs)
    kinds = (given["candidate_kind"], given["baseline_kind"])
    pauses = [run for run in runs if run["case"] == "pauses"]
    runs = [run for run in runs if run["case"] != "pauses"]
    names = [name for name in in_order(runs, "case") if name != "shards2"]
    has_profiles = options.profiles and os.path.exists(options.profiles)
    document = {
        "format": 2,
        "settings": given,
        "host": host(given["congestion_control"]),
        "cases": [
            summarize(name, [run for run in runs if run["case"] == name], pauses,
                      given["congestion_control"], kinds == ("rond", "nginx"))
            for name in names
        ],
        "shards2": summarize_shards([run for run in runs if run["case"] == "shards2"]),
        "profiles": read_runs(options.profiles) if has_profiles else [],
        "plot": None,
        "pauses": pauses,
        "runs": runs,
    }
    if picture := plot(document):
        with open(f"{options.out}.svg", "w", encoding="utf-8") as file:
            file.write(picture)
        document["plot"] = os.path.basename(f"{options.out}.svg")
    write_report(options.out, document, markdown(document))
    void = any(case["void"] for case in document["cases"])
    void = void or bool(document["shards2"] and document["shards2"]["void"])
    sys.exit(EXIT_VOID if void else 0)


if __name__ == "__main__":
    main()
