"""Rehearses a run: the whole of it, small, in a temporary folder, so that hours of training do not end at a label.

Tokenizers, configs, files, columns and settings are the real ones. The models have random weights, their own depth and
a small width. Each set has the first rows of each class. Training makes two steps.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from railkd.data.first_rows import read_first_rows
from railkd.jobs.options import Say
from railkd.jobs.request import Request
from railkd.models.checkpoints import Checkpoint
from railkd.models.heads import task_of_config
from railkd.models.named_teachers import as_list, named_teachers, states_number
from railkd.models.quiet import quiet_transformers
from railkd.objectives import method_spec
from railkd.records import RunRecord
from railkd.runtime.words import duration
from railkd.teacher.components import check_dim

#: Rows of each class and set, and optimizer steps.
ROWS, STEPS = 64, 2
_WIDTH = 32
#: Principal components of a rehearsal's cache, at most.
NARROW_DIM = _WIDTH // 2
#: Entries of a config that make a model narrow, under the names of all families. Depth and vocabulary stay.
_NARROW = {
    **dict.fromkeys(("hidden_size", "embedding_size", "pooler_hidden_size", "dim", "d_model", "n_embd"), _WIDTH),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "n_inner", "ffn_dim", "d_ff"), 2 * _WIDTH),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_key_value_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv"), _WIDTH // 2),
}


class TinyCopies:
    """Makes a tiny copy of each model that a rehearsal uses, once.

    Args:
        folder: that holds the copies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, str] = {}

    def of(self, model: str, *, trust: bool = False) -> str:
        """Return the folder of the copy of a model.

        Args:
            model: a folder, or a name on the hub.
            trust: run Python code that comes with the model.
        """
        if model not in self._made:
            target = self._folder / f"{len(self._made)}-{Path(model).name or 'model'}"
            self._made[model] = str(_write_copy(Checkpoint.find(model, trust=trust), target))
        return self._made[model]


def _write_copy(checkpoint: Checkpoint, target: Path) -> Path:
    """Write a narrow model with random weights, beside the real tokenizer."""
    own = checkpoint.config.to_dict()
    narrow = {name: min(own[name], value) for name, value in _NARROW.items() if isinstance(own.get(name), int)}
    torch.manual_seed(0)
    with quiet_transformers():
        try:
            config = checkpoint.new_config(**narrow)
            model = task_of_config(config).auto_model().from_config(config, trust_remote_code=checkpoint.trusted)
        except (ValueError, RuntimeError, AssertionError, TypeError):  # a family that must keep its width
            config = checkpoint.new_config()
            model = task_of_config(config).auto_model().from_config(config, trust_remote_code=checkpoint.trusted)
        model.save_pretrained(target)
        checkpoint.tokenizer.save_pretrained(target)
    for path in checkpoint.folder.glob("*.py") if checkpoint.trusted else ():
        shutil.copy(path, target)
    return target


def small_training(training: Mapping[str, Any], method: str | None) -> dict[str, Any]:
    """Return the training arguments that a rehearsal changes.

    Args:
        training: field -> value, as the user chose them.
        method: name of the method; None for a fine-tuning.

    Returns:
        Field -> value of the changed ones.
    """
    changed: dict[str, Any] = {"max_steps": STEPS}
    changed |= {name: 1 for name in ("save_steps", "eval_steps", "logging_steps") if training.get(name)}
    if method is not None and "shared_size" in method_spec(method).options:
        changed["shared_size"] = min(int(training.get("shared_size") or _WIDTH), _WIDTH // 2)
    return changed


@contextmanager
def stage() -> Iterator[tuple[Path, TinyCopies]]:
    """Prepare a rehearsal: a temporary folder, tiny models in it, and files of which only the first rows are read.

    Yields:
        The folder, which is removed at the end, and the maker of tiny models.
    """
    with tempfile.TemporaryDirectory(prefix="railkd-rehearsal-") as folder, read_first_rows(ROWS):
        yield Path(folder), TinyCopies(Path(folder) / "models")


def rehearse(request: Request[Any], run: Callable[[Request[Any], Say], RunRecord], say: Say) -> str:
    """Rehearse a distillation or a fine-tuning. What would end the run raises, as in the run itself.

    Args:
        request: what the run is asked.
        run: the job.
        say: receives lines for the user.

    Returns:
        The result in words.
    """
    start, options = time.perf_counter(), request.options
    with stage() as (folder, copies):
        changes: dict[str, Any] = {"output": str(folder / "run"), "resume": False, "overwrite": False}
        changes |= {"push_to_hub": None, "private": None}
        for name in ("model", "student"):
            if model := getattr(options, name, None):
                changes[name] = copies.of(model, trust=options.trust_remote_code)
        if getattr(options, "states_dim", None):
            _check_dim(options)
            changes["states_dim"] = min(options.states_dim, NARROW_DIM)
        if hasattr(options, "allow_weak_teacher"):
            changes["allow_weak_teacher"] = True  # a teacher with random weights is weak
        if getattr(options, "teacher", None):
            changes |= _tiny_teachers(options, folder, copies)
        method = request.training.get("method", "rail-kd-l") if hasattr(options, "teacher") else None
        small = small_training(request.training, method)
        run(request.with_options(**changes).with_training(**small), say)
    return f"1 job rehearsed in {duration(time.perf_counter() - start)}; nothing failed"


def _check_dim(options: Any) -> None:
    """Compare the number of components with the real teacher, since the tiny one is narrower."""
    named = named_teachers(options)
    lead = named[states_number(options, named) or 0].model
    if lead is not None:
        width = Checkpoint.find(lead, trust=options.trust_remote_code).shape.width
        check_dim(options.states_dim, width, ["mean"])


def _tiny_teachers(options: Any, folder: Path, copies: TinyCopies) -> dict[str, Any]:
    """Return the options of tiny teachers. The caches of the real ones would not fit; caches without a model stay."""
    models, caches = as_list(options.teacher), as_list(options.cache)
    tiny = [copies.of(model, trust=options.trust_remote_code) for model in models]
    new, more = [str(folder / f"cache-{number}") for number in range(len(models))], caches[len(models) :]
    number = states_number(options, named_teachers(options))
    return {
        "teacher": tiny if tiny[1:] else tiny[0],
        "cache": [*new, *more] if more else None,
        "states_from": None if number is None else str(number + 1),
    }
