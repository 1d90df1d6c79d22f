"""The pre-flight: gathers what `railkd.jobs.findings` judges, in full for ``railkd check``, in brief for a distill."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from railkd.data.keys import KEY, example_key, key_array
from railkd.data.sources import Source
from railkd.data.tokens import full_lengths, some_rows
from railkd.errors import RailkdError
from railkd.jobs import findings
from railkd.jobs.datafiles import DataFiles, named_tests
from railkd.jobs.options import DEFAULT_MAX_LENGTH, CheckOptions, DistillOptions, required
from railkd.models.checkpoints import Checkpoint, empty_classifier
from railkd.models.inference import predict_logits
from railkd.models.limits import check_texts, position_limit
from railkd.tasks.judging import FEWEST_ROWS, Finding
from railkd.teacher import TeacherCache
from railkd.teacher.identity import identify
from railkd.teacher.writer import MANIFEST

Say = Callable[[str], None]
BRIEF_ROWS, TEACHER_ROWS, TOKEN_ROWS = 256, 500, 2000


def labels_of(teacher: Checkpoint | None, stored: TeacherCache | None) -> tuple[tuple[str, ...], str]:
    """Return the class names of the teacher, and what it predicts."""
    if teacher is not None:
        return teacher.labels, teacher.task.problem_type
    assert stored is not None
    return stored.info.labels, stored.info.problem_type


def before_distilling(
    options: DistillOptions,
    files: DataFiles,
    train: Any,
    evaluation: Any,
    teacher: Checkpoint | None,
    stored: TeacherCache | None,
    max_length: int,
    say: Say,
) -> None:
    """The cheap checks of a distillation.

    Raises:
        RailkdError: a teacher that knows no more than the commonest class, labels evidently permuted, rows too long, a
            cache of another teacher.
    """
    if teacher is not None:
        for table in (train, evaluation):
            if table is not None:
                check_texts(teacher.config, teacher.tokenizer, table, max_length, "the teacher")
    if evaluation is None:
        say("teacher: not checked, there is no --eval")
        return
    # A complete cache stands in for the teacher here too: a warm run never builds it.
    warm = stored is not None and not options.live and (teacher is None or _complete(stored, train))
    if warm and stored is not None and teacher is not None:
        _same_teacher(stored, teacher, max_length)
    judged = _judged(evaluation, None if warm else teacher, stored, max_length, BRIEF_ROWS)
    if judged is None:
        say("teacher: not checked, its cache holds too few rows of --eval; railkd check --teacher does it")
        return
    finding = _about_teacher(judged, files, Source.parse(str(options.eval)), options.allow_weak_teacher)
    say(str(finding))
    if finding.level == "error":
        raise RailkdError(f"{finding.title}: {finding.detail}; {finding.fix}")


def check(options: CheckOptions, say: Say) -> list[Finding]:
    """Everything, on a sample unless ``--full``. What cannot be read at all is a finding too."""
    trust = options.trust_remote_code
    teacher = Checkpoint.find(options.teacher, trust=trust) if options.teacher else None
    stored = None
    if options.cache and (teacher is None or (Path(options.cache) / MANIFEST).is_file()):
        stored = TeacherCache.open(options.cache)
    if teacher is None and stored is None:
        required(None, "--teacher or --cache")
    files = DataFiles(options, say)
    names, problem_type = labels_of(teacher, stored)
    files.follow(names, problem_type=problem_type, model=str(teacher or options.cache))
    student = Checkpoint.find(options.student, trust=trust) if options.student else teacher
    found = files.task.outputs_mean(names, _own_names(student if options.student else None))
    try:
        tables = _read(options, files)
    except RailkdError as error:
        return [*found, Finding("error", "data", str(error))]
    train = tables["train"]
    max_length = options.max_length or (stored.identity.max_length if stored else DEFAULT_MAX_LENGTH)

    measured = None
    if "eval" in tables:
        rows = len(tables["eval"]) if options.full else TEACHER_ROWS
        measured = _judged(tables["eval"], teacher, stored, max_length, rows)
        if measured is not None:
            about = Source.parse(str(options.eval))
            found.append(_about_teacher(measured, files, about, options.allow_weak_teacher))
    if measured is None:
        detail = "not checked: " + (
            "its cache holds too few rows of --eval" if "eval" in tables else "there is no --eval"
        )
        found.append(Finding("warning", "teacher", detail, "give --teacher and --eval"))

    chosen = train if options.full else train.select(some_rows(len(train), TOKEN_ROWS))
    found += _about_tokens(_texts(chosen), teacher, student, max_length)
    found.append(files.task.balance(np.asarray(train["label"]), names))
    texts = {name: [findings.normalised(row) for row in _texts(table)] for name, table in tables.items()}
    found += findings.leaks(texts["train"], {name: rows for name, rows in texts.items() if name != "train"})
    doubles = findings.conflicts(texts["train"], train["label"])
    found += [doubles] if doubles else []
    found += _about_cost(options, len(train), teacher, student, stored, measured)
    return found


# ---- their steps -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Judged:
    """A teacher's logits of labelled rows, and how many rows a second it took (0: they came out of a cache)."""

    logits: np.ndarray
    labels: np.ndarray
    rate: float


