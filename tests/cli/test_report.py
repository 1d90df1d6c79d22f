"""``railkd report`` writes the requested files, and refuses unreadable input with a message."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from railkd.cli import main
from railkd.cli.report import VERB
from railkd.cli.words import parse
from railkd.records import RunRecord, write_lines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "bench"
    made.mkdir()
    scores = {("kd", 1): 0.5, ("kd", 2): 0.52, ("rail-kd-l", 1): 0.6, ("rail-kd-l", 2): 0.61}
    write_lines(
        made / "records.jsonl",
        [
            RunRecord("distill", arm, seed, task="a|b", arm=arm, student="small", metrics={"test": {"accuracy": score}})
            for (arm, seed), score in scores.items()
        ],
    )
    return made


def test_the_table_goes_to_standard_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "rail-kd-l" in out and "60.5 ± 0.7" in out and "[" not in out.splitlines()[0]


def test_a_record_of_a_wrong_type_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (folder / "records.jsonl").read_text().splitlines()
    lines[1] = lines[1].replace('"seed": 2', '"seed": [2]')
    (folder / "records.jsonl").write_text("\n".join(lines))
    assert main(["report", str(folder)]) == 2
    said = capsys.readouterr().err
    assert f"{folder / 'records.jsonl'}, line 2: is not a run record (seed: input should be a valid integer" in said


def test_every_view_is_written(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = {kind: tmp_path / f"report.{kind}" for kind in ("html", "markdown", "csv")}
    assert main(["report", str(folder), *(f"--{kind}={path}" for kind, path in targets.items())]) == 0
    output = capsys.readouterr()
    assert output.out == "" and [f"written: {path}" for path in targets.values()] == output.err.splitlines()
    assert "60.5 ± 0.7" in targets["markdown"].read_text() and "a\\|b" in targets["markdown"].read_text()
    assert "60.5" in targets["html"].read_text()
    rows = list(csv.DictReader(targets["csv"].read_text().splitlines()))
    assert [float(row["mean"]) for row in rows] == pytest.approx([51.0, 60.5])
    assert rows[0]["difference"] == "" and float(rows[1]["difference"]) == pytest.approx(9.5)


def test_several_folders_make_one_report(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    record = RunRecord("distill", "kd", 1, task="c", arm="kd", student="small", metrics={"test": {"accuracy": 0.4}})
    write_lines(other / "records.jsonl", [record])
    assert parse(VERB, ["a", "b", "--csv", "c"]).request.options.folders == ["a", "b"]
    assert main(["report", str(folder), str(other)]) == 0
    assert "40.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Expected the output folder of railkd bench or a folder with run folders"),
        (["nowhere"], "no folder 'nowhere'"),
        ([".", "--html", "."], "--html: expected the name of a file, but '.' is a folder"),
        ([".", "--csv", "no/such/report.csv"], "--csv: 'no/such/report.csv' cannot be written: no folder 'no/such'"),
        (["."], "'.' contains neither records.jsonl nor a run folder"),
        ([".", "--htm", "x"], "unknown setting 'htm'"),
    ],
)
def test_bad_input_is_refused_with_a_message(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) == 2
    assert message in capsys.readouterr().err
