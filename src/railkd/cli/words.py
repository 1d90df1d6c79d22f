"""Turn the words of a command line, and a config file, into the options of a job.

This is not argparse, for three reasons. Its ``parse_known_args`` returns unknown flags as one list of words, to be
split by flag as here. It takes "-inf" and "-nan" for flags. And it converts words only, while the values of a config
file must be converted in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from railkd.cli.verb import Verb
from railkd.errors import RailkdError
from railkd.jobs.request import Request
from railkd.jobs.settings import FLAGS_ONLY, NAME_CODE, SPELLINGS, Setting, convert, load, unknown
from railkd.models.named_teachers import as_list
from railkd.runtime.addresses import is_address

_NUMBER = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)
_CONFIG = Setting("config", str)


@dataclass(frozen=True)
class Parsed:
    """The settings of a command: those that the verb knows, and the others.

    Attributes:
        request: the settings that the verb knows.
        others: settings for transformers' parser -> (where each was found, value).
    """

    request: Request[Any]
    others: Mapping[str, tuple[str, Any]] = field(default_factory=dict)

    def complete(self, verb: Verb) -> Request[Any]:
        """Return the request with the other settings, read by transformers' parser.

        An unknown name and a value of the wrong type raise `RailkdError`.

        Args:
            verb: for which the words were parsed.

        Returns:
            The whole request.
        """
        if not self.others:
            return self.request
        from railkd.jobs.training_settings import resolve  # importing transformers takes seconds

        return self.request.with_training(
            **resolve(self.others, verb=verb.name, known=verb.settings(), training=self.request.training)
        )


def parse(verb: Verb, argv: Sequence[str]) -> Parsed:
    """Read the settings of a command. Flags win over the config file, and the config file over the defaults.

    Args:
        verb: whose settings are read.
        argv: the words after the verb.

    Returns:
        The settings.

    Raises:
        RailkdError: a word, a name or a value is not understood, or the file names code that may not run.
    """
    words = split(argv, verb.settings(), verb)
    config_file = words.pop("config", None)
    layers: list[tuple[str, Mapping[str, Any]]] = [("", words)]
    if config_file is not None:
        found = load(config_file)
        trusted = str(words.get("trust_methods")).lower() == "true"
        for name in NAME_CODE - words.keys():  # a flag replaces the entry of the file
            refuse_code(found.get(name), f"{config_file}: {name}", trusted=trusted)
        for name in sorted(FLAGS_ONLY & found.keys() & verb.settings().keys()):
            flag = verb.settings()[name].flag
            raise RailkdError(f"{config_file}: {name} has no effect in a file. Fix: remove it there, and give {flag}")
        layers.insert(0, (f"{config_file}: ", found))
    return assemble(verb, layers)


def refuse_code(names: Any, where: str, *, trusted: bool) -> None:
    """Refuse methods and metrics that are code which a file names, unless the user allows it.

    Args:
        names: a name or address, a list of them, or what a file has in their place.
        where: the file and the key.
        trusted: the user allows it.

    Raises:
        RailkdError: a name is an address.
    """
    for name in names if isinstance(names, list) else [names]:
        if is_address(name) and not trusted:
            raise RailkdError(
                f"{where}: '{name}' names Python code, which would run on this machine. Fix: read that code, and "
                "give --trust-methods to allow it"
            )


def assemble(verb: Verb, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> Parsed:
    """Merge layers of settings.

    Args:
        verb: whose settings they are.
        layers: pairs of where the settings were found, empty for the command line, and name -> value. Later layers win.

    Returns:
        The settings.

    Raises:
        RailkdError: a name is unknown or given twice in one layer, or a value has the wrong type.
    """  # noqa: DOC501 - unknown() returns a RailkdError
    settings = verb.settings()
    given: dict[str, Any] = {}
    others: dict[str, tuple[str, Any]] = {}
    for where, layer in layers:
        seen: dict[str, str] = {}
        for written, value in layer.items():
            name = full_name(written, settings, verb)
            if name in seen:
                raise RailkdError(f"{where}'{seen[name]}' and '{written}' are the same setting. Fix: keep one")
            seen[name] = written
            if name in settings:
                if value is None:  # "key:" in YAML counts as absent
                    continue
                given[name] = convert(settings[name], value, f"{where}{written}" if where else settings[name].flag)
            elif not verb.training:
                raise unknown(written, [*settings, "config"], where.rstrip(": ") or f"railkd {verb.name}")
            elif value is not None:
                others[name] = (f"{where}{written}" if where else f"--{written.replace('_', '-')}", value)
    fields = {name: value for name, value in given.items() if settings[name].field is None}
    training = {str(settings[name].field): value for name, value in given.items() if settings[name].field}
    return Parsed(Request(verb.options(**fields), training), others)


def full_name(name: str, settings: Mapping[str, Setting], verb: Verb) -> str:
    """Return the name of a setting that may be written in several ways.

    Args:
        name: as written, with underscores.
        settings: of the verb.
        verb: whose own spellings are understood too.

    Returns:
        The name in ``settings``; ``name`` itself if it is unknown.
    """
    meant = verb.spellings.get(name) or SPELLINGS.get(name, name)
    return meant if meant in settings and name not in settings else name


def split(argv: Sequence[str], settings: Mapping[str, Setting], verb: Verb) -> dict[str, Any]:
    """Group the words of a command line by setting.

    A flag for one value takes one word, a flag for a list takes all words up to the next flag, and a switch takes none.
    An unknown flag takes all words up to the next flag, because transformers' parser may know it.

    A word that is neither a flag nor a value of one raises `RailkdError`, and so does a flag without its value.

    Args:
        argv: the words after the verb.
        settings: of the verb.
        verb: decides the setting that needs no flag.

    Returns:
        Name -> word, words or boolean.
    """
    return _Splitter(argv, settings, verb).split()


class _Splitter:
    """Takes words from the front of a command line; see `split`."""

    def __init__(self, argv: Sequence[str], settings: Mapping[str, Setting], verb: Verb) -> None:
        self.rest = list(argv)
        self.settings = settings
        self.verb = verb
        self.found: dict[str, Any] = {}

    def split(self) -> dict[str, Any]:
        while self.rest:
            word = self.rest.pop(0)
            if word.startswith("--"):
                self._read_flag(word)
            elif _is_flag(word):
                raise RailkdError(
                    f"railkd {self.verb.name}: unknown flag '{word}'. Flags start with two dashes; --help lists them"
                )
            else:
                self._read_positional(word)
        return self.found

    def _read_positional(self, word: str) -> None:
        name = self.verb.positional
        if name and self.settings[name].many:
            self.found[name] = [*self.found.get(name, []), word]
        elif name and name not in self.found:
            self.found[name] = word
        else:
            first = next((setting.flag for setting in self.settings.values()), "--help")
            raise RailkdError(f"railkd {self.verb.name}: expected a flag such as {first}, got '{word}'")

    def _read_flag(self, word: str) -> None:
        flag, equals, attached = word.partition("=")
        name = full_name(flag[2:].replace("-", "_"), self.settings, self.verb)
        positive = name.removeprefix("no_")
        if name not in self.settings and positive in self.settings and self.settings[positive].kind is bool:
            if equals:
                raise RailkdError(f"{flag}: expected no value, got '{attached}'")
            self.found[positive] = False
            return
        setting = self.settings.get(name) or (_CONFIG if name == "config" else None)
        values = [attached] if equals else self._take_values(setting)
        if setting is None:
            self.found[name] = values
        elif not values:
            raise RailkdError(f"{setting.flag}: expected {_expected(setting)}, got {self._after()}")
        elif setting.repeats and name in self.found:
            self.found[name] = [*as_list(self.found[name]), *values]
        elif not setting.many:
            self.found[name] = values[0]
        elif setting.exactly:  # a repeated flag replaces the list, so that three numbers stay three
            self.found[name] = values
        else:
            self.found[name] = [*self.found.get(name, []), *values]

    def _after(self) -> str:
        # What follows a flag without a value. A file whose name starts with a dash looks like a flag.
        if not self.rest or self.rest[0].startswith("--"):
            return "none"
        return f"the flag '{self.rest[0]}'. Fix: write ./{self.rest[0]} if this is the name of a file"

    def _take_values(self, setting: Setting | None) -> list[str]:
        if setting is not None and setting.kind is bool and not setting.many:
            is_value = bool(self.rest) and self.rest[0].lower() in ("true", "false")
            return [self.rest.pop(0) if is_value else "true"]
        most = len(self.rest) if setting is None or setting.many else 1
        values: list[str] = []
        while self.rest and len(values) < most and not _is_flag(self.rest[0]):
            values.append(self.rest.pop(0))
        return values


def _expected(setting: Setting) -> str:
    return "one value or more" if setting.many else "a value"


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word != "-" and not _NUMBER.match(word)
