"""A shard's bytes are a function of its rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from railkd.teacher import shards


def test_equal_rows_make_equal_files(tmp_path: Path) -> None:
    """Also with several poolings and wide blocks: what the header holds has one order only."""
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 100, (4, 2))
    logits = rng.normal(size=(4, 3)).astype("f4")
    states = {name: rng.normal(size=(4, 2, 5)).astype("f4") for name in ("mean", "cls", "max")}
    states["cls"][0, 1, 0] = 1e5  # overflows half precision
    states["max"][2, :, 3] = -1e5  # in every block
    parts = {name: [array[:1], array[1:]] for name, array in states.items()}
    files = {shards.pack(keys, logits, parts, "float16", "a teacher") for _ in range(50)}
    assert len(files) == 1
    (tmp_path / "shard").write_bytes(files.pop())
    shard = shards.Shard(tmp_path / "shard")
    assert (shard.identity, shard.poolings, shard.rows) == ("a teacher", ("mean", "cls", "max"), 4)
    np.testing.assert_array_equal(shard.states(np.arange(4), keys, "cls")[:, 1], states["cls"][:, 1])
    wide = {name: array.shape for name, array in shard.arrays.items() if name.endswith(".wide")}
    assert wide == {"cls.wide": (4, 1, 5), "max.wide": (4, 2, 5)}  # those blocks alone
    assert shard.arrays["cls"].dtype == np.float16
    np.testing.assert_array_equal(shard.states(np.arange(4), keys, "max"), states["max"])
    shard.verify()
