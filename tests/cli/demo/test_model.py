"""The demo's encoder is the expected one, or an error says what to install."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from railkd.cli.demo.model import PACKAGES, WEIGHTS_SHA256, encoder_folder
from railkd.errors import RailkdError

WEIGHTS = b"eight or so bytes"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


def model(folder: Path, weights: bytes = WEIGHTS) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_the_first_package_with_the_expected_weights_is_used(tmp_path: Path) -> None:
    altered, good = model(tmp_path / "altered", b"others"), model(tmp_path / "good")
    finders = {"missing": lambda: None, "altered": lambda: altered, "good": lambda: good}
    assert encoder_folder(finders, SHA256) == good


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    folder = model(tmp_path / "altered", WEIGHTS + b"!")
    with pytest.raises(
        RailkdError, match=rf"Expected .*{SHA256[:8]}.*got pack: model.safetensors of sha256.*--force-rei"
    ):
        encoder_folder({"pack": lambda: folder}, SHA256)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_incomplete_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = model(tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(RailkdError, match=f"a folder without {name}"):
        encoder_folder({"pack": lambda: folder}, SHA256)


def test_a_missing_package_is_an_error_with_the_command_to_install_it() -> None:
    with pytest.raises(RailkdError, match=r'pip install "railkd\[demo\]"'):
        encoder_folder({name: lambda: None for name in PACKAGES})


def test_the_real_encoder_is_the_one_named_in_the_readme() -> None:
    folder = encoder_folder()
    with (folder / "model.safetensors").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == WEIGHTS_SHA256
    assert (folder / "tokenizer.json").is_file()
