"""Render the report as one HTML page without network access, scripts, fonts or other files."""

from __future__ import annotations

from importlib import resources
from typing import Any

from railkd.report import format, require_extra
from railkd.report.headline import EXPLORATORY, NOT_SHOWN, NOT_TESTABLE, SHOWN, scores_note
from railkd.runtime.words import counted

_FILTERS = (
    format.number,
    format.signed,
    format.interval,
    format.p_value,
    format.percent,
    format.seconds,
    format.size,
    format.ratio,
    format.class_scores,
)


def html(content: dict[str, Any]) -> str:
    """Return the report as an HTML page.

    jinja2 escapes every text. Only the plots and the style sheet are inserted as they are.

    Args:
        content: the dict of `content.content`.

    Returns:
        The page.
    """
    require_extra()
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from railkd.report.plots import MOST_CURVES, plots

    environment = Environment(
        loader=PackageLoader("railkd.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {function.__name__: function for function in _FILTERS} | {"count": counted}
    svgs: dict[str, dict[str, list[Any]]] = {}  # section -> heading -> plots
    for section, panels in plots(content).items():
        svgs[section] = {}
        for panel in panels:
            svgs[section].setdefault(panel["group"], []).append(Markup(panel["svg"]))
    css = resources.files("railkd.report").joinpath("templates", "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        report=content,
        plots=svgs,
        numbers={arm: number for number, arm in enumerate(content["arms"])},
        few_curves=len(content["curves"]) > MOST_CURVES,
        glances=arrange_differences(content),
        css=Markup(css),
        sections=[(anchor, title) for anchor, title, data in _sections(content, svgs["cost"]) if data],
        scores_note=scores_note(content),
        exploratory=EXPLORATORY,
        shown=SHOWN,
        not_shown=NOT_SHOWN,
        not_testable=NOT_TESTABLE,
    )


def arrange_differences(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Arrange the differences to the baseline as one table of arms against test sets for each domain and student.

    Args:
        content: the dict of `content.content`.

    Returns:
        Tables with ``domain``, ``student``, ``columns`` (names) and ``rows``: (arm, cells). A cell is None, or has
        ``mean``, ``shown`` (its interval leaves out 0) and ``strength``, from 0 to 1.
    """
    groups: dict[tuple[str, str], dict[str, dict[str, dict[str, Any]]]] = {}
    rows = [row for row in content["differences"] if row["points"]]
    for row in rows:
        name = "all tasks" if row["over"] == "tasks" else row["task"] + (f", {row['set']}" if row["show_set"] else "")
        groups.setdefault((row["domain"], row["student"]), {}).setdefault(row["arm"], {})[name] = row
    largest = max((abs(row["mean"]) for row in rows), default=0.0) or 1.0
    tables = []
    for (domain, student), arms in groups.items():
        names = dict.fromkeys(name for cells in arms.values() for name in cells)  # in the order of the score table
        columns = sorted(names, key=lambda name: name != "all tasks")
        lines = [(arm, [_glance(cells.get(name), largest) for name in columns]) for arm, cells in arms.items()]
        tables.append({"domain": domain, "student": student, "columns": columns, "rows": lines})
    return tables


def _glance(row: dict[str, Any] | None, largest: float) -> dict[str, Any] | None:
    if row is None:
        return None
    shown = row["low"] is not None and not row["low"] <= 0 <= row["high"]
    return {"mean": row["mean"], "shown": shown, "strength": round(abs(row["mean"]) / largest, 2)}


def _sections(content: dict[str, Any], cost: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """Return (anchor, title, data) of each section, as in page.html. A section without data is left out."""
    return [
        ("short", "In short", True),
        ("glance", "At a glance", content["differences"]),
        ("cost", "Score against cost", cost),
        ("scores", "Scores", content["scores"]["in"]["columns"]),
        ("out", "Out of the domain", content["scores"]["out"]["columns"]),
        ("asked", "Other metrics", any(table["columns"] for table in content["asked"].values())),
        ("classes", "By class", content["classes"]),
        ("differences", "Differences", content["contrasts"]["rows"] or content["differences"]),
        ("time", "Time and cost", content["times"]["rows"]),
        ("ships", "What ships", content["exports"] or content["certificates"]),
        ("training", "Training", True),
        ("blocks", "Blocks", True),
        ("teacher", "Teacher and student", True),
        ("calibration", "Calibration", True),
        ("origin", "Where this comes from", True),
    ]
