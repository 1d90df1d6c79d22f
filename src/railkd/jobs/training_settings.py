"""Read the training arguments that have no short name, with transformers' own parser.

Import this after the cheap checks have passed, because importing transformers takes seconds.
"""

from __future__ import annotations

import json
from argparse import SUPPRESS, Action
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, NoReturn, get_type_hints

from transformers import HfArgumentParser

from railkd.errors import RailkdError
from railkd.jobs.settings import SPELLINGS, Setting, convert, plain, shown, unknown
from railkd.objectives import METHODS, MethodSpec, method_spec
from railkd.training.arguments import DistillationTrainingArguments
from railkd.training.fields import NEED_TEACHER, SWITCHES, WITHOUT_EFFECT

#: Arguments that another setting replaces, or that would have no effect: argument -> what to do instead.
REPLACED = WITHOUT_EFFECT | {
    "resume_from_checkpoint": "Fix: --resume continues from the newest checkpoint in --output",
    "do_train": "A job always trains",
    "do_eval": "Fix: give --eval FILE",
    "do_predict": "Fix: give --test FILE",
    "method_options": "Fix: give each option of the method by its own name",
    "key_column": "The keys of rows are made from their texts",
    **dict.fromkeys(("source_rows", "source_shares"), "Fix: give a share with its file, --unlabelled FILE:0.3"),
    "include_for_metrics": "The metrics are those of the task",
    "batch_eval_metrics": "The metrics are computed over all rows",
    "eval_do_concat_batches": "The metrics are computed over all rows",
    "prediction_loss_only": "The metrics need the predictions",
    "enable_jit_checkpoint": "A run always saves a checkpoint when SIGTERM arrives",
}
_AT_LEAST_ONE = {"gradient_accumulation_steps", "per_device_eval_batch_size", "save_total_limit"}


