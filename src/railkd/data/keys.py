"""Keys of examples: hashes of their text.

A key depends on the content alone. Shuffles, subsets, folds and merged sets keep it; a changed text has another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from railkd.errors import RailkdError

#: Column of the key: two signed 64-bit integers per row.
KEY = "example_key"


def example_key(*fields: str | int) -> tuple[int, int]:
    """Hash the fields of an example.

    Lengths are hashed too, so ("ab", "c") and ("a", "bc") differ, and a pair differs from a single text.

    Args:
        *fields: one text or two, or the tokens.

    Returns:
        128 bits of BLAKE2b as two signed 64-bit integers, the widest that a tensor holds.

    Example:
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


def normalised(texts: Sequence[str]) -> tuple[str, ...]:
    """Return texts without differences of case and white space."""
    return tuple(" ".join(text.casefold().split()) for text in texts)


def held_out(dataset: Any, share: float, seed: int) -> tuple[Any, Any]:
    """Split rows in two by their content.

    The split is a pure function of seed and texts. Rows of equal text stay together, so that no text of one part is in
    the other.

    Args:
        dataset: rows with ``text``, and ``text_pair`` for pairs.
        share: of the rows to hold out, about.
        seed: of the split.

    Returns:
        The other rows, and the rows that are held out.

    Raises:
        RailkdError: a part would be empty.
    """
    names = [name for name in ("text", "text_pair") if name in dataset.column_names]
    rank = np.asarray([example_key(seed, *row)[0] for row in zip(*[dataset[name] for name in names], strict=True)])
    cut = np.sort(rank)[round(share * len(rank)) - 1] if round(share * len(rank)) else None
    inside = rank <= cut if cut is not None else np.zeros(len(rank), dtype=bool)
    if not inside.any() or inside.all():
        raise RailkdError(
            f"a share of {share:g} of {len(rank):,} rows leaves one part empty. "
            "Fix: choose a share that leaves rows in both parts."
        )
    return dataset.select(np.flatnonzero(~inside)), dataset.select(np.flatnonzero(inside))


def drawn(dataset: Any, count: int) -> Any:
    """Draw some rows by their content, so that fewer rows are always among more, in whatever order the file is.

    Args:
        dataset: rows with ``text``, and ``text_pair`` for pairs.
        count: of the rows to draw. If there are fewer, all of them are returned.

    Returns:
        The rows, in their order.
    """
    names = [name for name in ("text", "text_pair") if name in dataset.column_names]
    texts = zip(*[dataset[name] for name in names], strict=True)
    rank = np.asarray([example_key("max_train_rows", *row)[0] for row in texts])
    return dataset.select(np.sort(np.argsort(rank, kind="stable")[:count]))


def keys_of(dataset: Any) -> np.ndarray:
    """Return the keys (N, 2) of the texts of rows.

    Args:
        dataset: N rows with ``text``, and ``text_pair`` for pairs.
    """
    names = [name for name in ("text", "text_pair") if name in dataset.column_names]
    return key_array(example_key(*row) for row in zip(*[dataset[name] for name in names], strict=True))


def key_array(keys: Iterable[Sequence[int]]) -> np.ndarray:
    """Return N keys as an array (N, 2) of int64.

    Args:
        keys: pairs of integers.
    """
    return np.asarray(list(keys), dtype=np.int64).reshape(-1, 2)
