"""The teacher pass: run a teacher once over rows of text and hand its signals to a `CacheWriter`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from railkd.data.given import as_dataset
from railkd.data.tokens import KeyedTokens, keyed_tokens
from railkd.errors import RailkdError
from railkd.models.checkpoints import Checkpoint
from railkd.models.limits import check_tokens
from railkd.models.loading import Loading
from railkd.runtime.ownership import check_writable
from railkd.runtime.progress import tqdm_bar
from railkd.signals import checked_poolings
from railkd.teacher.batches import Padder, plan_batches
from railkd.teacher.components import Components, check_dim, fit_components, sample_of, stored_components
from railkd.teacher.identity import Identity, identify
from railkd.teacher.live import LiveTeacher
from railkd.teacher.manifest import stored_manifest
from railkd.teacher.number_formats import checked_format
from railkd.teacher.runner import Progress, Runner, run_batches
from railkd.teacher.writer import CacheWriter, poolings_of_unfinished

#: Tokens in a batch. A CPU is fastest while the activations fit into its caches; an accelerator needs much to do.
_TOKENS_ON_CPU, _TOKENS = 2048, 32_768


class BuildOptions(TypedDict, total=False):
    """The keyword arguments of `railkd.TeacherCache.build`; see `PassSettings` for their meanings and defaults."""

    tokenizer: Any
    text_columns: Sequence[str] | None
    max_length: int
    pooling: str | Sequence[str]
    dtype: str
    states_dim: int | None
    batch_size: int | None
    batch_tokens: int | None
    bf16: bool
    teacher_dtype: str | None
    teacher_device_map: str | None
    blocks: str | None
    overwrite: bool
    on_progress: Progress | None


@dataclass(frozen=True)
class PassSettings:
    """The settings of a teacher pass: its inputs, how it runs, and what it stores.

    Attributes:
        tokenizer: of the teacher. A folder or `Checkpoint` brings its own; a module needs one.
        text_columns: one or two names; None: found by convention (`railkd.data.columns`).
        max_length: of the inputs, in tokens.
        pooling: ``mean``, ``cls`` or both, or ``none``: outputs alone.
        dtype: of the stored states: ``float16``, ``float32`` or ``int8``; see `railkd.teacher.number_formats`.
        states_dim: number of principal components to store of each state; None: the whole state. See
            `railkd.teacher.components`.
        batch_size: the most rows in a batch; None: any number.
        batch_tokens: the most tokens in a batch, padding included. None: 2,048 on a CPU and 32,768 elsewhere, or any
            number if ``batch_size`` is given. A batch that does not fit into memory is halved.
        bf16: run a teacher of float32 weights under bfloat16 autocast.
        teacher_dtype: of the weights of a folder or hub name: ``bfloat16``, ``float16``, ``float32``, or ``auto``: the
            one that its files keep. None: that of the cache, if there is one, otherwise ``auto``.
        teacher_device_map: ``auto`` spreads the teacher over the devices and the CPU; None: it is on one device.
        blocks: regular expression for the blocks of the teacher; see `railkd.models.blocks.find_blocks`.
        overwrite: replace a cache of another teacher; without it such a cache is an error.
        on_progress: called with (rows done, rows to do); None: a tqdm bar on a terminal and in a notebook.
    """

    tokenizer: Any = None
    text_columns: Sequence[str] | None = None
    max_length: int = 128
    pooling: str | Sequence[str] = ("mean",)
    dtype: str = "float16"
    states_dim: int | None = None
    batch_size: int | None = None
    batch_tokens: int | None = None
    bf16: bool = False
    teacher_dtype: str | None = None
    teacher_device_map: str | None = None
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
        self._source: Any = teacher if isinstance(teacher, nn.Module | Checkpoint) else Checkpoint.find(teacher)
        chosen = settings.teacher_dtype or settings.teacher_device_map
        if isinstance(self._source, Checkpoint) and (chosen or self._source is not teacher):
            kept = self._source.loading if self._source is teacher else Loading("auto")
            self._source = self._source.loaded_as(
                settings.teacher_dtype or kept.dtype, settings.teacher_device_map or kept.device_map
            )
        own = self._source.precision if isinstance(self._source, Checkpoint) else "float32"
        self._bf16 = settings.bf16 and own == "float32"  # weights in half precision need no autocast
        self._precision = "bfloat16" if self._bf16 else own
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
            precision=self._precision,
            states_dtype=checked_format(self._settings.dtype),
            states_dim=self._settings.states_dim,
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
        check_tokens(self._source.config, self._tokenizer, rows, settings.max_length, "the teacher")
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
        check_writable(path, "--cache")  # before the teacher is loaded
        poolings = poolings or poolings_of_unfinished(path)  # a build that was killed is gone on with as it began
        # A checkpoint is loaded onto the fastest device; a module of the caller's stays where it is.
        model = self._source.frozen() if isinstance(self._source, Checkpoint) else self._source
        live = LiveTeacher(
            model,
            self._tokenizer,
            max_length=settings.max_length,
            poolings=poolings,
            bf16=self._bf16,
            blocks=settings.blocks,
        )
        padder = Padder(model.config, self._tokenizer, live.causal, rows)
        with live.in_a_row(), padder.named():
            kept = self._components(Runner(live, rows, padder), rows, path, live)
            info = live.info if kept is None else replace(live.info, width=int(settings.states_dim or 0))
            overwrite = settings.overwrite
            with CacheWriter(
                path, info, self.identity, poolings, overwrite=overwrite, components=kept, together=True
            ) as writer:
                todo = writer.missing(rows.keys)
                batches = self._plan(rows.lengths, todo, live.device)
                with _progress(settings, len(todo)) as advance:
                    run_batches(Runner(live, rows, padder, writer.components), batches, writer, advance)

    def _components(self, runner: Runner, rows: KeyedTokens, path: Path, live: LiveTeacher) -> Components | None:
        """Return the components of the cache, fitted on a sample of the rows if it has none yet."""
        settings, dim, shape = self._settings, self._settings.states_dim, live.info.shape
        if dim is None:
            return None
        check_dim(dim, shape.width, live.poolings)
        teacher, stored = self.identity.digest(live.poolings), stored_manifest(path)
        if not settings.overwrite:
            found = stored_components(path, stored.identity.components if stored else None, teacher)
            if found is not None:
                return found
        first = np.unique(rows.keys, axis=0, return_index=True)[1]
        sample = first[sample_of(rows.keys[first], shape, dim)]

        def run() -> Iterator[dict[str, Tensor]]:
            for batch in self._plan(rows.lengths, sample, live.device):
                for result in runner.results(batch):
                    result.copied()
                    yield {name: value for name, value in result.tensors.items() if name}

        return fit_components(run, live.poolings, shape, dim, teacher)

    def _plan(self, lengths: np.ndarray, todo: np.ndarray, device: torch.device) -> list[np.ndarray]:
        """Return the rows of each batch."""
        rows, tokens = self._settings.batch_size, self._settings.batch_tokens
        if tokens is None and rows is None:
            tokens = _TOKENS_ON_CPU if device.type == "cpu" else _TOKENS
        return plan_batches(lengths, todo, tokens=tokens, rows=rows)


def _progress(settings: PassSettings, rows: int) -> AbstractContextManager[Progress]:
    """Return the caller's function, or a bar if there is none."""
    if settings.on_progress is not None:
        return nullcontext(settings.on_progress)
    return tqdm_bar("teacher pass", "rows", rows)
