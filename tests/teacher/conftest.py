"""A cache made of numbers, and a teacher that counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from railkd.teacher import TeacherCache
from teacher.made import signals, write
from tiny import CountingBert, bert_config


@pytest.fixture
def small(tmp_path: Path) -> TeacherCache:
    return write(tmp_path / "cache", signals(6))


@pytest.fixture(scope="module")
def counting() -> CountingBert:
    torch.manual_seed(0)
    return CountingBert(bert_config(2, width=8)).eval()
