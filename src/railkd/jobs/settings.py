"""Settings by name: read from YAML or from the words of a command line, and written back to YAML.

Each job has one table of settings, made from its options dataclass and the short names of training arguments. One
function converts flags and keys of config files, so both take the same values and get the same messages. This module
needs no torch.

A *short* name is what a user types (``epochs``); the *field* is its long name among the training arguments.
"""

from __future__ import annotations

import dataclasses
import reprlib
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from railkd.errors import RailkdError, did_you_mean
from railkd.runtime.yaml_text import read_yaml

#: Settings that only flags give: a file may come from somebody else, and must not run code or upload a model.
FLAGS_ONLY = frozenset({"trust_methods", "push_to_hub", "push", "place", "private"})
#: Settings whose values may be addresses of code.
NAME_CODE = frozenset({"method", "metrics"})
#: Settings that are not part of the run: how to treat the folder and how much to print. A token is a secret.
NEVER_WRITTEN = frozenset({"overwrite", "resume", "rehearse", "quiet", "hub_token"}) | FLAGS_ONLY
#: Lists that may also be written with commas. Column names are not among them: a column name may hold a comma.
_WITH_COMMAS = frozenset({"pooling", "weights", "freeze", "labels", "metrics", "teacher_weights", "model_weights"})
#: Builds no more of a representation than a message shows.
_SHORT = reprlib.Repr()
vars(_SHORT).update(maxlevel=4, maxlist=8, maxtuple=8, maxdict=8, maxstring=90, maxlong=90, maxother=90)
_EXPECTED = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class Setting:
    """One setting of a job.

    Attributes:
        name: as typed, with underscores.
        kind: type of the value, or of each value of a list.
        help: the line that ``--help`` shows.
        many: whether it takes a list.
        default: the value if nothing is given.
        choices: the permitted values; None permits all.
        metavar: stands for the value in ``--help``.
        field: the training argument that it sets; None for a field of the options.
        exactly: the length of a list of fixed length.
        single: of a list: the job takes one value, and ``--help`` shows one.
        repeats: one value stays a value, and the flag given again, or a list in a file, makes them a list.
        group: the heading in ``--help``.
        required: true if the job cannot run without it, or the flag that can stand in its place.
    """

    name: str
    kind: type
    help: str = ""
    many: bool = False
    default: Any = None
    choices: tuple[str, ...] | None = None
    metavar: str | None = None
    field: str | None = None
    exactly: int | None = None
    single: bool = False
    repeats: bool = False
    group: str = "options"
    required: bool | str = False

    @property
    def flag(self) -> str:
        """The flag of the command line, such as ``--max-length``."""
        return "--" + self.name.replace("_", "-")


def _training(name: str, kind: type, help: str, metavar: str | None = None, field: str = "", **more: Any) -> Setting:
    return Setting(name, kind, help, metavar=metavar, field=field or name, group="training", **more)


_WEIGHTS_HELP = "weights of the task, logit and intermediate terms, scaled to a sum of 1 (default: the method's own)"
_METHOD_HELP = (
    "distillation method: a name, FILE.py:CLASS or PACKAGE.MODULE:CLASS; 'railkd methods' lists the names, and 'railkd "
    "methods NAME' the options of one, which are flags too, e.g. --shared-size 64 (default: rail-kd-l)"
)
_FREEZE_HELP = (
    "parts that are not trained: embeddings (the module of the word embeddings, in most models of positions too) or "
    "block numbers, e.g. embeddings,1"
)
#: Short names of training arguments, shared by finetune and distill.
TRAINING = (
    _training("method", str, _METHOD_HELP, "NAME"),
    _training("weights", float, _WEIGHTS_HELP, "W", many=True, exactly=3),
    _training("temperature", float, "temperature of the logit term (default: 1)", "T"),
    _training("epochs", float, "passes over the training rows (default: 3)", "N", "num_train_epochs"),
    _training("batch_size", int, "rows per step and device (default: 32)", "N", "per_device_train_batch_size"),
    _training("learning_rate", float, "highest learning rate (default: 5e-5)", "RATE"),
    _training("seed", int, "seed of the initial weights, the order of the rows and the draws (default: 42)", "N"),
    _training("freeze", str, _FREEZE_HELP, "PART", many=True),
    _training("save_steps", int, "number of steps between checkpoints (default: one epoch)", "N"),
    _training("bf16", bool, "train in bfloat16 (default: if the hardware is fast at it)"),
)
#: Training argument -> its short name.
SHORT_NAMES = {str(setting.field): setting.name for setting in TRAINING}
#: Other spellings of a setting, understood wherever the setting itself is.
SPELLINGS = {field: short for field, short in SHORT_NAMES.items() if field != short} | {
    "output_dir": "output",
    "text_columns": "text_column",
}


def settings_of(options: type, training: Iterable[str] = ()) -> dict[str, Setting]:
    """Return the settings of a job.

    Args:
        options: the dataclass whose fields are settings.
        training: short names of the training arguments that are settings too.

    Returns:
        Name -> setting, in the order of the fields.
    """
    found = {}
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        default = field.default_factory() if callable(field.default_factory) else field.default
        kind, many = _kind(hints[field.name])
        keys = ("help", "metavar", "group", "required", "single", "repeats")
        known = {key: field.metadata[key] for key in keys if key in field.metadata}
        choices = tuple(field.metadata["choices"]) if "choices" in field.metadata else None
        found[field.name] = Setting(field.name, kind, many=many, default=default, choices=choices, **known)
    wanted = set(training)
    return found | {setting.name: setting for setting in TRAINING if setting.name in wanted}


