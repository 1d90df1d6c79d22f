"""``railkd cache``: run the teacher once over the rows, so that no training has to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from railkd.cli.verb import Verb, talker
from railkd.jobs.options import CacheOptions
from railkd.jobs.validation import Problems, check_data, check_model


def check(options: CacheOptions, training: dict[str, Any]) -> None:
    """What needs no torch to be seen."""
    problems = Problems()
    problems.required(options, *(("cache",) if options.verify else ("teacher", "train", "cache")))
    check_data(problems, options)
    check_model(problems, options.teacher, "--teacher")
    if options.cache:
        path = Path(options.cache)
        if path.is_file():
            problems.add(f"--cache '{path}' is a file, wanted a folder")
        elif options.verify and not path.is_dir():
            problems.add(f"--cache '{path}': no such folder; wanted a cache to verify")
    if options.verify and options.overwrite:
        problems.add("got --verify and --overwrite; wanted one of them: read the cache, or build it anew")
    problems.report()
    if options.pooling:
        from railkd.signals import checked_poolings

        checked_poolings(options.pooling)


def run(options: CacheOptions, training: dict[str, Any]) -> None:
    """Build, or verify; the job says where and how large."""
    from railkd.jobs import cache

    cache.build_cache(options, talker(options.quiet))


VERB = Verb(
    name="cache",
    about="Run a teacher once over the rows and keep its logits and pooled block states.",
    example="railkd cache --teacher runs/teacher/model --train train.tsv --cache cache/",
    options=CacheOptions,
    check=check,
    run=run,
)
