"""The house: imports run one way, files stay short, nothing is pickled."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def offenders(broken: Callable[[Path], Any]) -> dict[str, Any]:
    """Return what is wrong with each file that breaks a law."""
    assert len(FILES) > 100
    return {str(path.relative_to(SRC / "railkd")): found for path in FILES if (found := broken(path))}


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


def test_imports_run_one_way() -> None:
    """Names that the package hands out lazily come from no room: inside, import them from where they live."""

    def upwards(path: Path) -> set[str]:
        if room_of(path) in DOORS:
            return set()
        return rooms_imported(path) - {room for room in FLOOR if FLOOR[room] <= FLOOR[room_of(path)]}

    assert offenders(upwards) == {}


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


def libraries(path: Path) -> set[str]:
    return {module.split(".")[0] for module, _ in imports(path)}


def test_light_rooms_know_no_heavy_library() -> None:
    heavy = {"torch", "transformers", "datasets", "numpy", "scipy", "sklearn"}
    light = [path for path in FILES if str(path.relative_to(SRC / "railkd").with_suffix("")) in LIGHT]
    assert len(light) == len(LIGHT)
    assert offenders(lambda path: path in light and libraries(path) & heavy) == {}


def test_a_report_needs_no_torch() -> None:
    rooms = {"errors", "records", "runtime", "statistics", "tasks"}
    runtime = {"railkd.runtime.words", "railkd.runtime.yaml_text"}

    def heavy(path: Path) -> set[str]:
        parts = {module for module, _ in imports(path) if ".runtime" in module}
        return libraries(path) & {"torch", "transformers", "datasets"} | rooms_imported(path) - rooms | parts - runtime

    assert "report" in map(room_of, FILES)
    assert offenders(lambda path: room_of(path) == "report" and heavy(path)) == {}


def test_training_alone_knows_trainer() -> None:
    def known(path: Path) -> set[str]:
        names = {name for module, names in imports(path) if module.split(".")[0] == "transformers" for name in names}
        return names & {"Trainer", "TrainingArguments", "TrainerCallback"}

    assert {room_of(path) for path in FILES if known(path)} == TRAINERS


def test_files_stay_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert offenders(lambda path: lengths[path] > 350) == {}


def test_public_names_are_sorted_and_there() -> None:
    def wrong(path: Path) -> list[str]:
        for node in tree(path).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                names: list[str] = ast.literal_eval(node.value)
                parts = path.relative_to(SRC).with_suffix("").parts
                module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
                missing = [name for name in names if not hasattr(module, name)]
                return missing if names == sorted(set(names)) else names
        return []

    assert offenders(wrong) == {}


def test_nothing_is_pickled() -> None:
    pickles = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}

    def pickled(path: Path) -> list[str]:
        found = sorted(libraries(path) & pickles)
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                settings = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                sound = {
                    "torch.save": False,
                    "torch.load": settings.get("weights_only") == "True",
                    "np.load": settings.get("allow_pickle") == "False",
                    "np.save": settings.get("allow_pickle") == "False",
                }
                found += [call] if not sound.get(call, True) else []
        return found

    assert offenders(pickled) == {}


def test_kinds_of_tasks_are_told_apart_in_their_room_alone() -> None:
    """Elsewhere no name of a kind is written down; but transformers' own names type the public losses, by a table."""
    kinds = {name for task in TASKS.values() for name in (task.name, task.problem_type)}

    def named(path: Path) -> set[Any]:
        here = {node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)} & kinds
        compared = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Compare)]
        names = {getattr(part, "value", None) for node in compared for part in (node.left, *node.comparators)}
        allowed = room_of(path) in {"tasks", "functional"} or path.name == "glue.py"
        return names & kinds if allowed else names & kinds | here

    assert offenders(named) == {}


def test_the_picture_shows_the_house_as_it_is() -> None:
    assert PICTURE.read_text(encoding="utf-8") == picture(), "draw it again: make house"
