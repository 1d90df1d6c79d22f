"""Signals read ahead of their step, and states kept on the device, change no number of a training."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from transformers import TrainerCallback

import tiny
from railkd import TeacherCache
from railkd.data.collator import PaddingCollator
from railkd.data.keys import keys_of
from railkd.data.tokens import keyed_tokens
from railkd.errors import RailkdError
from railkd.teacher import TeacherInfo, TeacherLabels, TeacherMean
from railkd.training.feeding import KeptStates
from training.runs import trainer_of

MAIN = threading.current_thread().name


class Watched(TeacherCache):
    """A cache that knows which keys were read, and on which thread. States are in half precision, but for one key."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.read: list[tuple[str, bytes, bool]] = []
        self.wide = np.zeros(2, dtype=np.int64)

    def gather(self, keys: np.ndarray, pooling: str | None) -> tuple[np.ndarray, np.ndarray | None]:
        logits, states = super().gather(keys, pooling)
        self.read.append((threading.current_thread().name, keys.tobytes(), states is not None))
        if states is None:
            return logits, None
        half, wide = states.astype(np.float16), (keys == self.wide).all(axis=1)
        return logits, np.where(wide[:, None, None], states, half) if wide.any() else half


class Steps(TrainerCallback):
    """At the beginning of each step, waits until the teacher was read often enough, and notes how often it was."""

    def __init__(self, teacher: Watched, wanted: list[int]) -> None:
        self.teacher, self.wanted, self.seen = teacher, wanted, list[int]()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        wanted, end = self.wanted[len(self.seen)], time.monotonic() + 10
        while len(self.teacher.read) < wanted and time.monotonic() < end:
            time.sleep(0.001)
        self.seen.append(len(self.teacher.read))


@pytest.fixture
def watched(cache: TeacherCache) -> Watched:
    return Watched.open(cache.path)  # type: ignore[return-value]


def test_the_next_batch_is_read_while_this_one_trains(
    tmp_path: Path, watched: Watched, rows: Dataset, tokenizer: Any
) -> None:
    steps = Steps(watched, [2, 3, 4, 5, 6, 6, 8, 9, 10, 11, 12, 12])  # an epoch has six batches
    options: dict[str, Any] = {"eval_dataset": rows, "eval_strategy": "epoch", "callbacks": [steps]}
    trainer = trainer_of(tmp_path, watched, rows, tokenizer, **options)
    trainer.train()
    assert steps.seen == steps.wanted  # nothing is read twice, and evaluations read nothing
    threads = {name for name, *_ in watched.read}
    assert len(threads) == 1 and MAIN not in threads
    assert all(thread.name not in threads for thread in threading.enumerate())


def weights(folder: Path, teacher: Any, rows: Dataset, tokenizer: Any, **settings: Any) -> dict[str, torch.Tensor]:
    resume = settings.pop("resume", None)
    trainer = trainer_of(folder, teacher, rows, tokenizer, **settings)
    trainer.train(resume_from_checkpoint=resume)
    return tiny.weights_of(trainer.model)


@pytest.mark.parametrize("method", ["rail-kd-l", "codir"])
def test_read_at_its_step_or_ahead_or_kept_on_the_device_trains_the_same_bits(
    tmp_path: Path, cache: TeacherCache, watched: Watched, rows: Dataset, tokenizer: Any, method: str
) -> None:
    rows = concatenate_datasets([rows, rows.select([3, 5])])  # a text may be repeated
    watched.wide = keyed_tokens(rows, tokenizer, max_length=128).keys[7]
    collator = PaddingCollator(tokenizer)
    options = {"method": method, "save_strategy": "steps", "save_steps": 4, "dropout": 0.1, "max_steps": 7}
    ways: dict[str, dict[str, Any]] = {
        "at its step": {"data_collator": lambda batch: dict(collator(batch))},
        "ahead": {},
        "kept": {"states_on_device": "yes"},
        "resumed": {"states_on_device": "yes", "resume": str(tmp_path / "ahead" / "checkpoint-4")},
    }
    found, threads = {}, {}
    for name, way in ways.items():
        watched.read.clear()
        found[name] = weights(tmp_path / name, watched, rows, tokenizer, **options, **way)
        threads[name] = {thread for thread, _, states in watched.read if states}
    first = found.pop("at its step")
    for name, others in found.items():
        assert [part for part in first if not torch.equal(first[part], others[part])] == [], name
    assert threads["at its step"] == threads["kept"] == threads["resumed"] == {MAIN}
    assert threads["ahead"] - {MAIN}


