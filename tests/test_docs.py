"""The documents quote lines that stand in the code, and the commands and code that they show run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from railkd.data.collator import PaddingCollator
from railkd.data.keys import KEY
from railkd.data.tokens import keyed_tokens
from railkd.objectives import METHODS
from railkd.objectives.base import Objective
from railkd.objectives.ckd import buckets
from railkd.tasks.metrics import METRICS, find_metric
from railkd.teacher import TeacherCache
from tiny import make_model, make_small, weights_of

ROOT = Path(__file__).resolve().parents[1]


def text_of(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def code_blocks(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text_of(name), flags=re.MULTILINE | re.DOTALL)


def quotes() -> list[tuple[str, str]]:
    found = []
    for block in code_blocks("methods.md"):
        first, *lines = block.splitlines()
        assert first.startswith("# src/"), f"a quote opens with its file: {first}"
        found += [(first.removeprefix("# "), line) for line in lines]
    return found


@pytest.mark.parametrize(("file", "line"), quotes())
def test_a_quoted_line_stands_in_the_file_it_names(file: str, line: str) -> None:
    assert line.strip() in [ours.strip() for ours in (ROOT / file).read_text(encoding="utf-8").splitlines()]


def test_every_method_is_described_and_nothing_else() -> None:
    text = text_of("methods.md")
    headings = {name for line in re.findall(r"^## (.+)$", text, flags=re.MULTILINE) for name in line.split(", ")}
    controls = set(re.findall(r"^\| (rail-[a-z-]+) \|", text, flags=re.MULTILINE))
    assert METHODS.keys() == (headings | controls) & METHODS.keys() and controls <= METHODS.keys()
    named = {name.rstrip("-") for name in re.findall(r"\b(?:rail|pkd|alp|kd|ckd)-[a-z-]+", text)}
    assert named <= METHODS.keys() | {"rail-kd"}


def test_the_defaults_in_the_tables_are_those_of_the_code() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (.+?) \|", text_of("methods.md"), flags=re.MULTILINE))
    defaults = METHODS["rail-kd-l"].options
    assert rows.keys() == defaults.keys() - {"match", "map_seed"}
    for name, told in rows.items():
        wanted = {True: "depth order kept", 128: "128"}.get(defaults[name], f"`{defaults[name]}`")
        assert told.startswith(wanted), name
    for name, told in re.findall(
        r"^\| (\w+)(?: \(default\))? \| ([\d ]+, [\d ]+) \|", text_of("methods.md"), re.MULTILINE
    ):
        assert buckets(2, 7, name) == [tuple(map(int, part.split())) for part in told.split(", ")]


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    told = {}
    for names, kinds, best in re.findall(
        r"^\| (`.+?) \| (.+?) \| (high|low) \|", text_of("metrics.md"), flags=re.MULTILINE
    ):
        for name in re.findall(r"`(.+?)`", names):
            told[name] = (set(kinds.split(", ")), best == "high")
    rows = [*METRICS.values(), find_metric("recall@fpr=0.01")]
    known = {row.name.replace("0.01", "RATE"): (set(row.tasks), row.greater_is_better) for row in rows}
    assert told == known and len(told) > 15


def test_the_worked_example_runs_as_it_stands_and_trains_a_step(
    cache: TeacherCache, rows: Dataset, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tokens = keyed_tokens(rows, tokenizer, max_length=128)
    table = [
        {name: values[i] for name, values in tokens.inputs.items()} | {KEY: tokens.keys[i], "labels": i % 2}
        for i in range(6)
    ]
    student = make_small(make_model(4, seed=11))
    reader: dict[str, Any] = {"student": student, "cache": cache, "batch": PaddingCollator(tokenizer)(table)}
    reader |= {"rows": rows, "tokenizer": tokenizer}
    before = weights_of(student)
    example, named, loop = code_blocks("adding-a-method.md")
    assert len([line for line in example.splitlines() if line.strip()]) <= 25
    exec(compile(example, "docs/adding-a-method.md", "exec"), reader)
    assert issubclass(reader["LastBlockCosine"], Objective)
    exec(compile(named, "docs/adding-a-method.md", "exec"), reader)
    assert reader["trainer"].state.global_step == 2 and reader["named"].method_options == {"margin": 0.2}
    torch.manual_seed(0)
    exec(compile(loop, "docs/adding-a-method.md", "exec"), reader)
    assert reader["loss"].isfinite() and reader["distiller"].term_names == ["ce", "kd", "intermediate"]
    assert 0 < float(reader["terms"][2]) < 2
    assert reader["objective"].student_map.weight.grad.any()
    assert any(not torch.equal(before[name], after) for name, after in weights_of(student).items())


def test_links_between_documents_lead_somewhere() -> None:
    for path in (ROOT / "docs").glob("*.md"):
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_readme_names_files_that_exist_and_links_none() -> None:
    """It is the page of the package index too, where a relative link leads nowhere (CONTRIBUTING.md)."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert (
        re.findall(r"\]\((?!https?:|#)[^)]*\)|^\[[^\]]+\]: (?!https?:)|(?:src|href)=\"(?!https?:)", text, re.MULTILINE)
        == []
    )
    names = re.findall(r"`(docs/[\w-]+\.md|[A-Z]+\.(?:md|cff))`", text)
    assert len(names) > 9 and all((ROOT / name).exists() for name in names)


def test_the_tests_that_documents_name_exist() -> None:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(r"\btests/[\w/]+\.py\b", path.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{path.name}: {name}"