def load(path: str | Path, flag: str = "--config ") -> dict[str, Any]:
    """Return a YAML file as a mapping with underscores in its keys.

    Args:
        path: of the file.
        flag: the flag that named the file, for messages.

    Returns:
        Name -> value; empty for an empty file.

    Raises:
        RailkdError: the file is missing, is not YAML, or is not a mapping of names.
    """
    found = _parse(path, flag)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise RailkdError(f"{path}: expected a mapping, with lines such as 'train: train.tsv', got {shown(found)}")
    config: dict[str, Any] = {}
    for key, value in found.items():
        name = key.replace("-", "_") if isinstance(key, str) else key
        if not isinstance(name, str):
            raise RailkdError(f"{path}: expected names of settings as keys, such as 'train', got the key {shown(key)}")
        if name in config:
            raise RailkdError(f"{path}: the key '{name}' occurs twice. Fix: keep one")
        config[name] = value
    return config


def _parse(path: str | Path, flag: str) -> Any:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RailkdError(f"{flag}{path}: no such file. Fix: check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the file is not UTF-8 text"
        raise RailkdError(f"{flag}{path}: expected a YAML file that can be read: {reason}") from None
    try:
        return read_yaml(text)
    except ValueError as error:
        raise RailkdError(f"{path}: {error}") from None


def convert(setting: Setting, value: Any, where: str) -> Any:
    """Convert a value to the type of a setting. Words of the command line and values from YAML are treated alike.

    Args:
        setting: decides the type.
        value: a word, a list of words, or a value from YAML.
        where: the flag, or the file and key, that gave the value.

    Returns:
        The value, or a list of values.

    Raises:
        RailkdError: the value has another type or is not permitted.

    >>> convert(Setting("epochs", float), "5e-1", "--epochs")
    0.5
    """
    if setting.repeats and isinstance(value, (list, tuple)) and value:
        several = [_checked(setting, _single(setting, item, where), where) for item in value]
        return several if len(several) > 1 else several[0]
    if not setting.many:
        if isinstance(value, (list, tuple, dict)):
            raise RailkdError(f"{where}: expected {_EXPECTED[setting.kind]}, got {shown(value)}")
        return _checked(setting, _single(setting, value, where), where)
    if isinstance(value, dict):
        raise RailkdError(f"{where}: expected a list, got {shown(value)}")
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    noun = "values" if setting.kind is str else "numbers"
    if setting.exactly and not isinstance(value, (list, tuple)) and not (isinstance(value, str) and "," in value):
        raise RailkdError(f"{where}: expected a list of {setting.exactly} {noun}, got {shown(value)}")
    if setting.name in _WITH_COMMAS:
        values = [part for item in values for part in (item.split(",") if isinstance(item, str) else [item])]
        values = [part.strip() if isinstance(part, str) else part for part in values if part != ""]
    if setting.exactly and len(values) != setting.exactly:
        raise RailkdError(
            f"{where}: expected {setting.exactly} {noun}, e.g. {setting.flag} 1 1 1, got {len(values)} of them"
        )
    return [_checked(setting, _single(setting, item, where), where) for item in values]


def unknown(name: str, known: Iterable[str], where: str) -> RailkdError:
    """Return the error for an unknown setting.

    Args:
        name: the unknown name.
        known: the known names.
        where: what was given, or where the name stands.

    Returns:
        The error, to be raised.
    """
    near = did_you_mean(name[:80], known)
    return RailkdError(f"{where[:200]}: unknown setting {shown(name)}.{near} --help lists the settings")


def _kind(hint: Any) -> tuple[type, bool]:
    # list[str] | None -> (str, True)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    return (typing.get_args(hint)[0], True) if typing.get_origin(hint) is list else (hint, False)


def _single(setting: Setting, value: Any, where: str) -> Any:
    kind = setting.kind
    text = value.strip().lower() if isinstance(value, str) else None
    wrong = RailkdError(f"{where}: expected {_EXPECTED[kind]}, got {shown(value)}")
    if kind is bool:
        # The words that transformers' parser takes; YAML gives booleans.
        if isinstance(value, bool) or text in ("true", "false"):
            return value if isinstance(value, bool) else text == "true"
        raise wrong
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise wrong
    if kind is str:
        if isinstance(value, float):  # 1.10 has been read as 1.1
            raise RailkdError(f"{where}: expected text, got the number {value}. Fix: write it in quotes")
        if not str(value).strip():
            raise RailkdError(f"{where}: expected a value, got empty text. Fix: leave the setting out for its default")
        return str(value)
    try:
        # Words of a command line are text, as is 010 from YAML.
        number = float(value)
        if kind is float:
            return number
        if isinstance(value, str):
            return int(value)
        if number == int(number):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise wrong


def _checked(setting: Setting, value: Any, where: str) -> Any:
    if setting.choices and value not in setting.choices:
        near = did_you_mean(str(value)[:80], setting.choices)
        raise RailkdError(f"{where}: expected {' or '.join(setting.choices)}, got {shown(value)}.{near}")
    return value


def plain(value: Any) -> Any:
    """Return a value of a setting as YAML and JSON can hold it.

    Args:
        value: of a setting, such as an enum member or a tuple.

    Returns:
        None, a boolean, a number, text, or lists and mappings of these.
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def shown(value: Any) -> str:
    """Return a value for a message, cut to 80 characters.

    Args:
        value: from YAML or the command line.

    Returns:
        Its representation, with the word list or mapping before it.
    """
    text = _SHORT.repr(value)
    name = "the list " if isinstance(value, list) else "the mapping " if isinstance(value, dict) else ""
    return name + (text if len(text) <= 80 else text[:77] + "...")
