"""A value of another JSON kind in a file that railkd reads back: the right result or words, never a traceback.

The manifest of a cache has tests of its own in test_fuzz.py. What a digest guards is sealed anew here, as by someone
who knows the format.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from railkd.bench.plan import Job
from railkd.bench.results import list_changes
from railkd.errors import RailkdError
from railkd.jobs.contents import UNSEEN, Beginning, changed_settings
from railkd.jobs.options import DistillOptions
from railkd.jobs.request import Request
from railkd.jobs.run_folder import RunFolder
from railkd.jobs.trained import Trained, trained_length
from railkd.jobs.validation import depth_of
from railkd.models.checkpoints import Checkpoint
from railkd.models.limits import position_limit
from railkd.models.loading import quantisation
from railkd.models.weights import weight_files
from railkd.records import RunRecord
from railkd.report.content import content
from railkd.report.study import read
from railkd.runtime.ownership import MARK
from railkd.runtime.sealed import SEAL, find_damage, listed, seal
from railkd.training.checkpoint_folders import STATE_FILE, SUMS, newest_checkpoint, own_files

VALUES: list[Any] = [None, [], {}, "", -1, 10**400, True]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested lists and dicts, as a path of keys; the whole comes first."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inside for place in places(item, (*path, key)))]


def at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def variants(whole: Any) -> Iterator[tuple[str, Any, bool]]:
    """Name and copy with a value of `VALUES` in one place, and whether its kind is that of the old value."""
    for place in places(whole):
        for put in VALUES:
            if not place:
                yield f"all is {put!r:.9}", put, False
                continue
            copy = json.loads(json.dumps(whole))
            at(copy, place[:-1])[place[-1]] = put
            old = at(whole, place)
            number = isinstance(old, int | float) and not isinstance(old, bool)
            alike = type(put) is type(old) or (number and type(put) is int)
            yield f"{place} is {put!r:.9}", copy, alike


def in_words(error: RailkdError) -> None:
    assert str(error).strip() and "Traceback" not in str(error) and len(str(error)) < 2000


# ---- records -----------------------------------------------------------------------------------------


def record() -> RunRecord:
    return RunRecord(
        "distill",
        "kd",
        3,
        config={"train": "a/train.tsv", "test": ["dev=dev.tsv"], "teacher": "t", "student_layers": 2, "epochs": 1.0},
        start={"keep": "even", "blocks": [1, 3]},
        metrics={"dev": {"accuracy": 0.5}},
        curve=[{"epoch": 0.5, "step": 1, "loss": 0.7, "kd": 0.1}, {"epoch": 1.0, "step": 2, "eval_accuracy": 0.5}],
        gauges={
            "readings": [{"epoch": 0.0, "rank": 2.0, "target_rank": 2.0, "variance": 1.0, "term": 0.5}],
            "similarity": {"before": [[1.0, 0.5]]},
            "warning": None,
        },
        seconds={"training": 1.0},
        contents={"train": "a" * 32, "test dev": "b" * 32, "teacher": "c" * 32},
        started="2026-01-01T00:00:00+00:00",
        versions={"railkd": "0.1.0"},
        commit=None,
        machine={"system": "Linux", "cores": 2, "fast bf16": True},
    )


def test_a_record_of_another_kind_is_reported_rightly_or_refused_in_words(tmp_path: Path) -> None:
    whole = asdict(record())
    job = Job(
        "runs/x", "distill", "t", "s", "a", 1, Request(DistillOptions(), {"train": "b.tsv", "test": ["dev=c.tsv"]})
    )
    (tmp_path / "run").mkdir()
    file, refused, reported = tmp_path / "run" / "metrics.json", 0, 0
    for name, values, _ in variants(whole):
        text = json.dumps(values)
        try:
            held = RunRecord.from_text(text, "metrics.json")
            list_changes(job, held)
        except RailkdError as error:
            in_words(error)
            refused += 1
            continue
        # Only these fields hold values of any kind, so only they can surprise the report.
        if name.startswith(("('config'", "('curve'", "('machine'", "('gauges'", "('start'")):
            file.write_text(text)
            try:
                json.dumps(content(read([tmp_path])))
            except RailkdError as error:
                in_words(error)
            reported += 1
    assert refused > 300 and reported > 50


# ---- run folders -------------------------------------------------------------------------------------


def test_a_mark_of_another_kind_is_read_rightly_or_refused_in_words(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.own(run.config)
    contents, settings = {"train": "a" * 32, "teacher": "b" * 32}, {"train": "a.tsv", "seed": 1}
    run.ledger.note({"threads": 2, "contents": contents})
    run.config.write_text("train: a.tsv\nseed: 1\n")
    whole, seen = json.loads((tmp_path / MARK).read_text()), {"known": 0, "not known": 0, "refused": 0}
    for name, values, alike in variants(whole):
        (tmp_path / MARK).write_text(json.dumps(values))
        try:
            known = run.contents()
            run.can_go_on(settings)
            run.find_obstacles(DistillOptions(output=str(tmp_path), resume=True, test=[], ood=[]))
            assert all(isinstance(part, str) for part in run.ledger.names())
        except RailkdError as error:
            in_words(error)
            seen["refused"] += 1
            continue
        # A damaged mark means that nothing is known, and then nothing there belongs to railkd.
        assert known == contents or alike or not run.ledger.exists() or "contents" in name, name
        seen["known" if known == contents else "not known"] += 1
    assert min(seen.values()) > 3


def test_settings_of_another_kind_are_other_settings() -> None:
    whole = {
        "train": ["a.tsv"],
        "eval": "b.tsv",
        "test": ["c=c.tsv"],
        "teacher": "t",
        "epochs": 1.0,
        "weights": [1.0, 0.0],
    }
    contents = dict.fromkeys(("train", "eval", "test c", "teacher"), "a" * 32)
    now = Beginning(whole, contents, 1)
    for name, values, _ in variants(whole):
        if not isinstance(values, dict):
            continue
        changed = changed_settings(values, whole, UNSEEN, contents)
        assert bool(changed) == (values != whole), name
        try:
            Beginning(values, contents, 1).compare(now, "the run")
        except RailkdError as error:
            in_words(error)


# ---- checkpoints -------------------------------------------------------------------------------------

STATE: dict[str, Any] = {
    "best_global_step": 3,
    "best_metric": 0.5,
    "best_model_checkpoint": "out/checkpoint-3",
    "epoch": 1.5,
    "eval_steps": 500,
    "global_step": 6,
    "is_hyper_param_search": False,
    "is_local_process_zero": True,
    "is_world_process_zero": True,
    "log_history": [{"epoch": 1.0, "eval_accuracy": 0.5, "step": 4}, {"epoch": 1.5, "loss": 0.7, "step": 6}],
    "logging_steps": 1,
    "max_steps": 12,
    "num_input_tokens_seen": 0,
    "num_train_epochs": 3,
    "save_steps": 3,
    "stateful_callbacks": {"Elapsed": {"args": {}, "attributes": {"seconds": 1.5}}},
    "total_flos": 0.0,
    "train_batch_size": 8,
    "trial_name": None,
    "trial_params": None,
}
SUMMED: dict[str, Any] = {
    "loss": 0.5,
    "steps": 1.0,
    "terms": [0.1, 0.2],
    "total": 3.5,
    "last_logged": 6,
    "gauges": {"readings": [{"epoch": 0.0, "rank": 2.0}], "similarity": {"before": [[1.0]]}, "warning": None},
}
#: What railkd never reads, and what Trainer takes from the arguments of the run and not from its state.
FREE = ("eval_steps", "is_", "logging_steps", "num_input", "save_steps", "trial_", "Elapsed', 'a")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two checkpoints; the newer one may be spoilt."""
    for step in (3, 6):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / STATE_FILE).write_text(json.dumps(STATE | {"global_step": step}))
        (folder / SUMS).write_text(json.dumps(SUMMED))
        seal(folder)
    return tmp_path


