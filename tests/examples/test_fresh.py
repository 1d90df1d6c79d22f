"""The package of examples/relational in an environment of its own, with what pip finds for it: make test-fresh."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.room import ALONE, prepare, room

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.fresh
def test_a_fresh_environment_knows_the_method_on_ray_too_and_says_what_is_missing(tmp_path: Path) -> None:
    grid = ALONE | {"methods": ["kd", {"name": "relational", "angle": [0, 2]}], "processes": 2}
    folder, scripts = room(prepare(tmp_path / "base"), tmp_path / "run", grid), tmp_path / "venv" / "bin"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)

    def run(tool: str, *words: object) -> tuple[int, str]:
        command = [scripts / tool, *map(str, words)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    pip = ("install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt")
    assert run("pip", *pip, f"{ROOT}[ray,report]", ROOT / "examples" / "relational") == (0, "")
    code, said = run("railkd", "methods", "relational")
    assert code == 0 and "option --angle" in said
    for executor in ("local", "ray"):
        code, said = run("railkd", "bench", "grid.yaml", "--output", executor, "--executor", executor, "--threads", 1)
        assert code == 0 and "5 of 5 jobs finished" in said, said
    code, said = run("railkd", "report", "ray", "--html", "report.html")
    assert code == 0 and "Park et al. 2019" in (folder / "report.html").read_text()
    assert run("pip", "uninstall", "--quiet", "--yes", "railkd-relational")[0] == 0
    for words in (["methods", "relational"], ["bench", "grid.yaml", "--output", "local", "--resume"]):
        code, said = run("railkd", *words)
        assert code == 2 and "unknown method 'relational'" in said
    assert run("railkd", "report", "ray", "--html", "again.html")[0] == 0
