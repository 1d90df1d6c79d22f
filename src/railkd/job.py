"""The main job: data -> teacher -> cache -> student -> metrics -> record. Command line and demo both call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from transformers import EvalPrediction, PrinterCallback, set_seed

from railkd import checkpoints, configuration, inspection, ranks, runfolder
from railkd.datafiles import DataFiles
from railkd.errors import RailkdError
from railkd.examples import truncation_line
from railkd.hardware import fast_bf16
from railkd.inference import predict_logits
from railkd.objectives import build_objective, method_spec
from railkd.options import (
    DEFAULT_MAX_LENGTH,
    CacheOptions,
    DistillOptions,
    FinetuneOptions,
    required,
)
from railkd.progress import StepProgress, bar
from railkd.records import RunRecord, write_text
from railkd.scoring import score
from railkd.student import blocks_to_keep, describe_student, head_config, make_student
from railkd.tables import Tables
from railkd.tasks.metrics import greater_is_better
from railkd.teacher import LiveTeacher, TeacherCache
from railkd.teacher.cache import checked_poolings
from railkd.teacher.protocol import label_names
from railkd.teacher.writer import MANIFEST
from railkd.training import DistillationTrainer, DistillationTrainingArguments
from railkd.training.interruption import Interruption

Say = Callable[[str], None]


# ---- the jobs ----------------------------------------------------------------------------------


def finetune(options: FinetuneOptions, training: dict[str, Any], say: Say, callbacks: Sequence[Any] = ()) -> RunRecord:
    """Fine-tune a checkpoint on labelled rows: how a teacher is made. Callbacks as transformers' Trainer takes them."""
    files = DataFiles(options, say)
    source = required(options.train, "--train")
    folder = checkpoints.resolve(required(options.model, "--model"), trust_remote_code=options.trust_remote_code)
    files.infer(source)
    tables = Tables.read(files, options)
    args = _arguments({**training, "method": "finetune"}, options, len(tables.train), tables.chosen_by(files), say)
    tokenizer = checkpoints.load_tokenizer(folder)
    tables.check_lengths(checkpoints.load_config(folder), tokenizer, args.max_length, "the model")
    say(truncation_line(tables.train, tokenizer, args.max_length))
    set_seed(args.seed)
    model = checkpoints.load_classifier(folder, **_head(files), ignore_mismatched_sizes=True)
    record = RunRecord("finetune", None, args.seed, config=configuration.as_dict(options, training))
    trained = (args, model, tokenizer, None, files, tables, say)
    return _fit(record, options, training, *trained, name="model", callbacks=callbacks)


