"""What pyarrow reads is what the strict readers read, cell by cell, and what they refuse is refused."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from railkd.data.delimited import in_bytes, parse_csv, parse_tsv, separator
from railkd.data.formats import read_table
from railkd.data.quick import quick_csv, quick_json, quick_tsv
from railkd.data.reader import read
from railkd.data.reading import Reading
from railkd.data.sources import Source
from railkd.data.streams import open_rows
from railkd.errors import RailkdError
from tiny import write_files

F = Path("f.jsonl")
HOSTILE = ["", "1", "1.0", "01", "NA", "null", "NaN", "true", "2020-01-01", " a ", '"', '""', "a,b", "a;b", "x\ty"]
MARKS = st.text(st.sampled_from('a"\n,;\t\r\0\ufeff'), max_size=4)
CELL = st.sampled_from([*HOSTILE, "a\nb", "\r\n", "\u2028", "ü"]) | MARKS
PIECES = ['"', '""', "\n", "\r\n", "\r", ",", ";", "a", "é", "\0"]
RAW = st.lists(st.sampled_from(PIECES), max_size=16).map("".join)


def strict(data: bytes, mark: str, *, plain: bool = False) -> Any:
    text = data.decode("utf-8-sig")
    try:
        found = parse_tsv(F, text, plain=plain) if mark == "\t" else parse_csv(F, text, mark)
    except RailkdError:
        return None
    return pa.table({name: pa.array(cells) for name, cells in found.columns.items()})


def same(quick: Any, strictly: Any) -> None:
    if quick is not None:
        assert strictly is not None and quick.schema.equals(strictly.schema)
        assert quick.to_pylist() == strictly.to_pylist()


@settings(deadline=None)
@given(st.lists(st.lists(CELL, min_size=2, max_size=2), min_size=2, max_size=4), st.sampled_from(",;"), st.booleans())
def test_every_csv_that_a_writer_writes_is_read_quickly_and_equally(
    rows: list[list[str]], mark: str, bom: bool
) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=mark, lineterminator="\n")
    writer.writerows([["a", "b"], *rows])
    data = b"\xef\xbb\xbf" * bom + buffer.getvalue().encode()
    found = quick_csv(data, mark)
    same(found, strict(data, mark))
    assert found is not None or ["", ""] in rows or any("\r" in cell for row in rows for cell in row)


@settings(deadline=None, max_examples=120)
@given(RAW, st.sampled_from(",;"))
@example('a,b\n"x"y,1\n', ",")
@example('a,b\n"x,"y",1\n', ",")
@example('a,b\nx"y,""z"\n', ",")
@example('a,b\n""x,1\n', ",")
@example('"a\nb",c\n1,2\n', ",")
@example("a,b\n1,2\n\n", ",")
@example("a\n\n\nb\n", ",")
@example("a,b\n1,2\n", ",")
def test_no_text_is_read_otherwise_than_by_the_strict_reader(text: str, mark: str) -> None:
    for head in ("", "a\n", f"a{mark}b\n", "\ufeff\ufeff"):
        data = (head + text).encode()
        same(quick_csv(data, mark), strict(data, mark))
        tsv = data.replace(mark.encode(), b"\t")
        for plain in (True, False):
            same(quick_tsv(tsv, plain=plain), strict(tsv, "\t", plain=plain))


NUMBERS = [True, 0, -0.0, 1e300, 1e16, 2**53 + 1, 2**63, -(2**63)]
VALUE = st.one_of(
    st.sampled_from([None, *NUMBERS, "2020-01-01", "1", "\ud800", "é\0", {"a": 1}]),
    st.integers(-9, 9),
    st.floats(-9, 9),
    st.text(max_size=2),
    st.lists(st.integers(0, 2) | st.text(max_size=1), max_size=2),
)
LINE = st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUE, min_size=1).map(json.dumps)
WILD = st.sampled_from(
    [
        *("", " ", "{}", '{"a": 1} {"a": 2}', '{"a":', "2}", "[1]", "null", '{"a": NaN}', '{"a": 1, "a": 2}'),
        *('{"a": 01}', '{"a": "\t"}', '{"a": 1e999}', '{"a": [[1]]}', '{"a": ' + "[" * 200 + "]" * 200 + "}"),
        *('{"a": 1},', '\ufeff{"a": 1}', '{"a": 1}{"a": "x"}', '{"a":\n1}'),
    ]
)


def strict_json(text: str, folder: Path) -> Any:
    path = folder / "rows.jsonl"
    path.write_bytes(text.encode())
    try:
        return read_table(path)[0]
    except RailkdError:
        return None


@settings(deadline=None, max_examples=40)
@given(st.lists(LINE | WILD, min_size=2, max_size=5), st.sampled_from(["\n", "\r\n"]), st.data())
def test_no_json_lines_are_read_otherwise_than_by_the_strict_reader(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str, data: Any
) -> None:
    folder = tmp_path_factory.getbasetemp()
    sample = strict_json("".join(line + end for line in lines[:1]), folder)
    if sample is not None:
        text = "".join(line + end for line in lines)
        same(quick_json(text.encode(), sample.schema), strict_json(text, folder))


def test_large_files_are_read_quickly_with_all_their_types(tmp_path: Path) -> None:
    rows = [{"text": f"{n}, ü", "day": "2020-01-01", "n": n, "x": n / 4, "tags": ["a"] * (n % 2)} for n in range(1500)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = (tmp_path / "a.jsonl").read_bytes()
    table = read_table(tmp_path / "a.jsonl")[0]
    assert table.to_pylist() == rows and quick_json(data, table.schema).equals(table)
    (tmp_path / "a.jsonl").write_bytes(data + b'{"text": "b", "n": "many"}\n')
    with pytest.raises(RailkdError, match="column 'n' does not fit one type .*str in row 1501"):
        read_table(tmp_path / "a.jsonl")
    for last in (b'{"text": "caf\xe9", "n": 1}\n', b'{"text": "b", "tags": ["\xe9"]}\n'):
        (tmp_path / "a.jsonl").write_bytes(data + last)
        with pytest.raises(RailkdError, match=r"byte 0xe9 at offset \d+ \(line 1501\) is not UTF-8"):
            read_table(tmp_path / "a.jsonl")


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_csv_with_another_mark_says_so(mark: str, tmp_path: Path) -> None:
    text = f'"text, long"{mark}label\ngood, really{mark}1\n"a{mark}b"{mark}2\n'
    folder = write_files(tmp_path, {"a.csv": text, "one.csv": "text\nso; so\n", "two.csv": "a;b\nso so\n"})
    source = Source.parse(str(folder / "a.csv"))
    table = read(source, Reading(text=("text, long",)), split="train")
    word = {";": "semicolons", "\t": "tabs"}[mark]
    assert table.rows["text"][:] == ["good, really", f"a{mark}b"] and table.notes == (
        f"{source.text}: its cells are separated by {word}",
    )
    stream = open_rows(source, "train")
    assert [row["label"] for row in stream.open()] == ["1", "2"] and word in stream.note
    for name, rows in (("one.csv", {"text": ["so; so"]}), ("two.csv", {"a;b": ["so so"]})):
        assert read_table(folder / name)[0].to_pydict() == rows


def test_the_mark_is_a_comma_unless_header_and_first_row_agree_on_another() -> None:
    for text, wanted in (("a;b\n1;2\n", ";"), ("a,b;c\n1;2\n", ","), ("a;b\n1,5;2\n", ";"), ("a;b\n", ","), ("", ",")):
        assert separator(in_bytes(text.encode())) == wanted, text
