"""A student answers without the teacher, in the order of the rows, and in the same way once it is saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import BertForSequenceClassification, EvalPrediction

from railkd.teacher import TeacherCache
from tiny import CountingTeacher, make_model, make_small, make_trainer, save, text_rows, weights_of
from training.runs import far, run, trainer_of

# ---- evaluation ---------------------------------------------------------------------------------


def test_evaluation_and_prediction_never_call_the_teacher(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    teacher = CountingTeacher(cache)
    trainer = trainer_of(tmp_path, teacher, rows, tokenizer, eval_dataset=rows, eval_strategy="epoch")
    trainer.evaluate()
    trainer.predict(rows)
    assert teacher.calls == 0
    trainer.train()
    assert teacher.calls == 2 * 6  # batches; two evaluations in between
    assert sum("eval_loss" in entry for entry in trainer.state.log_history) == 2


def test_rows_for_evaluation_need_not_be_in_the_cache(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    other = text_rows(9, seed=77)
    assert len(set(other["text"]) - set(rows["text"])) > 5
    trainer = run(tmp_path, cache, rows, tokenizer, eval_dataset={"one": other, "two": rows}, max_steps=1)
    told = trainer.evaluate()
    assert (
        np.isfinite([told["eval_one_loss"], told["eval_two_loss"]]).all()
        and told["eval_one_loss"] != told["eval_two_loss"]
    )


@pytest.mark.parametrize("size", [1, 4, 64])
def test_predictions_come_in_dataset_order(tmp_path: Path, cache: TeacherCache, tokenizer: Any, size: int) -> None:
    rows, seen = text_rows(30, seed=5), []

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        seen.append(prediction)
        return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}

    student = make_small(make_model(4, seed=11))
    trainer = make_trainer(
        tmp_path,
        None,
        rows,
        tokenizer,
        student=student,
        method="finetune",
        per_device_eval_batch_size=size,
        compute_metrics=metrics,
    )
    result = trainer.predict(rows)
    student.eval()
    with torch.no_grad():
        alone = torch.cat([student(**tokenizer([text], return_tensors="pt")).logits for text in rows["text"]]).numpy()
    labels = [["neg", "pos"].index(label) for label in rows["label"]]
    np.testing.assert_allclose(result.predictions, alone, atol=1e-5)
    assert result.label_ids.tolist() == labels
    assert result.metrics["test_accuracy"] == pytest.approx((alone.argmax(-1) == labels).mean())
    np.testing.assert_allclose(seen[0].predictions, alone, atol=1e-5)
    assert seen[0].label_ids.tolist() == labels
    loss = trainer.evaluate(rows)["eval_loss"]
    assert loss == pytest.approx(
        torch.nn.functional.cross_entropy(torch.tensor(alone), torch.tensor(labels)).item(), rel=1e-4
    )


def test_rows_without_a_label_column_can_be_predicted(tmp_path: Path, rows: Dataset, tokenizer: Any) -> None:
    trainer = make_trainer(tmp_path, None, rows, tokenizer, student=make_small(make_model()), method="finetune")
    with_labels, without = trainer.predict(rows), trainer.predict(rows.remove_columns("label"))
    assert np.array_equal(with_labels.predictions, without.predictions) and without.label_ids is None


# ---- save and load ------------------------------------------------------------------------------


def test_the_best_model_is_really_loaded_at_the_end(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    evaluations: list[int] = []

    def first_is_best(_: EvalPrediction) -> dict[str, float]:
        evaluations.append(1)
        return {"freshness": -float(len(evaluations))}

    trainer = run(
        tmp_path,
        cache,
        rows,
        tokenizer,
        eval_dataset=rows,
        compute_metrics=first_is_best,
        eval_strategy="epoch",
        save_strategy="epoch",
        num_train_epochs=3,
        load_best_model_at_end=True,
        metric_for_best_model="freshness",
        greater_is_better=True,
        save_total_limit=2,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-18", "checkpoint-6"]
    best, last = (load_file(tmp_path / name / "model.safetensors") for name in ("checkpoint-6", "checkpoint-18"))
    now = weights_of(trainer.model.student)
    assert far(now, best) == 0 < far(now, last)
    projections = [load_file(tmp_path / name / "objective.safetensors") for name in ("checkpoint-6", "checkpoint-18")]
    now = weights_of(trainer.model.objective)
    assert all(torch.equal(now[name], projections[0][name]) for name in now)
    assert any(not torch.equal(now[name], projections[1][name]) for name in now)


def test_a_saved_student_loads_with_plain_transformers_and_answers_alike(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    trainer = run(tmp_path, cache, rows, tokenizer, max_steps=3)
    trainer.save_model(str(tmp_path / "student"))
    loaded, report = BertForSequenceClassification.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert (tmp_path / "student" / "objective.safetensors").is_file()
    assert not (tmp_path / "student" / "training_args.bin").exists()
    batch = tokenizer(list(rows["text"]), padding=True, return_tensors="pt")
    trainer.model.eval()
    with torch.no_grad():
        assert torch.equal(loaded.eval()(**batch).logits, trainer.model.student(**batch).logits)
        np.testing.assert_allclose(trainer.predict(rows).predictions, loaded(**batch).logits, atol=1e-5)
    assert loaded.config.num_hidden_layers == 3 and loaded.config.id2label == {0: "neg", 1: "pos"}


def test_a_student_may_be_named_by_its_folder_or_made_by_a_function(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    def start() -> BertForSequenceClassification:
        return make_small(make_model(4, seed=11), dropout=0.0)

    save(tmp_path / "student", start(), tokenizer)
    found = []
    for way in ("module", "folder", "function"):
        given: dict[str, Any] = {"student": start()}
        if way == "folder":
            given = {"student": str(tmp_path / "student")}
        if way == "function":
            given = {"model_init": start}
        trainer = make_trainer(
            tmp_path / way, cache, rows, None if way == "folder" else tokenizer, max_steps=3, **given
        )
        trainer.train()
        found.append(weights_of(trainer.model))
    assert far(found[0], found[1]) == 0 == far(found[0], found[2])
