"""Commands whose teacher is a file of answers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import BertForSequenceClassification

import tiny
from bench.room import ALONE, prepare, table, texts
from bench.test_plan import plan
from jobs.commands import argv, railkd
from railkd.bench.contents import refuse_other_contents
from railkd.cli import main
from railkd.data.reading import Reading
from railkd.errors import RailkdError
from railkd.jobs.answers import read_teacher_labels
from railkd.jobs.options import CheckOptions
from railkd.jobs.run_folder import RunFolder
from railkd.records import RunRecord
from railkd.teacher import TeacherCache, TeacherLabels
from test_docs import code_blocks

ROOT = Path(__file__).resolve().parents[2]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained student, labelled rows, texts without labels, and votes of three raters on most of both."""
    folder = prepare(tmp_path_factory.mktemp("labels"))
    config = tiny.bert_config(2, dropout=0.0)
    config.id2label, config.label2id = {0: "LABEL_0", 1: "LABEL_1"}, {"LABEL_0": 0, "LABEL_1": 1}
    tiny.save(folder / "student", BertForSequenceClassification(config), tiny.make_tokenizer())
    more = texts(24, 5)
    (folder / "more.tsv").write_text("\n".join(["text", *more]) + "\n")
    rows = [line.split("\t") for line in (folder / "data/one/train.tsv").read_text().splitlines()[1:]]
    known = dict(rows)
    votes(folder / "votes.jsonl", [*list(known)[6:], *more[4:]])
    table(folder / "dev.tsv", 16, 64)
    votes(
        folder / "whole.jsonl",
        [*known, *(line.split("\t")[0] for line in (folder / "dev.tsv").read_text().splitlines()[1:])],
    )
    return folder


