"""A model that brings Python code of its own: refused by every verb, taken the whole way with --trust-remote-code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny
from faults.driver import Driver
from faults.runs import room

CODE = """
from pathlib import Path
from transformers import BertConfig, BertForSequenceClassification
Path("ran").touch()
print("printed by the code of the model")
class MineConfig(BertConfig):
    model_type = "mine"
class MineForSequenceClassification(BertForSequenceClassification):
    config_class = MineConfig
"""
DATA = ["--train", "train.tsv", "--max-length", 16]
TRAINING = [*DATA, "--epochs", 1, "--no-bf16", "--eval", "dev.tsv"]
DISTILLING = ["--student-layers", 2, "--shared-size", 8, "--allow-weak-teacher", "--cache", "cache"]
#: In this order each reads what one before it wrote. verb -> words, without the model's own.
VERBS = {
    "finetune": ["--model", "mine", *TRAINING, "--output", "tuned"],
    "cache": ["--teacher", "tuned/model", *DATA, "--cache", "cache", "--dtype", "float32"],
    "distill": ["--teacher", "tuned/model", *TRAINING, *DISTILLING, "--output", "out"],
    "evaluate": ["--model", "out/student", "--test", "dev.tsv"],
    "predict": ["--model", "out/student", "--test", "dev.tsv", "--output", "said.tsv"],
    "check": ["--teacher", "tuned/model", "--student-layers", 2, *DATA, "--eval", "dev.tsv", "--allow-weak-teacher"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """A BERT under another name, whose classes are in a file beside its weights."""
    folder = room(base, tmp_path_factory.mktemp("code") / "run")
    mine = tiny.save(folder / "mine", tiny.make_model(3, width=8), tiny.make_tokenizer())
    config = json.loads((mine / "config.json").read_text())
    config |= {"model_type": "mine", "architectures": ["MineForSequenceClassification"]}
    named = {"AutoConfig": "mine.MineConfig"}
    named["AutoModelForSequenceClassification"] = "mine.MineForSequenceClassification"
    (mine / "config.json").write_text(json.dumps(config | {"auto_map": named}))
    (mine / "mine.py").write_text(CODE)
    return folder


@pytest.mark.parametrize("verb", VERBS)
def test_code_runs_only_where_the_user_says_so_and_that_is_said(folder: Path, railkd: Driver, verb: str) -> None:
    """The student of such a model takes the code along: the verbs after distill load it from the student's folder."""
    words, ran = VERBS[verb], folder / "ran"
    ran.unlink(missing_ok=True)
    code, said = railkd(folder, verb, *words)
    assert code == 2 and not ran.exists(), said
    assert "brings Python code of its own" in said and "--trust-remote-code" in said and "Traceback" not in said
    code, said = railkd(folder, verb, *words, "--trust-remote-code", "--quiet")
    assert code == 0 and ran.exists() and "printed by the code" not in said, said
    lines = [line for line in said.splitlines() if line.startswith("trust_remote_code: ")]
    assert lines == [f"trust_remote_code: loading the model '{words[1]}' runs Python code of: {words[1]}"]


def test_the_choice_is_kept_with_the_run_and_the_code_with_the_student(folder: Path) -> None:
    assert "trust_remote_code: true" in (folder / "out" / "config.yaml").read_text()
    assert (folder / "out" / "student" / "mine.py").read_text() == CODE
