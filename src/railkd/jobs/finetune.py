"""Fine-tuning: how a teacher is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import set_seed

from railkd.data.sources import Source
from railkd.jobs.check import Say
from railkd.jobs.datafiles import DataFiles
from railkd.jobs.options import FinetuneOptions, required
from railkd.jobs.request import Request
from railkd.jobs.splits import Tables
from railkd.jobs.train import Trainee, fit, training_arguments
from railkd.models.checkpoints import Checkpoint
from railkd.models.limits import truncation_line
from railkd.records import RunRecord


def finetune(request: Request[FinetuneOptions], say: Say, callbacks: Sequence[Any] = ()) -> RunRecord:
    """Fine-tune a checkpoint on labelled rows: how a teacher is made. Callbacks as transformers' Trainer takes them."""
    options = request.options
    files = DataFiles(options, say)
    source = Source.parse(required(options.train, "--train"))
    start = Checkpoint.find(required(options.model, "--model"), trust=options.trust_remote_code)
    files.infer(source)
    tables = Tables.read(files, options)
    args = training_arguments(request.with_training(method="finetune"), len(tables.train), tables.chosen_by(files), say)
    tables.check_lengths(start.config, start.tokenizer, args.max_length, "the model")
    say(truncation_line(tables.train, start.tokenizer, args.max_length))
    set_seed(args.seed)
    model = start.model(**files.task.head(files.space.names))
    record = RunRecord("finetune", None, args.seed, config=request.as_dict())
    return fit(Trainee(args, model, start.tokenizer, None, files, tables), request, record, say, callbacks)
