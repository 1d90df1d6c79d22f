"""Write the report as Markdown and as CSV: the numbers of the page, without plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from railkd.report import format
from railkd.report.headline import EXPLORATORY, NOT_SHOWN, NOT_TESTABLE, SHOWN, scores_note
from railkd.runtime.words import counted, visible_all

_CSV = (
    "domain", "task", "set", "metric", "student", "arm", "seeds", "mean", "sd", "low", "high", "best",
    "baseline", "difference", "difference_low", "difference_high", "difference_p",
)  # fmt: skip


def markdown(content: dict[str, Any]) -> str:
    """Return the sentences and tables as Markdown.

    Args:
        content: the dict of `content.content`.

    Returns:
        The text.
    """
    content = visible_all(content)
    parts = [f"# {_cell(content['name'])}", ""]
    parts += [
        f"- {_cell(line['text'])}" + (f": **{line['verdict']}**." if line["verdict"] else "")
        for line in content["headline"]
    ]
    parts += ["", *(f"> {_cell(note)}" for note in content["notes"]), ""] if content["notes"] else [""]
    for domain, title in (("in", "Scores"), ("out", "Out of the domain")):
        table = content["scores"][domain]
        if table["columns"]:
            parts += [f"## {title}", "", *_table(*_score_rows(content, table, mark="**")), ""]
            parts += [scores_note(content), ""] if domain == "in" else []
    for domain, title in (("in", "Other metrics"), ("out", "Other metrics, out of the domain")):
        if content["asked"][domain]["columns"]:
            parts += [f"## {title}", "", *_table(*_score_rows(content, content["asked"][domain], mark="**")), ""]
    for table in content["classes"]:
        title = ", ".join(part for part in (table["task"], table["set"], table["student"]) if part)
        parts += [f"## By class: {_cell(title)}", "", *_table(*_class_rows(table)), ""]
    contrasts = content["contrasts"]
    if contrasts["rows"]:
        title = "Contrasts named before the run" if contrasts["named"] else "Every arm against the baseline"
        parts += [f"## {title}", ""] + ([] if contrasts["named"] else [EXPLORATORY, ""])
        parts += [*_table(*_contrast_rows(contrasts["rows"])), ""]
    if content["times"]["rows"]:
        parts += ["## Time", "", *_table(*_time_rows(content["times"]["rows"])), ""]
    parts += _shipped(content)
    if content["failed"]:
        rows = [[row["task"], row["arm"], row["student"], row["seed"], row["error"]] for row in content["failed"]]
        parts += ["## Runs that failed", "", *_table(["task", "arm", "student", "seed", "error"], rows), ""]
    return "\n".join([*parts, *_provenance(content)]) + "\n"


def _shipped(content: dict[str, Any]) -> list[str]:
    """Return the lines about exports and certificates."""
    lines: list[str] = []
    for one in content["exports"]:
        heads, rows = export_table(one)
        lines += [f"## What ships: {_cell(one['name'])}", "", *_table([" ".join(head) for head in heads], rows), ""]
    if content["certificates"]:
        header = ["file", "model", "against", "no worse", "smallest margin, points"]
        rows = [
            [
                *(one[name] for name in ("file", "model", "against")),
                "yes" if one["passes"] else "not shown",
                format.number(100 * one["smallest_margin"], 2),
            ]
            for one in content["certificates"]
        ]
        lines += ["## Certificates", "", *_table(header, rows), ""]
    return lines


def _provenance(content: dict[str, Any]) -> list[str]:
    """Return the lines of the last section: versions, commits, papers and commands."""
    lines = ["## Where this comes from", ""]
    for name, counts in content["environment"]["versions"].items():
        lines.append(_cell(f"- {name} {', '.join(str(version) for version, _ in counts)}"))
    lines += [_cell(f"- railkd commit {commit}") for commit, _ in content["environment"]["commits"]]
    lines += [_cell(f"- method {row['method']}: {row['paper']}") for row in content["papers"]]
    for row in content["commands"]:
        seed = f", seed {row['seed']}" if row["job"] == "distill" else ""
        title = ", ".join(part for part in (row["task"], row["arm"], row["student"]) if part)
        lines += ["", f"{_cell(title)}{seed}:", "", f"    {row['command']}".replace("\n", "\n    ")]
        lines += [f"    # seed {other['seed']}: {other['settings']}".replace("\n", " ") for other in row["others"]]
    return lines


def csv_text(content: dict[str, Any], *, spreadsheet_safe: bool = False) -> str:
    """Return the scores and differences as CSV, unrounded.

    Args:
        content: the dict of `content.content`.
        spreadsheet_safe: put an apostrophe before names that a spreadsheet would run as a formula.

    Returns:
        A row for each student, arm, test set and metric. A row without a set holds the average over tasks.
    """
    content = _as_text(visible_all(content)) if spreadsheet_safe else visible_all(content)
    differences = {
        (row["domain"], row["student"], row["arm"], row["task"], row["set"]): row for row in content["differences"]
    }
    average = {"task": "", "set": "", "metric": "average"}
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=_CSV, restval="", lineterminator="\n")
    writer.writeheader()
    tables = [(*item, differences) for item in content["scores"].items()]
    tables += [(*item, {}) for item in content["asked"].items()]
    for domain, table, compared in tables:
        for student, row in ((group["student"], row) for group in _groups(table) for row in group["rows"]):
            cells = [*zip(table["columns"], row["cells"], strict=True), (average, row["average"])]
            for column, cell in cells:
                if cell:
                    key = (domain, student, row["arm"], column["task"], column["set"])
                    writer.writerow(_csv_row(key, column["metric"], cell, compared.get(key)))
    return buffer.getvalue()


def _as_text(value: Any) -> Any:
    """Return lists and dicts whose texts a spreadsheet takes for text: an apostrophe stands before = + - @."""
    if isinstance(value, str):
        return f"'{value}" if value.lstrip()[:1] in ("=", "+", "-", "@") else value
    if isinstance(value, dict):
        return {name: _as_text(item) for name, item in value.items()}
    return [_as_text(item) for item in value] if isinstance(value, list) else value


def _csv_row(
    key: tuple[str, str, str, str, str], metric: str, cell: dict[str, Any], difference: dict[str, Any] | None
) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(("domain", "student", "arm", "task", "set"), key, strict=True))
    row |= {"metric": metric, "seeds": cell.get("n")}
    row |= {name: cell.get(name) for name in ("mean", "sd", "low", "high", "best")}
    if difference:
        row |= {"baseline": difference["baseline"], "difference": difference["mean"]}
        row |= {f"difference_{name}": difference[name] for name in ("low", "high", "p")}
    return row


def _groups(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the groups of a score table, after one with the row of the answer that needs no model."""
    constant = [{"student": "", "rows": [table["constant"]]}] if table["constant"] else []
    return [*constant, *table["groups"]]


