"""Reading a grid file: what it means, and reports of all its problems together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from railkd.bench import bundled_grids
from railkd.bench.grid import Grid
from railkd.bench.grid_reader import load
from railkd.cli import main
from railkd.errors import RailkdError

Capture = pytest.CaptureFixture[str]
LEAST: dict[str, Any] = {
    "name": "x",
    "tasks": {"t": {"train": "train.tsv", "test": ["dev.tsv"]}},
    "teacher": "teacher",
    "students": [{"layers": 2}],
    "methods": ["kd"],
}
OWN = """
from railkd.objectives import Objective


class Mine(Objective):
    terms = ("ce", "kd")
    paper = "Nobody 2026"

    def __init__(self, student_shape, teacher_shape, *, blocks: tuple[int, ...] = (1,), margin: float = 0.1, **options):
        super().__init__(student_shape, teacher_shape, **options)
"""


def read(folder: Path, **changes: Any) -> Grid:
    file = folder / "grid.yaml"
    file.write_text(yaml.safe_dump({name: value for name, value in (LEAST | changes).items() if value is not None}))
    return load(file)


def arms(folder: Path, *methods: Any) -> list[str]:
    return [arm.name for arm in read(folder, methods=list(methods)).arms]


def test_an_arm_is_named_by_the_options_in_which_it_differs(tmp_path: Path) -> None:
    assert arms(tmp_path, "kd", {"name": "rail-kd-l", "redraw": "step"}) == ["kd", "rail-kd-l"]
    grid = {"name": "rail-kd-l", "redraw": ["epoch", "step"], "temperature": [1, 2], "shared_size": 8}
    assert arms(tmp_path, grid) == [
        "rail-kd-l redraw=epoch temperature=1",
        "rail-kd-l redraw=epoch temperature=2",
        "rail-kd-l redraw=step temperature=1",
        "rail-kd-l redraw=step temperature=2",
    ]
    assert arms(tmp_path, "kd", {"name": "kd", "temperature": 4}) == ["kd", "kd temperature=4"]
    weights = {"name": "kd", "weights": [[1, 1, 0], [1, 3, 0]]}
    assert arms(tmp_path, weights) == ["kd weights=1,1,0", "kd weights=1,3,0"]
    (one,) = read(tmp_path, methods=[{"name": "kd", "weights": [1, 3, 0]}]).arms
    assert one.settings == {"weights": [1, 3, 0]}


def test_a_list_is_one_value_of_an_option_that_takes_lists(tmp_path: Path) -> None:
    (one,) = read(tmp_path, methods=[{"name": "gram", "taught_by": [2, 4]}]).arms
    assert (one.name, one.settings) == ("gram", {"taught_by": [2, 4]})
    many = {"name": "gram", "taught_by": [[2, 4], [1, 3]], "temperature": [1, 2]}
    assert arms(tmp_path, many) == [f"gram taught_by={by} temperature={t}" for by in ("2,4", "1,3") for t in (1, 2)]
    (tmp_path / "own.py").write_text(OWN)
    mine = {"name": f"{tmp_path / 'own.py'}:Mine", "blocks": [1, 2], "margin": [0.1, 0.2]}
    assert arms(tmp_path, mine) == ["own.py:Mine margin=0.1", "own.py:Mine margin=0.2"]
    (tmp_path / "own.py").write_text("raise AssertionError('this code was run')")
    assert len(load(tmp_path / "grid.yaml", trusted=False).arms) == 4  # nothing is run to find out


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    assert arms(tmp_path, "x/a/m.py:Mine", "x/b/m.py:Mine", "m.py:Mine", "x/a/m.py:Other", "x.a:Mine") == [
        "a/m.py:Mine",
        "b/m.py:Mine",
        "m.py:Mine",
        "m.py:Other",
        "x.a:Mine",
    ]
    with pytest.raises(RailkdError, match="'m.py:Mine' occurs twice"):
        arms(tmp_path, "m.py:Mine", "./m.py:Mine")


def test_seeds_are_a_number_or_a_list(tmp_path: Path) -> None:
    assert read(tmp_path, seeds=3).seeds == (1, 2, 3) and read(tmp_path, seeds=[7, 42]).seeds == (7, 42)
    assert read(tmp_path).seeds == (1,)


def test_a_share_of_train_selects_unless_dev_is_asked_for(tmp_path: Path) -> None:
    assert read(tmp_path).selection == {"eval_share": 0.1, "eval_seed": 0}
    assert read(tmp_path, selection={"eval_share": 0.2}).selection == {"eval_share": 0.2}
    task = LEAST["tasks"]["t"] | {"eval": "dev.tsv", "test": ["test.tsv"]}
    grid = read(tmp_path, selection={"eval": "dev"}, tasks={"t": task})
    assert grid.selection == {} and grid.tasks[0].data["eval"] == "dev.tsv"


def table(path: Path, columns: str = "sentence1\tsentence2\tlabel") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{columns}\n" + "\t".join(["x"] * len(columns.split("\t"))) + "\n")


def test_a_glue_folder_is_given_by_its_name_alone(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        table(tmp_path / "glue" / "rte" / f"{split}.tsv")
    table(tmp_path / "glue" / "rte" / "test.tsv", "index\tsentence1\tsentence2")  # GLUE's own test file has no labels.
    for split in ("train", "dev_matched", "dev_mismatched"):
        table(tmp_path / "glue" / "MNLI" / f"{split}.tsv", "sentence1\tsentence2\tgold_label")
    for name in ("HANS", "IMDB_CONTRAST", "ADV_RTE"):
        table(tmp_path / "ood" / name / "test.tsv")
    roots = {"data": str(tmp_path / "glue"), "ood": str(tmp_path / "ood")}
    rte, mnli = read(tmp_path, tasks=["RTE", "MNLI"], **roots).tasks
    glue, ood = tmp_path / "glue", tmp_path / "ood"
    assert rte.data == {
        "train": f"{glue}/rte:train",
        "test": [f"dev={glue}/rte:dev"],
        "ood": [f"HANS={ood}/HANS", f"ADV_RTE={ood}/ADV_RTE"],
    }
    assert mnli.data["test"] == [
        f"dev_matched={glue}/MNLI:dev_matched",
        f"dev_mismatched={glue}/MNLI:dev_mismatched",
    ]
    table(glue / "rte" / "test.tsv")  # Now it has labels.
    (rte,) = read(tmp_path, tasks=["RTE"], **roots).tasks
    assert rte.data["test"] == [f"dev={glue}/rte:dev", f"test={glue}/rte:test"]
    (rte,) = read(tmp_path, tasks=["RTE"], selection={"eval": "dev"}, **roots).tasks
    assert rte.data["eval"] == f"{glue}/rte:dev" and rte.data["test"] == [f"test={glue}/rte:test"]


def test_the_grid_of_the_documents_is_a_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "bench.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    for name in ("RTE", "SST-2"):
        for split in ("train", "dev"):
            table(tmp_path / "glue" / name / f"{split}.tsv")
    table(tmp_path / "ood" / "HANS" / "test.tsv")
    (tmp_path / "grid.yaml").write_text(block)
    monkeypatch.chdir(tmp_path)
    grid = load("grid.yaml")
    assert [task.name for task in grid.tasks] == ["RTE", "SST-2", "reviews"]
    assert grid.tasks[0].data["ood"] == ["HANS=ood/HANS"] and grid.tasks[2].data["ood"] == ["news=news/test.tsv"]
    assert [arm.name for arm in grid.arms] == ["finetune", "kd", "rail-kd-l redraw=epoch", "rail-kd-l redraw=step"]
    assert [student.name for student in grid.students] == ["6-layers", "DistilBERT"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"methdos": ["kd"]}, "unknown key 'methdos'. Did you mean 'methods'?"),
    ({"students": None, "methods": None}, "'students' is missing.*also: 'methods' is missing"),
    ({"teacher": None}, "tasks.t: no teacher is given"),
    ({"teacher": {"epochs": 3}}, "teacher: expected the folder of a finished teacher, 'finetune: MODEL' and its"),
    ({"teacher": {"finetune": "m", "output": "x"}}, "teacher.output: the grid decides this"),
    ({"tasks": {"t": {"train": "a", "test": "b", "tset": "c"}}}, "tasks.t: unknown key 'tset'. Did you mean 'test'"),
    ({"tasks": {"t": {"train": "a"}}}, "tasks.t: no test set"),
    ({"tasks": ["RTE"]}, "tasks.RTE: expected train: FILE, or .data: FOLDER."),
    ({"tasks": {"a b": LEAST["tasks"]["t"], "a-b": LEAST["tasks"]["t"]}}, "'a b' and 'a-b' are too similar"),
    ({"data": "/nowhere", "tasks": ["RTE"]}, "data: .* '/nowhere' cannot be read"),
    ({"students": [{"name": "x"}]}, "students\\[1\\]: expected 'layers: N', or 'model: CHECKPOINT'"),
    ({"students": [{"layers": 2}, {"layers": 2}]}, "students: '2-layers' occurs twice"),
    ({"students": [{"layers": 2, "name": "a, b"}]}, "students\\[1\\]: the name 'a, b' holds ', '"),
    ({"methods": ["kd", "kd"]}, "methods: 'kd' occurs twice"),
    ({"methods": [{"temperature": 2}]}, "methods\\[1\\]: expected the name of a method"),
    ({"methods": [{"name": "kd", "max_length": 3}]}, "max_length: not an option of a method"),
    (
        {"methods": [{"name": "kd", "temperature": []}]},
        "methods\\[1\\]: expected 1 to 1000 combinations of options, got 0",
    ),
    ({"contrasts": [{"arm": "kd", "baseline": "kd"}]}, "contrasts\\[1\\]: 'name' is missing"),
    ({"seeds": 0}, "seeds: expected the number of seeds, .*, got 0"),
    ({"seeds": [1, 1]}, "seeds: '1' occurs twice"),
    ({"settings": {"seed": 3}}, "settings.seed: the grid decides this"),
    ({"settings": {"push_to_hub": "me/x"}}, "settings.push_to_hub: it has no effect in a file"),
    ({"teacher": {"finetune": "m", "push-to-hub": "me/x"}}, "teacher.push_to_hub: it has no effect in a file"),
    ({"tasks": {"t": {**LEAST["tasks"]["t"], "settings": {"private": False}}}}, "settings.private: it has no effect"),
    ({"settings": [1]}, "settings: expected a mapping, .*, got the list \\[1\\]"),
    ({"selection": {"eval": "test"}}, "selection: expected 'eval: dev' alone"),
    ({"selection": {"eval": "dev"}}, "tasks.t: 'selection: {eval: dev}' needs an eval file"),
    ({"baseline": "KD"}, "baseline: expected an arm \\(kd\\), got 'KD'"),
    ({"contrasts": [{"arm": "kd", "baseline": "kd", "domain": "far"}]}, "domain: expected in or out, got 'far'"),
    ({"contrasts": [{"arm": "rail", "baseline": "kd"}]}, "contrasts\\[1\\].arm: expected an arm \\(kd\\), got 'rail'"),
    ({"executor": "slurm"}, "executor: expected local or ray, got 'slurm'"),
    ({"keep_students": "some"}, "keep_students: expected all, best or none, got 'some'"),
    ({"processes": 0}, "processes: expected 1 or more, got 0"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[str(list(change)) for change, _ in WRONG])
def test_a_problem_is_reported_in_words(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RailkdError, match=f"(?s){message}"):
        read(tmp_path, **change)


def test_all_problems_are_reported_together(tmp_path: Path, capsys: Capture) -> None:
    with pytest.raises(RailkdError) as raised:
        read(tmp_path, seeds="many", baseline="x", colour="red", methods=["kd", 3])
    for message in (
        "from 0, got 'many'",
        "got 'x'",
        "unknown key 'colour'",
        "methods[2]: expected a mapping, with lines such as 'name: value', got 3",
    ):
        assert message in str(raised.value)
    assert str(raised.value).startswith(f"{tmp_path / 'grid.yaml'}: ")
    assert main(["bench", str(tmp_path / "grid.yaml"), "--output", str(tmp_path / "out")]) == 2
    assert "Traceback" not in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["bench"], "no grid file is given"),
        (["bench", "nowhere.yaml", "--output", "x"], "nowhere.yaml: no such file"),
        (
            ["bench", "--copy", "smok"],
            "expected one of ablation, glue, own, paper, smoke, got 'smok'. Did you mean 'smoke'?",
        ),
        (["bench", "g", "--output", "x", "--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
        (["bench", "g", "--output", "x", "--processes", "0"], "--processes: expected at least 1, got 0"),
        (["bench", "g", "--output", "x", "--executor", "slurm"], "expected local or ray, got 'slurm'"),
    ],
)
def test_bad_flags_end_the_command_before_anything_starts(argv: list[str], message: str, capsys: Capture) -> None:
    assert main(argv) == 2
    assert message in capsys.readouterr().err


def test_bundled_grids_are_listed_and_copied_once(tmp_path: Path, capsys: Capture) -> None:
    assert main(["bench", "--list"]) == 0
    out = capsys.readouterr().out
    for name in bundled_grids.list_grids():
        assert f"{name}: " in out
        target = tmp_path / f"{name}.yaml"
        assert main(["bench", "--copy", name, str(target)]) == 0
        assert target.read_text() == bundled_grids.read_grid(name)
    assert main(["bench", "--copy", "smoke", str(target)]) == 2
    assert "exists already" in capsys.readouterr().err
