"""Print the help of a verb: what it needs first, then its other settings by subject."""

from __future__ import annotations

import argparse
from typing import Any

from railkd.cli.verb import Verb
from railkd.jobs.settings import Setting

_REQUIRED = "required"
#: Headings in the order of the help. Settings without a group stand under the last one.
GROUPS = (_REQUIRED, "data", "models", "teacher cache", "training", "grids", "machine", "options")
_TRAINING = (
    "Every other field of DistillationTrainingArguments (and so of transformers.TrainingArguments) is a flag too, as "
    "--field-name VALUE, e.g. --warmup-steps 100."
)


def help_text(verb: Verb) -> str:
    """Return the help of a verb. It ends with an example.

    Args:
        verb: to describe.

    Returns:
        The text, as wide as the terminal.
    """
    settings = verb.settings()
    needed = [setting for setting in settings.values() if setting.required]
    words = " ".join(_usage(setting, setting.name == verb.positional) for setting in needed)
    if verb.positional and settings[verb.positional] not in needed:
        words = f"[{_values(settings[verb.positional])}] {words}".strip()
    parser = argparse.ArgumentParser(
        prog=f"railkd {verb.name}",
        usage=f"railkd {verb.name} {words} [--flag value ...]".replace("  ", " "),
        description=verb.about,
        add_help=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30),
    )
    for heading in GROUPS:
        group = parser.add_argument_group(heading, _TRAINING if heading == "training" and verb.training else None)
        for setting in settings.values():
            if heading == (_REQUIRED if setting.required else setting.group):
                _describe(group, setting, positional=setting.name == verb.positional)
    group.add_argument("--config", metavar="FILE", help="YAML file of settings; flags win over it")
    group.add_argument("-h", "--help", action="store_true", help="show this help")
    return f"{parser.format_help()}\nExample:\n  {verb.example}\n"


def _usage(setting: Setting, positional: bool) -> str:
    return _values(setting) if positional else f"{setting.flag} {_values(setting)}"


def _values(setting: Setting) -> str:
    one = setting.metavar or ("{" + ",".join(setting.choices) + "}" if setting.choices else setting.name.upper())
    return " ".join([one] * setting.exactly) if setting.exactly else one + " ..." * setting.many


def _describe(group: Any, setting: Setting, *, positional: bool) -> None:
    text = setting.help.replace("%", "%%")
    if isinstance(setting.required, str):
        text += f"; not needed with {setting.required}"
    if setting.kind is bool:
        # Only a switch that is on, or that the hardware decides, needs its opposite shown. All understand it.
        flags = [setting.flag] if setting.default is False else [setting.flag, f"--no-{setting.flag[2:]}"]
        group.add_argument(*flags, action="store_true", help=text)
        return
    if setting.default not in (None, [], "") and "default" not in text:
        text += f" (default: {setting.default:g})" if setting.kind is float else f" (default: {setting.default})"
    group.add_argument(setting.name if positional else setting.flag, metavar=_values(setting), help=text)
