"""One driver process and one uninterrupted run for all tests of faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.driver import Driver, driver
from faults.runs import BY_EPOCHS, BY_STEPS, left, prepare, room


@pytest.fixture(scope="session")
def railkd() -> Iterator[Driver]:
    with driver() as started:
        yield started


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("base"))


def whole(tmp_path_factory: pytest.TempPathFactory, base: Path, railkd: Driver, words: list[Any]) -> dict[str, Any]:
    """Return the files of an uninterrupted run."""
    folder = room(base, tmp_path_factory.mktemp("whole") / "run")
    code, said = railkd(folder, "distill", *words, "--output", "out")
    assert code == 0, said
    return left(folder)


@pytest.fixture(scope="session")
def by_steps(tmp_path_factory: pytest.TempPathFactory, base: Path, railkd: Driver) -> dict[str, Any]:
    return whole(tmp_path_factory, base, railkd, BY_STEPS)


@pytest.fixture(scope="session")
def by_epochs(tmp_path_factory: pytest.TempPathFactory, base: Path, railkd: Driver) -> dict[str, Any]:
    return whole(tmp_path_factory, base, railkd, BY_EPOCHS)
