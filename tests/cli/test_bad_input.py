"""Bad input: exit code 2, one or two lines that say what to do, no traceback, nothing left behind."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

import tiny
from railkd.cli import main

# The rows below stand in a folder of these files.
FILES = {
    "train.tsv": "sentence\tlabel\ngood\t1\n",
    "dev.tsv": "sentence\tlabel\nbad\t0\n",
    "teacher/config.json": json.dumps({"model_type": "bert", "num_hidden_layers": 6}),
    "teacher/model.safetensors": "not read before the cheap checks",
    "no-model/readme.txt": "a folder without a model",
    "no-weights/config.json": "{}",
    "old-run/config.yaml": "# railkd finetune --config THIS_FILE --overwrite\ntrain: train.tsv\n",
    "old-run/model/config.json": "{}",
    "old-run/model/model.safetensors": "x",
    "half-run/config.yaml": "# railkd finetune --config THIS_FILE --overwrite\ntrain: train.tsv\n",
    "half-run/checkpoint-10/x": "",
    "half-run/checkpoint-10/files.json": '{"x": 0}',
    "other-run/config.yaml": "train: train.tsv\n",
    "other-run/checkpoint-10/x": "",
    "mine/thesis.txt": "do not touch",
    "list.yaml": "- train\n",
    "unknown.yaml": "temprature: 2\n",
    "unknown-key.yaml": "modle: teacher\n",
    "many.yaml": "epochs: many\n",
    "scalar.yaml": "weights: 3\n",
    "two.yaml": "weights: [1, 1]\n",
    "long-list.yaml": "student: [a, b]\n",
    "twice.yaml": "epochs: 1\nnum_train_epochs: 2\n",
    "mapping.yaml": "max_length: {a: 1}\n",
    "bool.yaml": "live: maybe\n",
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_files(tmp_path_factory.mktemp("bad-input"), FILES)


DISTILL = "distill --teacher teacher --student-layers 3 --train train.tsv --output out"
FINETUNE = "finetune --model teacher --train train.tsv --output out"

ROWS = [
    # words
    ("", "No command given. Commands: demo"),
    ("distil", "unknown command 'distil'"),
    ("distil", "Did you mean 'distill'?"),
    ("--quiet", "unknown flag '--quiet'. Commands: demo"),
    (f"{DISTILL} -t 2", "unknown flag '-t'"),
    (f"{DISTILL} --train train.tsv dev.tsv", "expected a flag such as --text-column, got 'dev.tsv'"),
    ("distill train.tsv", "expected a flag such as --text-column, got 'train.tsv'"),
    (f"{DISTILL} --train", "--train: expected a value, got none"),
    (f"{DISTILL} --test --live", "--test: expected one value or more, got none"),
    (f"{DISTILL} --test -dash.tsv", "--test: expected one value or more, got the flag '-dash.tsv'. Fix: write ./-dash"),
    (f"{DISTILL} --cache -c", "--cache: expected a value, got the flag '-c'. Fix: write ./-c"),
    (f"{DISTILL} --no-live=1", "--no-live: expected no value, got '1'"),
    (f"{DISTILL} --live=perhaps", "--live: expected true or false, got 'perhaps'"),
    ("evaluate --modle teacher", "unknown setting 'modle'. Did you mean 'model'?"),
    ("env --jsn", "unknown setting 'jsn'. Did you mean 'json'?"),
    ("methods rail-kd-l rail-kd-c", "expected a flag such as --name, got 'rail-kd-c'"),
    # missing settings
    ("completion", "expected bash, zsh or fish, got no shell"),
    ("completion tcsh", "--shell: expected bash or zsh or fish, got 'tcsh'"),
    ("help distil", "Did you mean 'distill'?"),
    ("distill", "--train and --output are missing"),
    ("finetune --train train.tsv --output out", "--model is missing"),
    ("cache --teacher teacher", "--train and --cache are missing"),
    ("cache --verify", "--cache is missing"),
    ("augment", "--train and --output are missing"),
    ("augment --train train.tsv --output more.txt", "--output: expected a name that ends in .tsv, .csv or .jsonl"),
    ("augment --train train.tsv --output train.tsv", "--output: 'train.tsv' is read by --train"),
    (f"{DISTILL} --unlabelled train.tsv:1.5", "between 0 and 1 behind the last colon, got 1.5"),
    (f"{DISTILL} --unlabelled train.tsv:0.6 --unlabelled dev.tsv:0.6", "expected shares with a sum below 1"),
    (f"{DISTILL} --unlabelled none.tsv:0.5", "--unlabelled none.tsv: no such file"),
    (f"{DISTILL} --source-shares 1", "Fix: give a share with its file, --unlabelled FILE:0.3"),
    ("augment --unlabelled train.tsv:0.5 --output x.tsv", "a share has no effect here"),
    ("augment --train train.tsv --output x.tsv --rate 0", "--rate: expected a share above 0 and at most 1"),
    ("augment --train train.tsv --output x.tsv --rate nan", "--rate: expected a share above 0 and at most 1"),
    ("augment --train train.tsv --output x.tsv --one-side 1.5", "--one-side: expected a share from 0 to 1"),
    ("augment --train train.tsv --output x.tsv --copies 0", "--copies: expected at least 1, got 0"),
    ("augment --train train.tsv --output x.tsv --seed -1", "--seed: expected at least 0, got -1"),
    ("augment --train train.tsv --output x.tsv --how swap", "--how: expected replace or drop or splice, got 'swap'"),
    ("augment --train train.tsv --output x.tsv --how drop drop", "--how: expected each way once, got drop drop"),
    ("augment --train none.tsv --output x.tsv", "--train none.tsv: no such file"),
    ("evaluate", "--model and --test are missing"),
    ("predict --model teacher", "--test is missing"),
    ("distill --student-layers 3 --train train.tsv --output out", "--teacher and --cache are both missing"),
    ("distill --teacher teacher --train train.tsv --output out", "--student-layers and --student are both missing"),
    # settings that do not go together
    (f"{DISTILL} --cache c --live", "--cache and --live exclude each other"),
    (f"{DISTILL} --overwrite --resume", "--overwrite and --resume exclude each other"),
    ("distill --cache no-model --student-layers 2 --train train.tsv --output out", "--cache without --teacher needs"),
    ("distill --cache none --student teacher --train train.tsv --output out", "--cache: no folder 'none'"),
    ("cache --cache mine --verify --overwrite", "--verify and --overwrite exclude each other"),
    ("demo --quick --full", "Expected --quick or --full, got both"),
    # numbers
    (f"{DISTILL} --temperature 0", "--temperature: expected a finite number above 0, got 0"),
    (f"{DISTILL} --temperature nan", "above 0, got nan"),
    (f"{DISTILL} --temperature -2", "above 0, got -2"),
    (f"{DISTILL} --temperature hot", "--temperature: expected a number, got 'hot'"),
    (f"{DISTILL} --weights -1 1 1", "--weights: expected 3 numbers >= 0, not all 0, got -1 1 1"),
    (f"{DISTILL} --weights nan 1 1", "--weights: expected 3 numbers >= 0, not all 0, got nan 1 1"),
    (f"{DISTILL} --weights 0 0 0", "--weights: expected 3 numbers >= 0, not all 0, got 0 0 0"),
    (f"{DISTILL} --weights 1 1", "--weights: expected 3 numbers, e.g. --weights 1 1 1, got 2"),
    (f"{DISTILL} --weights 1 1 1 1", "--weights: expected 3 numbers, e.g. --weights 1 1 1, got 4"),
    (f"{DISTILL} --weights 3", "--weights: expected 3 numbers, e.g. --weights 1 1 1, got 1"),
    (f"{DISTILL} --method kd --weights 0 0 1", "nothing is left for the terms ce, kd"),
    (f"{DISTILL} --epochs 0", "--epochs: expected a finite number above 0, got 0"),
    (f"{DISTILL} --num-train-epochs -1", "--epochs: expected a finite number above 0, got -1"),
    (f"{DISTILL} --epochs inf", "--epochs: expected a finite number above 0, got inf"),
    (f"{DISTILL} --learning-rate 0", "--learning-rate: expected a finite number above 0, got 0"),
    (f"{DISTILL} --batch-size 0", "--batch-size: expected at least 1, got 0"),
    (f"{DISTILL} --batch-size 1.5", "--batch-size: expected a whole number, got '1.5'"),
    (f"{DISTILL} --save-steps 0", "--save-steps: expected at least 1, got 0"),
    (f"{DISTILL} --seed -1", "--seed: expected a number from 0 to 4294967295, got -1"),
    (f"{DISTILL} --max-length 0", "--max-length: expected at least 1, got 0"),
    ("evaluate --model teacher --test dev.tsv --batch-size 0", "--batch-size: expected at least 1, got 0"),
    (f"{DISTILL} --student-layers 0", "--student-layers: expected at least 1, got 0"),
    (f"{DISTILL} --student-layers 7", "--student-layers: expected at most 6, the blocks of 'teacher', got 7"),
    (f"{DISTILL} --keep evn", "--keep: expected even, spaced, first, last or block numbers such as 1,3,6, got 'evn'."),
    (f"{DISTILL} --keep 1,3", "--keep: expected 3 block numbers, as many as --student-layers, got 2"),
    # names
    (f"{DISTILL} --method rail-kd", "unknown method 'rail-kd'"),
    (f"{DISTILL} --method pkd-skp", "Did you mean 'pkd-skip'?"),
    (f"{DISTILL} --pooling max", "max"),
    (f"{DISTILL} --pooling none", "expected the states that rail-kd-l reads, got none"),
    (f"{DISTILL} --pooling none mean", "Expected 'none' alone"),
    ("cache --teacher teacher --train train.tsv --cache c --pooling men", "Did you mean 'mean'?"),
    (
        "cache --teacher teacher --train train.tsv --cache c --dtype fp16",
        "--dtype: expected float16 or float32 or int8, got 'fp16'",
    ),
    (f"{DISTILL} --problem-type clasification", "Did you mean 'classification'?"),
    (f"{DISTILL} --tempratur 2", "unknown setting 'tempratur'. Did you mean 'temperature'?"),
    (f"{DISTILL} --warmup_step 2", "Did you mean 'warmup_steps'?"),
    (f"{DISTILL} --label-map 0", "expected OLD=NEW"),
    (f"{DISTILL} --text-column a b c", "--text-column: expected one column, or two for pairs of texts, got 3"),
    (f"{DISTILL} --test x=dev.tsv x=train.tsv", "have the same name 'x'"),
    ("methods rail", "unknown method 'rail'"),
    ("methods rail-kd-l --draws 3", "--student-layers and --teacher-layers are missing"),
    ("methods --draws 3", "--draws: expected the name of a method"),
    ("methods kd --draws 3 --student-layers 2 --teacher-layers 4", "kd draws no blocks"),
    ("methods rail-kd-l --draws 3 --student-layers 1 --teacher-layers 4", "--candidates all"),
    ("methods rail-kd-l --draws 3 --student-layers 7 --teacher-layers 4", "only 3 candidate teacher blocks"),
    ("methods rail-kd-l --draws 0 --student-layers 2 --teacher-layers 4", "--draws: expected at least 1, got 0"),
    ("methods rail-kd-l --strategy unifrm", "Did you mean 'uniform'?"),
    # the long tail of training arguments
    (f"{DISTILL} --warmup-steps many", "--warmup-steps: expected a number, got 'many'"),
    (f"{DISTILL} --max-steps 1.5", "--max-steps: expected a whole number, got '1.5'"),
    (f"{DISTILL} --max-steps", "--max-steps: expected a whole number, got no value"),
    (f"{DISTILL} --max-steps 1 2", "--max-steps: expected a whole number, got 2 values"),
    (f"{DISTILL} --lr-scheduler-type cosin", "expected one of linear, cosine"),
    (f"{DISTILL} --gradient-accumulation-steps 0", "--gradient-accumulation-steps: expected at least 1, got 0"),
    (f"{DISTILL} --resume-from-checkpoint x", "--resume continues from the newest checkpoint"),
    (f"{DISTILL} --label-smoothing-factor 0.1", "The teacher's logits serve as soft labels"),
    (f"{FINETUNE} --temperature 2", "'railkd distill' takes temperature"),
    (f"{FINETUNE} --method kd", "'railkd distill' takes method"),
    # options without effect
    (f"{DISTILL} --train-sampling-strategy group_by_length", "no effect in railkd. Fix: --length-groups"),
    (f"{DISTILL} --length-groups bands", "--length-groups: expected one of pools, split, none, got 'bands'"),
    (f"{FINETUNE} --push-to-hub me//student", "--push-to-hub: expected a name such as org/name, got 'me//student'"),
    (
        f"{DISTILL} --hub-model-id me/student",
        "Nothing is uploaded while it trains. Fix: --push-to-hub NAME",
    ),
    (f"{DISTILL} --batch-eval-metrics", "The metrics are computed over all rows"),
    (f"{FINETUNE} --intermediate-schedule linear", "fine-tuning has no teacher"),
    (f"{FINETUNE} --no-gauges", "fine-tuning has no teacher"),
    (f"{DISTILL} --save-steps 5 --save-strategy epoch", "--save-steps has no effect with --save-strategy epoch"),
    (f"{DISTILL} --logging-steps 5 --logging-strategy no", "--logging-steps has no effect with"),
    (f"{DISTILL} --eval dev.tsv --eval-steps 5", "--eval-steps has no effect with --eval-strategy epoch"),
    (f"{DISTILL} --eval-seed 3", "--eval-seed has no effect without --eval-share"),
    (f"{DISTILL} --live --pooling cls", "--pooling has no effect with --live"),
    ("distill --teacher teacher --student teacher --train train.tsv --output out --keep last", "--keep has no effect"),
    ("cache --verify --cache mine --teacher teacher", "--teacher has no effect with --verify"),
    (f"{DISTILL} --live --cache-dtype int8", "--cache-dtype has no effect with --live"),
    (
        "distill --cache mine --student teacher --train train.tsv --output out --cache-dtype int8",
        "--cache-dtype has no effect without --teacher",
    ),
    ("cache --verify --cache mine --cache-dtype int8", "--dtype has no effect with --verify"),
    (f"{DISTILL} --live --states-dim 8", "--states-dim has no effect with --live"),
    (f"{DISTILL} --method kd --states-dim 8", "--states-dim has no effect with --method kd, which stores no states"),
    (f"{DISTILL} --states-dim 0", "--states-dim: expected at least 1, got 0"),
    ("cache --teacher teacher --train train.tsv --cache c --states-dim half", "--states-dim: expected a whole number"),
    (
        "cache --teacher teacher --train train.tsv --cache c --label-column label --label-map 0=neg",
        "--label-column has no effect without --from-labels: a teacher pass reads texts alone. Fix: leave it out\n"
        "also: --label-map has no effect",
    ),
    ("predict --model teacher --test dev.tsv --label-map 0=neg", "--label-map has no effect without --glue-submission"),
    ("predict --model teacher --test dev.tsv --problem-type regression", "--problem-type has no effect here"),
    ("methods rail-kd-l --strategy cyclic", "--strategy has no effect without --draws"),
    # files and models
    (f"{DISTILL} --train trian.tsv", "--train trian.tsv: no such file. Did you mean 'train.tsv'? Fix: check the path."),
    (f"{DISTILL} --eval nowhere/dev.tsv", "the folder 'nowhere' does not exist"),
    (f"{DISTILL} --unlabelled more.tsv", "--unlabelled more.tsv: no such file"),
    (f"{DISTILL} --test x=none.tsv", "--test none.tsv: no such file"),
    ("cache --teacher teacher --train train.tsv more.tsv --cache c", "--train more.tsv: no such file"),
    (f"{DISTILL} --teacher ./teachr", "--teacher: no model at './teachr': no such folder. Did you mean 'teacher'?"),
    (f"{DISTILL} --teacher no-model", "holds no model"),
    (f"{DISTILL} --teacher no-weights", "holds no model weights"),
    (f"{DISTILL} --student train.tsv", "--student: Expected a model folder, got the file 'train.tsv'"),
    (f"{DISTILL} --cache train.tsv", "--cache: expected a folder, got the file 'train.tsv'"),
    ("cache --cache train.tsv --verify", "--cache: expected a folder, got the file 'train.tsv'"),
    ("cache --cache none --verify", "--cache: expected a cache to verify, but there is no folder 'none'"),
    ("cache push --cache mine", "expected a folder, or a data set of the hub such as org/name, got none"),
    ("cache push out", "--cache is missing"),
    ("cache push out --cache mine", "--cache: there is no finished teacher cache at 'mine'"),
    ("cache push train.tsv --cache mine", "PLACE: expected a folder, but 'train.tsv' is a file"),
    ("cache push me//x --cache mine --private", "--private has no effect with a folder"),
    ("cache push mine --cache ./mine", "PLACE and --cache name one path, './mine'"),
    ("cache push one two --cache mine", "railkd cache push: expected a flag such as --place, got 'two'"),
    ("cache pull none --cache out", "PLACE: there is no finished teacher cache in the folder 'none'"),
    ("cache pull mine --cache train.tsv", "--cache: expected a folder, got the file 'train.tsv'"),
    ("cache pull a--b/x --cache out", "PLACE: expected a name such as org/name, got 'a--b/x'"),
    # output
    (f"{DISTILL} --output old-run", "--output: 'old-run' holds another run"),
    (f"{DISTILL} --output half-run", "give --resume to continue the run or --overwrite to replace it"),
    (f"{DISTILL} --output mine", "--output: 'mine' holds files that railkd did not write"),
    (f"{DISTILL} --output mine --overwrite", "--output: 'mine' holds files that railkd did not write"),
    (f"{DISTILL} --output train.tsv", "--output: expected a folder, but 'train.tsv' is a file"),
    (f"{DISTILL} --output train.tsv/out", "'{here}/train.tsv' is a file"),
    (f"{DISTILL} --teacher old-run/model --output old-run --overwrite", "lies inside --output"),
    (f"{DISTILL} --output other-run --overwrite", "--output: 'other-run' holds files that railkd did not write"),
    (f"{DISTILL} --output other-run --resume", "--output: 'other-run' holds files that railkd did not write"),
    (f"{DISTILL} --cache out --output out", "--output and --cache name one path, 'out'"),
    ("predict --model teacher --test train.tsv --output train.tsv", "--output: 'train.tsv' is read by --test"),
    ("predict --model teacher --test train.tsv --output ./old-run/../train.tsv", "is read by --test"),
    ("evaluate --model teacher --test train.tsv --output teacher/config.json", "is read by --model"),
    ("cache --teacher teacher --train train.tsv --cache teacher", "--cache: 'teacher' is read by --teacher"),
    ("report old-run --csv a.csv --markdown ./a.csv", "--markdown and --csv name one path"),
    ("report old-run --csv old-run/config.yaml", "--csv: 'old-run/config.yaml' is read by FOLDER"),
    ("demo --output train.tsv", "--output: expected a folder, but 'train.tsv' is a file"),
    (
        "evaluate --model teacher --test dev.tsv --output mine",
        "expected the name of a file, but 'mine' is a folder",
    ),
    ("evaluate --model teacher --test dev.tsv --output none/x.json", "cannot be written: no folder 'none'"),
    (
        "predict --model teacher --test dev.tsv --output x.xlsx",
        "name that ends in .tsv, .csv or .jsonl, got 'x.xlsx'",
    ),
    (
        "predict --model teacher --test dev.tsv train.tsv",
        "--test: expected one file",
    ),
    # config files
    (f"{DISTILL} --config none.yaml", "--config none.yaml: no such file"),
    (f"{DISTILL} --config list.yaml", "list.yaml: expected a mapping"),
    (f"{DISTILL} --config unknown.yaml", "unknown setting 'temprature'. Did you mean 'temperature'?"),
    ("evaluate --config unknown-key.yaml", "unknown-key.yaml: unknown setting 'modle'. Did you mean 'model'?"),
    (f"{DISTILL} --config many.yaml", "many.yaml: epochs: expected a number, got 'many'"),
    (f"{DISTILL} --config scalar.yaml", "scalar.yaml: weights: expected a list of 3 numbers, got 3"),
    (f"{DISTILL} --config two.yaml", "two.yaml: weights: expected 3 numbers, e.g. --weights 1 1 1, got 2"),
    (f"{DISTILL} --config long-list.yaml", "student: expected text, got the list ['a', 'b']"),
    (f"{DISTILL} --config twice.yaml", "'epochs' and 'num_train_epochs' are the same setting"),
    (f"{DISTILL} --config mapping.yaml", "max_length: expected a whole number, got the mapping {'a': 1}"),
    (f"{DISTILL} --config bool.yaml", "live: expected true or false, got 'maybe'"),
    (f"{DISTILL} --config list.yaml --config", "--config: expected a value, got none"),
]


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


def test_all_problems_are_reported_together(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    assert main(shlex.split(f"{DISTILL} --temperature 0 --train trian.tsv --output mine --max-length 0")) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "--temperature" in first
    assert second.startswith("also: ") and all(word in second for word in ("--max-length", "trian.tsv", "mine"))
