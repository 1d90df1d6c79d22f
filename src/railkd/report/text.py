"""The report as Markdown, as CSV and as a table for a terminal: the numbers of the page, without its drawings."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from railkd.report import format
from railkd.runtime.words import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

_CSV = (
    "domain", "task", "set", "metric", "student", "arm", "seeds", "mean", "sd", "low", "high", "best",
    "baseline", "difference", "difference_low", "difference_high", "difference_p",
)  # fmt: skip


def markdown(content: dict[str, Any]) -> str:
    """Sentences and tables, for a pull request or a paper's notes."""
    parts = [f"# {content['name']}", ""]
    parts += [
        f"- {line['text']}" + (f": **{line['verdict']}**." if line["verdict"] else "") for line in content["headline"]
    ]
    parts += ["", *(f"> {note}" for note in content["notes"]), ""] if content["notes"] else [""]
    for domain, title in (("in", "Scores"), ("out", "Out of the domain")):
        table = content["scores"][domain]
        if table["columns"]:
            parts += [f"## {title}", "", *_grid(*_score_rows(content, table, mark="**")), ""]
            parts += [format.scores_note(content), ""] if domain == "in" else []
    asked = content["contrasts"]
    if asked["rows"]:
        parts += ["## Contrasts named before the run" if asked["named"] else "## Every arm against the baseline", ""]
        parts += [] if asked["named"] else [format.EXPLORING, ""]
        parts += [*_grid(*_contrast_rows(asked["rows"])), ""]
    if content["times"]["rows"]:
        parts += ["## Time", "", *_grid(*_time_rows(content["times"]["rows"])), ""]
    if content["failed"]:
        rows = [[row["task"], row["arm"], row["student"], row["seed"], row["error"]] for row in content["failed"]]
        parts += ["## Runs that failed", "", *_grid(["task", "arm", "student", "seed", "error"], rows), ""]
    parts += ["## Where this comes from", ""]
    versions = content["environment"]["versions"].items()
    parts += [f"- {name} {', '.join(str(version) for version, _ in found)}" for name, found in versions]
    parts += [f"- railkd commit {commit}" for commit, _ in content["environment"]["commits"]]
    for row in content["commands"]:
        seed = f", seed {row['seed']}" if row["job"] == "distill" else ""
        title = ", ".join(part for part in (row["task"], row["arm"], row["student"]) if part)
        parts += ["", f"{_cell(title)}{seed}:", "", f"    {row['command']}"]
        parts += [f"    # seed {other['seed']}: {other['settings']}" for other in row["others"]]
    return "\n".join(parts) + "\n"


def csv_text(content: dict[str, Any]) -> str:
    """A row for each student, arm and test set, unrounded; one without a set is the average over tasks."""
    apart = {
        (row["domain"], row["student"], row["arm"], row["task"], row["set"]): row for row in content["differences"]
    }
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=_CSV, restval="", lineterminator="\n")
    writer.writeheader()
    for domain, table in content["scores"].items():
        for group in table["groups"]:
            for row in group["rows"]:
                cells = [
                    *zip(table["columns"], row["cells"], strict=True),
                    ({"task": "", "set": "", "metric": "average"}, row["average"]),
                ]
                for column, cell in cells:
                    if cell:
                        known: dict[str, Any] = {"domain": domain, "student": group["student"], "arm": row["arm"]}
                        known |= {name: column[name] for name in ("task", "set", "metric")}
                        known |= {name: cell.get(name) for name in ("mean", "sd", "low", "high", "best")}
                        known["seeds"] = cell.get("n")
                        key = (domain, group["student"], row["arm"], column["task"], column["set"])
                        if found := apart.get(key):
                            known |= {"baseline": found["baseline"], "difference": found["mean"]}
                            known |= {f"difference_{name}": found[name] for name in ("low", "high", "p")}
                        writer.writerow(known)
    return buffer.getvalue()


def terminal(content: dict[str, Any]) -> Iterable[RenderableType]:
    """The main tables and the sentences, for rich's console."""
    from rich.table import Table
    from rich.text import Text

    for domain, title in (("in", content["name"]), ("out", "out of the domain")):
        scores = content["scores"][domain]
        if not scores["columns"]:
            continue
        head, rows = _score_rows(content, scores, mark="**")
        table = Table(
            title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
        )
        for place, name in enumerate(head):
            table.add_column(Text(name), justify="left" if place == 0 else "right", style="" if place else "bold")
        for row in rows:
            cells = [
                Text(str(cell).replace("**", ""), style="bold" if str(cell).startswith("**") else "") for cell in row
            ]
            table.add_row(*cells)
        yield table
        yield Text()
    for line in content["headline"]:
        yield Text(line["text"] + (f": {line['verdict']}." if line["verdict"] else ""))
    for note in content["notes"]:
        yield Text(f"note: {note}", style="yellow")


def _score_rows(content: dict[str, Any], table: dict[str, Any], mark: str) -> tuple[list[str], list[list[str]]]:
    """Head and rows; ``mark`` goes around what is shown to be the best."""
    several = len(content["students"]) > 1
    averaged = any(group["averaged"] for group in table["groups"])
    head = ["arm", *(f"{c['task']} {c['set'] + ' ' if c['show_set'] else ''}({c['metric']})" for c in table["columns"])]
    head += ["average", "rank"] if averaged else []
    rows = []
    for group in table["groups"]:
        for row in group["rows"]:
            name = row["arm"] + (f", {group['student']}" if several and group["student"] else "")
            cells = [
                _marked(cell, 1 if column["points"] else 3, mark)
                for column, cell in zip(table["columns"], row["cells"], strict=True)
            ]
            rows.append(
                [name, *cells, *([_marked(row["average"], 1, mark), format.number(row["rank"])] if averaged else [])]
            )
    return head, rows


def _marked(cell: dict[str, Any] | None, digits: int, mark: str) -> str:
    if not cell:
        return format.DASH
    text = format.spread(cell["mean"], cell["sd"], digits)
    return f"{mark}{text}{mark}" if cell["best"] else text


def _contrast_rows(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    head = ["question", "arm", "baseline", "domain", "points", "95 % interval", "over", "p", "p after Holm", "verdict"]
    found = []
    for row in rows:
        names = [row["name"], row["arm"], row["baseline"], row["domain"]]
        if not row["over"]:
            found.append([*names, *[format.DASH] * 5, "nothing to compare"])
            continue
        numbers = [
            format.signed(row["mean"]),
            format.interval(row["low"], row["high"]),
            counted(row["n"], row["over"][:-1]),
        ]
        tests = [format.p_value(row["p"]), format.p_value(row["holm"])]
        found.append([*names, *numbers, *tests, format.SHOWN if row["shown"] else format.NOT_SHOWN])
    return head, found


def _time_rows(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    head = ["arm", "student", "teacher", "runs", "teacher pass (s)", "training (s)", "evaluation (s)"]
    head += ["training to fine-tuning", "pass shared", "pass charged"]
    return head, [
        [
            row["arm"], row["student"], row["teacher"], str(row["runs"]), format.number(row["pass"] or None),
            format.spread(row["training"], row["training_sd"]), format.number(row["evaluation"]),
            format.ratio(row["ratio"]), format.ratio(row["shared"]), format.ratio(row["charged"]),
        ]
        for row in rows
    ]  # fmt: skip


def _grid(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(map(_cell, line))} |" for line in lines]


def _cell(value: Any) -> str:
    """Text in a cell of Markdown: no new column, no new line, no HTML."""
    return str(value).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
