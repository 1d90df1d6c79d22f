"""Fine-tunes a checkpoint, which makes a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import set_seed

from railkd.jobs.arguments import training_arguments
from railkd.jobs.imbalance import weigh_classes
from railkd.jobs.options import FinetuneOptions, Say, required
from railkd.jobs.request import Request, on_its_device
from railkd.jobs.splits import Splits, asked_task
from railkd.jobs.train import Trainee, fit, reserved
from railkd.jobs.trained import Trained, trained_length
from railkd.jobs.trimming import Pieces
from railkd.models.checkpoints import Checkpoint
from railkd.models.freezing import check_names
from railkd.models.limits import truncation_line
from railkd.records import RunRecord
from railkd.tasks.target import Target
from railkd.teacher.identity import content_of


@on_its_device
def finetune(request: Request[FinetuneOptions], say: Say, callbacks: Sequence[Any] = ()) -> RunRecord:
    """Fine-tune a checkpoint on labelled rows: a `railkd.jobs.train.TrainingJob`."""
    options = request.options
    start = Checkpoint.find(required(options.model, "--model"), trust=options.trust_remote_code)
    task, trained = asked_task(options), Trained.of(start.config)
    splits = Splits.read(options, lambda table: Target.infer(table, task), say, trained, strict=False)
    splits = splits.choosing_by(request.training.get("metric_for_best_model"))
    max_length = trained_length(options.max_length, start.config, say)
    args = training_arguments(
        request.with_training(method="finetune"),
        len(splits.train),
        splits.metric,
        say,
        max_length,
        greater=splits.greater_is_better,
    )
    weigh_classes(options, args, splits, say)
    if args.freeze:
        check_names(args.freeze, start.shape.blocks)
    pieces = Pieces.choose(options.vocabulary, start.tokenizer, splits.texts(), say)
    splits.check_lengths(start.config, pieces.tokenizer, args.max_length, "the model")
    say(truncation_line(splits.train.rows, pieces.tokenizer, args.max_length))
    set_seed(args.seed)
    model = pieces.fit(start.model(**splits.target.head))
    contents = {**splits.contents, "model": content_of(start)}
    record = RunRecord("finetune", None, args.seed, config=request.as_dict(), contents=contents, start=pieces.note())
    with reserved(request, record, say):
        return fit(Trainee(args, model, pieces.tokenizer, None, splits), request, record, say, callbacks)
