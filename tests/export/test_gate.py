"""A candidate passes if it is no worse, overall and in each class; and fails by the name of what is worse."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import BertForSequenceClassification

from railkd.cli import main
from railkd.data.predictions import write_predictions
from railkd.data.reader import Table, read
from railkd.data.reading import Reading
from railkd.data.sources import Source, load_rows
from railkd.export.gate import FAILS, PASSES, UNDECIDED, judge, pool, problems_of
from railkd.jobs.certify import certify
from railkd.jobs.scorer import Scorer
from railkd.jobs.shipping_options import CertifyOptions
from railkd.models.inference import predict_logits
from railkd.tasks.target import Target
from tiny import make_model, make_tokenizer, save

MARGINS = (0.01, 0.03)
Capture = pytest.CaptureFixture[str]


def table_of(tmp_path: Path, rows: dict[str, list[Any]]) -> tuple[Target, Table]:
    tmp_path.mkdir(exist_ok=True)
    file = tmp_path / "rows.jsonl"
    Dataset.from_dict(rows).to_json(file)
    table = read(Source.parse(str(file)), Reading(), split="train")
    target = Target.infer(table, None)
    return target, target.label(table)


def classes(tmp_path: Path, common: int = 3000, rare: int = 300, start: int = 0) -> tuple[Target, Table, np.ndarray]:
    """A table of two classes, and the logits of a model that is right everywhere."""
    labels = ["common"] * common + ["rare"] * rare
    target, table = table_of(tmp_path, {"text": [f"text {start + i}" for i in range(len(labels))], "label": labels})
    return target, table, np.eye(2)[np.asarray(table.rows["label"])] * 4.0


def states(judgement: Any) -> dict[str, str]:
    return {line.name: line.state for line in judgement.lines}


def test_an_equal_model_passes_everywhere(tmp_path: Path) -> None:
    target, table, right = classes(tmp_path)
    found = judge(target, "dev", table, (right, right + 0.5), MARGINS)
    assert states(found) == dict.fromkeys(["overall", "class common", "class rare"], PASSES)
    assert found.passes and found.flips == () and 0 < found.smallest_margin < 0.01


def test_a_rare_class_fails_by_name_while_the_average_passes(tmp_path: Path) -> None:
    target, table, right = classes(tmp_path)
    worse = right.copy()
    worse[3000:3018] = [9.0, 0.0]  # 18 of 3,300 rows, and of 300
    found = judge(target, "dev", table, (right, worse), MARGINS)
    assert states(found) == {"overall": PASSES, "class common": PASSES, "class rare": FAILS}
    assert not found.passes
    (problem,) = problems_of([found], MARGINS)
    assert problem.startswith("dev, class rare: fails; drop +6.00 points of 300 rows, 18 lost and 0 won")
    assert [flip.index for flip in found.flips] == list(range(3000, 3018))
    assert {(flip.gold, flip.reference, flip.candidate) for flip in found.flips} == {("rare", "rare", "common")}
    assert found.flips[0].text == "text 3000" and found.flips[0].confidence[1] > found.flips[0].confidence[0] > 0.9


def test_few_rows_of_a_class_tell_nothing_unless_the_class_is_lost(tmp_path: Path) -> None:
    target, table, right = classes(tmp_path, rare=30)
    found = judge(target, "dev", table, (right, right), MARGINS)
    assert states(found)["class rare"] == UNDECIDED and found.passes
    assert [line.needed for line in found.lines if line.name == "class rare"] == [99]
    assert "99 rows are needed" in str(found.lines[2]) and "needed" not in str(found.lines[0])
    worse = right.copy()
    worse[-15:] = [9.0, 0.0]
    assert states(judge(target, "dev", table, (right, worse), MARGINS))["class rare"] == FAILS


def test_flips_come_most_confident_first(tmp_path: Path) -> None:
    target, table, right = classes(tmp_path, 50, 50)
    worse = right.copy()
    worse[3], worse[7] = [0.0, 5.0], [0.0, 9.0]
    assert [flip.index for flip in judge(target, "dev", table, (right, worse), MARGINS).flips] == [7, 3]


def test_sets_are_judged_together_and_each_on_its_own(tmp_path: Path) -> None:
    target, table, right = classes(tmp_path, 100, 90)
    small = judge(target, "small", table, (right, right), MARGINS)
    assert states(small)["overall"] == UNDECIDED and problems_of([small], MARGINS)
    other = judge(target, "other", classes(tmp_path / "other", 100, 90, start=190)[1], (right, right), MARGINS)
    assert problems_of([small, other], MARGINS) == []  # 380 rows together are enough
    whole = pool([small, other], MARGINS)
    assert whole is not None and whole.lines[0].drop.rows == 380
    worse = right.copy()
    worse[:20] = [0.0, 9.0]
    bad = judge(target, "bad", table, (right, worse), MARGINS)
    assert any(problem.startswith("bad, overall: fails") for problem in problems_of([small, bad], MARGINS))


def test_rows_that_several_sets_hold_count_once(tmp_path: Path) -> None:
    target, table, right = classes(tmp_path, 100, 90)
    worse = right.copy()
    worse[:7] = [0.0, 9.0]
    found = judge(target, "a", table, (right, worse), MARGINS)
    twice = pool([found, replace(found, name="b")], MARGINS)
    assert twice is not None and twice.lines == found.lines
    assert problems_of([found, replace(found, name="b")], MARGINS)  # named twice, 190 rows are still too few
    # Rows 95 to 99 have their text and label in both tables; those from 100 on have another label.
    other = judge(target, "other", classes(tmp_path / "other", 100, 90, start=95)[1], (right, worse), MARGINS)
    whole = pool([found, other], MARGINS)
    assert whole is not None
    assert {line.name: (line.drop.rows, line.drop.lost) for line in whole.lines} == {
        "overall": (375, 9),
        "class common": (195, 9),
        "class rare": (180, 0),
    }


def test_equal_rows_within_a_set_all_count(tmp_path: Path) -> None:
    target, table = table_of(tmp_path, {"text": ["yes", "no"] * 50, "label": ["good", "bad"] * 50})
    right = np.eye(2)[np.asarray(table.rows["label"])]
    first = judge(target, "first", table, (right, right), MARGINS)
    other = judge(target, "other", classes(tmp_path / "other", 10, 10)[1], (right[:20], right[:20]), MARGINS)
    whole = pool([first, other], MARGINS)
    assert whole is not None and whole.lines[0].drop.rows == 120


def test_several_classes_a_row_are_judged_class_by_class(tmp_path: Path) -> None:
    labels = [["a"], ["a", "b"], []] * 400
    target, table = table_of(tmp_path, {"text": [f"text {i}" for i in range(1200)], "label": labels})
    right = np.asarray(table.rows["label"]) * 8.0 - 4.0
    worse = right.copy()
    worse[1:300:3, 1] = -9.0  # class b is missed in 100 of its 400 rows; class a never
    found = states(judge(target, "dev", table, (right, worse), MARGINS))
    assert found == {"overall": FAILS, "class a": PASSES, "class b": FAILS}


def test_numbers_are_judged_by_their_metric(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    values = chance.normal(size=150)
    target, table = table_of(tmp_path, {"text": [f"text {i}" for i in range(150)], "label": values.tolist()})
    ours, noise = values[:, None] + 0.1, chance.normal(size=(150, 1))
    same = judge(target, "dev", table, (ours, ours * 2), MARGINS)
    assert same.metric == target.primary_metric and states(same) == {"overall": PASSES}
    assert states(judge(target, "dev", table, (ours, ours + noise), MARGINS)) == {"overall": FAILS}


@pytest.fixture(scope="module")
def folders(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, and one that answers "neg" more often."""
    model = BertForSequenceClassification.from_pretrained(model_folder)
    with torch.no_grad():
        model.classifier.bias[0] += 1.5
    return {"model": model_folder, "worse": save(tmp_path_factory.mktemp("worse"), model, make_tokenizer())}


