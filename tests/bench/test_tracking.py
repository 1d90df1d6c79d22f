"""A tracker of experiments learns the name, the group and the tags of a run, and its final scores."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from bench.room import ALONE, in_process, room
from railkd.cli import main
from railkd.records import RunRecord

NAMES = ("WANDB_RUN_GROUP", "WANDB_TAGS", "MLFLOW_TAGS")


class Recorder(TrainerCallback):
    """Keeps what a tracker receives: the name of a run, the variables that the libraries read, and the logs."""

    runs: ClassVar[list[dict[str, Any]]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.runs.append({"name": args.run_name, "logs": []} | {name: os.environ.get(name) for name in NAMES})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.runs[-1]["logs"].append(dict(logs))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "flyte", Recorder)
    monkeypatch.setattr(Recorder, "runs", [])
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    yield Recorder.runs
    assert not any(name in os.environ for name in NAMES[:2])


def test_the_runs_of_a_bench_have_names_groups_and_tags(
    base: Path, tmp_path: Path, runs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TAGS", '{"mine": "1"}')  # what the user set stays
    grid = ALONE | {"methods": ["kd"], "settings": ALONE["settings"] | {"report_to": "flyte"}}
    folder = room(base, tmp_path / "run", grid)
    found = {record.folder: record for record in in_process(folder) if record.job == "distill"}
    ((place, record),) = found.items()
    (told,) = runs
    assert told["name"] == Path(place).name
    assert told["WANDB_RUN_GROUP"] == "out one"
    assert told["WANDB_TAGS"] == f"task: one,arm: kd,seed: {record.seed}"
    assert told["MLFLOW_TAGS"] == '{"mine": "1"}'
    scores = {
        f"test_{name}_{metric}": v
        for name, part in record.metrics.items()
        if name != "eval"
        for metric, v in part.items()
    }
    assert scores and told["logs"][-1] == scores
    assert not any(key.startswith("test_") for entry in record.curve for key in entry)


@pytest.mark.parametrize("name", [None, "mine"])
def test_a_run_has_the_name_of_its_folder_or_the_users(
    base: Path, tmp_path: Path, runs: list[dict[str, Any]], name: str | None
) -> None:
    rows = base / "data" / "one"
    words = ["finetune", "--model", base / "base", "--train", rows / "train.tsv", "--test", f"hard={rows / 'dev.tsv'}"]
    words += ["--max-steps", 1, "--report-to", "flyte", "--quiet", "--output", tmp_path / "sst2-3", "--no-bf16"]
    words += ["--run-name", name] if name else []
    assert main([*map(str, words)]) == 0
    (told,) = runs
    assert told["name"] == (name or "sst2-3") and told["WANDB_RUN_GROUP"] is None
    record = RunRecord.read(tmp_path / "sst2-3" / "metrics.json")
    assert told["logs"][-1]["test_hard_accuracy"] == record.metrics["hard"]["accuracy"]


def test_tags_of_mlflow_are_json(base: Path, tmp_path: Path, runs: list[dict[str, Any]]) -> None:
    settings = ALONE["settings"] | {"report_to": "flyte"}
    in_process(room(base, tmp_path / "run", ALONE | {"methods": ["finetune"], "settings": settings}))
    tags = json.loads(runs[-1]["MLFLOW_TAGS"])
    assert tags == {"group": "out one", "task": "one", "arm": "finetune", "seed": "1"}
