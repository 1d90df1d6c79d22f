"""The house: imports run one way, files stay short, nothing is pickled."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from house import (
    DOORS,
    FILES,
    FLOOR,
    LIGHT,
    MOST_NAMES,
    PICTURE,
    SRC,
    TRAINERS,
    circle,
    files_imported,
    imports,
    picture,
    room_of,
    rooms_imported,
    tree,
)
from railkd.tasks import TASKS

by_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC / "railkd")))


def test_the_top_of_the_package_is_a_table_of_contents() -> None:
    names = {path.name for path in (SRC / "railkd").iterdir()} - {
        "__pycache__",
        "__init__.py",
        "__main__.py",
        "py.typed",
    }
    assert len(names) <= MOST_NAMES


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in FILES} - DOORS == set(FLOOR)


@by_file
def test_imports_run_one_way(path: Path) -> None:
    if room_of(path) not in DOORS:
        # Names that the package hands out lazily come from no room: inside, import them from where they live.
        assert rooms_imported(path) <= {room for room in FLOOR if FLOOR[room] <= FLOOR[room_of(path)]}


def test_rooms_of_one_floor_do_not_import_each_other_in_a_circle() -> None:
    wanted: dict[str, set[str]] = {room: set() for room in FLOOR}
    for path in FILES:
        if room_of(path) not in DOORS:
            wanted[room_of(path)] |= rooms_imported(path)
    while free := [room for room, others in wanted.items() if not others & wanted.keys()]:
        for room in free:
            del wanted[room]
    assert wanted == {}


def test_files_do_not_import_each_other_in_a_circle() -> None:
    """Imports inside of functions and for types count; so do the doors of packages."""
    imported = {path: files_imported(path) for path in FILES}
    assert sum(map(len, imported.values())) > len(FILES)  # the imports are seen
    assert circle(imported) == set()
    # A file that imports what imports it is found, and so is whatever stands above it.
    trainer, gauges = (SRC / "railkd" / "training" / name for name in ("trainer.py", "gauges.py"))
    closed = circle(imported | {gauges: imported[gauges] | {trainer}})
    assert {"railkd/training/trainer.py", "railkd/training/gauges.py", "railkd/jobs/train.py"} <= closed


@by_file
def test_light_rooms_know_no_heavy_library(path: Path) -> None:
    if str(path.relative_to(SRC / "railkd").with_suffix("")) in LIGHT:
        heavy = {"torch", "transformers", "datasets", "numpy", "scipy", "sklearn"}
        assert {module.split(".")[0] for module, _ in imports(path)} & heavy == set()


@by_file
def test_a_report_needs_no_torch(path: Path) -> None:
    if room_of(path) == "report":
        assert {module.split(".")[0] for module, _ in imports(path)} & {"torch", "transformers", "datasets"} == set()
        assert rooms_imported(path) <= {"errors", "records", "runtime", "statistics", "tasks"}
        assert {module for module, _ in imports(path) if ".runtime" in module} <= {
            "railkd.runtime.words",
            "railkd.runtime.yaml_text",
        }


@by_file
def test_training_alone_knows_trainer(path: Path) -> None:
    if room_of(path) not in TRAINERS:
        known = {name for module, names in imports(path) if module.split(".")[0] == "transformers" for name in names}
        assert known & {"Trainer", "TrainingArguments", "TrainerCallback"} == set()


@by_file
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


@by_file
def test_public_names_are_sorted_and_there(path: Path) -> None:
    for node in tree(path).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            names = ast.literal_eval(node.value)
            assert names == sorted(names) and len(set(names)) == len(names)
            module = importlib.import_module(
                ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
            )
            assert [name for name in names if not hasattr(module, name)] == []


@by_file
def test_nothing_is_pickled(path: Path) -> None:
    pickles = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert {module.split(".")[0] for module, _ in imports(path)} & pickles == set()
    for node in ast.walk(tree(path)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            call = f"{node.func.value.id}.{node.func.attr}"
            settings = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert call != "torch.save"
            assert call != "torch.load" or settings.get("weights_only") == "True"
            assert call not in ("np.load", "np.save") or settings.get("allow_pickle") == "False"


@by_file
def test_kinds_of_tasks_are_told_apart_in_their_room_alone(path: Path) -> None:
    """Elsewhere no name of a kind is written down; but transformers' own names type the public losses, by a table."""
    kinds = {name for task in TASKS.values() for name in (task.name, task.problem_type)}
    here = {node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)} & kinds
    assert not here or room_of(path) in {"tasks", "functional"} or path.name == "glue.py"
    compared = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Compare)]
    names = {getattr(part, "value", None) for node in compared for part in (node.left, *node.comparators)}
    assert not names & kinds


def test_the_picture_shows_the_house_as_it_is() -> None:
    assert PICTURE.read_text(encoding="utf-8") == picture(), "draw it again: make house"
