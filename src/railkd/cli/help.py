"""Print the help of a verb: what it needs first, then its other settings by subject."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from typing import Any

from railkd.cli.verb import Verb
from railkd.jobs.settings import Setting

_REQUIRED = "required"
#: Headings in the order of the help. Settings without a group stand under the last one.
_HEADINGS = (
    _REQUIRED, "data", "models", "teacher cache", "training", "method options", "gates", "deferral", "grids", "machine",
    "options"
)  # fmt: skip
_TRAINER = "other training arguments, of transformers.TrainingArguments"


def help_text(verb: Verb, *, everything: bool = False) -> str:
    """Return the help of a verb. It ends with an example.

    Args:
        verb: to describe.
        everything: whether to describe the arguments of transformers too. This imports transformers.

    Returns:
        The text, as wide as the terminal.
    """
    parser = argparse.ArgumentParser(
        prog=f"railkd {verb.name}",
        usage=_usage(verb),
        description=verb.about,
        add_help=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30),
    )
    settings = [*_needed(verb), *verb.settings().values(), *verb.own_fields().values()]
    settings = list({setting.name: setting for setting in settings}.values())
    for heading in _HEADINGS:
        group = parser.add_argument_group(heading)
        for setting in settings:
            if heading == (_REQUIRED if setting.required else setting.group):
                _describe(group, setting, positional=setting.name == verb.positional)
    group.add_argument("--config", metavar="FILE", help="YAML file of settings; flags win over it")
    group.add_argument("-h", "--help", action="store_true", help="show this help")
    if verb.training:
        more = (
            "show the arguments of transformers.TrainingArguments too; all of them are flags, e.g. --warmup-steps 100"
        )
        group.add_argument("--help-all", action="store_true", help=more)
    if verb.training and everything:
        from railkd.jobs.training_settings import describe

        group = parser.add_argument_group(_TRAINER)
        for flag, text in describe(verb.name, [setting.name for setting in settings]).items():
            group.add_argument(flag, metavar="VALUE", help=text.replace("%", "%%"))
    return f"{parser.format_help()}\nExample:\n  {verb.example}\n"


def _usage(verb: Verb) -> str:
    words = [f"railkd {verb.name}"]
    if verb.positional:
        first = verb.settings()[verb.positional]
        words.append(_values(first) if first.required else f"[{_values(first)}]")
    needed = [setting for setting in _needed(verb) if setting.name != verb.positional]
    words += [*(f"{setting.flag} {_values(setting)}" for setting in needed), "[--flag value ...]"]
    width = shutil.get_terminal_size().columns - 8
    indent = " " * len("usage: ")
    return textwrap.fill(" ".join(words), width, subsequent_indent=indent, break_on_hyphens=False)


def _needed(verb: Verb) -> list[Setting]:
    # Models before data, and both before the output.
    order = {"models": 0, "data": 1}
    needed = [setting for setting in verb.settings().values() if setting.required]
    return sorted(needed, key=lambda setting: order.get(setting.group, 2))


def _values(setting: Setting) -> str:
    one = setting.metavar or ("{" + ",".join(setting.choices) + "}" if setting.choices else setting.name.upper())
    return (
        " ".join([one] * setting.exactly) if setting.exactly else one + " ..." * (setting.many and not setting.single)
    )


def _describe(group: Any, setting: Setting, *, positional: bool) -> None:
    text = setting.help.replace("%", "%%")
    if isinstance(setting.required, str):
        text += f"; not needed with {setting.required}"
    if setting.kind is bool:
        # Only a switch that is on, or whose default depends, needs its opposite shown. All understand it.
        flags = [setting.flag] if setting.default is False else [setting.flag, f"--no-{setting.flag[2:]}"]
        text += " (default: on)" if setting.default is True else ""
        group.add_argument(*flags, action="store_true", help=text)
        return
    if setting.default not in (None, [], "") and "default" not in text:
        text += f" (default: {setting.default:g})" if setting.kind is float else f" (default: {setting.default})"
    group.add_argument(setting.name if positional else setting.flag, metavar=_values(setting), help=text)
