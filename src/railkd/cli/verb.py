"""Define what a verb of the command line is: its words, and the functions that check and run it."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from railkd.jobs.options import Say
from railkd.jobs.request import Request
from railkd.jobs.settings import SHORT_NAMES, TRAINING, Setting, settings_of
from railkd.runtime.launcher import is_first_process
from railkd.runtime.words import visible
from railkd.training.fields import GROUPS, NEED_TEACHER, REPLACED_BY_OPTIONS, DistillationFields

#: The training arguments with short names: those of distill and those of finetune.
ALL_TRAINING = tuple(setting.name for setting in TRAINING)
FINETUNE_TRAINING = tuple(name for name in ALL_TRAINING if name not in ("method", "weights", "temperature"))


@dataclass(frozen=True)
class Verb:
    """One verb of the command line.

    Attributes:
        name: as typed.
        about: the sentence at the top of its help.
        example: the last line of its help.
        options: dataclass of its settings.
        run: does the work; returns nothing or raises.
        check: cheap checks of the request, before heavy imports.
        positional: the setting that may be given without a flag.
        training: short names of the training arguments it takes. With any, it takes all other training arguments too.
        spellings: other names of its settings.
    """

    name: str
    about: str
    example: str
    options: type
    run: Callable[[Request[Any]], None]
    check: Callable[[Request[Any]], None] = lambda request: None
    positional: str | None = None
    training: tuple[str, ...] = ()
    spellings: Mapping[str, str] = field(default_factory=dict)

    def settings(self) -> dict[str, Setting]:
        """Return the settings by name, those of the options before those of training."""
        return settings_of(self.options, self.training)

    def own_fields(self) -> dict[str, Setting]:
        """Return railkd's training arguments without short names, by name; none if the verb does not train."""
        if not self.training:
            return {}
        headings = {name: heading for heading, names in GROUPS.items() for name in names}
        hidden = {*REPLACED_BY_OPTIONS, *SHORT_NAMES, *(() if "method" in self.training else NEED_TEACHER)}
        return {
            name: replace(setting, group=headings.get(name, "method options"))
            for name, setting in settings_of(DistillationFields).items()
            if name not in hidden
        }


def printer(quiet: bool) -> Say:
    """Return a function that prints a line for people.

    Args:
        quiet: whether it prints nothing.

    Returns:
        The function. It writes to stderr, because stdout is for results, and it prints on the main process only.
    """

    def say(line: str) -> None:
        if not quiet and is_first_process():
            print(visible(line), file=sys.stderr, flush=True)

    return say


class _Nowhere(io.TextIOBase):
    """A stream that drops what it gets. Handlers of libraries may keep it for the life of the process."""

    def write(self, text: str) -> int:
        return len(text)


@contextmanager
def messages_only(quiet: bool) -> Iterator[None]:
    """Keep the output of libraries, such as trackers and code of models, away from stdout inside the block.

    Args:
        quiet: whether to drop it, with the warnings that go to stderr; otherwise it goes to stderr.

    Yields:
        Nothing.
    """
    before = sys.stdout, sys.stderr
    own, shown = logging.getLogger("railkd"), logging.StreamHandler(sys.stderr)
    sys.stderr = _Nowhere() if quiet else sys.stderr
    sys.stdout = sys.stderr
    libraries = [logging.getLogger(name) for name in ("transformers", "datasets") if quiet and name in sys.modules]
    levels = [logger.level for logger in libraries]
    for logger in libraries:  # a library that was imported before the block writes to the stderr of that time
        logger.setLevel(logging.ERROR)
    if quiet and not own.hasHandlers():  # railkd's own warnings are shown
        own.addHandler(shown)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        own.removeHandler(shown)
        for logger, level in zip(libraries, levels, strict=True):
            logger.setLevel(level)


def print_results(text: str) -> None:
    """Print results on stdout, on the main process only, with control characters escaped.

    Args:
        text: one line or more.
    """
    if is_first_process():
        print(visible(text))
