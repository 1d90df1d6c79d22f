"""Files are data: none of them makes railkd run code, read outside of its folder, or tell a secret."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from railkd import make_student
from railkd.errors import RailkdError
from railkd.jobs import settings
from railkd.models import Checkpoint, load_classifier
from railkd.teacher import TeacherCache
from railkd.teacher.manifest import manifest_checksum


@pytest.fixture
def copied(tmp_path: Path, cache: TeacherCache) -> Path:
    return Path(shutil.copytree(cache.path, tmp_path / "cache"))


def rewrite(folder: Path, change: Any) -> None:
    """An edited manifest with a checksum that fits: what someone would hand over on purpose."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    manifest["checksum"] = manifest_checksum(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("which", ["index", "shards"])
@pytest.mark.parametrize("kind", ["up", "absolute", "link", "nul"])
def test_a_manifest_cannot_name_files_elsewhere(copied: Path, which: str, kind: str) -> None:
    outside = copied.parent / "outside"

    def change(manifest: dict[str, Any]) -> None:
        entry = manifest["index"] if which == "index" else manifest["shards"][0]
        shutil.copy(copied / entry["file"], outside)
        if kind == "link":
            (copied / entry["file"]).unlink()
            (copied / entry["file"]).symlink_to(outside)
        else:
            names: dict[str, Any] = {"up": "../outside", "absolute": str(outside), "nul": "a\0b"}
            entry["file"] = names[kind]

    rewrite(copied, change)
    with pytest.raises(RailkdError, match="names of files in the cache's own folder and no links"):
        TeacherCache.open(copied)


@pytest.mark.parametrize("kind", ["mine", "bert"])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, teacher_folder: Path, kind: str) -> None:
    """A type that transformers does not know is refused. For a known type, transformers' own class is used."""
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    named = dict.fromkeys(["AutoConfig", "AutoModelForSequenceClassification", "AutoTokenizer"], "mine.Mine")
    (folder / "config.json").write_text(json.dumps(config | {"model_type": kind, "auto_map": named}))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for load in (lambda path: Checkpoint.find(path).config, load_classifier, lambda path: make_student(path, 2)):
        if kind == "bert":
            assert load(folder) is not None
        else:
            with pytest.raises(
                RailkdError, match="brings Python code of its own, which is not run.*--trust-remote-code"
            ):
                load(folder)
    assert not (tmp_path / "ran").exists()


def test_trust_is_of_one_checkpoint_and_is_lost_with_it(teacher_folder: Path) -> None:
    trusted = Checkpoint.find(teacher_folder, trust=True)
    assert trusted.trusted and Checkpoint.find(trusted) is trusted and trusted.folder == teacher_folder
    for other in (teacher_folder, trusted.folder, trusted.name, Checkpoint.find(teacher_folder)):
        assert not Checkpoint.find(other).trusted
    assert Checkpoint.find(Checkpoint.find(teacher_folder), trust=True).trusted


@pytest.mark.parametrize("trust", [True, False])
def test_python_files_of_the_hub_are_downloaded_only_where_they_are_trusted(teacher_folder: Path, trust: bool) -> None:
    asked: list[Any] = []

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        asked.extend(allow_patterns)
        return str(teacher_folder)

    found = Checkpoint.find("org/name", "v1", trust, download=download)
    assert found.folder == teacher_folder and found.trusted == trust and asked[0] == ("org/name", "v1")
    assert any(pattern.endswith(".py") for pattern in asked[1:]) == trust


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"train: !!python/object/apply:os.mkdir ['{tmp_path / 'ran'}']\n")
    with pytest.raises(RailkdError, match="not valid YAML in line 1: .*os.mkdir"):
        settings.load(config)
    assert not (tmp_path / "ran").exists()


def test_a_cache_that_may_only_be_read_is_read(copied: Path) -> None:
    for path in (*copied.iterdir(), copied):
        os.chmod(path, 0o555 if path.is_dir() else 0o444)
    try:
        TeacherCache.open(copied).verify()
    finally:
        os.chmod(copied, 0o755)
