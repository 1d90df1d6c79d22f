"""Fixtures that every room of tests shares."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from datasets import Dataset

import tiny
from railkd.teacher import TeacherCache
from stand_in_hub import Hub, stand_in

# Tiny models are slower on more threads than one, and much slower beside other work.
torch.set_num_threads(1)

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def pytest_collection_finish() -> None:
    """Take what is imported by now out of the search for garbage, with which every training begins.

    The search goes through all objects there are, most of them functions and classes of libraries, and costs as much as
    the rest of a small training.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Callable[..., Path]:
    """``shared_data("glue", "RTE")``: real rows beside the repository, or a skip (RAILKD_REQUIRE_ALL=1: a failure)."""

    def find(*parts: str) -> Path:
        path = SHARED.joinpath(*parts)
        if not path.exists():
            tiny.missing(f"real rows not there: ../shared/data/{'/'.join(parts)}")
        return path

    return find


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where a test that can take a device runs: RAILKD_TEST_DEVICE, or the CPU."""
    return torch.device(os.environ.get("RAILKD_TEST_DEVICE", "cpu"))


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny.make_tokenizer()


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A BERT of 4 blocks, 16 wide, two classes, with its tokenizer."""
    return tiny.save(tmp_path_factory.mktemp("teacher"), tiny.make_model(), tokenizer)


@pytest.fixture(scope="session")
def rows() -> Dataset:
    """22 labelled rows of unlike length: no batch size that the tests use divides them."""
    return tiny.text_rows()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory, teacher_folder: Path, rows: Dataset) -> TeacherCache:
    """The teacher's cache of ``rows``: both poolings, single precision. Read only."""
    folder = tmp_path_factory.mktemp("cache") / "teacher"
    return TeacherCache.build(teacher_folder, rows, folder, pooling=["mean", "cls"], dtype="float32", batch_size=7)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A stand-in of the hub."""
    with stand_in() as found:
        yield found


@pytest.fixture
def usual(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The stand-in as the hub that huggingface_hub asks by itself, and a token for it."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"  # made of it when the client is imported
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    return hub


# The suite draws the same examples every time: a change passes or fails by itself. make fuzz looks for new ones.
hypothesis.settings.register_profile("suite", hypothesis.settings.get_profile("ci"), max_examples=60)
hypothesis.settings.register_profile("fuzz", max_examples=10_000, deadline=None)
hypothesis.settings.load_profile("suite")
