"""A teacher that is a file: every form of answers, the laws that it shares with a cache, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from railkd.data.keys import KEY, example_key, keys_of
from railkd.data.reading import Reading
from railkd.errors import RailkdError
from railkd.functional import kd_loss
from railkd.objectives import Signals, build_objective
from railkd.teacher import TeacherCache, TeacherLabels
from railkd.teacher.label_forms import FLOOR
from tiny import losses, make_model, make_trainer

P = "probabilities"
TEXTS = ["a good film", "a dull plot", "so slow", "very bright music"]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as jsonl, tsv or csv."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    return path


def answers(
    folder: Path, cells: Sequence[dict[str, Any]], name: str = "answers.jsonl", **options: Any
) -> TeacherLabels:
    rows = [{"text": text, **cell} for text, cell in zip(TEXTS, cells, strict=False)]
    return TeacherLabels.read(str(write(folder / name, rows)), **options)


def outputs(teacher: TeacherLabels | TeacherCache, texts: Sequence[str] = TEXTS) -> np.ndarray:
    return np.asarray(teacher.gather(np.array([example_key(text) for text in texts]), None)[0])


def shares(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


# ---- laws ------------------------------------------------------------------------------------------------------------


def file_of(folder: Path, form: str, rows: Dataset, logits: np.ndarray) -> tuple[Path, dict[str, Any]]:
    """Write a cache's outputs as a file of answers; return it and the options to read it with."""
    p = shares(logits.astype(np.float64))
    cells: dict[str, list[dict[str, Any]]] = {
        "logits.jsonl": [{"logits": {"neg": float(z[0]), "pos": float(z[1])}} for z in logits],
        "columns.tsv": [{"prob_neg": repr(float(q[0])), "prob_pos": repr(float(q[1]))} for q in p],
        "turned.jsonl": [{"probabilities": {"pos": float(q[1]), "neg": float(q[0])}} for q in p],
        "lists.jsonl": [{"probabilities": [float(q[1]), float(q[0])]} for q in p],
        "lists.csv": [{"logits": json.dumps([float(z[0]), float(z[1])])} for z in logits],
    }
    names = {"lists.jsonl": ["pos", "neg"], "lists.csv": ["neg", "pos"]}
    whole = [{"text": text, **cell} for text, cell in zip(rows["text"], cells[form], strict=True)]
    return write(folder / form, whole[::-1]), {"labels": names.get(form, ()), "order": ("neg", "pos")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: TeacherCache, rows: Dataset, tokenizer: Any) -> Any:
    folder = tmp_path_factory.mktemp("trained")

    def train(teacher: Any, **settings: Any) -> tuple[list[float], np.ndarray]:
        settings = {"method": "kd", "num_train_epochs": 1} | settings
        trainer = make_trainer(folder, teacher, rows, tokenizer, student=make_model(2, dropout=0.0), **settings)
        trainer.train()
        model = trainer.model.student.eval()
        with torch.no_grad():
            batch = tokenizer(rows["text"][:], return_tensors="pt", padding=True)
            return losses(trainer), model(**batch).logits.numpy()

    return train


@pytest.fixture(scope="module")
def by_cache(trained: Any, cache: TeacherCache) -> tuple[list[float], np.ndarray]:
    result: tuple[list[float], np.ndarray] = trained(cache)
    return result


@pytest.mark.parametrize("form", ["logits.jsonl", "columns.tsv", "turned.jsonl", "lists.jsonl", "lists.csv"])
def test_a_file_written_from_a_cache_answers_as_the_cache(
    form: str, tmp_path: Path, cache: TeacherCache, rows: Dataset
) -> None:
    logits = cache.gather(keys_of(rows), None)[0]
    file, options = file_of(tmp_path, form, rows, logits)
    teacher = TeacherLabels.read(str(file), **options)
    assert teacher.info.labels == ("neg", "pos") and teacher.rows == 22
    np.testing.assert_allclose(shares(outputs(teacher, rows["text"])), shares(logits), atol=1e-6)


def test_a_file_written_from_a_cache_trains_the_student_of_that_cache(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, trained: Any, by_cache: Any
) -> None:
    file, options = file_of(tmp_path, "columns.tsv", rows, cache.gather(keys_of(rows), None)[0])
    teacher = TeacherLabels.read(str(file), **options)
    found = trained(teacher)
    np.testing.assert_allclose(found[0], by_cache[0], atol=1e-6)
    np.testing.assert_allclose(found[1], by_cache[1], atol=1e-6)
    other = TeacherLabels(file, teacher.info, teacher.keys, -teacher.outputs, "logits")
    assert np.abs(trained(other)[1] - by_cache[1]).max() > 1e-4  # a loss that ignored the teacher would fail here


