"""Compressed files, Arrow files, folders of parts and slices: the same rows as in one plain file."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet

from railkd.data.formats import stem_of
from railkd.data.keys import drawn
from railkd.data.packed import PACKINGS
from railkd.data.slicing import bounds
from railkd.data.sources import Source, load_rows
from railkd.data.streams import open_rows
from railkd.errors import RailkdError

TSV = "text\tlabel\nnaïve \u2028film\t01\nNA\tnull\n"
ROWS = {"text": ["naïve \u2028film", "NA"], "label": ["01", "null"]}


def zipped(data: bytes, *names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, data)
    return buffer.getvalue()


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pa.compress(data, codec="zstd", asbytes=True)),
    ".zip": lambda data: zipped(data, "folder/", "folder/rows.tsv", "__MACOSX/folder/._rows.tsv"),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_compressed_file_has_the_rows_of_the_plain_one(packing: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.tsv{packing}"
    path.write_bytes(PACK[packing](TSV.encode()))
    assert load_rows(str(path)).to_dict() == ROWS
    stream = open_rows(Source.parse(str(path)), "train")
    assert [dict(row) for row in stream.open()] == Dataset.from_dict(ROWS).to_list()
    assert stem_of(path) == "rows" == Source.parse(str(path)).name


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_compressed_file_that_is_cut_or_plain_is_refused(packing: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.tsv{packing}"
    text = ("text\n" + "".join(f"row {n * 7919 % 1009}\n" for n in range(500))).encode()
    for data in (TSV.encode(), PACK[packing](text)[:-30], b""):
        path.write_bytes(data)
        with pytest.raises(RailkdError, match=rf"rows.tsv{packing}: (not a complete {PACKINGS[packing][0]}|.*empty)"):
            load_rows(str(path))


def test_a_bomb_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.csv.zst").write_bytes(PACK[".zst"](b"text\n" + b"good film\n" * (7 << 20)))
    with pytest.raises(RailkdError, match="unpack to more than 200 times their size"):
        load_rows(str(tmp_path / "bomb.csv.zst"))


def test_a_zip_archive_tells_its_format_by_the_file_in_it(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    path.write_bytes(zipped(TSV.encode(), "rows.tsv"))
    assert load_rows(str(path)).to_dict() == ROWS and stem_of(path) == "archive"
    for names, message in (
        (["a.tsv", "b.tsv"], "rows.tsv.zip: expected one file in the archive, got a.tsv and b.tsv"),
        ([], "expected one file in the archive, got none"),
        (["notes.md"], "unknown file format"),
    ):
        path = tmp_path / "rows.tsv.zip"
        path.write_bytes(zipped(TSV.encode(), *names))
        with pytest.raises(RailkdError, match=message):
            load_rows(str(path))
    locked = bytearray(zipped(TSV.encode(), "rows.tsv"))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flags of the file, which say: encrypted
        locked[locked.find(mark) + place] |= 1
    path.write_bytes(locked)
    for data in (b"", zipped(TSV.encode(), "rows.tsv")[:-30]):
        (tmp_path / "archive.zip").write_bytes(data)
        with pytest.raises(RailkdError, match="archive.zip: not a complete zip file"):
            load_rows(str(tmp_path / "archive.zip"))
    with pytest.raises(RailkdError, match="cannot be unpacked .*password"):
        load_rows(str(path))


def test_arrow_files_keep_types_and_categories_become_values(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "label": pa.array(["x", None]).dictionary_encode(), "n": [1, None]})
    feather.write_feather(table, tmp_path / "file.feather", compression="zstd")
    with pa.OSFile(str(tmp_path / "stream.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    parquet.write_table(table, tmp_path / "rows.parquet")
    features = Features({"text": Value("string"), "label": ClassLabel(names=["x", "y"]), "n": Value("int64")})
    Dataset.from_dict({"text": ["a", "b"], "label": [0, None], "n": [1, None]}, features=features).save_to_disk(
        tmp_path / "saved"
    )
    files = ["file.feather", "stream.arrow", "rows.parquet", "saved/data-00000-of-00001.arrow"]
    for name in files:
        source = Source.parse(str(tmp_path / name))
        assert source.rows()["label"][:] == ["x", None] and source.rows()["n"][:] == [1, None], name
        assert [row["text"] for row in open_rows(source, "train").open()] == ["a", "b"]


@pytest.mark.parametrize("data", [b"", b"text\tlabel\n", b"ARROW1\0\0" + bytes(50), "cut", "wild"])
def test_a_damaged_arrow_file_is_refused(data: bytes | str, tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    if isinstance(data, str):
        feather.write_feather(pa.table({"text": ["a" * 99, "b" * 99] * 9}), path, compression="uncompressed")
        whole = bytearray(path.read_bytes())
        at = whole.find((99).to_bytes(4, "little") + (198).to_bytes(4, "little"))
        assert at > 0
        whole[at : at + 4] = (1 << 30).to_bytes(4, "little")  # a text that would begin far behind the file
        data = bytes(whole[:-40] if data == "cut" else whole)
    path.write_bytes(data)
    with pytest.raises(RailkdError, match=r"rows.arrow: (not a complete|expected an) Arrow file"):
        load_rows(str(path))


def parts(folder: Path, split: str, count: int, more: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        table = pa.table({"text": [f"{split} {number} {row}" for row in range(2)]})
        parquet.write_table(table, folder / f"{split}-{number:05d}-of-{count:05d}{more}.parquet")


def test_folders_as_the_hub_lays_them_out(tmp_path: Path) -> None:
    parts(tmp_path / "set" / "data", "train", 3)
    parts(tmp_path / "set" / "data", "validation", 1, "-0123456789abcdef")
    (tmp_path / "set" / "README.md").write_text("---\n")
    parts(tmp_path / "configs" / "big", "train", 2)
    for name in ("0000", "0001"):
        (tmp_path / "inner" / "train").mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.table({"text": [name]}), tmp_path / "inner" / "train" / f"{name}.parquet")
    rows = load_rows(str(tmp_path / "set"))
    assert rows["text"][:] == [f"train {part} {row}" for part in range(3) for row in range(2)]
    assert [row["text"] for row in open_rows(Source.parse(str(tmp_path / "set")), "train").open()] == rows["text"][:]
    assert len(load_rows(str(tmp_path / "set"), split="dev")) == 2
    assert load_rows(f"{tmp_path}/set:validation[-1:]")["text"][:] == ["validation 0 1"]
    assert load_rows(str(tmp_path / "inner"))["text"][:] == ["0000", "0001"]
    with pytest.raises(
        RailkdError, match=r"configs: the folder holds no data files.*Fix: name one of its folders: big"
    ):
        load_rows(str(tmp_path / "configs"))
    (tmp_path / "set" / "data" / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(RailkdError, match=r"expected 3 files of the split 'train', .*Fix: fetch the parts"):
        load_rows(str(tmp_path / "set"))


@given(st.integers(1, 60), st.one_of(st.none(), st.integers(-70, 70)), st.one_of(st.none(), st.integers(-70, 70)))
def test_a_slice_means_what_it_means_in_python(count: int, start: int | None, stop: int | None) -> None:
    text = f"[{'' if start is None else start}:{'' if stop is None else stop}]"
    first, last = bounds(text, count)
    assert list(range(count))[start:stop] == list(range(first, last))


@given(st.integers(1, 999), st.lists(st.integers(0, 100), max_size=4))
def test_percentages_that_meet_leave_out_no_row_and_give_none_twice(count: int, cuts: list[int]) -> None:
    marks = [0, *sorted(cuts), 100]
    found = [bounds(f"[{one}%:{two}%]", count) for one, two in pairwise(marks)]
    assert [row for first, last in found for row in range(first, last)] == list(range(count))


def test_slices_of_every_kind_of_source(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_text("text\n" + "".join(f"{n}\n" for n in range(20)))
    for text, wanted in (
        ("dev.tsv[:3]", [0, 1, 2]),
        ("dev.tsv:[5%:15%]", [1, 2]),
        ("*.tsv[-1:]", [19]),
        (":dev[18:]", [18, 19]),
    ):
        source = Source.parse(f"{tmp_path}{'' if text.startswith(':') else '/'}{text}")
        assert source.rows("dev")["text"][:] == list(map(str, wanted)), text
        assert [row["text"] for row in open_rows(source, "dev").open()] == list(map(str, wanted))
    named = Source.parse_named(f"{tmp_path}/dev.tsv[:3]")
    assert named.name == f"{tmp_path.name}-dev-to-3" and Source.parse(named.text) == named
    cuts = ("[:5]", "[5:]", "[-5:]", "[:-5]", "[5%:]", "[:5%]", "[5:5%]")
    assert len({Source.parse(f"{tmp_path}/dev.tsv{cut}").name for cut in cuts}) == len(cuts)
    hub = Source.parse("org/rows@v1:big:train[:10%]")
    assert (hub.base, hub.config, hub.split, hub.revision, hub.cut) == ("org/rows", "big", "train", "v1", "[:10%]")
    (tmp_path / "a[1:2]").write_text("text\n")
    assert Source.parse(f"{tmp_path}/a[1:2]").cut == ""
    for text, message in (
        ("dev.tsv[20:]", "the slice .20:. holds none of the 20 rows"),
        ("dev.tsv[5:5]", "holds none"),
        ("dev.tsv[:x]", "no such file"),
        ("dev.tsv[1:2:3]", "no such file"),
        ("none.tsv[:5]", "no such file"),
    ):
        with pytest.raises(RailkdError, match=message):
            Source.parse(f"{tmp_path}/{text}").rows()


@settings(max_examples=10, deadline=None)
@given(st.lists(st.text(max_size=2), min_size=1, max_size=12), st.integers(1, 14))
def test_fewer_rows_are_among_more_in_whatever_order_the_file_is(texts: list[str], count: int) -> None:
    rows = Dataset.from_dict({"text": texts, "n": list(range(len(texts)))})
    some, more = drawn(rows, count), drawn(rows, count + 3)
    assert len(some) == min(count, len(texts)) and some["n"][:] == sorted(some["n"][:])
    assert set(some["n"][:]) <= set(more["n"][:])
    turned = drawn(Dataset.from_dict({"text": texts[::-1]}), count)
    assert sorted(turned["text"][:]) == sorted(some["text"][:])
