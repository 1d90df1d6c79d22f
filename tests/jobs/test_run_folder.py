"""The files of a run have one table, and clearing a folder goes by the list of what railkd wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from railkd.errors import RailkdError
from railkd.jobs.options import DistillOptions
from railkd.jobs.request import Request
from railkd.jobs.run_folder import RunFolder
from railkd.runtime.sealed import seal


@pytest.fixture
def full(tmp_path: Path) -> RunFolder:
    """A folder with every file that a run may leave."""
    folder = RunFolder(tmp_path / "run")
    files = [folder.config, folder.record, folder.draws, folder.gauges, folder.objective, folder.predictions("dev")]
    files += [model / "file" for model in map(folder.model, folder.MODELS)]
    for file in (*files, folder.cache / "file", folder.path / "checkpoint-3" / "file"):
        file.parent.mkdir(exist_ok=True, parents=True)
        if file in files:
            folder.own(file)
        file.write_text("{}", encoding="utf-8")
    seal(folder.path / "checkpoint-3")
    return folder


def test_every_file_is_in_the_table(full: RunFolder) -> None:
    names = {path.name.replace("-3", "-N") for path in full.path.iterdir()}
    assert len(names) == 11 and [name for name in names if f"``{name}" not in str(RunFolder.__doc__)] == []


def test_overwriting_clears_all_but_the_cache(full: RunFolder) -> None:
    assert full.is_run() and full.can_go_on({}) and not full.can_go_on({"seed": 1})
    full.claim(Request(DistillOptions(overwrite=True)))
    assert list(full.path.iterdir()) == [full.cache]
    assert not full.is_run() and not full.holds_other_files()


def test_overwriting_leaves_what_is_not_on_the_list(full: RunFolder, tmp_path: Path) -> None:
    names = ["notes.txt", "student/notes", "predictions/dev.txt", "checkpoint-3/notes", "checkpoint-4/file", ".a.tmp"]
    theirs = [full.path / name for name in names]
    for file in theirs:
        file.parent.mkdir(exist_ok=True)
        file.write_text("theirs")
    (tmp_path / "kept").write_text("kept")
    full.gauges.unlink()
    full.gauges.symlink_to(tmp_path / "kept")  # on the list, but no longer what railkd wrote
    full.claim(Request(DistillOptions(overwrite=True)))
    assert all(file.read_text() == "theirs" for file in theirs)
    left = {path for path in full.path.rglob("*") if not path.is_dir()}
    assert left == {*theirs, full.gauges, full.cache / "file"} and (tmp_path / "kept").read_text() == "kept"


@pytest.mark.parametrize("name", ["draws.json", "student/a", "model/a/b", "predictions/eval.tsv", "checkpoint-7/a"])
def test_a_run_refuses_to_write_where_something_else_stands(full: RunFolder, name: str, tmp_path: Path) -> None:
    options = DistillOptions(resume=True, keep_predictions="answers")
    assert full.find_obstacles(options) == []
    path = full.path / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True, parents=True)
    path.symlink_to(tmp_path)
    (problem,) = full.find_obstacles(options)
    assert str(path) in problem and "is a link" in problem
    path.unlink()
    path.mkdir()
    (path / "theirs").write_text("theirs")
    (problem,) = full.find_obstacles(options)
    assert str(path) in problem and "was not written by railkd" in problem


def test_a_folder_of_another_program_is_no_run(tmp_path: Path) -> None:
    for name in ("config.yaml", "metrics.json", "checkpoint-500/file", "student/config.json", "files.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"a": 1}')
    folder = RunFolder(tmp_path)
    assert not folder.is_run() and folder.holds_other_files() and folder.checkpoints == []
    assert len(folder.find_obstacles(DistillOptions(overwrite=True))) == 1
    with pytest.raises(RailkdError, match="was not written by railkd"), folder.reserve(DistillOptions(overwrite=True)):
        pass


def test_a_run_of_an_older_railkd_is_known_by_its_content(full: RunFolder) -> None:
    """It has no list: what has the name and the look of its files is taken for them, and nothing else."""
    full.ledger.remove([])
    (full.path / "files.json").unlink()
    full.config.write_text("# railkd distill --config THIS_FILE --overwrite\nseed: 1\n")
    full.predictions("dev").write_text("index\tgold\tlabel\n")
    full.predictions("mine").write_text("mine\n")
    full.record.unlink()
    full.draws.write_text('{"redraw": "epoch", "draws": [], "coverage": {}}')
    full.gauges.write_text("[]")
    model = full.model("distill")
    (model / "config.json").write_text('{"railkd": {"method": "kd"}}')
    (model / "model.safetensors").write_text("")
    assert full.is_run()
    full.claim(Request(DistillOptions(overwrite=True)))
    left = {path.relative_to(full.path).as_posix() for path in full.path.rglob("*") if path.is_file()}
    assert left == {"predictions/mine.tsv", "gauges.json", "student/file", "model/file", "cache/file"}


def test_names_that_leave_the_folder_are_not_on_the_list(full: RunFolder, tmp_path: Path) -> None:
    """The list may come from somebody else."""
    (tmp_path / "kept").write_text("kept")
    full.ledger.add("../kept", str(tmp_path / "kept"), "student/../../kept")
    full.clear()
    assert (tmp_path / "kept").read_text() == "kept"


def test_two_runs_cannot_hold_one_folder(full: RunFolder) -> None:
    options = DistillOptions(resume=True)
    second = pytest.raises(RailkdError, match="another run is writing to")
    with full.reserve(options), second, full.reserve(options):
        pass
    with full.reserve(options):
        pass


@pytest.mark.parametrize("lock", ["file", "folder", "link"])
def test_a_lock_of_somebody_else_is_left_alone(full: RunFolder, tmp_path: Path, lock: str) -> None:
    path = full.path / ".lock"
    if lock == "file":
        path.write_text("theirs")
    elif lock == "folder":
        path.mkdir()
    else:
        (tmp_path / "kept").write_text("")
        path.symlink_to(tmp_path / "kept")
    with pytest.raises(RailkdError, match="is not a lock of railkd"), full.reserve(DistillOptions(resume=True)):
        pass
    assert lock != "file" or path.read_text() == "theirs"


def test_a_folder_of_another_run_is_neither_overwritten_nor_resumed_unasked(full: RunFolder) -> None:
    with pytest.raises(RailkdError, match="holds another run"), full.reserve(DistillOptions()):
        pass


@pytest.mark.parametrize("name", ["a" * 300, "é" * 130])
def test_a_name_that_is_too_long_is_refused_first(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path / "new" / "run")
    options = DistillOptions(test=[f"{name}=rows.tsv"], keep_predictions="answers")
    (problem,) = folder.find_obstacles(options)
    assert "too long for a file" in problem and not folder.path.exists()
    assert folder.find_obstacles(DistillOptions(test=["a=rows.tsv"], keep_predictions="answers")) == []


def test_a_finished_run_has_nothing_to_resume(full: RunFolder) -> None:
    """Its checkpoints may stand there still, as --save-steps keeps them."""
    with pytest.raises(RailkdError, match="is finished, nothing is left to resume"):
        full.check_resumed(Request(DistillOptions(resume=True)), {}, 1)


def test_a_run_resumes_with_its_own_settings_alone(full: RunFolder) -> None:
    full.record.unlink()
    assert full.check_resumed(Request(DistillOptions(resume=True, keep_predictions="texts")), {}, 1) == []
    with pytest.raises(RailkdError, match="seed was not given, is 1"):
        full.check_resumed(Request(DistillOptions(resume=True), {"seed": 1}), {}, 1)