def _score_rows(content: dict[str, Any], table: dict[str, Any], mark: str) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a score table. ``mark`` is put around the best score of a student."""
    several = len(content["students"]) > 1
    averaged = any(group["averaged"] for group in table["groups"])
    header = [
        "arm",
        *(f"{c['task']} {c['set'] + ' ' if c['show_set'] else ''}({c['metric']})" for c in table["columns"]),
    ]
    header += ["average", "rank"] if averaged else []
    rows = []
    for group in _groups(table):
        for row in group["rows"]:
            name = row["arm"] + (f", {group['student']}" if several and group["student"] else "")
            cells = [
                _score_cell(cell, 1 if column["points"] else 3, mark)
                for column, cell in zip(table["columns"], row["cells"], strict=True)
            ]
            rows.append(
                [
                    name,
                    *cells,
                    *([_score_cell(row["average"], 1, mark), format.number(row["rank"])] if averaged else []),
                ]
            )
    return header, rows


def _score_cell(cell: dict[str, Any] | None, digits: int, mark: str) -> str:
    if not cell:
        return format.DASH
    text = format.spread(cell["mean"], cell["sd"], digits)
    return f"{mark}{text}{mark}" if cell["best"] else text


def _class_rows(table: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a table of classes: F1 (precision / recall) of each arm."""
    header = ["class", "rows", *(f"{arm}: F1 (precision / recall)" for arm in table["arms"])]
    return header, [
        [row["name"], str(row["rows"]), *map(format.class_scores, row["cells"])] for row in table["classes"]
    ]


def _contrast_rows(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    header = [
        "question",
        "arm",
        "baseline",
        "domain",
        "points",
        "95 % interval",
        "over",
        "p",
        "p after Holm",
        "verdict",
    ]
    cells = []
    for row in rows:
        names = [row["name"], row["arm"], row["baseline"], row["domain"]]
        if not row["over"]:
            cells.append([*names, *[format.DASH] * 5, NOT_TESTABLE])
            continue
        numbers = [
            format.signed(row["mean"]),
            format.interval(row["low"], row["high"]),
            counted(row["n"], row["over"][:-1]),
        ]
        tests = [format.p_value(row["p"]), format.p_value(row["holm"])]
        cells.append([*names, *numbers, *tests, SHOWN if row["shown"] else NOT_SHOWN])
    return header, cells


def _time_rows(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    header = ["arm", "student", "teacher", "runs", "teacher pass (s)", "training (s)", "evaluation (s)"]
    header += ["training / fine-tuning", "with shared pass", "with whole pass"]
    return header, [
        [
            row["arm"], row["student"], row["teacher"], str(row["runs"]), format.number(row["pass"] or None),
            format.spread(row["training"], row["training_sd"]), format.number(row["evaluation"]),
            format.ratio(row["ratio"]), format.ratio(row["shared"]), format.ratio(row["charged"]),
        ]
        for row in rows
    ]  # fmt: skip


def export_table(one: dict[str, Any]) -> tuple[list[tuple[str, ...]], list[list[str]]]:
    """Return the table of an export in words.

    Args:
        one: of ``exports`` in the content.

    Returns:
        The heads of the columns, in lines, and the cells of each row.
    """
    unit, digits = (100, 1) if one["points"] else (1, 3)
    agreed = one["sides"][0]["agreement"] is not None
    heads: list[tuple[str, ...]] = [("model",), *((name, f"({one['metric']})") for name in one["sets"])]
    heads += [("agreement",)] if agreed else []
    heads += [("size",), ("ms a row",), ("95 %",), ("rows/s",), ("time", "/ first"), ("size", "/ first")]
    rows = [
        [
            side["name"],
            *(format.number(unit * side["scores"][name], digits) for name in one["sets"]),
            *([format.number(100 * side["agreement"])] if agreed else []),
            format.size(side["size"]),
            format.number(side["p50_ms"], 2),
            format.number(side["p95_ms"], 2),
            format.number(side["rows_per_second"], 0),
            format.number(side["ratio"], 3),
            format.number(side["size_ratio"], 3),
        ]
        for side in one["sides"]
    ]
    return heads, rows


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(map(_cell, line))} |" for line in lines]


def _cell(value: Any) -> str:
    """Escape a text for Markdown: it must not start a column, a line, a link, an image or HTML."""
    return str(value).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;").replace("](", "]\\(")
