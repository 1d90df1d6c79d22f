"""Trims the vocabulary of a model that is exported, and judges what the trimmed model answers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from railkd.data.reader import TEXT_COLUMNS
from railkd.errors import RunFailed
from railkd.export.gate import problems_of
from railkd.export.layout import FROM_DATA, Shipped
from railkd.export.vocabulary import Trimming, plan, trim
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
        columns = [rows[column][:] for column in TEXT_COLUMNS if column in rows.column_names]
        texts += [text for column in columns for text in column]
    counts: Counter[int] = Counter()
    for row in subject.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]:
        counts.update(row)
    size = None if options.vocabulary == FROM_DATA else int(str(options.vocabulary))
    found = plan(subject.tokenizer, counts, size)
    say(f"vocabulary: {len(found.kept):,} of {found.before:,} pieces stay, counted on {len(texts):,} texts")
    return found


def judge_trimming(
    subject: Subject, trimming: Trimming, fresh: Shipped, options: ExportOptions, say: Say
) -> dict[str, Any]:
    """Put the trimmed model in the place of the model, and compare its answers with those before.

    Args:
        subject: the model as it was trained; it gets the trimmed one.
        trimming: which pieces stay.
        fresh: folder with the trimmed model and its tokenizer.
        options: of the export.
        say: receives lines for the user.

    Returns:
        The figures, for the record.

    Raises:
        RunFailed: the trimmed model is not shown to be good enough.
    """
    before, margins = subject.tokenizer, (options.max_drop / 100, options.max_class_drop / 100)
    subject.model, subject.tokenizer = trim(subject.model, trimming), Checkpoint.find(fresh.path).tokenizer
    texts = [text for row in subject.texts for text in row]
    old = before(texts, add_special_tokens=False, verbose=False)["input_ids"]
    new = subject.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    same, numbers = trimming.unchanged(old), trimming.new_numbers
    wrong = sum(stays and [numbers[n] for n in row] != other for row, other, stays in zip(old, new, same, strict=True))
    if wrong:
        raise RunFailed(
            f"vocabulary: {wrong:,} texts whose pieces all stay are tokenised otherwise, so this tokenizer cannot be "
            "trimmed. Nothing was written. Fix: leave out --vocabulary"
        )
    subject.reference = subject.answer()
    problems = problems_of(subject.judge(subject.reference, margins), margins)
    largest = max(float(np.abs(subject.reference[name] - subject.original[name]).max()) for name in subject.tables)
    changed = int((~same).sum())
    cut = f"{changed:,} of {len(texts):,} texts are cut into smaller pieces"
    say(f"vocabulary: {cut}; largest logit difference {largest:.1e}")
    if problems:
        raise RunFailed(
            f"vocabulary: the quality gate fails: {'; '.join(problems[:4])}. Nothing was written. Fix: give a larger "
            "--vocabulary, more rows by --eval, or a larger --max-drop or --max-class-drop"
        )
    return {"before": trimming.before, "after": len(trimming.kept), "texts": len(texts), "changed": changed}
