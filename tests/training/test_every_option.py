"""Every option of transformers' Trainer works, or is refused in words before anything is trained."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import EvalPrediction, TrainingArguments

from railkd.data.tokens import keyed_tokens
from railkd.errors import RailkdError
from railkd.teacher import TeacherCache
from tiny import losses, make_model, make_small, make_trainer, text_rows, weights_of
from training.runs import far, run

HERE = {field.name for field in fields(TrainingArguments)}
#: Field -> a value other than the default, with what it needs beside it.
WORKS: dict[str, dict[str, Any]] = {
    "per_device_train_batch_size": {"per_device_train_batch_size": 3},
    "num_train_epochs": {"num_train_epochs": 0.4, "max_steps": -1},
    "max_steps": {"max_steps": 1},
    "learning_rate": {"learning_rate": 0.01},
    "lr_scheduler_type": {"lr_scheduler_type": "cosine"},
    "lr_scheduler_kwargs": {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 0.3}},
    "warmup_steps": {"warmup_steps": 2},
    "optim": {"optim": "sgd"},
    "optim_args": {"optim": "adamw_torch", "optim_args": "amsgrad=True"},
    "weight_decay": {"weight_decay": 0.1},
    "adam_beta1": {"adam_beta1": 0.8},
    "adam_beta2": {"adam_beta2": 0.9},
    "adam_epsilon": {"adam_epsilon": 0.1},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 2},
    "max_grad_norm": {"max_grad_norm": 0.1},
    "bf16": {"bf16": True},
    "fp16": {"fp16": True},
    "bf16_full_eval": {"bf16_full_eval": True},
    "fp16_full_eval": {"fp16_full_eval": True},
    "activation_checkpointing": {"activation_checkpointing": True},
    "activation_checkpointing_kwargs": {
        "activation_checkpointing": True,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
    },
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "gradient_checkpointing_kwargs": {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    },
    "torch_compile": {"torch_compile": True, "torch_compile_backend": "eager", "torch_compile_mode": "default"},
    "use_cache": {"use_cache": True},
    "neftune_noise_alpha": {"neftune_noise_alpha": 5.0},
    "torch_empty_cache_steps": {"torch_empty_cache_steps": 1},
    "auto_find_batch_size": {"auto_find_batch_size": True},
    "logging_strategy": {"logging_strategy": "epoch"},
    "logging_steps": {"logging_steps": 2},
    "logging_first_step": {"logging_first_step": True},
    "log_on_each_node": {"log_on_each_node": False},
    "logging_nan_inf_filter": {"logging_nan_inf_filter": True},
    "include_num_input_tokens_seen": {"include_num_input_tokens_seen": "all"},
    "disable_tqdm": {"disable_tqdm": True},
    "report_to": {"report_to": []},
    "run_name": {"run_name": "a run"},
    "eval_strategy": {"eval_strategy": "steps", "eval_steps": 1},
    "eval_steps": {"eval_strategy": "steps", "eval_steps": 2},
    "eval_delay": {"eval_delay": 2, "eval_strategy": "steps", "eval_steps": 1},
    "per_device_eval_batch_size": {"per_device_eval_batch_size": 5},
    "prediction_loss_only": {"prediction_loss_only": True},
    "eval_on_start": {"eval_on_start": True},
    "eval_do_concat_batches": {"eval_do_concat_batches": False},
    "eval_use_gather_object": {"eval_use_gather_object": True},
    "eval_accumulation_steps": {"eval_accumulation_steps": 1},
    "include_for_metrics": {"include_for_metrics": ["inputs", "loss"]},
    "batch_eval_metrics": {"batch_eval_metrics": True},
    "save_only_model": {"save_only_model": True, "save_strategy": "epoch"},
    "save_strategy": {"save_strategy": "best", "metric_for_best_model": "loss"},
    "save_steps": {"save_strategy": "steps", "save_steps": 2},
    "save_on_each_node": {"save_on_each_node": True, "save_strategy": "epoch"},
    "save_total_limit": {"save_total_limit": 1, "save_strategy": "steps", "save_steps": 1},
    "load_best_model_at_end": {"load_best_model_at_end": True, "save_strategy": "epoch"},
    "metric_for_best_model": {"metric_for_best_model": "n", "load_best_model_at_end": True, "save_strategy": "epoch"},
    "greater_is_better": {"greater_is_better": False, "load_best_model_at_end": True, "save_strategy": "epoch"},
    "ignore_data_skip": {"ignore_data_skip": True},
    "restore_callback_states_from_checkpoint": {"restore_callback_states_from_checkpoint": True},
    "seed": {"seed": 7},
    "data_seed": {"data_seed": 7},
    "accelerator_config": {"accelerator_config": {"split_batches": True}},
    "dataloader_drop_last": {"dataloader_drop_last": True},
    "dataloader_num_workers": {"dataloader_num_workers": 1},
    "dataloader_pin_memory": {"dataloader_pin_memory": True},
    "dataloader_persistent_workers": {"dataloader_persistent_workers": True, "dataloader_num_workers": 1},
    "dataloader_prefetch_factor": {"dataloader_prefetch_factor": 3, "dataloader_num_workers": 1},
    "dataloader_multiprocessing_context": {
        "dataloader_multiprocessing_context": "fork",
        "dataloader_num_workers": 1,
    },
    "dataloader_in_order": {"dataloader_in_order": False, "dataloader_num_workers": 1},
    "remove_unused_columns": {"remove_unused_columns": False},
    "skip_memory_metrics": {"skip_memory_metrics": False},
}
#: What the default suite tries at once, since every training costs seconds; make test-thorough tries each field alone.
TOGETHER: dict[str, list[str]] = {
    "steps": [
        "per_device_train_batch_size",
        "learning_rate",
        "lr_scheduler_kwargs",
        "warmup_steps",
        "optim_args",
        "weight_decay",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "gradient_accumulation_steps",
        "max_grad_norm",
        "neftune_noise_alpha",
        "seed",
        "data_seed",
    ],
    "numbers and memory": ["bf16", "bf16_full_eval", "gradient_checkpointing_kwargs", "torch_empty_cache_steps"],
    "logs": [
        "logging_steps",
        "logging_first_step",
        "log_on_each_node",
        "logging_nan_inf_filter",
        "include_num_input_tokens_seen",
        "report_to",
        "run_name",
    ],
    "evaluation": [
        "eval_delay",
        "per_device_eval_batch_size",
        "eval_on_start",
        "eval_use_gather_object",
        "eval_accumulation_steps",
        "include_for_metrics",
    ],
    "checkpoints": ["metric_for_best_model", "greater_is_better", "save_on_each_node"],
    "rows": ["dataloader_multiprocessing_context", "dataloader_drop_last", "remove_unused_columns"],
}
#: Field -> a value that is refused.
REFUSED: dict[str, Any] = {
    "average_tokens_across_devices": False,
    "ddp_backend": "gloo",
    "debug": "underflow_overflow",
    "deepspeed": {"zero_optimization": {"stage": 2}},
    "fsdp": "full_shard",
    "fsdp_config": {"version": 2},
    "hub_always_push": True,
    "hub_model_id": "me/student",
    "hub_private_repo": True,
    "hub_revision": "main",
    "hub_strategy": "end",
    "hub_token": "hf_secret",
    "label_names": ["target"],
    "label_smoothing_factor": 0.1,
    "length_column_name": "words",
    "liger_kernel_config": {"rope": True},
    "parallelism_config": object(),
    "push_to_hub": True,
    "report_to": "no such tracker",
    "train_sampling_strategy": "sequential",
    "use_liger_kernel": True,
}
#: Field -> why this test does not try it.
NOT_HERE = {
    "ddp_broadcast_buffers": "read by a run of several ranks",
    "ddp_bucket_cap_mb": "read by a run of several ranks",
    "ddp_find_unused_parameters": "read by a run of several ranks",
    "ddp_static_graph": "read by a run of several ranks",
    "ddp_timeout": "read by a run of several ranks",
    "do_eval": "Trainer reads it in no place; it is for scripts",
    "do_predict": "Trainer reads it in no place; it is for scripts",
    "do_train": "Trainer reads it in no place; it is for scripts",
    "enable_jit_checkpoint": "sets a handler of signals for the whole process",
    "full_determinism": "changes torch for the whole process",
    "local_rank": "set by a launcher",
    "log_level": "changes the logs of the whole process",
    "log_level_replica": "changes the logs of the whole process",
    "optim_target_modules": "read by optimizers of packages that are not installed",
    "output_dir": "given in every test",
    "project": "read by a tracker",
    "resume_from_checkpoint": "Trainer reads it in no place; it is for scripts",
    "tf32": "needs a GPU, and transformers says so",
    "torch_compile_backend": "given with torch_compile",
    "torch_compile_mode": "given with torch_compile",
    "trackio_bucket_id": "read by a tracker",
    "trackio_space_id": "read by a tracker",
    "trackio_static_space_id": "read by a tracker",
    "use_cpu": "given in every test",
}


def count(prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
    return {"n": float(len(prediction.predictions))}


def test_every_field_of_trainers_arguments_has_a_place_in_the_tables() -> None:
    named = {*WORKS, *REFUSED, *NOT_HERE}
    assert HERE - named == set()
    assert NOT_HERE.keys().isdisjoint({*WORKS, *REFUSED})


ALONE = {name: [name] for name in WORKS if name in HERE}


@pytest.mark.filterwarnings("ignore")  # of torch and transformers, about hardware that is not here
@pytest.mark.parametrize(
    "names",
    [
        *(pytest.param(names, id=kind) for kind, names in TOGETHER.items()),
        *(pytest.param(names, id=name, marks=pytest.mark.thorough) for name, names in ALONE.items()),
    ],
)
def test_options_of_trainer_work(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, names: list[str]
) -> None:
    settings: dict[str, Any] = {"eval_strategy": "epoch", "max_steps": 3}
    for name in names:
        settings |= WORKS[name]
    assert all(settings[key] == value for name in names for key, value in WORKS[name].items())  # none hides another
    trainer = run(tmp_path, cache, rows, tokenizer, eval_dataset=rows, compute_metrics=count, **settings)
    assert trainer.state.global_step == trainer.state.max_steps > 0
    assert np.isfinite(losses(trainer)).all() and len(losses(trainer, "eval_loss")) > 0
    predicted = trainer.predict(rows)
    assert np.isfinite(predicted.metrics["test_loss"])


@pytest.mark.parametrize("name", [name for name in REFUSED if name in HERE])
def test_an_option_without_effect_is_refused_in_words(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, name: str
) -> None:
    with pytest.raises(RailkdError, match=rf"{name}|tracker") as refusal:
        run(tmp_path, cache, rows, tokenizer, **{name: REFUSED[name]})
    assert "hf_secret" not in str(refusal.value) and not list(tmp_path.iterdir())


# ---- what these options must do ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 64])
def test_metrics_get_inputs_and_losses_of_their_rows(
    tmp_path: Path, cache: TeacherCache, tokenizer: Any, size: int
) -> None:
    seen: list[EvalPrediction] = []

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        seen.append(prediction)
        return {}

    rows = text_rows(30, seed=5)
    settings = {"include_for_metrics": ["inputs", "loss"], "per_device_eval_batch_size": size}
    trainer = make_trainer(
        tmp_path, cache, text_rows(), tokenizer, student=make_small(make_model(4)), compute_metrics=metrics, **settings
    )
    trainer.evaluate(rows)
    (found,) = seen
    tokens = keyed_tokens(rows, tokenizer, max_length=128).inputs["input_ids"]
    for row, ids in enumerate(tokens):
        assert [i for i in found.inputs[row].tolist() if i not in (-100, 0)] == list(ids)
    assert found.losses.shape == (30,)
    log_p = torch.log_softmax(torch.tensor(found.predictions), -1)
    each = -log_p[torch.arange(30), torch.tensor(found.label_ids)]
    lengths = np.argsort([-len(ids) for ids in tokens], kind="stable")
    for start in range(0, 30, size):  # a loss is the mean of its batch
        batch = lengths[start : start + size]
        np.testing.assert_allclose(found.losses[batch], each[batch].mean().item(), rtol=1e-5)


@pytest.mark.parametrize("how", ["batch_eval_metrics", "eval_do_concat_batches"])
def test_results_by_batch_are_those_of_the_rows_in_their_order(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, how: str
) -> None:
    parts: list[Any] = []

    def metrics(prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        batches = prediction.predictions if how == "eval_do_concat_batches" else [prediction.predictions]
        parts.extend(np.asarray(batch) for batch in batches)
        return {"rows": float(sum(map(len, parts)))} if compute_result else {}

    student = make_small(make_model(4))
    options: dict[str, Any] = {"student": student, "per_device_eval_batch_size": 4}
    whole = make_trainer(tmp_path, cache, rows, tokenizer, **options).predict(rows).predictions
    setting = {how: how == "batch_eval_metrics"}
    trainer = make_trainer(tmp_path, cache, rows, tokenizer, compute_metrics=metrics, **options, **setting)
    assert trainer.evaluate(rows)["eval_rows"] == len(rows) and [len(part) for part in parts] == [4] * 5 + [2]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4, atol=1e-5)


def test_noise_on_the_embeddings_changes_training_and_not_evaluation(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    plain, noisy = (
        run(tmp_path, cache, rows, tokenizer, max_steps=2, neftune_noise_alpha=alpha) for alpha in (None, 5.0)
    )
    assert far(weights_of(plain.model), weights_of(noisy.model)) > 0
    loss = [noisy.evaluate(rows)["eval_loss"] for _ in range(2)]
    assert loss[0] == loss[1] and not noisy.model.student.get_input_embeddings()._forward_hooks


def test_dropping_the_last_batch_drops_rows_of_training_alone(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    seen: list[int] = []
    student = make_small(make_model(4), dropout=0.0)
    student.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["input_ids"])) if module.training else None,
        with_kwargs=True,
    )
    settings = {"dataloader_drop_last": True, "num_train_epochs": 1, "eval_strategy": "epoch"}
    few = rows.select(range(3))  # less than a batch
    trainer = make_trainer(
        tmp_path, cache, rows, tokenizer, student=student, eval_dataset=few, compute_metrics=count, **settings
    )
    trainer.train()
    assert seen == [4] * 5 and losses(trainer, "eval_n") == [3.0]
    assert len(trainer.predict(rows).predictions) == len(rows)
    for steps in (-1, 5):
        with pytest.raises(RailkdError, match="at least 4 training rows, one full batch.* got 3"):
            run(tmp_path, cache, few, tokenizer, max_steps=steps, **settings, eval_dataset=few)
