"""The command line: a row or a file for each verb. Nothing heavy is imported before the cheap checks have passed.

Exit codes: 0 done; 1 ran and failed; 2 bad input; 130 and 143 interrupted from the keyboard or by SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from railkd import __version__
from railkd.errors import RailkdError, RunFailed, did_you_mean

#: Verb -> one line. `railkd.cli.verbs.find_verb` finds the rest, which is imported when the verb is used.
VERBS = {
    "demo": "a real teacher into a small student on real data, from nothing",
    "finetune": "fine-tune a checkpoint on labelled rows",
    "cache": "run a teacher once over the rows and keep its states",
    "distill": "distil a teacher, or the cache of one, into a student",
    "evaluate": "score a model on labelled rows",
    "predict": "label every row of a file",
    "bench": "compare methods over tasks, students and seeds out of one grid file",
    "report": "records of runs as one page, with statistics",
    "check": "find what would doom a run before it starts",
    "tasks": "list the data sets known by name, in and out of domain",
    "methods": "list the methods, their options and their draws",
    "env": "versions and machine, for bug reports",
}


class Terminated(BaseException):
    """SIGTERM as an exception: jobs leave through their ``finally`` clauses; no ``except Exception`` stops it."""


def main(argv: Sequence[str] | None = None, verbs: Mapping[str, Any] | None = None) -> int:
    """Run one command.

    Args:
        argv: words after ``railkd``; None: those of the process.
        verbs: name -> `railkd.cli.verb.Verb`, beside the built-in ones.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    asked: list[Any] = []  # the options of the job, once they are known
    try:
        with _terminable():
            _dispatch(words, verbs or {}, asked)
            sys.stdout.flush()
        return 0
    except RailkdError as error:
        return _fail(2, f"error: {error}")
    except RunFailed as error:
        return _fail(1, f"failed: {error}")
    except KeyboardInterrupt:
        return _interrupted(130, f"interrupted{_how_to_go_on(words, asked)}")
    except Terminated:
        return _interrupted(143, f"terminated{_how_to_go_on(words, asked)}")
    except BrokenPipeError:
        # The reader has seen enough. Python flushes stdout once more at exit, which must not complain either.
        with open(os.devnull, "w") as nowhere, suppress(OSError):
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 0
    except Exception as error:
        lines = str(error).strip().splitlines()
        what = type(error).__name__ + (f": {lines[0]}" if lines else "")
        return _fail(1, f"failed: {what}", hint="run with RAILKD_DEBUG=1 for the traceback")


def _dispatch(words: list[str], verbs: Mapping[str, Any], asked: list[Any]) -> None:
    known = [*VERBS, *verbs]
    if not words:
        raise RailkdError(f"got no verb, wanted one of: {', '.join(known)}; railkd --help says what they do")
    if words[0] in ("-h", "--help", "help"):
        print(overview(), end="")
        return
    if words[0] in ("--version", "-V"):
        print(f"railkd {__version__}")
        return
    if words[0] not in known:
        near = did_you_mean(words[0], known)
        kind = "flag" if words[0].startswith("-") else "verb"
        raise RailkdError(f"unknown {kind} '{words[0]}', wanted a verb: {', '.join(known)}.{near}")
    from railkd.cli.verb import help_text
    from railkd.cli.verbs import find_verb
    from railkd.cli.words import parse

    verb = verbs[words[0]] if words[0] in verbs else find_verb(words[0])
    if {"-h", "--help"} & set(words[1:]):
        print(help_text(verb), end="")
        return
    parsed = parse(verb, words[1:])
    verb.check(parsed.request)
    request = parsed.complete(verb)
    asked.append(request.options)
    verb.run(request)


def overview() -> str:
    """``railkd --help``."""
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {line}" for name, line in VERBS.items()]
    return "\n".join(
        [
            "usage: railkd VERB [--flag value ...] [--config FILE.yaml]",
            "",
            "Knowledge distillation of transformers with random intermediate layer mapping (RAIL-KD).",
            "",
            "Verbs:",
            *lines,
            "",
            "railkd VERB --help shows its flags and an example; railkd --version the version.",
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
    print(f"railkd: {message}", file=sys.stderr)
    return code


def _interrupted(code: int, message: str) -> int:
    """Said once: a launcher passes its signal on to every rank."""
    from railkd.cli.verb import speaks

    return _fail(code, message) if speaks() else code


def _how_to_go_on(words: list[str], asked: list[Any]) -> str:
    options: Any = asked[0] if asked else None
    if words[:1] == ["bench"]:
        return "; what is finished is kept: repeat the command with --resume to go on" if options else ""
    if hasattr(options, "resume") and options.output:
        return (
            f"; repeat the command with --resume to go on from the newest checkpoint in '{options.output}', "
            "or with --overwrite to start again"
        )
    return "; repeat the command to go on with what is built" if words[:1] == ["cache"] else ""


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises `Terminated` in here; outside of the main thread nothing can be installed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked data loader worker inherits the handler: it dies as it would without
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
