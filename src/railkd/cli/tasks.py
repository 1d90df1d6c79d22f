"""``railkd tasks``: list the data sets known by name, with metrics, columns, labels, sources and licences."""

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
    """Options of ``railkd tasks``."""

    name: str | None = option("data set to describe (default: all)", metavar="NAME")
    json: bool = option("print JSON", False)


def facts(row: Any) -> dict[str, Any]:
    """Return what is known of a data set, as plain values.

    Args:
        row: of the table of GLUE, or of that of the out-of-domain sets.

    Returns:
        Name of the fact -> value.
    """
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
    """Print a block of lines for each data set.

    Args:
        request: the options.

    Raises:
        RailkdError: no data set has this name.
    """
    options = request.options
    from railkd.data.glue import GLUE, folder_key
    from railkd.data.ood import OOD

    rows = [*GLUE, *OOD]
    if options.name is not None:
        chosen = [row for row in rows if folder_key(row.name) == folder_key(options.name)]
        if not chosen:
            names = [row.name for row in rows]
            raise RailkdError(
                f"unknown task '{options.name}'. Known tasks: {', '.join(names)}.{did_you_mean(options.name, names)}"
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
                print(f"  {name}: {_in_words(value)}")


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{old} = {new}" for old, new in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)


_ABOUT = "List the data sets that are known by the name of their folder or on the hub, in and out of domain."
VERB = Verb("tasks", _ABOUT, "railkd tasks HANS --json", TasksOptions, run, positional="name")
