"""The picture of a comparison: one SVG of grouped horizontal bars, written by hand.

A row is a goal's figure of a case (or requests/s and per CPU, where there are no goals); its bar
is the ratio of medians, longer is better for the candidate, its whisker the least and the greatest
ratio of a round, its tick the goal. Ratios of latencies are drawn the other way round, so that
longer is better there too.
"""

from html import escape

from goals import goals_of

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 960, 190, 150, 92, 84
BAR, GAP, BETWEEN = 15, 3, 13
# Longer bars and whiskers are cut here: a bar with a gap before its end, a whisker with an arrow.
RATIO_MAX = 4.0
STEP = 0.5
COLORS = {"rps": "#2f6f9f", "per_cpu": "#7fb2d6", "p999": "#8a6fb0"}
LABELS = {"rps": "requests/s", "per_cpu": "requests per server CPU-s",
          "p999": "p99.9 (baseline over candidate)"}
MET, MISSED, INK, FAINT = "#2e7d32", "#c62828", "#222222", "#d5d8dc"
FONT = "font-family='DejaVu Sans, Verdana, Helvetica, Arial, sans-serif'"


def bars_of(case, congestion):
    """(figure, ratio, least, greatest, goal) of each bar of a case."""
    goals = {figure: goal for figure, _, goal in goals_of(case["case"], congestion)} \
        if case["goals"] else {}
    bars = []
    for figure, key in (("rps", "rps"), ("per_cpu", "per_cpu"), ("p999", "p999_us")):
        if (figure == "p999") != (case["case"] == "open4k"):
            continue
        ratio, goal = case["ratio"].get(key), goals.get(figure)
        if ratio is None:
            continue
        each = ratio["per_round"]
        values = (ratio["of_medians"], each["min"], each["max"])
        if figure == "p999":
            if min(values) <= 0:
                continue
            values = (1 / values[0], 1 / values[2], 1 / values[1])
            goal = goal and 1 / goal
        bars.append((figure, *values, goal))
    return bars


def text(x, y, words, size=12, anchor="start", fill=INK, weight="normal"):
    return (f"<text x='{x:.1f}' y='{y:.1f}' {FONT} font-size='{size}' text-anchor='{anchor}' "
            f"fill='{fill}' font-weight='{weight}'>{escape(str(words))}</text>")


def line(x1, y1, x2, y2, stroke=INK, width=1.0, dash=""):
    dashed = f" stroke-dasharray='{dash}'" if dash else ""
    return (f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{stroke}' "
            f"stroke-width='{width}'{dashed}/>")


def box(x, y, width, height, fill):
    return (f"<rect x='{x:.1f}' y='{y:.1f}' width='{max(width, 0.5):.1f}' height='{height:.1f}' "
            f"fill='{fill}'/>")


class Scale:
    """From ratios to horizontal places."""

    def __init__(self, most):
        self.most = min(max(most, 1.5), RATIO_MAX)

    def __call__(self, ratio):
        share = min(max(ratio, 0.0), self.most) / self.most
        return LEFT + share * (WIDTH - LEFT - RIGHT)


def draw_whisker(scale, middle, least, greatest):
    """From the least to the greatest; an end beyond the picture is an arrow."""
    low, high = scale(least), scale(greatest)
    parts = [line(low, middle, high, middle, INK, 1.2)]
    for at, value in ((low, least), (high, greatest)):
        if value > scale.most:
            parts += [line(at - 5, middle - 4, at, middle, INK, 1.2),
                      line(at - 5, middle + 4, at, middle, INK, 1.2)]
        else:
            parts.append(line(at, middle - 3, at, middle + 3, INK, 1.2))
    return parts


