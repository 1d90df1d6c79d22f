"""Files that match a pattern are read as one file that holds their rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from railkd.cli import main
from railkd.data.reader import Reading, read
from railkd.data.sources import Source
from railkd.errors import RailkdError
from tiny import write_files

TSV = {f"more/part-{number}.tsv": f"id\ttext\tlabel\n{number}\ttext {number}\t{number % 2}\n" for number in (2, 0, 1)}


def test_files_that_match_a_pattern_are_one_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = write_files(
        tmp_path, {**TSV, "more/notes.md": "#", "more/.part-9.tsv": "x", "more/deep/part-3.tsv": "text\nd\n"}
    )
    one = write_files(tmp_path, {"one.tsv": "text\tlabel\ntext 0\t0\ntext 1\t1\ntext 2\t0\n"}) / "one.tsv"
    source = Source.parse(str(folder / "more" / "*.tsv"))
    table, whole = (read(found, Reading(), split="train") for found in (source, Source.parse(str(one))))
    assert source.name == "more" and source.file() is None and table.digest == whole.digest
    deep = Source.parse(str(folder / "more" / "**" / "*.tsv")).rows()
    assert deep.column_names == ["text"] and deep["text"][:] == ["d", "text 0", "text 1", "text 2"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    folder = write_files(tmp_path, {"[a].tsv": "text\nbrackets\n", "a.tsv": "text\nplain\n"})
    assert Source.parse(str(folder / "[a].tsv")).rows()["text"][:] == ["brackets"]
    assert Source.parse(str(folder / "[ab].tsv")).rows()["text"][:] == ["plain"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1", "2.5"),
        ('{"rater": 1, "tool": "x"}', '{"tool": "y", "rater": 2}'),
        ('{"rater": 1}', '{"tool": "y", "rater": 2.5}'),
        ('[{"a": 1, "b": "x"}]', '[{"b": "y", "a": 2}]'),
        ('["x"]', "[]"),
        ("null", '{"rater": 1}'),
    ],
)
def test_what_one_file_may_hold_several_may_in_either_order(first: str, second: str, tmp_path: Path) -> None:
    for name, cells in (("one", (first, second)), ("turned", (second, first))):
        lines = [f'{{"text": "t", "by": {cell}}}\n' for cell in cells]
        folder = write_files(
            tmp_path / name, {"all.jsonl": "".join(lines), "p-0.jsonl": lines[0], "p-1.jsonl": lines[1]}
        )
        several, whole = (Source.parse(str(folder / file)).rows() for file in ("p-*.jsonl", "all.jsonl"))
        assert several["by"][:] == whole["by"][:] and several.features["by"] == whole.features["by"]


def test_text_is_text_whatever_the_width_of_its_offsets(tmp_path: Path) -> None:
    for number, kind in enumerate((pa.string(), pa.large_string(), pa.string())):
        parquet.write_table(pa.table({"text": pa.array([f"t{number}"], kind)}), tmp_path / f"p-{number}.parquet")
    assert Source.parse(str(tmp_path / "*.parquet")).rows()["text"][:] == ["t0", "t1", "t2"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"a.tsv": "text\tlabel\nx\t1\n", "b.jsonl": '{"text": "y", "label": 1}\n'},
            r"'label' holds string in \S+a.tsv; int64",
        ),
        (
            {"a.jsonl": '{"text": "x", "by": {"n": 1}}\n', "b.jsonl": '{"text": "y", "by": {"n": "one"}}\n'},
            r"'by' holds struct<n: int64> in \S+a.jsonl; struct<n: string> in \S+b.jsonl. Fix: write it alike",
        ),
        ({"a.tsv": "text\nx\n", "b.tsv": "sentence\ny\n"}, "expected equal names of columns in all files, got none"),
        ({"a.tsv": "text\nx\n", "b.tsv": "text\n"}, "b.tsv: expected at least one row below the header"),
        ({"a.txt": "x"}, "no such file"),
    ],
)
def test_files_that_do_not_fit_each_other_are_refused(files: dict[str, str], message: str, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "set", files)
    with pytest.raises(RailkdError, match=message):
        Source.parse(str(folder / "*")).rows()


def test_an_output_that_a_pattern_matches_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_files(tmp_path, TSV)
    command = ["evaluate", "--model", "none/none", "--test", str(folder / "more" / "*.tsv")]
    assert main([*command, "--output", str(folder / "more" / "part-1.tsv")]) == 2
    assert "is read by --test" in capsys.readouterr().err
