"""A stream of raw text with a live teacher: the same rows in the same order give the same student."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, IterableDataset

import tiny
from railkd import DistillationTrainer
from railkd.errors import RailkdError
from railkd.training.samplers import shuffled

STEPS = 6  # 22 rows by fours: the last batch is a ragged one


def in_order(rows: Dataset) -> Dataset:
    """The rows as the map-style run meets them."""
    return rows.select(shuffled(len(rows), seed=42, epoch=0).tolist())


def generated(rows: Dataset) -> IterableDataset:
    """A stream that does not know its columns."""

    def one_by_one() -> Iterator[dict[str, Any]]:
        yield from rows

    return IterableDataset.from_generator(one_by_one)


STREAMS: dict[str, Callable[[Dataset], IterableDataset]] = {
    "from a dataset": lambda rows: rows.to_iterable_dataset(),
    "from a generator": generated,
}


@pytest.mark.parametrize("method", ["rail-kd-l", "kd"])
@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("own_tokenizer", [True, False], ids=["one tokenizer", "two tokenizers"])
def test_a_stream_trains_as_its_rows_do(
    method: str, kind: str, own_tokenizer: bool, teacher_folder: Path, rows: Dataset, tokenizer: Any, tmp_path: Path
) -> None:
    theirs = None if own_tokenizer else tiny.make_tokenizer([*reversed(tiny.WORDS)])
    settings: dict[str, Any] = {
        "method": method,
        "max_steps": STEPS,
        "length_groups": False,
        "teacher_processing_class": theirs,
    }
    trained = {}
    for name, dataset in (("map", rows), ("stream", STREAMS[kind](in_order(rows)))):
        student = tiny.make_small(teacher_folder, 3, dropout=0.0)
        teacher = tiny.make_model()
        trainer = tiny.make_trainer(tmp_path / name, teacher, dataset, tokenizer, student=student, **settings)
        trainer.train()
        trained[name] = tiny.weights_of(trainer.model), tiny.losses(trainer)
    assert trained["map"][1] == pytest.approx(trained["stream"][1], rel=1e-5) and len(trained["map"][1]) == STEPS
    for name, tensor in trained["map"][0].items():
        torch.testing.assert_close(tensor, trained["stream"][0][name], msg=name)


class Draws(DistillationTrainer):
    """Notes the drawn blocks of every step."""

    def compute_loss(self, *args: Any, **options: Any) -> Any:
        self.drawn = [*getattr(self, "drawn", []), self.current_draw()]
        return super().compute_loss(*args, **options)


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("redraw", ["epoch", "step", "never"])
def test_the_draws_of_a_stream_are_those_of_its_rows(
    redraw: str, accumulated: int, teacher_folder: Path, rows: Dataset, tokenizer: Any, tmp_path: Path
) -> None:
    rows = rows.select(range(16))  # four batches a pass
    drawn = []
    for dataset in (rows, rows.to_iterable_dataset()):
        settings = {"gradient_accumulation_steps": accumulated, "max_steps": 13 // accumulated, "seed": 3}
        trainer = Draws(
            tiny.make_small(teacher_folder, 3),
            tiny.make_model(6),
            tiny.arguments(tmp_path, method="rail-kd-l", redraw=redraw, gauges=False, **settings),
            train_dataset=dataset,
            processing_class=tokenizer,
        )
        trainer.train()
        drawn.append(trainer.drawn)
    assert drawn[0] == drawn[1] and len(drawn[0]) == 13 // accumulated * accumulated
    if redraw == "epoch":
        assert [drawn[0][at] != drawn[0][at - 1] for at in range(1, 12)] == [at % 4 == 0 for at in range(1, 12)]


@pytest.mark.parametrize(("accumulated", "saved"), [(1, "steps"), (2, "steps"), (1, "epoch")])
def test_a_stream_resumes_where_it_was(
    accumulated: int, saved: str, teacher_folder: Path, rows: Dataset, tokenizer: Any, tmp_path: Path
) -> None:
    """In each pass the rows have another order; four batches are a pass, or five where gradients are added up."""
    stream = rows.select(range(16 if accumulated == 1 else 20)).to_iterable_dataset().shuffle(seed=5, buffer_size=9)
    settings = {"save_strategy": saved, "save_steps": 1, "max_steps": 10 // accumulated, "redraw": "epoch"}
    settings |= {"gradient_accumulation_steps": accumulated, "logging_steps": 1}

    def train(folder: Path, checkpoint: Path | None = None) -> tuple[Any, list[dict[str, float]]]:
        student = tiny.make_small(teacher_folder, 3, dropout=0.1)
        trainer = tiny.make_trainer(folder, tiny.make_model(6), stream, tokenizer, student=student, **settings)
        trainer.train(str(checkpoint) if checkpoint else None)
        log = [
            {k: v for k, v in entry.items() if "per_second" not in k and "runtime" not in k}
            for entry in trainer.state.log_history
        ]
        return tiny.weights_of(trainer.model), log

    weights, log = train(tmp_path / "whole")
    checkpoints = sorted((tmp_path / "whole").glob("checkpoint-*"))
    assert len(checkpoints) == {"epoch": 3, "steps": 10 // accumulated}[saved]
    for checkpoint in checkpoints[:2] if saved == "epoch" else checkpoints[3 // accumulated :: 4 // accumulated]:
        again, told = train(tmp_path / checkpoint.name, checkpoint)
        assert all(torch.equal(weights[name], again[name]) for name in weights), checkpoint.name
        assert told == log, checkpoint.name


def test_a_stream_is_evaluated_too(teacher_folder: Path, rows: Dataset, tokenizer: Any, tmp_path: Path) -> None:
    student = tiny.make_small(teacher_folder, 3)
    trainer = tiny.make_trainer(tmp_path, None, rows, tokenizer, student=student, method="finetune")
    trainer.args.per_device_eval_batch_size = len(rows)  # the loss of a stream is a mean over batches
    assert trainer.evaluate(rows.to_iterable_dataset())["eval_loss"] == pytest.approx(
        trainer.evaluate(rows)["eval_loss"], rel=1e-5
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"method": "kd"}, "wanted max_steps"), ({"method": "codir", "max_steps": 2}, "wanted a Dataset")],
)
def test_what_a_stream_does_not_let_is_said_at_once(
    settings: dict[str, Any], message: str, teacher_folder: Path, rows: Dataset, tokenizer: Any, tmp_path: Path
) -> None:
    arguments = tiny.arguments(tmp_path, **settings)
    with pytest.raises(RailkdError, match=message):
        DistillationTrainer(
            tiny.make_small(teacher_folder, 3),
            tiny.make_model(),
            arguments,
            train_dataset=rows.to_iterable_dataset(),
            processing_class=tokenizer,
        )
