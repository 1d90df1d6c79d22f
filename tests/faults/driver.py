"""Runs railkd commands in child processes that meet a fault at a chosen moment. A program of its own: see `Driver`.

It imports the heavy libraries once and forks, so that a run costs a second and not ten; what a child had to import, the
next ones find imported. A child is a process like any other: SIGKILL really ends it, and what is on disk is all that is
left. Nothing of railkd is replaced: moments are heard
through a TrainerCallback, `on_progress`, and Python's audit events (a file about to be opened, made or renamed).

One command a line on stdin, as JSON: argv, folder (working directory), fault (see `arm`). One answer a line: code, err.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
AFTER = "@after:"


class Driver:
    """The parent's side: one driver process, asked for one run after another."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, folder: Path, *argv: object, fault: str | None = None) -> tuple[int, str]:
        """Run ``railkd ARGV`` in a folder; exit code (negative: the signal that ended it) and what it said."""
        assert self.process.stdin is not None and self.process.stdout is not None
        folder.mkdir(parents=True, exist_ok=True)
        command = {"argv": [str(word) for word in argv], "folder": str(folder), "fault": fault}
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["code"], answer["err"]


@contextmanager
def driver() -> Iterator[Driver]:
    """Start one; it ends with the block."""
    modules = tempfile.TemporaryDirectory()  # where transformers copies the code that models bring
    env = os.environ | {
        "HF_MODULES_CACHE": modules.name,
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)]),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, str(Path(__file__))]
    popen = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with modules, popen as process:
        try:
            yield Driver(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


# ---- in the driver process --------------------------------------------------------------------------


def arm(fault: str) -> list[Any]:
    """Prepare a fault; returns the callbacks it needs.

    ``KIND@MOMENT``: KIND is KILL, TERM, INT (signals to the process itself), FULL:BYTES (no file grows beyond) or
    OFFLINE (a socket that is made or asked for ends the process with code 77).
    MOMENT: ``step:N`` (after optimizer step N), ``open:PART`` or ``rename:PART`` (a file whose path holds PART, in
    which ``*`` may stand for anything, is about to be opened, or renamed), ``touch:N`` (the N-th file of a folder
    ``out`` about to be opened, made or renamed),
    ``after:SECONDS``, ``now``.
    """
    from transformers import TrainerCallback

    kind, _, moment = fault.partition("@")
    what, _, where = moment.partition(":")

    def refuse(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith("socket.") and event != "socket.gethostname":
            os.write(2, f"{event} {args}".encode())
            os._exit(77)

    def strike() -> None:
        if kind == "OFFLINE":
            sys.addaudithook(refuse)
        elif kind.startswith("FULL"):
            import resource

            size = int(kind.partition(":")[2])
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        else:
            os.kill(os.getpid(), getattr(signal, f"SIG{kind}"))

    class AtStep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: object) -> None:
            if state.global_step == int(where):
                strike()

    def hear(event: str, args: tuple[Any, ...]) -> None:
        if event == ("open" if what == "open" else "os.rename") and any(
            fnmatch.fnmatchcase(str(path), f"*{where}*") for path in args[:2]
        ):
            strike()

    touched = 0

    def count(event: str, args: tuple[Any, ...]) -> None:
        nonlocal touched
        if event in ("open", "os.mkdir", "os.rename") and "out/" in str(args[0]):
            touched += 1
            if touched == int(where):
                strike()

    if what == "step":
        return [AtStep()]
    if what == "touch":
        sys.addaudithook(count)
    elif what in ("open", "rename"):
        sys.addaudithook(hear)
    else:
        assert what == "now", fault
        strike()
    return []


def default_signals() -> None:
    """Undo what a shell or nohup ignores for its background jobs: the tests send these signals."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def run(argv: list[str], fault: str | None) -> int:
    """One command, as the command line runs it; training verbs with the fault's callbacks."""
    from railkd.cli import main
    from railkd.cli.verb import messages_only, printer
    from railkd.cli.verbs import JOBS
    from railkd.jobs import distill, finetune

    default_signals()
    callbacks = arm(fault) if fault and AFTER not in fault else []

    def with_callbacks(work: Any) -> Any:
        def run(request: Any) -> None:
            with messages_only(request.options.quiet):
                work(request, printer(request.options.quiet), callbacks)

        return run

    verbs = {
        name: dataclasses.replace(JOBS[name], run=with_callbacks(work))
        for name, work in (("distill", distill.distill), ("finetune", finetune.finetune))
    }
    return main(argv, verbs)


def ended(child: int, fault: str | None) -> int:
    """The status of a child; with ``KILL@after:SECONDS`` it is killed from here, wherever it is."""
    if fault and AFTER in fault:
        deadline = time.monotonic() + float(fault.rpartition(":")[2])
        while time.monotonic() < deadline:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                return status
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def import_too(names: list[str]) -> None:
    """Import what a child has imported. Modules that have no file of their own are made by others."""
    for name in names:
        if name not in sys.modules and not name.startswith("transformers_modules"):  # the code that models bring
            with suppress(Exception):
                importlib.import_module(name)
    gc.freeze()  # as for the tests themselves: see conftest.py


def serve() -> None:
    """Fork a child for every line of stdin."""
    from transformers import BertForSequenceClassification, Trainer  # noqa: F401

    import railkd.jobs.distill  # noqa: F401
    import railkd.jobs.evaluate  # noqa: F401

    for line in sys.stdin:
        command = json.loads(line)
        with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as imported:
            child = os.fork()
            if child == 0:
                os.dup2(said.fileno(), 2)
                os.dup2(said.fileno(), 1)
                os.chdir(command["folder"])
                code = 99
                try:
                    code = run(command["argv"], command["fault"])
                finally:
                    sys.stdout.flush()
                    with suppress(OSError):  # the disk may be full, on purpose
                        imported.write("\n".join(sys.modules))
                        imported.flush()
                    os._exit(code)
            status = ended(child, command["fault"])
            imported.seek(0)
            import_too(imported.read().split())
            said.seek(0)
            answer = {"code": os.waitstatus_to_exitcode(status), "err": said.read()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
