"""The leaderboard's files: the format of every task, from models whose classes are in another order."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from railkd.cli import main
from railkd.data import submission
from railkd.data.glue import GlueTask
from railkd.data.submission import SUBMISSIONS, Submission
from railkd.errors import RailkdError
from railkd.models.inference import predict_logits
from railkd.tasks import task_of

# File -> the official test file of its task, the columns of that, and the answers of the leaderboard (None: numbers).
THREE = ["entailment", "neutral", "contradiction"]
OFFICIAL: dict[str, tuple[str, list[str], list[str] | None]] = {
    "CoLA.tsv": ("CoLA/test.tsv", ["index", "sentence"], ["0", "1"]),
    "SST-2.tsv": ("SST-2/test.tsv", ["index", "sentence"], ["0", "1"]),
    "MRPC.tsv": ("MRPC/test.tsv", ["index", "#1 ID", "#2 ID", "#1 String", "#2 String"], ["0", "1"]),
    "STS-B.tsv": ("STS-B/test.tsv", ["index", "genre", "sentence1", "sentence2"], None),
    "QQP.tsv": ("QQP/test.tsv", ["id", "question1", "question2"], ["0", "1"]),
    "MNLI-m.tsv": ("MNLI/test_matched.tsv", ["index", "promptID", "sentence1", "sentence2"], THREE),
    "MNLI-mm.tsv": ("MNLI/test_mismatched.tsv", ["index", "promptID", "sentence1", "sentence2"], THREE),
    "AX.tsv": ("AX/AX.tsv", ["index", "sentence1", "sentence2"], THREE),
    "QNLI.tsv": ("QNLI/test.tsv", ["index", "question", "sentence"], ["entailment", "not_entailment"]),
    "RTE.tsv": ("RTE/test.tsv", ["index", "sentence1", "sentence2"], ["entailment", "not_entailment"]),
    "WNLI.tsv": ("WNLI/test.tsv", ["index", "sentence1", "sentence2"], ["0", "1"]),
}


def row_of(file: str) -> Submission:
    return next(row for row in SUBMISSIONS if row.file == file)


def test_every_file_of_the_leaderboard_is_a_row() -> None:
    assert {row.file for row in SUBMISSIONS} == OFFICIAL.keys()


def model_for(folder: Path, task: GlueTask) -> Path:
    """Make a tiny untrained model whose classes are in the reverse of the official order."""
    names = dict(enumerate(reversed(task.labels))) or {0: "LABEL_0"}
    problem = {} if task.labels else {"problem_type": "regression"}
    labels: dict[str, Any] = {"num_labels": len(names), "id2label": names, "label2id": {n: i for i, n in names.items()}}
    model, tokenizer = tiny.make_model(1, width=8, **labels, **problem), tiny.make_tokenizer()
    mean = predict_logits(model, tokenizer, tiny.text_rows(12), max_length=64).mean(axis=0)
    model.classifier.bias.data -= torch.from_numpy(mean)  # So that it predicts more than one class.
    return tiny.save(folder, model, tokenizer)


def numbered(folder: Path, columns: list[str], first: int = 100) -> list[str]:
    """Write rows numbered from ``first``, so that numbers of the file differ from line numbers."""
    texts = list(tiny.text_rows(12)["text"])
    lines = [
        "\t".join(
            str(first + i) if name in ("index", "id") else texts[i - number] for number, name in enumerate(columns)
        )
        for i in range(12)
    ]
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("\n".join(["\t".join(columns), *lines]) + "\n")
    return [str(first + i) for i in range(12)]


@pytest.mark.parametrize("file", OFFICIAL)
def test_a_test_file_becomes_the_file_of_the_leaderboard(file: str, tmp_path: Path) -> None:
    where, columns, known = OFFICIAL[file]
    task = row_of(file).task
    index = numbered(tmp_path / where, columns)
    model = model_for(tmp_path / "model", task)
    source, output = tmp_path / Path(where).parent, tmp_path / "out"
    flags = ["--model", str(model), "--test", str(source), "--quiet"]
    assert main(["predict", *flags, "--glue-submission", "--output", str(output)]) == 0
    assert [path.name for path in output.iterdir()] == [file]
    with (output / file).open() as lines:
        read = list(csv.DictReader(lines, delimiter="\t"))
    assert [row["index"] for row in read] == index and list(read[0]) == ["index", "prediction"]
    # The predictions of `railkd predict` for the same rows, translated to the leaderboard's words.
    plain = tmp_path / "plain.jsonl"
    flags[3] = str(tmp_path / where)
    assert main(["predict", *flags, "--output", str(plain)]) == 0
    predicted = [json.loads(line) for line in plain.read_text().splitlines()]
    if known is None:
        assert [float(row["prediction"]) for row in read] == [
            pytest.approx(min(5, max(0, row["score"])), abs=5e-4) for row in predicted
        ]
    else:
        words = dict(zip(task.labels, known, strict=True))
        assert [row["prediction"] for row in read] == [words[row["label"]] for row in predicted]
        assert len({row["prediction"] for row in read}) > 1  # Answers differ, so a wrong order would be noticed.


def test_a_folder_of_mnli_gives_both_files(tmp_path: Path) -> None:
    for stem in ("test_matched", "test_mismatched"):
        numbered(tmp_path / "mnli" / f"{stem}.tsv", ["index", "sentence1", "sentence2"])
    assert {row.file for row in submission.find(str(tmp_path / "mnli"))} == {"MNLI-m.tsv", "MNLI-mm.tsv"}
    one = submission.find(str(tmp_path / "mnli" / "test_mismatched.tsv"))
    assert [row.file for row in one] == ["MNLI-mm.tsv"]


def test_answers_are_matched_by_name_and_numbers_are_clipped() -> None:
    rte, sts = row_of("RTE.tsv"), row_of("STS-B.tsv")
    words = submission.check_model(rte, ["NOT-ENTAILMENT", "Entailment"], model="m")
    assert submission.format_answers(rte, np.array([[2.0, 1.0], [0.0, 1.0]]), words) == ["not_entailment", "entailment"]
    assert submission.format_answers(sts, np.array([[-0.2], [2.5], [5.4]]), {}) == ["0.000", "2.500", "5.000"]
    renamed = {"not_entailment": "no", "entailment": "yes"}
    assert submission.check_model(rte, ["no", "yes"], model="m", label_map=renamed) == {
        0: "not_entailment",
        1: "entailment",
    }


def check(row: Submission, names: list[str]) -> None:
    """Check a model as a job does before it predicts."""
    task_of(row.task.problem_type).check_outputs(names, model="'m'", where=row.name)
    submission.check_model(row, names, model="m")


@pytest.mark.parametrize(
    ("file", "names", "said"),
    [
        ("RTE.tsv", ["LABEL_0", "LABEL_1"], "Fix: --label-map"),
        ("AX.tsv", ["entailment", "not_entailment"], "without 'neutral' and 'contradiction'"),
        ("SST-2.tsv", ["negative", "neutral", "positive"], "'m' has neutral too"),
        ("STS-B.tsv", ["a", "b"], "has 2 classes"),
        ("CoLA.tsv", ["value"], "has one output"),
    ],
)
def test_a_model_of_another_task_is_refused(file: str, names: list[str], said: str) -> None:
    with pytest.raises(RailkdError, match=said):
        check(row_of(file), names)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere/RTE", "no such file or folder"),
        ("reviews", "not in a folder of a GLUE task"),
        ("RTE", "no test rows of RTE. Expected test.tsv"),
    ],
)
def test_a_path_without_test_rows_is_refused(path: str, said: str, tmp_path: Path) -> None:
    for name in ("reviews", "RTE"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.tsv").write_text("sentence\tlabel\na\t1\n")
    with pytest.raises(RailkdError, match=said):
        submission.find(str(tmp_path / path))
