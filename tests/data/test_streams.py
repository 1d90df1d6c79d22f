"""A file that is read row by row gives the rows and the errors of one that is read whole, in bounded memory."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from railkd.data import streams
from railkd.data.delimited_writer import csv_lines, format_tsv
from railkd.data.formats import read_table
from railkd.data.predictions import write_predictions
from railkd.data.reading import Reading
from railkd.data.sources import Source, load_rows
from railkd.data.streams import Row, RowStream, open_rows, read_stream
from railkd.errors import RailkdError
from railkd.jobs.predict import AnswerForm, answer_rows
from railkd.tasks import TASKS

CELLS = st.text(st.sampled_from('ab "\t\n,\r|ü\u2028'), max_size=6)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4), form=st.sampled_from([".tsv", ".csv", ".jsonl"]))
def test_a_stream_has_the_rows_of_the_table(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], form: str
) -> None:
    table = [{"text": "x" + a, "more": b} for a, b in rows]
    lines = {".tsv": [format_tsv(table)], ".csv": csv_lines(table), ".jsonl": (json.dumps(row) + "\n" for row in table)}
    path = tmp_path_factory.mktemp("stream") / f"rows{form}"
    path.write_bytes("".join(lines[form]).encode())
    found = open_rows(Source.parse(str(path)), "test")
    whole, note = read_table(path)
    assert list(map(dict, found.open())) == whole.to_pylist() == list(map(dict, found.open()))
    assert list(found.names) == whole.column_names and found.note == note


RAW = {
    "quotes of several lines.tsv": 'a\tb\n"x\ty"\tz\n',
    "quotes in words.tsv": 'text\tn\nso "good\t1\n"x" y\t2\n',
    "quoted names.tsv": '"text"\t"n"\n"a"\t1\n\n',
    "one column.tsv": "text\na\n\nb\n",
    "lines.csv": 'text,n\r\n"a\r\nb",1\r\n\r\n',
    "old lines.csv": "text,n\ra,1\rb,2\r",
    "keys.jsonl": '{"text": "a"}\n\n{"text": "b", "n": [1]}\n',
    "CoLA/dev.tsv": 'x\t1\t\tsome "text\ny\t0\t*\tmore\n',
}


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("packed", [False, True])
def test_files_of_each_form_are_read_alike(tmp_path: Path, name: str, packed: bool) -> None:
    path = tmp_path / (name + ".gz" * packed)
    path.parent.mkdir(exist_ok=True)
    data = b"\xef\xbb\xbf" + RAW[name].encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    found, whole = open_rows(Source.parse(str(path)), "test"), read_table(path)[0]
    assert [{n: row.get(n) for n in found.names} for row in found.open()] == whole.to_pylist() != []


BROKEN = {
    "cells.tsv": b"text\tn\na\t1\nb\n",
    "inner blank.tsv": b"text\tn\na\t1\n\nb\t2\n",
    "no row.tsv": b"text\tn\n",
    "blank.csv": b"\n \n",
    "quote.csv": b'text,n\n"a,1\n',
    "twice.csv": b"text,text\na,b\n",
    "both.tsv": b'text\tlabel\n"a\tx\nb"\ty\n',
    "latin.tsv": b"text\n" + b"ab\n" * 3 + b"caf\xe9\n",
    "cut letter.tsv": b"text\na\xc3",
    "utf16.tsv": "text\na\n".encode("utf-16"),
    "zeros.tsv": b"text\na" + bytes(2000),
    "object.jsonl": b'{"text": "a"}\n[1]\n',
    "cut.jsonl": b'{"text": "a\n',
    "empty.jsonl": b"{}\n",
    "cut.tsv.gz": gzip.compress(b"text\n" + bytes(range(97, 123)) * 99)[:-9],
    "cut.parquet": b"PAR1",
    "table.xlsx": b"",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_stream_refuses_what_a_table_refuses_in_the_same_words(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BROKEN[name])
    said = []
    for read in (lambda: read_table(path), lambda: read_stream(Source.parse(str(path)), Reading(), split="test")):
        with pytest.raises(RailkdError) as error:
            read()
        said.append(str(error.value))
    assert said[0] == said[1]


def test_rows_without_a_text_are_refused_before_the_first_answer(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for line, message in (('{"text": null}', "row 2: expected text in column 'text', got None"), ('{"n": 1}', "row 2")):
        path.write_text('{"text": "a"}\n' + line + "\n")
        with pytest.raises(RailkdError, match=message):
            read_stream(Source.parse(str(path)), Reading(), split="test")
    path.write_text('{"text": "a", "note": "\\ud800"}\n')
    with pytest.raises(RailkdError, match="row 1 holds half of a surrogate pair"):
        read_stream(Source.parse(str(path)), Reading(), split="test")


def test_parquet_and_arrow_folders_are_read_in_slices(tmp_path: Path) -> None:
    table = {"text": [f"t{i}" for i in range(2500)], "n": list(range(2500))}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    Dataset.from_dict(table).save_to_disk(str(tmp_path / "arrow"))
    for name in ("a.parquet", "arrow"):
        found = read_stream(Source.parse(str(tmp_path / name)), Reading(), split="test")
        assert [row["n"] for block in found.blocks(999) for row in block] == table["n"] and found.count == 2500
        assert 500 <= len(found.sample["text"]) <= 1000 and found.sample["text"][-1] >= "t2"
        assert found.sample["text"] == sorted(found.sample["text"], key=lambda text: int(text[1:]))


def test_rows_are_read_one_block_ahead_of_the_answers(tmp_path: Path) -> None:
    read = 0

    def rows() -> Iterator[Row]:
        nonlocal read
        for i in range(5000):
            read += 1
            yield {"text": f"row {i}"}

    given = read_stream(Source.parse(str(written(tmp_path / "a.tsv", 1))), Reading(), split="test")
    counted = streams.TextStream(given.source, RowStream(("text",), rows), given.columns, 5000, {}, False, ())
    form = AnswerForm(TASKS["single_label_classification"], ["neg", "pos"])
    done = []
    for number, row in enumerate(
        answer_rows(counted, lambda texts, advance: np.zeros((len(texts), 2)), form, lambda n, of: done.append(n), 64)
    ):
        assert row["index"] == number and row["text"] == f"row {number}" and read <= number + 64
    assert number == 4999


def written(path: Path, rows: int) -> Path:
    with path.open("w") as file:
        file.write("id\ttext\n")
        file.writelines(f"{i}\tthe film number {i} is good\n" for i in range(rows))
    return path


def test_ten_times_the_rows_take_no_more_memory(tmp_path: Path) -> None:
    """From 500 to 5,000 rows the peak grows by less than 300 kB; the rows themselves would be 7 MB of objects."""
    form, peaks = AnswerForm(TASKS["single_label_classification"], ["neg", "pos"], probabilities=True), []
    chance = np.random.default_rng(0).standard_normal((256, 2)).astype(np.float32)
    for rows in (500, 5000):
        source = Source.parse(str(written(tmp_path / f"{rows}.tsv", rows)))
        tracemalloc.start()
        found = read_stream(source, Reading(), split="test")
        answers = answer_rows(found, lambda texts, advance: chance[: len(texts)], form, lambda n, of: None, 256)
        write_predictions(str(tmp_path / "answers.tsv"), answers, quoted=found.quoted)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        answered = load_rows(str(tmp_path / "answers.tsv"))
        assert answered["id"][:] == [str(i) for i in range(rows)] == answered["index"][:]
    assert peaks[1] - peaks[0] < 300_000, peaks
