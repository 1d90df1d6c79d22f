"""Files that are too large, damaged, or of another encoding: refused in words, and soon."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from railkd.data.delimited import MOST_COLUMNS
from railkd.data.sources import load_rows
from railkd.errors import RailkdError

SOON = 20.0  # Seconds; each takes one or two on an idle machine.


@pytest.mark.parametrize("suffix", [".csv.gz", ".tsv.gz", ".jsonl.gz"])
@pytest.mark.parametrize("line", [b"good film,pos\n", b"\0" * 16])
def test_a_bomb_is_refused_before_it_fills_the_memory(suffix: str, line: bytes, tmp_path: Path) -> None:
    file, part = tmp_path / f"bomb{suffix}", line * (1 << 16)
    with gzip.open(file, "wb", compresslevel=9) as target:
        for _ in range((130 << 20) // len(part)):
            target.write(part)
    start = time.monotonic()
    with pytest.raises(RailkdError, match=r"bomb.*(unpack to more than 200 times their size|zero bytes)"):
        load_rows(str(file))
    assert time.monotonic() - start < SOON


def test_rows_that_compress_well_are_no_bomb(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.csv.gz", "wb", compresslevel=9) as target:
        target.write(b"text,label\n" + b"good film,pos\n" * 200_000)
    assert len(load_rows(str(tmp_path / "a.csv.gz"))) == 200_000


def test_a_sparse_file_is_refused_at_once(tmp_path: Path) -> None:
    for name, head in (("a.csv", "text,label\na,b\n"), ("b.jsonl", '{"text": "a"}\n')):
        with (tmp_path / name).open("wb") as file:
            file.write(head.encode())
            file.truncate(3 << 30)
        start = time.monotonic()
        with pytest.raises(RailkdError, match=rf"{name}: .*(zero bytes|3\.2 GB on disk .* do not fit in memory)"):
            load_rows(str(tmp_path / name))
        assert time.monotonic() - start < SOON


LIMITED = """
import resource, sys
import pyarrow, railkd.data.sources
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), resource.getrlimit(resource.RLIMIT_AS)[1]))
try:
    railkd.data.formats.read_table(railkd.data.sources.Path(sys.argv[1]))
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to RLIMIT_AS")
@pytest.mark.parametrize("megabytes", [25, 300])
def test_too_little_memory_is_told_with_file_and_size(megabytes: int, tmp_path: Path) -> None:
    """25 MB of short rows pass the bound and become too many objects; 300 MB do not pass it.

    The return inside of the first cell leaves the file to the strict reader.
    """
    file = tmp_path / "rows.csv"
    with file.open("wb") as target:
        target.write(b'a,b\n"x\rz",y\n')
        for _ in range(megabytes):
            target.write(b"x,y\n" * 250_000)
    words = [sys.executable, "-c", LIMITED, str(file), str(700_000_000)]
    run = subprocess.run(words, capture_output=True, text=True)
    assert f"rows.csv: {megabytes}" in run.stdout and "do not fit in memory" in run.stdout, run.stderr[-3000:]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("count", [MOST_COLUMNS + 1, 1_000_000])
def test_too_many_columns_are_refused_soon(suffix: str, count: int, tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(count)]
    if suffix == ".jsonl":
        text = json.dumps(dict.fromkeys(names, "x")) + "\n"
    else:
        mark = "," if suffix == ".csv" else "\t"
        text = mark.join(names) + "\n" + (mark.join("x" * count) + "\n") * 3
    (tmp_path / f"wide{suffix}").write_text(text)
    start = time.monotonic()
    with pytest.raises(RailkdError, match=rf"has {count:,} columns. Expected at most 10,000"):
        load_rows(str(tmp_path / f"wide{suffix}"))
    assert time.monotonic() - start < SOON


def test_keys_that_differ_in_every_object_are_too_many_columns(tmp_path: Path) -> None:
    lines = (json.dumps({f"id{number}": 1, "text": "a"}) for number in range(60_000))
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(RailkdError, match="columns. Expected at most"):
        load_rows(str(tmp_path / "a.jsonl"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to RLIMIT_AS")
def test_a_parquet_file_of_few_bytes_and_many_rows_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = pa.table({"text": pa.DictionaryArray.from_arrays(pa.array([0] * (1 << 20), pa.int8()), pa.array(["a"]))})
    with pq.ParquetWriter(tmp_path / "a.parquet", part.schema) as writer:
        for _ in range(240):
            writer.write_table(part)
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 20
    words = [sys.executable, "-c", LIMITED, str(tmp_path / "a.parquet"), str(700_000_000)]
    run = subprocess.run(words, capture_output=True, text=True)
    assert "a content of 252 MB or more do not fit in memory (at most 233 MB do)" in run.stdout, run.stderr[-3000:]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv.gz", "a.jsonl"])
def test_utf_16_and_32_are_called_by_their_name(encoding: str, name: str, tmp_path: Path) -> None:
    data = '{"text": "a good film, naïve", "label": "pos"}\n'.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(RailkdError) as error:
        load_rows(str(tmp_path / name))
    known = encoding[:6].upper()
    assert f"got {known}. Fix: iconv -f {known} -t UTF-8" in str(error.value) and "latin1" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "row"),
    [
        ([{"text": "a"}, {"text": "b \ud83d"}], 2),
        ([{"text": "a", "label": ["x", "\udfff"]}], 1),
        ([{"text": "a"}] * 4 + [{"text": {"en": "\ud800"}}], 5),
    ],
)
def test_half_of_a_surrogate_pair_is_told_with_its_row(rows: list[dict[str, object]], row: int, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(cells) + "\n" for cells in rows))
    with pytest.raises(RailkdError, match=rf"holds half of a surrogate pair in row {row} "):
        load_rows(str(tmp_path / "a.jsonl"))
    (tmp_path / "b.jsonl").write_text('{"text": "\\ud83d\\ude00"}\n')
    assert load_rows(str(tmp_path / "b.jsonl"))["text"][0] == "\U0001f600"
    (tmp_path / "c.jsonl").write_text('{"te\\ud800": "a"}\n')
    with pytest.raises(RailkdError, match="column .* holds half of a surrogate pair"):
        load_rows(str(tmp_path / "c.jsonl"))