def test_a_row_without_an_answer_teaches_by_its_label_alone() -> None:
    torch.manual_seed(0)
    student = torch.randn(5, 3, requires_grad=True)
    teacher, there = torch.randn(5, 3), torch.tensor([True, False, True, True, False])
    objective = build_objective("kd", (2, 4), (2, 4), weights=[0, 1, 0], temperature=2.0)
    loss, _ = objective(Signals(student), Signals(teacher, answered=there))
    loss.backward()
    assert torch.allclose(loss, kd_loss(student[there], teacher[there], temperature=2.0) * 3 / 5)
    assert student.grad is not None
    assert student.grad[there].abs().min() > 1e-4 and student.grad[~there].abs().max() < 1e-7


def test_training_rows_without_an_answer_are_passed_over(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, trained: Any, by_cache: Any
) -> None:
    file, options = file_of(tmp_path, "logits.jsonl", rows, cache.gather(keys_of(rows), None)[0])
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:8]))
    some = TeacherLabels.read(str(file), **options)
    assert some.rows == 8 and len(some.missing(keys_of(rows))) == 14
    found = trained(some)
    assert np.isfinite(found[0]).all() and np.abs(found[1] - by_cache[1]).max() > 1e-4


def test_a_file_is_kept_as_a_cache_that_answers_alike(tmp_path: Path) -> None:
    teacher = answers(tmp_path, [{"votes": ["yes", "no"]}, {"votes": ["no"]}, {"votes": []}, {"votes": ["yes"]}])
    assert teacher.rows == 3 and teacher.blank == 1
    assert teacher.described.endswith("votes in the column 'votes' (yes, no); 1 row without an answer left out")
    teacher.store(tmp_path / "cache")
    stored = TeacherCache.open(tmp_path / "cache")
    stored.verify()
    keys = np.array([example_key(text) for text in TEXTS])
    assert stored.gaps and stored.poolings == () and stored.info == teacher.info
    for one, two in zip(stored.answers(keys, None), teacher.answers(keys, None), strict=True):
        np.testing.assert_array_equal(one, two)
    batch = {KEY: torch.from_numpy(keys)}
    answered = stored(batch, None).answered
    assert answered is not None and answered.tolist() == [True, True, False, True]
    with pytest.raises(RailkdError, match="file of answers has no states"):
        stored.check_pooling("mean")
    teacher.store(tmp_path / "cache")  # again: nothing to do
    with pytest.raises(RailkdError, match="holds states of another teacher"):
        answers(tmp_path, [{"votes": ["yes"]}, {"votes": ["no"]}]).store(tmp_path / "cache")
    with pytest.raises(RailkdError, match="examples are not in the cache"):
        stored.gather(keys, None)
    with pytest.raises(RailkdError, match="examples have no answer in"):
        teacher.gather(keys, None)


def test_the_identity_is_the_content_and_not_the_order_of_the_rows(tmp_path: Path) -> None:
    cells = [{"logits": {"a": 1.0, "b": 0.5}}, {"logits": {"a": 0.1, "b": 2.0}}]
    one = answers(tmp_path, cells, "one.jsonl")
    lines = (tmp_path / "one.jsonl").read_text().splitlines()
    (tmp_path / "two.jsonl").write_text("\n".join(lines[::-1]) + "\n")
    columns = [{f"logit_{name}": number for name, number in cell["logits"].items()} for cell in cells]
    assert TeacherLabels.read(str(tmp_path / "two.jsonl")).identity == one.identity
    assert answers(tmp_path, columns, "three.csv").identity == one.identity
    changed = answers(tmp_path, [cells[0], {"logits": {"a": 0.1, "b": 2.1}}], "four.jsonl")
    assert changed.identity != one.identity


# ---- forms -----------------------------------------------------------------------------------------------------------


def log(*rows: Sequence[float]) -> np.ndarray:
    return np.log(np.maximum(np.array(rows), FLOOR))


