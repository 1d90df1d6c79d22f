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

    from railkd.report.plots import plots

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
        css=Markup(css),
        sections=[(anchor, title) for anchor, title, data in _sections(content) if data],
        scores_note=scores_note(content),
        exploratory=EXPLORATORY,
        shown=SHOWN,
        not_shown=NOT_SHOWN,
        not_testable=NOT_TESTABLE,
    )


def _sections(content: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """Return (anchor, title, data) of each section, as in page.html. A section without data is left out."""
    return [
        ("short", "In short", True),
        ("scores", "Scores", content["scores"]["in"]["columns"]),
        ("out", "Out of the domain", content["scores"]["out"]["columns"]),
        ("differences", "Differences", content["contrasts"]["rows"] or content["differences"]),
        ("time", "Time and cost", content["times"]["rows"]),
        ("training", "Training", True),
        ("blocks", "Blocks", True),
        ("teacher", "Teacher and student", True),
        ("calibration", "Calibration", True),
        ("origin", "Where this comes from", True),
    ]