def test_kept_states_are_those_of_the_cache_in_the_widest_precision(
    watched: Watched, cache: TeacherCache, rows: Dataset, tokenizer: Any, device: torch.device
) -> None:
    keys = keyed_tokens(rows, tokenizer, max_length=128).keys[:9]
    for wide, precision in ((np.zeros(2), torch.float16), (keys[4], torch.float32)):
        watched.wide = wide
        kept = KeptStates.read(watched, keys[[*range(9), 2]], "mean", device, always=True)
        assert kept is not None and kept.states.shape == (9, 4, 16)
        assert kept.states.dtype == precision and kept.states.device.type == device.type
        wanted = cache.gather(keys[[8, 0, 2, 2]], "mean")[1]
        assert wanted is not None
        torch.testing.assert_close(kept(keys[[8, 0, 2, 2]]).cpu().float(), torch.from_numpy(wanted), rtol=1e-3, atol=0)


def test_kept_states_of_a_mean_are_those_of_their_text_in_whatever_order_the_other_teachers_hold_it(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, device: torch.device
) -> None:
    keys, options = keys_of(rows), {"tokenizer": tokenizer, "max_length": 128, "pooling": "none"}
    TeacherCache.build(tiny.make_model(), rows.select(range(9, 15)), tmp_path, **options)
    grown = TeacherCache.build(tiny.make_model(), rows, tmp_path, **options)
    info = TeacherInfo(0, 0, cache.info.labels, cache.info.problem_type, 0)
    file = TeacherLabels("answers", info, keys[::-1], np.zeros((len(keys), 2)), "logits")
    some = TeacherLabels("some", info, keys[15:3:-1], np.zeros((12, 2)), "logits")
    for others in ([grown], [file], [some], [grown, file, some]):
        for teachers, states_from in (([cache, *others], None), ([*others, cache], len(others))):
            mean = TeacherMean(teachers, states_from=states_from)
            kept = KeptStates.read(mean, keys, "mean", device, always=True)
            wanted = cache.gather(keys, "mean")[1]
            assert kept is not None and wanted is not None and len(kept.rows) == len(keys)
            assert torch.equal(kept(keys).cpu(), torch.from_numpy(wanted))


def test_they_are_kept_where_they_are_wanted_and_said_in_a_line(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    said: list[str] = []
    for setting, method in (("auto", "rail-kd-l"), (False, "rail-kd-l"), ("yes", "kd"), (True, "rail-kd-l")):
        options = {"method": method, "states_on_device": setting, "max_steps": 1}
        trainer = trainer_of(tmp_path, cache, rows, tokenizer, **options)
        trainer.say = said.append
        trainer.train()
    line = "The teacher's states of 22 rows stay on cpu: 5.6 kB (--states-on-device no reads them at each step)."
    assert said == [line]


@pytest.mark.parametrize(("teacher", "stream", "message"), [("live", False, "a live teacher"), ("", True, "a stream")])
def test_states_that_cannot_be_kept_are_refused(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, teacher: str, stream: bool, message: str
) -> None:
    source = tiny.make_model() if teacher else cache
    some = rows.to_iterable_dataset() if stream else rows
    with pytest.raises(RailkdError, match=f"states_on_device yes, got {message}.* Fix"):
        trainer_of(tmp_path, source, some, tokenizer, states_on_device="yes", max_steps=2)
    with pytest.raises(RailkdError, match="Expected states_on_device auto, yes or no, got 'maybe'"):
        tiny.arguments(tmp_path, states_on_device="maybe")
