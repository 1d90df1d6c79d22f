"""``railkd check``: everything that would doom a run, found before it starts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from railkd.cli.verb import Verb, talker
from railkd.errors import RailkdError
from railkd.jobs.options import CheckOptions
from railkd.jobs.validation import Problems, check_data, check_model


def check(options: CheckOptions, training: dict[str, Any]) -> None:
    """What needs no torch to be seen."""
    problems = Problems()
    problems.required(options, "train")
    if not options.teacher and not options.cache:
        problems.add("got neither --teacher nor --cache; wanted a fine-tuned teacher, or the cache of one")
    elif options.cache and not options.teacher and not Path(options.cache).is_dir():
        problems.add(f"no teacher cache at '{options.cache}'; check the path, or name the --teacher")
    if not options.epochs > 0:
        problems.add(f"--epochs: got {options.epochs:g}, wanted a number above 0")
    if options.student_layers is not None and options.student_layers < 1:
        problems.add(f"--student-layers: got {options.student_layers}, wanted at least 1")
    check_data(problems, options)
    check_model(problems, options.teacher, "--teacher")
    check_model(problems, options.student, "--student")
    problems.report()
    if options.pooling:
        from railkd.signals import checked_poolings

        checked_poolings(options.pooling)


def run(options: CheckOptions, training: dict[str, Any]) -> None:
    """Print the findings, worst first, and a verdict; an error among them is bad input."""
    from railkd.jobs import check, findings

    found = check.check(options, talker(options.quiet or options.json))
    found.sort(key=lambda finding: ("error", "warning", "note").index(finding.level))
    verdict = findings.verdict(found)
    errors = [finding for finding in found if finding.level == "error"]
    if options.json:
        print(json.dumps({"verdict": verdict, "ready": not errors, "findings": [asdict(f) for f in found]}, indent=1))
    else:
        print("\n".join([*map(str, found), verdict]))
    if errors:
        raise RailkdError(f"the check found {errors[0].title}" + (f" and {len(errors) - 1} more" if errors[1:] else ""))


VERB = Verb(
    name="check",
    about="Look for what would doom a run: a weak teacher, permuted labels, leaks, truncation, too little disk.",
    example="railkd check --teacher runs/teacher/model --student-layers 3 --train train.tsv --eval dev.tsv",
    options=CheckOptions,
    check=check,
    run=run,
    spellings={"num_train_epochs": "epochs"},
)
