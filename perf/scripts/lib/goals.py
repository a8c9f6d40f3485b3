"""What each case of the comparison must reach, and whether it did.

A goal is (figure, relation, number). The figure is `rps` or `per_cpu`, a ratio of medians,
candidate over baseline; `p99_ms`, the candidate's alone in milliseconds, less what the machine's
own pauses make of any server's in the same rounds; or `p999`, a ratio of medians of latencies. Goals hold for rond against nginx; other pairs are measured without.
"""

AT_LEAST, AT_MOST = "≥", "≤"

GOALS = {
    "4k": (("rps", AT_LEAST, 1.28), ("per_cpu", AT_LEAST, 1.45)),
    "4k-c64": (("rps", AT_LEAST, 1.28), ("per_cpu", AT_LEAST, 1.45)),
    "64k": (("rps", AT_LEAST, 1.0), ("per_cpu", AT_LEAST, 1.2)),
    "1m": (("rps", AT_LEAST, 1.0), ("per_cpu", AT_LEAST, 1.1)),
    "64m": (("rps", AT_LEAST, 1.0), ("per_cpu", AT_LEAST, 1.1)),
    "range64k": (("rps", AT_LEAST, 1.0), ("per_cpu", AT_LEAST, 1.2)),
    "tls4k": (("rps", AT_LEAST, 1.3),),
    "tls64k": (("rps", AT_LEAST, 2.0),),
    "tls1m": (("rps", AT_LEAST, 2.0),),
    "handshake": (("rps", AT_LEAST, 1.2),),
    "open4k": (("p99_ms", AT_MOST, 1.0), ("p999", AT_MOST, 0.5)),
    "zipf": (("rps", AT_LEAST, 1.3),),
}
# CPU per request of two shards whose connections ask for anything, over that where every
# connection asks its own shard.
MESH_COST_MAX = 1.25

NAMES = {
    "rps": "requests/s",
    "per_cpu": "requests per server CPU-s",
    "p99_ms": "p99 beyond the machine's pauses, ms",
    "p999": "p99.9",
}


def goals_of(case, congestion):
    """Under a congestion control that paces, the goal is not to be slower."""
    goals = GOALS.get(case, ())
    if congestion == "cubic":
        return goals
    return tuple((figure, relation, 1.0) for figure, relation, _ in goals if figure != "p99_ms")


def value_of(figure, case):
    """The measured value of a goal's figure, or None where a run lacks it."""
    if figure == "p99_ms":
        facts, pauses = case["candidate"].get("p99_us"), case.get("pauses")
        return facts and pauses and (facts["median"] - pauses["p99_us"]["median"]) / 1000
    ratio = case["ratio"].get("p999_us" if figure == "p999" else figure)
    return ratio and ratio["of_medians"]


def judge(case, congestion):
    """Every goal of a summarized case, with its value and whether it was met."""
    verdicts = []
    for figure, relation, goal in goals_of(case["case"], congestion):
        value = None if case["void"] else value_of(figure, case)
        met = None
        if value is not None:
            met = value >= goal if relation == AT_LEAST else value <= goal
        verdicts.append({"figure": figure, "relation": relation, "goal": goal,
                         "value": value, "met": met})
    return verdicts
