"""What the reports have in common: medians and ratios, Markdown tables, and the two files."""

import argparse
import json
import statistics

# Beyond this share of one core, somebody else's work is worth a warning.
OTHERS_BUSY_MAX = 0.05


def spread(values):
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio_of(over, under):
    """A ratio of two figures by round: of their medians, and round by round. None without both."""
    rounds = [number for number in over if under.get(number)]
    if not rounds or len(rounds) != len(over):
        return None
    medians = [statistics.median(figures.values()) for figures in (over, under)]
    each = spread([over[number] / under[number] for number in rounds])
    return {
        "of_medians": round(medians[0] / medians[1], 4),
        "per_round": {key: round(value, 4) for key, value in each.items()},
    }


def by_round(runs, side, figure):
    """One figure of one side, by round; runs without it are left out."""
    return {run["round"]: run[figure] for run in runs
            if run["side"] == side and run.get(figure) is not None}


def row(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def ruler(labels, numbers):
    return "|" + "---|" * labels + "---:|" * numbers


def spread_cell(values, form="{:,.0f}"):
    low, high = form.format(values["min"]), form.format(values["max"])
    return f"**{form.format(values['median'])}** ({low}–{high})"


def ratio_cells(ratio):
    if ratio is None:
        return "—", "—"
    each = ratio["per_round"]
    return (
        f"**{ratio['of_medians']:.2f}**",
        f"{each['median']:.2f} ({each['min']:.2f}–{each['max']:.2f})",
    )


def machine_lines(box, given):
    """Date, machine and system, a line each."""
    kind = "virtual" if box["virtual"] else "bare metal"
    return [
        f"* Date: {given['started']}; commit: {given['commit']}",
        f"* Machine: {box['cpu']}, {box['cores']} cores ({kind}), {box['memory_mib']:,} MiB, "
        f"governor: {box['governor'] or 'none exposed'}",
        f"* System: {box['system']}, Linux {box['kernel']}; "
        f"load at start: {given['load_at_start']}",
    ]


def add_report_arguments(parser):
    parser.add_argument("--runs", required=True, help="JSON lines, one a run")
    parser.add_argument("--out", required=True, help="path of the report, without its ending")
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"))


def report_parser(doc):
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    add_report_arguments(parser)
    return parser


def read_runs(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def in_order(runs, key):
    """The different values of a key, in the order of their first appearance."""
    return list(dict.fromkeys(run[key] for run in runs))


def write_report(out, document, text):
    """Leaves OUT.json and OUT.md, and prints the latter."""
    with open(f"{out}.json", "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1, ensure_ascii=False)
        file.write("\n")
    with open(f"{out}.md", "w", encoding="utf-8") as file:
        file.write(text)
    print(text)
