"""Draw the plots of the report: small panels, with the names of the arms at their lines instead of in a legend.

``svg`` holds how a figure looks and becomes SVG; this file holds what each plot shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from railkd.report import format
from railkd.report.svg import ACCENT, INK, LINE, SOFT, figure, render, series, style

#: ``svg``, and ``group``: the heading that it stands under.
Panel = dict[str, str]
#: Sizes in CSS pixels: a panel (fits a phone), the axes of a curve, the height, the mean width of a letter.
WIDTH, CURVE, HEIGHT, LETTER = 345, 165, 230, 6.0
#: Height of a name beside a point, in CSS pixels.
_NAME = 14
#: With more arms, students and domains than this, no forest plots are drawn.
MOST_FORESTS = 24
#: With more curves than this, only those of the selection metric are drawn.
MOST_CURVES = 40
_TICK_STEPS = [1, 2, 2.5, 5, 10]
_QUANTITIES = {"ce": "CE loss", "kd": "KD loss", "intermediate": "intermediate loss"}


def plots(content: dict[str, Any]) -> dict[str, list[Panel]]:
    """Draw every plot of the report.

    Args:
        content: the dict of `content.content`.

    Returns:
        Section -> panels.
    """
    colours = {arm: series(number) for number, arm in enumerate(content["arms"])}
    many_students = len(content["students"]) > 1
    with style():
        return {
            "forest": _forests(content, many_students),
            "cost": _costs(content, colours, many_students),
            "shipped": _shipped(content),
            "curves": [_curve(c, colours, i, many_students) for i, c in enumerate(_curves_to_draw(content["curves"]))],
            "calibration": _reliabilities(content, colours, many_students),
        }


def _curves_to_draw(curves: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the curves that a page has room for: of many, those of the selection metric."""
    return [curve for curve in curves if len(curves) <= MOST_CURVES or curve["quantity"].startswith("eval_")]


def _forests(content: dict[str, Any], many_students: bool) -> list[Panel]:
    """Draw the differences to the baseline by task and over tasks: a panel for each domain, student and arm."""
    rows = [row for row in content["differences"] if row["points"]]
    limit = _axis_limit(rows)
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["domain"], row["student"], row["arm"]), []).append(row)
    panels: list[Panel] = []
    if len(groups) > MOST_FORESTS:  # the table of arms against tasks shows the same numbers
        return panels
    for (domain, student, arm), of_arm in groups.items():
        heading = ("In the domain" if domain == "in" else "Out of the domain") + (
            f", {student}" if many_students else ""
        )
        svg = _forest(of_arm, f"forest{len(panels)}", arm, f"points above {content['baseline']}", limit)
        panels.append({"group": heading, "svg": svg})
    return panels


def _forest(rows: Sequence[dict[str, Any]], name: str, title: str, label: str, limit: float) -> str:
    """Draw one row per task, with the difference over all tasks in the last row."""
    names = [_row_name(row) for row in rows]
    places = range(len(rows) - 1, -1, -1)
    fig, ax = figure(WIDTH, 68 + 22 * len(rows))
    for place, row in zip(places, rows, strict=True):
        _interval(ax, place, row, limit)
    ax.axvline(0, color=SOFT, linewidth=0.8)
    ax.set_xlim(-limit * 1.04, limit * 1.04)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.set_yticks(places, names)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(label)
    ax.set_title(title)
    _margins(fig, left=max(map(len, names)) * LETTER + 14, right=14, top=26, bottom=42)
    description = "; ".join(
        f"{task} {format.signed(row['mean'])} {format.interval(row['low'], row['high'])}"
        for task, row in zip(names, rows, strict=True)
    )
    return render(fig, name, f"{title}: {label}", description)


def _interval(ax: Any, place: int, row: dict[str, Any], limit: float) -> None:
    """Draw a mean with its interval. An arrow marks an end beyond the limit of the axis."""
    pooled = row["over"] == "tasks"
    colour, width, mark, size = (ACCENT, 2.4, "D", 5.5) if pooled else (INK, 1.2, "o", 4)
    if row["low"] is not None:
        low, high = max(row["low"], -limit), min(row["high"], limit)
        ax.plot([low, high], [place, place], color=colour, linewidth=width, solid_capstyle="butt")
        for at, beyond, arrow in ((low, row["low"] < low, "<"), (high, row["high"] > high, ">")):
            if beyond:
                ax.plot([at], [place], arrow, color=colour, markersize=4, clip_on=False)
    ax.plot([min(max(row["mean"], -limit), limit)], [place], mark, color=colour, markersize=size)


def _row_name(row: dict[str, Any]) -> str:
    if row["over"] == "tasks":
        return "all tasks"
    return _truncate(f"{row['task']}: {row['set']}" if row["show_set"] else row["task"], 22)


