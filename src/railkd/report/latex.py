"""Write the score tables for a paper: LaTeX with booktabs, a table for each domain and student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from railkd.report import format
from railkd.report.headline import scores_note
from railkd.report.terminal import students_of, teaches
from railkd.runtime.words import visible_all

#: Characters that LaTeX obeys -> how they are printed.
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}
#: Makes a table as wide as the text if it would be wider, and leaves others as they are.
_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{"
_TITLES = {"in": "Test scores", "out": "Test scores out of the domain of the training rows"}


def latex(content: dict[str, Any]) -> str:
    r"""Return the score tables as LaTeX.

    Args:
        content: the dict of `content.content`.

    Returns:
        The text, to be read with ``\input``. It needs the packages booktabs, graphicx and textcomp.
    """
    content = visible_all(content)
    lines = [
        r"% Written by railkd report. It needs \usepackage{booktabs,graphicx,textcomp}, \usepackage[T1]{fontenc} and,",
        "% for letters that pdflatex does not know, xelatex or lualatex. With two columns, table* takes both.",
    ]
    for domain, table in content["scores"].items():
        for student in students_of(table):
            lines += ["", *_table(content, table, domain, student)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    r"""Return a text as LaTeX prints it.

    Args:
        text: such as a name.

    >>> escape("a_b & 5 %")
    'a\\_b \\& 5 \\%'
    """
    return "".join(_ESCAPES.get(letter, letter) for letter in " ".join(text.split()))


def _table(content: dict[str, Any], table: dict[str, Any], domain: str, student: str) -> list[str]:
    groups = {group["student"]: group["rows"] for group in table["groups"]}
    teachers = [row for row in groups.get("", []) if student and teaches(row["arm"], student)]
    averaged = any(row["average"] for row in groups[student])
    several = len(content["students"]) > 1 and student
    caption = f"{_TITLES[domain]}{f' of {student}' if several else ''}. {scores_note(content)}"
    columns = table["columns"]
    heads = [[c["task"], c["set"] if c["show_set"] else "", f"({c['metric']})"] for c in columns]
    heads += [["average", "", ""]] if averaged else []
    label = "-".join(part for part in ("tab", domain, "".join(filter(str.isalnum, student)) if several else "") if part)
    head = [_line(["arm" if line == 0 else "", *(_head(h[line], line) for h in heads)]) for line in range(3)]
    return [
        r"\begin{table}[t]",
        r"\centering",
        r"\setlength{\belowcaptionskip}{6pt}",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape(caption)}}}",
        rf"\label{{{label}}}",
        rf"{_FIT}\begin{{tabular}}{{l{'r' * len(heads)}}}",
        r"\toprule",
        *(line for place, line in enumerate(head) if any(h[place] for h in heads)),
        r"\midrule",
        *(_row(row, columns, averaged) for row in teachers),
        *([r"\midrule"] if teachers else []),
        *(_row(row, columns, averaged) for row in groups[student]),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]


def _row(row: dict[str, Any], columns: Sequence[dict[str, Any]], averaged: bool) -> str:
    cells = [_number(cell, 1 if c["points"] else 3) for c, cell in zip(columns, row["cells"], strict=True)]
    return _line([escape(row["arm"]), *cells, *([_number(row["average"], 1)] if averaged else [])])


def _number(cell: dict[str, Any] | None, digits: int) -> str:
    """Return mean and spread in mathematical mode, the mean bold if it is the best."""
    if not cell:
        return "--"
    mean, sd = (value if value is None else format.number(value, digits) for value in (cell["mean"], cell["sd"]))
    mean = str(mean).replace(format.MINUS, "-").replace(",", "{,}")
    mean = rf"\mathbf{{{mean}}}" if cell["best"] else mean
    return f"${mean}$" if sd is None else rf"${mean}_{{\pm {sd}}}$"


def _head(text: str, line: int) -> str:
    """Return a text of the head: the task, or smaller the set and the metric below it."""
    return rf"{{\footnotesize {escape(text)}}}" if text and line else escape(text)


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