def draw_bar(scale, y, bar):
    """One bar with its whisker, its goal and its number."""
    figure, ratio, least, greatest, goal = bar
    middle = y + BAR / 2
    parts = [box(LEFT, y, scale(ratio) - LEFT, BAR, COLORS[figure])]
    if ratio > scale.most:
        end = scale(ratio)
        parts += [line(end - 14 + 5 * n, y + BAR + 1, end - 9 + 5 * n, y - 1, "#ffffff", 2)
                  for n in range(2)]
    parts += draw_whisker(scale, middle, least, greatest)
    words, fill = f"{ratio:.2f}×", INK
    if goal is not None:
        fill = MET if ratio >= goal else MISSED
        parts.append(line(scale(goal), y - 2, scale(goal), y + BAR + 2, fill, 3))
        words += f"  (goal {goal:g})"
    parts.append(text(WIDTH - RIGHT + 14, middle + 4, words, 12, fill=fill))
    return parts


def draw_grid(scale, bottom):
    parts, ratio = [], 0.0
    while ratio <= scale.most + 1e-9:
        x = scale(ratio)
        one = abs(ratio - 1.0) < 1e-9
        parts.append(line(x, TOP - 8, x, bottom, INK if one else FAINT, 1.4 if one else 1,
                          "" if one else "2,3"))
        parts.append(text(x, bottom + 16, f"{ratio:g}×", 11, "middle"))
        ratio += STEP
    return parts


def draw_legend(y, figures, goals):
    parts, x = [], LEFT
    for figure in figures:
        parts += [box(x, y - 10, 12, 12, COLORS[figure]), text(x + 18, y, LABELS[figure], 12)]
        x += 40 + 7.2 * len(LABELS[figure])
    if goals:
        parts += [line(x, y - 11, x, y + 3, MET, 3), text(x + 8, y, "goal, met", 12),
                  line(x + 92, y - 11, x + 92, y + 3, MISSED, 3),
                  text(x + 100, y, "not met", 12)]
    parts.append(text(LEFT, y + 20, "Bars: ratio of medians; whiskers: least and greatest ratio "
                      "of a round; right of 1× is better than the baseline. A gap or an arrow: "
                      "cut there.", 11, fill="#555555"))
    return parts


def plot(document):
    """The SVG as text, or None when no case has numbers."""
    given, box_facts = document["settings"], document["host"]
    congestion = given["congestion_control"]
    rows = [(case["case"], bars_of(case, congestion))
            for case in document["cases"] if not case["void"]]
    rows = [(name, bars) for name, bars in rows if bars]
    if not rows:
        return None
    reach = [max(bar[3], bar[1], bar[4] or 0) for _, bars in rows for bar in bars]
    scale = Scale(max(reach) * 1.03)
    y, body = TOP, []
    for name, bars in rows:
        height = len(bars) * (BAR + GAP) - GAP
        body.append(text(LEFT - 12, y + height / 2 + 5, name, 13, "end", weight="bold"))
        for bar in bars:
            body += draw_bar(scale, y, bar)
            y += BAR + GAP
        y += BETWEEN
    figures = [figure for figure in COLORS if any(bar[0] == figure for _, bars in rows
                                                  for bar in bars)]
    has_goals = any(bar[4] is not None for _, bars in rows for bar in bars)
    title = f"{given['candidate']} against {given['baseline']}"
    where = (f"{given['started'][:10]} · {box_facts['cpu']}, {box_facts['cores']} cores"
             f"{', virtual' if box_facts['virtual'] else ''} · Linux {box_facts['kernel']} · "
             f"{congestion} · commit {given['commit']} · {given['rounds']} "
             f"round{'' if given['rounds'] == 1 else 's'} of {given['seconds']} s")
    height = y + BOTTOM
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' "
        f"width='{WIDTH}' height='{height}' role='img'>",
        f"<title>{escape(title)}</title>", box(0, 0, WIDTH, height, "#ffffff"),
        text(24, 34, title, 20, weight="bold"), text(24, 56, where, 11, fill="#555555"),
        *draw_grid(scale, y), *body, *draw_legend(y + 44, figures, has_goals), "</svg>", "",
    ]
    return "\n".join(parts)
