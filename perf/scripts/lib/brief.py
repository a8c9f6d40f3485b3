"""Prints a run's record in a few words: `brief.py JSON`."""

import json
import sys


def main():
    run = json.loads(sys.argv[1])
    words = [f"{run.get(key) or 0:,.0f} {unit}" for key, unit in (("rps", "req/s"),
                                                                 ("per_cpu", "req/CPU-s"))]
    if run.get("rate"):
        words += [f"{key[:-3]} {run[key]:,.0f} µs" for key in ("p50_us", "p99_us", "p999_us")
                  if run.get(key) is not None]
    print("  ".join(words + [f"FAULT: {fault}" for fault in run["faults"]]))


if __name__ == "__main__":
    main()
