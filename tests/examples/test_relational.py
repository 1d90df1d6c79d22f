"""A method in a package of its own: installed, it has everything that a method of railkd has."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from bench.room import ALONE, in_process, prepare, room
from railkd.cli import main
from railkd.cli.verb import printer
from railkd.cli.verbs import find_verb
from railkd.cli.words import parse
from railkd.jobs.distill import distill
from railkd.models import load_classifier
from railkd.objectives import build_objective, method_spec
from railkd.records import RunRecord
from railkd.signals import Signals
from railkd.testing import ObjectiveLaws

PACKAGE = Path(__file__).resolve().parents[2] / "examples" / "relational"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, installed by pip from the sources alone: no network, no other package."""
    source, site = tmp_path_factory.mktemp("source") / "relational", tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, source)
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", *words, "--target", site, source], check=True, timeout=100)
    return site


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A process that finds the package."""
    with monkeypatch.context() as here:
        here.syspath_prepend(site)
        yield here
    for name in [name for name in sys.modules if name.startswith("railkd_relational")]:
        del sys.modules[name]


class TestRelational(ObjectiveLaws):
    method = "relational"

    @pytest.fixture(autouse=True)
    def _installed(self, installed: Any) -> None:
        pass


@pytest.mark.usefixtures("installed")
def test_three_rows_by_hand() -> None:
    """The teacher's rows lie on a line, the student's form a triangle of equal sides."""
    teacher = Signals(torch.zeros(3, 2), torch.tensor([[0.0], [1.0], [2.0]]).unsqueeze(1))
    student = Signals(torch.zeros(3, 2), torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]]).unsqueeze(1))
    only: dict[str, Any] = {"weights": [0, 0, 1]}
    distances = build_objective("relational", (1, 2), (1, 1), angle=0.0, **only)
    torch.testing.assert_close(distances(student, teacher)[0], torch.tensor(2 * (2 * 0.03125 + 0.125) / 9))
    # At the middle row the angle is that of a line, -1 for 1/2; at the ends it is 0 degrees, 1 for 1/2. Twice for i, k.
    angles = build_objective("relational", (1, 2), (1, 1), distance=0.0, angle=1.0, **only)
    torch.testing.assert_close(angles(student, teacher)[0], torch.tensor(2 * ((1.5 - 0.5) + 2 * 0.125) / 27))


class Kill(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 4:
            raise KeyboardInterrupt


def test_the_whole_way(
    installed: pytest.MonkeyPatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    grid = ALONE | {"methods": ["kd", {"name": "relational", "angle": [0, 2]}]}
    folder = room(prepare(tmp_path / "base"), tmp_path / "run", grid)
    monkeypatch.chdir(folder)
    assert main(["methods", "relational"]) == 0
    assert "relational: Park et al. 2019" in capsys.readouterr().out
    teacher = ["--train", "data/one/train.tsv", "--no-bf16", "--max-length", "16", "--batch-size", "8", "--quiet"]
    assert main(["finetune", "--model", "base", *teacher, "--output", "teacher", "--epochs", "1"]) == 0
    words = [*teacher, "--teacher", "teacher/model", "--student-layers", "2", "--allow-weak-teacher", "--epochs", "1"]
    words += ["--cache", "cache", "--method", "relational", "--angle", "1.5", "--test", "data/one/dev.tsv"]
    assert main(["distill", *words, "--output", "whole"]) == 0
    # Ended in the middle and resumed, the run gives the student of a run without a break.
    verb = find_verb("distill")
    half = [*words, "--output", "half", "--save-steps", "2"]
    with pytest.raises(KeyboardInterrupt):
        distill(parse(verb, half).complete(verb), printer(True), [Kill()])
    assert main(["distill", *half, "--resume"]) == 0
    whole, resumed = (load_classifier(f"{name}/student").state_dict() for name in ("whole", "half"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    record = RunRecord.read("whole/metrics.json")
    assert (record.method, record.paper) == ("relational", "Park et al. 2019, arXiv 1904.05068")
    assert record.config["angle"] == 1.5 and record.contents["method"] == method_spec("relational").digest
    assert record.paper in Path("whole/student/README.md").read_text()
    arms = [record.arm for record in in_process(folder) if record.job == "distill"]
    assert arms == ["kd", "relational angle=0", "relational angle=2"]
    shutil.copy("grid.yaml", "out/grid.yaml")  # a bench of the command line keeps it there
    capsys.readouterr()
    assert main(["report", "out", "--markdown", "report.md"]) == 0, capsys.readouterr().err
    # Uninstalled: what needs the code says so, and what reads records alone does not need it.
    installed.undo()
    sys.modules.pop("railkd_relational")
    assert main(["distill", *words, "--output", "again"]) == 2
    assert main(["methods", "relational"]) == 2
    assert main(["bench", "grid.yaml", "--output", "out", "--resume"]) == 2
    assert capsys.readouterr().err.count("unknown method 'relational'; known: finetune, kd") == 3
    assert main(["report", "out", "--markdown", "again.md"]) == 0
    assert Path("report.md").read_text() == Path("again.md").read_text()
    assert "method relational: Park et al. 2019" in Path("again.md").read_text()
