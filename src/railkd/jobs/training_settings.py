"""The long tail of training arguments: settings the short table does not know, read by transformers' own parser.

Imported once the cheap checks have passed: transformers takes seconds.
"""

from __future__ import annotations

import json
from argparse import SUPPRESS, Action
from collections.abc import Mapping
from functools import cache
from typing import Any, NoReturn, get_type_hints

from transformers import HfArgumentParser

from railkd.errors import RailkdError
from railkd.jobs.settings import unknown
from railkd.training.arguments import METHOD_OPTIONS, DistillationTrainingArguments

#: Arguments that another setting replaces here, or that nothing here would read.
REPLACED = {
    "resume_from_checkpoint": "--resume goes on from the newest checkpoint in --output",
    "do_train": "a job always trains",
    "do_eval": "give --eval FILE",
    "do_predict": "give --test FILE",
    "key_column": "rows get their keys from their text",
    "label_smoothing_factor": "the teacher's logits are the soft labels here",
}
_METHOD_ONLY = {"method", "weights", "temperature", "projection_learning_rate", "teacher_blocks", *METHOD_OPTIONS}
_AT_LEAST_ONE = {"gradient_accumulation_steps", "per_device_eval_batch_size", "shared_size", "save_total_limit"}


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def resolve(others: Mapping[str, tuple[str, Any]], *, verb: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Training arguments out of what the verb itself did not know.

    Args:
        others: name -> (where it was found, words of the command line or a value of YAML).
        verb: finetune takes no settings of methods. known: the verb's own settings, for suggestions.

    Raises:
        RailkdError: a name that nobody knows, or a value that its type does not take.
    """
    if not others:
        return {}
    parser, hints = _parser()
    actions = {action.dest: action for action in parser._actions if action.nargs != 0}
    found: dict[str, Any] = {}
    for name, (where, value) in others.items():
        off = name.removeprefix("no_")
        if name not in actions and off in actions and "bool" in hints[off]:
            if value:
                raise RailkdError(f"{where}: takes no value, got {value!r}")
            name, value = off, ["false"]
        if name not in actions:
            raise unknown(name, [*known, *actions], where)
        if verb == "finetune" and name in _METHOD_ONLY:
            raise RailkdError(f"{where}: fine-tuning has no teacher to take it for; 'railkd distill' takes {name}")
        if name in REPLACED:
            raise RailkdError(f"{where}: is not read here; {REPLACED[name]}")
        found[name] = _read(parser, actions[name], value, where, hints[name])
        if name in _AT_LEAST_ONE and found[name] < 1:
            raise RailkdError(f"{where}: got {found[name]}, wanted at least 1")
    return found


@cache
def _parser() -> tuple[_Parser, dict[str, str]]:
    """transformers' parser of all training arguments, and their types as written."""
    parser = _Parser(DistillationTrainingArguments, add_help=False, allow_abbrev=False)
    for action in parser._actions:  # so that only what is given comes back
        action.default = SUPPRESS
    # Not the fields' types: making the parser reduces those to what a command line can say.
    return parser, {name: str(hint) for name, hint in get_type_hints(DistillationTrainingArguments).items()}


def _read(parser: _Parser, action: Action, value: Any, where: str, hint: str) -> Any:
    """One argument, by the parser's own rules for its type."""
    if "dict" in hint:
        mapping = _mapping(value)
        if mapping is not None:
            return mapping
    if isinstance(value, dict):
        raise RailkdError(f"{where}: got the mapping {value!r}, wanted {_wanted(action)}")
    words = _words(value, action)
    flag = f"--{action.dest}"
    single = action.nargs in (None, "?") and len(words) == 1
    try:
        # Joined by "=", a value that starts with a dash is still a value.
        parsed = parser.parse_args([f"{flag}={words[0]}"] if single else [flag, *words])
        return getattr(parsed, action.dest)
    except (ValueError, TypeError, KeyError):
        shown = f"'{words[0]}'" if len(words) == 1 else f"{len(words)} values" if words else "no value"
        raise RailkdError(f"{where}: got {shown}, wanted {_wanted(action)}") from None


def _words(value: Any, action: Action) -> list[str]:
    if value is False and action.choices and "no" in action.choices:
        return ["no"]  # YAML 1.1 reads "eval_strategy: no" as a boolean
    values = value if isinstance(value, list) else [value]
    return [str(item).lower() if isinstance(item, bool) else str(item) for item in values]


def _mapping(value: Any) -> dict[str, Any] | None:
    """A mapping of YAML, or JSON on the command line; None: something else, such as a file name."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, dict) else None


def _wanted(action: Action) -> str:
    if action.choices:
        return "one of " + ", ".join(map(str, action.choices))
    name = getattr(action.type, "__name__", "")
    named = {"int": "a whole number", "float": "a number", "string_to_bool": "true or false", "str": "text"}
    return named.get(name, name or "another value") + (", or several" if action.nargs == "+" else "")
