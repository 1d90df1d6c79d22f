"""The process of a command: closed streams, signals, and control characters in names."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

import railkd
from railkd.cli import main
from railkd.cli.verb import Verb, printer
from railkd.data.predictions import write_predictions
from railkd.jobs.options import option
from railkd.jobs.request import Request
from railkd.runtime.progress import bar

ENV = {**os.environ, "PYTHONPATH": str(Path(railkd.__file__).parents[1])}
# A verb that prints a message and a result, and opens a file in between.
TALKING = """
import sys
from dataclasses import dataclass
from railkd.cli import main
from railkd.cli.verb import Verb, print_results, printer

@dataclass
class Options:
    pass

def run(request):
    with open(sys.argv[1], "w") as file:
        printer(False)("a message")
        print_results("a result")
        file.write("content")

sys.exit(main(["talk"], {"talk": Verb("talk", "", "", Options, run)}))
"""


@dataclass
class FakeOptions:
    output: str | None = option("somewhere")


def run_with(descriptors: str, file: Path) -> subprocess.CompletedProcess[str]:
    """Run the talking verb from a shell that closes or redirects descriptors."""
    script = f'exec "$0" -c "$1" "$2" {descriptors}'
    command = ["bash", "-c", script, sys.executable, TALKING, str(file)]
    return subprocess.run(command, capture_output=True, text=True, env=ENV, timeout=60, check=False)


@pytest.mark.parametrize(
    ("descriptors", "out", "err"),
    [
        ("", "a result\n", "a message\n"),
        ("2>&-", "a result\n", ""),
        (">&-", "", "a message\n"),
        ("<&-", "a result\n", "a message\n"),
        (">&- 2>&-", "", ""),
        ("<&- 2>&-", "a result\n", ""),
        ("<&- >&- 2>&-", "", ""),
        ("2>/dev/full", "a result\n", ""),
    ],
)
def test_closed_streams_mix_nothing_and_lose_no_work(descriptors: str, out: str, err: str, tmp_path: Path) -> None:
    done = run_with(descriptors, tmp_path / "file")
    assert (done.returncode, done.stdout, done.stderr) == (0, out, err)
    assert (tmp_path / "file").read_text() == "content"


def test_results_that_cannot_be_written_are_a_failure(tmp_path: Path) -> None:
    done = run_with(">/dev/full", tmp_path / "file")
    assert done.returncode == 1 and "No space left" in done.stderr


def test_a_job_outlives_the_reader_of_its_messages(tmp_path: Path) -> None:
    done = run_with("2> >(exec true)", tmp_path / "file")
    assert done.returncode == 0 and done.stdout == "a result\n" and (tmp_path / "file").read_text() == "content"


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no SIGHUP")
@pytest.mark.parametrize("number", [signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)])
@pytest.mark.parametrize("ignored", [False, True])
def test_a_signal_ends_a_command_in_order_unless_it_was_ignored_before(
    number: signal.Signals, ignored: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    left = []

    def run(request: Request[FakeOptions]) -> None:
        try:
            signal.raise_signal(number)
            left.append("finished")
        finally:
            left.append("cleaned up")

    with disposition(number, signal.SIG_IGN if ignored else signal.SIG_DFL):
        code = main(["fake"], {"fake": Verb("fake", "", "", FakeOptions, run)})
        assert signal.getsignal(number) is (signal.SIG_IGN if ignored else signal.SIG_DFL)
    assert (code, left) == ((0, ["finished", "cleaned up"]) if ignored else (143, ["cleaned up"]))
    assert capsys.readouterr().err == ("" if ignored else "railkd: terminated\n")


@contextmanager
def disposition(number: int, handler: signal.Handlers) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


EVIL = "a\x1b]0;title\x07\x9b31m\r\x7f\u202eb"


def has_control_characters(text: str) -> bool:
    return any((unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t") or char == "\u202e" for char in text)


@pytest.mark.parametrize(
    "argv",
    [
        [EVIL],
        ["evaluate", f"--{EVIL}", "1"],
        ["distill", EVIL],
        ["distill", "--method", EVIL, "--teacher", EVIL, "--train", EVIL, "--output", EVIL, "--keep", EVIL],
        ["evaluate", "--model", f"./{EVIL}", "--test", f"{EVIL}=x.tsv", f"{EVIL}={EVIL}.tsv"],
        ["predict", "--model", f"./{EVIL}", "--test", f"{EVIL}.tsv", "--output", f"{EVIL}.xlsx"],
        ["cache", "--teacher", f"./{EVIL}", "--train", f"./{EVIL}/x.tsv", "--cache", EVIL, "--label-map", EVIL],
        ["bench", EVIL, "--output", EVIL, "--executor", EVIL],
        ["bench", "--copy", EVIL],
        ["report", EVIL, "--csv", f"no/{EVIL}"],
        ["tasks", EVIL],
        ["methods", EVIL],
        ["env", "--config", EVIL],
        ["help", EVIL],
        ["completion", EVIL],
        ["distill", "--config", "evil.yaml"],
        ["bench", "grid.yaml", "--output", "out"],
    ],
)
def test_control_characters_of_names_never_reach_the_terminal(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    escaped = EVIL.encode("unicode_escape").decode()
    (tmp_path / "evil.yaml").write_text(f'seed: "{escaped}"\n')
    (tmp_path / "grid.yaml").write_text(f'"{escaped}": 1\n')
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert "a\\x1b]0;title" in err and not has_control_characters(out + err)


def test_messages_escape_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    printer(False)(f"reads {EVIL}\tand \udcff")
    assert "\\x1b" in (err := capsys.readouterr().err) and "\\udcff" in err and not has_control_characters(err)


def test_titles_of_progress_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    with bar(f"evaluating [red]{EVIL}", "rows") as advance:
        advance(1, 1)
    err = capsys.readouterr().err
    assert "evaluating [red]a\\x1b" in err and not has_control_characters(err)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_predictions_are_escaped_on_a_terminal_and_raw_in_a_pipe() -> None:
    for stream, raw in ((Terminal(), False), (StringIO(), True)):
        with redirect_stdout(stream):
            write_predictions(None, [{"index": 0, "label": EVIL.replace("\r", "")}])
        assert has_control_characters(stream.getvalue()) is raw


NOISE = """
import logging, sys, warnings
print("a tracker")
warnings.warn("a library")
logging.getLogger("railkd.somewhere").warning("railkd itself")
logging.getLogger("elsewhere").warning("another library")
import transformers
transformers.logging.get_logger("transformers.models").warning("transformers itself")
"""
QUIETLY = """
import sys
from railkd.cli.verb import messages_only, print_results
before = sys.argv[3] == "imported"
if before:
    import transformers
