"""Laws of a training run: the right weights move, splitting and padding change nothing, doomed runs are refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset
from torch import Tensor

from railkd import DistillationTrainer, Distiller
from railkd.data.collator import PaddingCollator
from railkd.errors import RailkdError
from railkd.models import load_classifier
from railkd.objectives import Objective, build_objective, states_of
from railkd.signals import Signals
from railkd.teacher import TeacherCache
from thorough import methods
from tiny import CountingTeacher, arguments, losses, make_model, make_small, make_trainer, text_rows, weights_of
from training.runs import far, run, trainer_of

SETTINGS: dict[str, Any] = {
    "optim": "sgd",
    "learning_rate": 0.1,
    "lr_scheduler_type": "constant",
    "length_groups": False,
}


# ---- what moves ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", methods())
def test_student_and_projections_move(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, method: str
) -> None:
    trainer = trainer_of(tmp_path, cache, rows, tokenizer, method=method, max_steps=2)
    before = weights_of(trainer.model)
    trainer.train()
    after = weights_of(trainer.model)
    trainable = [name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad]
    # A key's bias shifts all scores of a query alike: softmax does not see it.
    still = [name for name in trainable if torch.equal(before[name], after[name]) and "key.bias" not in name]
    assert still == [] and np.isfinite(losses(trainer)).all()
    frozen = [name for name, parameter in trainer.model.named_parameters() if not parameter.requires_grad]
    assert all(torch.equal(before[name], after[name]) for name in frozen)


def test_the_live_teacher_stays_as_it_was_and_is_no_part_of_the_model(
    tmp_path: Path, teacher_folder: Path, rows: Dataset, tokenizer: Any
) -> None:
    teacher = load_classifier(teacher_folder)
    before = weights_of(teacher)
    trainer = run(tmp_path, teacher, rows, tokenizer, max_steps=3)
    assert far(before, weights_of(teacher)) == 0 and not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not {id(p) for p in teacher.parameters()} & {id(p) for p in trainer.model.parameters()}


def test_the_loss_goes_down(tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any) -> None:
    trainer = run(tmp_path, cache, rows, tokenizer, num_train_epochs=15, learning_rate=5e-3)
    told = losses(trainer)
    assert np.mean(told[-6:]) < 0.5 * np.mean(told[:6])


def test_the_projections_may_have_a_learning_rate_of_their_own(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    moved = {}
    for rate in (None, 0.0, 0.1):
        settings = {"projection_learning_rate": rate, "max_steps": 2, "weight_decay": 0.01}
        trainer = trainer_of(tmp_path, cache, rows, tokenizer, **settings)
        before = weights_of(trainer.model.objective), weights_of(trainer.model.student)
        trainer.train()
        moved[rate] = far(before[0], weights_of(trainer.model.objective))
        assert far(before[1], weights_of(trainer.model.student)) > 0
    assert moved[0.0] == 0 < moved[None] < 0.1 * moved[0.1]


# ---- what changes nothing -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "rail-kd-l", "redraw": "step"},
        {"method": "rail-kd-c", "class_weights": [0.5, 4.0], "class_weights_on_logits": True},
        {"method": "finetune", "max_grad_norm": 0.0, "class_weights": [0.5, 4.0]},
    ],
    ids=["rail-kd-l by step", "rail-kd-c with class weights", "finetune with class weights"],
)
def test_accumulated_micro_batches_train_like_one_batch(
    tmp_path: Path, cache: TeacherCache, tokenizer: Any, settings: dict[str, Any]
) -> None:
    rows = text_rows(labels="some")  # a third without labels; 22 rows: a last step of 6
    told, trained = [], []
    for size, steps in ((8, 1), (1, 8), (4, 2)):
        trainer = run(
            tmp_path,
            cache,
            rows,
            tokenizer,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            **SETTINGS,
            **settings,
        )
        assert trainer.state.global_step == 6
        told.append(losses(trainer))
        trained.append(weights_of(trainer.model))
    for other in (1, 2):
        np.testing.assert_allclose(told[other], told[0], atol=1e-6)
        assert far(trained[other], trained[0]) < 1e-6
    start = weights_of(make_small(make_model(4, seed=11), 3))
    assert (
        far(start, {name.removeprefix("student."): t for name, t in trained[0].items() if name.startswith("student.")})
        > 1e-3
    )


def test_regression_accumulates_alike(tmp_path: Path, tokenizer: Any) -> None:
    rows = text_rows(labels="numbers")
    teacher = make_model(4, num_labels=1, id2label={0: "score"}, label2id={"score": 0})
    cache = TeacherCache.build(teacher, rows, tmp_path / "cache", tokenizer=tokenizer, dtype="float32")
    trained = []
    for size, steps in ((8, 1), (1, 8)):
        trainer = run(
            tmp_path,
            cache,
            rows,
            tokenizer,
            student=make_small(teacher, 2, dropout=0.0),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            **SETTINGS,
        )
        trained.append(weights_of(trainer.model))
        assert np.isfinite(losses(trainer)).all()
    assert far(*trained) < 1e-6


def test_more_padding_changes_nothing(tmp_path: Path, teacher_folder: Path, rows: Dataset, tokenizer: Any) -> None:
    class Wide(PaddingCollator):
        """Pads every batch by 20 tokens more than it needs, of the teacher's and the student's."""

        def __call__(self, batch: Any) -> dict[str, Tensor]:
            narrow = super().__call__(batch)
            wide = {n: torch.nn.functional.pad(v, (0, 20)) for n, v in narrow.items() if v.ndim == 2 and "key" not in n}
            return narrow | wide

    for method in ("rail-kd-l", "pkd-last"):
        told, logits = [], []
        for kind in (PaddingCollator, Wide):
            trainer = run(
                tmp_path,
                teacher_folder,
                rows,
                tokenizer,
                method=method,
                data_collator=kind(tokenizer, tokenizer),
                **SETTINGS,
            )
            told.append(losses(trainer))
            logits.append(trainer.predict(rows).predictions)
        np.testing.assert_allclose(told[0], told[1], rtol=1e-5)
        np.testing.assert_allclose(logits[0], logits[1], rtol=1e-4, atol=1e-5)


def test_the_seed_decides_all(tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any) -> None:
    found = []
    for noise, seed in ((1, 5), (2, 5), (3, 6)):
        torch.manual_seed(noise)
        found.append(weights_of(run(tmp_path, cache, rows, tokenizer, dropout=0.1, seed=seed, max_steps=3).model))
    assert far(found[0], found[1]) == 0 < far(found[0], found[2])


# ---- the log ------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 4, 5])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_logged_loss_is_the_weighted_sum_of_the_logged_terms(
    tmp_path: Path, cache: TeacherCache, tokenizer: Any, steps: int, accumulation: int
) -> None:
    trainer = run(
        tmp_path,
        cache,
        text_rows(labels="some"),
        tokenizer,
        weights=[1, 2, 3],
        logging_steps=steps,
        gradient_accumulation_steps=accumulation,
    )
    told = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert told
    for entry in told:
        assert entry["loss"] == pytest.approx((entry["ce"] + 2 * entry["kd"] + 3 * entry["intermediate"]) / 6, abs=1e-5)


# ---- teachers and rows --------------------------------------------------------------------------


def test_finetune_needs_no_teacher_and_reads_none(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    teacher = CountingTeacher(cache)
    without = run(tmp_path, None, rows, tokenizer, method="finetune", max_steps=3)
    beside = run(tmp_path, teacher, rows, tokenizer, method="finetune", max_steps=3)
    assert teacher.calls == 0 and far(weights_of(without.model), weights_of(beside.model)) == 0
    with pytest.raises(RailkdError, match="method 'kd' learns from a teacher, got none"):
        run(tmp_path, None, rows, tokenizer, method="kd")


def test_rows_without_any_label_train_by_the_teacher_alone(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    trainer = run(tmp_path, cache, rows.remove_columns("label"), tokenizer, max_steps=3)
    assert losses(trainer, "ce") == [0, 0, 0] and min(losses(trainer, "kd") + losses(trainer, "intermediate")) > 0


def test_labels_are_read_by_name(tmp_path: Path, rows: Dataset, tokenizer: Any) -> None:
    """The same rows with text labels, their indices, and a ClassLabel in the other order."""
    swapped = rows.cast_column("label", ClassLabel(names=["pos", "neg"]))
    indices = rows.remove_columns("label").add_column("label", [["neg", "pos"].index(label) for label in rows["label"]])
    found = [
        weights_of(run(tmp_path, None, data, tokenizer, method="finetune", max_steps=3).model)
        for data in (rows, swapped, indices)
    ]
    assert far(found[0], found[1]) == 0 == far(found[0], found[2])


def test_rows_tokenised_beforehand_train_alike(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    from railkd.data.keys import example_key

    ready = rows.map(
        lambda row: tokenizer(row["text"]) | {"example_key": example_key(row["text"])}, remove_columns="text"
    )
    found = [weights_of(run(tmp_path, cache, data, tokenizer, max_steps=3).model) for data in (rows, ready)]
    assert far(*found) == 0
    with pytest.raises(RailkdError, match="need a key column 'example_key'"):
        run(tmp_path, cache, ready.remove_columns("example_key"), tokenizer)


def test_what_would_doom_a_run_is_refused_before_it_starts(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    def start(data: Dataset = rows, teacher: Any = cache, student: Any = None, **settings: Any) -> None:
        make_trainer(
            tmp_path / "run", teacher, data, tokenizer, student=student or make_small(make_model()), **settings
        )

    swapped = {"id2label": {0: "pos", 1: "neg"}, "label2id": {"pos": 0, "neg": 1}}
    with pytest.raises(RailkdError, match="labels in another order: student pos, neg; teacher neg, pos"):
        start(student=make_small(make_model(**swapped)))
    renamed = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    with pytest.raises(RailkdError, match="labels with other names"):
        start(student=make_small(make_model(**renamed)))
    with pytest.raises(RailkdError, match="the student has 3 outputs, the teacher 2"):
        start(student=make_small(make_model(id2label={0: "a", 1: "b", 2: "c"}, label2id={"a": 0, "b": 1, "c": 2})))
    with pytest.raises(RailkdError, match="training rows are not in the cache"):
        start(text_rows(22, seed=99))
    with pytest.raises(RailkdError, match="the student's classes 'neg' and 'pos' .*got the label 'meh'"):
        start(rows.map(lambda row: {"label": "meh"}))
    with pytest.raises(RailkdError, match="only 3 candidate teacher blocks"):
        start(student=make_model(5))
    with pytest.raises(RailkdError, match="got no student"):
        DistillationTrainer(
            teacher_model=cache, args=arguments(tmp_path / "run"), train_dataset=rows, processing_class=tokenizer
        )
    only_mean = TeacherCache.build(make_model(), rows, tmp_path / "cache", tokenizer=tokenizer)
    with pytest.raises(RailkdError, match="stores the pooling mean, but 'cls' is wanted"):
        start(teacher=only_mean, method="pkd-skip")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor has no effect in railkd. The teacher's logits"),
        *(
            ({name: value}, f"from 0 to .*, got {name} {value}")
            for name in ("seed", "data_seed")
            for value in (-1, 2**64)
        ),
        ({"method": "rail-kd"}, "unknown method 'rail-kd'"),
        ({"weights": [1.0, -1.0, 1.0]}, "got weights"),
        ({"weights": [0.0, 0.0, 0.0]}, "got weights"),
        ({"max_length": 0}, "got max_length 0"),
        ({"temperature": 0.0}, "got temperature 0"),
        ({"temperature": float("nan")}, "got temperature nan"),
        ({"alpha": "1,x"}, "got alpha '1,x'"),
        ({"redraw": "steps"}, "unknown redraw 'steps'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(RailkdError, match=said):
        make_trainer(tmp_path, cache, rows, tokenizer, student=make_small(make_model()), **settings)


def test_the_draw_of_an_epoch_is_that_of_the_mapping(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    from transformers import TrainerCallback

    from railkd import mapping

    class Watcher(TrainerCallback):
        """Notes the draw at the start of each optimizer step."""

        def __init__(self) -> None:
            self.seen: list[tuple[int, tuple[int, ...]]] = []
            self.trainer: Any = None

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.seen.append((state.global_step, self.trainer.current_draw()))

    watcher = Watcher()
    trainer = make_trainer(
        tmp_path,
        cache,
        rows,
        tokenizer,
        student=make_small(make_model()),
        seed=7,
        num_train_epochs=4,
        callbacks=[watcher],
    )
    watcher.trainer = trainer
    trainer.train()
    assert watcher.seen == [(step, mapping.draw(2, 3, seed=7, epoch=step // 6)) for step in range(24)]
    assert len({draw for _, draw in watcher.seen}) > 1


class LastBlocks(Objective):
    """Pulls the last blocks together; equal widths."""

    pooling = "mean"

    def intermediate(self, student: Signals, teacher: Signals, draw: Any) -> torch.Tensor:
        ours, theirs = self.student_states(student), states_of(teacher, self.teacher_shape, "teacher")
        return (ours[:, -1] - theirs[:, -1].to(ours)).square().mean()


def test_an_objective_of_ones_own_takes_the_place_of_the_method(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    """As a class, as an instance and as the address of the class it trains the same student."""
    trained = []
    student = make_small(make_model())
    instance = LastBlocks((student.config.num_hidden_layers, 16), cache.info.shape, weights=[1, 1, 2])
    ways: tuple[dict[str, Any], ...] = (
        {"objective": LastBlocks, "weights": [1.0, 1.0, 2.0]},
        {"objective": instance},
        {"method": f"{__file__}:LastBlocks", "weights": [1.0, 1.0, 2.0]},
    )
    for options in ways:
        options |= {"student": copy.deepcopy(student), "max_steps": 2, "shared_size": None}
        trainer = make_trainer(tmp_path, cache, rows, tokenizer, **options)
        trainer.train()
        assert trainer.model.pooling == "mean" and trainer.model.term_names == ["ce", "kd", "intermediate"]
        trained.append(weights_of(trainer.model.student))
    assert trainer.method.paper == "-" and isinstance(instance, LastBlocks)
    assert all(torch.equal(trained[0][name], other[name]) for other in trained[1:] for name in other)
    for wrong in ({"method": "kd"}, {"shared_size": 8}):
        with pytest.raises(RailkdError, match="exclude each other"):
            make_trainer(tmp_path, cache, rows, tokenizer, student=student, objective=LastBlocks, **wrong)


@pytest.mark.parametrize(
    ("ready", "wrong"),
    [
        (False, {"weights": [1.0, 0.0, 1.0]}),
        (False, {"temperature": 2.0}),
        (False, {"class_weights": [1.0, 2.0]}),
        (True, {"temperature": 2.0}),
        (True, {"freeze": ["embeddings"]}),
    ],
)
def test_settings_of_an_objective_that_is_built_are_refused(
    tmp_path: Path, cache: TeacherCache, teacher_folder: Path, rows: Dataset, tokenizer: Any, ready: bool, wrong: Any
) -> None:
    student = make_small(teacher_folder)
    objective = build_objective("kd", (3, 16), (4, 16))
    model = Distiller(student, objective, pooling=None) if ready else student
    given: dict[str, Any] = {"student": model, "shared_size": None} | ({} if ready else {"objective": objective})
    with pytest.raises(RailkdError, match=f"{next(iter(wrong))}: .*keeps its own"):
        make_trainer(tmp_path, cache, rows, tokenizer, **given, **wrong)
    allowed = {"method": "recommended"} if ready else {}  # its recipe freezes, which nobody asked for
    trainer = make_trainer(tmp_path, cache, rows, tokenizer, **given, **allowed, length_groups="split")
    assert trainer.model.splits_batches and all(parameter.requires_grad for parameter in student.parameters())
