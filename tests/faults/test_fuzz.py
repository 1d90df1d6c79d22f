"""Hostile files: any config, table or manifest is read right or refused in words; never a traceback, never a wrong row.

60 cases of each in the default suite; ``make fuzz``: 10,000.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import tiny
from railkd.bench.grid_reader import load as load_grid
from railkd.bench.plan import Job, make_jobs
from railkd.cli.bench import make_verbs
from railkd.cli.verbs import JOBS
from railkd.cli.words import parse
from railkd.data.keys import KEY
from railkd.data.sources import load_rows
from railkd.data.tokens import keyed_tokens
from railkd.errors import RailkdError
from railkd.jobs.options import TrainingDataOptions
from railkd.jobs.splits import Splits
from railkd.tasks.target import Target
from railkd.teacher import TeacherCache
from railkd.teacher.manifest import manifest_checksum

slow = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)
VERBS = [JOBS[name] for name in ("distill", "finetune", "evaluate", "cache")]
NAMES = sorted({name for verb in VERBS for name in verb.settings()})
NAMES += ["warmup_steps", "optim", "lr_scheduler_type", "candidates", "alpha", "shared_size", "max_steps", "fsdp"]

words = st.text(max_size=12) | st.sampled_from(
    ["", "-1", "nan", "inf", "1e999", "0x10", "no", "null", "../x", "\0", "a=b"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2))
mappings = st.dictionaries(st.sampled_from(NAMES) | words, values, max_size=5)


def in_words(error: RailkdError) -> None:
    """An error a user is meant to read: something, and no traceback."""
    assert str(error).strip() and "Traceback" not in str(error)


@pytest.fixture(scope="module")
def scratch() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@slow
@given(
    config=mappings,
    verb=st.sampled_from(VERBS),
    flags=st.lists(words | st.sampled_from(["--seed", "--test"]), max_size=3),
)
def test_any_mapping_is_taken_or_refused_in_words(scratch: Path, config: Any, verb: Any, flags: list[str]) -> None:
    file = scratch / "run.yaml"
    file.write_text(yaml.safe_dump(config, allow_unicode=False), encoding="utf-8")
    try:
        parsed = parse(verb, ["--config", str(file), *flags])
        verb.check(parsed.request)
        parsed.complete(verb)
    except RailkdError as error:
        in_words(error)


@slow
@given(data=st.binary(max_size=60) | st.text(alphabet="!&*{}[]:-,#|>'\"%@`\n\t ab1", max_size=60).map(str.encode))
@example(b"&a [*a]")
@example(b"a: &a [*a]\n")
@example(b"1: 2\n? [a]\n: b")
@example(b"[" * 3000)
@example(b"a: 2001-99-99")
def test_any_bytes_are_a_config_or_no_config(scratch: Path, data: bytes) -> None:
    file = scratch / "bytes.yaml"
    file.write_bytes(data)
    try:
        parse(JOBS["distill"], ["--config", str(file)])
    except RailkdError as error:
        in_words(error)


GRID: dict[str, Any] = {
    "name": "x",
    "data": "data",
    "ood": "ood",
    "tasks": {
        "RTE": {"settings": {"epochs": 1}},
        "own": {"train": "own.tsv", "test": ["own.tsv"], "label_column": "label"},
    },
    "teacher": {"finetune": "teacher", "epochs": 1, "seed": 3},
    "students": [{"layers": 2, "keep": "first"}, {"name": "other", "model": "teacher"}],
    "methods": ["kd", {"name": "rail-kd-l", "shared_size": 8, "redraw": ["epoch", "step"], "weights": [[1, 1, 1]]}],
    "seeds": [1, 2],
    "settings": {"max_length": 16, "epochs": 1.5, "warmup_steps": 2},
    "selection": {"eval_share": 0.1, "eval_seed": 1},
    "cache": {"dtype": "float16"},
    "baseline": "kd",
    "contrasts": [{"name": "c", "arm": "rail-kd-l redraw=epoch", "baseline": "kd", "domain": "in"}],
    "executor": "local",
    "processes": 2,
    "threads": 1,
    "retries": 0,
    "resources": {"cpus": 1, "gpus": 0.5},
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in the grid, as a path of keys."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inside for place in places(item, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], put: Any) -> Any:
    """The grid with another value, or a value more, in one place."""
    if not path:
        return put
    if isinstance(value, list) and isinstance(path[0], int) and path[0] < len(value):
        return [changed(item, path[1:], put) if i == path[0] else item for i, item in enumerate(value)]
    if isinstance(value, dict):
        return value | {path[0]: changed(value.get(path[0]), path[1:], put)}
    return value


@pytest.fixture(scope="module")
def grid_room(scratch: Path) -> Iterator[Path]:
    """A folder where the grid above is right."""
    tiny.save(scratch / "teacher", tiny.make_model(3, width=16), tiny.make_tokenizer())
    for file in ("data/RTE/train.tsv", "data/RTE/dev.tsv", "own.tsv"):
        (scratch / file).parent.mkdir(parents=True, exist_ok=True)
        (scratch / file).write_text("sentence1\tsentence2\tlabel\na\tb\tentailment\n")
    (scratch / "ood" / "HANS").mkdir(parents=True)
    before = Path.cwd()
    os.chdir(scratch)
    yield scratch
    os.chdir(before)


new_keys = st.sampled_from([*GRID, *NAMES, "layers", "finetune", "redraw", "tasks", "model"]) | words
changes = st.tuples(st.sampled_from(places(GRID)[1:]), st.lists(new_keys, max_size=1), values)


@slow
@given(changed_places=st.lists(changes, max_size=3))
@example(changed_places=[])
@example(changed_places=[(("tasks",), [], {"": None})])  # found by make fuzz
@example(changed_places=[(("methods", 1, "shared_size"), [], 10**9)])  # took all memory
def test_any_grid_is_planned_or_refused_in_words(grid_room: Path, changed_places: list[Any]) -> None:
    grid: Any = GRID
    for path, more, put in changed_places:
        grid = changed(grid, (*path, *more), put)
    (grid_room / "grid.yaml").write_text(yaml.safe_dump(grid, allow_unicode=False), encoding="utf-8")
    try:
        jobs = make_jobs(load_grid("grid.yaml"), "out", make_verbs())
        assert jobs and len({job.folder for job in jobs}) == len(jobs)
        sent = [json.dumps(job.plain()) for job in jobs]
        assert [json.dumps(Job.from_plain(json.loads(job)).plain()) for job in sent] == sent
    except RailkdError as error:
        assert changed_places
        in_words(error)


@slow
@given(data=st.binary(max_size=60) | st.text(alphabet="!&*{}[]:-,#|>'\"%@`\n\t ab1", max_size=60).map(str.encode))
@example(b"name: &a [*a]\ntasks: *a\nmethods: *a\nstudents: *a\n")
@example(b"tasks: &a {b: *a}\nsettings: *a\n")
def test_any_bytes_are_a_grid_or_no_grid(scratch: Path, data: bytes) -> None:
    file = scratch / "bytes-grid.yaml"
    file.write_bytes(data)
    try:
        load_grid(file)
    except RailkdError as error:
        in_words(error)


pieces = [
    "text",
    "label",
    "sentence1",
    "\t",
    ",",
    "\n",
    "\r\n",
    "\r",
    '"',
    "'",
    "\\",
    "pos",
    "neg",
    "1",
    "0.5",
    "nan",
    "",
]
pieces += [
    "\ufeff",
    "\0",
    "\u2028",
    "\x85",
    "é",
    "\ud7ff",
    "{",
    "}",
    "[",
    "]",
    ":",
    "null",
    "true",
    '{"text": "a", "label": 1}\n',
]
heads = st.sampled_from(["", "text\tlabel\n", "text,label\n", "label\ttext\n", '{"text": "a", "label": "pos"}\n'])
bodies = st.lists(st.sampled_from(pieces) | st.text(max_size=3), max_size=14).map("".join)


@slow
@given(
    head=heads, body=bodies, junk=st.binary(max_size=4), suffix=st.sampled_from([".tsv", ".csv", ".jsonl", ".parquet"])
)
@example(head="", body="\0\na", junk=b"", suffix=".csv")  # Arrow cuts names at NUL: found by make fuzz
def test_any_bytes_are_a_table_or_no_table(scratch: Path, head: str, body: str, junk: bytes, suffix: str) -> None:
    file = scratch / f"table{suffix}"
    file.write_bytes((head + body).encode("utf-8", "surrogatepass") + junk)
    try:
        splits = Splits.read(TrainingDataOptions(train=str(file)), Target.infer, lambda line: None)
        assert len(splits.train) > 0 and "label" in splits.train.rows.column_names
    except RailkdError as error:
        in_words(error)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@slow
@given(rows=st.lists(st.tuples(texts, st.sampled_from(["pos", "neg"])), min_size=1, max_size=4))
def test_what_csv_and_jsonl_hold_is_what_is_read(scratch: Path, rows: list[tuple[str, str]]) -> None:
    """A file written by the book gives the very same texts, or is refused: no row is merged, cut or shifted."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    (scratch / "book.csv").write_bytes(buffer.getvalue().encode())
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    (scratch / "book.jsonl").write_bytes(("\n".join(lines) + "\n").encode())
    for name in ("book.csv", "book.jsonl"):
        try:
            table = load_rows(str(scratch / name))
        except RailkdError as error:
            in_words(error)
            continue
        assert list(zip(table["text"], table["label"], strict=True)) == rows, name


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, cache: TeacherCache) -> Path:
    """A copy of the cache, whose manifest is ours to spoil."""
    folder = tmp_path_factory.mktemp("fuzzed")
    for path in cache.path.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at] * bool(at) + [place for key, part in inner for place in places(part, (*at, key))]


