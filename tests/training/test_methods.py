"""Every method in a real run, small: from one cache, by one word; and the gauges that watch it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from railkd import DistillationTrainer, mapping
from railkd.cli import main
from railkd.data.keys import KEY
from railkd.data.tokens import keyed_tokens
from railkd.errors import RailkdError
from railkd.jobs.distill import distill
from railkd.jobs.options import DistillOptions
from railkd.jobs.request import Request
from railkd.objectives import METHODS
from railkd.signals import Signals
from railkd.teacher import TeacherCache
from railkd.training.gauges import Gauging
from railkd.training.negatives import Negatives
from tiny import losses, make_model, make_small, make_trainer, text_rows, weights_of

READING = METHODS.keys() - {"finetune", "kd"}


def trainer_of(folder: Path, teacher: Any, rows: Dataset, tokenizer: Any, **settings: Any) -> DistillationTrainer:
    if settings.get("method") == "codir":
        settings = {"negatives": 4, "shared_size": 8} | settings
    student = settings.pop("student", None) or make_small(make_model(4, seed=11), dropout=settings.pop("dropout", 0.0))
    return make_trainer(folder, teacher, rows, tokenizer, student=student, **settings)


# ---- every method ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
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
    assert len(gauging.readings) == (2 if method.startswith("rail") else 0)


class Report(TrainerCallback):
    """Where `report_to` sends its numbers."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.told.append(dict(logs))


@pytest.mark.parametrize("method", ["rail-kd-l", "rail-kd-c", "rail-expected"])
def test_gauges_reach_the_log_and_whoever_reports_it(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, method: str
) -> None:
    report = Report()
    trainer = trainer_of(tmp_path, cache, rows, tokenizer, method=method, callbacks=[report])
    gauging = Gauging(trainer.probe, trainer.log, warn=lambda _: None)
    trainer.add_callback(gauging)
    trainer.train()
    kept = [entry for entry in trainer.state.log_history if "gauge_rank" in entry]
    told = [entry for entry in report.told if "gauge_rank" in entry]
    assert [entry["epoch"] for entry in kept] == [0, 1, 2]
    for entry, reported, reading in zip(kept, told, gauging.readings, strict=True):
        for name in ("rank", "target_rank", "variance", "term"):
            assert entry[f"gauge_{name}"] == reported[f"gauge_{name}"] == reading[name]
        assert 1 <= reading["rank"] <= 8 and 0 <= reading["variance"] <= 1 and 0 <= reading["term"] <= 4


@pytest.mark.parametrize("method", ["rail-kd-l", "pkd-last"])
def test_a_live_teacher_is_gauged_like_its_cache(
    tmp_path: Path, cache: TeacherCache, teacher_folder: Path, rows: Dataset, tokenizer: Any, method: str
) -> None:
    read = []
    for teacher in (cache, str(teacher_folder)):
        trainer = trainer_of(tmp_path, teacher, rows, tokenizer, method=method, max_steps=2)
        gauging = Gauging(trainer.probe, trainer.log, warn=lambda _: None)
        trainer.add_callback(gauging)
        trainer.train()
        read.append(gauging)
    for moment in ("before", "after"):
        np.testing.assert_allclose(read[0].similarity[moment], read[1].similarity[moment], atol=2e-4)
    for one, two in zip(read[0].readings, read[1].readings, strict=True):
        assert one == pytest.approx(two, rel=1e-3)


