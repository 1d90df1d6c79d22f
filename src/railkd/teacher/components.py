"""The principal components that a cache keeps of a teacher's states, so that it is smaller.

``h' = h V_i`` for block i, with V_i (d, k) the leading eigenvectors of ``E[h h^T]``: of all projections on k dimensions
the one that loses least of the states, their mean included. Products of states are preserved, up to what is lost.

The components are fitted once, on at most 4,096 rows of the first pass that are spread evenly over the keys. They stay
with the cache, so rows that come later are projected in the same way.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load, save
from torch import Tensor

from railkd.errors import RailkdError
from railkd.runtime import files, ranks
from railkd.signals import BlockShape
from railkd.teacher.identity import Identity
from railkd.teacher.manifest import stored_manifest
from railkd.teacher.moments import moments_of

#: Name of the file in a cache, whose digits are the digest of its content.
FILE = re.compile(r"components-([0-9a-f]{32})\.safetensors")
#: The most rows that components are fitted on, and the most numbers of states that are held meanwhile.
_ROWS, _NUMBERS = 4096, 2**27


@dataclass(frozen=True)
class Components:
    """The components of every block, by pooling.

    Attributes:
        by_pooling: pooling -> (n, d, k) float32, orthonormal columns.
        teacher: digest of the identity that they were fitted for.
        fitted: by this process, so that another one may have stored its own meanwhile; False: read from a file.
    """

    by_pooling: Mapping[str, np.ndarray]
    teacher: str
    fitted: bool = False

    @property
    def content(self) -> bytes:
        """The file."""
        metadata = {"railkd": json.dumps({"components": self.teacher})}
        return bytes(save(dict(self.by_pooling), metadata=metadata))

    @property
    def digest(self) -> str:
        """The digest of the file, which the identity of the cache holds."""
        return _digest(self.content)

    def write(self, folder: Path) -> None:
        """Write the file into a folder, if it is not there."""
        path = folder / f"components-{self.digest}.safetensors"
        if not path.is_file():
            files.write_bytes(path, self.content, durable=True)

    def project(self, states: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return states (R, n, k) of states (R, n, d), by pooling, in single precision."""
        return {
            name: torch.einsum("rnd,ndk->rnk", h.float(), torch.from_numpy(self.by_pooling[name]).to(h.device))
            for name, h in states.items()
        }

    @classmethod
    def read(cls, path: Path) -> Components:
        """Read a file of components. One that was altered raises `RailkdError`.

        Args:
            path: of the file.

        Returns:
            The components.

        Raises:
            RailkdError: the file cannot be read, or its content is not what its name says.
        """
        try:
            if path.is_symlink() or path.name != f"components-{_digest(content := path.read_bytes())}.safetensors":
                raise RailkdError("its content is not what its name says")
            with safe_open(path, framework="numpy") as file:
                teacher = str(json.loads(file.metadata()["railkd"])["components"])
            return cls(load(content), teacher)
        except Exception as error:  # safetensors has errors of its own
            raise RailkdError(f"Cannot read the cache file '{path}' ({error}). Fix: build the cache again.") from error


def components_file(folder: Path, digest: str | None) -> list[Path]:
    """Return the path of the components of a cache; none if its states are whole.

    Args:
        folder: of the cache.
        digest: from its identity.
    """
    return [] if digest is None else [folder / f"components-{digest}.safetensors"]


def stored_components(folder: Path, digest: str | None, teacher: str) -> Components | None:
    """Return the components of a cache, or of an unfinished build of the same teacher; None if there are none.

    A file that is missing or was altered raises `RailkdError`.

    Args:
        folder: of the cache, which need not exist.
        digest: from the identity of the cache; None for an unfinished build.
        teacher: digest of the identity without components.
    """
    paths = components_file(folder, digest) or sorted(folder.glob("components-*.safetensors"))
    found = [components for components in map(Components.read, paths) if digest or components.teacher == teacher]
    return found[0] if found else None


def settle(folder: Path, ours: Components | None, identity: Identity) -> tuple[Components | None, Identity]:
    """Return the components that a build goes on with, and its identity with them. The folder's lock must be held.

    Args:
        folder: of the cache, in which another process may have stored components of this teacher since ours were
            fitted; otherwise ours are written.
        ours: None: whole states.
        identity: of the build.
    """
    if ours is None:
        return None, identity
    if ours.fitted:
        stored = stored_manifest(folder)
        found = stored_components(folder, stored.identity.components if stored else None, ours.teacher)
        ours = found if found is not None and found.teacher == ours.teacher else ours
    ours.write(folder)
    return ours, replace(identity, components=ours.digest)


def check_dim(dim: int | None, width: int, poolings: Sequence[str]) -> None:
    """Refuse a number of components that is not smaller than a state, and components where no states are stored.

    Args:
        dim: number of components; None: whole states.
        width: numbers of a state.
        poolings: of the states that are stored.

    Raises:
        RailkdError: the number does not fit.
    """
    if dim is not None and not (1 <= dim < width and poolings):
        raise RailkdError(
            f"Expected states_dim from 1 to {width - 1}, fewer than a state's {width} numbers, and a pooling to store, "
            f"got {dim} and {', '.join(poolings) or 'none'}. Fix: leave it out, or give a smaller number."
        )


def sample_of(keys: np.ndarray, shape: BlockShape, dim: int) -> np.ndarray:
    """Return the positions of the rows that components are fitted on: evenly spread over the sorted keys.

    Args:
        keys: (N, 2), without doubles.
        shape: of the teacher.
        dim: k.

    Raises:
        RailkdError: there are fewer than 2 rows.
    """
    if len(keys) < 2:  # every rank finds this, before one of them runs the teacher
        raise RailkdError(f"Expected at least 2 rows to fit principal components on, got {len(keys)}.")
    most = max(4 * dim, min(_ROWS, _NUMBERS // (shape.blocks * shape.width)))
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    return np.sort(order[np.linspace(0, len(order) - 1, min(most, len(order))).round().astype(int)])


def fit_components(
    run: Callable[[], Iterable[Mapping[str, Tensor]]],
    poolings: Sequence[str],
    shape: BlockShape,
    dim: int,
    teacher: str,
) -> Components:
    """Fit components. Rank 0 runs the rows, and every rank gets its numbers.

    Args:
        run: returns the states (R, n, d) by pooling of some batches.
        poolings: to fit.
        shape: n and d of the teacher.
        dim: k.
        teacher: digest of the identity that they are fitted for.

    Returns:
        The components.
    """
    n, d = shape
    found = {name: np.zeros((n, d, dim), dtype=np.float32) for name in poolings}
    if ranks.is_main_process():
        batches = [{name: states[name].float().cpu() for name in poolings} for states in run()]
        for name in poolings:
            parts = [batch[name] for batch in batches]
            found[name] = _leading(parts, shape, dim)
    return Components({name: ranks.all_reduce_sum(part) for name, part in found.items()}, teacher, fitted=True)


def _leading(parts: Sequence[Tensor], shape: BlockShape, dim: int) -> np.ndarray:
    """Return the leading eigenvectors (n, d, k) of E[h h^T], each with its largest entry positive."""
    rows = sum(map(len, parts))
    moments = moments_of(parts, rows, shape)
    second = moments.covariance * ((rows - 1) / rows) + moments.mean.unsqueeze(2) * moments.mean.unsqueeze(1)
    vectors = torch.linalg.eigh(second).eigenvectors.flip(-1)[..., :dim]  # (n, d, k), the largest first
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return np.ascontiguousarray((vectors * largest.sign()).float().numpy())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
