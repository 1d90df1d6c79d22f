"""The text columns of the training, in their order, are those that every verb reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.commands import argv, railkd
from railkd.cli import main
from railkd.data.reader import read
from railkd.data.reading import Reading
from railkd.data.sources import Source

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows of two columns, and a model that was trained on both of them, the last one first."""
    here = tmp_path_factory.mktemp("pairs")
    rows = [("who is it" if i % 4 else "what", "good" if i % 3 else "not", "yes" if i % 3 else "no") for i in range(24)]
    (here / "rows.csv").write_text("question,answer,label\n" + "".join(",".join(row) + "\n" for row in rows))
    (here / "one.csv").write_text("question,label\n" + "".join(f"{row[0]},{row[2]}\n" for row in rows))
    (here / "other.csv").write_text("premise,hypothesis,label\n" + "".join(",".join(row) + "\n" for row in rows))
    words = "--max-steps 1 --quiet --text-column answer question --train"
    railkd(*argv("finetune --model", base, words, here / "rows.csv", "--output", here / "out"))
    return here


def verbs(here: Path, out: Path, file: Path) -> dict[str, list[str]]:
    """The commands that read texts for a trained model."""
    model = here / "out" / "model"
    return {
        "predict": argv("predict --model", model, "--test", file, "--output", out / "answers.tsv"),
        "evaluate": argv("evaluate --model", model, "--test", file),
        "check": argv("check --allow-weak-teacher --teacher", model, "--student-layers 2 --train", file),
        "cache": argv("cache --teacher", model, "--train", file, "--cache", out / "cache"),
        "distill": argv(
            *("distill --teacher", model, "--student-layers 2 --method kd --max-steps 1 --train", file),
            *("--output", out / "student"),
        ),
    }


def test_every_verb_reads_the_columns_of_the_training(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    for verb, words in verbs(trained, tmp_path, trained / "rows.csv").items():
        capsys.readouterr()
        railkd(*words)
        said = "".join(capsys.readouterr())
        assert "text: answer + question" in said and "the model was trained on" not in said, verb
    config = json.loads((tmp_path / "student" / "student" / "config.json").read_text())
    assert config["railkd"]["text_columns"] == ["answer", "question"]
    # Another file may name its two columns otherwise.
    railkd(*verbs(trained, tmp_path / "b", trained / "other.csv")["evaluate"])
    said = "".join(capsys.readouterr())
    assert "text: premise + hypothesis" in said and "the model was trained on" not in said


def test_one_text_for_a_model_of_pairs_is_refused_unless_a_flag_says_so(
    trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    for verb, words in verbs(trained, tmp_path, trained / "one.csv").items():
        capsys.readouterr()
        assert main(words) == 2, verb
        said = "".join(capsys.readouterr())
        wanted = "trained on pairs of texts ('answer' and 'question'), this is one text ('question')"
        assert wanted in said and "--text-column" in said, verb
    assert not (tmp_path / "student").exists()
    for columns, warning in (
        ("question", "this is one text ('question')"),
        ("question answer", "on the text of 'answer' and 'question', this is the text of 'question' and 'answer'"),
        ("answer question", ""),
    ):
        words = verbs(trained, tmp_path, trained / "rows.csv")["evaluate"]
        railkd(*words, "--text-column", *columns.split())
        said = "".join(capsys.readouterr())
        assert ("warning: the model was trained" in said) == bool(warning) and warning in said


def test_training_may_go_on_with_other_texts_and_says_so(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    model = trained / "out" / "model"
    words = argv("finetune --model", model, "--max-steps 1 --train", trained / "one.csv", "--output", tmp_path / "a")
    railkd(*words)
    assert "one.csv: warning: the model was trained on pairs of texts" in capsys.readouterr().err
    config = json.loads((tmp_path / "a" / "model" / "config.json").read_text())
    assert config["railkd"]["text_columns"] == ["question"]
    pairs = argv("evaluate --model", tmp_path / "a" / "model", "--test", trained / "other.csv")
    assert main(pairs) == 2
    assert "trained on one text ('question'), this is pairs of texts" in capsys.readouterr().err


@pytest.mark.parametrize(
    "entry",
    [None, {}, "x", ["x"], {"text_columns": "ab", "max_length": "9"}, {"text_columns": [1, 2, 3], "max_length": -1}],
)
def test_folders_without_a_readable_entry_work_as_before(trained: Path, tmp_path: Path, entry: object) -> None:
    model = tmp_path / "old"
    model.mkdir()
    for file in (trained / "out" / "model").iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    config = json.loads((model / "config.json").read_text())
    config.pop("railkd")
    (model / "config.json").write_text(json.dumps(config | ({"railkd": entry} if entry is not None else {})))
    railkd(*argv("evaluate --quiet --model", model, "--test", trained / "one.csv"))


@pytest.mark.parametrize(
    ("columns", "trained", "chosen"),
    [
        ("text,text_pair,label", ("text",), ("text",)),
        ("Text,B,label", ("b", "text"), ("B", "Text")),
        ("sentence1,sentence2,label", ("label", "sentence1"), ("sentence1", "sentence2")),
    ],
)
def test_the_columns_of_the_training_come_before_common_names(
    columns: str, trained: tuple[str, ...], chosen: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text(f"{columns}\n{','.join('x' * (columns.count(',') + 1))}\n")
    source = Source.parse(str(tmp_path / "rows.csv"))
    assert read(source, Reading(trained=trained, label=("label",)), split="test").columns.text == chosen
