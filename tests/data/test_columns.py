"""Columns are found by common names, or asked for by name."""

from __future__ import annotations

from typing import Any

import pytest

from railkd.data.columns import find_columns
from railkd.errors import RailkdError


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("sentence label", "text: sentence; labels: label"),
        ("source label original_mark sentence", "text: sentence; labels: label"),
        ("index sentence1 sentence2 label", "text: sentence1 + sentence2; labels: label"),
        ("index question sentence label", "text: question + sentence; labels: label"),
        ("id qid1 qid2 question1 question2 is_duplicate", "text: question1 + question2; labels: is_duplicate"),
        ("index genre source1 source2 sentence1 sentence2 score", "text: sentence1 + sentence2; labels: score"),
        ("index sentence1 sentence2 label1 label2 gold_label", "text: sentence1 + sentence2; labels: gold_label"),
        ("premise hypothesis label", "text: premise + hypothesis; labels: label"),
        ("sentence label fine_label", "text: sentence; labels: label"),
        ("label label_text text", "text: text; labels: label"),
        ("Review Stars", "text: Review; labels: Stars"),
        ("hypothesis text", "text: text; labels: none"),
    ],
)
def test_conventions(names: str, words: str) -> None:
    assert find_columns(names.split()).describe() == words


def test_columns_of_mrpc_have_spaces_in_their_names() -> None:
    found = find_columns(["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"])
    assert found.describe() == "text: #1 String + #2 String; labels: Quality"


@pytest.mark.parametrize(
    ("asked", "text", "label"),
    [
        ({"text": ["body"]}, ("body",), "label"),
        ({"text": ["body", "text"]}, ("body", "text"), "label"),
        ({"label": "shop"}, ("text",), "shop"),
        ({"text": ["label"]}, ("label",), None),
        ({"text": ["shop"], "label": "body"}, ("shop",), "body"),
    ],
)
def test_columns_that_are_asked_for_win(asked: dict[str, Any], text: tuple[str, ...], label: str | None) -> None:
    found = find_columns(["body", "text", "label", "shop"], **asked)
    assert (found.text, found.label) == (text, label)


@pytest.mark.parametrize(
    ("names", "asked", "parts"),
    [
        ("a b", {}, ["no column has a common name of a text column", "'a' and 'b'", "--text-column"]),
        (
            "text label",
            {"text": ["txt"]},
            ["--text-column", "no column 'txt'", "'text' and 'label'", "Did you mean 'text'?"],
        ),
        ("text label", {"label": "Label"}, ["--label-column", "no column 'Label'", "Did you mean 'label'?"]),
        ("text label", {"label": "text"}, ["no column has a common name"]),
        ("a b c", {"text": ["a", "b", "c"]}, ["expected one text column, or two for sentence pairs, got 3"]),
        ("a b", {"text": ["a", "a"]}, ["'a' is asked for twice"]),
        ("a b", {"text": ["a"], "label": "a"}, ["'a' is asked for twice"]),
        (" ".join(f"c{i}" for i in range(500)), {}, ["'c19' and 480 more"]),
    ],
)
def test_bad_columns_are_refused(names: str, asked: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(RailkdError) as error:
        find_columns(names.split(), **asked)
    assert all(part in str(error.value) for part in parts), str(error.value)
    assert "\n" not in str(error.value)