def distill(options: DistillOptions, training: dict[str, Any], say: Say, callbacks: Sequence[Any] = ()) -> RunRecord:
    """Distil a teacher, or the cache of one, into a student. Callbacks as transformers' Trainer takes them."""
    spec = method_spec(training.get("method", "rail-kd-l"))
    trust = options.trust_remote_code
    teacher = checkpoints.resolve(options.teacher, trust_remote_code=trust) if options.teacher else None
    stored = TeacherCache.open(options.cache) if options.cache and (Path(options.cache) / MANIFEST).is_file() else None
    if teacher is None and stored is None:
        TeacherCache.open(required(options.cache, "--teacher or --cache"))
    files = DataFiles(options, say)
    names, problem_type = inspection.labels_of(teacher, stored)
    files.follow(names, problem_type=problem_type, model=str(teacher or options.cache))
    tables = Tables.read(files, options)
    args = _arguments(training, options, len(tables.train), tables.chosen_by(files), say, stored)
    tokenizer, make = _student_plan(options, files, teacher, args.blocks)
    if stored is not None and teacher is None and options.max_length not in (None, stored.identity.max_length):
        raise RailkdError(
            f"the cache '{stored.path}' was made with max length {stored.identity.max_length}, got --max-length "
            f"{options.max_length}; "
            "leave the flag out, or build another cache"
        )
    start = _starts_from(options, teacher)
    tables.check_lengths(checkpoints.load_config(start), tokenizer, args.max_length, "the student")
    say(truncation_line(tables.train, tokenizer, args.max_length))
    if spec.needs_teacher and not options.resume:  # a resumed run has passed
        inspection.before_distilling(options, files, tables.train, tables.eval, teacher, stored, args.max_length, say)
    _check_pair(options, args, teacher, stored)
    record = RunRecord("distill", spec.name, args.seed, config=configuration.as_dict(options, training))
    source: LiveTeacher | TeacherCache | None = None
    if spec.needs_teacher and options.live:
        if teacher is None:
            raise RailkdError("--live runs the teacher at every step; name it with --teacher")
        model = checkpoints.load_classifier(teacher).to(args.device)
        source = LiveTeacher(
            model,
            checkpoints.load_tokenizer(teacher),
            max_length=args.max_length,
            poolings=(spec.pooling or "mean",),
            bf16=args.bf16,
            blocks=args.teacher_blocks,
        )
    elif spec.needs_teacher:
        with record.phase("teacher pass"):
            source = _cache(options, teacher, stored, tables.texts(), args, spec.pooling, say)
    set_seed(args.seed)
    student = make()
    say(f"student: {describe_student(checkpoints.load_config(start), student, trust_remote_code=trust)}")
    trained = (args, student, tokenizer, source, files, tables, say)
    return _fit(record, options, training, *trained, name="student", callbacks=callbacks)


def build_cache(options: CacheOptions, say: Say) -> TeacherCache:
    """Run the teacher once over every row of the files, or read a whole cache to verify it."""
    path = required(options.cache, "--cache")
    ranks.start()
    if options.verify:
        cache = TeacherCache.open(path)
        with bar("verifying", "rows", quiet=options.quiet) as advance:
            cache.verify(advance)
        say(f"every checksum of {cache.rows:,} rows fits: {path}")
        return cache
    teacher = checkpoints.resolve(required(options.teacher, "--teacher"), trust_remote_code=options.trust_remote_code)
    files = DataFiles(options, say)
    if not options.train:
        required(None, "--train")
    tables = [files.read(source, split="train", labelled=False) for source in options.train]
    bf16 = fast_bf16() if options.bf16 is None else options.bf16
    rows, max_length = concatenate_datasets(tables), options.max_length or DEFAULT_MAX_LENGTH
    say(truncation_line(rows, checkpoints.load_tokenizer(teacher), max_length))
    with bar("teacher pass", "rows", quiet=options.quiet) as advance:
        cache = TeacherCache.build(
            teacher,
            rows,
            path,
            max_length=max_length,
            pooling=options.pooling or ("mean",),
            dtype=options.dtype,
            batch_size=options.batch_size,
            bf16=bf16,
            blocks=options.blocks,
            overwrite=options.overwrite,
            on_progress=advance,
        )
    say(_cache_line(cache))
    return cache


def check_settings(options: FinetuneOptions | DistillOptions, training: dict[str, Any], teacher: Path | None) -> None:
    """Refuse what a run would refuse once it has started, as far as settings and configs tell; no row is read.

    Args:
        teacher: a folder with the teacher's config; None: it is on the hub, and is not asked for.
    """
    metric = "accuracy" if options.eval or options.eval_share else None
    if isinstance(options, FinetuneOptions):
        _arguments({**training, "method": "finetune"}, options, 1, metric, lambda line: None)
        return
    args = _arguments(training, options, 1, metric, lambda line: None)
    if teacher is not None and (options.student is None or Path(options.student).is_dir()):
        _check_pair(options, args, teacher, None)


# ---- their steps -------------------------------------------------------------------------------


