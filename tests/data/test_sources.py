"""Rows are read as they are written, and a problem with a file is reported in one or two lines."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from railkd.data.sources import Source, load_rows, parse_named
from railkd.data.streams import open_rows
from railkd.errors import RailkdError

Shared = Callable[..., Path]
ROWS = [("a, b", "x"), ('say "hi"', "y"), ("naïve 日本\u2028\x85", "01")]


def write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def spelled(suffix: str) -> str:
    """Return ROWS in one of the text formats."""
    if suffix == ".tsv":
        return "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in ROWS)
    if suffix == ".csv":
        quoted = (f'"{text.replace(chr(34), chr(34) * 2)}",{label}\n' for text, label in ROWS)
        return "text,label\n" + "".join(quoted)
    return "".join(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in ROWS)


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".json"])
@pytest.mark.parametrize("zipped", ["", ".gz"])
@pytest.mark.parametrize("change", ["plain", "bom", "crlf"])
def test_one_table_in_every_format_gives_the_same_rows(suffix: str, zipped: str, change: str, tmp_path: Path) -> None:
    text = spelled(suffix)
    data = {"plain": text, "bom": "\ufeff" + text, "crlf": text.replace("\n", "\r\n")}[change]
    rows = load_rows(str(write(tmp_path / f"rows{suffix}{zipped}", data)))
    assert rows.column_names == ["text", "label"]
    assert list(zip(rows["text"], rows["label"], strict=True)) == ROWS


def test_parquet_and_arrow_folders_keep_types_and_give_class_labels_by_name(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {
            "label": datasets.ClassLabel(names=["neg", "pos"]),
            "text": datasets.Value("string"),
            "n": datasets.Value("int8"),
        }
    )
    rows = datasets.Dataset.from_dict({"label": [1, -1, 0], "text": ["a", "b", "c"], "n": [1, 2, 3]}, features=features)
    rows.to_parquet(tmp_path / "lang=en" / "rows.parquet")
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": rows, "validation": rows.select([2])}).save_to_disk(tmp_path / "many")
    for source in ("lang=en/rows.parquet", "one", "many"):
        got = load_rows(str(tmp_path / source))
        assert got["label"][:] == ["pos", None, "neg"] and got["n"][:] == [1, 2, 3]
        assert sorted(got.column_names) == ["label", "n", "text"]
    assert load_rows(str(tmp_path / "many"), split="dev")["label"][:] == ["neg"]
    with pytest.raises(RailkdError, match=r"one:dev: the folder holds one data set without splits"):
        load_rows(str(tmp_path / "one") + ":dev")
    with pytest.raises(RailkdError, match=r"many: no split 'test'. Splits: train, validation"):
        load_rows(str(tmp_path / "many"), split="test")


@pytest.mark.parametrize(
    ("files", "split"),
    [
        (
            "data/train-00000-of-00001.parquet data/test-00000-of-00001.parquet",
            "test",
        ),
        ("data/train-00000-of-00001.parquet data/validation-00000-of-00001.parquet", "dev"),
        ("train/a.parquet validation/a.parquet test/a.parquet", "test"),
        ("train.tsv dev.tsv test.tsv", "test"),
        ("train.tsv dev_matched.tsv test_matched.tsv test_mismatched.tsv", "test"),
        ("train.tsv dev.tsv testing.md", "dev"),
        ("dataset_dict.json train/state.json validation/state.json test/state.json", "test"),
        ("dataset_dict.json train/state.json validation/state.json", "dev"),
    ],
)
def test_a_folder_is_scored_on_its_test_split_however_it_is_laid_out(files: str, split: str, tmp_path: Path) -> None:
    for name in files.split():
        write(tmp_path / name, "x")
    assert Source.parse(str(tmp_path)).scored_split == Source.parse(f"{tmp_path}[:5]").scored_split == split


def test_json_lines_keep_numbers_fill_gaps_and_skip_blank_lines(tmp_path: Path) -> None:
    rows = load_rows(
        str(write(tmp_path / "a.jsonl", '{"text": "a", "score": 1}\n\n{"text": "b", "score": 2.5}\n{"id": 3}'))
    )
    assert rows["score"][:] == [1.0, 2.5, None] and rows["id"][:] == [None, None, 3]


@pytest.mark.parametrize("layout", ["[{}]", '{{"data": [{}], "version": 1}}', "\n[\n {}\n]\n"])
def test_a_json_document_has_the_rows_of_json_lines(layout: str, tmp_path: Path) -> None:
    rows = ['{"text": "a\\u2028b", "label": 1}', '{"text": "c", "more": [1]}']
    lines = tmp_path / "lines.ndjson"
    lines.write_text("\n".join(rows) + "\n")
    document = tmp_path / "document.json"
    document.write_text(layout.format(",\n".join(rows)) if "{{" in layout else layout.replace("{}", ",\n".join(rows)))
    wanted = load_rows(str(lines))
    assert load_rows(str(document)).to_dict() == wanted.to_dict() and len(wanted) == 2
    streams = [open_rows(Source.parse(str(path)), "train") for path in (document, lines)]
    assert streams[0].names == streams[1].names and list(streams[0].open()) == list(streams[1].open())


def test_a_cell_may_be_longer_than_the_default_limit_of_the_csv_module(tmp_path: Path) -> None:
    long = "word " * 60_000
    assert load_rows(str(write(tmp_path / "a.csv", f'text,label\n"{long}",x\n')))["text"][0] == long


SIZES = [
    ("glue/RTE", "train", 2490),
    ("glue/RTE:dev", "train", 277),
    ("glue/WNLI", "dev", 71),
    ("glue/CoLA", "dev", 1043),
    ("glue/CoLA/train.tsv", None, 8551),
    ("glue/STS-B", "test", 1379),
    ("glue/MRPC", "dev", 408),
    ("glue/QQP:dev", None, 2000),
    ("glue/QNLI", "validation", 500),
    ("glue/SST-2", "dev", 872),
    ("ood/HANS", "test", 30_000),
    ("ood/CoLA_OOD", "test", 516),
    ("ood/IMDB_CONTRAST:test", None, 488),
    ("other/TREC", None, 4952),
    ("other/SNLI_CAD", "test", 400),
]


@pytest.mark.parametrize(("source", "split", "rows"), SIZES)
def test_real_folders_have_the_rows_their_readme_counts(
    source: str, split: str, rows: int, shared_data: Shared
) -> None:
    shared_data(*source.partition(":")[0].split("/"))
    assert load_rows(f"{shared_data()}/{source}", split=split).num_rows == rows


TSV = "text\tlabel\n"
BAD_FILES: list[tuple[str, str | bytes, list[str]]] = [
    ("empty.tsv", "", ["expected a header line and rows, got an empty file"]),
    ("empty.csv", "\ufeff\n\n", ["got an empty file"]),
    ("empty.jsonl.gz", "", ["got an empty file"]),
    ("empty.parquet", "", ["expected a parquet file, got an empty file"]),
    ("head.tsv", TSV, ["expected at least one row below the header, got none"]),
    ("head.csv", "text,label\r\n\r\n", ["expected at least one row below the header, got none"]),
    ("latin.tsv", TSV.encode() + b"ok\t1\ncaf\xe9\t0\n", ["byte 0xe9 at offset 19 (line 3)", "not UTF-8", "iconv"]),
    ("bom.csv", b"\xef\xbb\xbfa\n\xff\n", ["byte 0xff at offset 5 (line 2)"]),
    ("utf16.csv", "text,label\na,b\n".encode("utf-16"), ["expected UTF-8, got UTF-16", "iconv -f UTF-16 -t UTF-8"]),
    ("ragged.tsv", TSV + "a\t1\nb\n", ["line 3 has 1 fields, the header has 2"]),
    ("wide.tsv", TSV + "a\t1\textra\n", ["line 2 has 3 fields"]),
    ("gap.tsv", TSV + "a\t1\n\nb\t1\n", ["line 3 has 1 fields"]),
    ("cola/dev.tsv", "gj04\t1\t\tFine.\ngj04\t1\tFine.\n", ["line 2 has 3 fields, the header has 4"]),
    ("ragged.csv", "text,label\na,1\nb,c,1\n", ["line 3 has 3 fields, the header has 2", "double quotes"]),
    ("quote.csv", 'text,label\n"a,1\nb,1\n', ["is not csv", "close every quote"]),
    ("inner.csv", 'text,label\n"a"b,1\n', ["line 2 is not csv"]),
    ("twice.tsv", "text\ttext\na\tb\n", ["column 'text' occurs more than once"]),
    ("twice.csv", "a,b,a\n1,2,3\n", ["column 'a' occurs more than once"]),
    ("broken.jsonl", '{"text": "a"}\n{"text": \n', ["line 2 is not JSON", "one complete object per line"]),
    ("deep.jsonl", "[" * 200_000, ["line 1 is not JSON", "too deep"]),
    ("list.jsonl", '[{"text": "a"}]', ["line 1 is a JSON list", "Expected one object per line"]),
    ("list.json", '[{"text": "a"}, "b"]', ["entry 2 of the list is a JSON str", "Expected objects"]),
    ("cut.json", '[{"text": "a"},', ["line 1 is not JSON"]),
    ("number.json", "1", ["line 1 is a JSON int"]),
    ("number.jsonl", '{"text": "a"}\n\n7\n', ["line 3 is a JSON int", "Expected one object per line"]),
    ("bare.jsonl", "{}\n{}\n", ["its objects are empty"]),
    (
        "mixed.jsonl",
        '{"label": 1}\n{"label": "a"}\n',
        ["column 'label' does not fit one type", "int in row 1, str in row 2", "Fix: use one type"],
    ),
    ("huge.jsonl", '{"label": 123456789012345678901234567890}\n', ["column 'label' does not fit one type"]),
    ("lone.jsonl", '{"text": "\\ud800"}\n', ["column 'text' holds half of a surrogate pair in row 1"]),
    ("text.parquet", TSV, ["not a complete parquet file"]),
    ("notes.txt", "hello", ["unknown file format", ".csv, .tsv, .jsonl, .json, .parquet"]),
    ("rows.parquet.gz", "x", ["unknown file format"]),
    ("rows.tvs", TSV, ["Did you mean '.tsv'?"]),
    ("plain", TSV, ["unknown file format"]),
]


def one_line(error: pytest.ExceptionInfo[RailkdError], parts: list[str]) -> None:
    message = str(error.value)
    assert all(part in message for part in parts), message
    assert message.count("\n") <= 1 and len(message) < 600 and "Traceback" not in message


@pytest.mark.parametrize(("name", "data", "parts"), BAD_FILES, ids=[row[0] for row in BAD_FILES])
def test_a_bad_file_is_refused_with_the_reason(name: str, data: str | bytes, parts: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / name, data)
    with pytest.raises(RailkdError) as error:
        load_rows(str(path))
    one_line(error, [str(path), *parts])


@pytest.mark.parametrize("data", [b"text\tlabel\n", gzip.compress(b"text\tlabel\na\tb\n")[:-12]], ids=["plain", "cut"])
def test_a_gz_file_that_is_not_complete(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tsv.gz").write_bytes(data)
    with pytest.raises(RailkdError, match="not a complete gzip file"):
        load_rows(str(tmp_path / "a.tsv.gz"))


BAD_SOURCES = [
    ("", ["no file is given"]),
    ("  ", ["no file is given"]),
    ("{here}/trian.tsv", ["no such file", "Did you mean 'train.tsv'?"]),
    ("{here}/nowhere/train.tsv", ["no such file", "does not exist"]),
    ("no-such-file.tsv", ["no such file"]),
    ("no-such-file.txt", ["no such file"]),
    ("./no-such-set", ["no such file"]),
    ("../no/such/set", ["no such file"]),
    ("a/b/c", ["no such file"]),
    ("my@file.tsv", ["no such file"]),
    ("a/b:c:d:e", ["no such file"]),
    ("text", ["no such file"]),  # A file format of datasets, which would read the working directory.
    ("x" * 5000, ["no such file"]),
    ("nul\0byte.tsv", ["no such file"]),
    ("{here}/bare", ["the folder holds no data files", "train.tsv"]),
    ("{here}", ["no split 'dev'", "Splits: train"]),
    ("{here}:test", ["no split 'test'", "Splits: train"]),
    ("{here}/train.tsv:dev", ["a file has no splits"]),
    ("{here}/two:train", ["train.csv and train.tsv", "name one of them"]),
    ("{here}/arrow", ["not a complete Arrow folder"]),
    ("{here}/missing:dev", ["no such file"]),
]


@pytest.mark.parametrize(("source", "parts"), BAD_SOURCES, ids=[repr(row[0][:30]) for row in BAD_SOURCES])
def test_a_bad_source_is_refused(source: str, parts: list[str], tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", TSV + "a\tb\n")
    write(tmp_path / "two" / "train.tsv", TSV + "a\tb\n")
    write(tmp_path / "two" / "train.csv", "text,label\na,b\n")
    write(tmp_path / "arrow" / "state.json", "{}")
    (tmp_path / "bare").mkdir()
    with pytest.raises(RailkdError) as error:
        load_rows(source.replace("{here}", str(tmp_path)), split="dev")
    one_line(error, parts)


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    if os.geteuid():
        write(tmp_path / "a.tsv", TSV + "a\tb\n").chmod(0)
        message = "no permission"
    elif Path("/proc/self/mem").exists():
        (tmp_path / "a.tsv").symlink_to(
            "/proc/self/mem"
        )  # root may open every file, but no process can read address 0.
        message = "cannot be read"
    else:
        pytest.skip("root may read every file here")
    with pytest.raises(RailkdError, match=message):
        load_rows(str(tmp_path / "a.tsv"))


def test_a_hub_name_that_does_not_load_is_one_line() -> None:
    code = (
        "from railkd.data.sources import load_rows\n"
        "try: load_rows('railkd-tests/no-such-set:dev')\n"
        "except ValueError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "no data set that loads from the hub" in run.stdout and run.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{here}/a.tsv", ("{here}/a.tsv", None, None, None)),
        ("{here}:dev", ("{here}", None, "dev", None)),
        ("{here}/o:dd", ("{here}/o:dd", None, None, None)),  # An existing path is taken whole.
        ("{here}/o:dd:dev", ("{here}/o:dd", None, "dev", None)),
        ("{here}/at@home.tsv", ("{here}/at@home.tsv", None, None, None)),
        ("{here}/no@where.tsv", ("{here}/no@where.tsv", None, None, None)),
        ("org/rows", ("org/rows", None, None, None)),
        ("org/rows:dev", ("org/rows", None, "dev", None)),
        ("org/rows:big:", ("org/rows", "big", None, None)),
        ("org/rows@v1.2:big:dev", ("org/rows", "big", "dev", "v1.2")),
        ("org/rows@", ("org/rows", None, None, None)),
    ],
)
def test_a_source_is_parsed_once(text: str, parts: tuple[str | None, ...], tmp_path: Path) -> None:
    for name in ("a.tsv", "at@home.tsv", "o:dd/dev.tsv"):
        write(tmp_path / name, TSV + "a\tb\n")
    here = str(tmp_path)
    source = Source.parse(text.replace("{here}", here))
    assert (source.base, source.config, source.split, source.revision) == tuple(
        part and part.replace("{here}", here) for part in parts
    )
    assert source.on_disk == (text.startswith("{here}") and "where" not in text)
    assert source == Source.parse(source.text) and re.fullmatch(r"[\w.-]+", source.name)


@pytest.mark.parametrize(
    ("spec", "name", "path"),
    [
        ("hans=ood/HANS/test.tsv", "hans", "ood/HANS/test.tsv"),
        ("reviews.csv.gz", "reviews", "reviews.csv.gz"),
        ("glue/RTE/dev.tsv", "RTE-dev", "glue/RTE/dev.tsv"),
        ("glue/RTE", "RTE", "glue/RTE"),
        ("glue/RTE:dev", "RTE-dev", "glue/RTE:dev"),
        ("mnli/dev_mismatched.tsv", "mnli-dev_mismatched", "mnli/dev_mismatched.tsv"),
        ("lang=en/my set.tsv", "lang", "en/my set.tsv"),  # No such file exists, so this is NAME=FILE.
        ("data/my set.tsv", "my-set", "data/my set.tsv"),
        ("data/lang=en/a.tsv", "a", "data/lang=en/a.tsv"),
        ("stanfordnlp/imdb:test", "imdb-test", "stanfordnlp/imdb:test"),
    ],
)
def test_test_sets_are_named(spec: str, name: str, path: str) -> None:
    source = Source.parse_named(spec)
    assert (source.name, source.text) == (name, path)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["=a.tsv"], "expected NAME=FILE"),
        (["a="], "expected NAME=FILE"),
        (["my set=a.tsv"], "cannot be part of a file name"),
        (["..=a.tsv"], "cannot be part of a file name"),
        (["a/x.tsv", "b/x.tsv"], "a/x.tsv and b/x.tsv have the same name 'x'. Fix: name one: NAME=b/x.tsv"),
        (
            ["mine/eval.csv.gz"],
            "'eval', .* that choose the epoch. Fix: name it otherwise: NAME=mine/ev",
        ),
        (["a.tsv", "Eval=b.tsv"], "another name for b.tsv than 'eval'"),  # files of sets may ignore case
        (["Dev=a.tsv", "dev=b.tsv"], "a.tsv and b.tsv have the same name 'dev', but for case"),
        (
            ["a.tsv", "eval=b.tsv"],
            "'eval', .* that choose the epoch. Fix: name it otherwise: NAME=b.tsv",
        ),
    ],
)
def test_bad_names_are_refused(specs: list[str], message: str) -> None:
    with pytest.raises(RailkdError, match=message):
        parse_named(specs)


def test_reading_needs_no_model_library() -> None:
    code = (
        "import sys; import railkd.data.sources, railkd.data.labels, railkd.tasks.metrics, railkd.data.columns\n"
        "print(*{'torch', 'transformers', 'datasets', 'numpy', 'sklearn', 'pyarrow'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
