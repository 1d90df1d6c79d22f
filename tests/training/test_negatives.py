"""CoDIR's negatives: rows of other classes, read from the cache, drawn by optimizer step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from railkd.data.keys import KEY
from railkd.data.tokens import keyed_tokens
from railkd.signals import Signals
from railkd.teacher import TeacherCache
from railkd.training.negatives import Negatives
from training.runs import trainer_of


def negatives_of(cache: TeacherCache, rows: Dataset, tokenizer: Any, labels: Any, **settings: Any) -> tuple[Any, Any]:
    keys = keyed_tokens(rows, tokenizer, max_length=128).keys
    return Negatives(cache, keys, labels, **({"pooling": "mean", "count": 5, "seed": 0} | settings)), keys


def test_negatives_are_of_other_classes_and_read_from_the_cache(
    cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    classes = [i % 3 for i in range(len(rows))]
    classes[0] = classes[7] = -100
    source, keys = negatives_of(cache, rows, tokenizer, classes)
    class_of = {tuple(key): c for key, c in zip(keys.tolist(), classes, strict=True)}
    batch = {KEY: torch.from_numpy(keys), "labels": torch.tensor(classes)}
    for step in range(20):
        held = source(batch, step=step)
        drawn = source.draw(step)
        assert drawn.shape == (4, 5, 2)  # one group a class and one for rows without
        for row, own in enumerate(classes):
            group = drawn[int(held["negative_group"][row])]
            others = [class_of[tuple(key)] for key in group.tolist()]
            assert own == -100 or all(c not in (own, -100) for c in others)
            itself = (group == keys[row]).all(axis=1)
            assert (held["negative_keep"][row].numpy() == ~itself).all()
            states = cache({KEY: torch.from_numpy(group)}, "mean").states
            assert torch.equal(held["negative_states"][held["negative_group"][row]], states)


def test_only_the_classes_of_the_batch_are_read_and_the_same_rows_for_each_micro_batch(
    cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    classes = [i % 5 for i in range(len(rows))]
    source, keys = negatives_of(cache, rows, tokenizer, classes)

    def of(chosen: list[int]) -> Any:
        held = source(
            {KEY: torch.from_numpy(keys[chosen]), "labels": torch.tensor([classes[i] for i in chosen])}, step=3
        )
        return held["negative_states"], held["negative_states"][held["negative_group"]], held["negative_keep"]

    read, whole, kept = of([0, 1, 5, 6])
    assert len(read) == 2  # classes 0 and 1
    for i, row in enumerate([0, 1, 5, 6]):
        _, alone, keep = of([row])
        assert torch.equal(alone[0], whole[i]) and torch.equal(keep[0], kept[i])


@pytest.mark.parametrize("labels", [None, "floats", "one class"])
def test_without_classes_any_other_row_is_a_negative(
    cache: TeacherCache, rows: Dataset, tokenizer: Any, labels: str | None
) -> None:
    given = {None: None, "floats": [0.5] * 22, "one class": [0] * 22}[labels]
    source, keys = negatives_of(cache, rows, tokenizer, given, count=30)  # more than there are: with repetition
    batch = {KEY: torch.from_numpy(keys)} | ({} if given is None else {"labels": torch.tensor(given)})
    held = source(batch, step=0)
    assert held["negative_states"].shape[1] == 30 and held["negative_keep"].any(dim=1).all()
    itself = (
        (held["negative_states"][held["negative_group"]] == cache(batch, "mean").states.unsqueeze(1)).flatten(2).all(-1)
    )
    assert not (itself & held["negative_keep"]).any()


def test_negatives_are_a_pure_function_of_seed_and_step(cache: TeacherCache, rows: Dataset, tokenizer: Any) -> None:
    classes = [i % 2 for i in range(len(rows))]
    one, _ = negatives_of(cache, rows, tokenizer, classes)
    two, _ = negatives_of(cache, rows, tokenizer, classes)
    other, _ = negatives_of(cache, rows, tokenizer, classes, seed=1)
    later = [two.draw(step) for step in (5, 3, 4)]  # in another order
    np.random.seed(1)
    for step, drawn in zip((5, 3, 4), later, strict=True):
        assert np.array_equal(one.draw(step), drawn) and not np.array_equal(other.draw(step), drawn)
        assert all(len(np.unique(group, axis=0)) == 5 for group in drawn)  # none twice while there are enough
    assert not np.array_equal(one.draw(3), one.draw(4))


def test_the_trainer_contrasts_by_optimizer_step_and_with_the_runs_seed(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    trainer = trainer_of(tmp_path, cache, rows, tokenizer, method="codir", gradient_accumulation_steps=2, seed=5)
    seen: list[Signals] = []
    trainer.model.objective.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    trainer.train()
    labels = [["neg", "pos"].index(label) for label in rows["label"]]
    source, _ = negatives_of(cache, rows, tokenizer, labels, count=4, seed=5)
    for number, signals in enumerate(seen):
        held = signals.negatives
        assert held is not None
        pools = cache({KEY: torch.from_numpy(source.draw(number // 2)).flatten(0, 1)}, "mean").states.unflatten(
            0, (3, 4)
        )
        assert all(any(torch.equal(states, pool) for pool in pools) for states in held.states)
