"""The rows of a head belong to classes by name: they are reordered, or a new head is drawn, and a log line says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import set_seed

from models.families.table import FAMILIES, Family, make_model, make_tokenizer
from railkd import make_student
from railkd.cli import main
from railkd.errors import RailkdError
from railkd.models import Checkpoint, head_config, load_classifier
from railkd.models.heads import label_names, last_layer
from tiny import make_model as make_bert
from tiny import make_tokenizer as bert_tokenizer
from tiny import save, text_rows

CLASSES = ("contradiction", "entailment", "neutral", "Not-Sure")
TURNED = ("neutral", "not sure", "contradiction", "entailment")
ORDER = [2, 3, 0, 1]
by_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
#: Ways to start training from a checkpoint with other class names.
STARTS: dict[str, Callable[..., Any]] = {
    "whole": load_classifier,
    "cut": lambda source, **head: make_student(source, 4, **head),
}
by_start = pytest.mark.parametrize("start", STARTS.values(), ids=list(STARTS))


def trained(folder: Path, family: Family, names: tuple[str, ...] = CLASSES) -> Path:
    return save(folder, make_model(family, **head_config(names)), make_tokenizer(family))


@by_start
@by_family
@torch.no_grad()
def test_rows_follow_the_names_of_their_classes(
    family: Family, start: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = trained(tmp_path / "model", family)
    tokenizer = Checkpoint.find(folder).tokenizer
    inputs = dict(tokenizer(["a film", "the plot was very dull"], padding=True, return_tensors="pt"))
    before, caplog_before = load_classifier(folder).eval()(**inputs).logits, len(caplog.messages)
    model = start(folder, **head_config(TURNED))
    assert torch.equal(model.eval()(**inputs).logits, before[:, ORDER])
    assert label_names(model.config) == TURNED
    said = caplog.messages[caplog_before:]
    assert len(said) == 1 and "are reordered by name" in said[0] and "contradiction" in said[0]


@by_start
@by_family
def test_only_the_last_layer_of_a_head_for_other_classes_is_new(
    family: Family, start: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = trained(tmp_path / "model", family)
    before = load_classifier(folder).state_dict()
    found = []
    for _ in range(2):
        set_seed(7)
        caplog.clear()
        model = start(folder, **head_config(("joy", "anger", "fear", "neutral")))
        last = last_layer(model)
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert f"{last}.weight" in changed and all(name.startswith(f"{last}.") for name in changed)
        weight = model.state_dict()[f"{last}.weight"]
        assert weight.isfinite().all() and 0 < weight.std() < 3
        assert [last in line and "The head is new" in line for line in caplog.messages] == [True]
        found.append(weight)
    assert torch.equal(*found)  # drawn from the seed


#: Classes of the checkpoint, of the data, and the old row of each new one; None: a new head.
MATCHES: dict[str, tuple[tuple[str, ...], tuple[str, ...], list[int] | None]] = {
    "same": (("a", "b", "c"), ("a", "b", "c"), [0, 1, 2]),
    "turned": (("a", "b"), ("b", "a"), [1, 0]),
    "case and dashes": (("Not Bad", "BAD"), ("bad", "not-bad"), [1, 0]),
    "one name differs": (("a", "b", "c"), ("c", "b", "d"), None),
    "no names, numbers": (("LABEL_0", "LABEL_1", "LABEL_2"), ("2", "0", "1"), [2, 0, 1]),
    "no names, other numbers": (("LABEL_0", "LABEL_1"), ("1", "2"), None),
    "no names, words": (("LABEL_0", "LABEL_1"), ("neg", "pos"), None),
    "alike in the checkpoint": (("a b", "A_B"), ("a-b", "c"), None),
}


@by_start
@pytest.mark.parametrize("case", MATCHES)
def test_names_match_as_labels_do(case: str, start: Callable[..., Any], tmp_path: Path) -> None:
    theirs, ours, order = MATCHES[case]
    folder = trained(tmp_path / "model", FAMILIES["bert"], theirs)
    before = load_classifier(folder).classifier.weight
    after = start(folder, **head_config(ours)).classifier.weight
    if order is None:
        assert not any(torch.equal(row, old) for row in after for old in before)
    else:
        assert torch.equal(after, before[order])


def test_a_regressor_keeps_its_head(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save(tmp_path / "model", make_bert(num_labels=1, id2label={0: "score"}, label2id={"score": 0}))
    wanted = load_classifier(folder).classifier.weight
    for start in STARTS.values():
        assert torch.equal(start(folder, **head_config(())).classifier.weight, wanted)
    assert caplog.messages == []
    multi = load_classifier(folder, **head_config(("toxic",), problem_type="multi_label_classification"))
    assert not torch.equal(multi.classifier.weight, wanted) and "The head is new" in caplog.text


def test_a_head_of_one_class_is_kept_by_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = head_config(("Toxic",), problem_type="multi_label_classification")
    folder = save(tmp_path / "model", make_bert(**one))
    wanted = load_classifier(folder).classifier.weight
    for name, kept in (("toxic", True), ("rude", False)):
        for start in STARTS.values():
            caplog.clear()
            model = start(folder, **head_config((name,), problem_type="multi_label_classification"))
            assert torch.equal(model.classifier.weight, wanted) == kept == ("The head is new" not in caplog.text)


# ---- names in a config -----------------------------------------------------------------------------


NAMES: dict[str, tuple[dict[str, str], str]] = {
    "from one": ({"1": "neg", "2": "pos"}, "number its classes 0 and 1 .*, got 1 and 2"),
    "with a gap": ({"0": "neg", "2": "pos"}, "number its classes 0 and 1 .*, got 0 and 2"),
    "below zero": ({"-1": "neg", "0": "pos"}, "number its classes 0 and 1 .*, got -1 and 0"),
    "twins": ({"0": "pos", "1": "pos"}, "several classes named 'pos'"),
    "of three": ({"0": "a", "1": "b", "2": "a"}, "several classes named 'a'"),
}
VERBS = [
    "evaluate --model bad --test rows.jsonl",
    "predict --model bad --test rows.jsonl",
    "check --teacher bad --student-layers 2 --train rows.jsonl",
    "cache --teacher bad --train rows.jsonl --cache cache",
    "distill --teacher bad --student-layers 2 --train rows.jsonl --output out",
]


@pytest.mark.parametrize("names", NAMES)
def test_classes_that_are_not_numbered_or_named_are_refused(
    names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, said = NAMES[names]
    folder = save(tmp_path / "bad", make_bert(num_labels=len(table)), bert_tokenizer())
    config = json.loads((folder / "config.json").read_text())
    numbers = {name: int(number) for number, name in table.items()}
    (folder / "config.json").write_text(json.dumps(config | {"id2label": table, "label2id": numbers}))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in text_rows(8)))
    with pytest.raises(RailkdError, match=said):
        _ = Checkpoint.find(folder).labels
    monkeypatch.chdir(tmp_path)
    for verb in VERBS:
        assert main(verb.split()) == 2
        error = capsys.readouterr().err
        assert "id2label" in error and "Fix: correct id2label" in error, verb
    # Training gives the model the names of the data, and a head for them.
    model = load_classifier(folder, **head_config([f"class {i}" for i in range(len(table))]))
    assert model.num_labels == len(table)


def test_each_verb_that_starts_from_a_head_keeps_what_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint scores the same after a run that trains nothing, whatever the order of its classes."""
    rows = text_rows(24)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    teacher = save(tmp_path / "teacher", make_bert(), bert_tokenizer())
    monkeypatch.chdir(tmp_path)
    turned = load_classifier(teacher, **head_config(("pos", "neg")))
    save(tmp_path / "turned", turned, bert_tokenizer())
    still = "--train rows.jsonl --test rows.jsonl --max-steps 1 --learning-rate 1e-12 --no-bf16 --max-length 16"
    runs = {
        "f": f"finetune --model turned {still}",
        "d": f"distill --teacher teacher --student turned --shared-size 8 --live {still}",
        "s": f"distill --teacher teacher --student turned --student-layers 4 --shared-size 8 --live {still}",
    }
    scores = set()
    for folder in (teacher, "turned"):
        assert main(f"evaluate --model {folder} --test rows.jsonl --max-length 16 --output score.json".split()) == 0
        scores.add(json.loads(Path("score.json").read_text())["rows"]["accuracy"])
    for name, words in runs.items():
        assert main([*words.split(), "--output", name]) == 0, capsys.readouterr().err
        scores.add(json.loads((tmp_path / name / "metrics.json").read_text())["metrics"]["rows"]["accuracy"])
        shutil.rmtree(tmp_path / name)
    assert len(scores) == 1
