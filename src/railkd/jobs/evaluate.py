"""What a finished model says of new rows: scores of labelled files, predictions of any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from railkd.data.predictions import write_answers
from railkd.data.sources import Source
from railkd.jobs.datafiles import DataFiles, named_tests
from railkd.jobs.options import DEFAULT_MAX_LENGTH, EvaluateOptions, required
from railkd.jobs.request import Request
from railkd.jobs.run_folder import RunFolder
from railkd.models.checkpoints import Checkpoint
from railkd.models.heads import label_names
from railkd.models.inference import predict_logits
from railkd.models.limits import truncation_line
from railkd.records import RunRecord
from railkd.runtime import hardware, ranks
from railkd.runtime.files import write_json

Say = Callable[[str], None]


def score(
    record: RunRecord,
    files: DataFiles,
    name: str,
    table: Dataset,
    logits: np.ndarray,
    *,
    source: Source | None,
    domain: str,
    keep: RunFolder | None,
    texts: bool,
) -> None:
    """Put the metrics of a labelled set in the record, and what the model says of each row in a folder.

    Args:
        record: whose labels are known. logits: (N, C), in the order of the table. source: of the set, if it has one.
        domain: "in" or "out" of that of the training rows. keep: folder of the predictions; None: not kept.
        texts: keep the texts beside them.
    """
    gold = np.asarray(table["label"])
    record.metrics[name], record.domains[name] = files.score(logits, gold, source), domain
    if keep is None:
        return
    file = keep.predictions(name)
    record.predictions[name] = file.relative_to(keep.path).as_posix()
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = [column for column in ("text", "text_pair") if column in table.column_names]
    rows = list(zip(*[table[column][:] for column in columns], strict=True)) if texts else None
    write_answers(file, *files.answers(logits, gold, source), logits, record.labels, rows)


def evaluate(options: EvaluateOptions, say: Say, *, keep: Path | None = None) -> RunRecord:
    """Score a model on labelled files.

    Args:
        keep: folder that gets its predictions of every row, with the texts; None: they are not kept.
    """
    ranks.initialize()
    record = RunRecord("evaluate", None, 0, config=Request(options).as_dict())
    checkpoint = Checkpoint.find(required(options.model, "--model"), trust=options.trust_remote_code)
    trained_on = Source.parse(options.train) if options.train else None
    named, domains = named_tests(options, trained_on)
    if not named:
        required(None, "--test")
    files = DataFiles(options, say)
    files.follow(checkpoint.labels, problem_type=checkpoint.task.problem_type, model=str(checkpoint))
    if trained_on is not None:
        files.train_on(trained_on)
    tables = {name: files.read(source, split=source.scored_split) for name, source in named.items()}
    model, tokenizer = checkpoint.frozen(), checkpoint.tokenizer
    max_length = _trained_length(options.max_length, model.config)
    record.labels = list(label_names(model.config))
    with record.phase("evaluation"):
        for name, table in tables.items():
            say(f"{name}: {truncation_line(table, tokenizer, max_length)}")
            logits = predict_logits(model, tokenizer, table, max_length=max_length, batch_size=options.batch_size)
            score(
                record,
                files,
                name,
                table,
                logits,
                source=named[name],
                domain=domains[name],
                keep=RunFolder(keep) if keep and ranks.is_main_process() else None,
                texts=True,
            )
    record.sizes = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    record.peak_memory, record.machine = hardware.peak_memory(), hardware.machine()
    if options.output and ranks.is_main_process():
        plain = {name: {**metrics, "domain": record.domains[name]} for name, metrics in record.metrics.items()}
        write_json(options.output, plain)
    return record


def _trained_length(given: int | None, config: Any) -> int:
    """The length a model was trained with, unless the user says another."""
    return given or int((getattr(config, "railkd", None) or {}).get("max_length", DEFAULT_MAX_LENGTH))
