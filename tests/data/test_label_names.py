"""A class is one class however it is written, a gap is a gap in every format, and a message stays short."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from railkd.data.label_names import describe_look_alikes, parse_label_map
from railkd.data.reader import Cells, read, refuse_unused_entries
from railkd.data.reading import Reading
from railkd.data.sources import Source
from railkd.errors import RailkdError
from railkd.jobs.options import EvaluateOptions
from railkd.jobs.splits import Sources, TableReader
from railkd.tasks import TASKS, task_of, task_of_labels
from railkd.tasks.target import Target

Gap = float("nan")
SUFFIXES = (".jsonl", ".parquet", ".csv", ".tsv")
CLASSES, MANY = task_of("single_label_classification"), task_of("multi_label_classification")
ANY_NUMBER = Target.of_model((), MANY.problem_type, "m")


def write(path: Path, cells: list[Any]) -> str:
    """Write labels in the format of the path."""
    rows = [{"text": f"t{number}", "label": cell} for number, cell in enumerate(cells)]
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "," if path.suffix == ".csv" else "\t"
        lines = (f"{row['text']}{mark}{'' if row['label'] is None else row['label']}\n" for row in rows)
        path.write_text(f"text{mark}label\n" + "".join(lines))
    return str(path)


# An empty cell of text says that no class of several applies, so that csv and tsv have no gaps there.
KINDS = [(suffix, kind) for suffix in SUFFIXES for kind in TASKS if suffix[1] in "jp" or not TASKS[kind].several]


@pytest.mark.parametrize(("suffix", "kind"), KINDS)
def test_an_empty_label_is_missing_in_every_format(suffix: str, kind: str, tmp_path: Path) -> None:
    gap: Any = None if suffix in (".csv", ".tsv") else [Gap, Gap] if TASKS[kind].several else Gap
    cells: list[Any] = [[1.0, 0.0], [0.0, 1.0]] if TASKS[kind].several else [3.0, 4.5]
    table = read(Source.parse(write(tmp_path / f"a{suffix}", [*cells, gap])), Reading(), split="train")
    target = Target.infer(table, TASKS[kind])
    assert len(target.space.names) in (0, 2)
    with pytest.raises(RailkdError, match="row 3 has no label"):
        target.label(table)


@pytest.mark.parametrize("gap", ["NA", "nan", "None", "#N/A", "inf"])
def test_a_word_for_a_gap_among_numbers_makes_no_classes_of_them(gap: str) -> None:
    cells = Cells({"label": ["0.5", "1.25", gap, "1"]}, "f")
    task = task_of_labels(cells)
    assert task.name == "regression"
    with pytest.raises(RailkdError, match=rf"row 3 has the label '{gap}', which is not a (finite )?number"):
        task.encode(cells, task.infer(cells))
    assert task_of_labels(Cells({"score": [gap, gap]}, "f")).name == "classification"


@pytest.mark.parametrize(
    ("row", "message"),
    [(None, "row 3 has no label"), ([-1], "row 3 has no label"), ([-1, 1], "row 3: expected one name")],
)
def test_a_hidden_label_in_a_list_is_not_the_last_class(row: Any, message: str, tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": List(ClassLabel(names=["a", "b", "c"]))})
    rows = Dataset.from_dict({"text": ["x", "y", "z"], "label": [[0], [], row]}, features=features)
    rows.save_to_disk(str(tmp_path / "saved"))
    table = read(Source.parse(str(tmp_path / "saved")), Reading(), split="train")
    assert table.cells is not None and list(table.cells.columns["label"][:2]) == [["a"], []]
    with pytest.raises(RailkdError, match=message):
        Target.of_model(("a", "b", "c"), MANY.problem_type, "m").label(table)


def test_gaps_between_flags_are_gaps() -> None:
    cells = Cells({"a": [1.0, 0.0, Gap], "b": [0.0, 1.0, Gap]}, "f")
    task = task_of_labels(cells)
    assert task.infer(cells).names == ("a", "b")
    with pytest.raises(RailkdError, match="row 3 has no label"):
        task.encode(cells, task.infer(cells))


@pytest.mark.parametrize("name", ["nan", "NaN", "None", "NULL", "<NA>", "NaT", "NA", "#N/A"])
def test_a_class_that_looks_like_a_gap_is_warned_of(name: str, tmp_path: Path) -> None:
    said: list[str] = []
    path = write(tmp_path / "a.csv", ["pos", name, "neg"])
    options = EvaluateOptions(test=[path])
    TableReader(options, said.append).read(Source.parse(path), split="test")
    assert [line for line in said if "warning: " in line and f"{name!r} is read as a label like others" in line]
    said.clear()
    TableReader(EvaluateOptions(label_map=[f"{name}=no opinion"]), said.append).read(Source.parse(path), split="test")
    assert said and not any("warning" in line for line in said)


@pytest.mark.parametrize(
    ("cells", "hidden"),
    [
        ([0, 1, -1], "-1"),
        (["0", "1", "2", "-1"], "-1"),
        ([0.5, 4.0, 2.5, -1.0], "-1"),
        ([3, 0, -100], "-100"),
        ([-1, 1], ""),  # two classes
        ([-0.5, 0.5, -1.0, 0.0], ""),  # a scale with negative values
        ([0, 1, -2], ""),
        (["-1", "good", "bad"], ""),
    ],
)
def test_a_number_that_hides_labels_is_warned_of(cells: list[Any], hidden: str) -> None:
    doubt = Cells({"label": cells}, "f").doubt
    assert (f"the label '{hidden}' is read as a label like others" in doubt) if hidden else doubt == ""
    assert not Cells({"label": cells}, "f", {hidden or "x": "none"}).doubt


def test_the_flags_of_multi_hot_lists_keep_the_order_of_the_model() -> None:
    cells = [[1, 0, 0], [0, 1, 1]]
    named = Cells({"label": cells}, "f", {"LABEL_0": "glad", "LABEL_2": "Sad"})
    assert MANY.infer(named).names == ("glad", "LABEL_1", "Sad")
    assert MANY.encode(named, MANY.match(named, ("Glad", "x", "sad"), model="m")) == cells
    with pytest.raises(RailkdError, match="LABEL_0=glad names flag 0 of each list, which is 'sad' in m"):
        MANY.match(named, ("sad", "x", "glad"), model="m")
    columns = Cells({"sad": [1, 0], "glad": [0, 1]}, "f", {"sad": "blue"})
    assert MANY.encode(columns, MANY.infer(columns)) == [[1.0, 0.0], [0.0, 1.0]]
    assert MANY.infer(columns).names == ("blue", "glad")
    with pytest.raises(RailkdError, match="a name of its own, got 'a', 'LABEL_1' and 'a'"):
        MANY.infer(Cells({"label": cells}, "f", {"LABEL_0": "a", "LABEL_2": "a"}))


@pytest.mark.parametrize("ones", [["0", "1"], ["0.0", "1.0"], ["0.00", "1.000"], [0, 1], [0.0, 1.0]])
def test_whole_numbers_are_one_class_however_they_are_written(ones: list[Any]) -> None:
    assert CLASSES.infer(Cells({"label": ones}, "f")).names == ("0", "1")
    for names in (("0", "1"), ("0.0", "1.0"), ("LABEL_0", "LABEL_1")):
        space = CLASSES.match(Cells({"label": ones}, "f"), names, model="m")
        assert CLASSES.encode(Cells({"label": ones}, "f"), space) == [0, 1]
    mapped = Cells({"label": ones}, "f", {"0": "neg", "1": "pos"})
    assert CLASSES.infer(mapped).names == ("neg", "pos")
    assert Reading.parse(None, None, ["1.0=pos"]).label_map == {"1": "pos"}


@pytest.mark.parametrize("others", [["01", "1"], ["1.5", "1"], ["-1", "1"], ["1.0.0", "1"], ["v1.0", "v1"]])
def test_other_spellings_are_other_classes(others: list[str]) -> None:
    assert len(CLASSES.infer(Cells({"label": others}, "f")).names) == 2


def test_an_entry_that_renames_nothing_in_any_table_is_refused(tmp_path: Path) -> None:
    one, two = Cells({"label": ["great", "poor"]}, "a.tsv"), Cells({"label": ["a|b", "c"]}, "b.tsv")
    written = [(cells.where, ANY_NUMBER.written(cells)) for cells in (one, two)]
    refuse_unused_entries({"great": "x", "poor": "y", "b": "z", "c": "c"}, written)
    refuse_unused_entries({"sad": "x"}, [("f", ANY_NUMBER.written(Cells({"sad": [0], "glad": [1]}, "f")))])
    refuse_unused_entries({"LABEL_1": "x"}, [("f", ANY_NUMBER.written(Cells({"label": [[0, 1], [1, 1]]}, "f")))])
    refuse_unused_entries({"anything": "x"}, [])  # no labels were read
    with pytest.raises(RailkdError, match=r"no label 'grate' in 'a.tsv' and 'b.tsv'.*Did you mean 'great'"):
        refuse_unused_entries({"great": "x", "grate": "y"}, written)
    files = [write(tmp_path / f"{name}.tsv", cells) for name, cells in (("a", ["neg"]), ("b", ["pos", "bad"]))]
    target = Target.of_model(("neg", "pos"), CLASSES.problem_type, "m")
    commas = EvaluateOptions(test=[write(tmp_path / "c.jsonl", ["neg", "pos", "bad, very"])])
    for entries, part in ((["bad, very=neg"], ""), (["bad, very=neg", "very=neg"], "no label 'very'")):
        reader = TableReader(options := replace(commas, label_map=entries), lambda line: None)
        with pytest.raises(RailkdError, match=part) if part else nullcontext():
            reader.tests(Sources.parse(options), target)  # a comma in a class is no separator if a row has one class
    for entries, fits in ((["bad=neg"], True), (["bad=neg", "badd=neg"], False)):
        options = EvaluateOptions(test=files, label_map=entries)
        reader = TableReader(options, lambda line: None)
        if fits:
            assert list(reader.tests(Sources.parse(options), target)) == ["a", "b"]
        else:
            with pytest.raises(RailkdError, match=r"no label 'badd'.*Did you mean 'bad'"):
                reader.tests(Sources.parse(options), target)


@pytest.mark.parametrize(
    ("cells", "pair"),
    [
        (["Good", "bad", "good"], "'Good' and 'good'"),
        (["not ok", "ok", "not_ok"], "'not ok' and 'not_ok'"),
        ([["A", "b"], ["a"]], "'A' and 'a'"),
        (["x|Y", "y|z"], "'Y' and 'y'"),
    ],
)
def test_classes_that_differ_in_case_are_kept_and_said(cells: list[Any], pair: str) -> None:
    several = isinstance(cells[0], list) or "|" in cells[0]
    task = task_of("multi_label_classification") if several else CLASSES
    first, second = pair.replace("'", "").split(" and ")
    apart = task.infer(Cells({"label": cells}, "f"))
    said = describe_look_alikes(apart.names, {})
    assert f"{pair} differ in case or separators only" in said
    entry = said.partition("--label-map ")[2].strip('"')
    label_map = parse_label_map([entry])
    merged = task.infer(Cells({"label": cells}, "f", label_map))
    assert len(apart.names) == len(merged.names) + 1
    assert {first, second} <= set(apart.names) and not describe_look_alikes(merged.names, label_map)
    assert not describe_look_alikes(apart.names, {first: first, second: second})
    # A model with both takes each by its exact spelling. A third spelling could mean either.
    both = task.match(Cells({"label": cells}, "f"), apart.names, model="m")
    assert [both.index(name, where="f") for name in apart.names] == list(range(len(apart.names)))
    third = first.swapcase()
    if third not in apart.names:
        with pytest.raises(RailkdError, match=f"without '{third}'"):
            task.match(Cells({"label": [[third]] if several else [third]}, "f"), apart.names, model="m")
    # A model with one of them takes both as that class, and says so.
    one = task.match(Cells({"label": cells}, "f"), merged.names, model="m")
    assert f"{pair} as " in one.describe_merged() and not both.describe_merged()


def test_messages_stay_short_whatever_the_labels() -> None:
    long = [letter * 10_000 for letter in "abc"]
    model = tuple(long[:2])
    several, numbers = task_of("multi_label_classification"), task_of("regression")
    refused = [
        lambda: CLASSES.infer(Cells({"label": long[:1]}, "f")),
        lambda: CLASSES.match(Cells({"label": long}, "f"), model, model="m"),
        lambda: CLASSES.encode(Cells({"label": long}, "f"), CLASSES.space(model)),
        lambda: several.match(Cells({"label": [long]}, "f"), model, model="m"),
        lambda: several.infer(Cells({long[0]: [long[1]], long[2]: [0]}, "f")),
        lambda: numbers.encode(Cells({"label": long}, "f"), numbers.space(())),
        lambda: refuse_unused_entries({long[0]: "x"}, [("f", long[1:])]),
        lambda: Reading.parse(None, None, long),
        lambda: Reading.parse(None, None, [f"{long[0]}={long[1]}", f"{long[0]}={long[2]}"]),
        *(lambda task=task: task.reader(model, {})(long[2:] if task.several else long[2]) for task in TASKS.values()),
        *(lambda task=task: task.reader(model, {})([math.inf] * 9999) for task in TASKS.values()),
    ]
    for attempt in refused:
        with pytest.raises(ValueError, match=r"characters\)") as error:
            attempt()
        assert len(str(error.value)) < 1000
    for task in (CLASSES, several):
        said = [task.describe(model), *(str(finding) for finding in task.describe_outputs(model, model[::-1]))]
        assert max(map(len, said)) < 1000
