"""csv and tsv by one set of rules: what is written is read, quoted or not, and every row of a file is a row."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from railkd.data.delimited import QUOTED, parse_csv, parse_tsv
from railkd.data.delimited_writer import format_tsv
from railkd.data.predictions import write_predictions
from railkd.data.reader import read
from railkd.data.reading import Reading
from railkd.data.sources import Source, load_rows
from railkd.errors import RailkdError

F = Path("f")
HOSTILE = [
    'she said ""good"" film',
    '"whole"',
    '"',
    '""',
    "",
    " ",
    'in "the" middle',
    '"open',
    'closed"',
    "tab\there",
    "two\nlines",
    "win\r\ndows",
    "mac\rline",
    "a\nb\tc",
    '\n"\n',
    "\u2028\x85",
    "=1+1",
    "\\N",
]
cells = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=5), names=st.lists(cells, min_size=2, max_size=2)
)
def test_a_tsv_is_read_as_it_was_written(rows: list[tuple[str, ...]], names: list[str]) -> None:
    """Names of classes stand in the header, and they may hold anything too."""
    columns = ["text", *(f"{number}_{name}".replace("\0", "") for number, name in enumerate(names))]
    written = format_tsv([dict(zip(columns, row, strict=True)) for row in rows])
    found = parse_tsv(F, written)
    assert list(found.columns) == columns
    assert list(zip(*found.columns.values(), strict=True)) == rows
    assert bool(found.note) == any(mark in text for text in (*columns, *sum(rows, ())) for mark in '"\t\n\r')


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_tsv_of_other_programs_says_the_same_as_their_csv(quoting: Any, end: str) -> None:
    rows = [(text, str(number)) for number, text in enumerate(HOSTILE) if "\r" not in text and text != "a\nb\tc"]
    texts = {}
    for mark in "\t,":
        buffer = io.StringIO()
        writer = csv.writer(buffer, delimiter=mark, lineterminator=end, quoting=quoting)
        writer.writerows([("text", "label"), *rows])
        texts[mark] = buffer.getvalue()
    tsv = parse_tsv(F, texts["\t"])
    assert tsv.columns == parse_csv(F, texts[","]).columns and tsv.note == QUOTED
    assert list(zip(*tsv.columns.values(), strict=True)) == rows
    frame = pytest.importorskip("pandas").DataFrame(rows, columns=["text", "label"])
    assert parse_tsv(F, frame.to_csv(sep="\t", index=False, quoting=quoting)).columns == tsv.columns


@pytest.mark.parametrize(
    "texts",
    [
        ['"Hello', "x"],
        ['"whole"', "x"],  # a writer that quotes would have doubled these
        ['"a" b', '"c ""d"" e"'],
        ['say ""hi""', "x"],
        ['"one', 'two"x'],
    ],
)
def test_quotes_that_do_not_quote_are_characters(texts: list[str]) -> None:
    found = parse_tsv(F, "text\tlabel\n" + "".join(f"{text}\tx\n" for text in texts))
    assert found.columns["text"] == texts and not found.note


def test_in_a_folder_of_glue_quotes_are_characters(tmp_path: Path) -> None:
    for folder, wanted in (("QQP", '"a ""b"""'), ("ADV_QQP", 'a "b"'), ("mine", 'a "b"')):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "dev.tsv"
        file.write_text('question1\tquestion2\tis_duplicate\n"a ""b"""\tc\t1\n')
        assert load_rows(str(file))["question1"][0] == wanted
        notes = read(Source.parse(str(file)), Reading(), split="dev").notes
        assert [QUOTED in note for note in notes] == [True] * (folder != "QQP")


@pytest.mark.parametrize("text", ['text\tlabel\n"a\tx\nb"\ty\n', 'text\n"Hello,\nshe said."\n'])
def test_lines_that_may_be_one_row_or_several_ask(text: str) -> None:
    with pytest.raises(RailkdError, match="line 2 opens a quote that a later line closes.*Fix: save the file as csv"):
        parse_tsv(F, text)


ONE_COLUMN = [
    ["good", "", "bad", ""],
    ["", "good"],
    ["good", "", ""],
    ["", ""],
    ["good", "   ", "x"],
    ["a, b" if number % 3 else "" for number in range(10)],
]


@pytest.mark.parametrize("texts", ONE_COLUMN)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_line_of_one_column_is_a_row_in_every_format(texts: list[str], end: str, tmp_path: Path) -> None:
    import datasets

    quoted = [f'"{text}"' if "," in text else text for text in texts]
    (tmp_path / "a.tsv").write_bytes(end.join(["text", *texts, ""]).encode())
    (tmp_path / "a.csv").write_bytes(end.join(["text", *quoted, ""]).encode())
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    datasets.Dataset.from_dict({"text": texts}).to_parquet(tmp_path / "a.parquet")
    blank = [row for row, text in enumerate(texts, 1) if not text.strip()]
    for suffix in ("tsv", "csv", "jsonl", "parquet"):
        table = read(Source.parse(str(tmp_path / f"a.{suffix}")), Reading(), split="test", labelled=False)
        assert table.rows["text"][:] == texts, suffix
        assert [f"{len(blank)} row" in note and f"row {blank[0]}" in note for note in table.notes] == [True], suffix


@pytest.mark.parametrize("mark", ["\t", ","])
def test_with_more_columns_only_the_end_may_be_blank(mark: str) -> None:
    parse = parse_tsv if mark == "\t" else parse_csv
    text = f"text{mark}label\na{mark}x\n{mark}\n"
    wanted = {"text": ["a", ""], "label": ["x", ""]}
    for padded in (text, "\n\n" + text, text + "\n\r\n\n", text.rstrip("\n")):
        assert parse(F, padded).columns == wanted
    with pytest.raises(RailkdError, match="f: line 3 has 1 fields, the header has 2"):
        parse(F, f"text{mark}label\na{mark}x\n\nb{mark}y\n")


def test_predictions_of_hostile_classes_are_read_back(tmp_path: Path) -> None:
    names = ['say "x"', "a\tb", "plain"]
    rows = [{"index": i, "label": names[i % 3]} | {f"logit_{name}": 0.5 for name in names} for i in range(5)]
    write_predictions(str(tmp_path / "p.tsv"), rows)
    write_predictions(str(tmp_path / "p.jsonl"), rows)
    tsv, lines = load_rows(str(tmp_path / "p.tsv")), load_rows(str(tmp_path / "p.jsonl"))
    assert tsv.column_names == lines.column_names and tsv["label"][:] == lines["label"][:]
