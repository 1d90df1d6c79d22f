"""One ``railkd distill`` reads each part of the teacher once, and keeps in memory what it still needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from faults.runs import prepare
from forks import Fork
from jobs.watched import watch

SETTINGS = "--student-layers 2 --shared-size 8 --max-length 16 --epochs 1 --no-bf16 --allow-weak-teacher --quiet"
FILES = "--teacher teacher --train train.tsv --eval dev.tsv --test late=dev.tsv"
#: Calls that load a part of the teacher, and constructions of the objective.
ONCE = {"AutoConfig.from_pretrained": 1, "AutoTokenizer.from_pretrained": 1, "Objective.__init__": 2}


RUNS = {"cold": "--cache cache", "warm": "--cache cache", "live": "--live"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("reads"))


@pytest.fixture(scope="module")
def seen(folder: Path) -> dict[str, Any]:
    """Return the counts that `watched.py` prints for each run."""
    found = {}
    for name, flags in RUNS.items():
        words = f"{SETTINGS} {FILES} {flags} --output {name}".split()
        code, said = Fork(folder, lambda words=words: watch(words), f"{name} said").end()  # type: ignore[misc]
        assert code == 0, said
        found[name] = json.loads(said.splitlines()[-1])
    return found


def calls(run: dict[str, Any]) -> dict[str, int]:
    return {name: count for name, count in run["counts"].items() if not name.startswith("open ")}


def test_a_cold_run_reads_each_part_of_the_teacher_once(seen: dict[str, Any]) -> None:
    # The check of the teacher and its pass share one model. The student copies its blocks from the weight file.
    assert calls(seen["cold"]) == {**ONCE, "PreTrainedModel.from_pretrained": 1, "load_file": 1}
    opened = [seen["cold"]["counts"][f"open {name}"] for name in ("config.json", "tokenizer.json", "model.safetensors")]
    # The depth of the teacher is read from config.json before transformers is imported; the digest reads the weights.
    assert opened == [2, 1, 1]


def test_a_warm_run_loads_no_teacher_and_gives_the_same_student(seen: dict[str, Any], folder: Path) -> None:
    assert calls(seen["warm"]) == {**ONCE, "load_file": 1}
    students = [(folder / run / "student" / "model.safetensors").read_bytes() for run in ("cold", "warm")]
    assert students[0] == students[1]


def test_the_teacher_is_in_memory_during_training_only_where_it_runs_then(seen: dict[str, Any]) -> None:
    """The teacher has 3 blocks, the student 2. Live, the check and the steps share one model."""
    assert {run: sorted(found["depths"]) for run, found in seen.items()} == {"cold": [2], "warm": [2], "live": [2, 3]}
    assert seen["live"]["counts"]["PreTrainedModel.from_pretrained"] == 1
