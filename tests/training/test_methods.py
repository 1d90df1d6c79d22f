"""Every method trains a tiny student, from one cache and from a live teacher."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from railkd.cli import main
from railkd.errors import RailkdError
from railkd.objectives import METHODS
from railkd.objectives.outside import known_methods
from railkd.teacher import TeacherCache
from railkd.training.gauges import Gauging
from thorough import methods
from tiny import losses, make_model, weights_of
from training.runs import run, trainer_of

READING = {name for name, spec in METHODS.items() if spec.pooling}


@pytest.mark.parametrize("method", methods())
def test_every_method_trains_from_the_one_cache_and_is_gauged_without_a_trace(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, method: str
) -> None:
    trained = []
    for gauged in (False, True):
        trainer = trainer_of(tmp_path, cache, rows, tokenizer, method=method, dropout=0.1, max_steps=3)
        gauging = Gauging(trainer.probe, trainer.log, warn=lambda _: None)
        if gauged:
            trainer.add_callback(gauging)
        before = weights_of(trainer.model.student)
        trainer.train()
        assert np.isfinite(losses(trainer)).all() and len(losses(trainer)) == 3
        trained.append(weights_of(trainer.model))
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])  # to the last bit
    assert any(not torch.equal(before[name], trained[0][f"student.{name}"]) for name in before)
    if method in READING:
        assert {moment: np.shape(matrix) for moment, matrix in gauging.similarity.items()} == {
            "before": (3, 4),
            "after": (3, 4),
        }
        assert all(0 <= value <= 1 for matrix in gauging.similarity.values() for row in matrix for value in row)
    assert len(gauging.readings) == (2 if "projected" in vars(METHODS[method].objective) else 0)


@pytest.mark.parametrize("share", [0.5, 0.25, 0.0, 1.0])
def test_a_method_in_stages_trains_the_last_block_first(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, share: float
) -> None:
    """Each loss of the log is that of its stage: the term and a tenth of KD, then the mean of CE and KD."""
    trainer = trainer_of(tmp_path, cache, rows, tokenizer, method="last-block", first_stage=share, max_steps=8)
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "intermediate" in entry]
    assert len(log) == 8
    for step, entry in enumerate(log):
        first = entry["intermediate"] + 0.1 * entry["kd"]
        wanted = first if step < share * 8 else (entry["ce"] + entry["kd"]) / 2
        assert entry["loss"] == pytest.approx(wanted, rel=1e-4)


NEED_A_CACHE = {
    "codir contrasts with other rows of": {"method": "codir"},
    "gram fits its targets on": {"method": "gram"},
    "last-block fits its targets on": {"method": "last-block"},
    "rail-nce fits its targets on": {"method": "rail-nce"},
    "rail-kd-w fits its targets on": {"method": "rail-kd-w"},
    "rail-kd-l fits its targets on": {"teacher_map": "centring"},
}


@pytest.mark.parametrize(("reason", "settings"), NEED_A_CACHE.items())
def test_a_live_teacher_is_refused_where_a_cache_is_needed(
    tmp_path: Path, teacher_folder: Path, rows: Dataset, tokenizer: Any, reason: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(RailkdError, match=f"{reason} a teacher cache, got a live teacher"):
        trainer_of(tmp_path, str(teacher_folder), rows, tokenizer, **settings)


@pytest.mark.parametrize("method", ["alp-kd", "ckd", "rail-expected", "rail-kd-c"])
def test_live_and_cached_teachers_train_alike(
    tmp_path: Path, cache: TeacherCache, teacher_folder: Path, rows: Dataset, tokenizer: Any, method: str
) -> None:
    settings = {"method": method, "max_steps": 4}
    teachers = (cache, str(teacher_folder))
    told = [losses(run(tmp_path, teacher, rows, tokenizer, **settings)) for teacher in teachers]
    np.testing.assert_allclose(told[0], told[1], rtol=1e-5)


@pytest.mark.parametrize("method", methods(sorted(READING - {"rail-kd-w"})))
def test_a_narrower_student_is_taught_by_every_method(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, method: str
) -> None:
    student = make_model(3, seed=5, width=8, dropout=0.0)
    trainer = trainer_of(tmp_path, cache, rows, tokenizer, method=method, student=student, max_steps=2)
    trainer.train()
    told = losses(trainer, "intermediate")
    assert len(told) == 2 and all(math.isfinite(term) and term > 0 for term in told)


def test_the_printed_cost_names_a_cache_where_a_live_teacher_is_refused(
    tmp_path: Path, teacher_folder: Path, rows: Dataset, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["methods"]) == 0
    table = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if line.startswith("│")}
    assert list(table) == known_methods() and "no teacher" in table["finetune"]
    for method in METHODS.keys() - {"finetune"}:
        try:
            trainer_of(tmp_path, str(teacher_folder), rows, tokenizer, method=method)
            refused = False
        except RailkdError as error:
            refused = "got a live teacher" in str(error)
        assert refused == ("a cache" in table[method]), method
        assert (f"{METHODS[method].pooling} states" in table[method]) == (method in READING)
