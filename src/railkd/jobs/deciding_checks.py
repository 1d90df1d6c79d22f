"""Check the options of the jobs that change what a model answers, or doubt labels; see `railkd.jobs.preconditions`."""

from __future__ import annotations

from pathlib import Path

from railkd.errors import Problems
from railkd.jobs.goals import Goal
from railkd.jobs.options import CheckOptions
from railkd.jobs.paths import compare
from railkd.jobs.request import Request
from railkd.jobs.shipping_options import CalibrateOptions
from railkd.jobs.validation import check_data, check_model, check_target


def check_calibrate(request: Request[CalibrateOptions]) -> None:
    """Check the options of ``railkd calibrate``; see `railkd.jobs.preconditions.check_finetune`."""
    options = request.options
    problems = Problems()
    problems.require(options, "model", "eval")
    with problems.collect():
        Goal.parse(options.goal)
    check_data(problems, options)
    check_model(problems, options.model, "--model", onnx=True)
    if options.output:
        check_target(problems, Path(options.output), folder=False)
        compare(problems, options, {"--output": options.output})
    problems.report()


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
