"""Help and completion are made from the same tables that read a command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields

import pytest

from railkd.cli import VERBS, main
from railkd.cli.completion import bash_script, fish_script, flags, zsh_script
from railkd.cli.help import help_text
from railkd.cli.verb import Verb
from railkd.cli.verbs import find_verb
from railkd.cli.words import parse
from railkd.errors import RailkdError
from railkd.training.fields import REPLACED_BY_OPTIONS, DistillationFields

Capture = pytest.CaptureFixture[str]
TRAINING = ("finetune", "distill")


def headings(text: str) -> dict[str, str]:
    parts = re.split(r"\n\n(?=[^\n]+:\n)", text)
    return {part.partition(":\n")[0]: part.partition(":\n")[2] for part in parts[1:]}


@pytest.mark.parametrize(
    "verb", [verb for verb in VERBS if any(s.required for s in find_verb(verb).settings().values())]
)
def test_what_must_be_given_comes_first_and_stands_in_the_usage(verb: str, capsys: Capture) -> None:
    found = find_verb(verb)
    needed = [setting for setting in found.settings().values() if setting.required]
    text = help_text(found)
    first, *_ = headings(text).items()
    assert first[0] == "required"
    for setting in needed:
        word = str(setting.metavar) if setting.name == found.positional else setting.flag
        assert word in first[1] and word in text.partition("\n\n")[0]
    # Exactly these are missing in a command without flags.
    assert main([verb]) == 2
    message = capsys.readouterr().err
    named = {flag for flag in re.findall(r"(?<![\w-])--[a-z-]+", message) if flag not in ("--help", "--dry-run")}
    wanted = {setting.flag for setting in needed if setting.name != found.positional}
    others = [setting.required for setting in needed if isinstance(setting.required, str)]
    stand_ins = {flag for flags in others for flag in flags.split(" or ")}
    assert wanted <= named | {"--output"} and named <= wanted | stand_ins | {"--copy"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_setting_is_in_the_help_once(verb: str) -> None:
    found, text = find_verb(verb), help_text(find_verb(verb))
    for setting in found.settings().values():
        if setting.name != found.positional:
            assert len(re.findall(rf"^  {setting.flag}(?=[ ,\n])", text, flags=re.MULTILINE)) == 1, setting.flag


@pytest.mark.parametrize("columns", [60, 80, 132])
@pytest.mark.parametrize("verb", ["distill", "bench"])
def test_the_help_is_as_wide_as_the_terminal(verb: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = help_text(find_verb(verb)).partition("\nExample:")[0].splitlines()
    assert columns * 0.8 < max(map(len, lines)) <= columns


def test_own_training_fields_are_found_in_the_help() -> None:
    text = help_text(find_verb("distill"))
    names = {field.name for field in fields(DistillationFields)} - REPLACED_BY_OPTIONS
    assert len(names) > 10
    for name in names:
        assert f"--{name.replace('_', '-')}" in text
    # Fine-tuning shows none that it would refuse.
    assert "--teacher-blocks" not in help_text(find_verb("finetune")) and "--freeze-embeddings" in help_text(
        find_verb("finetune")
    )


class ValueWithAnotherType(Exception):
    """The name is known, and takes another value."""


def complete_request(verb: Verb, words: list[str]) -> None:
    try:
        parse(verb, words).complete(verb)
    except RailkdError as error:
        raise (ValueWithAnotherType if ": expected " in str(error) else AssertionError)(str(error)) from error


@pytest.mark.parametrize("verb", TRAINING)
def test_help_all_shows_what_the_parser_takes(verb: str, capsys: Capture) -> None:
    from railkd.jobs.training_settings import _parser

    assert main([verb, "--help-all"]) == 0
    out = capsys.readouterr().out
    shown = set(re.findall(r"^  (--[a-z0-9-]+)", out, flags=re.MULTILINE))
    assert len(shown) > 100 and "--warmup-steps" in shown
    assert {
        "--hub-model-id",
        "--train-sampling-strategy",
        "--num-train-epochs",
        "--resume-from-checkpoint",
    } & shown == set()
    found = find_verb(verb)
    taken = {action.dest: action for action in _parser()[0]._actions}
    for flag in shown - {"--help", "--help-all", "--config"}:
        name = flag[2:].replace("-", "_")
        if name not in found.settings():
            value = "1" if not taken[name].choices else str(next(iter(taken[name].choices)))
            words = [f"{flag}={value}", *(["--eval-strategy=steps"] if name == "eval_steps" else [])]
            with suppress(ValueWithAnotherType):  # not a number: never unknown or refused
                complete_request(found, words)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_has_two_spellings(verb: str, capsys: Capture) -> None:
    assert main(["help", verb]) == 0
    first = capsys.readouterr().out
    assert main([verb, "--help"]) == 0
    assert capsys.readouterr().out == first


def complete(*words: str) -> set[str]:
    """Return the completions that bash offers for the last word of a command."""
    script = bash_script() + 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _railkd; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", "railkd", *words],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
        timeout=60,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_verbs_flags_and_choices() -> None:
    assert complete("") == {*VERBS, "help"} and complete("he", "") == set()
    assert complete("dis") == {"distill"} and complete("help", "me") == {"methods"}
    assert complete("cache", "--dtype", "") == {"float16", "float32", "int8"}
    assert complete("distill", "--keep-predictions", "t") == {"texts"}
    assert complete("completion", "") == {"bash", "zsh", "fish"}
    assert complete("distill", "--no-g") == {"--no-gauges"} and complete("finetune", "--teacher") == set()
    for verb in VERBS:
        assert complete(verb, "--") == {setting.flag for setting in flags(find_verb(verb))}


@pytest.mark.parametrize("verb", VERBS)
def test_every_completed_flag_is_understood(verb: str) -> None:
    found = find_verb(verb)
    for setting in flags(found):
        if setting.name not in ("help", "config"):
            value = setting.choices[0] if setting.choices else "1"
            words = [setting.flag] if setting.kind is bool else [setting.flag, *[value] * (setting.exactly or 1)]
            parse(found, words)


def test_all_shells_get_all_flags() -> None:
    zsh, fish = zsh_script(), fish_script()
    for verb in VERBS:
        assert f"    {verb}) _arguments " in zsh and f"-a {verb} -d" in fish
        for setting in flags(find_verb(verb)):
            assert f"'*{setting.flag}[" in zsh
            assert f"'__fish_seen_subcommand_from {verb}' -l {setting.flag[2:]} " in fish


@pytest.mark.parametrize(("shell", "script"), [("zsh", zsh_script), ("fish", fish_script)])
def test_the_scripts_of_other_shells_parse(shell: str, script: Callable[[], str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(
        [shell, "--no-execute"], input=script(), text=True, capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_methods_show_options_that_distill_takes(capsys: Capture) -> None:
    from railkd.objectives import METHODS

    distill = find_verb("distill")
    shown = set()
    for name in METHODS:
        assert main(["methods", name]) == 0
        rows = re.findall(r"^option (--[a-z-]+): (.+) \(default: (.+)\)$", capsys.readouterr().out, flags=re.MULTILINE)
        for flag, told, default in rows:
            value = {"None": "1"}.get(default, default)
            complete_request(distill, ["--method", name, flag, value])
            assert len(told) > 10, flag
            shown.add(flag)
    assert len(shown) == 15
