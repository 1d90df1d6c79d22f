"""The short forms of a grid: a folder of tasks in GLUE's layout, and a folder of out-of-domain sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from railkd.data.columns import LABEL_CONVENTIONS
from railkd.data.formats import list_tables, read_table
from railkd.data.glue import find_task, folder_key
from railkd.data.loading import SPLITS
from railkd.data.ood import OOD
from railkd.errors import RailkdError, did_you_mean


def find_splits(root: str, name: str, *, dev_selects: bool) -> dict[str, Any]:
    """Return the sources of a task's folder.

    Args:
        root: a folder of folders.
        name: of the task. Case and dashes may differ from the folder's name.
        dev_selects: the development rows choose the epoch, so they are not reported as a test.

    Returns:
        ``train``, ``test`` (the labelled files) and, if ``dev_selects``, ``eval``, as settings of a task.

    Raises:
        RailkdError: the folder does not exist, or lacks training rows or the dev rows that are asked for.
    """
    folder = _find_folder(root, name, "data")
    files = {stem: paths[-1] for stem, paths in list_tables(folder).items()}
    row = find_task(str(folder))
    dev = [split for split in (row.dev if row else SPLITS["dev"]) if split in files]
    dev = dev if row else dev[:1]
    test = [split for split in SPLITS["test"] if split in files and _has_labels(files[split])]
    if not any(split in files for split in SPLITS["train"]):
        raise RailkdError(f"data: '{folder}' holds no training rows. Fix: add a file such as train.tsv")
    if dev_selects and not dev:
        raise RailkdError(
            f"data: '{folder}' holds no dev rows, which 'selection: {{eval: dev}}' needs. Fix: add dev.tsv"
        )
    tests = [*(dev[1:] if dev_selects else dev), *test]
    found: dict[str, Any] = {"train": f"{folder}:train", "test": [f"{split}={folder}:{split}" for split in tests]}
    return found | ({"eval": f"{folder}:{dev[0]}"} if dev_selects else {})


def find_ood_sets(root: str, task: str) -> list[str]:
    """Return the out-of-domain sets of a task that a folder holds.

    A folder that cannot be read raises a `RailkdError`.

    Args:
        root: a folder of folders, named as in the table of `railkd.data.ood`.
        task: the name of a task in that table.

    Returns:
        ``NAME=FOLDER`` of each set, in the order of the table.
    """
    folders = {folder_key(name): name for name in _list_folders(root, "ood")}
    return [
        f"{row.name}={Path(root) / folders[folder_key(row.name)]}"
        for row in OOD
        if folder_key(task) in map(folder_key, row.serves) and folder_key(row.name) in folders
    ]


def _has_labels(path: Path) -> bool:
    """Return whether a test file has a label column. The test files of GLUE itself have none."""
    row = find_task(str(path))
    columns = read_table(path)[0].column_names
    return row.label in columns if row else any(name in columns for name in LABEL_CONVENTIONS)


def _find_folder(root: str, name: str, key: str) -> Path:
    folders = {folder_key(folder): folder for folder in _list_folders(root, key)}
    if folder_key(name) not in folders:
        raise RailkdError(f"{key}: '{root}' has no folder '{name}'.{did_you_mean(name, folders.values())}")
    return Path(root) / folders[folder_key(name)]


def _list_folders(root: str, key: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(root) if (Path(root) / name).is_dir())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RailkdError(f"{key}: expected a folder of data sets, but '{root}' cannot be read ({reason})") from None
