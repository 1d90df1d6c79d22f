"""The house: imports run one way, files stay short, nothing is pickled."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src"
FILES = sorted(SRC.rglob("*.py"))
by_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC / "railkd")))

#: Floors from the ground up; a room imports from its own floor and those below. A new room is given its floor here.
FLOORS = (
    {"errors"},
    {"functional", "mapping", "runtime", "signals", "statistics"},
    {"data", "records"},
    {"tasks"},
    {"objectives", "report"},
    {"models"},
    {"teacher"},
    {"training"},
    {"jobs"},
    {"bench"},
    {"cli"},
)
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
#: They hand out names lazily or start the program, and belong to no floor.
DOORS = {"__init__", "__main__"}
#: The room that may know transformers' Trainer.
TRAINERS = {"training"}
#: Read before heavy imports, or without torch at all.
LIGHT = {"errors", "mapping", "records", "jobs/options", "jobs/settings", "jobs/validation", "runtime/environment"}
#: What the top of the package may hold, the marker py.typed aside: the listing is the table of contents.
MOST_NAMES = 20


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room_of(path: Path) -> str:
    first = path.relative_to(SRC / "railkd").parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(absolute module, names) of every import of a file: lazy ones and those for types included."""
    package = path.relative_to(SRC).parent.parts
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield ".".join([*base, *([node.module] if node.module else [])]), [alias.name for alias in node.names]


def rooms_imported(path: Path) -> set[str]:
    rooms = set()
    for module, names in imports(path):
        parts = module.split(".")
        if parts[0] == "railkd":
            rooms |= {parts[1]} if len(parts) > 1 else set(names)
    return rooms - {room_of(path), "__version__"}


def files_imported(path: Path) -> set[Path]:
    """The files of railkd that a file imports: those of submodules by name, otherwise the package's own file."""
    found = set()
    for module, names in imports(path):
        base = SRC.joinpath(*module.split("."))
        for place in [base / name for name in names] or [base]:
            candidates = (
                place.with_suffix(".py"),
                place / "__init__.py",
                base.with_suffix(".py"),
                base / "__init__.py",
            )
            found |= set([file for file in candidates if file in FILES][:1])
    return found


def circle(imported: Mapping[Path, set[Path]]) -> set[str]:
    """The files that are left when those that import none of the rest are taken away, again and again."""
    left = dict(imported)
    while free := [path for path, others in left.items() if not others & left.keys()]:
        for path in free:
            del left[path]
    return {str(path.relative_to(SRC)) for path in left}


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
    trainer, gauging = (SRC / "railkd" / "training" / name for name in ("trainer.py", "gauging.py"))
    closed = circle(imported | {gauging: imported[gauging] | {trainer}})
    assert {"railkd/training/trainer.py", "railkd/training/gauging.py", "railkd/job.py"} <= closed


@by_file
def test_light_rooms_know_no_heavy_library(path: Path) -> None:
    if str(path.relative_to(SRC / "railkd").with_suffix("")) in LIGHT:
        heavy = {"torch", "transformers", "datasets", "numpy", "scipy", "sklearn"}
        assert {module.split(".")[0] for module, _ in imports(path)} & heavy == set()


@by_file
def test_a_report_needs_no_torch(path: Path) -> None:
    if room_of(path) == "report":
        assert {module.split(".")[0] for module, _ in imports(path)} & {"torch", "transformers", "datasets"} == set()
        assert rooms_imported(path) <= {"errors", "records", "statistics", "tasks"}


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
