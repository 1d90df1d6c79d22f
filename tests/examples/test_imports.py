"""Examples import from public faces alone: packages of railkd, and the names that they hand out."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").rglob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_imports_public_names(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    found = [node for node in nodes if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("railkd.")]
    assert found
    for node in found:
        face = importlib.import_module(str(node.module))
        assert hasattr(face, "__path__"), f"{node.module} is a file, not a face"
        assert {alias.name for alias in node.names} <= set(face.__all__)
