"""Bad input: exit code 2, one or two lines that say what to do, no traceback, nothing left behind."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from railkd.cli import main

# The rows below stand in a folder of these files.
FILES = {
    "train.tsv": "sentence\tlabel\ngood\t1\n",
    "dev.tsv": "sentence\tlabel\nbad\t0\n",
    "teacher/config.json": json.dumps({"model_type": "bert", "num_hidden_layers": 6}),
    "teacher/model.safetensors": "not read before the cheap checks",
    "no-model/readme.txt": "a folder without a model",
    "no-weights/config.json": "{}",
    "old-run/config.yaml": "train: train.tsv\n",
    "old-run/model/config.json": "{}",
    "old-run/model/model.safetensors": "x",
    "half-run/checkpoint-10/x": "",
    "mine/thesis.txt": "do not touch",
    "list.yaml": "- train\n",
    "unknown.yaml": "temprature: 2\n",
    "unknown-key.yaml": "modle: teacher\n",
    "many.yaml": "epochs: many\n",
    "scalar.yaml": "weights: 3\n",
    "two.yaml": "weights: [1, 1]\n",
    "long-list.yaml": "teacher: [a, b]\n",
    "twice.yaml": "epochs: 1\nnum_train_epochs: 2\n",
    "mapping.yaml": "max_length: {a: 1}\n",
    "bool.yaml": "live: maybe\n",
}
DISTILL = "distill --teacher teacher --student-layers 3 --train train.tsv --output out"
FINETUNE = "finetune --model teacher --train train.tsv --output out"

ROWS = [
    # words
    ("", "got no verb, wanted one of: demo"),
    ("distil", "unknown verb 'distil'"),
    ("distil", "Did you mean 'distill'?"),
    ("--quiet", "unknown flag '--quiet', wanted a verb"),
    (f"{DISTILL} -t 2", "unknown flag '-t'"),
    (f"{DISTILL} --train train.tsv dev.tsv", "unexpected 'dev.tsv'"),
    ("distill train.tsv", "unexpected 'train.tsv'"),
    (f"{DISTILL} --train", "--train: got no value"),
    (f"{DISTILL} --test --live", "--test: got no value, wanted one or more"),
    (f"{DISTILL} --no-live=1", "--no-live: takes no value"),
    (f"{DISTILL} --live=perhaps", "--live: got 'perhaps', wanted true or false"),
    ("evaluate --modle teacher", "unknown setting 'modle'. Did you mean 'model'?"),
    ("env --jsn", "unknown setting 'jsn'. Did you mean 'json'?"),
    ("methods rail-kd-l rail-kd-c", "unexpected 'rail-kd-c'"),
    # missing settings
    ("distill", "--train and --output are missing"),
    ("finetune --train train.tsv --output out", "--model is missing"),
    ("cache --teacher teacher", "--train and --cache are missing"),
    ("cache --verify", "--cache is missing"),
    ("evaluate", "--model and --test are missing"),
    ("predict --model teacher", "--test is missing"),
    ("distill --student-layers 3 --train train.tsv --output out", "got neither --teacher nor --cache"),
    ("distill --teacher teacher --train train.tsv --output out", "got neither --student-layers nor --student"),
    # settings that do not go together
    (f"{DISTILL} --cache c --live", "got --cache and --live"),
    (f"{DISTILL} --overwrite --resume", "got --overwrite and --resume"),
    ("distill --cache no-model --student-layers 2 --train train.tsv --output out", "--cache without --teacher needs"),
    ("distill --cache none --student teacher --train train.tsv --output out", "no teacher cache at 'none'"),
    ("cache --cache mine --verify --overwrite", "got --verify and --overwrite"),
    ("demo --quick --full", "Expected --quick or --full, got both"),
    # numbers
    (f"{DISTILL} --temperature 0", "--temperature: got 0, wanted a finite number above 0"),
    (f"{DISTILL} --temperature nan", "--temperature: got nan"),
    (f"{DISTILL} --temperature -2", "--temperature: got -2"),
    (f"{DISTILL} --temperature hot", "--temperature: got 'hot', wanted a number"),
    (f"{DISTILL} --weights -1 1 1", "--weights: got -1 1 1, wanted 3 numbers >= 0"),
    (f"{DISTILL} --weights nan 1 1", "--weights: got nan 1 1"),
    (f"{DISTILL} --weights 0 0 0", "wanted 3 numbers >= 0, not all 0"),
    (f"{DISTILL} --weights 1 1", "--weights: got 2 numbers, wanted 3"),
    (f"{DISTILL} --weights 1 1 1 1", "--weights: got 4 numbers, wanted 3"),
    (f"{DISTILL} --weights 3", "--weights: got 1 numbers, wanted 3"),
    (f"{DISTILL} --method kd --weights 0 0 1", "nothing is left for the terms ce, kd"),
    (f"{DISTILL} --epochs 0", "--epochs: got 0, wanted"),
    (f"{DISTILL} --num-train-epochs -1", "--epochs: got -1, wanted"),
    (f"{DISTILL} --epochs inf", "--epochs: got inf"),
    (f"{DISTILL} --learning-rate 0", "--learning-rate: got 0"),
    (f"{DISTILL} --batch-size 0", "--batch-size: got 0, wanted at least 1"),
    (f"{DISTILL} --batch-size 1.5", "--batch-size: got '1.5', wanted a whole number"),
    (f"{DISTILL} --save-steps 0", "--save-steps: got 0"),
    (f"{DISTILL} --seed -1", "--seed: got -1"),
    (f"{DISTILL} --max-length 0", "--max-length: got 0, wanted at least 1"),
    ("evaluate --model teacher --test dev.tsv --batch-size 0", "--batch-size: got 0"),
    (f"{DISTILL} --student-layers 0", "--student-layers: got 0, wanted at least 1"),
    (f"{DISTILL} --student-layers 7", "--student-layers: got 7 blocks out of a model of 6"),
    (f"{DISTILL} --keep evn", "--keep: got 'evn', wanted even, first, last or block numbers such as 1,3,6."),
    (f"{DISTILL} --keep 1,3", "--keep: got 2 blocks for a student of 3"),
    # names
    (f"{DISTILL} --method rail-kd", "unknown method 'rail-kd'"),
    (f"{DISTILL} --method pkd-skp", "Did you mean 'pkd-skip'?"),
    (f"{DISTILL} --pooling max", "max"),
    ("cache --teacher teacher --train train.tsv --cache c --pooling men", "Did you mean 'mean'?"),
    (
        "cache --teacher teacher --train train.tsv --cache c --dtype fp16",
        "--dtype: got 'fp16', wanted float16 or float32",
    ),
    (f"{DISTILL} --problem-type clasification", "Did you mean 'classification'?"),
    (f"{DISTILL} --tempratur 2", "unknown setting 'tempratur'. Did you mean 'temperature'?"),
    (f"{DISTILL} --warmup_step 2", "Did you mean 'warmup_steps'?"),
    (f"{DISTILL} --label-map 0", "wanted OLD=NEW"),
    (f"{DISTILL} --text-column a b c", "--text-column: got 3 columns"),
    (f"{DISTILL} --test x=dev.tsv x=train.tsv", "have the same name 'x'"),
    ("methods rail", "unknown method 'rail'"),
    ("methods rail-kd-l --draws 3", "--student-layers and --teacher-layers are missing"),
    ("methods --draws 3", "got no method"),
    ("methods kd --draws 3 --student-layers 2 --teacher-layers 4", "kd draws no blocks"),
    ("methods rail-kd-l --draws 3 --student-layers 1 --teacher-layers 4", "--candidates all"),
    ("methods rail-kd-l --draws 3 --student-layers 7 --teacher-layers 4", "only 3 candidate teacher blocks"),
    ("methods rail-kd-l --draws 0 --student-layers 2 --teacher-layers 4", "--draws: got 0"),
    ("methods rail-kd-l --strategy unifrm", "Did you mean 'uniform'?"),
    # the long tail of training arguments
    (f"{DISTILL} --warmup-steps many", "--warmup-steps: got 'many', wanted a number"),
    (f"{DISTILL} --max-steps 1.5", "--max-steps: got '1.5', wanted a whole number"),
    (f"{DISTILL} --max-steps", "--max-steps: got no value"),
    (f"{DISTILL} --max-steps 1 2", "--max-steps: got 2 values"),
    (f"{DISTILL} --lr-scheduler-type cosin", "got 'cosin', wanted one of linear, cosine"),
    (f"{DISTILL} --gradient-accumulation-steps 0", "wanted at least 1"),
    (f"{DISTILL} --resume-from-checkpoint x", "--resume goes on from the newest checkpoint"),
    (f"{DISTILL} --label-smoothing-factor 0.1", "soft labels"),
    (f"{FINETUNE} --temperature 2", "'railkd distill' takes temperature"),
    (f"{FINETUNE} --method kd", "'railkd distill' takes method"),
    # files and models
    (f"{DISTILL} --train trian.tsv", "--train trian.tsv: no such file. Did you mean 'train.tsv'? Fix: check the path."),
    (f"{DISTILL} --eval nowhere/dev.tsv", "the folder 'nowhere' does not exist"),
    (f"{DISTILL} --unlabelled more.tsv", "--unlabelled more.tsv: no such file"),
    (f"{DISTILL} --test x=none.tsv", "--test none.tsv: no such file"),
    ("cache --teacher teacher --train train.tsv more.tsv --cache c", "--train more.tsv: no such file"),
    (f"{DISTILL} --teacher ./teachr", "--teacher: no model at './teachr': no such folder. Did you mean 'teacher'?"),
    (f"{DISTILL} --teacher no-model", "holds no model"),
    (f"{DISTILL} --teacher no-weights", "holds no model weights"),
    (f"{DISTILL} --student train.tsv", "--student: 'train.tsv' is a file"),
    (f"{DISTILL} --cache train.tsv", "--cache 'train.tsv' is a file, wanted a folder"),
    ("cache --cache train.tsv --verify", "is a file, wanted a folder"),
    ("cache --cache none --verify", "no such folder; wanted a cache to verify"),
    # output
    (f"{DISTILL} --output old-run", "--output 'old-run' holds another run"),
    (f"{DISTILL} --output half-run", "give --overwrite or --resume"),
    (f"{DISTILL} --output mine", "holds files that are no run of railkd"),
    (f"{DISTILL} --output mine --overwrite", "holds files that are no run of railkd"),
    (f"{DISTILL} --output train.tsv", "--output 'train.tsv' is a file"),
    (f"{DISTILL} --output train.tsv/out", "'{here}/train.tsv' is a file"),
    (f"{DISTILL} --teacher old-run/model --output old-run --overwrite", "lies inside --output"),
    ("demo --output train.tsv", "is a file, wanted a folder"),
    ("evaluate --model teacher --test dev.tsv --output mine", "is a folder, wanted the name of a file"),
    ("evaluate --model teacher --test dev.tsv --output none/x.json", "there is no folder 'none'"),
    ("predict --model teacher --test dev.tsv --output x.xlsx", "ends in .tsv or .jsonl"),
    ("predict --model teacher --test dev.tsv train.tsv", "--test: got 2 files, wanted one"),
    # config files
    (f"{DISTILL} --config none.yaml", "--config none.yaml: no such file"),
    (f"{DISTILL} --config list.yaml", "wanted a mapping"),
    (f"{DISTILL} --config unknown.yaml", "unknown setting 'temprature'. Did you mean 'temperature'?"),
    ("evaluate --config unknown-key.yaml", "unknown-key.yaml: unknown setting 'modle'. Did you mean 'model'?"),
    (f"{DISTILL} --config many.yaml", "many.yaml: epochs: got 'many', wanted a number"),
    (f"{DISTILL} --config scalar.yaml", "scalar.yaml: weights: got 3, wanted a list of 3 numbers"),
    (f"{DISTILL} --config two.yaml", "two.yaml: weights: got 2 numbers, wanted 3"),
    (f"{DISTILL} --config long-list.yaml", "teacher: got the list ['a', 'b'], wanted text"),
    (f"{DISTILL} --config twice.yaml", "'epochs' and 'num_train_epochs' are the same setting"),
    (f"{DISTILL} --config mapping.yaml", "max_length: got the mapping {'a': 1}, wanted a whole number"),
    (f"{DISTILL} --config bool.yaml", "live: got 'maybe', wanted true or false"),
    (f"{DISTILL} --config list.yaml --config", "--config: got no value"),
]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad-input")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("command", "fragment"), ROWS, ids=[f"{row[0]} | {row[1]}" for row in ROWS])
def test_bad_input(
    command: str, fragment: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    before, folders = tree(here), sorted(os.listdir(here))
    assert main(shlex.split(command)) == 2
    out, err = capsys.readouterr()
    assert fragment.replace("{here}", str(here)) in err
    assert err.startswith("railkd: error: ") and len(err.splitlines()) <= 2 and "Traceback" not in err
    assert out == ""
    assert tree(here) == before and sorted(os.listdir(here)) == folders


def test_all_problems_are_said_at_once(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    assert main(shlex.split(f"{DISTILL} --temperature 0 --train trian.tsv --output mine --max-length 0")) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "--temperature" in first
    assert second.startswith("also: ") and all(word in second for word in ("--max-length", "trian.tsv", "mine"))