def _fit(
    record: RunRecord,
    options: FinetuneOptions | DistillOptions,
    training: dict[str, Any],
    args: DistillationTrainingArguments,
    model: Any,
    tokenizer: Any,
    teacher: LiveTeacher | TeacherCache | None,
    files: DataFiles,
    tables: Tables,
    say: Say,
    *,
    name: str,
    callbacks: Sequence[Any],
) -> RunRecord:
    """Train, score, and leave the run folder behind."""
    output = Path(str(args.output_dir))
    resume = runfolder.claim(output, options, training, say)
    if args.should_save:
        output.mkdir(parents=True, exist_ok=True)
        write_text(output / "config.yaml", configuration.dump(options, training))

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        return files.score(prediction.predictions, prediction.label_ids)

    model.config.railkd = {"method": args.method, "max_length": args.max_length}
    trainer = DistillationTrainer(
        model=model,
        teacher_model=teacher,
        args=args,
        train_dataset=tables.training_rows(model.config),
        eval_dataset=tables.eval,
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
    )
    trainer.gauging.warn = say
    with record.phase("training"), bar(f"training {args.method}", "steps", quiet=options.quiet) as advance:
        trainer.remove_callback(PrinterCallback)  # the bar shows the way; the numbers go to metrics.json
        for callback in (StepProgress(advance), *callbacks, interruption := Interruption(say)):
            trainer.add_callback(callback)
        with interruption.listening():
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    record.labels = list(label_names(model.config))
    with record.phase("evaluation"):
        # In float32 and outside Trainer: the numbers that the saved student gives wherever it is loaded.
        scored = dict(tables.test) | ({"eval": tables.eval} if tables.eval is not None else {})
        for set_name, table in scored.items():
            logits = predict_logits(trainer.model.student, tokenizer, table, max_length=args.max_length)
            score(
                record,
                files,
                set_name,
                table,
                logits,
                source=tables.sources.get(set_name),
                domain=tables.domains.get(set_name, "in"),
                keep=output if options.keep_predictions and args.should_save else None,
                texts=options.keep_predictions == "texts",
            )
        if tables.eval is not None:
            record.selection = runfolder.selection(trainer, files.primary_metric, tables.selecting)
    runfolder.leave(record, trainer, output / name, tokenizer, keep=any(key.startswith("save_") for key in training))
    ranks.wait()  # the student is there for all of them
    say(f"saved: {output / name} (plain transformers loads it); results: {output / 'metrics.json'}")
    return record