def votes(path: Path, found: Sequence[str]) -> None:
    lines = [
        {"text": text, "votes": ["pos", "pos", "neg"] if "good" in text else ["neg", "neg", "neg" if i % 2 else "pos"]}
        for i, text in enumerate(dict.fromkeys(found))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def words(here: Path, output: str, teacher: str, *more: object) -> list[str]:
    files = f"--student {here / 'student'} --train {here / 'data/one/train.tsv'} --eval {here / 'dev.tsv'}"
    settings = f"--epochs 1 --max-length 16 --no-bf16 --output {here / output}"
    return argv(f"distill {teacher}", files, settings, *more)


def test_votes_teach_a_student_and_their_cache_teaches_the_same_one(here: Path, capsys: Capture) -> None:
    more = "--method kd --unlabelled", here / "more.tsv"
    railkd(*words(here, "by-file", f"--teacher-labels {here / 'votes.jsonl'}", *more))
    said = capsys.readouterr().err
    assert "teacher labels: 62 texts of" in said and "votes in the column 'votes' (pos, neg)" in said
    assert "no answer to 6 of 48 training rows; their labels alone teach" in said
    assert "no answer to 4 of 24 unlabelled texts; they are left out" in said
    railkd("cache", "--from-labels", here / "votes.jsonl", "--cache", here / "cache")
    assert "teacher cache: 62 rows" in capsys.readouterr().err
    railkd(*words(here, "by-cache", f"--cache {here / 'cache'}", *more), "--quiet")
    one, two = (RunRecord.read(here / name / "metrics.json") for name in ("by-file", "by-cache"))
    assert one.metrics == two.metrics and one.labels == ["pos", "neg"] == two.labels
    losses = [[entry["loss"] for entry in record.curve if "loss" in entry] for record in (one, two)]
    assert losses[0] == losses[1] and len(losses[0]) > 1
    assert one.config["teacher_labels"] == str(here / "votes.jsonl")
    file = TeacherLabels.read(str(here / "votes.jsonl"))
    assert one.contents["teacher"] == file.identity.content() == two.contents["teacher"]
    assert TeacherCache.open(here / "cache").identity == file.identity


def test_check_judges_a_file_of_answers_beside_eval(here: Path, capsys: Capture) -> None:
    command = (
        f"check --student {here / 'student'} --train {here / 'data/one/train.tsv'} --eval {here / 'dev.tsv'} --json"
    )
    judged = {}
    for name in ("whole", "votes"):
        main(argv(command, f"--teacher-labels {here / name}.jsonl"))
        judged[name] = {found["title"]: found["detail"] for found in json.loads(capsys.readouterr().out)["findings"]}
    assert "on 16 rows" in " ".join(judged["whole"].values())
    assert judged["votes"]["teacher"] == "not checked: its file holds too few rows of --eval"


def test_a_student_of_the_labels_of_the_file_keeps_its_order(here: Path) -> None:
    read = TeacherLabels.read(str(here / "votes.jsonl"))
    turned = TeacherLabels.read(str(here / "votes.jsonl"), order=("neg", "pos"))
    assert read.info.labels == ("pos", "neg") and turned.info.labels == ("neg", "pos")
    assert (turned.outputs[:, ::-1] == read.outputs).all()


@pytest.mark.parametrize(
    ("labels", "asked", "kind"),
    [
        ([["a", "b"], [], ["a"]], None, "multi_label_classification"),
        ([["a", "b"], [], ["a"]], "classification", "single_label_classification"),
        (["a", "b", "a"], None, "single_label_classification"),
    ],
)
def test_the_training_rows_say_whether_logits_are_of_several_labels(
    labels: list[Any], asked: str | None, kind: str, tmp_path: Path
) -> None:
    """Logits do not tell: those of one label and those of several are any numbers."""
    for name, key, cells in (("train", "labels", labels), ("answers", "logits", [{"a": 1.0, "b": 2.0}] * 3)):
        lines = [json.dumps({"text": f"text {number}", key: cell}) for number, cell in enumerate(cells)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    options = CheckOptions(train=str(tmp_path / "train.jsonl"), problem_type=asked)
    assert read_teacher_labels(options, str(tmp_path / "answers.jsonl")).info.problem_type == kind


def test_a_grid_takes_a_file_of_answers_for_a_teacher(here: Path, tmp_path: Path) -> None:
    grid = {**ALONE, "teacher": {"labels": str(here / "votes.jsonl")}, "methods": ["finetune", "kd"]}
    jobs = plan(here, tmp_path / "run", {**grid, "students": [{"model": "base", "layers": 2}]})
    assert [(job.kind, job.arm, job.needs) for job in jobs] == [("distill", "finetune", ()), ("distill", "kd", ())]
    for job in jobs:
        options = job.request.options
        assert (options.teacher, options.cache) == (None, None) and options.teacher_labels == str(here / "votes.jsonl")


def test_tasks_that_read_other_columns_of_one_file_resume_each_with_its_own_answers(here: Path, tmp_path: Path) -> None:
    rows = (here / "data/one/train.tsv").read_text().splitlines()[1:]
    cells = [row.split("\t") for row in rows]
    file = tmp_path / "two.tsv"
    file.write_text("text\tone\tother\n" + "".join(f"{text}\t{name}\t{name[::-1]}\n" for text, name in cells))
    data = {"train": str(file), "test": [str(file)]}
    tasks = {column: {**data, "label_column": column} for column in ("one", "other")}
    grid = {**ALONE, "teacher": {"labels": str(file)}, "methods": ["kd"], "tasks": tasks}
    jobs = plan(here, tmp_path / "run", {**grid, "students": [{"model": str(here / "base"), "layers": 2}]})
    digests = {}
    for job in jobs:
        digests[job.task] = read_teacher_labels(job.request.options, str(file)).identity.content()
        folder = tmp_path / "out" / job.folder
        folder.mkdir(parents=True)
        RunFolder(folder).write_settings(job.request, {"teacher": digests[job.task]}, 1)
        assert RunFolder(folder).contents() == {"teacher": digests[job.task]}
    assert len(set(digests.values())) == 2
    refuse_other_contents(jobs, tmp_path / "out", {})
    file.write_text(file.read_text().replace("\tpos\t", "\tneg\t", 1))
    with pytest.raises(RailkdError, match="changed since"):
        refuse_other_contents(jobs, tmp_path / "out", {})


REFUSED = {
    "--method rail-kd-l": "--method rail-kd-l: Expected a method that reads outputs alone, got one that reads mean",
    "": "Fix: --method kd or recommended",  # the default method reads states too
    "--method kd --live": "--live has no effect with --teacher-labels",
    "--method kd --pooling mean": "--pooling has no effect with --teacher-labels",
    "--method kd --label-smoothing 1": "--label-smoothing: expected a share from 0 to 1, such as 0.1, got 1",
    "--method kd --labels pos": "the label 'neg' is not one of 'pos'",
    "--method kd --label-smoothing 0.1": "--label-smoothing spreads hard labels, but",
}


@pytest.mark.parametrize("more", REFUSED)
def test_flags_that_do_not_fit_a_file_are_refused(more: str, here: Path, capsys: Capture) -> None:
    assert main(words(here, "refused", f"--teacher-labels {here / 'votes.jsonl'}", more)) == 2
    assert REFUSED[more] in capsys.readouterr().err
    assert not (here / "refused").exists()


def test_a_missing_file_and_flags_without_one_are_refused(here: Path, capsys: Capture) -> None:
    assert main(words(here, "refused", "--teacher-labels vote.jsonl")) == 2
    assert "--teacher-labels vote.jsonl: no such file" in capsys.readouterr().err
    assert main(words(here, "refused", "--teacher base --labels a,b --student-layers 2")) == 2
    assert "--labels has no effect without --teacher-labels" in capsys.readouterr().err
    assert main(argv("cache --from-labels votes.jsonl --teacher base --cache out --bf16")) == 2
    said = capsys.readouterr().err
    assert "--teacher has no effect with --from-labels" in said and "--bf16 has no effect with --from-labels" in said


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--label-column verdikt", "'verdikt'.*Did you mean 'verdict'"),
        ("--text-column words", "'words'"),
        ("--label-column verdict --text-column wordz", "'wordz'"),
    ],
)
def test_a_column_that_a_file_lacks_is_refused_where_no_other_file_is_read(
    flag: str, said: str, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "answers.tsv"
    file.write_text("text\tlabel\tverdict\none\ta\tb\ntwo\tb\ta\n")
    assert main(argv(f"cache --from-labels {file} --cache {tmp_path / 'cache'}", flag)) == 2
    assert re.search(said, capsys.readouterr().err) and not (tmp_path / "cache").exists()
    # Beside training rows, whose columns the flags name, the file is read by common names.
    beside = TeacherLabels.read(str(file), reading=Reading(("words",), ("verdikt",)), beside=True)
    assert beside.rows == 2 and beside.form == "labels in the column 'label'"


def test_a_label_column_beside_probabilities_is_refused(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "answers.tsv"
    file.write_text("text\tlabel\tprob_a\tprob_b\none\ta\t0.5\t0.5\n")
    assert main(argv(f"cache --from-labels {file} --cache {tmp_path / 'cache'} --label-column label")) == 2
    assert "--label-column names a column of labels, but" in capsys.readouterr().err


def test_the_example_of_the_document_makes_a_file_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chat_replies.jsonl").write_text((ROOT / "examples" / "chat_replies.jsonl").read_text())
    (example,) = code_blocks("teachers.md")
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    exec(compile(example, "docs/teachers.md", "exec"), {})
    teacher = TeacherLabels.read("answers.jsonl")
    assert teacher.info.labels == ("positive", "negative") and teacher.rows == 3
    assert (teacher.outputs.argmax(axis=1) == [0, 1, 0]).all()
