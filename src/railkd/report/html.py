"""The report as one HTML page that needs nothing else: no network, no script, no font, no second file."""

from __future__ import annotations

from importlib import resources
from typing import Any

from railkd.report import format, require_extra
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
    """The page. Every text is escaped; only our own drawings and style sheet are taken as they are."""
    require_extra()
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from railkd.report.plots import plots

    environment = Environment(
        loader=PackageLoader("railkd.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {function.__name__: function for function in _FILTERS} | {"count": counted}
    drawn: dict[str, dict[str, list[Any]]] = {}
    for kind, panels in plots(content).items():
        drawn[kind] = {}
        for panel in panels:
            drawn[kind].setdefault(panel["group"], []).append(Markup(panel["svg"]))
    css = resources.files("railkd.report").joinpath("templates", "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        report=content,
        plots=drawn,
        css=Markup(css),
        sections=[(anchor, name) for anchor, name, there in _sections(content) if there],
        scores_note=format.scores_note(content),
        exploring=format.EXPLORING,
        shown=format.SHOWN,
        not_shown=format.NOT_SHOWN,
    )


def _sections(content: dict[str, Any]) -> list[tuple[str, str, Any]]:
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
