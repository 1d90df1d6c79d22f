"""A pushed folder arrives whole, at a stand-in of the hub on this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from railkd.cli import main
from railkd.errors import RunFailed
from railkd.export.push import push
from tiny import make_model, make_tokenizer, save


@dataclass
class Hub:
    """The requests that the stand-in has received.

    Attributes:
        endpoint: its address.
        repositories: that were created.
        files: path -> content.
        private: whether the calls that created them asked for private ones.
    """

    endpoint: str = ""
    repositories: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    private: list[bool] = field(default_factory=list)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """The three calls by which huggingface_hub makes a repository and a commit of small files."""
    seen = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _reply(self, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = self._body()
            if self.path.endswith("/repos/create"):
                seen.repositories.append(json.loads(body)["name"])
                asked = json.loads(body)  # newer clients write visibility
                seen.private.append(asked.get("private") or asked.get("visibility") == "private")
                self._reply({"url": f"{seen.endpoint}/me/student"})
            elif "/preupload/" in self.path:
                files = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(body)["files"]
                ]
                self._reply({"files": files})
            elif "/commit/" in self.path:
                for line in map(json.loads, body.decode().splitlines()):
                    if line["key"] == "file":
                        seen.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                url = f"{seen.endpoint}/me/student/commit/{'0' * 40}"
                self._reply({"commitUrl": url, "commitOid": "0" * 40, "success": True})
            else:
                self._reply({})

        def do_GET(self) -> None:
            self._reply({"name": "me", "type": "user", "siblings": [], "sha": "0" * 40, "id": "me/student"})

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield seen
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def usual(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The stand-in as the hub that huggingface_hub asks by itself, and a token for it."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    return hub


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
