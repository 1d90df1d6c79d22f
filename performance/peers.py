"""The sides of the peers in `speed.py`: TextBrewer and SilverSpoon-KD, in an environment without railkd.

    PEERS_PYTHON performance/peers.py textbrewer,silverspoon FOLDER

Each peer is used as in its own examples: teacher and student run at every step in float32, each intermediate student
block is matched with one of the evenly spaced teacher blocks, and batches of 32 in random order are padded to their
longest row. Neither peer has a cache of states.
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
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding


class Peers:
    """Has a method for each peer, which takes a seed and returns seconds."""

    def __init__(self, folder: Path) -> None:
        rows, self.settings = work.read(folder)
        self.rows = Dataset.from_list(rows)
        self.teacher = AutoModelForSequenceClassification.from_pretrained(folder / "teacher").eval()
        self.student = AutoModelForSequenceClassification.from_pretrained(folder / "student")
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "teacher")
        n, s = self.settings["blocks"]
        self.matches = [(round(i * n / s), i) for i in range(1, s)]  # (teacher block, student block), 1-based

    def _tokens(self, rows: Dataset) -> Dataset:
        def tokenise(batch: dict[str, list[Any]]) -> Any:
            return self.tokenizer(batch["text"], truncation=True, max_length=self.settings["max_length"])

        tokens = rows.map(tokenise, batched=True, remove_columns=["text"], keep_in_memory=True)
        return tokens.rename_column("label", "labels")

    def textbrewer(self, seed: int, rows: Dataset | None = None) -> dict[str, float]:
        """Run a GeneralDistiller with hidden matches."""
        from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

        torch.manual_seed(seed)
        student = copy.deepcopy(self.student)
        start = time.perf_counter()
        collate = DataCollatorWithPadding(self.tokenizer)
        loader = DataLoader(
            self._tokens(rows or self.rows),
            batch_size=self.settings["batch"],
            shuffle=True,
            collate_fn=lambda some: dict(collate(some)),  # TextBrewer accepts dicts only.
        )
        hidden = [
            {"layer_T": t, "layer_S": s, "feature": "hidden", "loss": "hidden_mse", "weight": 1}
            for t, s in self.matches
        ]
        with tempfile.TemporaryDirectory() as folder:
            distiller = GeneralDistiller(
                TrainingConfig(device="cpu", output_dir=folder, log_dir=None, ckpt_frequency=1),
                DistillationConfig(temperature=1, hard_label_weight=1, kd_loss_weight=1, intermediate_matches=hidden),
                self.teacher,
                student,
                work.textbrewer_outputs,
                work.textbrewer_outputs,
            )
            distiller.save_and_callback = lambda *args, **options: None  # No side saves anything.
            optimizer = torch.optim.AdamW(student.parameters(), lr=self.settings["rate"])
            distiller.train(
                optimizer,
                loader,
                num_epochs=self.settings["epochs"],
                max_grad_norm=1.0,
                output_hidden_states=True,
            )
        return {"all": time.perf_counter() - start}

    def silverspoon(self, seed: int, rows: Dataset | None = None) -> dict[str, float]:
        """Run a HolisticDistiller with one alignment for each match, through its Trainer."""
        from silverspoon_kd import HolisticDistiller, OutputSelector, TrainingArguments
        from silverspoon_kd.alignments.alignment import Alignment

        student = copy.deepcopy(self.student)
        teacher_blocks, student_blocks = self.teacher.bert.encoder.layer, student.bert.encoder.layer
        start = time.perf_counter()
        alignments = [
            Alignment(
                teacher_blocks[t - 1],
                student_blocks[s - 1],
                teacher_module_name=f"bert.encoder.layer.{t - 1}",
                student_module_name=f"bert.encoder.layer.{s - 1}",
                teacher_output_selector=OutputSelector(),
                loss_function="mse",
            )
            for t, s in self.matches
        ]
        with tempfile.TemporaryDirectory() as folder:
            args = TrainingArguments(**work.arguments(self.settings, folder, seed))
            HolisticDistiller(
                student_model=student,
                teacher_model=self.teacher,
                alignments=alignments,
                train_dataset=self._tokens(rows or self.rows),
                data_collator=DataCollatorWithPadding(self.tokenizer),
                args=args,
            ).train()
        return {"all": time.perf_counter() - start}


if __name__ == "__main__":
    work.serve(Peers)