with messages_only(sys.argv[2] == "quiet"):
    exec(sys.argv[1])
print_results("a result")
exec(sys.argv[1])
"""


@pytest.mark.parametrize("imported", ["imported", "not imported"])
def test_stdout_is_for_results_and_quiet_leaves_railkd_s_own_warnings(imported: str) -> None:
    said = {}
    for how in ("quiet", "loud"):
        command = [sys.executable, "-c", QUIETLY, NOISE, how, imported]
        done = subprocess.run(command, capture_output=True, text=True, env=ENV, timeout=120, check=True)
        # Inside the block nothing but results reaches stdout; after it everything is as before.
        assert done.stdout == "a result\na tracker\n"
        said[how] = done.stderr
    lines = ("a tracker", "a library", "railkd itself", "another library", "transformers itself")
    counts = {how: [text.count(line) for line in lines] for how, text in said.items()}
    assert counts["loud"][:1] + counts["loud"][2:] == [1, 2, 2, 2]
    assert counts["quiet"][0] == 0 and counts["quiet"][2:4] == [2, 1]
    assert counts["quiet"][4] == (1 if imported == "imported" else 0)


def test_an_alias_bomb_in_a_config_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)), "test: *a11"]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    assert main(["evaluate", "--config", str(tmp_path / "bomb.yaml")]) == 2
    assert "after aliases are replaced" in capsys.readouterr().err
