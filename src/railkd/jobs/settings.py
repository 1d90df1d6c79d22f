"""Settings by name, from YAML or from words of the command line, and back to YAML.

One table of settings per job, made from its options dataclass and the short names of training arguments, and one
conversion: a flag and a config key take the same values and complain in the same words. A leaf without torch.

A *short* name is what a user types (``epochs``), the *field* its long name among the training arguments.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from railkd.errors import RailkdError, did_you_mean

#: How a command deals with the folder it finds, and how much it says, is no part of the run; a token is a secret.
NEVER_WRITTEN = frozenset({"overwrite", "resume", "quiet", "hub_token"})
#: Lists that may also be written with commas. Column names are not among them: they may hold one.
_WITH_COMMAS = frozenset({"pooling", "weights"})
_WANTED = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class Setting:
    """One thing a job can be told.

    Attributes:
        name: as typed, with underscores. kind: of a value, or of each value of a list (``many``).
        field: the training argument it stands for; None: a field of the options.
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

    @property
    def flag(self) -> str:
        """``--max-length``."""
        return "--" + self.name.replace("_", "-")


_WEIGHTS_HELP = "of the task, logit and intermediate terms, normalised to sum to 1 (default: the method's own)"
#: Short names of training arguments, shared by finetune and distill.
TRAINING = (
    Setting("method", str, "distillation method; 'railkd methods' lists them (default: rail-kd-l)", field="method"),
    Setting("weights", float, _WEIGHTS_HELP, many=True, metavar="W", field="weights", exactly=3),
    Setting("temperature", float, "temperature of the logit term (default: 1)", metavar="T", field="temperature"),
    Setting("epochs", float, "passes over the training rows (default: 3)", metavar="N", field="num_train_epochs"),
    Setting("batch_size", int, "rows per step (default: 32)", metavar="N", field="per_device_train_batch_size"),
    Setting("learning_rate", float, "peak learning rate (default: 5e-5)", metavar="RATE", field="learning_rate"),
    Setting("seed", int, "of weights, order and draws (default: 42)", metavar="N", field="seed"),
    Setting("save_steps", int, "steps between checkpoints (default: an epoch)", metavar="N", field="save_steps"),
    Setting("bf16", bool, "train in bfloat16 (default: where the machine is fast at it)", field="bf16"),
)
#: Training argument -> its short name.
SHORT_NAMES = {str(setting.field): setting.name for setting in TRAINING}
#: Other spellings of a setting, understood wherever the setting itself is.
SPELLINGS = {field: short for field, short in SHORT_NAMES.items() if field != short} | {
    "output_dir": "output",
    "text_columns": "text_column",
}


def settings_of(options: type, training: Iterable[str] = ()) -> dict[str, Setting]:
    """The settings of a job: the fields of its options dataclass, and the training short names asked for."""
    found = {}
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        default = field.default_factory() if callable(field.default_factory) else field.default
        kind, many = _kind(hints[field.name])
        found[field.name] = Setting(
            field.name,
            kind,
            field.metadata.get("help", ""),
            many,
            default,
            tuple(field.metadata["choices"]) if "choices" in field.metadata else None,
            field.metadata.get("metavar"),
        )
    wanted = set(training)
    return found | {setting.name: setting for setting in TRAINING if setting.name in wanted}