FORMS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], tuple[str, ...], np.ndarray]] = {
    "votes": (
        [{"votes": ["b", "a", "b", "b"]}, {"votes": ["a"]}],
        {"labels": ["a", "b"]},
        ("a", "b"),
        log([0.25, 0.75], [1, 0]),
    ),
    "votes in a text": ([{"votes": "b|a|b"}, {"votes": "a"}], {}, ("b", "a"), log([2 / 3, 1 / 3], [0, 1])),
    "votes counted": ([{"votes": {"1": 3, "0": 1}}, {"votes": {"0": 2}}], {}, ("1", "0"), log([0.75, 0.25], [0, 1])),
    "votes of numbers": ([{"votes": [1, 0, 1]}, {"votes": [0]}], {}, ("1", "0"), log([2 / 3, 1 / 3], [0, 1])),
    "a label left out": (
        [{"probabilities": {"a": 1}}, {"probabilities": {"b": 0.75, "c": 0.25}}],
        {},
        ("a", "b", "c"),
        log([1, 0, 0], [0, 0.75, 0.25]),
    ),
    "hard labels": ([{"label": "no"}, {"label": "yes"}], {}, ("no", "yes"), log([1, 0], [0, 1])),
    "smoothed": (
        [{"label": "no"}, {"label": "yes"}],
        {"smoothing": 0.2, "labels": ["yes", "no", "maybe"]},
        ("yes", "no", "maybe"),
        log([0.2 / 3, 0.8 + 0.2 / 3, 0.2 / 3], [0.8 + 0.2 / 3, 0.2 / 3, 0.2 / 3]),
    ),
    "renamed": (
        [{"probabilities": {"0": 0.5, "1": 0.5}}, {"probabilities": {"0": 1}}],
        {"reading": Reading(label_map={"0": "bad", "1": "good"})},
        ("bad", "good"),
        log([0.5, 0.5], [1, 0]),
    ),
    "logits of merged labels": (
        [{"logits": {"n": 2.0, "c": 2.0, "e": 3.0}}, {"logits": {"n": -900.0, "c": -900.0, "e": 900.0}}],
        {"reading": Reading(label_map={"n": "no", "c": "no", "e": "yes"})},
        ("no", "yes"),
        np.array([[2 + np.log(2), 3], [-900 + np.log(2), 900]]),
    ),
    "logits of two spellings": (
        [{"logits": {"Pos": 2.0, "neg": 1.0}}, {"logits": {"pos": 3.0, "neg": -1.0}}],
        {"reading": Reading(label_map={"Pos": "pos"})},
        ("pos", "neg"),
        np.array([[2, 1], [3, -1]]),
    ),
    "two spellings of any number of labels": (
        [{P: {"Pos": 0.8, "neg": 0.5}}, {P: {"pos": 0.2, "neg": 0.5}}],
        {"reading": Reading(label_map={"Pos": "pos"}), "problem_type": "multi-label"},
        ("pos", "neg"),
        np.array([[np.log(4), 0], [-np.log(4), 0]]),
    ),
    "numbers": ([{"score": 1.5}, {"score": -0.25}], {}, ("LABEL_0",), np.array([[1.5], [-0.25]])),
    "any number of labels": (
        [{"probabilities": {"x": 0.8, "y": 0.5}}, {"probabilities": {"x": 0.1}}],
        {"problem_type": "multi-label"},
        ("x", "y"),
        np.array([[np.log(4), 0], [np.log(1 / 9), np.log(FLOOR / (1 - FLOOR))]]),
    ),
    "lists of labels": (
        [{"labels": ["x", "y"]}, {"labels": ["y"]}],
        {"smoothing": 0.5},
        ("x", "y"),
        np.log([[3, 3], [1 / 3, 3]]),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_becomes_the_outputs_of_a_model(form: str, tmp_path: Path) -> None:
    cells, options, names, wanted = FORMS[form]
    teacher = answers(tmp_path, cells, **options)
    assert teacher.info.labels == names
    np.testing.assert_allclose(outputs(teacher, TEXTS[:2]), wanted, atol=1e-5)


def test_merged_labels_have_the_probability_of_their_parts_in_every_form(tmp_path: Path) -> None:
    p = np.random.default_rng(0).dirichlet([1, 1, 1], size=len(TEXTS))
    merged = {"reading": Reading(label_map={"b": "a"})}
    for form, numbers in ((P, p), ("logits", np.log(p) + 3)):
        teacher = answers(tmp_path, [{form: dict(zip("abc", row, strict=True))} for row in numbers.tolist()], **merged)
        np.testing.assert_allclose(shares(outputs(teacher)), np.stack([p[:, 0] + p[:, 1], p[:, 2]], axis=1), atol=1e-6)


def test_the_files_of_predict_are_read_as_they_are(tmp_path: Path) -> None:
    rows = [{"index": 0, "label": "neg", "score": 0.75, "logit_neg": 1.2, "logit_pos": 0.1}] * 2
    both = [row | {"prob_neg": 0.75, "prob_pos": 0.25} for row in rows]
    mapping = [row | {"probabilities": {"neg": 0.75, "pos": 0.25}} for row in rows]
    for name, cells in (("one.tsv", both), ("two.csv", both), ("three.jsonl", mapping)):
        teacher = answers(tmp_path, cells, name)
        assert teacher.identity.config["form"] == "probabilities"
        np.testing.assert_allclose(shares(outputs(teacher, TEXTS[:2])), [[0.75, 0.25]] * 2, atol=1e-6)
    assert answers(tmp_path, rows, "four.tsv").identity.config["form"] == "logits"


def test_numbers_as_labels_beside_scores_are_asked_about_and_other_labels_are_not(tmp_path: Path) -> None:
    def rows(*labels: Any) -> list[dict[str, Any]]:
        return [{"index": i, "label": label, "score": 0.75} for i, label in enumerate(labels)]

    for name in ("a.tsv", "b.jsonl"):
        with pytest.raises(
            RailkdError, match=r"column 'label' or 'score'\? Fix: give --label-column or --problem-type"
        ):
            answers(tmp_path, rows(0, 1), name)
        with pytest.raises(RailkdError, match="column 'label' or 'score'"):
            answers(tmp_path, rows(0, None), name)
        for options in ({"reading": Reading(label=("label",))}, {"problem_type": "classification"}):
            assert answers(tmp_path, rows(0, 1), name, **options).info.labels == ("0", "1")
        for options in ({"reading": Reading(label=("score",))}, {"problem_type": "regression"}):
            assert outputs(answers(tmp_path, rows(0, 1), name, **options), TEXTS[:2]).tolist() == [[0.75], [0.75]]
        assert answers(tmp_path, rows("no", "yes"), name).info.labels == ("no", "yes")
        assert outputs(answers(tmp_path, rows(None, None), name), TEXTS[:2]).tolist() == [[0.75], [0.75]]
    written = [{"index": i, "score": 0.5, "input_label": i, "stars": i} for i in range(2)]  # as predict does
    assert outputs(answers(tmp_path, written, "own.tsv"), TEXTS[:2]).tolist() == [[0.5], [0.5]]


def test_pairs_of_texts_are_matched_as_pairs(tmp_path: Path) -> None:
    rows = [{"text": "so good", "text_pair": text, "prob_a": 0.5, "prob_b": 0.5} for text in TEXTS]
    teacher = TeacherLabels.read(str(write(tmp_path / "pairs.csv", rows)))
    keys = np.array([example_key("so good", TEXTS[0]), example_key("so good")])
    assert (teacher.find(keys) >= 0).tolist() == [True, False]


# ---- what is refused -------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "sum": ([{P: {"a": 0.7, "b": 0.2}}], {}, r"row 1: expected probabilities with a sum of 1, got 0\.9"),
    "negative": ([{P: {"a": 1.5, "b": -0.5}}], {}, "row 1: expected probabilities of 0 or more, got -0.5"),
    "nan": ([{P: {"a": 1.0, "b": float("nan")}}], {}, "row 1: expected a number for 'b', got nan"),
    "infinite": ([{"logits": {"a": float("inf"), "b": 0.0}}], {}, "row 1: expected a number for 'a', got inf"),
    "text": ([{"prob_a": "much", "prob_b": 0.5}], {}, "row 1: expected a number for 'a', got 'much'"),
    "unknown label": ([{P: {"a": 0.5, "c": 0.5}}], {"labels": ["a", "b"]}, "the label 'c' is not one of 'a' and 'b'"),
    "unknown vote": ([{"votes": ["a", "x"]}], {"labels": ["a", "b"]}, "row 1: the label 'x' is not one of"),
    "unknown hard label": ([{"label": "x"}, {"label": "a"}], {"labels": ["a", "b"]}, r"got 'x' too\. Fix"),
    "list without order": ([{P: [0.5, 0.5]}], {}, "expected their order from --labels a,b,c, got a list of 2"),
    "list too long": ([{P: [0.2, 0.3, 0.5]}], {"labels": ["a", "b"]}, "expected 2, as many as --labels names, got a"),
    "no mapping": ([{P: 0.5}], {}, "row 1: expected a mapping of labels to numbers, or a list, got 0.5"),
    "a logit left out": ([{"logits": {"a": 1.0, "b": 0}}, {"logits": {"a": 1.0}}], {}, "row 2: expected the logit"),
    "one label": ([{P: {"a": 1.0}}], {}, "expected the probabilities of 2 labels or more, got those of 'a'"),
    "a part left out": (
        [{"logits": {"n": 1.0, "c": 0, "e": 0}}, {"logits": {"c": 1.0, "e": 0}}],
        {"reading": Reading(label_map={"n": "no", "c": "no"})},
        "row 2: expected a logit for each of 'n' and 'c', got 1",
    ),
    **{
        f"several labels merged, {form}": (
            [{form: {"a": 0.5, "b": 0.25}}],
            {"reading": Reading(label_map={"b": "a"}), "problem_type": "multi-label"},
            f"expected one name in the file for each label, .* got 'a' and 'b' for 'a' .* The {form} do not say",
        )
        for form in (P, "logits")
    },
    "no answer": ([{P: None}, {P: None}], {}, "no row has an answer|expected a mapping|labels or more"),
    "no column": ([{"id": 1}], {}, "expected a column 'probabilities', 'logits' or 'votes'"),
    "negative votes": ([{"votes": {"a": 2, "b": -3}}], {}, r"row 1: expected counts of votes with a sum above 0"),
    "votes of lists": ([{"votes": [["a"], ["b"]]}], {}, "row 1: expected names of labels as votes, got"),
    "votes of many": ([{"votes": ["a", "b"]}], {"problem_type": "multi-label"}, "votes are not the answers of multi"),
    "numbers wanted": ([{P: {"a": 0.5, "b": 0.5}}], {"problem_type": "regression"}, "not the answers of regression"),
    "above one": ([{P: {"a": 1.2}}], {"problem_type": "multi-label"}, "row 1: expected probabilities up to 1, got 1.2"),
    "smoothed shares": ([{P: {"a": 0.5, "b": 0.5}}], {"smoothing": 0.1}, "--label-smoothing spreads hard labels"),
    "smoothed numbers": ([{"score": 0.5}, {"score": 1.5}], {"smoothing": 0.1}, "are for classes, got numbers in"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_answers_are_refused_in_words(what: str, tmp_path: Path) -> None:
    cells, options, message = BAD[what]
    with pytest.raises(RailkdError, match=message) as caught:
        answers(tmp_path, cells, **options)
    assert "answers.jsonl" in str(caught.value) or what == "smoothed shares"


def test_all_problems_are_named_at_once_with_their_rows(tmp_path: Path) -> None:
    good = {P: {"a": 0.25, "b": 0.75}}
    cells = [good, {P: {"a": 0.5}}, {P: {"a": 1.25, "b": -0.25}}, good]
    with pytest.raises(RailkdError) as caught:
        answers(tmp_path, cells)
    assert [part in str(caught.value) for part in ("row 1:", "row 2:", "row 3:", "row 4:")] == [
        False,
        True,
        True,
        False,
    ]
    many = [{"text": str(number), P: {"a": 0.5}} for number in range(50)]
    with pytest.raises(RailkdError, match="row 20: .*; and 30 more. Fix"):
        TeacherLabels.read(str(write(tmp_path / "many.jsonl", many)))


def test_a_text_with_unlike_answers_is_refused_and_with_equal_ones_counts_once(tmp_path: Path) -> None:
    rows = [{"text": text, "prob_a": p, "prob_b": 1 - p} for text, p in (("x", 0.5), ("y", 0.25), ("x", 0.5), ("z", 1))]
    assert TeacherLabels.read(str(write(tmp_path / "equal.csv", rows))).rows == 3
    rows[2] |= {"prob_a": 0.75, "prob_b": 0.25}
    with pytest.raises(RailkdError, match="row 3: has the text of row 1 and another answer"):
        TeacherLabels.read(str(write(tmp_path / "unlike.csv", rows)))


@pytest.mark.parametrize("method", ["rail-kd-l", "rail-kd-w", "codir", "pkd-skip"])
def test_a_method_that_reads_states_refuses_a_file_and_names_those_that_do_not(
    method: str, tmp_path: Path, rows: Dataset, tokenizer: Any
) -> None:
    teacher = answers(tmp_path, [{P: {"neg": 0.5, "pos": 0.5}}])
    with pytest.raises(RailkdError, match="no states of blocks. Fix: --method kd or recommended"):
        make_trainer(tmp_path / "out", teacher, rows, tokenizer, student=make_model(2), method=method)
    with pytest.raises(RailkdError, match="got none to 22 rows. Fix: check that both files hold the same texts"):
        make_trainer(tmp_path / "out", teacher, rows, tokenizer, student=make_model(2), method="kd")
