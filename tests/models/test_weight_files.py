"""Files of weights are read as transformers reads them, and refused if they are damaged or unsafe."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from models.damaged import BIAS, FOREIGN, as_pickle, by_load, foreign, replaced
from railkd import TeacherCache, make_student
from railkd.errors import RailkdError
from railkd.models import Checkpoint, load_classifier
from tiny import text_rows


@pytest.mark.parametrize("kind", ["file", "shards"])
def test_only_the_files_that_transformers_reads_count(kind: str, tmp_path: Path, teacher_folder: Path) -> None:
    folder = as_pickle(teacher_folder, tmp_path / "model", kind)
    before = Checkpoint.find(folder).digest
    # None of these is read, whatever it holds.
    save_file({"x": torch.ones(2)}, folder / "head.safetensors")
    (folder / "pytorch_model_old.bin").write_bytes(b"not weights")
    checkpoint, wanted = Checkpoint.find(folder), load_classifier(teacher_folder)
    assert checkpoint.digest == before and "head.safetensors" not in {path.name for path in checkpoint.weights}
    for model in (checkpoint.model(), make_student(folder, 4)):
        assert all(torch.equal(value, wanted.state_dict()[name]) for name, value in model.state_dict().items())
    changed = checkpoint.weights[-1]
    weights = torch.load(changed, weights_only=True)
    weights[max(weights)] = weights[max(weights)] + 1
    torch.save(weights, changed)
    assert Checkpoint.find(folder).digest != before


def test_a_cache_notices_that_its_teachers_pickle_changed(tmp_path: Path, teacher_folder: Path) -> None:
    folder = as_pickle(teacher_folder, tmp_path / "model")
    save_file({"x": torch.ones(2)}, folder / "head.safetensors")
    TeacherCache.build(folder, text_rows(4), tmp_path / "cache")
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save(replaced(BIAS, lambda w: w + 1)(weights), folder / "pytorch_model.bin")
    with pytest.raises(RailkdError, match="other teacher weights"):
        TeacherCache.build(folder, text_rows(4), tmp_path / "cache")


@by_load
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_pickle_of_anything_but_tensors_is_refused_and_never_run(
    kind: str, load: Callable[[Path], Any], tmp_path: Path, teacher_folder: Path
) -> None:
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "model"))
    foreign(folder, kind)
    with pytest.raises(RailkdError, match="'pytorch_model.bin' of .* is damaged, or a pickle of more") as refusal:
        load(folder)
    assert "weights_only" not in str(refusal.value) and not (folder / "ran").exists()


@by_load
@pytest.mark.parametrize("length", [0, 5, 200, -40])
def test_damaged_safetensors_are_refused(
    length: int, load: Callable[[Path], Any], tmp_path: Path, teacher_folder: Path
) -> None:
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "model"))
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(RailkdError, match="'model.safetensors' of .* is damaged. Fix: "):
        load(folder)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("{", "is not an index of weight files"),
        ('{"weight_map": ["a.safetensors"]}', "is not an index of weight files"),
        ('{"weight_map": {"w": "lost.safetensors"}}', "not in its folder: lost.safetensors"),
        ('{"weight_map": {"w": "../config.json"}}', "not in its folder: ../config.json"),
        ('{"weight_map": {}}', "names weight files that are not in its folder"),
    ],
)
def test_an_index_that_names_no_shards_of_the_folder_is_refused(
    index: str, said: str, tmp_path: Path, teacher_folder: Path
) -> None:
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(RailkdError, match=said):
        Checkpoint.find(folder)


def test_weights_of_another_user_are_refused_before_anything_is_loaded(tmp_path: Path, teacher_folder: Path) -> None:
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "model"))
    (folder / "model.safetensors").chmod(0o600)
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.getuid() and not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o055)
    for name in ("model.safetensors", "config.json"):
        (folder / name).chmod(0o000)
        assert refusal_of(folder).startswith(f"no permission to read '{folder / name}' (owner "), name
        (folder / name).chmod(0o644)
    assert refusal_of(folder) == ""


def refusal_of(folder: Path) -> str:
    """Return the refusal of a checkpoint that a process without privileges finds; empty: it is found."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = ""
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            Checkpoint.find(folder)
        except RailkdError as error:
            said = str(error)
        except BaseException as error:
            said = repr(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return pipe.read()