def _axis_limit(rows: Sequence[dict[str, Any]]) -> float:
    """Return an axis limit that fits most intervals of single tasks. Very wide ones (one degree of freedom) are cut."""
    ends = [abs(row[end]) for row in rows for end in ("low", "high") if row[end] is not None and row["over"] == "seeds"]
    means = [abs(row["mean"]) for row in rows]
    return max(1.0, *(means or [0]), float(np.quantile(ends, 0.9)) if ends else 0.0) * 1.1


def _costs(content: dict[str, Any], colours: dict[str, str], many_students: bool) -> list[Panel]:
    """Draw the average score against seconds for each student, and against parameters if they differ."""
    points = content["cost"]
    students = dict.fromkeys(point["student"] for point in points)
    drawn = [("seconds", "seconds of training a run", [p for p in points if p["student"] == name]) for name in students]
    if len({point["parameters"] for point in points}) > 1:
        drawn.append(("parameters", "parameters, millions", points))
    panels = []
    for number, (field, label, shown) in enumerate(drawn):
        several = len({point["student"] for point in shown}) > 1
        names = [point["arm"] + (f", {point['student']}" if several else "") for point in shown]
        title = shown[0]["student"] if many_students and not several else ""
        svg = _cost(shown, field, names, f"cost{number}", label, title, [colours[point["arm"]] for point in shown])
        panels.append({"group": "", "svg": svg})
    return panels


def _cost(
    points: Sequence[dict[str, Any]], field: str, names: Sequence[str], name: str, label: str, title: str,
    colours: Sequence[str],
) -> str:  # fmt: skip
    """Draw scores against a cost, with the names to the right of the points."""
    unit = 1e6 if field == "parameters" else 1.0
    x, y = [point[field] / unit for point in points], [point["score"] for point in points]
    fig = _scatter(x, y, names, colours, (label, "average test score"), title)
    return render(fig, name, f"{title + ': ' if title else ''}average test score against {label}", _told(names, x, y))


def _told(names: Sequence[str], x: Sequence[float], y: Sequence[float]) -> str:
    """Return named points of cost and score in words."""
    return "; ".join(f"{n}: {format.number(b)} at {format.number(a)}" for n, a, b in zip(names, x, y, strict=True))


def _scatter(
    x: Sequence[float], y: Sequence[float], names: Sequence[str], colours: Sequence[str], labels: tuple[str, str],
    title: str = "",
) -> Any:  # fmt: skip
    """Draw points of cost and score, with the names to the right of the points."""
    height, right = max(HEIGHT, _NAME * len(x)), round(max(map(len, names)) * LETTER) + 24
    fig, ax = figure(60 + CURVE + right, height + 76)
    for a, b, colour in zip(x, y, colours, strict=True):
        ax.plot([a], [b], "o", color=colour, markersize=7)
    _frame(ax, *labels)
    ax.set_xlim(0, 1.08 * (max(x) or 1.0))  # from 0, because costs are compared as ratios
    ax.margins(y=0.12)
    ax.set_title(title)
    _margins(fig, left=60, right=right, top=28, bottom=48)
    low, high = ax.get_ylim()
    for at, a, b, word, colour in zip(
        _spread_labels(y, (high - low) * _NAME / height, low, high), x, y, names, colours, strict=True
    ):
        arrow = {"arrowstyle": "-", "color": LINE, "linewidth": 0.6, "shrinkB": 4}
        ax.annotate(word, (a, b), (1.17 * (max(x) or 1.0), at), color=colour, va="center", arrowprops=arrow)
    return fig


def _shipped(content: dict[str, Any]) -> list[Panel]:
    """Draw the mean score of each file of an export against its latency and its size."""
    panels: list[Panel] = []
    drawn = [one for one in content["exports"] if one["sets"]]
    for one in drawn:
        sides, unit = one["sides"], 100 if one["points"] else 1
        names, y = [_truncate(side["name"], 17) for side in sides], [unit * side["score"] for side in sides]
        what = one["metric"] + (f", mean of {len(one['sets'])} sets" if one["sets"][1:] else f", {one['sets'][0]}")
        for field, label, scale in (("p50_ms", "milliseconds a row", 1.0), ("size", "size, MB", 1e6)):
            x = [side[field] / scale for side in sides]
            fig = _scatter(x, y, names, [series(i) for i in range(len(sides))], (label, what))
            title = f"{one['name']}: {what} against {label}"
            svg = render(fig, f"shipped{len(panels)}", title, _told([side["name"] for side in sides], x, y))
            panels.append({"group": one["name"] if drawn[1:] else "", "svg": svg})
    return panels