def test_a_model_is_certified_against_itself_at_any_margin(
    folders: dict[str, Path], dev: Path, capsys: Capture
) -> None:
    model = str(folders["model"])
    assert main(["certify", "--model", model, "--against", model, "--test", str(dev), "--margin", "0.01"]) == 0
    assert "both names are one model" in capsys.readouterr().out


def test_a_worse_model_is_refused_with_evidence(
    folders: dict[str, Path], dev: Path, tmp_path: Path, capsys: Capture
) -> None:
    evidence = tmp_path / "evidence.json"
    words = ["certify", "--model", str(folders["worse"]), "--against", str(folders["model"]), "--test", f"d={dev}"]
    assert main([*words, "--output", str(evidence), "--flips", "2"]) == 1
    printed = capsys.readouterr()
    assert "is not shown to be no worse" in printed.err and "d, class pos: fails" in printed.out
    assert printed.out.count(" row ") == 2
    found = json.loads(evidence.read_text())
    (judged,) = found["sets"]
    assert found["passes"] is False and judged["name"] == "d"
    assert len(judged["flips"]) == sum(line["drop"]["lost"] + line["drop"]["won"] for line in judged["lines"][:1])
    assert sum(line["drop"]["rows"] for line in judged["lines"] if line["name"].startswith("length")) == 400
    # A margin above the smallest that would have passed passes.
    smallest = max(line["drop"]["bound"] for line in judged["lines"])
    points = 100 * smallest + 0.01
    models = {"model": str(folders["worse"]), "against": str(folders["model"])}
    loose = CertifyOptions(**models, test=[str(dev)], margin=points, class_margin=points)
    assert certify(loose, lambda line: None).passes


