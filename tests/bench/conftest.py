"""A prepared folder and a small bench that all tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.room import SMALL, in_process, prepare, records, room


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="session")
def small_run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the small grid in this process; return its working directory."""
    folder = room(base, tmp_path_factory.mktemp("small") / "run", SMALL)
    in_process(folder)
    return folder


@pytest.fixture(scope="session")
def small(small_run: Path) -> dict[str, dict[str, Any]]:
    """Return the records of the small grid without times."""
    return records(small_run)
