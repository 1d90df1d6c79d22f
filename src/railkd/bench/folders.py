"""Short forms of a grid: a folder of tasks in GLUE's layout, and a folder of out-of-domain sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from railkd.data.columns import LABEL_CONVENTIONS
from railkd.data.formats import read_table, tables_in
from railkd.data.glue import folder_key, task_of
from railkd.data.loading import SPLITS
from railkd.data.ood import OOD
from railkd.errors import RailkdError, did_you_mean


def splits_of(root: str, name: str, *, dev_selects: bool) -> dict[str, Any]:
    """train, tests (labelled ones) and perhaps eval of the folder ``root/NAME``, whichever way its name is spelled.

    Args:
        dev_selects: the development rows choose the epoch, and so are no test.
    """
    folder = _inside(root, name, "data")
    files = {stem: paths[-1] for stem, paths in tables_in(folder).items()}
    row = task_of(str(folder))
    dev = [split for split in (row.dev if row else SPLITS["dev"]) if split in files]
    dev = dev if row else dev[:1]
    test = [split for split in SPLITS["test"] if split in files and _labelled(files[split])]
    if not any(split in files for split in SPLITS["train"]):
        raise RailkdError(f"data: '{folder}' holds no training rows; wanted a file such as train.tsv")
    if dev_selects and not dev:
        raise RailkdError(f"data: '{folder}' holds no dev rows, which 'selection: eval: dev' needs")
    tests = [*(dev[1:] if dev_selects else dev), *test]
    found: dict[str, Any] = {"train": f"{folder}:train", "test": [f"{split}={folder}:{split}" for split in tests]}
    return found | ({"eval": f"{folder}:{dev[0]}"} if dev_selects else {})


def out_of_domain_sets(root: str, task: str) -> list[str]:
    """``NAME=FOLDER`` of every set in ``root`` that the table of `railkd.data.ood` has for a task."""
    there = {folder_key(name): name for name in _listed(root, "ood")}
    return [
        f"{row.name}={Path(root) / there[folder_key(row.name)]}"
        for row in OOD
        if folder_key(task) in map(folder_key, row.serves) and folder_key(row.name) in there
    ]


def _labelled(path: Path) -> bool:
    """Whether a test file has a label column: GLUE's own have none."""
    row = task_of(str(path))
    columns = read_table(path).column_names
    return row.label in columns if row else any(name in columns for name in LABEL_CONVENTIONS)


def _inside(root: str, name: str, key: str) -> Path:
    there = {folder_key(folder): folder for folder in _listed(root, key)}
    if folder_key(name) not in there:
        raise RailkdError(f"{key}: there is no folder '{name}' in '{root}'.{did_you_mean(name, there.values())}")
    return Path(root) / there[folder_key(name)]


def _listed(root: str, key: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(root) if (Path(root) / name).is_dir())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RailkdError(f"{key}: '{root}' cannot be listed ({reason}); wanted a folder of data sets") from None
