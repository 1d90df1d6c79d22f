"""Rows on their way into training: whose tokens they are, what their labels mean, how long they may be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from transformers import AutoConfig, AutoModelForSequenceClassification

import tiny
from railkd.data.keys import KEY
from railkd.data.tokens import keyed_tokens
from railkd.errors import RailkdError
from railkd.functional import UNLABELLED
from railkd.models.limits import check_length, position_limit
from railkd.teacher.protocol import TeacherInfo
from railkd.training.pairing import check_labels
from railkd.training.prepare import Preparer

TEXTS = ["a good film", "the plot was dull", "so slow"]


@pytest.fixture
def others() -> Any:
    """A tokenizer that numbers the words otherwise."""
    return tiny.make_tokenizer([*reversed(tiny.WORDS)])


def preparer(tokenizer: Any, *, teacher: Any = None, config: dict[str, Any] | None = None, **settings: Any) -> Preparer:
    return Preparer(tiny.bert_config(**(config or {})), tokenizer, tiny.arguments("none", **settings), teacher)


def tokenised(tokenizer: Any, **columns: list[Any]) -> Dataset:
    """Rows as a user may have tokenised them."""
    inputs = keyed_tokens(Dataset.from_dict({"text": TEXTS}), tokenizer, max_length=16).inputs
    return Dataset.from_dict({**{name: lists.arrow() for name, lists in inputs.items()}, **columns})


# ---- whose tokens ------------------------------------------------------------------------------


def test_text_that_is_asked_for_is_tokenised_for_both(tokenizer: Any, others: Any) -> None:
    """Old tokens beside the text are fed to neither."""
    rows = tokenised(tokenizer, text=TEXTS, label=["neg", "pos", "neg"])
    fresh, _ = preparer(tokenizer, teacher=others).train(Dataset.from_dict({"text": TEXTS}))
    found, _ = preparer(tokenizer, teacher=others, text_columns=["text"]).train(rows)
    assert found["input_ids"][:] == fresh["input_ids"][:] and found["labels"][:] == [0, 1, 0]
    assert found["teacher_input_ids"][:] == fresh["teacher_input_ids"][:] != fresh["input_ids"][:]


def test_rows_tokenised_beforehand_are_for_one_tokenizer(tokenizer: Any, others: Any) -> None:
    rows = tokenised(tokenizer, **{KEY: TEXTS})
    with pytest.raises(RailkdError, match="live teacher whose tokenizer is not the student's; wanted .*; give the raw"):
        preparer(tokenizer, teacher=others).train(rows)
    same, _ = preparer(tokenizer, teacher=tiny.make_tokenizer()).train(rows)
    assert same["teacher_input_ids"][:] == rows["input_ids"][:]


@pytest.mark.parametrize("key", [{}, {KEY: ["a", "b", "c"]}, {KEY: [[1, 2]] * 3, "length": [9, 9, 9]}])
def test_rows_for_evaluation_need_no_key_and_their_labels_are_read(tokenizer: Any, key: dict[str, list[Any]]) -> None:
    rows = tokenised(tokenizer, label=["pos", "neg", None], **key)
    prepare = preparer(tokenizer)
    found = prepare.labelled(rows)
    assert found["labels"][:] == [1, 0, UNLABELLED] and found["input_ids"][:] == rows["input_ids"][:]
    assert all(len(pair) == 2 for pair in found[KEY])
    again = prepare.labelled(found.select([2, 0]))  # our own rows, or some of them, are left alone
    assert again["labels"][:] == [UNLABELLED, 1] and again["input_ids"][0] == rows["input_ids"][2]


def test_evaluation_of_rows_tokenised_beforehand(teacher_folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    text = tiny.text_rows()
    tokens = keyed_tokens(text, tokenizer, max_length=128)
    rows = Dataset.from_dict(
        {**{name: lists.arrow() for name, lists in tokens.inputs.items()}, "label": text["label"][:]}
    )
    student = tiny.make_small(teacher_folder, 3)
    trainer = tiny.make_trainer(tmp_path, None, text, tokenizer, student=student, method="finetune", eval_dataset=rows)
    named = rows.add_column(KEY, [f"row {i}" for i in range(len(rows))])
    losses = {trainer.evaluate(given)["eval_loss"] for given in (None, text, rows, named, trainer.train_dataset)}
    assert len(losses) == 1


def test_prepared_rows_know_no_other_name_for_their_labels(tokenizer: Any) -> None:
    prepare = preparer(tokenizer, label_column="mood", text_columns=["text"])
    found = prepare.labelled(Dataset.from_dict({"text": TEXTS, "mood": ["pos"] * 3}))
    assert prepare.labelled(found) is found
    stream = prepare.labelled(Dataset.from_dict({"text": TEXTS, "mood": ["pos"] * 3}).to_iterable_dataset())
    assert prepare.labelled(stream) is stream and [row["labels"] for row in stream] == [1, 1, 1]


# ---- labels ------------------------------------------------------------------------------------

NAMED, UNNAMED = {}, {"id2label": {0: "LABEL_0", 1: "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}  # type: ignore[var-annotated]
NAN = math.nan


def labelled(values: list[Any], kind: Any = None) -> Dataset:
    rows = Dataset.from_dict({"text": [f"a film {i}" for i in range(len(values))], "label": values})
    return rows if kind is None else rows.cast(Features({"text": Value("string"), "label": kind}))


@pytest.mark.parametrize("form", ["map", "stream", "torch"])
@pytest.mark.parametrize(
    ("config", "values", "kind", "wanted"),
    [
        (UNNAMED, [0, 1, -1], ClassLabel(names=["negative", "positive"]), [0, 1, UNLABELLED]),
        (NAMED, [0, 1, 0], ClassLabel(names=["pos", "neg"]), [1, 0, 1]),
        (UNNAMED, [0, 1, 0], ClassLabel(names=["LABEL_1", "LABEL_0"]), [1, 0, 1]),
        (NAMED, [0, 1, 0], ClassLabel(names=["Pos", "NEG"]), [1, 0, 1]),
        (NAMED, ["NEG", " Pos", ""], None, [0, 1, UNLABELLED]),
        (UNNAMED, ["1", "label 0", None], None, [1, 0, UNLABELLED]),
        (NAMED, [0.0, 1.0, NAN], None, [0, 1, UNLABELLED]),
        (NAMED, [0, 1, UNLABELLED], None, [0, 1, UNLABELLED]),
        (NAMED, [False, True, True], None, [0, 1, 1]),
    ],
)
def test_labels_mean_the_same_as_on_the_command_line(
    config: dict[str, Any], values: list[Any], kind: Any, wanted: list[int], form: str, tokenizer: Any
) -> None:
    rows: Any = labelled(values, kind)
    rows = rows.to_iterable_dataset() if form == "stream" else rows.with_format(form if form == "torch" else None)
    found = preparer(tokenizer, config=config).labelled(rows)
    assert [row["labels"] for row in found] == wanted


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        (["neg", "meh"], None, "'meh'"),
        (["0", "1"], None, "'0'"),  # text is a name
        ([0, 2], None, "2"),
        ([0.0, 0.5], None, "0.5"),
        ([1, 1], ClassLabel(names=["neg", "fine"]), "'fine'"),
        ([0.0, math.inf], None, "inf"),
    ],
)
def test_a_label_that_is_none_is_named_with_row_and_column(
    values: list[Any], kind: Any, said: str, tokenizer: Any
) -> None:
    row = 1 if kind or values[0] == "0" else 2
    with pytest.raises(RailkdError) as caught:
        preparer(tokenizer).labelled(labelled(values, kind))
    message = str(caught.value)
    expected = "expected one of the student's classes 'neg' and 'pos' or a number below 2"
    assert message.startswith(f"column 'label', row {row}: {expected}, got the label {said}.")
    assert "set id2label and label2id" in message and "rename_column" in message


def test_a_regression_label_that_is_not_a_number_is_named_by_row(tokenizer: Any) -> None:
    prepare = preparer(tokenizer, config={"id2label": {0: "score"}, "label2id": {"score": 0}})
    found = prepare.labelled(labelled(["0.5", "", "2"]))["labels"][:]
    assert found[0] == 0.5 and math.isnan(found[1]) and found[2] == 2
    with pytest.raises(
        RailkdError, match="column 'label', row 2: expected a number for a student of one output, got the label 'high'"
    ):
        prepare.labelled(labelled(["0.5", "high"]))


def test_several_labels_a_row_match_loosely(tokenizer: Any) -> None:
    prepare = preparer(tokenizer, config={"problem_type": "multi_label_classification"})
    assert prepare.labelled(labelled([["NEG"], ["pos", "neg"], []]))["labels"][:] == [[1, 0], [1, 1], [0, 0]]
    with pytest.raises(RailkdError, match="column 'label', row 2: expected one of .* got the label 'meh'"):
        prepare.labelled(labelled([["neg"], ["meh"]]))


# ---- teacher and student -----------------------------------------------------------------------


def info(problem_type: Any) -> TeacherInfo:
    return TeacherInfo(4, 16, ("neg", "pos"), problem_type, 128)


def test_a_student_that_says_nothing_takes_its_teachers_problem_type() -> None:
    student = tiny.bert_config()
    check_labels(student, info("single_label_classification"))
    assert student.problem_type is None
    check_labels(student, info("multi_label_classification"))
    assert student.problem_type == "multi_label_classification"


@pytest.mark.parametrize("ours", ["single_label_classification", "regression"])
def test_another_problem_type_is_refused(ours: str) -> None:
    student = tiny.bert_config(problem_type=ours)
    with pytest.raises(RailkdError, match=f"problem_type is {ours} and a teacher whose is multi_label.*; set the"):
        check_labels(student, info("multi_label_classification"))
    assert student.problem_type == ours


# ---- lengths -----------------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 12,
    "pad_token_id": 1,
}
MORE: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 8},
    "distilbert": {"hidden_dim": 32},
    "electra": {"embedding_size": 16},
    "convbert": {"embedding_size": 16},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 16},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
}
ENDING = ["albert", "bert", "camembert", "convbert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "gpt2"]
ENDING += ["megatron-bert", "mobilebert", "mpnet", "opt", "roberta", "roberta-prelayernorm", "xlm-roberta"]
ENDING += ["xlm-roberta-xl"]
LONGER = [("deberta-v2", {"position_biased_input": False}), ("llama", {}), ("modernbert", {}), ("t5", {})]


def reads(config: Any, tokens: int) -> None:
    model = AutoModelForSequenceClassification.from_config(config).eval()
    ids = torch.full((2, tokens), 5)
    with torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))


@pytest.mark.parametrize("kind", ENDING)
@pytest.mark.parametrize("pad", [0, 1])
def test_the_limit_is_where_a_model_crashes(kind: str, pad: int) -> None:
    config = AutoConfig.for_model(kind, **SMALL | MORE.get(kind, {}) | {"pad_token_id": pad})
    limit = position_limit(config)
    assert limit is not None and 9 <= limit <= 12
    reads(config, limit)
    with pytest.raises((IndexError, RuntimeError)):
        reads(config, limit + 1)


@pytest.mark.parametrize(("kind", "more"), LONGER)
def test_positions_that_do_not_end_are_not_refused(kind: str, more: dict[str, Any]) -> None:
    config = AutoConfig.for_model(kind, **SMALL | MORE.get(kind, {}) | more)
    assert position_limit(config) is None
    if kind != "t5":
        reads(config, 20)


def test_only_rows_that_are_longer_are_refused() -> None:
    config = tiny.bert_config()  # 64 positions
    check_length(config, np.array([3, 64]), 512, "the student")
    with pytest.raises(RailkdError, match=r"1 of 3 rows .*than the student takes \(up to 65 .*give --max-length 64"):
        check_length(config, np.array([3, 64, 65]), 512, "the student")


@pytest.mark.parametrize("part", ["train", "eval", "teacher"])
def test_a_trainer_refuses_rows_that_are_too_long(part: str, tokenizer: Any) -> None:
    long = Dataset.from_dict({"text": ["good " * 80, "bad"], "label": ["pos", "neg"]})
    config = tiny.bert_config()
    if part == "teacher":
        config.max_position_embeddings = 128
    prepare = Preparer(config, tokenizer, tiny.arguments("none"), tokenizer, tiny.bert_config())
    who = "the teacher" if part == "teacher" else "the student"
    with pytest.raises(RailkdError, match=f"longer than {who} takes .*wanted at most 64"):
        prepare.labelled(long) if part == "eval" else prepare.train(long)
    prepare.args.max_length = 64
    assert prepare.train(long)[0]["length"][:] == [64, 3]
