"""Rows from standard input and from addresses are those of the file, and are fetched once."""

from __future__ import annotations

import functools
import gzip
import http.server
import io
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from railkd.cli import main
from railkd.data.sources import Source, load_rows
from railkd.data.spooled import fetched
from railkd.data.streams import open_rows
from railkd.errors import RailkdError
from tiny import write_files

LATE = '{"text": "a", "label": "1"}\n{"text": \n'
TSV = "text\tlabel\na, b\t01\nNA\t2\n"
ROWS = {"text": ["a, b", "NA"], "label": ["01", "2"]}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    fetched.cache_clear()
    yield
    fetched.cache_clear()


def send(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    fetched.cache_clear()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def parquet_bytes() -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.table(ROWS), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        TSV.encode(),
        b'\xef\xbb\xbftext,label\n"a, b",01\nNA,2\n',
        b'{"text": "a, b", "label": "01"}\n{"text": "NA", "label": "2"}\n',
        b'[{"text": "a, b", "label": "01"}, {"text": "NA", "label": "2"}]',
        parquet_bytes(),
    ],
    ids=["tsv", "csv", "jsonl", "json", "parquet"],
)
def test_the_standard_input_is_read_once_whatever_its_format(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    send(monkeypatch, data)
    source = Source.parse("-")
    source.check()
    assert source.name == "stdin" and source.text == "-"
    assert source.rows().to_dict() == ROWS == source.rows().to_dict()
    assert [row["label"] for row in open_rows(source, "test").open()] == ROWS["label"]
    assert load_rows("-[1:]")["text"][:] == ["NA"]


def test_a_standard_input_without_rows_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for data, message in (
        (b"", "got an empty file"),
        (b"text\n", "at least one row"),
        (b"\x1f\x8b\x08", "^-: .* not UTF-8"),
    ):
        send(monkeypatch, data)
        for text in ("-", "-[:1]"):
            with pytest.raises(RailkdError, match=message):
                load_rows(text)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RailkdError, match="-: expected a file, because 2 processes cannot share"):
        Source.parse("-").check()
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(RailkdError, match="expected rows on the standard input, got a terminal"):
        Source.parse("-").check()


def test_a_grid_has_no_standard_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "name: g\nteacher: none/none\nstudents: [2]\nmethods: [kd]\ntasks: {x: {train: '-', test: [a=-]}}\n"
    folder = write_files(tmp_path, {"g.yaml": text})
    assert main(["bench", str(folder / "g.yaml"), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert all(f"tasks.x.{key}: expected a file, got - (the standard input" in said for key in ("train", "test"))


class _Counting(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:
        type(self).asked.append(self.path)

    def send_header(self, keyword: str, value: str) -> None:
        longer = keyword == "Content-Length" and self.path.startswith("/cut")
        super().send_header(keyword, str(int(value) + 7) if longer else value)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    folder = write_files(
        tmp_path / "web",
        {
            "rows.tsv": TSV,
            "bad.csv": "text,text\na,b\n",
            "notes.md": "#",
            "late.jsonl": LATE,
            "cut.tsv": TSV,
            "rows": TSV,
        },
    )
    (folder / "rows.tsv.gz").write_bytes(gzip.compress(TSV.encode()))
    _Counting.asked = []
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Counting, directory=str(folder))
    ) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", _Counting.asked
        server.shutdown()
        thread.join()


def test_an_address_is_fetched_once(web: tuple[str, list[str]]) -> None:
    address, asked = web
    for name in ("rows.tsv", "rows.tsv.gz", "rows.tsv?version=2#x", "rows"):
        source = Source.parse_named(f"web={address}/{name}")
        assert source.name == "web" and Source.parse(source.text).name == "rows"
        assert source.rows().to_dict() == ROWS
        assert load_rows(f"{address}/{name}[-1:]")["label"][:] == ["2"]
    assert len(asked) == 4
    for name, message in (
        ("none.tsv", "none.tsv: cannot be fetched .*404"),
        ("bad.csv", "^http://[0-9.:]+/bad.csv: .*column 'text' occurs more than once"),
        ("notes.md", "^http://[0-9.:]+/notes.md: unknown file format"),
        ("late.jsonl", "^http://[0-9.:]+/late.jsonl: line 2 is not JSON"),
        ("cut.tsv", "cut.tsv: cannot be fetched .*ended 7 bytes before the end of the file"),
    ):
        for read in (load_rows, lambda text: list(open_rows(Source.parse(text), "test").open())):
            with pytest.raises(RailkdError, match=message):
                read(f"{address}/{name}")


def test_protocols_of_fsspec_and_their_patterns(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for number in range(2):
        memory.pipe(f"/railkd/part-{number}.tsv", f"text\nrow {number}\n".encode())
    assert load_rows("memory://railkd/part-1.tsv")["text"][:] == ["row 1"]
    assert load_rows("memory://railkd/part-*.tsv")["text"][:] == ["row 0", "row 1"]
    for address, message in (
        ("memory://railkd/none.tsv", "cannot be fetched"),
        ("memory://railkd/none-*.tsv", "nothing matches the pattern"),
        ("nowhere://a/b.csv", "nowhere://a/b.csv: cannot be fetched .*nowhere"),
        ("s3://bucket/rows.csv", "cannot be fetched .*Fix: (pip install s3fs|check)"),
    ):
        with pytest.raises(RailkdError, match=message):
            load_rows(address)
