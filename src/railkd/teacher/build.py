"""The teacher pass: run a teacher once over rows of text and hand its signals to a `CacheWriter`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from torch import nn

from railkd.data.given import as_dataset
from railkd.data.tokens import KeyedTokens, keyed_tokens
from railkd.errors import RailkdError
from railkd.models.checkpoints import Checkpoint
from railkd.models.limits import check_length
from railkd.runtime import ranks
from railkd.runtime.progress import tqdm_bar
from railkd.signals import checked_poolings
from railkd.teacher.identity import Identity, identify
from railkd.teacher.live import LiveTeacher
from railkd.teacher.writer import CacheWriter, poolings_of_unfinished

#: Called with (rows done, rows to do).
Progress = Callable[[int, int], None]


class BuildOptions(TypedDict, total=False):
    """The keyword arguments of `railkd.TeacherCache.build`; see `PassSettings` for their meanings and defaults."""

    tokenizer: Any
    text_columns: Sequence[str] | None
    max_length: int
    pooling: str | Sequence[str]
    dtype: str
    batch_size: int
    bf16: bool
    blocks: str | None
    overwrite: bool
    on_progress: Progress | None


@dataclass(frozen=True)
class PassSettings:
    """What a teacher pass reads, how it runs and what it stores.

    Attributes:
        tokenizer: of the teacher. A folder or `Checkpoint` brings its own; a module needs one.
        text_columns: one or two names; None: found by convention (`railkd.data.columns`).
        max_length: of the inputs, in tokens.
        pooling: ``mean``, ``cls`` or both, or ``none``: outputs alone.
        dtype: of the stored states, ``float16`` or ``float32``.
        batch_size: rows per batch.
        bf16: run the teacher under bfloat16 autocast.
        blocks: regular expression for the blocks of the teacher; see `railkd.models.blocks.find_blocks`.
        overwrite: replace a cache of another teacher; without it such a cache is an error.
        on_progress: called with (rows done, rows to do); None: a tqdm bar on a terminal and in a notebook.
    """

    tokenizer: Any = None
    text_columns: Sequence[str] | None = None
    max_length: int = 128
    pooling: str | Sequence[str] = ("mean",)
    dtype: str = "float16"
    batch_size: int = 64
    bf16: bool = False
    blocks: str | None = None
    overwrite: bool = False
    on_progress: Progress | None = None

    @property
    def poolings(self) -> tuple[str, ...]:
        """The names of the poolings, each once, in the order in which they are stored."""
        return checked_poolings([self.pooling] if isinstance(self.pooling, str) else self.pooling)


class TeacherPass:
    """One teacher and the settings of its pass. The model is loaded when `run` is called.

    Args:
        teacher: folder, hub name, `Checkpoint` or module.
        settings: of the pass.

    Raises:
        RailkdError: the teacher is a module and no tokenizer is given.
    """

    def __init__(self, teacher: str | Path | Checkpoint | nn.Module, settings: PassSettings) -> None:
        self._settings = settings
        self._source: Any = teacher if isinstance(teacher, nn.Module) else Checkpoint.find(teacher)
        if settings.tokenizer is None and isinstance(teacher, nn.Module):
            raise RailkdError(
                "Expected a tokenizer beside the teacher module, got none. Fix: pass tokenizer=, or give the teacher's "
                "folder instead of the module."
            )
        self._tokenizer = self._source.tokenizer if settings.tokenizer is None else settings.tokenizer

    @cached_property
    def identity(self) -> Identity:
        """Everything that the stored numbers depend on."""
        return identify(
            self._source,
            self._tokenizer,
            max_length=self._settings.max_length,
            precision="bfloat16" if self._settings.bf16 else "float32",
            states_dtype=self._settings.dtype,
            blocks=self._settings.blocks,
        )

    def tokenize(self, dataset: Any) -> KeyedTokens:
        """Return the rows of a data set as the teacher reads them.

        A row without a text, or longer than the teacher takes, raises `RailkdError`.

        Args:
            dataset: rows with text columns, or rows that were tokenised with a key column; see
                `railkd.data.given.as_dataset`.
        """
        settings = self._settings
        given = as_dataset(dataset)
        rows = keyed_tokens(given, self._tokenizer, text=settings.text_columns, max_length=settings.max_length)
        check_length(self._source.config, rows.lengths, settings.max_length, "the teacher")
        return rows

    def run(self, rows: KeyedTokens, path: Path, poolings: tuple[str, ...]) -> None:
        """Run the teacher over the rows that the cache does not hold yet, and store its signals.

        `RailkdError` is raised if the folder belongs to another teacher, or if the teacher returns NaN or infinity.

        Args:
            rows: from `tokenize`.
            path: folder of the cache.
            poolings: of the states that are stored.
        """
        settings = self._settings
        poolings = poolings or poolings_of_unfinished(path)  # a build that was killed is gone on with as it began
        # A checkpoint is loaded onto the fastest device; a module of the caller's stays where it is.
        model = self._source.frozen() if isinstance(self._source, Checkpoint) else self._source
        live = LiveTeacher(
            model,
            self._tokenizer,
            max_length=settings.max_length,
            poolings=poolings,
            bf16=settings.bf16,
            blocks=settings.blocks,
        )
        overwrite = settings.overwrite
        with CacheWriter(path, live.info, self.identity, poolings, overwrite=overwrite, together=True) as writer:
            todo = writer.missing(rows.keys)
            with live.in_a_row(), _progress(settings, len(todo)) as advance:
                _run_batches(live, rows, todo, writer, settings.batch_size, advance)


def _run_batches(
    live: LiveTeacher, rows: KeyedTokens, todo: np.ndarray, writer: CacheWriter, batch_size: int, advance: Progress
) -> None:
    """Run the longest rows first: the time left is not underestimated, and a lack of memory shows at once."""
    order = todo[np.argsort(-rows.lengths[todo], kind="stable")]
    stride = batch_size * ranks.world_size()
    for start in range(batch_size * ranks.rank(), len(order), stride):
        chosen = order[start : start + batch_size].tolist()
        unpadded = {name: [values[i] for i in chosen] for name, values in rows.inputs.items()}
        batch = live.tokenizer.pad(unpadded, return_tensors="pt")
        logits, states = live.run(batch, live.poolings)
        writer.add(
            rows.keys[chosen],
            logits.float().cpu().numpy(),
            {name: value.float().cpu().numpy() for name, value in states.items()},
        )
        advance(min(start + stride, len(order)), len(order))  # of all ranks, estimated from this one


def _progress(settings: PassSettings, rows: int) -> AbstractContextManager[Progress]:
    """Return the caller's function, or a bar if there is none."""
    if settings.on_progress is not None:
        return nullcontext(settings.on_progress)
    return tqdm_bar("teacher pass", "rows", rows)
