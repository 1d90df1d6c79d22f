"""A teacher and a student may differ in family, vocabulary, width and depth: they share only the texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from models.families.table import FAMILIES, SGD, make_model, make_tokenizer
from railkd.errors import RailkdError
from railkd.objectives import METHODS
from railkd.teacher import LiveTeacher, TeacherCache
from tiny import WORDS, losses, make_trainer, text_rows, weights_of

#: Half of the words in another order: the same text gets other tokens, some of them unknown.
OTHER_WORDS = WORDS[::-2]


@dataclass(frozen=True)
class Pair:
    teacher: str
    student: str
    width: int = 16
    blocks: int = 2
    side: str = "right"


PAIRS = {
    "roberta -> bert, wider": Pair("roberta", "bert", width=24),
    "decoder -> encoder": Pair("llama", "minilm", width=8, side="left"),
    "encoder -> decoder": Pair("deberta-v3", "qwen3", width=32),
    "t5 -> distilbert": Pair("t5", "distilbert"),
    "equal depth": Pair("electra", "mpnet", blocks=4),
}


def make_pair(pair: Pair) -> tuple[Any, Any, Any, Any]:
    """Return the teacher, its tokenizer, the student and its tokenizer."""
    theirs, ours = FAMILIES[pair.teacher], FAMILIES[pair.student]
    names = ("dim", "n_layers") if pair.student == "distilbert" else ("hidden_size", "num_hidden_layers")
    sizes = dict(zip(names, (pair.width, pair.blocks), strict=True))
    student = make_model(ours, seed=1, **sizes)
    return make_model(theirs), make_tokenizer(theirs, pair.side), student, make_tokenizer(ours, words=OTHER_WORDS)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=list(PAIRS))
def test_a_pair_learns_alike_from_a_cache_and_live(pair: Pair, tmp_path: Path) -> None:
    rows: Dataset = text_rows(10)
    found = []
    for live in (False, True):
        teacher, theirs, student, ours = make_pair(pair)
        source: Any = LiveTeacher(teacher, theirs)
        if not live:
            source = TeacherCache.build(teacher, rows, tmp_path / "cache", tokenizer=theirs, dtype="float32")
        before = weights_of(student)
        trainer = make_trainer(tmp_path, source, rows, ours, student=student, max_steps=3, **SGD)
        trainer.train()
        assert torch.tensor(losses(trainer)).isfinite().all() and losses(trainer, "intermediate")[0] > 0
        assert any(not torch.equal(tensor, before[name]) for name, tensor in weights_of(student).items())
        found.append((losses(trainer), weights_of(trainer.model)))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    for name, tensor in found[0][1].items():
        torch.testing.assert_close(tensor, found[1][1][name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.fixture(scope="module")
def deeper(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, TeacherCache, Dataset]:
    """Return a student of 6 blocks, its tokenizer, the cache of a teacher of 4 blocks, and its rows."""
    rows = text_rows(10)
    teacher, theirs, student, ours = make_pair(Pair("roberta", "bert", blocks=6))
    folder = tmp_path_factory.mktemp("deeper") / "cache"
    cache = TeacherCache.build(teacher, rows, folder, tokenizer=theirs, dtype="float32", pooling=["mean", "cls"])
    return student, ours, cache, rows


def test_a_student_deeper_than_its_teacher_learns_from_logits(deeper: Any, tmp_path: Path) -> None:
    student, ours, cache, rows = deeper
    trainer = make_trainer(tmp_path, cache, rows, ours, student=student, method="kd", max_steps=2)
    trainer.train()
    assert torch.tensor(losses(trainer)).isfinite().all() and losses(trainer, "kd")[0] > 0


NEEDS_A_MAPPING = [name for name in METHODS if name.startswith(("rail", "pkd"))]


@pytest.mark.parametrize("method", NEEDS_A_MAPPING)
def test_methods_that_map_blocks_refuse_a_student_deeper_than_its_teacher(
    method: str, deeper: Any, tmp_path: Path
) -> None:
    student, ours, cache, rows = deeper
    reason = "a student of 6 blocks and a teacher of 4|5 matched student blocks but only 3 candidate teacher blocks"
    with pytest.raises(RailkdError, match=reason):
        make_trainer(tmp_path, cache, rows, ours, student=student, method=method, shared_size=None)
