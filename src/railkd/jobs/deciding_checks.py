"""Check the options of the jobs that change what a model answers, or doubt labels; see `railkd.jobs.preconditions`."""

from __future__ import annotations

from pathlib import Path

from railkd.data.sources import Source
from railkd.errors import Problems
from railkd.jobs.deciding_options import DeferOptions
from railkd.jobs.goals import Goal
from railkd.jobs.options import CheckOptions
from railkd.jobs.paths import compare
from railkd.jobs.request import Request
from railkd.jobs.shipping_options import CalibrateOptions
from railkd.jobs.validation import check_data, check_device, check_effect, check_model, check_source, check_target


def check_calibrate(request: Request[CalibrateOptions]) -> None:
    """Check the options of ``railkd calibrate``; see `railkd.jobs.preconditions.check_finetune`."""
    options = request.options
    problems = Problems()
    problems.require(options, "model", "eval")
    with problems.collect():
        Goal.parse(options.goal)
    check_data(problems, options)
    check_model(problems, options.model, "--model", onnx=True)
    check_device(problems, options, options.model)
    if options.output:
        check_target(problems, Path(options.output), folder=False)
        compare(problems, options, {"--output": options.output})
    problems.report()


def check_deferral(problems: Problems, options: DeferOptions) -> None:
    """Check which rows are deferred, and to which model.

    Args:
        problems: collects what is wrong.
        options: of the job.
    """
    if options.defer is None:
        check_effect(problems, options, "without --defer", "defer_to", "against", "held_out")
        return
    if not 0 < options.defer < 1:
        problems.add(f"--defer: expected a share between 0 and 1, such as 0.98, got {options.defer:g}")
    if options.defer_to and options.against:
        problems.add("--defer-to and --against exclude each other. Fix: answer the deferred rows, or mark them")
    if not options.defer_to and not options.against:
        problems.add("--defer: expected --defer-to MODEL or --against MODEL, the larger model to agree with")
    problems.require(options, "held_out")
    if options.held_out:
        check_source(problems, Source.parse(options.held_out), "--held-out")
    check_model(problems, options.defer_to, "--defer-to", onnx=True)
    check_model(problems, options.against, "--against", onnx=True)


def check_suspects(problems: Problems, options: CheckOptions) -> None:
    """Check where the table of suspects is written.

    Args:
        problems: collects what is wrong.
        options: of ``railkd check``.
    """
    if not options.suspects:
        return
    check_target(problems, Path(options.suspects), "--suspects", folder=False)
    compare(problems, options, {"--suspects": options.suspects})
    if Path(options.suspects).suffix != ".tsv":
        problems.add(f"--suspects: expected a name that ends in .tsv, got '{options.suspects}'")
