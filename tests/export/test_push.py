"""A pushed folder arrives whole, at a stand-in of the hub on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from railkd.cli import main
from railkd.errors import RunFailed
from railkd.export.push import push
from stand_in_hub import Hub
from tiny import make_model, make_tokenizer, save

#: Files of railkd that mean nothing to others.
OURS = {"files.json", "export.json"}


def folder_of(place: Path) -> Path:
    for name in ("README.md", "config.json", "onnx/model.onnx", "onnx/quantize_config.json", "files.json"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(f"content of {name}\n")
    return place


def contents(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in files.items() if name not in OURS}


def test_every_file_arrives_with_the_card(hub: Hub, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "shipped")
    assert push(folder, "me/student", token="hf_x", endpoint=hub.endpoint) == f"{hub.endpoint}/me/student"
    assert hub.repositories == ["student"]
    assert hub.files == contents(folder) and len(hub.files) == 4


def test_an_export_is_pushed_with_its_card(usual: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, out = save(tmp_path / "base", make_model(1), make_tokenizer()), tmp_path / "out"
    assert main(["export", str(base), "--output", str(out), "--push", "me/shipped"]) == 0
    assert usual.private == [False]
    assert f"pushed: {usual.endpoint}" in capsys.readouterr().err
    assert usual.files == contents(out) and {path.name for path in out.iterdir()} >= OURS
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= usual.files.keys()


def test_a_run_is_pushed_when_it_ends(usual: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, out = save(tmp_path / "base", make_model(1), make_tokenizer()), tmp_path / "out"
    (tmp_path / "rows.tsv").write_text("text\tlabel\n" + "good film\tpos\nbad plot\tneg\n" * 4)
    run = ["finetune", "--model", str(base), "--train", str(tmp_path / "rows.tsv"), "--max-steps", "1", "--no-bf16"]
    assert main([*run, "--output", str(out), "--push-to-hub", "me/tuned", "--private"]) == 0
    assert f"pushed: {usual.endpoint}" in capsys.readouterr().err and usual.repositories == ["tuned"]
    assert usual.private == [True]
    assert usual.files == contents(out / "model") and b"railkd finetune" in usual.files["README.md"]
    assert b"me/tuned" not in usual.files["README.md"]
    assert "me/tuned" not in (out / "config.yaml").read_text()  # a run from that file uploads nothing


def test_a_push_that_cannot_work_is_refused_before_the_job(
    usual: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save(tmp_path / "base", make_model(1), make_tokenizer())
    words = ["export", str(base), "--output", str(tmp_path / "out"), "--push"]
    assert main([*words[:-1], "--private"]) == 2 and "no effect without --push" in capsys.readouterr().err
    assert main([*words, "a/b/c"]) == 2 and "expected a name such as org/name" in capsys.readouterr().err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main([*words, "me/x"]) == 2 and "HF_HUB_OFFLINE is set. Fix: unset it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and usual.files == {}


@pytest.mark.parametrize(
    ("verb", "line"),
    [
        ("distill", "push-to-hub: me/x"),
        ("finetune", "push_to_hub: me/x"),
        ("export", "push: me/x"),
        ("export", "private: false"),
    ],
)
def test_a_config_file_cannot_upload(verb: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text(f"{line}\n")
    assert main([verb, "--config", str(tmp_path / "run.yaml")]) == 2
    flag = "--" + line.partition(":")[0].replace("_", "-")
    assert f"has no effect in a file. Fix: remove it there, and give {flag}" in capsys.readouterr().err


def test_a_hub_that_is_not_there_leaves_the_folder_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "shipped")
    with pytest.raises(RunFailed, match="is complete, but it was not uploaded to 'me/student'.*hf upload me/student"):
        push(folder, "me/student", token="hf_x", endpoint="http://127.0.0.1:9")
    assert len(list(folder.rglob("*.*"))) == 5
