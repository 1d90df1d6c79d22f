"""The trainings that are compared, each as its own library makes it."""

from __future__ import annotations

import copy
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from material import Pair
from torch.utils.data import DataLoader, SequentialSampler
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from turns import Side, Stop
from work import textbrewer_outputs

from railkd import DistillationTrainer, DistillationTrainingArguments
from railkd.teacher import LiveTeacher

#: Arguments of every Trainer. Nothing is logged or saved, and no bar is shown. Everything else is a default.
QUIET: dict[str, Any] = {
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
    "logging_strategy": "no",
    "learning_rate": 1e-5,
}
#: More steps than any part takes. `Side` stops a training.
ENDLESS = 1_000_000


class InOrder(DistillationTrainer):
    """Takes rows in their own order, as ``train_sampling_strategy="sequential"`` tells transformers' own Trainer."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)


def common(pair: Pair, folder: Path, batch: int, **settings: Any) -> dict[str, Any]:
    """Return the arguments that all Trainers share."""
    shared = {"output_dir": str(folder), "per_device_train_batch_size": batch, "bf16": pair.bf16}
    return QUIET | shared | {"use_cpu": pair.device.type == "cpu"} | settings


def plain(
    pair: Pair, rows: Dataset, folder: Path, batch: int, callbacks: list[TrainerCallback], **settings: Any
) -> Trainer:
    """Plain fine-tuning by transformers' own Trainer at its defaults, with bf16 on a card and fused AdamW.

    ``in_order`` among the settings: rows are taken in their own order.
    """
    order = "sequential" if settings.pop("in_order", False) else "random"
    settings = {"optim": "adamw_torch_fused", "train_sampling_strategy": order} | settings
    args = TrainingArguments(**common(pair, folder, batch, **settings))
    collator = DataCollatorWithPadding(pair.tokenizer)
    return _silent(
        Trainer(model=pair.student(), args=args, train_dataset=rows, data_collator=collator, callbacks=callbacks)
    )


def ours(
    pair: Pair, teacher: Any, rows: Dataset, folder: Path, batch: int, callbacks: list[TrainerCallback], **settings: Any
) -> DistillationTrainer:
    """A training of railkd at its defaults, with bf16 on a card; ``method`` is among the settings.

    ``in_order`` among the settings: rows are taken in their own order.
    """
    trainer = InOrder if settings.pop("in_order", False) else DistillationTrainer
    return _silent(
        trainer(
            model=pair.student(),
            teacher_model=teacher,
            args=DistillationTrainingArguments(**common(pair, folder, batch, **settings)),
            train_dataset=rows,
            processing_class=pair.tokenizer,
            callbacks=callbacks,
        )
    )


def _silent(trainer: Any) -> Any:
    trainer.remove_callback(PrinterCallback)  # it prints a summary after each training
    return trainer


def live_teacher(pair: Pair) -> LiveTeacher:
    """A copy of the teacher on the device, run at every step in the precision of training."""
    return LiveTeacher(copy.deepcopy(pair.teacher), pair.tokenizer, bf16=pair.bf16)


def textbrewer(pair: Pair, rows: Dataset, folder: Path, batch: int, side: Side) -> Callable[[], Any]:
    """Return TextBrewer's training: its GeneralDistiller with one hidden match for each inner student block.

    It has no mixed precision without apex, so it runs inside autocast, with fused AdamW, as the others do.
    """
    with _log_writer():
        from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

    n, s = pair.shape.blocks, pair.shape.student_blocks
    hidden = [
        {"layer_T": round(i * n / s), "layer_S": i, "feature": "hidden", "loss": "hidden_mse", "weight": 1}
        for i in range(1, s)
    ]
    student = pair.student().train()
    distiller = GeneralDistiller(
        TrainingConfig(device=str(pair.device), output_dir=str(folder), log_dir=None, ckpt_steps=ENDLESS),
        DistillationConfig(temperature=1, hard_label_weight=1, kd_loss_weight=1, intermediate_matches=hidden),
        copy.deepcopy(pair.teacher),
        student,
        textbrewer_outputs,
        textbrewer_outputs,
    )
    optimizer = torch.optim.AdamW(student.parameters(), lr=QUIET["learning_rate"], fused=True)

    def run() -> None:
        with torch.autocast(pair.device.type, dtype=torch.bfloat16, enabled=pair.bf16):
            distiller.train(
                optimizer,
                _counted(_loader(pair, rows, batch), side),
                num_steps=ENDLESS,
                max_grad_norm=1.0,
                output_hidden_states=True,
            )

    return run


@contextmanager
def _log_writer() -> Iterator[None]:
    """Stand in for the log writer that TextBrewer imports, and that a run without a log folder never makes.

    Afterwards the stand-in is gone, because transformers looks for the package.
    """
    name = "tensorboardX"
    ours = name not in sys.modules
    sys.modules.setdefault(name, types.SimpleNamespace(SummaryWriter=None))  # type: ignore[arg-type]
    try:
        yield
    finally:
        if ours:
            del sys.modules[name]


def _loader(pair: Pair, rows: Dataset, batch: int) -> DataLoader[Any]:
    collate = DataCollatorWithPadding(pair.tokenizer)
    wanted = [name for name in rows.column_names if name in (*pair.tokenizer.model_input_names, "labels")]
    return DataLoader(
        rows.select_columns(wanted),  # type: ignore[arg-type]
        batch_size=batch,
        pin_memory=pair.device.type == "cuda",
        collate_fn=lambda some: dict(collate(some)),
    )


def _counted(loader: DataLoader[Any], side: Side) -> Iterator[Any]:
    """Batches without end; asking for the next one ends a step."""
    batches = itertools.chain.from_iterable(iter(loader) for _ in itertools.count())
    yield next(batches)
    for batch in batches:
        if side.step_done():
            raise Stop
        yield batch
