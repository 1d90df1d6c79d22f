"""``railkd tasks``: the data sets known by name, with metric, columns, labels, sources and licences."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from railkd.cli.verb import Verb
from railkd.errors import RailkdError, did_you_mean
from railkd.jobs.options import option
from railkd.jobs.request import Request


@dataclass
class TasksOptions:
    """Which, and how they are printed."""

    name: str | None = option("one of them (default: all)")
    json: bool = option("as JSON", False)


def facts(row: Any) -> dict[str, Any]:
    """A row of either table in plain values."""
    found: dict[str, Any] = {
        "name": row.name,
        "metrics": list(row.metrics),
        "text": list(row.text),
        "label": row.label,
        "labels": list(row.labels) or f"numbers from {row.label_range[0]:g} to {row.label_range[1]:g}",
        "source": f"folder {row.name}" + (f", hub {row.hub}" if row.hub else ""),
        "licence": row.licence,
    }
    if row.cells:
        found["cells"] = row.raw_label_names
    if hasattr(row, "serves"):
        found |= {"out of domain for": list(row.serves), "answers folded": row.renamed}
    return found


def run(request: Request[TasksOptions]) -> None:
    """A block of lines for each row."""
    options = request.options
    from railkd.data.glue import GLUE, folder_key
    from railkd.data.ood import OOD

    rows = [*GLUE, *OOD]
    if options.name is not None:
        chosen = [row for row in rows if folder_key(row.name) == folder_key(options.name)]
        if not chosen:
            names = [row.name for row in rows]
            raise RailkdError(
                f"unknown task '{options.name}'; known: {', '.join(names)}.{did_you_mean(options.name, names)}"
            )
        rows = chosen
    found = [facts(row) for row in rows]
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for row in found:
        print(row.pop("name"))
        for name, value in row.items():
            if value:
                print(f"  {name}: {_said(value)}")


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{old} = {new}" for old, new in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)


VERB = Verb(
    name="tasks",
    about="List the data sets that are known by the name of their folder or hub set, in and out of domain.",
    example="railkd tasks HANS --json",
    options=TasksOptions,
    run=run,
    positional="name",
)