def test_the_gauged_term_is_that_of_the_blocks_that_were_drawn(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    # One batch of all rows without dropout and a learning rate of 0: every term of an epoch is the gauge's.
    settings: dict[str, Any] = {"per_device_train_batch_size": 22, "learning_rate": 0.0, "num_train_epochs": 6}
    trainer = trainer_of(tmp_path, cache, rows, tokenizer, method="rail-kd-l", **settings)
    gauging = Gauging(trainer.probe, trainer.log, warn=lambda _: None)
    trainer.add_callback(gauging)
    trainer.train()
    terms = losses(trainer, "intermediate")
    assert [reading["term"] for reading in gauging.readings] == pytest.approx([terms[0], *terms], rel=1e-5)
    assert len({round(term, 6) for term in terms}) > 1


def test_a_resumed_run_keeps_the_readings_from_the_start(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    read = []
    for resume in (False, True):
        trainer = trainer_of(tmp_path, cache, rows, tokenizer, save_strategy="epoch", num_train_epochs=3)
        gauging = Gauging(trainer.probe, trainer.log, warn=lambda _: None)
        trainer.add_callback(gauging)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6") if resume else None)
        read.append(gauging.readings)
    assert read[0] == read[1] and len(read[0]) == 4


# ---- the collapse ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "collapses"), [("rail-kd-l", True), ("rail-kd-c", True), ("rail-kd-w", False)])
def test_the_warning_fires_on_a_run_that_collapses_and_not_on_a_whitened_one(
    tmp_path: Path, teacher_folder: Path, tokenizer: Any, method: str, collapses: bool
) -> None:
    rows, said = text_rows(48, seed=3), []
    cache = TeacherCache.build(teacher_folder, rows, tmp_path / "cache", dtype="float32")
    trainer = trainer_of(
        tmp_path,
        cache,
        rows,
        tokenizer,
        method=method,
        projection_learning_rate=0.03,
        per_device_train_batch_size=8,
        num_train_epochs=6,
        lr_scheduler_type="constant",
    )
    gauging = Gauging(trainer.probe, trainer.log, warn=said.append)
    trainer.add_callback(gauging)
    trainer.train()
    assert len(said) == collapses and (gauging.warning is not None) == collapses  # once, in words
    first, last = gauging.readings[0], gauging.readings[-1]
    if collapses:
        assert "the intermediate term has collapsed" in said[0]
        assert last["term"] < 0.05 * first["term"] and last["variance"] < 0.01 and last["target_rank"] < 1.2
    else:
        assert last["term"] > 0.2 * first["term"] and last["target_rank"] == pytest.approx(
            first["target_rank"], rel=0.5
        )


# ---- draws -----------------------------------------------------------------------------------------


class Drawn(TrainerCallback):
    """Notes the draws that the objective was really given, one list an optimizer step."""

    def __init__(self, trainer: DistillationTrainer) -> None:
        self.steps: list[list[tuple[int, ...]]] = []
        trainer.model.objective.register_forward_pre_hook(self.note)

    def note(self, module: Any, args: Any) -> None:
        self.steps[-1].append(tuple(args[3].tolist()))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.steps.append([])


@pytest.mark.parametrize(
    ("settings", "index"),
    [
        ({"redraw": "step"}, lambda step: step),
        ({"method": "rail-step"}, lambda step: step),
        ({"method": "rail-cyclic"}, lambda step: step // 3),
        ({"method": "rail-fixed-random"}, lambda step: 0),
    ],
    ids=["redraw step", "rail-step", "rail-cyclic", "rail-fixed-random"],
)
def test_micro_batches_of_a_step_share_its_draw(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, settings: Any, index: Any
) -> None:
    trainer = trainer_of(tmp_path, cache, rows, tokenizer, gradient_accumulation_steps=2, seed=9, **settings)
    drawn = Drawn(trainer)
    trainer.add_callback(drawn)
    trainer.train()
    strategy = trainer.model.objective.draws.strategy
    assert len(drawn.steps) == 6 and all(len(step) == 2 for step in drawn.steps)  # 22 rows: 6 micro-batches an epoch
    for step, given in enumerate(drawn.steps):
        assert set(given) == {mapping.draw(2, 3, seed=9, epoch=index(step), strategy=strategy)}


def test_a_job_writes_its_gauges_and_the_coverage_of_what_was_drawn(
    tmp_path: Path, teacher_folder: Path, rows: Dataset
) -> None:
    rows.to_csv(tmp_path / "train.csv")
    options = DistillOptions(
        train=str(tmp_path / "train.csv"),
        output=str(tmp_path / "run"),
        teacher=str(teacher_folder),
        student_layers=3,
        quiet=True,
    )
    training = {"method": "rail-cyclic", "shared_size": 8, "num_train_epochs": 4, "bf16": False, "use_cpu": True}
    record = distill(
        Request(options, training | {"dataloader_pin_memory": False, "per_device_train_batch_size": 8}), lambda _: None
    )
    stored = json.loads((tmp_path / "run" / "draws.json").read_text())
    gauged = json.loads((tmp_path / "run" / "gauges.json").read_text())
    wanted = [mapping.draw(2, 3, seed=record.seed, epoch=epoch, strategy="cyclic") for epoch in range(4)]
    assert [tuple(draw) for draw in stored["draws"]] == wanted
    for block in (1, 2, 3):
        assert stored["coverage"][str(block)] == [sum(draw[i] == block for draw in wanted) for i in range(2)]
    assert sum(sum(counts) for counts in stored["coverage"].values()) == 4 * 2
    assert len(gauged["readings"]) == 5 and set(gauged["similarity"]) == {"before", "after"}
    assert any("gauge_rank" in entry for entry in record.curve)


# ---- the schedule ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "scale"),
    [
        ("constant", lambda step: 1.0),
        ("linear", lambda step: 1 - step / 12),
        ("0.5", lambda step: float(step < 6)),
        ("1.0", lambda step: 1.0),
    ],
)
def test_the_schedule_scales_the_intermediate_term_and_nothing_else(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, schedule: str, scale: Any
) -> None:
    trainer = trainer_of(tmp_path, cache, rows, tokenizer, weights=[1, 2, 5], intermediate_schedule=schedule)
    trainer.train()
    told = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(told) == 12
    for step, entry in enumerate(told):
        wanted = (entry["ce"] + 2 * entry["kd"] + 5 * scale(step) * entry["intermediate"]) / 8
        assert entry["loss"] == pytest.approx(wanted, abs=1e-5) and entry["intermediate"] > 0


@pytest.mark.parametrize("schedule", ["cosine", "0", "1.5", "-0.5", "nan"])
def test_a_schedule_that_is_none_is_refused(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, schedule: str
) -> None:
    with pytest.raises(RailkdError, match=f"got intermediate_schedule '{schedule}', wanted constant, linear"):
        trainer_of(tmp_path, cache, rows, tokenizer, intermediate_schedule=schedule)


# ---- CoDIR's negatives -----------------------------------------------------------------------------


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


# ---- what needs a cache ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "codir"}, "codir contrasts with other rows of a teacher cache, got a live teacher"),
        ({"method": "rail-kd-w"}, "rail-kd-w fits its targets on a teacher cache, got a live teacher"),
        ({"teacher_map": "centring"}, "rail-kd-l fits its targets on a teacher cache, got a live teacher"),
    ],
)
def test_a_live_teacher_is_refused_where_a_cache_is_needed(
    tmp_path: Path, teacher_folder: Path, rows: Dataset, tokenizer: Any, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(RailkdError, match=said):
        trainer_of(tmp_path, str(teacher_folder), rows, tokenizer, **settings)


@pytest.mark.parametrize("method", ["alp-kd", "ckd", "rail-expected", "rail-kd-c"])
def test_live_and_cached_teachers_train_alike(
    tmp_path: Path, cache: TeacherCache, teacher_folder: Path, rows: Dataset, tokenizer: Any, method: str
) -> None:
    told = []
    for teacher in (cache, str(teacher_folder)):
        trainer = trainer_of(tmp_path, teacher, rows, tokenizer, method=method, max_steps=4)
        trainer.train()
        told.append(losses(trainer))
    np.testing.assert_allclose(told[0], told[1], rtol=1e-5)


@pytest.mark.parametrize("method", sorted(READING - {"rail-kd-w"}))
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
    assert table.keys() == METHODS.keys() and "no teacher" in table["finetune"]
    for method in METHODS.keys() - {"finetune"}:
        try:
            trainer_of(tmp_path, str(teacher_folder), rows, tokenizer, method=method)
            refused = False
        except RailkdError as error:
            refused = "got a live teacher" in str(error)
        assert refused == ("a cache" in table[method]), method
        assert (f"{METHODS[method].pooling} states" in table[method]) == (method in READING)
