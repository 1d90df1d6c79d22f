"""Places that hold a copy of a cache: a folder, or a data-set repository of the hub.

Names of files come from a manifest that was checked, or from a list of this package. So no name leaves the place.
"""

from __future__ import annotations

import filecmp
import hashlib
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from railkd.errors import RailkdError, RunFailed
from railkd.runtime import files
from railkd.runtime.ownership import hold
from railkd.teacher.manifest import MANIFEST

#: Files in a commit to the hub: more are uploaded in several commits.
_FILES_IN_A_COMMIT = 50
_KIND = "dataset"
#: Status by which the hub refuses a commit that does not follow the newest one.
_CONFLICT = 412


class Place(ABC):
    """Where copies of the files of a cache lie, all in one folder.

    Attributes:
        name: for messages, such as "the folder 'x'".
    """

    name: str

    @property
    def lack(self) -> str:
        """Why there is no cache, if there is none."""
        return f"it has no {MANIFEST}"

    def held(self) -> AbstractContextManager[None]:
        """Return a context in which no other push of this machine changes the place."""
        return nullcontext()

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Return the bytes of each file there; empty if there is no such place yet."""

    @abstractmethod
    def holds(self, path: Path) -> bool:
        """Return True if a file of the same name and content is there.

        Args:
            path: of a file on this machine.
        """

    @abstractmethod
    def fetch(self, name: str, folder: Path) -> Path:
        """Copy a file of the place into a folder, so that it is complete or absent.

        Args:
            name: of the file.
            folder: that gets it under the same name.

        Returns:
            The copy.

        Raises:
            RailkdError: the file is missing or no regular file.
            RunFailed: the place cannot be reached.
        """

    @abstractmethod
    def store(self, paths: Sequence[Path], stale: Sequence[str] = ()) -> None:
        """Copy files to the place, in this order, and delete others there.

        Args:
            paths: of files on this machine.
            stale: names of files of the place.

        Raises:
            RunFailed: the place cannot be reached, or refuses.
        """


class FolderPlace(Place):
    """A folder, which need not exist.

    Args:
        folder: its path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, f"the folder '{folder}'"

    def held(self) -> AbstractContextManager[None]:
        """Return the lock of the folder; see `Place.held`."""
        return hold(
            self.folder, f"Another push into {self.name} is running. Fix: repeat the command when it has ended."
        )

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each regular file; see `Place.sizes`."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return {path.name: path.stat().st_size for path in found if path.is_file() and not path.is_symlink()}

    def holds(self, path: Path) -> bool:
        """Compare every byte; see `Place.holds`."""
        there = self.folder / path.name
        return there.is_file() and not there.is_symlink() and filecmp.cmp(path, there, shallow=False)

    def fetch(self, name: str, folder: Path) -> Path:
        """Copy a file from the folder; see `Place.fetch`."""
        there, target = self.folder / name, folder / name
        if there.is_symlink() or not there.is_file():
            raise RailkdError(f"Expected a regular file '{name}' in {self.name}, got a link, or none.")
        with there.open("rb") as source, files.written(target, size=there.stat().st_size) as file:
            shutil.copyfileobj(source, file)
        return target

    def store(self, paths: Sequence[Path], stale: Sequence[str] = ()) -> None:
        """Copy files to the folder; see `Place.store`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            size = path.stat().st_size
            with path.open("rb") as source, files.written(self.folder / path.name, durable=True, size=size) as file:
                shutil.copyfileobj(source, file)
        for name in stale:
            (self.folder / name).unlink(missing_ok=True)


class HubPlace(Place):
    """A data-set repository of the hub; created by the first push.

    Args:
        repository: its name, such as ``org/name``.
        private: a new repository is private; None: as its organisation sets.
        token: of the hub; None takes the stored one.
        endpoint: address of the hub; None takes the usual one.
    """

    def __init__(
        self, repository: str, *, private: bool | None = None, token: str | None = None, endpoint: str | None = None
    ) -> None:
        from huggingface_hub import HfApi

        self.name = f"the hub's data set '{repository}'"
        self._repository, self._private = repository, private
        self._api = HfApi(endpoint=endpoint, token=token)
        self._files: dict[str, Any] | None = None
        self._revision: str | None = None

    @property
    def lack(self) -> str:
        """Why there is no cache; see `Place.lack`. The hub does not say whether there is a private data set."""
        self._list()
        return (
            super().lack
            if self._revision
            else (
                "there is no such data set, or no access to it. Fix: check the name, and for a private data set log in "
                "('hf auth login') or set HF_TOKEN to a token that may read it"
            )
        )

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each file of the newest commit; see `Place.sizes`."""
        return {name: int(file.size or 0) for name, file in self._list().items()}

    def holds(self, path: Path) -> bool:
        """Compare the SHA-256 of a large file and the git hash of a small one; see `Place.holds`."""
        there = self._list().get(path.name)
        if there is None or there.size != path.stat().st_size:
            return False
        if there.lfs:
            with path.open("rb") as file:
                return bool(there.lfs.sha256 == hashlib.file_digest(file, "sha256").hexdigest())
        blob = b"blob %d\0" % path.stat().st_size + path.read_bytes()
        return bool(there.blob_id == hashlib.sha1(blob, usedforsecurity=False).hexdigest())

    def fetch(self, name: str, folder: Path) -> Path:
        """Download a file of the commit that was listed; see `Place.fetch`."""
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        self._list()
        try:
            found = self._api.hf_hub_download(
                self._repository, name, revision=self._revision, local_dir=folder, repo_type=_KIND
            )
        except Exception as error:  # the hub client has many kinds of error; most mean the same to the user
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                raise RailkdError(f"Expected the file '{name}' in {self.name}, got none.") from None
            raise self._failed(error) from error
        return Path(found)

    def store(self, paths: Sequence[Path], stale: Sequence[str] = ()) -> None:
        """Upload files, 50 in a commit; the last commit deletes the others; see `Place.store`.

        Each commit names the one that it follows, and the hub refuses it if another push came between.

        Raises:
            RunFailed: another push came between, or see `Place.store`.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        message, manifest, new = "Upload a teacher cache of railkd", self._manifest, self._revision is None
        try:
            self._api.create_repo(self._repository, private=self._private, exist_ok=True, repo_type=_KIND)
            for start in range(0, len(paths), _FILES_IN_A_COMMIT):
                some = paths[start : start + _FILES_IN_A_COMMIT]
                work: list[Any] = [CommitOperationAdd(path.name, path) for path in some]
                if start + len(some) == len(paths):
                    work += [CommitOperationDelete(name) for name in stale]
                if new or start:
                    self._files = None
                if self._manifest != manifest:
                    raise self._came_between()
                self._api.create_commit(
                    self._repository, work, commit_message=message, repo_type=_KIND, parent_commit=self._revision
                )
        except RunFailed:
            raise
        except Exception as error:  # see fetch
            raise self._failed(error) from error
        finally:
            self._files = None

    @property
    def _manifest(self) -> str | None:
        """The git hash of the manifest that was listed."""
        found = self._list().get(MANIFEST)
        return None if found is None else str(found.blob_id)

    def _list(self) -> dict[str, Any]:
        """Return the files by name, and keep the commit that they belong to."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        if self._files is None:
            try:
                info = self._api.dataset_info(self._repository, files_metadata=True)
            except Exception as error:  # see fetch
                if not isinstance(error, RepositoryNotFoundError) or isinstance(error, GatedRepoError):
                    raise self._failed(error) from error
                self._revision, self._files = None, {}
            else:
                self._revision = info.sha
                self._files = {file.rfilename: file for file in info.siblings or ()}
        return self._files

    def _failed(self, error: Exception) -> Exception:
        """Return what to raise in place of an error of the hub client."""
        from huggingface_hub.errors import GatedRepoError

        if isinstance(error, GatedRepoError):
            return RailkdError(
                f"Expected access to {self.name}, got none: it is gated. Fix: accept its conditions on the hub, and "
                "log in ('hf auth login') or set HF_TOKEN to a token of that account."
            )
        if getattr(getattr(error, "response", None), "status_code", None) == _CONFLICT:
            return self._came_between()
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return RunFailed(
            f"{self.name} did not answer as expected: {reason[:300]}. Files that have arrived are kept. Fix: repeat "
            "the command"
        )

    def _came_between(self) -> RunFailed:
        return RunFailed(f"{self.name}: another push came between, and its rows stay. Fix: repeat the command")