@pytest.mark.parametrize(("file", "whole"), [(STATE_FILE, STATE), (SUMS, SUMMED)], ids=["state", "sums"])
def test_a_checkpoint_with_a_value_of_another_kind_is_skipped_in_words(run: Path, file: str, whole: Any) -> None:
    newest, taken = run / "checkpoint-6", 0
    assert newest_checkpoint(run) == newest
    for name, values, alike in variants(whole):
        (newest / file).write_text(json.dumps(values))
        seal(newest)
        said: list[str] = []
        found = newest_checkpoint(run, said.append)
        if found == newest:
            optional = (
                "best_" in name or "warning" in name or name in ("('epoch',) is None", "('train_batch_size',) is None")
            )
            inner = "log_history" in name or "{}" in name or "[]" in name
            assert alike or optional or inner or any(part in name for part in FREE), name
            taken += 1
        else:
            assert found in (run / "checkpoint-3", None) and said and "checkpoint-6' is skipped: " in said[0], name
    assert taken < len(places(whole)) * len(VALUES)


def test_a_list_of_files_of_another_kind_is_damage(run: Path) -> None:
    newest = run / "checkpoint-6"
    whole = json.loads((newest / SEAL).read_text())
    for name, values, _ in variants(whole):
        (newest / SEAL).write_text(json.dumps(values))
        assert (find_damage(newest) is None) == (values == whole), name
        assert all(isinstance(part, str) for part in listed(newest) | own_files(newest))


