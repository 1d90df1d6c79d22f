"""Which settings a finished job is compared by: all that can change its result, and no others."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from bench.room import ALONE, in_process, room
from railkd.bench.plan import OPTIONS, Job
from railkd.bench.results import list_changes
from railkd.errors import RailkdError
from railkd.jobs.contents import UNSEEN, Beginning, changed_contents
from railkd.jobs.options import CacheOptions, DistillOptions
from railkd.jobs.request import Request
from railkd.jobs.settings import NEVER_WRITTEN, SHORT_NAMES, settings_of
from railkd.records import RunRecord
from railkd.training import DistillationTrainingArguments

#: Every training argument, by the name under which a record keeps it.
TRAINING = sorted(
    SHORT_NAMES.get(field.name, field.name) for field in dataclasses.fields(DistillationTrainingArguments)
)
#: Settings that cannot change a result -> another value than the default.
FREE: dict[str, Any] = {
    "allow_weak_teacher": True,
    "dataloader_num_workers": 1,
    "dataloader_persistent_workers": True,
    "dataloader_pin_memory": False,
    "dataloader_prefetch_factor": 3,
    "disable_tqdm": False,
    "keep_freed_memory": False,
    "log_level": "error",
    "log_level_replica": "error",
    "log_on_each_node": False,
    "logging_nan_inf_filter": True,
    "report_to": "none",
    "run_name": "another",
    "states_on_device": "yes",
}
#: Where files lie. The grid decides these.
PLACES = {"output", "cache"}


def test_every_setting_is_compared_or_known_to_change_nothing() -> None:
    assert set(FREE) | PLACES == UNSEEN  # each is tried below
    seen = set()
    for kind, options in OPTIONS.items():
        trains = kind in ("finetune", "distill")
        for name in (*settings_of(options), *(TRAINING if trains else ())):
            values = (["one.tsv"], ["two.tsv"]) if name in ("test", "ood") else ("one.tsv", "two.tsv")
            before = RunRecord(kind, "kd", 1, config={name: values[0]})
            job = Job("runs/x", kind, "t", "s", "a", 1, Request(DistillOptions(), {name: values[1]}))
            # The students of a teacher pass compare its rows, and an evaluation reads no training rows.
            free = name in UNSEEN | NEVER_WRITTEN or (name == "train" and kind in ("cache", "evaluate"))
            assert bool(list_changes(job, before)) != free, (kind, name)
            seen.add(name)
    assert seen >= UNSEEN and {"epochs", "learning_rate", "train", "keep", "dtype"} <= seen


@pytest.mark.parametrize(
    ("train", "same"),
    [
        (["./one.tsv", "two.tsv"], True),
        (["one.tsv", "moved/two.tsv"], True),  # the students of the pass compare the rows
        (["one.tsv"], False),
        (["one.tsv", "RTE/two.tsv"], False),  # a known set has metrics of its own
    ],
)
def test_the_files_of_a_teacher_pass_may_lie_elsewhere(
    train: list[str], same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one.tsv", "two.tsv"):
        Path(name).touch()
    before = RunRecord("cache", None, 0, config={"train": ["one.tsv", "two.tsv"]})
    job = Job("caches/x", "cache", "t", "", "", 0, Request(CacheOptions(train=train)))
    assert (list_changes(job, before) == []) == same


@pytest.mark.parametrize(
    ("setting", "before", "now", "part"),
    [
        ("train", "one.tsv", "moved/one.tsv", "train"),
        ("eval", "one.tsv", "moved/one.tsv", "eval"),
        ("unlabelled", "one.tsv", "moved/one.tsv", "unlabelled"),
        ("test", ["a=one.tsv", "b=two.tsv"], ["a=moved/one.tsv", "b=two.tsv"], "test a"),
        ("ood", ["a=one.tsv"], ["a=moved/one.tsv"], "test a"),
    ],
)
def test_moved_rows_are_the_same_rows_if_a_digest_of_them_was_kept(
    setting: str, before: Any, now: Any, part: str
) -> None:
    job = Job("runs/x", "distill", "t", "s", "a", 1, Request(DistillOptions(), {setting: now}))
    for contents, same in (({part: "digest"}, True), ({"test other": "digest"}, False), ({}, False)):
        record = RunRecord("distill", "kd", 1, config={setting: before}, contents=contents)
        assert (list_changes(job, record) == []) == same


@pytest.mark.parametrize("now", [["b=one.tsv"], ["a=one.tsv", "b=one.tsv"], []])
def test_test_sets_of_other_names_are_other_sets(now: list[str]) -> None:
    job = Job("runs/x", "distill", "t", "s", "a", 1, Request(DistillOptions(), {"test": now}))
    record = RunRecord("distill", "kd", 1, config={"test": ["a=one.tsv"]}, contents={"test a": "digest"})
    assert list_changes(job, record)


def test_a_run_goes_on_whose_old_config_holds_what_is_no_longer_written() -> None:
    before, now = (Beginning({"epochs": 3.0, **old}, {}, 1) for old in (dict.fromkeys(NEVER_WRITTEN, "x"), {}))
    assert before.compare(now, "the run") == now.compare(before, "the run") == []


@pytest.mark.parametrize(
    ("chosen", "setting", "free"),
    [
        ({}, "save_steps", True),
        ({"eval": "dev.tsv"}, "save_steps", False),
        ({"eval_share": 0.1}, "save_steps", False),
        ({"eval": "dev.tsv"}, "logging_steps", True),
        ({"eval": "dev.tsv", "save_strategy": "steps"}, "logging_steps", False),
        ({"eval": "dev.tsv"}, "save_total_limit", True),
    ],
)
def test_a_resumed_run_evaluates_when_it_did(chosen: dict[str, Any], setting: str, free: bool) -> None:
    before, now = (Beginning({**chosen, setting: steps}, {}, 1) for steps in (3, 7))
    if free:
        assert before.compare(now, "the run") == []
    else:
        with pytest.raises(RailkdError, match=f"{setting} was 3, is 7"):
            before.compare(now, "the run")


def test_a_run_with_every_free_setting_changed_leaves_the_same_student(
    base: Path, small_run: Path, small: dict[str, Any], tmp_path: Path
) -> None:
    """The same as the kd of the small grid, whose settings are the defaults."""
    folder = room(base, tmp_path / "run", ALONE | {"methods": ["kd"], "settings": ALONE["settings"] | FREE})
    student = in_process(folder)[-1]
    assert student.state == "finished", student.error
    file = Path("out", student.folder, "student", "model.safetensors")
    assert (folder / file).read_bytes() == (small_run / file).read_bytes()
    assert student.comparable() | {"config": None} == small[student.folder] | {"config": None}


def test_changed_rows_are_named_once_and_test_sets_with_other_texts_may_be_scored() -> None:
    """The digests of texts alone are there to recognise rows without labels; a run that goes on compares the others."""
    before = {"train": "a", "texts train": "b", "test x": "c", "texts test x": "d"}
    assert changed_contents(before, dict.fromkeys(before, "z"), {"train": "t.tsv"}) == [
        "--train 't.tsv'",
        "the test set 'x'",
    ]
    assert Beginning({}, before, 1).compare(Beginning({}, before | {"test x": "y", "texts test x": "z"}, 1), "it") == []
