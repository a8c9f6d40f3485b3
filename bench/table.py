#!/usr/bin/env python3
"""Prints what `cargo bench -p ron-bench` measured last, as a Markdown table.

    bench/table.py [--all] [FOLDER]

FOLDER is criterion's, by default `criterion` in $CARGO_TARGET_DIR or `target`. Times are medians
of one element where a group counts elements, and of a whole iteration otherwise. With `--all` the
rows named `beside: ...` are printed too.
"""

import json
import os
import sys
from pathlib import Path

LIMIT, BESIDE = "limit: ", "beside: "
UNITS = (("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9))


def measured(folder):
    """Every benchmark below the folder: (group, name, nanoseconds, bytes or None)."""
    for file in sorted(folder.glob("**/new/benchmark.json")):
        about = json.loads(file.read_text())
        estimates = json.loads(file.with_name("estimates.json").read_text())
        nanoseconds = estimates["median"]["point_estimate"]
        through = about["throughput"] or {}
        nanoseconds /= through.get("Elements", 1)
        yield about["group_id"], about["function_id"], nanoseconds, through.get("Bytes")


def time_of(nanoseconds):
    unit, scale = next(
        (each for each in UNITS if nanoseconds < each[1] * 1000), UNITS[-1]
    )
    return f"{nanoseconds / scale:.3g} {unit}"


def speed_of(nanoseconds, length):
    """GB/s, for what is long enough that this says something."""
    return f" ({length / nanoseconds:.2f} GB/s)" if length and length >= 4096 else ""


def rows_of(group, benches, with_beside):
    limits = [bench for bench in benches if bench[0].startswith(LIMIT)]
    if len(limits) != 1:
        sys.exit(f"{group}: {len(limits)} limits instead of one")
    limit_name, limit, _ = limits[0]
    for name, nanoseconds, length in benches:
        if name == limit_name or (name.startswith(BESIDE) and not with_beside):
            continue
        ours = time_of(nanoseconds) + speed_of(nanoseconds, length)
        bound = f"{limit_name.removeprefix(LIMIT)}: {time_of(limit)}{speed_of(limit, length)}"
        yield f"| {group} | {name} | {ours} | {bound} | {nanoseconds / limit:.2f} |"


def main():
    arguments = [each for each in sys.argv[1:] if each != "--all"]
    target = os.environ.get("CARGO_TARGET_DIR", "target")
    folder = Path(arguments[0] if arguments else Path(target, "criterion"))
    groups = {}
    for group, *bench in measured(folder):
        groups.setdefault(group, []).append(bench)
    if not groups:
        sys.exit(f"{folder}: nothing was measured")
    print("| subject | what | ours | limit | ratio |")
    print("|---|---|---:|---|---:|")
    for group, benches in groups.items():
        for row in rows_of(group, benches, "--all" in sys.argv):
            print(row)


if __name__ == "__main__":
    main()
