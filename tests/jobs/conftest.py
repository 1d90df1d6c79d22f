"""Fixtures of the tests of jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.commands import base_of


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint of four blocks, and a tokenizer that knows a few common words."""
    return base_of(tmp_path_factory.mktemp("base"), ["the", "a", "of", "to", "is", "not", "who", "what", "how", "good"])
