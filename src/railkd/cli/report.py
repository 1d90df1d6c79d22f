"""``railkd report``: write the records of a benchmark, or of single runs, as a page, as Markdown or as CSV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from railkd.cli.verb import Verb, printer
from railkd.jobs.options import option
from railkd.jobs.paths import compare
from railkd.jobs.request import Request
from railkd.jobs.validation import Problems, check_effect, check_target
from railkd.report import require_extra


@dataclass
class ReportOptions:
    """Options of ``railkd report``."""

    folders: list[str] = option(
        "output folders of railkd bench, or folders that contain run folders", [], metavar="FOLDER", required=True
    )
    html: str | None = option("write one self-contained page", metavar="FILE")
    markdown: str | None = option("write the tables as Markdown", metavar="FILE")
    csv: str | None = option("write the scores as CSV", metavar="FILE")
    spreadsheet_safe: bool = option(
        "put an apostrophe before names in --csv that a spreadsheet would run as a formula", False
    )
    latex: str | None = option("write the score tables as LaTeX with booktabs, for a paper", metavar="FILE")
    baseline: str | None = option(
        "arm that the others are compared with (default: that of the grid, or kd)", metavar="ARM"
    )
    all: bool = option("print every arm (default: of more than 12 arms those that matter most)", False)
    quiet: bool = option("print the results only", False)


def check(request: Request[ReportOptions]) -> None:
    """Check the folders, the targets and the libraries of the page."""
    options = request.options
    problems = Problems()
    if not options.folders:
        problems.add("Expected the output folder of railkd bench or a folder with run folders, got no folder.")
    for flag, target in _targets(options).items():
        check_target(problems, Path(target), flag, folder=False)
    compare(problems, options, _targets(options))
    if not options.csv:
        check_effect(problems, options, "without --csv", "spreadsheet_safe")
    if options.html:
        with problems.collect():
            require_extra()
    problems.report()


def run(request: Request[ReportOptions]) -> None:
    """Write the requested files. If none is requested, print the main tables.

    Args:
        request: the options.
    """
    from railkd.report.content import content
    from railkd.report.latex import latex
    from railkd.report.study import read
    from railkd.report.text import csv_text, markdown
    from railkd.runtime.files import write_text

    options = request.options
    say = printer(options.quiet)
    report = content(read(options.folders, options.baseline))
    if options.html:
        from railkd.report.html import html

        write_text(options.html, html(report))
    if options.markdown:
        write_text(options.markdown, markdown(report))
    if options.csv:
        write_text(options.csv, csv_text(report, spreadsheet_safe=options.spreadsheet_safe))
    if options.latex:
        write_text(options.latex, latex(report))
    for target in _targets(options).values():
        say(f"written: {target}")
    if not _targets(options):
        _print(report, every_arm=options.all)


def _print(report: dict[str, Any], *, every_arm: bool) -> None:
    """Print the tables: in blocks as wide as the terminal, or with whole rows in a pipe or file."""
    from rich.console import Console

    from railkd.report.terminal import terminal

    console = Console(highlight=False)
    width = console.width if console.is_terminal else None
    for line in terminal(report, width, every_arm=every_arm):
        # Rich would cut a line of a table at the width; only sentences are wrapped.
        console.print(line, soft_wrap=width is None or line.cell_len <= width)


def _targets(options: ReportOptions) -> dict[str, str]:
    found = {"--html": options.html, "--markdown": options.markdown, "--csv": options.csv}
    found["--latex"] = options.latex
    return {flag: target for flag, target in found.items() if target}


_ABOUT = "Turn the records of runs into one page: scores, statistics, times, curves and provenance."
_EXAMPLE = "railkd report runs/bench --html report.html --markdown report.md --csv report.csv"
VERB = Verb("report", _ABOUT, _EXAMPLE, ReportOptions, run, check, "folders")
