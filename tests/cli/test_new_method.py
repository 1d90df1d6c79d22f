"""The package that ``railkd methods --new`` writes works at once, and keeps the laws."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import ClassVar

import pytest

from railkd.bench.grid_reader import load
from railkd.cli import main
from railkd.cli.new_method import check_name
from railkd.errors import RailkdError
from railkd.objectives import method_spec
from railkd.testing import ObjectiveLaws


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "package"
    assert main(["methods", "--new", "my-cosine", "--output", str(folder)]) == 0
    return folder


class TestWritten(ObjectiveLaws):
    method: ClassVar[str] = ""

    @pytest.fixture(autouse=True)
    def _written(self, written: Path) -> None:
        type(self).method = f"{written / 'my_cosine' / '__init__.py'}:MyCosine"


def test_the_parts_of_the_package_name_each_other(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((written / "pyproject.toml").read_text())
    assert project["project"]["entry-points"] == {"railkd.methods": {"my-cosine": "my_cosine:MyCosine"}}
    assert project["tool"]["setuptools"]["packages"] == ["my_cosine"]
    arms = [arm.name for arm in load(written / "grid.yaml").arms]
    assert arms == ["finetune", "kd", "rail-kd-l", "my-cosine margin=0.0", "my-cosine margin=0.1"]
    assert "from my_cosine import MyCosine" in (written / "tests" / "test_laws.py").read_text()
    options = method_spec(f"{written / 'my_cosine' / '__init__.py'}:MyCosine").parameters
    assert options["margin"].help.startswith("rows whose cosine distance is below")
    for name, said in (
        ("kd", "a method 'kd' exists already"),
        ("My_Cosine", "expected small letters"),
        ("new-one", ""),
    ):
        assert main(["methods", "--new", name, "--output", str(written)]) == 2
        assert (said or "exists already. Fix: name another folder") in capsys.readouterr().err
    for name in ("none", "class", "linear", "f", "objective-laws", "tests", "torch", "railkd", "json"):
        assert main(["methods", "--new", name, "--output", str(written.parent / "refused")]) == 2, name
        assert "Fix: choose another name" in capsys.readouterr().err
    assert not (written.parent / "refused").exists()
    modules = [written / "my_cosine" / "__init__.py", written / "tests" / "test_laws.py"]
    for node in (node for file in modules for node in ast.walk(ast.parse(file.read_text()))):
        for used in node.names if isinstance(node, ast.ImportFrom | ast.Import) else ():
            name = used.asname or used.name
            if name[0].isupper() and name != "MyCosine":  # a class could have this name
                words = re.findall("[A-Z][a-z0-9]*", name)
                with pytest.raises(RailkdError, match="uses|installed"):
                    check_name("-".join(words).lower(), [])
    assert main(["methods", "--new", "one"]) == 2 and "--output is missing" in capsys.readouterr().err
