"""Trims the vocabulary of a model, before its training or at its export, and judges what a trimmed model answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from railkd.data.reader import TEXT_COLUMNS
from railkd.errors import RunFailed
from railkd.export.gate import problems_of
from railkd.export.layout import FROM_DATA, Shipped
from railkd.export.vocabulary import Trimming, plan, trim, trim_tokenizer
from railkd.jobs.options import Say
from railkd.jobs.shipping import Finished, Subject
from railkd.jobs.shipping_options import ExportOptions
from railkd.jobs.splits import TableReader
from railkd.jobs.trained import Trained
from railkd.models.checkpoints import Checkpoint


def plan_trimming(trained: Finished, subject: Subject, options: ExportOptions, say: Say) -> Trimming:
    """Count the pieces of the training rows, and choose those that stay.

    Args:
        trained: the model and its run, whose training rows are counted.
        subject: the model as it was trained.
        options: of the export; names the size.
        say: receives lines for the user.

    Returns:
        The plan.
    """
    texts = []
    reader = TableReader(trained.sources(options)[0], say, Trained.of(subject.model.config))
    for source in trained.training_rows():
        rows = reader.read(source, split="train", labelled=False).rows
        texts += _texts_of(rows)
    return _count_and_plan(subject.tokenizer, texts, str(options.vocabulary), say)


def _count_and_plan(tokenizer: Any, texts: list[str], size: str, say: Say) -> Trimming:
    counts: Counter[int] = Counter()
    for row in _pieces(tokenizer, texts):
        counts.update(row)
    found = plan(tokenizer, counts, None if size == FROM_DATA else int(size))
    say(f"vocabulary: {len(found.kept):,} of {found.before:,} pieces stay, counted on {len(texts):,} texts")
    return found


def _pieces(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    found: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return found


def _whole_texts(before: Any, after: Any, trimming: Trimming, texts: list[str]) -> np.ndarray:
    """Return (N,) bool: the texts whose pieces all stay. Refuse a tokenizer that cuts any of these otherwise."""
    old, new = _pieces(before, texts), _pieces(after, texts)
    same, numbers = trimming.unchanged(old), trimming.new_numbers
    wrong = sum(stays and [numbers[n] for n in row] != other for row, other, stays in zip(old, new, same, strict=True))
    if wrong:
        raise RunFailed(
            f"vocabulary: {wrong:,} texts whose pieces all stay are tokenised otherwise, so this tokenizer cannot be "
            "trimmed. Nothing was written. Fix: leave out --vocabulary"
        )
    return same


@dataclass(frozen=True)
class Pieces:
    """The tokenizer of a model that is trained, with the vocabulary that it was asked to have.

    Attributes:
        tokenizer: of the model.
        trimming: which pieces of the first tokenizer stay; None: all.
        record: number of pieces ``before`` and ``after``, and of the texts that are ``cut`` into smaller pieces; empty
            if all pieces stay.
    """

    tokenizer: Any
    trimming: Trimming | None = None
    record: dict[str, int] = field(default_factory=dict)

    @classmethod
    def choose(cls, size: str | None, tokenizer: Any, rows: Any, say: Say) -> Pieces:
        """Choose the pieces that stay by the texts that the model is trained on.

        Args:
            size: number of pieces, or "from-data"; None keeps all.
            tokenizer: of the checkpoint that the model starts from.
            rows: the texts, labelled or not.
            say: receives lines for the user.

        Returns:
            The tokenizer and what it lacks.
        """
        if size is None:
            return cls(tokenizer)
        texts = _texts_of(rows)
        trimming = _count_and_plan(tokenizer, texts, size, say)
        smaller = trim_tokenizer(tokenizer, trimming)
        cut = int((~_whole_texts(tokenizer, smaller, trimming, texts)).sum())
        say(f"vocabulary: {cut:,} of {len(texts):,} training texts are cut into smaller pieces")
        return cls(smaller, trimming, {"before": trimming.before, "after": len(trimming.kept), "cut": cut})

    def fit(self, model: Any) -> Any:
        """Return a model with the embeddings of these pieces."""
        return model if self.trimming is None else trim(model, self.trimming)

    def note(self) -> dict[str, Any]:
        """Return the entry for the record of a run; empty if all pieces stay."""
        return {"vocabulary": self.record} if self.record else {}


def _texts_of(rows: Any) -> list[str]:
    return [text for column in TEXT_COLUMNS if column in rows.column_names for text in rows[column][:]]


def judge_trimming(
    subject: Subject, trimming: Trimming, fresh: Shipped, options: ExportOptions, say: Say
) -> tuple[Subject, dict[str, Any]]:
    """Compare the answers of the trimmed model with those before.

    Args:
        subject: the model as it was trained.
        trimming: which pieces stay.
        fresh: folder with the trimmed model and its tokenizer.
        options: of the export.
        say: receives lines for the user.

    Returns:
        The trimmed model, and the figures for the record.

    Raises:
        RunFailed: the trimmed model is not shown to be good enough.
    """
    margins = options.max_drop / 100, options.max_class_drop / 100
    model, tokenizer = trim(subject.model, trimming), Checkpoint.find(fresh.path).tokenizer
    trimmed = replace(subject, model=model, tokenizer=tokenizer, trained=subject.reference)
    texts = [text for row in subject.texts() for text in row]
    changed = int((~_whole_texts(subject.tokenizer, tokenizer, trimming, texts)).sum())
    problems = problems_of(trimmed.judge(trimmed.reference, margins), margins)
    largest = float(np.abs(trimmed.reference - subject.reference).max(initial=0.0))
    cut = f"{changed:,} of {len(texts):,} texts are cut into smaller pieces"
    say(f"vocabulary: {cut}; largest logit difference {largest:.1e}")
    if problems:
        raise RunFailed(
            f"vocabulary: the quality gate fails: {'; '.join(problems[:4])}. Nothing was written. Fix: give a larger "
            "--vocabulary, more rows by --eval, or a larger --max-drop or --max-class-drop"
        )
    return trimmed, {"before": trimming.before, "after": len(trimming.kept), "texts": len(texts), "changed": changed}