def is_right_or_refused(folder: Path, manifest: Any, cache: TeacherCache, keys: torch.Tensor) -> None:
    """Open a cache with this manifest: it gives the numbers of ``cache``, or is refused in words."""
    (folder / "manifest.json").write_text(json.dumps(manifest))
    try:
        opened = TeacherCache.open(folder)
        got = opened({KEY: keys}, "mean")
        opened.verify()
    except RailkdError as error:
        in_words(error)
        return
    wanted = cache({KEY: keys}, "mean")
    assert wanted.states is not None and got.states is not None
    assert torch.equal(got.logits, wanted.logits) and np.array_equal(got.states, wanted.states)


def altered(manifest: Any, place: tuple[Any, ...], value: Any, drop: bool) -> Any:
    """Return a copy with one place dropped or changed."""
    copy = json.loads(json.dumps(manifest))
    *way, last = place
    part = copy
    for step in way:
        part = part[step]
    if drop:
        del part[last]
    else:
        part[last] = value
    return copy


@slow
@given(data=st.data(), value=values, drop=st.booleans(), honest=st.booleans())
def test_any_manifest_gives_the_right_numbers_or_an_error(
    small: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, data: Any, value: Any, drop: bool, honest: bool
) -> None:
    """One place is changed; with a checksum that fits, as by someone who knows the format, or without."""
    manifest = json.loads((cache.path / "manifest.json").read_text())
    manifest = altered(manifest, data.draw(st.sampled_from(places(manifest))), value, drop)
    if honest:
        manifest["checksum"] = manifest_checksum(manifest)
    keys = torch.from_numpy(keyed_tokens(rows, tokenizer, max_length=128).keys)
    is_right_or_refused(small, manifest, cache, keys)


@pytest.mark.parametrize("value", [None, [], {}, "", -1, 10**400, True], ids=lambda value: f"{value!r:.8}")
def test_every_place_of_a_manifest_may_hold_a_value_of_another_kind(
    small: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, value: Any
) -> None:
    """No place is left to chance."""
    manifest = json.loads((cache.path / "manifest.json").read_text())
    keys = torch.from_numpy(keyed_tokens(rows, tokenizer, max_length=128).keys)
    for place in places(manifest):
        other = altered(manifest, place, value, drop=False)
        other["checksum"] = manifest_checksum(other)
        is_right_or_refused(small, other, cache, keys)
