"""Builds or verifies the teacher cache of a list of files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from datasets import concatenate_datasets

from railkd.data.sources import Source
from railkd.jobs.answers import read_teacher_labels
from railkd.jobs.options import CacheOptions, Say, required
from railkd.jobs.request import on_its_device
from railkd.jobs.splits import TableReader
from railkd.jobs.trained import Trained, trained_length
from railkd.models.checkpoints import Checkpoint
from railkd.models.limits import truncation_line
from railkd.runtime import ranks
from railkd.runtime.hardware import fast_bf16
from railkd.runtime.ownership import LOCK, lock_of
from railkd.runtime.progress import bar
from railkd.teacher import TeacherCache
from railkd.teacher.writer import clear, own_files


@on_its_device
def build_cache(options: CacheOptions, say: Say) -> TeacherCache:
    """Run the teacher once over every row of the files, or read a whole cache to verify it.

    Args:
        options: settings of ``railkd cache``.
        say: receives lines for the user.

    Returns:
        The cache.
    """
    path = required(options.cache, "--cache")
    ranks.initialize()
    if options.verify:
        cache = TeacherCache.open(path)
        with bar("verifying", "rows", quiet=options.quiet) as advance:
            cache.verify(advance)
        say(f"verified: every checksum of {cache.rows:,} rows is right: {path}")
        return cache
    if options.from_labels:
        return _from_labels(options, options.from_labels, path, say)
    teacher = Checkpoint.find(required(options.teacher, "--teacher"), trust=options.trust_remote_code)
    stored = TeacherCache.open(path).identity if TeacherCache.is_built(path) and not options.overwrite else None
    dtype = options.teacher_dtype or (stored.teacher_dtype if stored else "auto")
    teacher = teacher.loaded_as(dtype, options.teacher_device_map)
    reader = TableReader(options, say, Trained.of(teacher.config))
    sources = map(Source.parse, required(options.train, "--train"))
    tables = [reader.read(source, split="train", labelled=False).rows for source in sources]
    bf16 = fast_bf16() if options.bf16 is None else options.bf16
    say(f"precision of the teacher: {_precision(teacher, bf16, chosen=options.bf16 is not None)}")
    rows, max_length = concatenate_datasets(tables), trained_length(options.max_length, teacher.config, say)
    say(truncation_line(rows, teacher.tokenizer, max_length))
    with bar("teacher pass", "rows", quiet=options.quiet) as advance:
        cache = TeacherCache.build(
            teacher,
            rows,
            path,
            max_length=max_length,
            pooling=options.pooling or ("mean",),
            dtype=options.dtype,
            states_dim=options.states_dim,
            batch_size=options.batch_size,
            batch_tokens=options.batch_tokens,
            bf16=bf16,
            blocks=options.blocks,
            overwrite=options.overwrite,
            on_progress=advance,
        )
    say(cache.described)
    return cache


def _precision(teacher: Checkpoint, bf16: bool, *, chosen: bool) -> str:
    """Return the precision that the teacher runs in, and the reason if the user did not choose it."""
    if teacher.precision != "float32":
        return f"{teacher.precision}, in which its weights are loaded"
    if bf16:
        return "bfloat16 autocast"
    return "float32" if chosen else "float32, because this machine is not fast at bfloat16"


def _from_labels(options: CacheOptions, file: str, path: str, say: Say) -> TeacherCache:
    """Store the answers of a file as a cache of outputs."""
    teacher = read_teacher_labels(options, file)
    say(teacher.described)
    teacher.store(path, overwrite=options.overwrite)
    cache = TeacherCache.open(path)
    say(cache.described)
    return cache


def clear_caches(folder: Path, given: Sequence[str]) -> None:
    """Delete the caches that an earlier run left in its folder. What railkd did not write stays.

    Args:
        folder: the cache of a run, or the folder of a cache for each of several teachers.
        given: caches that the user names, which stay.
    """
    kept = {os.path.realpath(path) for path in given}
    numbered = [path for path in folder.glob("*") if path.name.isdigit()]
    for path in (*numbered, folder):
        linked = folder.is_symlink() or path.is_symlink()
        if linked or not path.is_dir() or os.path.realpath(path) in kept or not own_files(path):
            continue
        with lock_of(path):
            clear(path)
            (path / LOCK).unlink()
        with contextlib.suppress(OSError):  # something else is in it
            path.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()