def _arguments(
    training: dict[str, Any],
    options: FinetuneOptions | DistillOptions,
    rows: int,
    metric: str | None,
    say: Say,
    stored: TeacherCache | None = None,
) -> DistillationTrainingArguments:
    """The training arguments: what the user gave, and what a job chooses where nothing was given.

    Args:
        rows: that are trained on. metric: chooses the best epoch; None: nothing does.
    """
    chosen: dict[str, Any] = {
        "output_dir": required(options.output, "--output"),
        "max_length": options.max_length or (stored.identity.max_length if stored else DEFAULT_MAX_LENGTH),
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.accelerator.is_available(),  # without one it does nothing but warn
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "logging_steps": max(1, rows // 320),
    }
    if "save_steps" in training:
        chosen["save_strategy"] = "steps"
    if metric is not None:
        chosen |= {
            "eval_strategy": training.get("save_strategy", chosen["save_strategy"]),
            "eval_steps": training.get("save_steps"),
            "load_best_model_at_end": True,
            "metric_for_best_model": metric,
            "greater_is_better": greater_is_better(metric),
        }
    given = {name: value for name, value in training.items() if value is not None}
    if "bf16" not in given and "fp16" not in given:
        chosen["bf16"] = fast_bf16()
        say(f"precision: {'bfloat16 autocast (--no-bf16 turns it off)' if chosen['bf16'] else 'float32'}")
    try:
        return DistillationTrainingArguments(**{**chosen, **given})
    except RailkdError:
        raise
    except (ValueError, TypeError) as error:
        raise RailkdError(f"the training arguments do not fit together: {str(error).splitlines()[0]}") from error


def _cache(
    options: DistillOptions,
    teacher: Path | None,
    stored: TeacherCache | None,
    texts: Dataset,
    args: DistillationTrainingArguments,
    pooling: str | None,
    say: Say,
) -> TeacherCache:
    """The cache of this run: as it is when no teacher was named, otherwise checked, and built where it lacks rows."""
    if stored is not None and pooling is not None:
        stored.check_pooling(pooling)
    if teacher is None:
        assert stored is not None
        say(_cache_line(stored))
        return stored
    # What the user did not ask for is taken from the cache that is there: it need not be built again for a default.
    needed = [pooling] if pooling else list(stored.poolings) if stored else ["mean"]
    wanted = checked_poolings([*needed, *(options.pooling or ())])
    own = options.cache is None  # a part of the run: replaced with it
    with bar("teacher pass", "rows", quiet=options.quiet) as advance:
        cache = TeacherCache.build(
            teacher,
            texts,
            options.cache or Path(str(args.output_dir)) / "cache",
            max_length=args.max_length,
            pooling=wanted,
            dtype=stored.identity.states_dtype if stored else "float16",
            bf16=stored.identity.precision == "bfloat16" if stored else args.bf16,
            blocks=args.teacher_blocks or (stored.identity.blocks if stored else None),
            overwrite=own and options.overwrite,
            on_progress=advance,
        )
    say(_cache_line(cache))
    return cache


def _check_pair(
    options: DistillOptions, args: DistillationTrainingArguments, teacher: Path | None, stored: TeacherCache | None
) -> None:
    """Make the objective of this pair once, from sizes: options that do not fit are said before the teacher runs."""
    origin = checkpoints.load_config(_starts_from(options, teacher))
    theirs: Any = stored.info.shape if stored is not None else None
    if teacher is not None:
        config = checkpoints.load_config(teacher)
        theirs = (config.num_hidden_layers, config.hidden_size)
    ours = (options.student_layers or origin.num_hidden_layers, origin.hidden_size)
    build_objective(args.method, ours, theirs, **args.objective_options())


def _student_plan(
    options: DistillOptions, files: DataFiles, teacher: Path | None, blocks: str | None
) -> tuple[Any, Callable[[], Any]]:
    """The student's tokenizer, and a function that makes the student; bad layer counts are said before anything long
    starts.
    """
    keep = options.keep if not options.keep[:1].isdigit() else [int(block) for block in options.keep.split(",")]
    origin = _starts_from(options, teacher)
    head = _head(files) if options.student else {}
    layers = options.student_layers
    if layers is None and not options.student:
        raise RailkdError(
            "got neither --student-layers nor --student; wanted the number of student blocks, or a checkpoint"
        )
    if layers is not None:
        blocks_to_keep(layers, checkpoints.load_config(origin).num_hidden_layers, keep)
    tokenizer = checkpoints.load_tokenizer(origin)
    if layers is None:  # a head of another task's size is made anew
        return tokenizer, lambda: checkpoints.load_classifier(origin, **head, ignore_mismatched_sizes=True)
    return tokenizer, lambda: make_student(origin, layers, keep, blocks=blocks, **head)


def _starts_from(options: DistillOptions, teacher: Path | None) -> Path:
    """The checkpoint that the student's weights come from."""
    if options.student:
        return checkpoints.resolve(options.student, trust_remote_code=options.trust_remote_code)
    if teacher is None:
        raise RailkdError("--cache without --teacher needs --student: the checkpoint to start from")
    return teacher


def _head(files: DataFiles) -> dict[str, Any]:
    """Config entries of a head for the classes of this job."""
    space = files.space
    assert space is not None
    return head_config(space.names, multi=space.multi)


def _cache_line(cache: TeacherCache) -> str:
    what = f"{cache.rows:,} rows, {cache.bytes / 1e6:,.1f} MB, {cache.info.blocks} blocks of {cache.info.width}"
    return f"teacher cache: {what}, at {cache.path}"
