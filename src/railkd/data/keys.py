"""Keys of examples: hashes of their text.

An example is known by its content: shuffles, subsets, folds and merged sets give the same example the same key, and a
changed text another one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from railkd.errors import RailkdError

#: Column of the key: two signed 64-bit integers per row.
KEY = "example_key"


def example_key(*fields: str | int) -> tuple[int, int]:
    """128 bits of BLAKE2b over the fields of an example, as two signed 64-bit integers (the widest a tensor holds).

    Lengths are hashed too, so ("ab", "c") and ("a", "bc") differ, and a pair differs from a single text.

    >>> example_key("a film") == example_key("a film"), example_key("a", "film") == example_key("a film")
    (True, False)
    """
    digest = hashlib.blake2b(digest_size=16)
    for field in fields:
        data = str(field).encode("utf-8", errors="surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    high, low = np.frombuffer(digest.digest(), dtype="<i8").tolist()
    return high, low


def held_out(dataset: Any, share: float, seed: int) -> tuple[Any, Any]:
    """Split rows in two by their content: (the rest, about ``share`` of the rows).

    A pure function of seed and texts, so file order and other rows play no part; rows of equal text stay together, so
    nothing that is trained on is held out as well.

    Raises:
        RailkdError: a part would be empty.
    """
    names = [name for name in ("text", "text_pair") if name in dataset.column_names]
    rank = np.asarray([example_key(seed, *row)[0] for row in zip(*[dataset[name] for name in names], strict=True)])
    cut = np.sort(rank)[round(share * len(rank)) - 1] if round(share * len(rank)) else None
    inside = rank <= cut if cut is not None else np.zeros(len(rank), dtype=bool)
    if not inside.any() or inside.all():
        raise RailkdError(
            f"got a share of {share:g} of {len(rank):,} rows to hold out, which leaves one part empty; wanted a share "
            "that leaves rows in both"
        )
    return dataset.select(np.flatnonzero(~inside)), dataset.select(np.flatnonzero(inside))


def key_array(keys: Iterable[Sequence[int]]) -> np.ndarray:
    """(N, 2) int64 out of key tuples."""
    return np.asarray(list(keys), dtype=np.int64).reshape(-1, 2)