def load(path: str | Path, flag: str = "--config ") -> dict[str, Any]:
    """A YAML file as a mapping with underscores in its keys; ``flag`` is what it was given as, for messages.

    Raises:
        RailkdError: no such file, no YAML, no mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RailkdError(f"{flag}{path}: no such file; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise RailkdError(f"{flag}{path}: cannot be read: {reason}; wanted a YAML file") from None
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise RailkdError(
            f"{path}: is no YAML{where}: {getattr(error, 'problem', None) or error}; correct it"
        ) from None
    except (RecursionError, ValueError, OverflowError) as error:  # brackets without end, a date that is none
        raise RailkdError(f"{path}: is no YAML of settings: {str(error)[:80]}; correct it") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise RailkdError(f"{path}: holds {shown(found)}, wanted a mapping, with lines such as 'train: train.tsv'")
    config: dict[str, Any] = {}
    for key, value in found.items():
        name = key.replace("-", "_") if isinstance(key, str) else key
        if not isinstance(name, str):
            raise RailkdError(f"{path}: the key {key!r} is no name of a setting; wanted one such as 'train'")
        if name in config:
            raise RailkdError(f"{path}: '{name}' is there twice; keep one")
        config[name] = value
    return config


def convert(setting: Setting, value: Any, where: str) -> Any:
    """A value as the setting wants it: the same for words of the command line and for values of YAML.

    >>> convert(Setting("epochs", float), "5e-1", "--epochs")
    0.5
    """
    if not setting.many:
        if isinstance(value, (list, tuple, dict)):
            raise RailkdError(f"{where}: got {shown(value)}, wanted {_WANTED[setting.kind]}")
        return _checked(setting, _single(setting, value, where), where)
    if isinstance(value, dict):
        raise RailkdError(f"{where}: got {shown(value)}, wanted a list")
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if setting.exactly and not isinstance(value, (list, tuple)) and not (isinstance(value, str) and "," in value):
        raise RailkdError(f"{where}: got {shown(value)}, wanted a list of {setting.exactly} {_plural(setting.kind)}")
    if setting.name in _WITH_COMMAS:
        values = [part for item in values for part in (item.split(",") if isinstance(item, str) else [item])]
        values = [part.strip() if isinstance(part, str) else part for part in values if part != ""]
    if setting.exactly and len(values) != setting.exactly:
        raise RailkdError(
            f"{where}: got {len(values)} {_plural(setting.kind)}, wanted {setting.exactly}, e.g. {setting.flag} 1 1 1"
        )
    return [_checked(setting, _single(setting, item, where), where) for item in values]


def unknown(name: str, known: Iterable[str], where: str) -> RailkdError:
    """The error for a setting that no one knows."""
    return RailkdError(f"{where}: unknown setting '{name}'.{did_you_mean(name, known)} --help lists the settings")


def _kind(hint: Any) -> tuple[type, bool]:
    """``list[str] | None`` -> (str, True)."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    return (typing.get_args(hint)[0], True) if typing.get_origin(hint) is list else (hint, False)


def _single(setting: Setting, value: Any, where: str) -> Any:
    kind = setting.kind
    text = value.strip().lower() if isinstance(value, str) else None
    wanted = RailkdError(f"{where}: got {shown(value)}, wanted {_WANTED[kind]}")
    if kind is bool:
        # Words as transformers' parser takes them; YAML gives booleans.
        if isinstance(value, bool) or text in ("true", "false"):
            return value if isinstance(value, bool) else text == "true"
        raise wanted
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise wanted
    if kind is str:
        if not str(value).strip():
            raise RailkdError(f"{where}: got empty text, wanted a value; leave the setting out for its default")
        return str(value)
    try:
        # YAML 1.1 reads 5e-5 as text, so text that spells a number is one.
        number = float(value)
        if kind is float:
            return number
        if isinstance(value, str):
            return int(value)
        if number == int(number):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise wanted


def _checked(setting: Setting, value: Any, where: str) -> Any:
    if setting.choices and value not in setting.choices:
        raise RailkdError(
            f"{where}: got '{value}', wanted {' or '.join(setting.choices)}.{did_you_mean(str(value), setting.choices)}"
        )
    return value


def plain(value: Any) -> Any:
    """A value of a setting as YAML and JSON can hold it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _plural(kind: type) -> str:
    return "values" if kind is str else "numbers"


def shown(value: Any) -> str:
    """A value in a message, cut to a readable length."""
    text = repr(value)
    name = "the list " if isinstance(value, list) else "the mapping " if isinstance(value, dict) else ""
    return name + (text if len(text) <= 80 else text[:77] + "...")
