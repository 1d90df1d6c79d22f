"""Bad data: files that exist and hold the wrong thing. Exit code 2, what was got and wanted, nothing left behind."""

from __future__ import annotations

import lzma
import os
import shlex
from pathlib import Path

import pytest

import tiny
from railkd.cli import main

GOOD = "text\tlabel\ngood film\tpos\nbad film\tneg\n"
# The rows below stand in a folder of these files, beside a teacher (neg, pos), a regressor and one of several labels.
FILES: dict[str, str | bytes] = {
    "good.tsv": GOOD,
    "only-head.tsv": "text\tlabel\n",
    "empty.tsv": "",
    "ragged.tsv": GOOD + "one cell\n",
    "latin.tsv": GOOD.encode() + "caf\xe9\tpos\n".encode("latin-1"),
    "utf16.csv": GOOD.encode("utf-16"),
    "not.tsv.gz": GOOD,
    "cut.jsonl": '{"text": "good", "label": "pos"}\n{"text": "ba',
    "quote.csv": 'text,label\n"good,pos\n',
    "twice.tsv": "text\ttext\tlabel\na\tb\tpos\n",
    "table.xlsx": "PK",
    "fake.parquet": GOOD,
    "no-text.tsv": "words\tlabel\ngood\tpos\n",
    "no-label.tsv": "text\tmood\ngood\tpos\n",
    "gap.tsv": GOOD + "so so\t\n",
    "null.jsonl": '{"text": "good", "label": "pos"}\n{"text": "bad", "label": null}\n',
    "null-text.jsonl": '{"text": "good", "label": "pos"}\n{"text": null, "label": "neg"}\n',
    "number-text.jsonl": '{"text": 1, "label": "pos"}\n{"text": 2, "label": "neg"}\n',
    "nested.jsonl": '{"text": {"en": "good"}, "label": "pos"}\n',
    "mixed.jsonl": '{"text": "a", "label": 1}\n{"text": "b", "label": "pos"}\n',
    "other.tsv": "text\tlabel\ngood\tgreat\nbad\tawful\n",
    "third.tsv": GOOD + "so so\tneutral\n",
    "digits.tsv": "text\tlabel\ngood\t1\nbad\t0\n",
    "one-class.tsv": "text\tlabel\ngood\tpos\nbetter\tpos\n",
    "case.tsv": "text\tlabel\ngood\tpos\nbad\tPos\n",
    "scores.tsv": "text\tscore\ngood\t0.9\nbad\tmany\n",
    "infinite.tsv": "text\tscore\ngood\t0.9\nbad\tinf\n",
    "underscore.tsv": "text\tscore\ngood\t1_0\nbad\t0.5\n",
    "unicode.tsv": "text\tlabel\nпривет\tда\n你好\tнет\n",
    "lone.jsonl": '{"text": "\\ud800", "label": "pos"}\n',
    "huge.tsv": "text\tlabel\n" + "word " * 200_000 + "\tpos\textra\n",
    "lists.jsonl": '{"text": "good", "label": ["pos", "neg"]}\n{"text": "bad", "label": []}\n',
    "objects.jsonl": '{"text": "good", "label": {"is": "pos"}}\n',
    "flags.csv": "text,pos,neg\ngood,1,0\nbad,0,2\n",
    "joined.tsv": "text\tlabel\ngood\tpos|great\nbad\tneg\n",
    "plain.tsv.zst": GOOD,
    "cut.csv.xz": lzma.compress(GOOD.encode())[:-9],
    "bare.zip": b"PK\x05\x06" + bytes(18),
    "plain.feather": GOOD,
    "semicolons.csv": "text;label\ngood;pos\nbad\n",
    "quoted.csv": 'text;label\n"good";pos\n"bad"x;neg\n',
    "list.json": '{"data": [1, 2]}',
    "parts/train-00000-of-00002.tsv": GOOD,
    "mixed/train-00000-of-00001.tsv": GOOD,
    "mixed/train.csv": "text,label\ngood,pos\n",
    "sets/one/train.tsv": GOOD,
    "lora/adapter_config.json": "{}",
    "lora/adapter_model.safetensors": b"",
    "HANS/test.tsv": "sentence1\tsentence2\tlabel\na\tb\tentailment\n",
    "RTE/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n1\ta\tb\tmaybe\n",
    "STS-B/train.tsv": "index\tsentence1\tsentence2\tscore\n0\ta\tb\thigh\n",
    "CoLA/train.tsv": "gj04\t1\t\tFine.\ngj04\t1\tFine.\n",
    "folder/readme.md": "nothing to train on",
    "types.yaml": "train: 7\n",
    "binary.yaml": b"\xff\xfe\x00",
    "tabs.yaml": "train:\tgood.tsv\n\tepochs: 1\n",
    "key.yaml": "1: good.tsv\n",
    "double.yaml": "max-length: 8\nmax_length: 9\n",
    "null-byte.yaml": "train: \x00\n",
    "date.yaml": "epochs: 2024-01-01\n",
    "nan.yaml": "learning_rate: .nan\n",
    "list-of-lists.yaml": "test: [[a, b]]\n",
    "blank.yaml": 'train: ""\n',
}
TAUGHT = "--teacher teacher --student-layers 2 --output out --method kd --quiet"
TRAIN = f"distill {TAUGHT} --train"
TUNE = "finetune --model teacher --output out --quiet --train"
SCORE = "evaluate --model teacher --test"
CACHE = "cache --teacher teacher --cache out --train"
ROWS = [
    # files
    (f"{TRAIN} only-head.tsv", "only-head.tsv: expected at least one row below the header, got none"),
    (f"{TUNE} empty.tsv", "empty.tsv: expected a header line and rows, got an empty file"),
    (f"{CACHE} ragged.tsv", "line 4 has 1 fields, the header has 2"),
    (f"{SCORE} latin.tsv", "byte 0xe9 at offset 41 (line 4) is not UTF-8. Fix: convert the file"),
    (f"{TRAIN} utf16.csv", "expected UTF-8, got UTF-16"),
    (f"{TRAIN} not.tsv.gz", "not a complete gzip file"),
    (f"{TRAIN} cut.jsonl", "line 2 is not JSON"),
    (f"{TRAIN} quote.csv", "close every quote"),
    (f"{TRAIN} twice.tsv", "column 'text' occurs more than once"),
    (f"{TRAIN} table.xlsx", "Expected one of .csv, .tsv, .jsonl, .json, .parquet"),
    (f"{TRAIN} fake.parquet", "not a complete parquet file"),
    (f"{TRAIN} folder", "the folder holds no data files"),
    (f"{TRAIN} good.tsv:dev", "a file has no splits"),
    (f"{TRAIN} RTE:dev", "no split 'dev'. Splits: train"),
    (f"{TRAIN} CoLA", "line 2 has 3 fields, the header has 4"),
    (f"{TRAIN} huge.tsv", "line 2 has 3 fields"),
    (f"{TRAIN} lone.jsonl", "column 'text' holds half of a surrogate pair in row 1"),
    (f"{TRAIN} plain.tsv.zst", "plain.tsv.zst: not a complete Zstandard file"),
    (f"{CACHE} cut.csv.xz", "cut.csv.xz: not a complete xz file"),
    (f"{CACHE} bare.zip", "bare.zip: expected one file in the archive, got none"),
    (f"{CACHE} plain.feather", "not a complete Arrow file"),
    (f"{CACHE} table.xlsx", "pip install openpyxl"),
    (f"{CACHE} semicolons.csv", "line 3 has 1 fields, the header has 2. Fix: put cells that hold a semicolon into"),
    (f"{TUNE} quoted.csv", "line 3 is not csv"),
    (f"{CACHE} list.json", "entry 1 of the list is a JSON int"),
    (f"{TRAIN} parts", "expected 2 files of the split 'train'"),
    (f"{CACHE} mixed", "the split has several files: train-00000-of-00001.tsv and train.csv"),
    (f"{CACHE} sets", "the folder holds no data files"),
    (f"{CACHE} sets", "Fix: name one of its folders: one"),
    (f"{TRAIN} good.tsv[2:]", "the slice [2:] holds none of the 2 rows"),
    (f"{TRAIN} good.tsv[:0%]", "the slice [:0%] holds none"),
    (f"{CACHE} good.tsv[a:b]", "no such file"),
    (f"{TRAIN} good.tsv --max-train-rows 0", "--max-train-rows: expected at least 1, got 0"),
    (f"{TUNE} good.tsv --max-train-rows many", "--max-train-rows: expected a whole number, got 'many'"),
    (f"{CACHE} nowhere://bucket/rows.tsv", "nowhere://bucket/rows.tsv: cannot be fetched"),
    (f"{CACHE} http://127.0.0.1:1/rows.tsv", "http://127.0.0.1:1/rows.tsv: cannot be fetched"),
    (f"{CACHE} -", "-: the standard input cannot be read"),  # as here, where pytest forbids it
    ("evaluate --model lora --test good.tsv", "does not name its model"),
    # columns
    (f"{TRAIN} no-text.tsv", "no column has a common name of a text column; the columns are 'words' and 'label'"),
    (
        f"{TRAIN} no-label.tsv",
        "no column has a common name of a label column; the columns are 'text' and 'mood'. Fix: name one",
    ),
    (
        f"{TRAIN} good.tsv --text-column txt",
        "--text-column: no column 'txt'; the columns are 'text' and 'label'. Did you",
    ),
    (f"{TRAIN} good.tsv --label-column lable", "--label-column: no column 'lable'"),
    (f"{TRAIN} good.tsv --text-column label --label-column label", "column 'label' is asked for twice"),
    (f"{TRAIN} good.tsv --text-column text text", "column 'text' is asked for twice"),
    (f"{TRAIN} null-text.jsonl", "row 2: expected text in column 'text', got None"),
    (f"{CACHE} number-text.jsonl", "row 1: expected text in column 'text', got 1"),
    ("predict --test nested.jsonl --model teacher", "expected text in column 'text', got {'en': 'good'}"),
    # labels
    (f"{TRAIN} gap.tsv", "gap.tsv: row 3 has no label. Fix: fill it in, or give the rows as --unlabelled"),
    (f"{TRAIN} null.jsonl", "null.jsonl: row 2 has no label"),
    (f"{TRAIN} mixed.jsonl", "column 'label' does not fit one type (its values: int in row 1, str in row 2)"),
    (f"{TRAIN} other.tsv", "has the classes 'great' and 'awful', teacher has 'neg' and 'pos'"),
    (f"{TRAIN} other.tsv", "Fix: --label-map great=NEW awful=NEW"),
    (f"{TRAIN} third.tsv", "without 'neutral'"),
    (f"{SCORE} digits.tsv", "--label-map 1=NEW 0=NEW"),
    (f"{SCORE} digits.tsv --label-map 1=pos 0=bad", "without 'bad'"),
    (f"{TUNE} good.tsv --test third.tsv", "the model trained on good.tsv has 'neg' and 'pos', without 'neutral'"),
    (f"{TUNE} one-class.tsv", "every label is 'pos'. Expected two classes"),
    (f"{SCORE} unicode.tsv", "has the classes 'да' and 'нет'"),
    (f"{SCORE} scores.tsv", "has the classes '0.9' and 'many'"),
    (f"{TUNE} objects.jsonl", "a label of type dict"),
    (f"{TUNE} RTE/train.tsv --label-map entailment=yes entailment=no", "is renamed to both 'yes' and 'no'"),
    (f"{SCORE} HANS/test.tsv", "has the classes 'entailment', teacher has 'neg' and 'pos'"),
    # numbers
    (f"{TUNE} scores.tsv --problem-type regression", "row 2 has the label 'many', which is not a number"),
    (f"{TUNE} infinite.tsv --problem-type regression", "row 2 has the label 'inf', which is not a finite number"),
    (f"{TUNE} underscore.tsv --problem-type regression", "row 1 has the label '1_0', which is not a number"),
    (f"{TUNE} STS-B --problem-type regression", "row 1 has the label 'high', which is not a number"),
    (
        f"{SCORE} scores.tsv --problem-type regression",
        "teacher has 2 classes ('neg' and 'pos'), but the labels of scores.tsv",
    ),
    ("evaluate --model regressor --test good.tsv", "good.tsv: row 1 has the label 'pos', which is not a number"),
    # several labels a row
    (f"{SCORE} lists.jsonl", "lists.jsonl: has lists of classes, but teacher gives one answer a row"),
    (f"{TUNE} lists.jsonl --problem-type classification", "has lists of classes, got --problem-type classification"),
    (f"{TUNE} flags.csv --label-column pos neg", "row 2: expected 0 or 1 in column 'neg', got '2'"),
    (f"{TUNE} flags.csv --label-column pos pos", "--label-column: expected each column once, got 'pos' and 'pos'"),
    (f"{TUNE} flags.csv --label-column pos ngg", "no column 'ngg'"),
    (f"{TUNE} one-class.tsv --problem-type multi-label", "expected at least two classes, got 'pos' alone"),
    ("evaluate --model several --test joined.tsv", "without 'great'"),
    ("evaluate --model several --test null.jsonl", "null.jsonl: row 2 has no label"),
    # sets and their names
    (f"{TRAIN} good.tsv --test x=good.tsv --ood x=case.tsv", "have the same name 'x'"),
    (f"{TRAIN} good.tsv --ood none.tsv", "--ood none.tsv: no such file"),
    (f"{TRAIN} good.tsv --ood", "--ood: expected one value or more, got none"),
    (
        f"{TRAIN} good.tsv --eval good.tsv --test eval=good.tsv",
        "choose the epoch. Fix: name it otherwise: NAME=good.tsv",
    ),
    (
        f"{TRAIN} good.tsv --eval-share 0.5 --ood eval=good.tsv",
        "expected another name for good.tsv than 'eval'",
    ),
    ("evaluate --model teacher --test eval=good.tsv", "expected another name for good.tsv than 'eval'"),
    ("check --train good.tsv", "--teacher and --cache are both missing"),
    ("check --teacher teacher", "--train is missing"),
    ("check --teacher teacher --train good.tsv --epochs 0", "--epochs: expected a number above 0, got 0"),
    ("check --teacher teacher --train good.tsv --student-layers 0", "--student-layers: expected at least 1, got 0"),
    ("check --cache none --train good.tsv", "--cache: no folder 'none'"),
    ("tasks HNAS", "unknown task 'HNAS'"),
    ("tasks HNAS", "Did you mean 'HANS'?"),
    # YAML
    (f"distill {TAUGHT} --config types.yaml", "no such file"),
    (f"distill {TAUGHT} --config binary.yaml", "the file is not UTF-8 text"),
    (f"distill {TAUGHT} --config tabs.yaml", "tabs.yaml: not valid YAML in line"),
    (f"distill {TAUGHT} --config key.yaml", "expected names of settings as keys, such as 'train', got the key 1"),
    (f"distill {TAUGHT} --config double.yaml", "the key 'max_length' occurs twice"),
    (f"distill {TAUGHT} --config null-byte.yaml", "null-byte.yaml: not valid YAML"),
    (f"distill {TAUGHT} --config date.yaml", "epochs: expected a number, got '2024-01-01'"),
    (f"{TRAIN} good.tsv --config nan.yaml", "--learning-rate: expected a finite number above 0, got nan"),
    (f"{TRAIN} good.tsv --config list-of-lists.yaml", "test: expected text, got the list ['a', 'b']"),
    (f"distill {TAUGHT} --config blank.yaml", "train: expected a value, got empty text"),
]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.write_files(tmp_path_factory.mktemp("bad-data"), FILES)
    tokenizer = tiny.make_tokenizer()
    tiny.save(folder / "teacher", tiny.make_model(), tokenizer)
    tiny.save(folder / "several", tiny.make_model(1, problem_type="multi_label_classification"), tokenizer)
    one = {"id2label": {0: "value"}, "label2id": {"value": 0}}
    tiny.save(folder / "regressor", tiny.make_model(1, **one), tokenizer)
    return folder


@pytest.mark.parametrize(("command", "fragment"), ROWS, ids=[f"{row[0]} | {row[1]}" for row in ROWS])
def test_bad_data(
    command: str, fragment: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    before = sorted((path, path.stat().st_mtime_ns) for path in here.rglob("*"))
    assert main(shlex.split(command)) == 2
    out, err = capsys.readouterr()
    said = [line for line in err.splitlines() if line.startswith("railkd: error: ")]
    assert fragment in err[err.find("railkd: error: ") :]
    assert len(said) == 1 and len(err) < 1500 and "Traceback" not in err and out == ""
    assert sorted((path, path.stat().st_mtime_ns) for path in here.rglob("*")) == before and "out" not in os.listdir()


@pytest.mark.parametrize("command", [f"{SCORE} case.tsv", "check --teacher teacher --train case.tsv"])
def test_spellings_that_differ_in_case_are_the_same_class(
    command: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    assert main([*shlex.split(command), "--quiet"]) == 0
    capsys.readouterr()
