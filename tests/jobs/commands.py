"""Commands of tiny models on real and made files, shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import BertForSequenceClassification

import tiny
from railkd.cli import main
from railkd.records import RunRecord


def some_lines(source: Path, target: Path, rows: int, *, header: bool = True) -> Path:
    """Write evenly spaced rows of a real file. The target's folder has the name of the task, which identifies it."""
    lines = source.read_text(encoding="utf-8").rstrip("\n").split("\n")
    head, body = (lines[:1], lines[1:]) if header else ([], lines)
    chosen = body[:: max(1, len(body) // rows)][:rows]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join([*head, *chosen]) + "\n", encoding="utf-8")
    return target


def base_of(folder: Path, words: Sequence[str]) -> Path:
    torch.manual_seed(0)
    config = tiny.bert_config(dropout=0.0)
    config.vocab_size, config.max_position_embeddings, config.id2label = (
        len(words) + 4,
        160,
        {0: "LABEL_0", 1: "LABEL_1"},
    )
    return tiny.save(folder, BertForSequenceClassification(config), tiny.make_tokenizer(list(words)))


def railkd(*words: object) -> None:
    """Run one command; it must succeed."""
    assert main([str(word) for word in words]) == 0


def run(
    base: Path, folder: Path, train: Path, dev: Path, *tests: str, method: str = "rail-kd-l", data: Sequence[str] = ()
) -> tuple[RunRecord, RunRecord]:
    """Teacher and student on the same files, as a user would make them."""
    files = ["--train", train, "--eval", dev, "--test", *tests, "--max-length", 48, "--no-bf16", "--quiet", *data]
    railkd("finetune", "--model", base, *files, "--output", folder / "teacher", "--epochs", 1, "--learning-rate", 1e-3)
    railkd(
        *("distill", "--teacher", folder / "teacher" / "model", "--student-layers", 2, *files, "--epochs", 1),
        *("--method", method, "--output", folder / "student", "--allow-weak-teacher"),
        *(("--shared-size", 8) if method.startswith("rail") else ()),
    )
    return tuple(RunRecord.read(folder / name / "metrics.json") for name in ("teacher", "student"))  # type: ignore[return-value]


def argv(*parts: object) -> list[str]:
    """The words of a command line: texts are split at spaces, paths are not."""
    return [word for part in parts for word in (part.split() if isinstance(part, str) else [str(part)])]
