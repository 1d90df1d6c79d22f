"""What smaller caches lose: bytes and errors of the states by format, and scores of students over seeds.

``python studies/small_caches.py TEACHER`` prints a table over the rows of ``python studies/prepare.py movies-500``.
With ``--seeds 3`` it trains students of 3 blocks by rail-kd-l, 100 steps of 32 rows, from each cache too, and prints
the accuracy on the movie sentences.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from railkd.cli import main as railkd
from railkd.data.keys import keys_of
from railkd.data.reader import read
from railkd.data.reading import Reading
from railkd.data.sources import Source
from railkd.teacher import TeacherCache
from railkd.teacher.components import Components, components_file

ROWS = Path(__file__).resolve().parent / "work" / "movies-500"
FORMATS = {
    "float32": ["--dtype", "float32"],
    "float16": [],
    "int8": ["--dtype", "int8"],
    "128 components": ["--states-dim", "128"],
    "128 components, int8": ["--states-dim", "128", "--dtype", "int8"],
}
_SHARED = ["--train", str(ROWS / "train.tsv"), "--max-length", "64", "--no-bf16", "--quiet"]


def errors(exact: np.ndarray, kept: np.ndarray, cache: TeacherCache) -> tuple[float, float]:
    """Return the error of the states and of the cosines between rows, mean over blocks.

    Args:
        exact: states (R, n, d).
        kept: the same from a smaller cache, (R, n, d) or (R, n, k).
        cache: that holds them.

    Returns:
        The root mean square of what is lost, as a share of the states' variation over the rows; and that of the
        difference of the cosines between centred rows.
    """
    back = kept
    for path in components_file(cache.path, cache.identity.components):
        back = np.einsum("rnk,ndk->rnd", kept, Components.read(path).by_pooling["mean"])
    lost = np.square(back - exact).sum((0, 2)) / np.square(exact - exact.mean(0)).sum((0, 2))
    return float(np.sqrt(lost).mean()), float(np.sqrt(np.square(_cosines(kept) - _cosines(exact)).mean((1, 2))).mean())


def _cosines(states: np.ndarray) -> np.ndarray:
    centred = states - states.mean(0)
    unit = centred / np.linalg.norm(centred, axis=2, keepdims=True)
    return np.einsum("rnd,snd->nrs", unit, unit)


def score(teacher: str, cache: Path, seed: int, output: Path) -> float:
    """Return the accuracy of a student that learns from a cache."""
    words = [
        "--teacher",
        teacher,
        "--student-layers",
        "3",
        "--test",
        f"movie={ROWS / 'movie.tsv'}",
        "--cache",
        str(cache),
    ]
    words += ["--method", "rail-kd-l", "--max-steps", "100", "--batch-size", "32", "--learning-rate", "1e-4"]
    assert railkd(["distill", *_SHARED, *words, "--no-gauges", "--seed", str(seed), "--output", str(output)]) == 0
    return float(json.loads((output / "metrics.json").read_text(encoding="utf-8"))["metrics"]["movie"]["accuracy"])


def main(teacher: str, seeds: int) -> None:
    """Print a row for each format."""
    keys = keys_of(read(Source.parse(str(ROWS / "train.tsv")), Reading(), split="train", labelled=False).rows)
    print(
        "| states | bytes a row | lost, % of the variation | cosines off by | accuracy by seed |\n|---|---|---|---|---|"
    )
    exact = None
    with tempfile.TemporaryDirectory() as folder:
        for name, words in FORMATS.items():
            path = Path(folder, name.replace(" ", "-"))
            assert railkd(["cache", *_SHARED, "--teacher", teacher, "--cache", str(path), *words]) == 0
            cache = TeacherCache.open(path)
            states = np.asarray(cache.gather(keys, "mean")[1], dtype=np.float64)
            exact = states if exact is None else exact
            lost, off = errors(exact, states, cache)
            runs = [Path(folder, f"{path.name}-run-{seed}") for seed in range(1, seeds + 1)]
            scores = [score(teacher, path, seed, run) for seed, run in enumerate(runs, 1)]
            told = ", ".join(f"{100 * value:.1f}" for value in scores) or "-"
            print(f"| {name} | {cache.row_bytes:,} | {100 * lost:.2g} | {off:.1g} | {told} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher")
    parser.add_argument("--seeds", type=int, default=0)
    given = parser.parse_args()
    main(given.teacher, given.seeds)
