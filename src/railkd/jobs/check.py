"""Checks data and teacher before a run: all of it for ``railkd check``, the cheap part for ``railkd distill``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from railkd.data.keys import normalised
from railkd.data.reader import TEXT_COLUMNS, Table
from railkd.data.sources import SELECTION_SET
from railkd.data.tokens import full_lengths, some_rows
from railkd.errors import RailkdError, RunFailed
from railkd.jobs import findings
from railkd.jobs.evaluate import judge
from railkd.jobs.given_teachers import GivenTeachers
from railkd.jobs.options import CheckOptions, DistillOptions, Say
from railkd.jobs.request import on_its_device
from railkd.jobs.rescaling import check_rescaling
from railkd.jobs.splits import Splits
from railkd.jobs.suspects import write_suspects
from railkd.jobs.trimming import Pieces
from railkd.models.checkpoints import Checkpoint
from railkd.models.limits import check_texts, position_limit
from railkd.models.loading import empty_classifier
from railkd.models.named_teachers import as_list
from railkd.tasks.judging import FEWEST_ROWS, Finding
from railkd.tasks.scale import fit_line
from railkd.teacher.components import check_dim

BRIEF_ROWS, TEACHER_ROWS, TOKEN_ROWS = 256, 500, 2000
#: Rows of a step of training by default.
_BATCH = 32


def before_distilling(
    options: DistillOptions, splits: Splits, teacher: GivenTeachers, max_lengths: Sequence[int], say: Say
) -> None:
    """Run the cheap checks of a distillation.

    Args:
        options: settings of the distillation.
        splits: tables of the distillation.
        teacher: one or more teachers.
        max_lengths: length in tokens at which each teacher cuts texts.
        say: receives lines for the user.

    Raises:
        RailkdError: the teacher is no better than the most frequent class, the labels are permuted, rows are too long
            for a teacher, or a cache belongs to another teacher.
    """
    for checkpoint, length in zip((one.checkpoint for one in teacher.members), max_lengths, strict=True):
        for table in (splits.train, splits.eval):
            if checkpoint is not None and table is not None:
                check_texts(checkpoint.config, checkpoint.tokenizer, table.rows, length, "the teacher")
    if splits.eval is None:
        say("teacher: not checked, because there is no --eval. Fix: give --eval FILE.")
        return
    # A complete cache replaces the teacher here too, so that a second run does not load the teacher.
    judging = teacher if options.live else teacher.only_stored(splits.train.rows, max_lengths)
    judged = _judged(splits.eval.rows, judging, max_lengths, BRIEF_ROWS)
    if judged is None and len(teacher.members) > 1:  # no job before this one has judged the mean
        judged = _judged(splits.eval.rows, teacher, max_lengths, BRIEF_ROWS)
    if judged is None:
        say(
            f"teacher: not checked, because its {judging.store} holds too few rows of --eval. Fix: run railkd check "
            "--teacher."
        )
        return
    finding = judge(
        judged.scaled(options), judged.labels, splits.target, splits.eval, allowed=options.allow_weak_teacher
    )
    if finding.level == "error":
        raise RailkdError(f"{finding.title}: {finding.detail}; {finding.fix}")
    say(str(finding))


@on_its_device
def check(options: CheckOptions, say: Say) -> list[Finding]:
    """Check data, teacher, lengths and costs; use a sample of the rows unless ``--full`` is given.

    Args:
        options: settings of ``railkd check``.
        say: receives lines for the user.

    Returns:
        The findings. Data that cannot be read are a finding too.
    """
    teacher = GivenTeachers.find(options, say)
    given = Checkpoint.find(options.student, trust=options.trust_remote_code) if options.student else None
    student, target = given or teacher.checkpoint, teacher.target
    for file in teacher.files:
        say(file.described)
    if teacher.lead.checkpoint is not None:
        check_dim(options.states_dim, teacher.lead.checkpoint.shape.width, options.pooling or ["mean"])
    if options.rescale_teacher:
        check_rescaling(target.task)
    for member in teacher.members:
        if member.checkpoint is not None:
            member.checkpoint.check_weights()
    if given is not None:
        given.check_weights(new_head=True)
    found = target.task.describe_outputs(target.space.names, _own_names(given))
    try:
        splits = Splits.read(options, lambda table: target, say, teacher.trained)
    except RailkdError as error:
        return [*found, Finding("error", "data", str(error))]
    splits = teacher.leave_out_unanswered(splits, say)
    lengths = teacher.max_lengths(options.max_length, say)
    measured = _measured(options, splits, teacher, lengths)
    if measured is not None and splits.eval is not None:
        allowed = options.allow_weak_teacher
        found.append(judge(measured.scaled(options), measured.labels, target, splits.eval, allowed=allowed))
    else:
        reason = f"its {teacher.store} holds too few rows of --eval" if splits.eval else "there is no --eval"
        found.append(Finding("warning", "teacher", f"not checked: {reason}", "give --teacher and --eval"))
    train = splits.train.rows
    chosen = train if options.full else train.select(some_rows(len(train), TOKEN_ROWS))
    found += _about_tokens(_texts(chosen), teacher, student, lengths)
    found.append(target.task.describe_labels(np.asarray(train["label"]), target.space.names))
    found += _about_texts(splits)
    if options.suspects:
        found.append(_suspects(options, splits, teacher, lengths))
    about_pieces, pieces = _about_pieces(options, splits, student, say)
    found += about_pieces
    return found + _about_cost(options, len(splits.texts()), teacher, student, measured, pieces)


# ---- steps of both -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Judged:
    """Answers of a teacher on N labelled rows.

    Attributes:
        logits: (N, C).
        labels: (N,).
        rows: (N,) their numbers in the table, from 0.
        rate: rows a second; 0 if the logits come from a cache.
    """

    logits: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    rate: float

    def scaled(self, options: DistillOptions | CheckOptions) -> np.ndarray:
        """Return the logits as --rescale-teacher changes them, or as they are without the flag."""
        if not options.rescale_teacher:
            return self.logits
        line = fit_line(self.logits, self.labels)
        return self.logits * line.slope + line.offset


def _suspects(options: CheckOptions, splits: Splits, teacher: GivenTeachers, max_lengths: Sequence[int]) -> Finding:
    """Write the training rows on which teacher and label disagree, and return a note that counts them."""
    table = splits.train
    judged = _judged(table.rows, teacher, max_lengths, len(table))
    if judged is None:
        return Finding("warning", "suspects", "not looked for: the cache holds too few training rows", "give --teacher")
    return write_suspects(
        str(options.suspects), splits.target, table, judged.rows, judged.scaled(options), judged.labels
    )


def _measured(
    options: CheckOptions, splits: Splits, teacher: GivenTeachers, max_lengths: Sequence[int]
) -> _Judged | None:
    """Return the teacher's answers on rows of --eval; None if there is no --eval or a cache has too few of them."""
    if splits.eval is None:
        return None
    rows = len(splits.eval) if options.full else TEACHER_ROWS
    return _judged(splits.eval.rows, teacher, max_lengths, rows)


