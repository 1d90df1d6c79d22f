"""A rehearsal runs every job small, finds what would fail, and leaves nothing behind."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from datasets import Dataset

from bench.room import ALONE, inside, prepare, room, table
from railkd.cli import main
from railkd.data.first_rows import limited, read_first_rows
from railkd.jobs.rehearsal import TinyCopies
from railkd.models.checkpoints import Checkpoint

Capture = pytest.CaptureFixture[str]
GRID = ALONE | {"methods": ["finetune", "kd", {"name": "rail-kd-l", "shared_size": 8}], "seeds": 3}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder for temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def test_a_sound_grid_is_rehearsed_with_one_seed_and_leaves_nothing(
    base: Path, tmp_path: Path, temporary: Path, capsys: Capture
) -> None:
    folder = room(base, tmp_path / "run", GRID)
    with inside(folder):
        assert main(["bench", "grid.yaml", "--rehearse"]) == 0
    out = capsys.readouterr().out
    assert "5 jobs rehearsed (one of 3 seeds) in " in out and "; nothing failed" in out
    assert "9 runs, 1 teacher, 1 teacher pass" in out and "on disk: teachers " in out  # what to expect of the grid
    assert sorted(path.name for path in folder.iterdir()) == ["base", "data", "grid.yaml"]
    assert list(temporary.iterdir()) == []


def test_a_label_that_fits_no_class_is_found_once_with_its_reason(
    base: Path, tmp_path: Path, temporary: Path, capsys: Capture
) -> None:
    data = {"train": "data/one/train.tsv", "test": ["dev=data/one/dev.tsv"], "ood": ["far=far.tsv"]}
    folder = room(base, tmp_path / "run", GRID | {"tasks": {"one": data}, "teacher": "base"})
    table(folder / "far.tsv", 6, 3).write_text("text\tlabel\na good film\tmaybe\na bad film\tneg\n")
    with inside(folder):
        assert main(["bench", "grid.yaml", "--rehearse"]) == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("would fail: ")]
    assert "teachers/one/base, runs/one_2-layers_finetune_1, runs/one_2-layers_kd_1 and 1 more: " in line
    assert "maybe" in line and "4 jobs would fail, named above" in out
    assert list(temporary.iterdir()) == []


def test_one_run_is_rehearsed_by_its_own_command(tmp_path: Path, temporary: Path, capsys: Capture) -> None:
    folder = prepare(tmp_path / "room")
    words = ["--train", "data/one/train.tsv", "--test", "data/one/dev.tsv", "--eval-share", "0.2", "--output", "out"]
    with inside(folder):
        assert main(["finetune", "--model", "base", *words, "--rehearse"]) == 0
        assert "1 job rehearsed in " in capsys.readouterr().out
        distill = ["distill", "--teacher", "base", "--student-layers", "2", "--method", "kd", *words, "--rehearse"]
        assert main(distill) == 0
        assert "nothing failed" in capsys.readouterr().out
        assert main([*distill, "--label-column", "lable"]) == 2
        assert "lable" in capsys.readouterr().err
    assert not (folder / "out").exists() and list(temporary.iterdir()) == []


def test_a_tiny_copy_keeps_depth_classes_and_tokenizer(base: Path, tmp_path: Path) -> None:
    real, copy = Checkpoint.find(base / "base"), Checkpoint.find(TinyCopies(tmp_path).of(str(base / "base")))
    assert copy.shape.blocks == real.shape.blocks and copy.labels == real.labels
    assert copy.tokenizer("a good film")["input_ids"] == real.tokenizer("a good film")["input_ids"]
    wide = json.loads((base / "base" / "config.json").read_text()) | {"hidden_size": 768, "intermediate_size": 3072}
    assert copy.config.hidden_size == real.config.hidden_size < wide["hidden_size"]


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["a", "b", "a", "a", "b", "b"], [0, 1, 2, 4]),
        ([None, "a", "a", None, "a", None], [0, 1, 2, 3]),
        ([0.1 * i for i in range(60)], [0, 1]),
        ([f"{i}.5" for i in range(60)], [0, 1]),
        ([0, 0, 0, *range(77)], [0, 1, *range(4, 80)]),  # many classes: the first row of each, beside the first two
        (["a", "a", "a|b", *(f"a|c{i}" for i in range(60)), "a|b"], [0, 1, *range(2, 63)]),
    ],
)
def test_the_first_rows_of_each_class_are_read_and_each_source_once(labels: list[object], wanted: list[int]) -> None:
    rows = Dataset.from_dict({"label": labels, "place": list(range(len(labels)))})
    reads = []

    def load() -> Dataset:
        reads.append(1)
        return rows

    with read_first_rows(2):
        for _ in range(2):
            assert limited("x", load, lambda _: ["label"])["place"][:] == wanted
        assert limited("unlabelled", load, lambda _: [])["place"][:] == [0, 1]
    assert len(reads) == 2 and len(limited("x", load, lambda _: ["label"])) == len(rows)
