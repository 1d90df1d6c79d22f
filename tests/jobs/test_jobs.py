"""Run folders: what a run replaces, what a resumed one may change, caches that serve several methods, and scores."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

import tiny
from railkd.cli import main
from railkd.jobs import evaluate
from railkd.jobs.options import EvaluateOptions
from railkd.models import load_classifier
from railkd.records import RunRecord
from railkd.teacher import TeacherCache


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("rows")
    for name, seed in (("train", 0), ("dev", 1)):
        rows = tiny.text_rows(24, seed=seed)
        lines = [f"{row['text']}\tclass{row['label']}" for row in rows]
        (folder / f"{name}.tsv").write_text("text\tlabel\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return ("--train", str(folder / "train.tsv"), "--eval", str(folder / "dev.tsv"), "--no-bf16", "--quiet")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, files: tuple[str, ...], tokenizer: object) -> str:
    base = tiny.save(tmp_path_factory.mktemp("base"), tiny.make_model(dropout=0.0), tokenizer)
    out = tmp_path_factory.mktemp("teacher") / "run"
    assert main(["finetune", "--model", str(base), *files, "--output", str(out), "--epochs", "1"]) == 0
    return str(out / "model")


def distil(teacher: str, files: tuple[str, ...], output: Path, *more: str) -> int:
    command = ["distill", "--teacher", teacher, "--student-layers", "2", *files, "--output", str(output)]
    return main([*command, "--epochs", "1", "--allow-weak-teacher", *more])


RAIL = ("--shared-size", "8")


@pytest.fixture
def loud(files: tuple[str, ...]) -> tuple[str, ...]:
    """The files, and lines for the user."""
    return tuple(word for word in files if word != "--quiet")


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """Two texts without labels."""
    file = tmp_path / "more.tsv"
    file.write_text("text\na slow film\nthe music was bright\n", encoding="utf-8")
    return file


def test_a_resumed_run_keeps_its_settings(
    teacher: str, files: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distil(teacher, files, tmp_path / "out", *RAIL, "--seed", "1", "--save-steps", "1") == 0
    (tmp_path / "out" / "metrics.json").unlink()  # as if it had been killed before the end
    capsys.readouterr()
    assert distil(teacher, files, tmp_path / "out", *RAIL, "--seed", "2", "--save-steps", "1", "--resume") == 2
    assert "seed was 1, is 2" in capsys.readouterr().err
    assert distil(teacher, files, tmp_path / "out", "--method", "kd", "--seed", "1", "--resume") == 2
    assert "method was not given, is kd" in capsys.readouterr().err
    assert distil(teacher, files, tmp_path / "out", *RAIL, "--seed", "1", "--save-steps", "1", "--resume") == 0


def test_recommended_says_each_part_of_the_recipe(
    teacher: str, loud: tuple[str, ...], more: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for name, words in (("one", ()), ("two", ("--unlabelled", str(more), "--keep", "last", "--temperature", "2"))):
        assert distil(teacher, loud, tmp_path / name, "--method", "recommended", *words) == 0
        said.append(next(line for line in capsys.readouterr().err.splitlines() if line.startswith("recommended: ")))
    assert "blocks 1, 4 (even); loss 0.5 CE + 0.5 KD at T 1; frozen: embeddings; no text without labels" in said[0]
    assert "blocks 3, 4 (last); loss 0.5 CE + 0.5 KD at T 2; frozen: embeddings; 2 texts without labels" in said[1]
    assert RunRecord.read(tmp_path / "one" / "metrics.json").start["frozen"] == ["embeddings"]


def test_texts_without_labels_use_up_no_step_of_fine_tuning(
    teacher: str, loud: tuple[str, ...], more: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The student is the one that training without these texts gives, and a line says that they are left out."""
    for name, words in (("with", ("--unlabelled", str(more))), ("without", ())):
        assert distil(teacher, loud, tmp_path / name, "--method", "finetune", *words) == 0
        assert ("leaves out 2 texts without labels" in capsys.readouterr().err) == bool(words)
    weights = [load_classifier(tmp_path / name / "student").state_dict() for name in ("with", "without")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize(
    ("given", "rule", "blocks"),
    [((), "even", [1, 4]), (("--keep", "spaced"), "spaced", [2, 4]), (("--keep", "2,3"), "2,3", [2, 3])],
)
def test_a_record_names_the_blocks_that_a_student_starts_from(
    given: tuple[str, ...], rule: str, blocks: list[int], teacher: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    """The rate is so small that the student keeps its first weights, but for the last digits."""
    still = ("--method", "kd", "--learning-rate", "1e-30", "--weight-decay", "0")
    assert distil(teacher, files, tmp_path / "out", *still, *given) == 0
    record = RunRecord.read(tmp_path / "out" / "metrics.json")
    assert record.start == {"keep": rule, "blocks": blocks}
    if rule == "even":  # each student block is taught by the one that it was copied from
        assert distil(teacher, files, tmp_path / "gram", "--method", "gram") == 0
        assert distil(teacher, files, tmp_path / "same", "--method", "gram", "--taught-by", "1", "4") == 0
        assert distil(teacher, files, tmp_path / "other", "--method", "gram", "--taught-by", "2", "4") == 0
        curves = [RunRecord.read(tmp_path / name / "metrics.json").comparable()["curve"] for name in ("gram", "same")]
        other = RunRecord.read(tmp_path / "other" / "metrics.json").comparable()["curve"]
        assert curves[0] == curves[1] != other
    source = tiny.weights_of(load_classifier(teacher))
    student = tiny.weights_of(load_classifier(tmp_path / "out" / "student"))
    for place, block in enumerate(blocks):
        name = "bert.encoder.layer.{}.output.dense.weight"
        torch.testing.assert_close(student[name.format(place)], source[name.format(block - 1)], atol=0, rtol=0)


def test_a_finished_run_is_not_resumed(
    teacher: str, files: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distil(teacher, files, tmp_path / "out", *RAIL) == 0
    assert distil(teacher, files, tmp_path / "out", *RAIL, "--resume") == 2
    assert "is finished" in capsys.readouterr().err


def test_overwrite_replaces_the_cache_of_the_run_too(teacher: str, files: tuple[str, ...], tmp_path: Path) -> None:
    assert distil(teacher, files, tmp_path / "out", *RAIL) == 0
    assert distil(teacher, files, tmp_path / "out", "--method", "pkd-skip", "--max-length", "16", "--overwrite") == 0
    manifest = json.loads((tmp_path / "out" / "cache" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["poolings"] == ["cls"] and manifest["identity"]["max_length"] == 16


def test_logits_alone_are_read_from_any_cache(teacher: str, files: tuple[str, ...], tmp_path: Path) -> None:
    cache = ("--cache", str(tmp_path / "cache"))
    assert distil(teacher, files, tmp_path / "pkd", *cache, "--method", "pkd-skip") == 0
    assert distil(teacher, files, tmp_path / "kd", *cache, "--method", "kd") == 0


def test_a_cache_holds_what_the_method_reads_and_gets_states_when_another_reads_more(
    teacher: str, files: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = tuple(word for word in files if word != "--quiet")
    cache = ("--cache", str(tmp_path / "cache"))
    assert distil(teacher, files, tmp_path / "kd", *cache, "--method", "kd") == 0
    assert "outputs alone" in capsys.readouterr().err
    before = TeacherCache.open(tmp_path / "cache")
    assert before.poolings == ()
    first = {path: path.read_bytes() for path in before.path.glob("shard-*")}
    assert distil(teacher, files, tmp_path / "rail", *cache, *RAIL) == 0
    assert f"a second pass of the teacher over {before.rows} rows adds their mean states" in capsys.readouterr().err
    after = TeacherCache.open(tmp_path / "cache")
    assert after.poolings == ("mean",) and after.rows == before.rows
    assert all(path.read_bytes() == data for path, data in first.items())
    assert distil(teacher, files, tmp_path / "kd2", *cache, "--method", "kd") == 0
    assert "outputs alone" not in capsys.readouterr().err and TeacherCache.open(after.path).poolings == ("mean",)


def test_the_settings_of_a_run_run_again_to_the_same_student(
    teacher: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    assert distil(teacher, files, tmp_path / "out", *RAIL) == 0
    shutil.copytree(tmp_path / "out", tmp_path / "first")
    assert main(["distill", "--config", str(tmp_path / "first" / "config.yaml"), "--overwrite", "--quiet"]) == 0
    again, first = (tmp_path / name / "student" / "model.safetensors" for name in ("out", "first"))
    assert again.read_bytes() == first.read_bytes()


def test_options_that_fit_no_such_pair_leave_nothing_behind(
    teacher: str, files: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distil(teacher, files, tmp_path / "out", *RAIL, "--alpha", "0.2,0.3,0.5") == 2
    assert "Expected 'mean', 'sum' or 1 numbers" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_is_scored_by_the_metrics_and_in_the_domain_of_the_rows_it_was_trained_on(tmp_path: Path) -> None:
    """MRPC counts F1 first, whatever file it is tested on; its own rows are in the domain of nothing else."""
    names = ["not_equivalent", "equivalent"]
    model = tiny.make_model(2, id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)})
    tiny.save(tmp_path / "model", model, tiny.make_tokenizer())
    mine = tmp_path / "mine.tsv"
    mine.write_text("text\tlabel\n" + "".join(f"good film {i}\t{names[i % 2]}\n" for i in range(8)))
    options = EvaluateOptions(model=str(tmp_path / "model"), test=[f"mine={mine}"], quiet=True)
    knowing = dataclasses.replace(options, train="glue/MRPC:train")
    assert [next(iter(evaluate.evaluate(o, str).metrics["mine"])) for o in (options, knowing)] == ["accuracy", "f1"]
