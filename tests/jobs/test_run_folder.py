"""The files of a run have one table, and clearing a folder goes by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from railkd.errors import RailkdError
from railkd.jobs.options import DistillOptions
from railkd.jobs.request import Request
from railkd.jobs.run_folder import RunFolder


@pytest.fixture
def full(tmp_path: Path) -> RunFolder:
    """A folder with every file that a run may leave."""
    folder = RunFolder(tmp_path)
    files = [folder.config, folder.record, folder.draws, folder.gauges, folder.objective, folder.predictions("dev")]
    folders = [folder.cache, *map(folder.model, folder.MODELS), tmp_path / "checkpoint-3"]
    for file in (*files, *(path / "file" for path in folders)):
        file.parent.mkdir(exist_ok=True)
        file.write_text("{}", encoding="utf-8")
    return folder


def test_every_file_is_in_the_table(full: RunFolder) -> None:
    names = {path.name.replace("-3", "-N") for path in full.path.iterdir()}
    assert len(names) == 10 and [name for name in names if f"``{name}" not in str(RunFolder.__doc__)] == []


def test_overwriting_clears_all_but_the_cache(full: RunFolder) -> None:
    assert full.is_run() and full.can_go_on({}) and not full.can_go_on({"seed": 1})
    full.claim(Request(DistillOptions(overwrite=True)))
    assert list(full.path.iterdir()) == [full.cache]
    assert not full.is_run() and not full.holds_other_files()


def test_a_finished_run_has_nothing_to_resume(full: RunFolder) -> None:
    """Its checkpoints may stand there still, as --save-steps keeps them."""
    with pytest.raises(RailkdError, match="is finished, nothing is left to resume"):
        full.claim(Request(DistillOptions(resume=True)))


def test_a_run_resumes_with_its_own_settings_alone(full: RunFolder) -> None:
    full.record.unlink()
    full.claim(Request(DistillOptions(resume=True, keep_predictions="texts")))
    with pytest.raises(RailkdError, match="seed was not given, is 1"):
        full.claim(Request(DistillOptions(resume=True), {"seed": 1}))
