"""The plots of a report: one small panel a question, lines named where they end, each a view of the dict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from railkd.report import format
from railkd.report.svg import ACCENT, INK, LINE, PAPER, SOFT, figure, render, series, style
from railkd.runtime.words import counted

Panel = dict[str, str]
#: In CSS pixels. A panel fits a phone, its names included; a letter of a name is about so wide.
WIDTH, CURVE, HEIGHT, LETTER = 345, 165, 230, 6.0
_STEPS = [1, 2, 2.5, 5, 10]
_QUANTITIES = {"ce": "CE loss", "kd": "KD loss", "intermediate": "intermediate loss"}


def plots(content: dict[str, Any]) -> dict[str, list[Panel]]:
    """section -> panels, each ``svg`` and ``group``, the heading it stands under."""
    colours = {arm: series(number) for number, arm in enumerate(content["arms"])}
    several = len(content["students"]) > 1
    with style():
        return {
            "forest": _forests(content, several),
            "cost": _costs(content, colours, several),
            "curves": [_curve(c, colours, i, several) for i, c in enumerate(content["curves"])],
            "coverage": [_coverage(c, i, several) for i, c in enumerate(content["coverage"])],
            "similarity": _similarities(content, several),
            "calibration": _reliabilities(content, colours, several),
        }


def _forests(content: dict[str, Any], several: bool) -> list[Panel]:
    """A panel for each domain, student and arm: its difference to the baseline, task by task, and over tasks."""
    rows = [row for row in content["differences"] if row["points"]]
    reach = _reach(rows)
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["domain"], row["student"], row["arm"]), []).append(row)
    found: list[Panel] = []
    for (domain, student, arm), of_arm in groups.items():
        heading = ("In the domain" if domain == "in" else "Out of the domain") + (f", {student}" if several else "")
        svg = _forest(of_arm, f"forest{len(found)}", arm, f"points above {content['baseline']}", reach)
        found.append({"group": heading, "svg": svg})
    return found


def _forest(rows: Sequence[dict[str, Any]], name: str, title: str, label: str, reach: float) -> str:
    """One row under the other, over tasks the last."""
    names = [_row_name(row) for row in rows]
    places = range(len(rows) - 1, -1, -1)
    made, ax = figure(WIDTH, 68 + 22 * len(rows))
    for place, row in zip(places, rows, strict=True):
        _interval(ax, place, row, reach)
    ax.axvline(0, color=SOFT, linewidth=0.8)
    ax.set_xlim(-reach * 1.04, reach * 1.04)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.set_yticks(places, names)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(label)
    ax.set_title(title)
    _margins(made, left=max(map(len, names)) * LETTER + 14, right=14, top=26, bottom=42)
    said = "; ".join(
        f"{one} {format.signed(row['mean'])} {format.interval(row['low'], row['high'])}"
        for one, row in zip(names, rows, strict=True)
    )
    return render(made, name, f"{title}: {label}", said)


def _interval(ax: Any, place: int, row: dict[str, Any], reach: float) -> None:
    """A mean with its interval; what is out of reach ends in an arrow."""
    pooled = row["over"] == "tasks"
    colour, width, mark, size = (ACCENT, 2.4, "D", 5.5) if pooled else (INK, 1.2, "o", 4)
    if row["low"] is not None:
        low, high = max(row["low"], -reach), min(row["high"], reach)
        ax.plot([low, high], [place, place], color=colour, linewidth=width, solid_capstyle="butt")
        for at, beyond, arrow in ((low, row["low"] < low, "<"), (high, row["high"] > high, ">")):
            if beyond:
                ax.plot([at], [place], arrow, color=colour, markersize=4, clip_on=False)
    ax.plot([min(max(row["mean"], -reach), reach)], [place], mark, color=colour, markersize=size)


def _row_name(row: dict[str, Any]) -> str:
    if row["over"] == "tasks":
        return "all tasks"
    return _short(f"{row['task']}: {row['set']}" if row["show_set"] else row["task"], 22)


def _reach(rows: Sequence[dict[str, Any]]) -> float:
    """How far the axis goes: the intervals of single tasks fit, one of a single degree of freedom may be cut."""
    ends = [abs(row[end]) for row in rows for end in ("low", "high") if row[end] is not None and row["over"] == "seeds"]
    means = [abs(row["mean"]) for row in rows]
    return max(1.0, *(means or [0]), float(np.quantile(ends, 0.9)) if ends else 0.0) * 1.1


def _costs(content: dict[str, Any], colours: dict[str, str], several: bool) -> list[Panel]:
    points = content["cost"]
    kinds = [("seconds", "seconds of training a run", 1.0)]
    if len({point["parameters"] for point in points}) > 1:
        kinds.append(("parameters", "parameters, millions", 1e6))
    found = []
    for number, (field, label, unit) in enumerate(kinds if points else []):
        made, ax = figure(WIDTH + 60, HEIGHT + 60)
        x = [point[field] / unit for point in points]
        y = [point["score"] for point in points]
        for point, a, b in zip(points, x, y, strict=True):
            ax.plot([a], [b], "o", color=colours[point["arm"]], markersize=7)
        _frame(ax, label, "average test score")
        wide = max(x) or 1.0  # from zero: a cost is read as a ratio
        ax.set_xlim(0, 1.5 * wide)
        ax.margins(y=0.12)
        _margins(made, left=52, right=8, top=12, bottom=44)
        names = [point["arm"] + (f", {point['student']}" if several else "") for point in points]
        _name_points(ax, x, y, names, [colours[point["arm"]] for point in points])
        said = "; ".join(f"{n}: {format.number(b)} at {format.number(a)}" for n, a, b in zip(names, x, y, strict=True))
        found.append({"group": "", "svg": render(made, f"cost{number}", f"Average test score against {label}", said)})
    return found


def _name_points(ax: Any, x: Sequence[float], y: Sequence[float], names: Sequence[str], colours: Sequence[str]) -> None:
    """Names to the right of the points, moved up or down where they would meet."""
    low, high = ax.get_ylim()
    gap = (high - low) * 0.05
    for at, a, b, name, colour in zip(_apart(y, gap, low, high), x, y, names, colours, strict=True):
        arrow = {"arrowstyle": "-", "color": LINE, "linewidth": 0.6, "shrinkB": 4}
        edge = ax.get_xlim()[0] + 0.72 * (ax.get_xlim()[1] - ax.get_xlim()[0])
        ax.annotate(name, (a, b), (edge, at), color=colour, va="center", arrowprops=arrow)


def _curve(curve: dict[str, Any], colours: dict[str, str], number: int, several: bool) -> Panel:
    """Lines with their bands, named where they end; a quantity read once is a dot."""
    names = [_short(line["arm"], 22) for line in curve["lines"]]
    left, right = 40, max(map(len, names)) * LETTER + 10
    made, ax = figure(left + CURVE + round(right), HEIGHT)
    for line in curve["lines"]:
        x, mean, sd = (np.array(line[name]) for name in ("x", "mean", "sd"))
        ax.fill_between(x, mean - sd, mean + sd, color=colours[line["arm"]], alpha=0.14, linewidth=0)
        ax.plot(x, mean, "-" if len(x) > 1 else "o", color=colours[line["arm"]], markersize=4)
    quantity = curve["quantity"]
    title = _QUANTITIES.get(quantity, f"{quantity.removeprefix('eval_')}, selecting rows")
    _frame(ax, "epoch", "")
    ax.set_title(title)
    _margins(made, left=left, right=right, top=26, bottom=42)
    low, high = ax.get_ylim()
    ends = [line["mean"][-1] for line in curve["lines"]]
    for name, line, at in zip(names, curve["lines"], _apart(ends, (high - low) * 0.08, low, high), strict=True):
        place: Any = {"xycoords": ("axes fraction", "data"), "va": "center", "annotation_clip": False}
        ax.annotate(name, (1.03, at), color=colours[line["arm"]], **place)
    said = "; ".join(f"{line['arm']}: {line['mean'][0]:.3f} to {line['mean'][-1]:.3f}" for line in curve["lines"])
    heading = curve["task"] + (f", {curve['student']}" if several else "")
    return {"group": heading, "svg": render(made, f"curve{number}", f"{heading}: {title}", said)}


def _coverage(row: dict[str, Any], number: int, several: bool) -> Panel:
    shares = np.array(row["shares"])
    title = row["arm"] + (f", {row['student']}" if several else "")
    svg = _heat(
        shares, f"coverage{number}", title, f"{row['draws']:,} draws in {counted(row['runs'], 'run')}",
        [str(block) for block in row["blocks"]], [str(i + 1) for i in range(shares.shape[1])],
        "teacher block", "student block it taught", "{:.0%}", 1.0,
    )  # fmt: skip
    return {"group": "", "svg": svg}


def _similarities(content: dict[str, Any], several: bool) -> list[Panel]:
    found: list[Panel] = []
    for row in content["similarity"]:
        for moment in ("before", "after"):
            if row[moment]:
                matrix = np.array(row[moment])
                heading = row["arm"] + (f", {row['student']}" if several else "")
                svg = _heat(
                    matrix, f"similarity{len(found)}", f"{moment} training", f"{heading}, mean of {row['runs']} runs",
                    [str(i + 1) for i in range(matrix.shape[0])], [str(i + 1) for i in range(matrix.shape[1])],
                    "student block", "teacher block", "{:.2f}", 1.0,
                )  # fmt: skip
                found.append({"group": heading, "svg": svg})
    return found


def _heat(
    values: np.ndarray, name: str, title: str, note: str, rows: Sequence[str], columns: Sequence[str],
    row_label: str, column_label: str, form: str, top: float,
) -> str:  # fmt: skip
    """Cells of one colour, the stronger the higher; their numbers where they fit."""
    cell = 40 if len(columns) <= 7 else 22
    made, ax = figure(max(150, 56 + cell * len(columns)), 76 + 26 * len(rows))
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            strength = min(max(float(value) / top, 0.0), 1.0)
            ax.add_patch(_square(j, i, 0.05 + 0.95 * strength if value > 0 else 0.0))
            if cell == 40:
                colour = PAPER if strength > 0.62 else INK
                ax.text(
                    j, i, form.format(value) if value > 0 else "·", ha="center", va="center", color=colour, fontsize=9.5
                )
    ax.set_xlim(-0.5, len(columns) - 0.5)
    ax.set_ylim(-0.5, len(rows) - 0.5)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_xlabel(column_label)
    ax.set_ylabel(row_label)
    ax.set_title(title)
    _margins(made, left=48, right=4, top=28, bottom=44)
    said = "; ".join(
        f"{row_label} {r}: {', '.join(form.format(v) for v in line)}" for r, line in zip(rows, values, strict=True)
    )
    return render(made, name, f"{title}: {note}", said)


def _square(x: int, y: int, strength: float) -> Any:
    return Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, facecolor=ACCENT, alpha=strength, linewidth=0)


def _reliabilities(content: dict[str, Any], colours: dict[str, str], several: bool) -> list[Panel]:
    """A panel for each set in the domain and each student; the teacher in each."""
    rows = [row for row in content["calibration"] if row["domain"] == "in"]
    found: list[Panel] = []
    for task, name, student in dict.fromkeys((r["task"], r["set"], r["student"]) for r in rows if r["student"]):
        of_set = [r for r in rows if (r["task"], r["set"]) == (task, name) and r["student"] in ("", student)]
        made, ax = figure(WIDTH, HEIGHT + 50)
        ax.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=(0, (3, 3)))
        least = 1.0
        for row in of_set:
            bins = [one for one in row["bins"] if one["rows"] >= 5]
            x, y = [one["confidence"] for one in bins], [one["accuracy"] for one in bins]
            least = min([least, *x, *y])
            colour = INK if not row["student"] else colours[row["arm"]]
            ax.plot(x, y, "-o", color=colour, markersize=3, linewidth=1.2)
        least = max(0.0, least - 0.05)
        ax.set_xlim(least, 1.01)
        ax.set_ylim(least, 1.03)
        _frame(ax, "confidence of the answer", "")
        ax.set_title(f"{_short(task, 24)}: share right" + (f", {student}" if several else ""))
        _margins(made, left=38, right=8, top=26, bottom=42)
        for place, row in enumerate(of_set):
            colour = INK if not row["student"] else colours[row["arm"]]
            label = f"{row['arm']}  {100 * row['error']:.1f}"
            ax.text(0.03, 0.96 - 0.075 * place, label, transform=ax.transAxes, color=colour, va="top")
        said = "; ".join(f"{row['arm']}: expected calibration error {100 * row['error']:.1f}" for row in of_set)
        title = f"{task} {name}: reliability"
        found.append({"group": "", "svg": render(made, f"reliability{len(found)}", title, said)})
    return found


def _frame(ax: Any, x: str, y: str) -> None:
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=_STEPS, integer=ax.dataLim.x1 >= 2))
    ax.margins(x=0.02)


def _margins(made: Any, *, left: float, right: float, top: float, bottom: float) -> None:
    """In CSS pixels."""
    width, height = (72 * side for side in made.get_size_inches())
    made.subplots_adjust(left=left / width, right=1 - right / width, top=1 - top / height, bottom=bottom / height)


def _apart(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The values, moved as little as needed to be ``gap`` apart, inside low to high where there is room."""
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


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
