"""Check what the jobs that use or ship a finished model require of their options; see `railkd.jobs.preconditions`."""

from __future__ import annotations

from pathlib import Path

from railkd.data.predictions import SUFFIX_WORDS, SUFFIXES
from railkd.data.sources import parse_named
from railkd.export.layout import Shipped, require_onnx
from railkd.jobs.deciding_checks import check_deferral
from railkd.jobs.paths import compare
from railkd.jobs.request import Request
from railkd.jobs.shipping_options import CertifyOptions, ExportOptions, PredictOptions
from railkd.jobs.validation import (
    Problems,
    check_at_least,
    check_data,
    check_device,
    check_effect,
    check_model,
    check_output_table,
    check_push_target,
    check_source,
    check_target,
    check_vocabulary,
    is_answer_file,
)
from railkd.records import RECORD_FILE


def check_predict(request: Request[PredictOptions]) -> None:
    """Check the options of ``railkd predict``; see `railkd.jobs.preconditions.check_finetune`."""
    options = request.options
    problems = Problems()
    problems.require(options, "model", "test")
    if len(options.test) > 1:
        problems.add(f"--test: expected one file, whose order the predictions keep, got {len(options.test)}")
    check_effect(problems, options, "here: the model decides the task", "problem_type", "label_column")
    if not options.glue_submission:
        check_effect(problems, options, "without --glue-submission", "label_map")
    check_data(problems, options)
    check_model(problems, options.model, "--model", onnx=True)
    check_device(problems, options, options.model, options.defer_to, options.against)
    check_deferral(problems, options)
    if options.glue_submission:
        check_effect(problems, options, "with --glue-submission", "probabilities", "thresholds", "defer")
        check_target(problems, Path(options.output or "."))
        compare(problems, options, {"--output": options.output or "."})
    elif options.output:
        check_output_table(problems, options)
    problems.report()


def check_export(request: Request[ExportOptions]) -> None:
    """Check the options of ``railkd export``; see `railkd.jobs.preconditions.check_finetune`."""
    options = request.options
    problems = Problems()
    if not options.model:
        problems.add("Expected a run folder or a model folder to export, got none.")
    problems.require(options, "output")
    check_data(problems, options)
    with problems.collect():
        for source in parse_named(options.eval).values():
            check_source(problems, source, "--eval")
    _check_margins(problems, options, "max_drop", "max_class_drop")
    check_vocabulary(problems, options)
    if options.per_op and not options.int8:
        check_effect(problems, options, "without --int8", "per_op")
    if options.onnx or options.int8:
        with problems.collect():
            require_onnx()
    check_push_target(problems, options, "push")
    if options.model and not (Path(options.model) / RECORD_FILE).is_file():
        check_model(problems, options.model, "RUN")
    if options.output:
        folder = Path(options.output)
        check_target(problems, folder)
        compare(problems, options, {"--output": options.output}, [folder])
        if folder.is_symlink():
            problems.add(f"--output: expected a folder, but '{folder}' is a link. Fix: name the folder itself")
        elif foreign := Shipped(folder).foreign():
            problems.add(
                f"--output: '{folder}' holds files that railkd export did not write, such as '{foreign[0]}'. Fix: name "
                "another folder"
            )
        elif folder.is_dir() and any(folder.iterdir()) and not options.overwrite:
            problems.add(f"--output: '{folder}' holds another export. Fix: name another folder, or give --overwrite")
    problems.report()


def check_certify(request: Request[CertifyOptions]) -> None:
    """Check the options of ``railkd certify``; see `railkd.jobs.preconditions.check_finetune`."""
    options = request.options
    problems = Problems()
    problems.require(options, *(("model", "against") if options.ood else ("model", "against", "test")))
    check_data(problems, options)
    check_at_least(problems, options, 0, "flips")
    _check_margins(problems, options, "margin", "class_margin")
    files = [name for name in (options.model, options.against) if name and is_answer_file(name)]
    for name, flag in ((options.model, "--model"), (options.against, "--against")):
        if name not in files:
            check_model(problems, name, flag, onnx=True)
    check_device(problems, options, options.model, options.against)
    if files and len(options.test) + len(options.ood) > 1:
        problems.add(
            f"--test: expected one file, whose rows '{files[0]}' answers, got {len(options.test) + len(options.ood)}"
        )
    if options.flipped and Path(options.flipped).suffix not in SUFFIXES:
        problems.add(f"--flipped: expected a name that ends in {SUFFIX_WORDS}, got '{options.flipped}'")
    written = {"--output": options.output, "--flipped": options.flipped}
    targets = {flag: target for flag, target in written.items() if target}
    for flag, target in targets.items():
        check_target(problems, Path(target), flag, folder=False)
    if targets:
        compare(problems, options, targets)
    problems.report()


def _check_margins(problems: Problems, options: ExportOptions | CertifyOptions, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if not 0 < value < 100:
            flag = f"--{name.replace('_', '-')}"
            problems.add(f"{flag}: expected points between 0 and 100, such as 1, got {value:g}")
