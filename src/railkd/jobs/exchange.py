"""Copies a teacher cache to a folder or the hub (``railkd cache push``), and back (``railkd cache pull``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from railkd.export.push import check_push
from railkd.jobs.cache_options import CachePullOptions, CachePushOptions
from railkd.jobs.option import Say
from railkd.jobs.request import Request
from railkd.jobs.validation import Problems, check_cache_folder, check_effect, check_target
from railkd.runtime.progress import bar
from railkd.runtime.words import counted

if TYPE_CHECKING:
    from railkd.teacher.places import Place

#: The file that makes a cache complete; `railkd.teacher.manifest` needs torch.
_MANIFEST = "manifest.json"


def is_folder(place: str) -> bool:
    """Return True if a place is a folder, False if it is a name of the hub.

    Args:
        place: as the user wrote it. ``a/b`` is a name of the hub unless there is a folder ``a`` here.
    """
    path = Path(place)
    return path.exists() or place.count("/") != 1 or place.startswith((".", "/", "~")) or path.parent.is_dir()


def check_pushed(request: Request[CachePushOptions]) -> None:
    """Check the options of ``railkd cache push``. One `RailkdError` names all problems.

    Args:
        request: options of the job.
    """
    options, problems = request.options, _check(request.options)
    if options.cache and not (Path(options.cache) / _MANIFEST).is_file():
        problems.add(f"--cache: there is no finished teacher cache at '{options.cache}'")
    if options.place and is_folder(options.place):
        check_effect(problems, options, "with a folder", "private")
        check_target(problems, Path(options.place), "PLACE")
    elif options.place:
        with problems.collect():
            check_push(options.place, "PLACE")
    problems.report()


def check_pulled(request: Request[CachePullOptions]) -> None:
    """Check the options of ``railkd cache pull``; see `check_pushed`."""
    options, problems = request.options, _check(request.options)
    if options.cache:
        check_cache_folder(problems, options.cache)
    if options.place and is_folder(options.place):
        if not (Path(options.place) / _MANIFEST).is_file():
            problems.add(f"PLACE: there is no finished teacher cache in the folder '{options.place}'")
    elif options.place:
        with problems.collect():
            check_push(options.place, "PLACE", token_needed=False)
    problems.report()


def push_cache(options: CachePushOptions, say: Say) -> str:
    """Copy a cache to its place.

    Args:
        options: of the job.
        say: receives lines for the user.

    Returns:
        The result in words.
    """
    from railkd.teacher.exchange import push

    place = _place(str(options.place), options.private)
    say(f"copies the cache '{options.cache}' to {place.name}: keys, outputs and states, no texts and no weights")
    with bar("verifying", "rows", quiet=options.quiet) as advance:
        done = push(Path(str(options.cache)), place, advance)
    return (
        f"pushed: {done.rows:,} rows in {place.name}; {counted(done.files, 'shard')} copied, {done.kept} there already"
    )


def pull_cache(options: CachePullOptions, say: Say) -> str:
    """Copy a cache from its place; see `push_cache`."""
    from railkd.teacher import TeacherCache
    from railkd.teacher.exchange import pull

    place, folder = _place(str(options.place)), Path(str(options.cache))
    say(f"copies what '{folder}' lacks from {place.name}")
    with bar("pulling", "shards", quiet=options.quiet) as advance:
        done = pull(place, folder, advance)
    say(TeacherCache.open(folder).described)
    return (
        f"pulled: {counted(done.new, 'new row')} of {place.name}; {counted(done.files, 'shard')} copied and verified, "
        f"{done.kept} here already"
    )


def _place(text: str, private: bool | None = None) -> Place:
    from railkd.teacher.places import FolderPlace, HubPlace

    return FolderPlace(Path(text)) if is_folder(text) else HubPlace(text, private=private)


def _check(options: CachePushOptions | CachePullOptions) -> Problems:
    # Both are named, and are not one folder.
    problems = Problems()
    if not options.place:
        problems.add("expected a folder, or a data set of the hub such as org/name, got none")
    problems.require(options, "cache")
    if options.place and options.cache and Path(options.place).resolve() == Path(options.cache).resolve():
        problems.add(f"PLACE and --cache name one path, '{options.cache}'. Fix: name two")
    return problems