# ---- models ------------------------------------------------------------------------------------------

#: Entries that railkd reads. transformers names every class of a huge num_labels, so that one is left out.
OURS = (
    "railkd",
    "id2label",
    "label2id",
    "problem_type",
    "num_hidden_layers",
    "hidden_size",
    "model_type",
    "vocab_size",
)
OURS += ("max_position_embeddings", "pad_token_id", "quantization_config", "transformers_weights", "auto_map")


def test_a_config_of_another_kind_is_read_rightly_or_refused_in_words(tmp_path: Path, teacher_folder: Path) -> None:
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"railkd": Trained.entry("kd", 64, ["question", "answer"]), "problem_type": "single_label_classification"}
    config |= {"quantization_config": None, "transformers_weights": None, "auto_map": {"AutoConfig": "a.B"}}
    rest = {name: value for name, value in config.items() if name not in OURS}
    refused = 0
    for name, values, _ in variants({key: config[key] for key in OURS if key in config}):
        (folder / "config.json").write_text(json.dumps(rest | values if isinstance(values, dict) else values))
        try:
            depth = depth_of(folder)
            assert depth is None or (type(depth) is int and depth > 0)
            found = Checkpoint.find(folder)
            trained = Trained.of(found.config)
            assert trained.max_length is None or (type(trained.max_length) is int and trained.max_length > 0), name
            assert type(trained_length(None, found.config, str)) is int
            assert all(isinstance(column, str) for column in trained.text_columns) and len(trained.text_columns) in (
                0,
                2,
            )
            assert all(isinstance(label, str) for label in found.labels)
            assert found.task.problem_type and (quantisation(found.config) or True)
            limit = position_limit(found.config)
            assert limit is None or type(limit) is int
        except RailkdError as error:
            in_words(error)
            refused += 1
    assert refused > 20


def test_an_index_of_weights_of_another_kind_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").touch()
    whole = {"metadata": {"total_size": 4}, "weight_map": {"x": "a.safetensors", "y": "a.safetensors"}}
    for _, values, _ in variants(whole):
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(values))
        try:
            assert weight_files(tmp_path) == (tmp_path / "a.safetensors",)
        except RailkdError as error:
            in_words(error)


# ---- jobs --------------------------------------------------------------------------------------------


def test_a_job_of_another_kind_is_refused_by_its_field() -> None:
    request = Request(DistillOptions(train="a.tsv", teacher="t", output="o"), {"seed": 1, "method": "kd"})
    whole = Job("runs/x", "distill", "t", "s", "a", 1, request, ("teachers/t",)).plain()
    for name, values, _ in variants(whole):
        if not isinstance(values, dict):
            continue
        with suppress(ValueError):  # which names the field
            assert Job.from_plain(values).plain().keys() == whole.keys(), name
