"""The command line as a whole: help, versions, exit codes, and words before any job starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import railkd
from railkd import __version__, mapping
from railkd.cli import VERBS, main
from railkd.cli.verb import Verb
from railkd.errors import RailkdError, RunFailed
from railkd.jobs.options import option
from railkd.jobs.request import Request

# The package under test, installed or not.
ENV = {**os.environ, "PYTHONPATH": str(Path(railkd.__file__).parents[1])}
Capture = pytest.CaptureFixture[str]


@dataclass
class FakeOptions:
    output: str | None = option("somewhere")
    resume: bool = option("go on", False)


def fake(run: Any) -> dict[str, Verb]:
    return {"fake": Verb("fake", "A verb of these tests.", "railkd fake", FakeOptions, run)}


def raising(error: BaseException) -> dict[str, Verb]:
    def run(request: Request[FakeOptions]) -> None:
        raise error

    return fake(run)


def test_help_lists_every_verb(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for verb, line in VERBS.items():
        assert f"  {verb} " in out and line in out


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_ends_with_an_example(verb: str, capsys: Capture) -> None:
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    example = out.rstrip().splitlines()[-1].strip()
    assert out.rstrip().splitlines()[-2] == "Example:" and example.startswith(f"railkd {verb} ")
    assert "--config FILE" in out


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_passes_the_parser(verb: str, capsys: Capture) -> None:
    from railkd.cli.verbs import find_verb
    from railkd.cli.words import parse

    found = find_verb(verb)
    assert found.name == verb and not parse(found, found.example.split()[2:]).others


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"railkd {__version__}\n"


@pytest.mark.parametrize("argv", [["--help"], ["distill", "--help"], ["distill", "--temperature", "0"], ["nonsense"]])
def test_cheap_answers_import_nothing_heavy(argv: list[str]) -> None:
    code = (
        "import sys; from railkd.cli import main; main(sys.argv[1:]);"
        "print(sorted({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, env=ENV, timeout=60, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("error", "code", "fragment"),
    [
        (RailkdError("got this, wanted that"), 2, "railkd: error: got this, wanted that\n"),
        (RunFailed("1 of 4 jobs failed"), 1, "railkd: failed: 1 of 4 jobs failed\n"),
        (OSError(28, "No space left on device"), 1, "railkd: failed: OSError: [Errno 28] No space left"),
        (RuntimeError("first\nsecond"), 1, "railkd: failed: RuntimeError: first\nFix: set RAILKD_DEBUG=1"),
        (KeyError(), 1, "railkd: failed: KeyError\n"),
        (KeyboardInterrupt(), 130, "railkd: interrupted. Fix: repeat the command with --resume"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_exit_codes(error: BaseException, code: int, fragment: str, capsys: Capture) -> None:
    assert main(["fake", "--output", "out"], raising(error)) == code
    err = capsys.readouterr().err
    assert fragment in err and "Traceback" not in err
    assert code or not err


def test_sigterm_ends_in_order(capsys: Capture) -> None:
    left = []

    def run(request: Request[FakeOptions]) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        except Exception:
            left.append("swallowed")
        finally:
            left.append("cleaned up")

    before = signal.getsignal(signal.SIGTERM)
    assert main(["fake", "--output", "out"], fake(run)) == 143
    assert left == ["cleaned up"] and signal.getsignal(signal.SIGTERM) is before
    assert "terminated. Fix: repeat the command with --resume to continue from the newest checkpoint in 'out'" in (
        capsys.readouterr().err
    )


def test_an_interruption_without_a_run_folder_says_just_that(capsys: Capture) -> None:
    assert main(["fake"], raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "railkd: interrupted\n"


def test_the_traceback_is_there_for_those_who_ask(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAILKD_DEBUG", "1")
    assert main(["fake"], raising(ValueError("odd"))) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys; from railkd.cli import main; sys.exit(main(['--help']))"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, env=ENV, timeout=60, check=False
    )
    os.close(writer)
    assert done.returncode == 0 and done.stderr == b""


def test_env_says_versions_and_no_paths(capsys: Capture) -> None:
    assert main(["env"]) == 0
    out = capsys.readouterr().out
    for name in ("railkd", "python", "torch", "transformers", "platform", "cores", "fast bf16"):
        assert f"\n{name} " in f"\n{out}"
    assert str(Path.home()) not in out and os.getcwd() not in out
    assert main(["env", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["python"].count(".") == 2


def test_methods_lists_them_all(capsys: Capture) -> None:
    from railkd.objectives import METHODS

    assert main(["methods"]) == 0
    out = capsys.readouterr().out
    for name, spec in METHODS.items():
        assert name in out and spec.paper in out


def test_one_method_in_full(capsys: Capture) -> None:
    assert main(["methods", "rail-kd-l"]) == 0
    out = capsys.readouterr().out
    assert (
        "arXiv 2109.10164" in out
        and "pooling: mean" in out
        and "option --shared-size: " in out
        and "(default: 128)" in out
    )


def test_the_printed_draws_are_those_of_a_run(capsys: Capture) -> None:
    argv = ["methods", "rail-kd-l", "--draws", "4", "--student-layers", "3", "--teacher-layers", "6", "--seed", "7"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    drawn = [mapping.draw(2, 5, seed=7, epoch=epoch) for epoch in range(4)]
    for epoch, (first, second) in enumerate(drawn):
        assert f"epoch {epoch}: teacher blocks {first} {second} -> student blocks 1 2\n" in out
    for block, counts in mapping.coverage(drawn, range(1, 6)).items():
        assert f"teacher block {block}: {counts[0]} {counts[1]}; {sum(counts)} of 4\n" in out


def test_draws_by_step_and_by_other_rules(capsys: Capture) -> None:
    argv = ["methods", "rail-kd-c", "--draws", "3", "--student-layers", "2", "--teacher-layers", "4"]
    assert main([*argv, "--redraw", "step", "--candidates", "all", "--unordered", "--strategy", "cyclic"]) == 0
    drawn = mapping.draw(2, 4, seed=42, epoch=2, strategy="cyclic", ordered=False)
    assert f"step 2: teacher blocks {drawn[0]} {drawn[1]} -> student blocks 1 2" in capsys.readouterr().out
    assert main([*argv, "--redraw", "never"]) == 0
    assert capsys.readouterr().out.count("any epoch: teacher blocks") == 1