def _judged(table: Dataset, teacher: GivenTeachers, max_lengths: Sequence[int], rows: int) -> _Judged | None:
    """Return the teacher's answers on a sample of labelled rows; None if what is stored has too few of them."""
    there = np.flatnonzero(teacher.answered(table))
    if len(there) < FEWEST_ROWS and any(one.checkpoint is None for one in teacher.members):
        return None
    chosen = there[some_rows(len(there), rows)]
    table = table.select(chosen)
    logits, seconds = teacher.logits(table, max_lengths)
    rate = len(table) / max(seconds, 1e-9) if seconds else 0.0
    return _Judged(logits, np.asarray(table["label"]), chosen, rate)


def _about_texts(splits: Splits) -> list[Finding]:
    """Find test rows that are trained on too, texts that repeat, and equal texts with different labels."""
    others = {SELECTION_SET: splits.eval} if splits.eval is not None else {}
    others |= {f"test {name}": table for name, table in splits.tests.items()}
    train, texts = _normalised(splits.train), _normalised(splits.unlabelled)
    found: list[Finding | None] = [
        *findings.leaks(train, {name: _normalised(rows) for name, rows in others.items()}, texts)
    ]
    found += [findings.conflicts(train, splits.train.rows["label"]), findings.repeats(train, texts)]
    return [finding for finding in found if finding is not None]


def _normalised(table: Table | None) -> list[tuple[str, ...]]:
    """Return the texts of a table without case and white space, as leaks are looked for; none without a table."""
    return [] if table is None else [normalised(row) for row in _texts(table.rows)]


