"""``--torch-compile`` compiles once for a run: not for each draw, epoch or length, and with equal numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch._dynamo.utils import clear_compilation_metrics, get_compilation_metrics

from railkd import TeacherCache
from tiny import losses, make_model, make_small
from training.runs import trainer_of


def graphs() -> Counter[tuple[str, int]]:
    """Count how often each piece of code was compiled to a graph with operations."""
    found = [metric for metric in get_compilation_metrics() if metric.graph_op_count]
    return Counter((str(metric.co_filename), int(metric.co_firstlineno or 0)) for metric in found)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's compiler looks at it
def test_three_draws_three_epochs_and_unlike_lengths_are_one_compilation(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    some = rows.select(range(10))  # batches of 4, 4 and 2
    options: dict[str, Any] = {"num_train_epochs": 3, "seed": 5}
    student = make_small(make_model(4, seed=11), 2, dropout=0.0)
    plain = trainer_of(tmp_path / "plain", cache, some, tokenizer, student=student, **options)
    plain.train()
    assert not graphs()
    torch._dynamo.reset()
    clear_compilation_metrics()
    student = make_small(make_model(4, seed=11), 2, dropout=0.0)
    ours = trainer_of(
        *(tmp_path / "compiled", cache, some, tokenizer),
        **{"student": student, "torch_compile": True, "torch_compile_backend": "eager", **options},
    )
    draws, lengths = set(), set()
    collate = ours.data_collator

    def seen(batch: list[Any]) -> Any:
        found = collate(batch)
        lengths.add(tuple(found["input_ids"].shape))
        return found

    ours.data_collator = seen
    ours.train()
    draws = set(ours.model.objective.draws.schedule(5, steps=9, epochs=3))  # type: ignore[union-attr]
    assert len(draws) >= 2 and len({length for _, length in lengths}) >= 3 and len({count for count, _ in lengths}) == 2
    times = graphs()
    clear_compilation_metrics()
    assert times and max(times.values()) <= 2, times
    torch.testing.assert_close(losses(ours), losses(plain), atol=1e-5, rtol=1e-5)
