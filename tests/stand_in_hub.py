"""A stand-in of the hub on this machine: the calls by which huggingface_hub makes a repository, commits and downloads.

It holds one repository, and its files are small ones.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """What the stand-in holds, and the requests that it has received.

    Attributes:
        endpoint: its address.
        repositories: that were created.
        files: path -> content.
        private: whether the calls that created them asked for private ones.
        uploads: the paths of each commit.
        downloads: paths of the files that were read.
        refused: how many more downloads are answered by an error, after ``allowed`` ones.
        allowed: downloads before the refused ones.
        listings: how often the files of a data set were asked for.
        between: is called once, after the next commit, as another client may do.
        gated: the error code of a data set without access; empty: there is access.
    """

    endpoint: str = ""
    repositories: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    private: list[bool] = field(default_factory=list)
    uploads: list[list[str]] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)
    refused: int = 0
    allowed: int = 0
    listings: int = 0
    between: Callable[[], object] | None = None
    gated: str = ""

    @property
    def revision(self) -> str:
        """The newest commit."""
        return f"{len(self.uploads):040x}"

    def run_between(self) -> None:
        """Do now what another client does between two commits."""
        work, self.between = self.between, None
        if work is not None:
            work()

    def listing(self) -> list[dict[str, Any]]:
        """The files, as the hub lists them."""
        found: list[dict[str, Any]] = []
        for name, data in sorted(self.files.items()):
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            found.append({"rfilename": name, "size": len(data), "blobId": blob})
            if name.startswith("shard-"):  # stored as a large file
                found[-1]["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1}
        return found

    def commit(self, lines: list[dict[str, Any]]) -> None:
        """Take the lines of a commit."""
        added = []
        for line in lines:
            if line["key"] == "file":
                added.append(line["value"]["path"])
                self.files[added[-1]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del self.files[line["value"]["path"]]
        self.uploads.append(added)


class _Handler(BaseHTTPRequestHandler):
    seen: Hub

    def _reply(self, value: Any, status: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body, seen = self._body(), self.seen
        if self.path.endswith("/repos/create"):
            asked = json.loads(body)
            seen.repositories.append(asked["name"])
            seen.private.append(asked.get("private") or asked.get("visibility") == "private")  # newer clients
            kind = "datasets/" if asked.get("type") == "dataset" else ""
            self._reply({"url": f"{seen.endpoint}/{kind}me/{asked['name']}"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self._reply({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]})
        elif "/commit/" in self.path:
            lines = [json.loads(line) for line in body.decode().splitlines()]
            after = next((line["value"].get("parentCommit") for line in lines if line["key"] == "header"), None)
            if after not in (None, seen.revision):
                said = "A commit has happened since. Please refresh and try again."
                return self._reply({"error": said}, 412, X_Error_Message=said)
            seen.commit(lines)
            seen.run_between()
            url = f"{seen.endpoint}/me/x/commit/{seen.revision}"
            self._reply({"commitUrl": url, "commitOid": seen.revision, "success": True})
        else:
            self._reply({})

    def do_GET(self) -> None:
        seen, (_, found, name) = self.seen, self.path.partition("/resolve/")
        if found:
            name = name.partition("/")[2].partition("?")[0]
            if name not in seen.files:
                return self._reply({}, 404, X_Error_Code="EntryNotFound")
            if self.command == "GET":
                seen.downloads.append(name)
                seen.allowed -= 1
                if seen.allowed < 0 < seen.refused:
                    seen.refused -= 1
                    return self._reply({}, 403)
            tag = hashlib.sha1(seen.files[name]).hexdigest()
            return self._reply(seen.files[name], ETag=f'"{tag}"', X_Repo_Commit=seen.revision)
        if self.path.startswith("/api/datasets/"):
            seen.listings += 1
            if seen.gated or not seen.repositories:
                return self._reply({}, 403 if seen.gated else 404, X_Error_Code=seen.gated or "RepoNotFound")
        listing = {"siblings": seen.listing(), "sha": seen.revision}
        self._reply({"name": "me", "type": "user", "id": "me/x", **listing})

    do_HEAD = do_GET

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


@contextmanager
def stand_in() -> Iterator[Hub]:
    """Serve an empty stand-in while the ``with`` block runs."""
    seen = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"seen": seen}))
    seen.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield seen
    server.shutdown()
    server.server_close()
    thread.join()
