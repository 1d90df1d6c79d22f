"""Two ranks (accelerate launch, torchrun; gloo) do what one does: cache, student, record; a dead rank ends the job.

Every launch costs twenty seconds: the second one belongs to make test-thorough.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertForSequenceClassification

import tiny
from faults.two_ranks import FILES, TRAINING, mixed
from railkd.cli import main
from railkd.records import RunRecord
from railkd.teacher import TeacherCache

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 rows: global batches of 8 divide them, so one rank and two see the same."""
    base = tmp_path_factory.mktemp("ranks")
    tiny.save(base / "teacher", tiny.make_model(4, width=8, dropout=0.0), tiny.make_tokenizer())
    for name, count, seed in (("train", 24, 0), ("dev", 9, 5), ("more", 16, 6), ("others", 8, 7)):
        rows = tiny.text_rows(count, seed=seed)
        lines = [f"{text}\t{label}" for text, label in zip(rows["text"], rows["label"], strict=True)]
        (base / f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    return base


ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def launch(launcher: list[str], part: str, folder: Path) -> dict[str, Any]:
    """Both ranks run a part of two_ranks.py: what came of it."""
    paths = [str(HERE.parents[1] / "src"), str(HERE.parent)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", *launcher, str(HERE / "two_ranks.py"), part, str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=150)
    return {"code": done.returncode, "said": done.stdout + done.stderr}


@pytest.fixture(scope="module")
def two(folder: Path) -> dict[str, Any]:
    """A whole job of two ranks, and one whose launcher was terminated."""
    done = launch(ACCELERATE, "first", folder)
    return done | {"stopped at": [path.name for path in (folder / "stopped").glob("checkpoint-*")]}


@pytest.fixture(scope="module")
def resumed(folder: Path, two: dict[str, Any]) -> dict[str, Any]:
    """That one resumed, and one of which a rank died."""
    return launch(TORCHRUN, "second", folder)


@pytest.fixture(scope="module")
def one(folder: Path, two: dict[str, Any]) -> Path:
    """The same by one rank, with the global batch of both."""
    before = Path.cwd()
    os.chdir(folder)
    (folder / "cache").rename(folder / "cache-of-two")
    try:
        words = ["cache", "--teacher", "teacher", *FILES, "--cache", "cache", "--batch-size", 5, "--no-bf16"]
        assert main([str(word) for word in words]) == 0
        words = ["distill", *FILES, *TRAINING, "--batch-size", 8, "--output", "one"]
        assert main([str(word) for word in words]) == 0
        assert mixed("--batch-size", 8, "--output", "mixed-of-one") == 0
        words = ["evaluate", "--model", "out/student", "--test", "dev.tsv", "--output", "scores-of-one.json"]
        assert main([str(word) for word in words]) == 0
    finally:
        os.chdir(before)
    return folder / "one"


def test_a_terminated_launcher_leaves_one_checkpoint(folder: Path, two: dict[str, Any]) -> None:
    """The launcher passes the signal on. Saved every 3 steps: what stands at 2 is there because of it."""
    assert (folder / "first-0").exists() and (folder / "first-1").exists(), two["said"][-3000:]
    assert two["code"] != 0 and [(folder / f"code-{rank}").read_text() for rank in (0, 1)] == ["143", "143"]
    assert two["said"].count("with --resume to continue from the newest checkpoint in 'stopped'") == 1
    assert two["stopped at"] == ["checkpoint-2"]


@pytest.mark.thorough
def test_the_resumed_run_is_the_uninterrupted_one(folder: Path, resumed: dict[str, Any]) -> None:
    assert (folder / "second-0").exists() and (folder / "second-1").exists(), resumed["said"][-3000:]
    for name in ("objective.safetensors", "student/model.safetensors", "draws.json", "gauges.json"):
        assert (folder / "stopped" / name).read_bytes() == (folder / "out" / name).read_bytes(), name
    whole, parts = (RunRecord.read(folder / name / "metrics.json").comparable() for name in ("out", "stopped"))
    assert whole | {"config": None} == parts | {"config": None}
    assert (folder / "again.json").read_bytes() == (folder / "scores.json").read_bytes()


@pytest.mark.thorough
def test_a_signal_that_one_rank_hears_ends_all_at_the_same_step(folder: Path, resumed: dict[str, Any]) -> None:
    assert [(folder / f"too-{rank}").read_text() for rank in (0, 1)] == ["130", "130"], resumed["said"][-3000:]
    assert [path.name for path in (folder / "stopped-too").glob("checkpoint-*")] == ["checkpoint-2"]


def test_the_first_rank_alone_writes_the_run_folder(folder: Path, two: dict[str, Any]) -> None:
    """But for what is the other's own: the state of its random numbers, in each checkpoint.

    Told apart by the umask. Weights have a mode of safetensors' own, but never come without a config.json beside them,
    and the first gives its mode to all files that appear beside them while it writes: the other's too, now and then.
    """
    assert (folder / "out" / "metrics.json").stat().st_mode & 0o077 == 0o044  # the first's
    files = [path for path in (folder / "out").rglob("*") if path.is_file()]
    theirs = {path.name for path in files if path.stat().st_mode & 0o077 == 0o040}
    assert theirs <= {"rng_state_1.pth"} and all(folder.glob("out/checkpoint-*/rng_state_1.pth"))


@pytest.mark.thorough
def test_a_dead_rank_ends_the_job(folder: Path, resumed: dict[str, Any]) -> None:
    assert resumed["code"] != 0 and "SIGKILL" in resumed["said"] and not (folder / "dead" / "metrics.json").exists()


@pytest.mark.parametrize("name", ["cache-of-two", pytest.param("again", marks=pytest.mark.thorough)])
def test_two_ranks_build_the_cache_of_one_in_disjoint_parts(
    request: pytest.FixtureRequest, folder: Path, one: Path, name: str
) -> None:
    if name == "again":
        request.getfixturevalue("resumed")
    ours, theirs = TeacherCache.open(folder / name), TeacherCache.open(folder / "cache")
    ours.verify()
    parts = [{tuple(key) for key in load_file(path)["keys"].tolist()} for path in ours.path.glob("shard-*")]
    assert len(parts) == 2 and not parts[0] & parts[1] and len(parts[0] | parts[1]) == theirs.rows == 24
    (path,) = theirs.path.glob("shard-*")
    keys = load_file(path)["keys"]
    for cache in (ours, theirs):
        assert (cache.find(keys.numpy()) >= 0).all()
    a, b = ours({"example_key": keys}, "mean"), theirs({"example_key": keys}, "mean")
    assert a.states is not None and b.states is not None
    assert torch.equal(a.logits, b.logits) and torch.equal(a.states, b.states)


def test_two_ranks_train_the_student_of_one_and_agree_on_every_weight(folder: Path, one: Path) -> None:
    """Projections too, those of maps that no draw has met among them."""
    first, second = (load_file(folder / f"weights-{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys() and any("objective" in name for name in first)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    for name in ("objective.safetensors", "student/model.safetensors"):
        ours, theirs = load_file(folder / "out" / name), load_file(one / name)
        assert ours.keys() == theirs.keys()
        for key in ours:
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-5, atol=1e-5, msg=key)


def test_two_ranks_read_the_shares_of_one_and_make_its_student(folder: Path, one: Path) -> None:
    """Of 48 rows with labels and without, a quarter of each batch is of one file."""
    records = [json.loads((folder / name / "metrics.json").read_text()) for name in ("mixed", "mixed-of-one")]
    assert records[0]["seen"] == records[1]["seen"] == {"steps": 12, "rows": 96, "labelled": 54, "unlabelled": 42}
    ours, theirs = (load_file(folder / name / "student/model.safetensors") for name in ("mixed", "mixed-of-one"))
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-5, atol=1e-5, msg=key)


def test_two_ranks_leave_frozen_parts_alone_and_agree_on_the_others(folder: Path, two: dict[str, Any]) -> None:
    """Block 1 of the student is block 1 of the teacher."""
    first, second = (load_file(folder / f"frozen-{rank}.safetensors") for rank in (0, 1))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    before = load_file(folder / "teacher" / "model.safetensors")
    same = {name for name, value in before.items() if torch.equal(first.get(f"student.{name}", torch.empty(0)), value)}
    assert same == {name for name in before if "embeddings" in name or "layer.0." in name}
    assert RunRecord.read(folder / "frozen" / "metrics.json").start["frozen"] == ["embeddings", "1"]


def test_the_record_of_two_ranks_is_that_of_one(folder: Path, one: Path) -> None:
    """Losses and terms are the mean over the ranks."""
    ours, theirs = (json.loads((path / "metrics.json").read_text()) for path in (folder / "out", one))
    assert ours["draws"] == theirs["draws"] and ours["metrics"] == theirs["metrics"]
    assert len(ours["curve"]) == len(theirs["curve"])
    for mine, other in zip(ours["curve"], theirs["curve"], strict=True):
        for name in ("loss", "ce", "kd", "intermediate", "grad_norm", "train_loss", "gauge_rank", "step"):
            assert (name in mine) == (name in other)
            assert mine.get(name, 0) == pytest.approx(other.get(name, 0), rel=1e-4, abs=1e-6), name
    assert json.loads((folder / "scores.json").read_text()) == json.loads((folder / "scores-of-one.json").read_text())


@pytest.mark.thorough
def test_a_sharded_distiller_leaves_a_plain_student(folder: Path, resumed: dict[str, Any]) -> None:
    _, report = BertForSequenceClassification.from_pretrained(folder / "sharded", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