def _curve(curve: dict[str, Any], colours: dict[str, str], number: int, many_students: bool) -> Panel:
    """Draw a line with a band of one standard deviation for each arm, and a dot if there is one point only."""
    names = [_truncate(line["arm"], 22) for line in curve["lines"]]
    left, right = 40, max(map(len, names)) * LETTER + 10
    fig, ax = figure(left + CURVE + round(right), HEIGHT)
    for line in curve["lines"]:
        x, mean, sd = (np.array(line[name]) for name in ("x", "mean", "sd"))
        ax.fill_between(x, mean - sd, mean + sd, color=colours[line["arm"]], alpha=0.14, linewidth=0)
        ax.plot(x, mean, "-" if len(x) > 1 else "o", color=colours[line["arm"]], markersize=4)
    quantity = curve["quantity"]
    title = _QUANTITIES.get(quantity, f"{quantity.removeprefix('eval_')}, selection set")
    _frame(ax, "epoch", "")
    ax.set_title(title)
    _margins(fig, left=left, right=right, top=26, bottom=42)
    low, high = ax.get_ylim()
    ends = [line["mean"][-1] for line in curve["lines"]]
    for name, line, at in zip(names, curve["lines"], _spread_labels(ends, (high - low) * 0.08, low, high), strict=True):
        place: Any = {"xycoords": ("axes fraction", "data"), "va": "center", "annotation_clip": False}
        ax.annotate(name, (1.03, at), color=colours[line["arm"]], **place)
    description = "; ".join(
        f"{line['arm']}: {line['mean'][0]:.3f} to {line['mean'][-1]:.3f}" for line in curve["lines"]
    )
    heading = curve["task"] + (f", {curve['student']}" if many_students else "")
    return {"group": heading, "svg": render(fig, f"curve{number}", f"{heading}: {title}", description)}


def _reliabilities(content: dict[str, Any], colours: dict[str, str], many_students: bool) -> list[Panel]:
    """Draw accuracy against confidence: a panel for each test set in the domain and each student, with the teacher."""
    rows = [row for row in content["calibration"] if row["domain"] == "in"]
    panels: list[Panel] = []
    for task, name, student in dict.fromkeys((r["task"], r["set"], r["student"]) for r in rows if r["student"]):
        lines = [r for r in rows if (r["task"], r["set"]) == (task, name) and r["student"] in ("", student)]
        title = f"{_truncate(task, 24)}: accuracy" + (f", {student}" if many_students else "")
        fig = _reliability(lines, colours, title)
        description = "; ".join(f"{row['arm']}: expected calibration error {100 * row['error']:.1f}" for row in lines)
        svg = render(fig, f"reliability{len(panels)}", f"{task} {name}: reliability", description)
        panels.append({"group": "", "svg": svg})
    return panels


def _reliability(lines: Sequence[dict[str, Any]], colours: dict[str, str], title: str) -> Any:
    """Draw one line of bins for each row; bins with fewer than 5 predictions are left out."""
    fig, ax = figure(WIDTH, HEIGHT + 50)
    ax.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=(0, (3, 3)))
    least = 1.0
    for place, row in enumerate(lines):
        bins = [part for part in row["bins"] if part["rows"] >= 5]
        x, y = [part["confidence"] for part in bins], [part["accuracy"] for part in bins]
        least = min([least, *x, *y])
        colour = INK if not row["student"] else colours[row["arm"]]
        ax.plot(x, y, "-o", color=colour, markersize=3, linewidth=1.2)
        label = f"{row['arm']}  {100 * row['error']:.1f}"
        ax.text(0.03, 0.96 - 0.075 * place, label, transform=ax.transAxes, color=colour, va="top")
    least = max(0.0, least - 0.05)
    ax.set_xlim(least, 1.01)
    ax.set_ylim(least, 1.03)
    _frame(ax, "confidence of the prediction", "")
    ax.set_title(title)
    _margins(fig, left=38, right=8, top=26, bottom=42)
    return fig


def _frame(ax: Any, x: str, y: str) -> None:
    """Label the axes, and draw horizontal grid lines."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=_TICK_STEPS))
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=_TICK_STEPS, integer=ax.dataLim.x1 >= 2))
    ax.margins(x=0.02)


def _margins(fig: Any, *, left: float, right: float, top: float, bottom: float) -> None:
    """Set the margins around the axes, in CSS pixels."""
    width, height = (72 * side for side in fig.get_size_inches())
    fig.subplots_adjust(left=left / width, right=1 - right / width, top=1 - top / height, bottom=bottom / height)


def _spread_labels(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move values apart until neighbours differ by ``gap``; keep them between low and high if there is room."""
    order = np.argsort(values, kind="stable")
    placed = np.array(values, dtype=float)[order]
    for _ in range(100):
        moved = False
        for i in range(len(placed) - 1):
            short = gap - (placed[i + 1] - placed[i])
            if short > 1e-9:
                placed[i] -= short / 2
                placed[i + 1] += short / 2
                moved = True
        placed += max(0.0, low - placed[0]) if placed[-1] < high else 0.0
        placed -= max(0.0, placed[-1] - high) if placed[0] > low else 0.0
        if not moved:
            break
    back = np.empty_like(placed)
    back[order] = placed
    return back.tolist()


def _truncate(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
