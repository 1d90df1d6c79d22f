"""The sides of railkd and of transformers' Trainer in `speed.py`: runs a whole job for every input line.

    python performance/sides.py rail,plain FOLDER

A job starts from texts and models in memory and ends with a trained student. Its seconds include tokenising, the
teacher pass and training, but not the start of Python. No side saves anything.
"""

from __future__ import annotations

import copy
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import work
from datasets import Dataset
from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

from railkd import DistillationTrainer, DistillationTrainingArguments, TeacherCache
from railkd.models import load_classifier
from railkd.runtime.hardware import fast_bf16
from railkd.teacher import LiveTeacher


class Sides:
    """Has a method for each side, which takes a seed and returns the seconds of each phase and of "all"."""

    def __init__(self, folder: Path) -> None:
        rows, self.settings = work.read(folder)
        self.rows = Dataset.from_list(rows)
        self.teacher = load_classifier(folder / "teacher")
        self.student = load_classifier(folder / "student")
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "teacher")
        self.bf16 = fast_bf16()
        self._kept: tuple[Any, TeacherCache] | None = None

    # ---- railkd --------------------------------------------------------------------------------

    def rail(self, seed: int, rows: Dataset | None = None) -> dict[str, float]:
        """Run railkd's defaults: a teacher pass, then rail-kd-l from the cache."""
        rows = rows or self.rows
        start = time.perf_counter()
        folder = tempfile.TemporaryDirectory()
        cache = TeacherCache.build(self.teacher, rows, folder.name, tokenizer=self.tokenizer, bf16=self.bf16)
        passed = time.perf_counter() - start
        self._kept = (folder, cache)
        taken = self._train("rail-kd-l", cache, rows, seed)
        return {"all": time.perf_counter() - start, "pass": passed, "training": taken}

    def shared(self, seed: int, rows: Dataset | None = None) -> dict[str, float]:
        """Run rail-kd-c from the cache of the last job of `rail`."""
        if self._kept is None:
            self.rail(seed, rows)
        assert self._kept is not None
        return {"all": self._train("rail-kd-c", self._kept[1], rows or self.rows, seed)}

    def live(self, seed: int, rows: Dataset | None = None) -> dict[str, float]:
        """Run rail-kd-l with the teacher at every step."""
        start = time.perf_counter()
        teacher = LiveTeacher(self.teacher, self.tokenizer, bf16=self.bf16)
        self._train("rail-kd-l", teacher, rows or self.rows, seed)
        return {"all": time.perf_counter() - start}

    def plain(self, seed: int, rows: Dataset | None = None) -> dict[str, float]:
        """Run fine-tuning in railkd's fastest mode."""
        return {"all": self._train("finetune", None, rows or self.rows, seed)}

    def _train(self, method: str, teacher: Any, rows: Dataset, seed: int) -> float:
        student = copy.deepcopy(self.student)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            args = DistillationTrainingArguments(
                method=method,
                max_length=self.settings["max_length"],
                bf16=self.bf16,
                **work.arguments(self.settings, folder, seed),
            )
            DistillationTrainer(
                model=student, teacher_model=teacher, args=args, train_dataset=rows, processing_class=self.tokenizer
            ).train()
        return time.perf_counter() - start

    # ---- transformers --------------------------------------------------------------------------

    def trainer(self, seed: int, rows: Dataset | None = None) -> dict[str, float]:
        """Run plain fine-tuning by transformers' Trainer with its defaults: float32, random batches."""
        student = copy.deepcopy(self.student)
        start = time.perf_counter()

        def tokenise(batch: dict[str, list[Any]]) -> Any:
            return self.tokenizer(batch["text"], truncation=True, max_length=self.settings["max_length"])

        tokens = (rows or self.rows).map(tokenise, batched=True, remove_columns=["text"], keep_in_memory=True)
        with tempfile.TemporaryDirectory() as folder:
            args = TrainingArguments(**work.arguments(self.settings, folder, seed))
            collator = DataCollatorWithPadding(self.tokenizer)
            Trainer(model=student, args=args, train_dataset=tokens, data_collator=collator).train()
        return {"all": time.perf_counter() - start}

    # ---- the teacher's pass --------------------------------------------------------------------

    def teacher_pass(self, seed: int, rows: Dataset | None = None) -> dict[str, float]:
        """Run a whole pass including its files, and bare forward passes over the same batches, in alternating order."""
        from railkd.data.tokens import keyed_tokens

        rows = rows or self.rows
        model = self.teacher.eval()
        tokens = keyed_tokens(rows, self.tokenizer, max_length=self.settings["max_length"])
        order = (-tokens.lengths).argsort(kind="stable")
        batches = [
            self.tokenizer.pad(
                {name: [values[i] for i in order[start : start + 64]] for name, values in tokens.inputs.items()},
                return_tensors="pt",
            )
            for start in range(0, len(order), 64)
        ]

        def bare() -> None:
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
                for batch in batches:
                    model(**batch)

        def build() -> None:
            with tempfile.TemporaryDirectory() as folder:
                TeacherCache.build(model, rows, folder, tokenizer=self.tokenizer, bf16=self.bf16)

        taken = {}
        for name, run in (("bare", bare), ("pass", build)) if seed % 2 else (("pass", build), ("bare", bare)):
            start = time.perf_counter()
            run()
            taken[name] = time.perf_counter() - start
        return taken


if __name__ == "__main__":
    work.serve(Sides)