def _about_tokens(
    texts: list[tuple[str, ...]], teacher: GivenTeachers, student: Checkpoint | None, max_lengths: Sequence[int]
) -> list[Finding]:
    found: list[Finding | None] = []
    ids = []
    several = len(teacher.members) > 1
    readers = [
        (f"teacher {number}" if several else "teacher", member.checkpoint, length)
        for number, (member, length) in enumerate(zip(teacher.members, max_lengths, strict=True), 1)
    ]
    same = student is not None and student == teacher.checkpoint
    readers.append(("student", None if same else student, max_lengths[teacher.states]))
    for who, checkpoint, max_length in readers:
        if checkpoint is None:
            continue
        tokenizer, limit = checkpoint.tokenizer, position_limit(checkpoint.config)
        found.append(findings.lengths(full_lengths(tokenizer, texts), max_length, limit, who))
        tokens = [number for row in texts for text in row for number in tokenizer(text, verbose=False)["input_ids"]]
        unknown = tokenizer.unk_token_id
        share = 0.0 if unknown is None else sum(number == unknown for number in tokens) / max(1, len(tokens))
        found.append(findings.unknown_words(share, who))
        ids.append(tokens)
    if any(tokens != ids[0] for tokens in ids):
        detail = "teacher and student have different tokens; this is allowed, because hidden states are pooled"
        found.append(Finding("note", "tokenizers", detail))
    return [finding for finding in found if finding is not None]


def _about_pieces(
    options: CheckOptions, splits: Splits, student: Checkpoint | None, say: Say
) -> tuple[list[Finding], dict[str, int]]:
    """Return what ``--vocabulary`` changes and its numbers, or why the tokenizer cannot be trimmed."""
    try:
        pieces = Pieces.choose(options.vocabulary, student.tokenizer, splits.texts(), say).record if student else {}
    except (RailkdError, RunFailed) as error:
        return [Finding("error", "vocabulary", str(error))], {}
    return [findings.smaller_vocabulary(pieces)] if pieces else [], pieces


def _about_cost(
    options: CheckOptions,
    rows: int,
    teacher: GivenTeachers,
    student: Checkpoint | None,
    measured: _Judged | None,
    pieces: Mapping[str, int],
) -> list[Finding]:
    """Estimate disk, time and memory from sizes, and from the teacher's speed if it was measured."""
    origins = {one: one.checkpoint.config for one in teacher.members if one.checkpoint is not None}
    shallower = {"num_hidden_layers": options.student_layers} if options.student_layers else {}
    shallower |= {"vocab_size": pieces["after"]} if pieces else {}
    ours = student.new_config(**shallower) if student else None
    our_parameters, *theirs = (_parameters(config, options.trust_remote_code) for config in (ours, *origins.values()))
    needed, work = 0, 0
    for one, origin in origins.items():
        sizes = (origin.num_hidden_layers, options.states_dim or origin.hidden_size, origin.num_labels)
        own, dtype = ["mean"] if one is teacher.lead else ["none"], options.cache_dtype or "float16"
        needed += 0 if one.cache is not None else findings.cache_bytes(rows, *sizes, options.pooling or own, dtype)
        work += origin.num_hidden_layers * origin.hidden_size**2
    rate = measured.rate if measured else 0.0
    train_seconds = None
    if rate and ours is not None and work:
        # A training step costs three forward passes. A forward pass costs blocks x width^2.
        share = ours.num_hidden_layers * ours.hidden_size**2 / work
        trained = options.epochs * rows if options.max_steps is None else options.max_steps * _BATCH
        train_seconds = 3 * trained * share / rate
    target = Path(next(iter(as_list(options.cache)), ".")).absolute()
    disk = next(path for path in (target, *target.parents) if path.exists())
    return findings.cost(
        rows=rows,
        bytes_needed=needed,
        bytes_free=shutil.disk_usage(disk).free,
        teacher_seconds=rows / rate if rate else None,
        train_seconds=train_seconds,
        teacher_parameters=max(theirs, default=0),
        student_parameters=our_parameters,
    )


def _texts(table: Any) -> list[tuple[str, ...]]:
    columns = [name for name in TEXT_COLUMNS if name in table.column_names]
    return list(zip(*[list(table[name]) for name in columns], strict=True))


def _own_names(student: Checkpoint | None) -> tuple[str, ...] | None:
    """Return the class names of a student that has its own head; otherwise None."""
    return student.labels if student is not None and student.config.label2id else None


def _parameters(config: Any, trust_remote_code: bool) -> int:
    """Count the parameters of a classifier with this config, without allocating them."""
    if config is None:
        return 0
    return sum(parameter.numel() for parameter in empty_classifier(config, trusted=trust_remote_code).parameters())