def test_an_onnx_file_with_another_tokenizer_is_another_model(shipped: Path, dev: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(shipped, copy)
    options = CertifyOptions(model=str(copy / "onnx" / "model.onnx"), against=str(shipped / "onnx" / "model.onnx"))
    options = replace(options, test=[str(dev)], margin=0.01)
    assert certify(options, lambda line: None).passes
    settings = json.loads((copy / "tokenizer.json").read_text())
    numbers = settings["model"]["vocab"]
    unknown = numbers[settings["model"]["unk_token"]]
    settings["model"]["vocab"] = {piece: min(number, unknown) for piece, number in numbers.items()}
    (copy / "tokenizer.json").write_text(json.dumps(settings))
    found = certify(options, lambda line: None)
    assert not found.passes and not any("one model" in line for line in found.details)


def test_weights_beside_an_onnx_file_belong_to_its_content_and_size(shipped: Path, tmp_path: Path) -> None:
    shutil.copytree(shipped, tmp_path / "copy")
    file = tmp_path / "copy" / "onnx" / "model.onnx"
    before = Scorer.find(file)
    content, count = before.content(), before.sizes()["bytes"]
    assert content == Scorer.find(shipped / "onnx" / "model.onnx").content()
    file.with_name("model.onnx.data").write_bytes(b"weights")
    assert Scorer.find(file).content() != content and Scorer.find(file).sizes() == {"bytes": count + 7}


def test_a_verdict_counts_the_groups_with_too_few_rows(folders: dict[str, Path], dev: Path, tmp_path: Path) -> None:
    copy = BertForSequenceClassification.from_pretrained(folders["model"])
    with torch.no_grad():
        copy.classifier.bias += 1e-3  # another model, with the same verdicts
    near = save(tmp_path / "near", copy, make_tokenizer())
    options = CertifyOptions(model=str(near), against=str(folders["model"]), test=[str(dev)])
    assert "not shown for" not in certify(replace(options, class_margin=3.0), lambda line: None).verdict
    found = certify(replace(options, class_margin=0.5), lambda line: None)
    assert found.passes and "; not shown for 5 groups with too few rows" in found.verdict


def test_flips_of_several_sets_are_sorted_together(folders: dict[str, Path], dev: Path, tmp_path: Path) -> None:
    heads, *rows = dev.read_text().splitlines()
    for name, part in {"a": rows[:200], "b": rows[200:]}.items():
        (tmp_path / f"{name}.tsv").write_text("\n".join([heads, *part]) + "\n")
    sets = [f"{name}={tmp_path / name}.tsv" for name in "ab"]
    options = CertifyOptions(model=str(folders["worse"]), against=str(folders["model"]), test=sets, flips=400)
    pairs = [re.findall(r"\((\d\.\d\d)\)", line) for line in certify(options, lambda line: None).details]
    sure = [max(map(float, pair)) for pair in pairs if len(pair) == 2]
    assert len(sure) > 10 and sure == sorted(sure, reverse=True)


def test_the_smallest_margin_of_numbers_is_that_of_the_worst_set(tmp_path: Path) -> None:
    models = {name: make_model(1, seed=seed, num_labels=1) for name, seed in {"model": 1, "against": 2}.items()}
    folders = {name: str(save(tmp_path / name, model, make_tokenizer())) for name, model in models.items()}
    words, sets = list(make_tokenizer().get_vocab())[4:], []
    rows = Dataset.from_dict({"text": [f"{words[i % 7]} {words[i % 11]}" for i in range(60)]})  # all of one length
    against = predict_logits(models["against"], make_tokenizer(), rows, max_length=128)[:, 0]
    for name, gold in {"easy": np.arange(60) % 7.0, "hard": against}.items():  # the reference is right on the hard set
        rows.add_column("label", gold.tolist()).to_json(tmp_path / f"{name}.jsonl")
        sets.append(f"{name}={tmp_path / name}.jsonl")
    evidence = tmp_path / "evidence.json"
    options = CertifyOptions(**folders, test=sets, problem_type="regression", output=str(evidence))
    details = certify(options, lambda line: None).details
    easy, hard = (one["smallest_margin"] for one in json.loads(evidence.read_text())["sets"])
    assert easy < hard and f"the smallest margin that would have passed overall: {100 * hard:.2f} points" in details


@pytest.fixture(scope="module")
def answers(folders: dict[str, Path], dev: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The answers of both models, as files: with texts, with an index in another order, and labels alone."""
    place = tmp_path_factory.mktemp("answers")
    for name, folder in folders.items():
        assert (
            main(
                ["predict", "--quiet", "--model", str(folder), "--test", str(dev), "--output", f"{place}/{name}.jsonl"]
            )
            == 0
        )
    rows = [json.loads(line) for line in (place / "worse.jsonl").read_text().splitlines()]
    keep = ("index", "logit_pos", "logit_neg")  # the classes in another order, too
    write_predictions(str(place / "index.tsv"), [{key: row[key] for key in keep} for row in rows[::-1]])
    write_predictions(str(place / "labels.csv"), [{"text": row["text"], "label": row["label"]} for row in rows])
    return {path.name: path for path in place.iterdir()}


def test_files_of_predictions_are_judged_as_their_models(
    folders: dict[str, Path], answers: dict[str, Path], dev: Path, tmp_path: Path
) -> None:
    evidence, flipped = tmp_path / "evidence.json", tmp_path / "flipped.tsv"
    found = {}
    for name in (folders["worse"], answers["worse.jsonl"], answers["index.tsv"], answers["labels.csv"]):
        for against in (folders["model"], answers["model.jsonl"]):
            options = CertifyOptions(model=str(name), against=str(against), test=[str(dev)])
            assert not certify(replace(options, output=str(evidence), flipped=str(flipped)), lambda line: None).passes
            judged = json.loads(evidence.read_text())["sets"][0]
            lines = [(line["name"], line["drop"], line["p_holm"]) for line in judged["lines"]]
            # Without a model, lengths are words. With one text a row, that is two less than tokens.
            found[name.name, against.name] = [line for line in lines if not line[0].startswith("length")]
            flips = [(flip["index"], flip["reference"], flip["candidate"]) for flip in judged["flips"]]
            table = load_rows(str(flipped))
            assert table["index"][:] == [str(flip[0]) for flip in flips] and len(flips) > 10
            sure = [
                max(map(float, pair))
                for pair in zip(table["reference_confidence"], table["candidate_confidence"], strict=True)
            ]
            assert sure == sorted(sure, reverse=True)
    first, *others = found.values()
    assert len(first) == 3 and all(other == first for other in others)


def test_a_file_that_does_not_fit_the_rows_is_refused_in_words(
    folders: dict[str, Path], answers: dict[str, Path], dev: Path, tmp_path: Path, capsys: Capture
) -> None:
    heads, *rows = answers["index.tsv"].read_text().splitlines()
    broken = {
        "few.tsv": ([heads, *rows[1:]], "expected an index from 0 to 399, one for each row of"),
        "none.tsv": (["id\tlabel", "1\tpos"], "or a column 'index' to match its rows by, got 'id' and 'label'"),
        "other.tsv": (["text\tlabel", "a text\tpos"], "has no answer for 400 of the 400 rows"),
        "classes.tsv": (["index\tlogit_good", "0\t1"], "Expected the same classes in"),
        "words.tsv": ([heads, "0\tx\t1"], "row 1: expected a number, got 'x'"),
        "texts.tsv": (["index\tnote", "0\tx"], "expected columns of answers (logit_NAME, prob_NAME"),
    }
    for name, (lines, message) in broken.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        words = ["certify", "--model", str(tmp_path / name), "--against", str(folders["model"]), "--test", str(dev)]
        assert main(words) == 2, name
        assert message in capsys.readouterr().err, name
    both = ["certify", "--model", str(answers["index.tsv"]), "--against", str(folders["model"])]
    assert main([*both, "--test", str(dev), f"d={dev}"]) == 2
    assert "--test: expected one file, whose rows" in capsys.readouterr().err


def test_rows_in_and_out_of_the_domain_are_judged_apart_in_one_family(
    folders: dict[str, Path], dev: Path, tmp_path: Path
) -> None:
    heads, *rows = dev.read_text().splitlines()
    (tmp_path / "in.tsv").write_text("\n".join([heads, *rows[:250]]) + "\n")
    (tmp_path / "out.tsv").write_text("\n".join([heads, *rows[250:]]) + "\n")
    evidence = tmp_path / "evidence.json"
    options = CertifyOptions(model=str(folders["worse"]), against=str(folders["model"]), output=str(evidence))
    certify(replace(options, test=[f"{tmp_path}/in.tsv"], ood=[f"{tmp_path}/out.tsv"]), lambda line: None)
    found = json.loads(evidence.read_text())
    lines = {line["name"]: line for line in found["together"]["lines"]}
    assert [one["domain"] for one in found["sets"]] == ["in", "out"]
    for domain, one in zip(("in the domain", "out of the domain"), found["sets"], strict=True):
        assert lines[domain]["drop"] == replace_margin(one["lines"][0]["drop"], lines[domain]["drop"])
        assert lines[domain]["p_holm"] >= lines[domain]["drop"]["p"]
    assert [lines[name]["drop"]["rows"] for name in ("in the domain", "out of the domain", "overall")] == [
        250,
        150,
        400,
    ]


def replace_margin(drop: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The same drop, with the p-values of another margin."""
    return drop | {name: other[name] for name in ("p", "p_worse")}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--margin 0", "--margin: expected points between 0 and 100, such as 1, got 0"),
        ("--margin nan", "--margin: expected points"),
        ("--class-margin -1", "--class-margin: expected points"),
        ("--flips -1", "--flips: expected at least 0"),
    ],
)
def test_bad_margins_are_refused(
    words: str, message: str, folders: dict[str, Path], dev: Path, capsys: Capture
) -> None:
    both = ["--model", str(folders["model"]), "--against", str(folders["worse"]), "--test", str(dev)]
    assert main(["certify", *both, *words.split()]) == 2
    assert message in capsys.readouterr().err


def test_models_with_other_classes_are_not_compared(
    folders: dict[str, Path], dev: Path, tmp_path: Path, capsys: Capture
) -> None:
    names = {"id2label": {0: "neg", 1: "good"}, "label2id": {"neg": 0, "good": 1}}
    other = save(tmp_path / "other", make_model(1, **names), make_tokenizer())
    assert main(["certify", "--model", str(other), "--against", str(folders["model"]), "--test", str(dev)]) == 2
    assert "the same classes in the same order" in capsys.readouterr().err