def keeps_checkpoints(training: Mapping[str, Any]) -> bool:
    """Return whether a run keeps its checkpoints when it ends: if the user chose how they are saved.

    Args:
        training: field -> value, for those that the user chose.
    """
    return any(name.startswith("save_") for name in training)


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def resolve(
    others: Mapping[str, tuple[str, Any]],
    *,
    verb: str,
    known: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the training arguments that the verb itself does not know.

    Args:
        others: name -> (where it was found, words of the command line or a value from YAML).
        verb: finetune takes no settings of methods.
        known: the verb's own settings, for suggestions.
        training: the training arguments that the verb knows, and that these are combined with.

    Returns:
        Field of ``DistillationTrainingArguments`` -> value.

    Raises:
        RailkdError: a name is unknown, a value has the wrong type, or an argument would have no effect.
    """  # noqa: DOC501 - unknown() returns a RailkdError
    if not others:
        return {}
    parser, hints = _parser()
    actions = {action.dest: action for action in parser._actions if action.nargs != 0}
    options = method_settings((training or {}).get("method", "rail-kd-l"), {*known, *actions})
    found: dict[str, Any] = {}
    for name, (where, value) in others.items():
        off = name.removeprefix("no_")
        if (name if name in SWITCHES else off) in SWITCHES and value in ([], True, False):
            name, value = off, SWITCHES[off][value is False or name != off]
        if name not in {**actions, **options} and _is_switch(off, hints, options):
            if value:
                raise RailkdError(f"{where}: expected no value, got {shown(value)}")
            name, value = off, ["false"]
        if name not in {**actions, **options}:
            raise unknown(name, [*known, *actions, *options], where)
        if verb == "finetune" and (name in NEED_TEACHER or name not in actions):
            raise RailkdError(f"{where}: fine-tuning has no teacher. 'railkd distill' takes {name}")
        if name in REPLACED:
            raise RailkdError(f"{where}: this argument has no effect in railkd. {REPLACED[name]}")
        if name in options:
            found[name] = _read_option(options[name], value, where)
        else:
            found[name] = _read(parser, actions[name], value, where, hints[name])
        if name in _AT_LEAST_ONE and found[name] < 1:
            raise RailkdError(f"{where}: expected at least 1, got {found[name]}")
    _check_steps({**(training or {}), **found})
    return found


def method_settings(method: str, taken: Collection[str]) -> dict[str, Setting]:
    """Return the options of a method as settings, and those of the methods of railkd, which a message may be about.

    Args:
        method: a name or an address.
        taken: names of the other settings of the verb.

    Returns:
        Name -> setting.

    Raises:
        RailkdError: an option that its users shall set has the name of another setting.
    """
    rows: list[MethodSpec] = list(METHODS.values())
    with suppress(RailkdError):  # of an unknown method: the check of the verb reports it
        rows.append(method_spec(method))
    spec = rows[-1]
    clash = sorted(name for name in spec.parameters if name in taken and name not in spec.settings)
    if clash and not spec.ours:
        raise RailkdError(
            f"{method}: its option '{clash[0]}' has the name of a setting of every run. Fix: rename the parameter in "
            f"{spec.objective.__name__}.__init__."
        )
    return {
        name: Setting(**vars(option), group="method options")
        for row in rows
        for name, option in row.parameters.items()
        if name not in taken
    }


def _is_switch(name: str, hints: Mapping[str, str], options: Mapping[str, Setting]) -> bool:
    return options[name].kind is bool if name in options else "bool" in hints.get(name, "")


def _read_option(setting: Setting, value: Any, where: str) -> Any:
    """Return the value of an option of the method, from the words of a command line or from YAML."""
    words = value if isinstance(value, list) else [value]
    if setting.many:
        return convert(setting, words, where)
    if setting.kind is bool and not words:
        return True
    if len(words) != 1:
        got = f"{len(words)} values" if words else "no value"
        raise RailkdError(f"{where}: expected one value, got {got}")
    return convert(setting, words[0], where)


def _check_steps(training: Mapping[str, Any]) -> None:
    # A number of steps has an effect if its strategy is "steps". The strategy of --eval follows --save-steps.
    plain_strategy = {"save": "steps", "logging": "steps", "eval": "steps" if "save_steps" in training else "epoch"}
    for kind, default in plain_strategy.items():
        strategy = plain(training.get(f"{kind}_strategy", default))
        if f"{kind}_steps" in training and strategy != "steps":
            raise RailkdError(
                f"--{kind}-steps has no effect with --{kind}-strategy {strategy}. Fix: --{kind}-strategy steps"
            )


def describe(verb: str, known: Iterable[str]) -> dict[str, str]:
    """Return what `resolve` takes beside the settings of a verb.

    Args:
        verb: its name.
        known: names that ``--help`` describes elsewhere.

    Returns:
        Flag -> the first sentence of its help.
    """
    parser, _ = _parser()
    hidden = {*known, *SPELLINGS, *REPLACED, *(NEED_TEACHER if verb == "finetune" else ())}
    return {
        f"--{action.dest.replace('_', '-')}": " ".join((action.help or "").split()).split(". ")[0].rstrip(".")
        for action in parser._actions
        if action.dest not in hidden and action.nargs != 0
    }


@cache
def _parser() -> tuple[_Parser, dict[str, str]]:
    # transformers' parser of all training arguments, and their types as written in the class.
    parser = _Parser(DistillationTrainingArguments, add_help=False, allow_abbrev=False)
    for action in parser._actions:  # the parser then returns only the given arguments
        action.default = SUPPRESS
    # HfArgumentParser changes the types of the fields to what a command line can express, so read the annotations.
    return parser, {name: str(hint) for name, hint in get_type_hints(DistillationTrainingArguments).items()}


def _read(parser: _Parser, action: Action, value: Any, where: str, hint: str) -> Any:
    if "dict" in hint:
        mapping = _mapping(value)
        if mapping is not None:
            return mapping
    if isinstance(value, dict):
        raise RailkdError(f"{where}: expected {_expected(action)}, got {shown(value)}")
    words = _words(value, action)
    flag = f"--{action.dest}"
    single = action.nargs in (None, "?") and len(words) == 1
    try:
        # Joined by "=", a value may start with a dash.
        parsed = parser.parse_args([f"{flag}={words[0]}"] if single else [flag, *words])
        return getattr(parsed, action.dest)
    except (ValueError, TypeError, KeyError):
        got = f"'{words[0]}'" if len(words) == 1 else f"{len(words)} values" if words else "no value"
        raise RailkdError(f"{where}: expected {_expected(action)}, got {got}") from None


def _words(value: Any, action: Action) -> list[str]:
    if value is False and action.choices and "no" in action.choices:
        return ["no"]  # YAML 1.1 reads "eval_strategy: no" as a boolean
    values = value if isinstance(value, list) else [value]
    return [str(item).lower() if isinstance(item, bool) else str(item) for item in values]


def _mapping(value: Any) -> dict[str, Any] | None:
    # A mapping from YAML, or as JSON from the command line; None for anything else, such as a file name.
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, dict) else None


def _expected(action: Action) -> str:
    if action.choices:
        return "one of " + ", ".join(map(str, action.choices))
    name = getattr(action.type, "__name__", "")
    named = {"int": "a whole number", "float": "a number", "string_to_bool": "true or false", "str": "text"}
    return named.get(name, name or "another value") + (", or several" if action.nargs == "+" else "")
