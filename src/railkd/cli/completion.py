"""``railkd completion``: print a script that completes verbs, flags, choices and files in a shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

from railkd.cli import VERBS
from railkd.cli.verb import Verb
from railkd.cli.verbs import find_verb
from railkd.jobs.options import option
from railkd.jobs.request import Request
from railkd.jobs.settings import Setting
from railkd.jobs.validation import Problems

_SWITCHES = (Setting("help", bool, "show the help", default=False),)
_CONFIG = Setting("config", str, "YAML file of settings", metavar="FILE")


@dataclass
class CompletionOptions:
    """Options of ``railkd completion``."""

    shell: str | None = option("shell to write for", metavar="SHELL", choices=["bash", "zsh", "fish"], required=True)


def check(request: Request[CompletionOptions]) -> None:
    """Check that a shell is named.

    Args:
        request: the options.
    """
    problems = Problems()
    if request.options.shell is None:
        problems.add("expected bash, zsh or fish, got no shell. Fix: railkd completion bash")
    problems.report()


def run(request: Request[CompletionOptions]) -> None:
    """Print the script.

    Args:
        request: the options.
    """
    print({"bash": bash_script, "zsh": zsh_script, "fish": fish_script}[str(request.options.shell)](), end="")


def flags(verb: Verb) -> list[Setting]:
    """Return the settings that are completed after a verb, a switch for each ``--no-FLAG`` too.

    Args:
        verb: to complete.
    """
    found: list[Setting] = []
    for setting in (*verb.settings().values(), *verb.own_fields().values(), _CONFIG, *_SWITCHES):
        found.append(setting)
        if setting.kind is bool and setting.default is not False:
            found.append(replace(setting, name=f"no_{setting.name}", help=f"the opposite of {setting.flag}"))
    return found


def bash_script() -> str:
    """Return the script for bash. ``eval "$(railkd completion bash)"`` in ~/.bashrc uses it."""
    cases = "\n".join(_bash_cases())
    return f"""\
_railkd() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} flag=${{COMP_WORDS[COMP_CWORD-1]}} flags= values=
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W {shlex.quote(" ".join([*VERBS, "help"]))} -- "$word"))
    return
  fi
  case ${{COMP_WORDS[1]}} in
    help) values={shlex.quote(" ".join(VERBS))} ;;
{cases}
  esac
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
  elif [[ -n $values ]]; then
    COMPREPLY=($(compgen -W "$values" -- "$word"))
  fi
}}
complete -o default -F _railkd railkd
"""


def _bash_cases() -> Iterator[str]:
    for name in VERBS:
        verb = find_verb(name)
        yield f"    {name})"
        yield f"      flags={shlex.quote(' '.join(setting.flag for setting in flags(verb)))}"
        chosen = [setting for setting in flags(verb) if setting.choices]
        if verb.positional and verb.settings()[verb.positional].choices:
            yield f"      values={shlex.quote(_choices(verb.settings()[verb.positional]))}"
        if chosen:
            rows = " ".join(f"{setting.flag}) values={shlex.quote(_choices(setting))} ;;" for setting in chosen)
            yield f"      case $flag in {rows} esac"
        yield "      ;;"


def zsh_script() -> str:
    """Return the script for zsh. ``eval "$(railkd completion zsh)"`` in ~/.zshrc, after compinit, uses it."""
    verbs = " ".join(shlex.quote(f"{name}:{line}") for name, line in VERBS.items())
    cases = "\n".join(
        f"    {name}) _arguments {' '.join(shlex.quote(_zsh_row(setting)) for setting in flags(find_verb(name)))} "
        "'*:file:_files' ;;"
        for name in VERBS
    )
    return f"""\
#compdef railkd
_railkd() {{
  local -a verbs=({verbs})
  if ((CURRENT == 2)) || [[ $words[2] == help ]]; then
    _describe command verbs
    return
  fi
  shift words
  ((CURRENT--))
  case $words[1] in
{cases}
  esac
}}
compdef _railkd railkd
"""


def _zsh_row(setting: Setting) -> str:
    for char in "\\[]:":
        setting = replace(setting, help=setting.help.replace(char, f"\\{char}"))
    row = f"*{setting.flag}[{setting.help}]"
    if setting.kind is bool:
        return row
    return f"{row}:value:" + (f"({_choices(setting)})" if setting.choices else "_files")


def fish_script() -> str:
    """Return the script for fish. ``railkd completion fish | source`` in config.fish uses it."""
    lines = [
        f"complete -c railkd -n __fish_use_subcommand -f -a {name} -d {_fish_quote(line)}"
        for name, line in VERBS.items()
    ]
    lines.append(f"complete -c railkd -n '__fish_seen_subcommand_from help' -f -a '{' '.join(VERBS)}'")
    for name in VERBS:
        for setting in flags(find_verb(name)):
            values = "" if setting.kind is bool else f" -x -a '{_choices(setting)}'" if setting.choices else " -r -F"
            lines.append(
                f"complete -c railkd -n '__fish_seen_subcommand_from {name}' -l {setting.flag[2:]}{values} "
                f"-d {_fish_quote(setting.help)}"
            )
    return "\n".join(lines) + "\n"


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _choices(setting: Setting) -> str:
    return " ".join(setting.choices or ())


_ABOUT = 'Print a script that completes commands, flags and files in a shell: eval "$(railkd completion bash)".'
VERB = Verb("completion", _ABOUT, "railkd completion bash", CompletionOptions, run, check, "shell")
