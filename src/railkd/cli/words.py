"""From the words of a command line, and a config file, to the options of a job.

This is not argparse. Its `parse_known_args` keeps unknown flags too, but as one list of words, to be split by flag as
here. It takes "-inf" and "-nan" for flags. And it converts words alone, while the values of a config file must take the
same path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from railkd.cli.verb import Verb
from railkd.errors import RailkdError
from railkd.jobs.request import Request
from railkd.jobs.settings import SPELLINGS, Setting, convert, load, unknown

_NUMBER = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)


@dataclass(frozen=True)
class Parsed:
    """What a user asked for, as far as the verb itself knows its settings.

    Attributes:
        request: the settings that the verb knows.
        others: settings left for transformers' parser -> (where each was found, value).
    """

    request: Request[Any]
    others: Mapping[str, tuple[str, Any]] = field(default_factory=dict)

    def complete(self, verb: Verb) -> Request[Any]:
        """Return the request with the other settings too, read by transformers' parser.

        Raises:
            RailkdError: a name that nobody knows, or a value that its type does not take.
        """
        if not self.others:
            return self.request
        from railkd.jobs.training_settings import resolve  # transformers takes seconds

        return self.request.with_training(**resolve(self.others, verb=verb.name, known=verb.settings()))


def parse(verb: Verb, argv: Sequence[str]) -> Parsed:
    """Defaults, then the config file, then flags; each wins over those before."""
    settings = verb.settings()
    words = split(argv, settings, verb)
    config_file = words.pop("config", None)
    layers: list[tuple[str, Mapping[str, Any]]] = [("", words)]
    if config_file is not None:
        layers.insert(0, (f"{config_file}: ", load(config_file)))
    return assemble(verb, layers)


def assemble(verb: Verb, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> Parsed:
    """Settings out of layers, (where they were found, written name -> value) each; later layers win."""
    settings = verb.settings()
    given: dict[str, Any] = {}
    others: dict[str, tuple[str, Any]] = {}
    for where, layer in layers:
        seen: dict[str, str] = {}
        for written, value in layer.items():
            name = spelled(written, settings, verb)
            if name in seen:
                raise RailkdError(f"{where}'{seen[name]}' and '{written}' are the same setting; keep one")
            seen[name] = written
            if name in settings:
                if value is None:  # "key:" in YAML: as if it were not there
                    continue
                given[name] = convert(settings[name], value, f"{where}{written}" if where else settings[name].flag)
            elif not verb.training:
                raise unknown(written, [*settings, "config"], where.rstrip(": ") or f"railkd {verb.name}")
            elif value is not None:
                others[name] = (f"{where}{written}" if where else f"--{written.replace('_', '-')}", value)
    fields = {name: value for name, value in given.items() if settings[name].field is None}
    training = {str(settings[name].field): value for name, value in given.items() if settings[name].field}
    return Parsed(Request(verb.options(**fields), training), others)


def spelled(name: str, settings: Mapping[str, Setting], verb: Verb) -> str:
    """The name of a setting that may be written in several ways."""
    meant = verb.spellings.get(name) or SPELLINGS.get(name, name)
    return meant if meant in settings and name not in settings else name


def split(argv: Sequence[str], settings: Mapping[str, Setting], verb: Verb) -> dict[str, Any]:
    """Words by setting: a scalar takes one, a list all to the next flag, a switch none; an unknown flag takes all."""
    found: dict[str, Any] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not _is_flag(word):
            many = verb.positional is not None and settings[verb.positional].many
            if not verb.positional or (verb.positional in found and not many):
                raise RailkdError(
                    f"railkd {verb.name}: unexpected '{word}'; wanted a flag such as {_some_flag(settings)}"
                )
            found[verb.positional] = [*found.get(verb.positional, []), word] if many else word
            continue
        if not word.startswith("--"):
            raise RailkdError(f"railkd {verb.name}: unknown flag '{word}'; flags start with two dashes, see --help")
        written, equals, attached = word[2:].partition("=")
        written = written.replace("-", "_")
        name = spelled(written, settings, verb)
        values = [attached] if equals else []
        off = name.removeprefix("no_")
        if name not in settings and off in settings and off != name and settings[off].kind is bool:
            if equals:
                raise RailkdError(f"--{word[2:].partition('=')[0]}: takes no value, got '{attached}'")
            found[off] = False
            continue
        setting = settings.get(name) or (Setting("config", str) if name == "config" else None)
        if setting is None or setting.many:
            while not equals and rest and not _is_flag(rest[0]):
                values.append(rest.pop(0))
        elif setting.kind is bool:
            if not equals and rest and rest[0].lower() in ("true", "false"):
                values.append(rest.pop(0))
            values = values or ["true"]
        elif not equals and rest and not _is_flag(rest[0]):
            values.append(rest.pop(0))
        if setting is None:
            found[name] = values
            continue
        if not values:
            raise RailkdError(f"{setting.flag}: got no value, wanted {'one or more' if setting.many else 'one'}")
        if not setting.many:
            found[name] = values[0]
        elif setting.exactly:  # given again, it replaces: three numbers stay three
            found[name] = values
        else:
            found[name] = [*found.get(name, []), *values]
    return found


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word != "-" and not _NUMBER.match(word)


def _some_flag(settings: Mapping[str, Setting]) -> str:
    return next(iter(settings.values())).flag if settings else "--help"
