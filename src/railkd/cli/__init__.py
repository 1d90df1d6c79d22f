"""The command line: a row or a file for each verb. Nothing heavy is imported before the cheap checks have passed.

Exit codes: 0 success; 1 the job ran and failed; 2 bad input; 130 interrupted from the keyboard; 143 ended by SIGTERM or
SIGHUP.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from railkd import __version__
from railkd.cli.process import Terminated, standard_streams, termination
from railkd.errors import RailkdError, RunFailed, did_you_mean
from railkd.runtime.disk import DiskFull
from railkd.runtime.words import visible

#: Verb -> what it does. `railkd.cli.verbs.find_verb` finds the rest, which is imported when the verb is used.
VERBS = {
    "demo": "distil a real teacher into a small student on real data; needs no files",
    "finetune": "fine-tune a checkpoint on labelled rows",
    "augment": "make more text for a teacher to label, from the text that is there",
    "cache": "run a teacher once over the rows and store its states",
    "distill": "distil a teacher, or the cache of one, into a student",
    "evaluate": "score a model on labelled rows",
    "predict": "label each row of a file",
    "export": "write the folder to ship: ONNX and int8 files behind gates",
    "certify": "show that a model is no worse than another by a margin",
    "calibrate": "fit probabilities and thresholds on rows that chose nothing else",
    "bench": "compare methods over the tasks, students and seeds of a grid file",
    "report": "turn the records of runs into one page with statistics",
    "check": "look for problems before a run starts",
    "tasks": "list the data sets that are known by name, in and out of domain",
    "methods": "list the methods, their options and their draws, or start one of your own",
    "env": "print versions and machine, for bug reports",
    "completion": "print a script that completes commands in bash, zsh or fish",
}

#: Verbs of two words.
_SUBVERBS = frozenset({"cache push", "cache pull"})


def main(argv: Sequence[str] | None = None, verbs: Mapping[str, Any] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``railkd``; None takes those of the process.
        verbs: name -> `railkd.cli.verb.Verb`; these are added to the built-in verbs.

    Returns:
        The exit code.
    """
    with standard_streams():
        return _main(list(sys.argv[1:] if argv is None else argv), verbs or {})


def _main(words: list[str], verbs: Mapping[str, Any]) -> int:
    asked: list[Any] = []  # gets the options of the job when they are known
    try:
        with termination():
            _dispatch(words, verbs, asked)
            sys.stdout.flush()
        return 0
    except RailkdError as error:
        return _fail(2, f"error: {error}")
    except DiskFull as error:
        _, _, command = _how_to_continue(words, asked).partition("Fix: ")
        return _fail(1, f"failed: {error}{f', then {command}' if command else ''}")
    except RunFailed as error:
        return _fail(1, f"failed: {error}")
    except KeyboardInterrupt:
        return _interrupted(130, f"interrupted{_how_to_continue(words, asked)}")
    except Terminated:
        return _interrupted(143, f"terminated{_how_to_continue(words, asked)}")
    except BrokenPipeError:
        # The reader of stdout has closed it. Python flushes stdout again at exit, which must not fail either.
        with open(os.devnull, "w") as nowhere, suppress(OSError):
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 0
    except Exception as error:
        lines = str(error).strip().splitlines()
        what = type(error).__name__ + (f": {lines[0]}" if lines else "")
        return _fail(1, f"failed: {what}", hint="Fix: set RAILKD_DEBUG=1 to see the traceback")


def _dispatch(words: list[str], verbs: Mapping[str, Any], asked: list[Any]) -> None:
    known = [*VERBS, *verbs]
    if not words:
        raise RailkdError(f"No command given. Commands: {', '.join(known)}. railkd --help describes them")
    if words[0] == "help" and words[1:]:
        words = [*words[1:], "--help"]
    if words[0] in ("-h", "--help", "help"):
        print(overview(), end="")
        return
    if words[0] in ("--version", "-V"):
        print(f"railkd {__version__}")
        return
    if words[0] not in known:
        near = did_you_mean(words[0], known)
        kind = "flag" if words[0].startswith("-") else "command"
        raise RailkdError(f"unknown {kind} '{words[0]}'. Commands: {', '.join(known)}.{near}")
    from railkd.cli.help import help_text
    from railkd.cli.verbs import find_verb
    from railkd.cli.words import parse

    name, rest = words[0], words[1:]
    if " ".join(words[:2]) in _SUBVERBS:
        name, rest = " ".join(words[:2]), words[2:]
    verb = verbs[name] if name in verbs else find_verb(name)
    if {"-h", "--help", "--help-all"} & set(rest):
        print(help_text(verb, everything="--help-all" in rest), end="")
        return
    parsed = parse(verb, rest)
    verb.check(parsed.request)
    request = parsed.complete(verb)
    asked.append(request.options)
    verb.run(request)


def overview() -> str:
    """Return the text of ``railkd --help``."""
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {line}" for name, line in VERBS.items()]
    return "\n".join(
        [
            "usage: railkd COMMAND [--flag value ...] [--config FILE.yaml]",
            "",
            "Knowledge distillation of transformers with random intermediate layer mapping (RAIL-KD).",
            "",
            "Commands:",
            *lines,
            "",
            "railkd COMMAND --help shows its flags and an example; railkd --version shows the version.",
            "",
            "Example:",
            "  railkd demo --quick",
            "",
        ]
    )


def _fail(code: int, message: str, hint: str = "") -> int:
    if os.environ.get("RAILKD_DEBUG") == "1":
        traceback.print_exc()
    elif hint:
        message += f"\n{hint}"
    print(f"railkd: {visible(message)}", file=sys.stderr)
    return code


def _interrupted(code: int, message: str) -> int:
    # A launcher passes its signal on to each rank. Only rank 0 prints the message.
    from railkd.runtime.launcher import is_first_process

    return _fail(code, message) if is_first_process() else code


def _how_to_continue(words: list[str], asked: list[Any]) -> str:
    options: Any = asked[0] if asked else None
    if words[:1] == ["bench"]:
        return "; finished jobs are kept. Fix: repeat the command with --resume to continue" if options else ""
    if hasattr(options, "resume") and options.output:
        return (
            f". Fix: repeat the command with --resume to continue from the newest checkpoint in '{options.output}', "
            "or with --overwrite to start again"
        )
    return "; finished rows are kept. Fix: repeat the command to continue" if words[:1] == ["cache"] else ""
