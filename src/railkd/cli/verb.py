"""What a verb is: a row of words, and a function that does the work."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from railkd.jobs.options import DistillOptions, FinetuneOptions
from railkd.jobs.request import Request
from railkd.jobs.settings import TRAINING, Setting, settings_of

Say = Callable[[str], None]

#: The two kinds of settings finetune and distill share.
ALL_TRAINING = tuple(setting.name for setting in TRAINING)
FINETUNE_TRAINING = tuple(name for name in ALL_TRAINING if name not in ("method", "weights", "temperature"))
TrainingOptions = FinetuneOptions | DistillOptions


@dataclass(frozen=True)
class Verb:
    """One word of the command line.

    Attributes:
        about: what it does, a sentence or more. example: the last line of its help.
        options: dataclass of its settings. training: short names of training arguments it takes; with any, every other
            training argument is taken too.
        check: cheap checks of the request, before heavy imports. run: the work; returns nothing or raises.
        spellings: other names of its settings. positional: the setting that may be given without a flag.
    """

    name: str
    about: str
    example: str
    options: type
    run: Callable[[Request[Any]], None]
    check: Callable[[Request[Any]], None] = lambda request: None
    training: tuple[str, ...] = ()
    spellings: Mapping[str, str] = field(default_factory=dict)
    positional: str | None = None

    def settings(self) -> dict[str, Setting]:
        """By name, in the order of the help."""
        return settings_of(self.options, self.training)


def talker(quiet: bool) -> Say:
    """Prints a line for people, on stderr: stdout is for results. Quiet, or not the first of several ranks: nothing."""

    def say(line: str) -> None:
        if not quiet and speaks():
            print(line, file=sys.stderr, flush=True)

    return say


def speaks() -> bool:
    """Whether this process speaks for the job: the first rank does, by the word of the launcher."""
    return os.environ.get("RANK", "0") == "0"


def help_text(verb: Verb) -> str:
    """The help of a verb; it ends with its example."""
    first = f" [{verb.settings()[verb.positional].metavar or 'NAME'}]" if verb.positional else ""
    usage = f"railkd {verb.name}{first} [--flag value ...]"
    parser = argparse.ArgumentParser(
        prog="railkd", usage=usage, description=verb.about, add_help=False, formatter_class=_Wide
    )
    groups = {False: parser.add_argument_group("settings")}
    if verb.training:
        groups[True] = parser.add_argument_group(
            "training",
            "Every other field of DistillationTrainingArguments (and so of transformers.TrainingArguments) works too, "
            "as --field-name VALUE, e.g. --warmup-steps 100.",
        )
    for setting in verb.settings().values():
        if setting.name != verb.positional:
            _describe(groups[setting.field is not None], setting)
    groups[False].add_argument("--config", metavar="FILE", help="YAML file of settings; flags win over it")
    groups[False].add_argument("-h", "--help", action="store_true", help="show this help")
    return f"{parser.format_help()}\nExample:\n  {verb.example}\n"


class _Wide(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=110)


def _describe(group: Any, setting: Setting) -> None:
    text = setting.help.replace("%", "%%")
    if setting.kind is bool:
        # Only what is on, or decided by the machine, needs its opposite shown; all understand it.
        flags = [setting.flag] if setting.default is False else [setting.flag, f"--no-{setting.flag[2:]}"]
        group.add_argument(*flags, action="store_true", help=text)
        return
    if setting.default not in (None, [], "") and "default" not in text:
        text += f" (default: {setting.default})"
    metavar = setting.metavar or ("{" + ",".join(setting.choices) + "}" if setting.choices else setting.name.upper())
    nargs: Any = setting.exactly or ("+" if setting.many else None)
    group.add_argument(setting.flag, metavar=metavar, nargs=nargs, help=text)