def _judged(
    table: Any, teacher: Checkpoint | None, stored: TeacherCache | None, max_length: int, rows: int
) -> _Judged | None:
    """The teacher's answers on a sample of labelled rows; None: no teacher, and a cache without them."""
    if teacher is not None:
        table = table.select(some_rows(len(table), rows))
        model, tokenizer = teacher.frozen(), teacher.tokenizer
        start = time.perf_counter()
        logits = predict_logits(model, tokenizer, table, max_length=max_length)
        rate = len(table) / max(time.perf_counter() - start, 1e-9)
        return _Judged(logits, np.asarray(table["label"]), rate)
    assert stored is not None
    keys = _keys(table)
    there = np.flatnonzero(stored.find(keys) >= 0)
    if len(there) < FEWEST_ROWS:
        return None
    there = there[some_rows(len(there), rows)]
    logits = stored({KEY: torch.from_numpy(keys[there])}, None).logits.float().numpy()
    return _Judged(logits, np.asarray(table["label"])[there], 0.0)


def _keys(table: Any) -> np.ndarray:
    return key_array(example_key(*row) for row in _texts(table))


def _complete(stored: TeacherCache, train: Any) -> bool:
    """Whether a cache holds every labelled training row, so that the teacher need not run for them."""
    return not len(stored.missing(_keys(train)))


def _same_teacher(stored: TeacherCache, teacher: Checkpoint, max_length: int) -> None:
    """Refuse to judge a teacher by the cache of another one."""
    ours = stored.identity
    wanted = identify(
        teacher,
        teacher.tokenizer,
        max_length=max_length,
        precision=ours.precision,
        states_dtype=ours.states_dtype,
        blocks=ours.blocks,
    )
    if ours.differences(wanted):
        stored.check(wanted)


def _about_teacher(judged: _Judged, files: DataFiles, source: Source, allowed: bool) -> Finding:
    cells = {name: files.cells_of(source, name) for name in files.space.names}
    return files.task.judge(judged.logits, judged.labels, files.space.names, cells, allowed=allowed)


def _about_tokens(
    texts: list[tuple[str, ...]], teacher: Checkpoint | None, student: Checkpoint | None, max_length: int
) -> list[Finding]:
    found: list[Finding | None] = []
    ids = []
    readers = {"teacher": teacher, "student": student if student != teacher else None}
    for who, checkpoint in readers.items():
        if checkpoint is None:
            continue
        tokenizer, limit = checkpoint.tokenizer, position_limit(checkpoint.config)
        found.append(findings.lengths(full_lengths(tokenizer, texts), max_length, limit, who))
        tokens = [number for row in texts for text in row for number in tokenizer(text, verbose=False)["input_ids"]]
        unknown = tokenizer.unk_token_id
        share = 0.0 if unknown is None else sum(number == unknown for number in tokens) / max(1, len(tokens))
        found.append(findings.unknown_words(share, who))
        ids.append(tokens)
    if len(ids) == 2 and ids[0] != ids[1]:
        detail = "teacher and student cut texts into other tokens, which pooled states allow"
        found.append(Finding("note", "tokenizers", detail))
    return [finding for finding in found if finding is not None]


def _about_cost(
    options: CheckOptions,
    rows: int,
    teacher: Checkpoint | None,
    student: Checkpoint | None,
    stored: TeacherCache | None,
    measured: _Judged | None,
) -> list[Finding]:
    """From sizes alone, and the teacher's speed where it was run."""
    origin = teacher.config if teacher else None
    shallower = {"num_hidden_layers": options.student_layers} if options.student_layers else {}
    ours = student.new_config(**shallower) if student else None
    theirs, our_parameters = (_parameters(config, options.trust_remote_code) for config in (origin, ours))
    needed = 0
    if origin is not None and stored is None:
        poolings = len(options.pooling or ("mean",))
        needed = findings.cache_bytes(rows, origin.num_hidden_layers, origin.hidden_size, origin.num_labels, poolings)
    rate = measured.rate if measured else 0.0
    train_seconds = None
    if rate and ours is not None and origin is not None:
        # A step forward and back is three forward passes; those cost as blocks times width squared.
        share = ours.num_hidden_layers * ours.hidden_size**2 / (origin.num_hidden_layers * origin.hidden_size**2)
        train_seconds = 3 * options.epochs * rows * share / rate
    target = Path(options.cache or ".").absolute()
    disk = next(path for path in (target, *target.parents) if path.exists())
    return findings.cost(
        rows=rows,
        bytes_needed=needed,
        bytes_free=shutil.disk_usage(disk).free,
        teacher_seconds=rows / rate if rate else None,
        train_seconds=train_seconds,
        teacher_parameters=theirs,
        student_parameters=our_parameters,
    )


def _read(options: CheckOptions, files: DataFiles) -> dict[str, Any]:
    """train, eval and the test sets by name."""
    source = Source.parse(required(options.train, "--train"))
    files.train_on(source)
    tables = {"train": files.read(source, split="train")}
    if options.eval:
        tables["eval"] = files.read(Source.parse(options.eval), split="dev")
    for name, test in named_tests(options, source)[0].items():
        tables[f"test {name}"] = files.read(test, split=test.scored_split)
    return tables


def _texts(table: Any) -> list[tuple[str, ...]]:
    columns = [name for name in ("text", "text_pair") if name in table.column_names]
    return list(zip(*[list(table[name]) for name in columns], strict=True))


def _own_names(student: Checkpoint | None) -> tuple[str, ...] | None:
    """Return the class names of a student that brings a head of its own."""
    return student.labels if student is not None and student.config.label2id else None


def _parameters(config: Any, trust_remote_code: bool) -> int:
    """Count the parameters of a classifier with this config; nothing is allocated."""
    if config is None:
        return 0
    return sum(parameter.numel() for parameter in empty_classifier(config, trusted=trust_remote_code).parameters())
