"""``railkd demo``: train a teacher and students on a real model and real data, and compare them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from railkd.cli.verb import Verb
from railkd.jobs.options import option
from railkd.jobs.request import Request
from railkd.jobs.validation import Problems, check_target
from railkd.runtime.faces import lazy

if TYPE_CHECKING:
    from railkd.cli.demo.archive import Row
    from railkd.cli.demo.data import sentiment_sets, subset
    from railkd.cli.demo.model import encoder_folder

__all__ = ["Row", "encoder_folder", "sentiment_sets", "subset"]

#: Model and rows of the demo, for examples. Each name is imported at its first use.
_HOMES = {
    "Row": "railkd.cli.demo.archive",
    "encoder_folder": "railkd.cli.demo.model",
    "sentiment_sets": "railkd.cli.demo.data",
    "subset": "railkd.cli.demo.data",
}
__getattr__, __dir__ = lazy(__name__, _HOMES)


@dataclass
class DemoOptions:
    """Options of ``railkd demo``."""

    quick: bool = option("a smaller run, about a minute", False)
    full: bool = option("every training row instead of a subset", False)
    output: str = option("folder of the results", "runs/demo", metavar="DIR")
    quiet: bool = option("print the results only", False)


def check(request: Request[DemoOptions]) -> None:
    """Check the options without importing torch."""
    options = request.options
    problems = Problems()
    if options.quick and options.full:
        problems.add("Expected --quick or --full, got both.")
    check_target(problems, Path(options.output))
    problems.report()


def run(request: Request[DemoOptions]) -> None:
    """Run the demo, which prints its own progress and results."""
    options = request.options
    from railkd.cli.demo.comparison import main

    main(quick=options.quick, full=options.full, output=options.output, quiet=options.quiet)


_ABOUT = "Fine-tune a real teacher on real data, distil it into a 3-block student, and compare."
VERB = Verb("demo", _ABOUT, "railkd demo --quick", DemoOptions, run, check)
