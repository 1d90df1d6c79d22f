"""Data of the demo: sentences about movies, products and news, rated from negative to positive by 20 raters.

Source: C.J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text",
ICWSM 2014. The source distribution of vaderSentiment 3.3.2 (MIT) contains the sets. It is downloaded once; only three
small tsv files remain, in the user's cache folder. Texts are unchanged, entities such as ``&amp;`` included. Rows with
a mean rating within 0.5 of neutral are left out; the sign of the rating labels the others.

The fourth set of the archive, the tweets, is never read. It is reserved for a later study.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from railkd.cli.demo.archive import SOURCES, Row, download, ground_truth, labelled_rows
from railkd.errors import RailkdError
from railkd.runtime.files import write_bytes


@dataclass(frozen=True)
class SentimentSets:
    """The rows of the demo.

    Attributes:
        train: movie sentences to train on.
        dev: movie sentences to pick the epoch.
        test: movie sentences to test on.
        product: product sentences, a test set out of the domain.
        news: news sentences, a test set out of the domain.
    """

    train: tuple[Row, ...]
    dev: tuple[Row, ...]
    test: tuple[Row, ...]
    product: tuple[Row, ...]
    news: tuple[Row, ...]


def sentiment_sets(cache_dir: Path | None = None) -> SentimentSets:
    """Return the rows of the demo. The first call downloads them; later calls read the cache folder.

    Args:
        cache_dir: cache folder of railkd. Default: ``$RAILKD_CACHE``, else ``railkd`` in ``$XDG_CACHE_HOME`` or
            ~/.cache.

    Returns:
        The rows.

    Raises:
        RailkdError: the sets cannot be downloaded (no network, no pip), stored, or do not have the expected digest.
    """
    folder = (cache_folder() if cache_dir is None else Path(cache_dir)) / "hutto-2014"
    try:
        sets = _read(folder)
        if sets is None:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                sets = _read(folder)  # another process may have downloaded them meanwhile
                if sets is None:
                    _fetch(folder)
                    sets = _read(folder)
    except OSError as error:
        raise RailkdError(
            f"The demo's data cannot be stored in {folder}: {error.strerror or error}. Fix: make the folder writable, "
            "or set the environment variable RAILKD_CACHE to another cache folder."
        ) from error
    if sets is None:
        raise RailkdError(
            f"The demo's data in {folder} changed while it was read. Fix: remove the folder and run again."
        )
    parts: dict[str, list[Row]] = {"train": [], "dev": [], "test": []}
    for row in sets["movie"]:
        parts[split_of(row[0])].append(row)
    return SentimentSets(
        train=tuple(parts["train"]),
        dev=tuple(parts["dev"]),
        test=tuple(parts["test"]),
        product=tuple(sets["product"]),
        news=tuple(sets["news"]),
    )


def cache_folder() -> Path:
    """Return the cache folder of railkd. It may not exist yet."""
    if folder := os.environ.get("RAILKD_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore relative paths.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "railkd"


def normalise(text: str) -> str:
    r"""Return a text in lower case, with single spaces.

    Args:
        text: the text.

    Returns:
        The text by which rows are split.

    >>> normalise(" Effective  but\ttoo tepid Biopic")
    'effective but too tepid biopic'
    """
    return " ".join(text.lower().split())


def split_of(text: str) -> str:
    """Assign a text to train, dev or test (about 70, 10 and 20 %), by its hash. Equal texts share a part.

    Args:
        text: the text.

    Returns:
        "train", "dev" or "test".

    >>> split_of("Effective but too tepid biopic") == split_of("effective  BUT too tepid biopic")
    True
    """
    percent = int.from_bytes(hashlib.sha256(f"railkd-demo\n{normalise(text)}".encode()).digest()[:8]) * 100 >> 64
    return "train" if percent < 70 else "dev" if percent < 80 else "test"


def subset(rows: Sequence[Row], n: int, seed: int = 0) -> tuple[Row, ...]:
    """Return the n rows with the lowest hashes, in their order.

    A smaller subset is part of a larger one of the same seed, so a quick run uses some of the rows of the full run.

    Args:
        rows: the rows.
        n: size of the subset, at least 1; all rows if there are fewer.
        seed: seed of the hash.

    Returns:
        The subset.

    Raises:
        RailkdError: n is below 1.

    >>> subset([("a", "positive"), ("b", "negative")], 5)
    (('a', 'positive'), ('b', 'negative'))
    """
    if n < 1:
        raise RailkdError(f"Expected a subset of at least 1 row, got {n}.")

    def rank(index: int) -> tuple[bytes, int]:
        text, label = rows[index]
        return hashlib.sha256(f"{seed}\n{label}\n{text}".encode()).digest(), index

    return tuple(rows[index] for index in sorted(sorted(range(len(rows)), key=rank)[:n]))


def write_tsv(path: Path, rows: Sequence[Row], *, labels: bool = True) -> Path:
    """Write rows as a tsv with the columns text and label, or with text alone.

    Args:
        path: the file; its folder is created. The file is complete or absent.
        rows: the rows.
        labels: write the labels too.

    Returns:
        The path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, _tsv(rows) if labels else "\n".join(["text", *(text for text, _ in rows), ""]).encode("utf-8"))
    return path


def _fetch(folder: Path) -> None:
    """Download the source distribution, and write its three sets to the folder."""
    with tempfile.TemporaryDirectory(prefix="railkd-") as scratch:
        texts = ground_truth(download(Path(scratch)))
    for name, source in SOURCES.items():
        rows = labelled_rows(texts[name])
        if len(rows) != source.rows or hashlib.sha256(_tsv(rows)).hexdigest() != source.sha256:
            raise RailkdError(
                f"The {name} set differs from the known one: expected {source.rows:,} rows of a fixed digest, got "
                f"{len(rows):,} rows. Fix: please report this."
            )
        write_tsv(folder / f"{name}.tsv", rows)


def _tsv(rows: Sequence[Row]) -> bytes:
    return "".join(["text\tlabel\n", *(f"{text}\t{label}\n" for text, label in rows)]).encode("utf-8")


def _read(folder: Path) -> dict[str, list[Row]] | None:
    """Return the three sets from the cache folder; None if one is missing or has another digest."""
    sets = {}
    for name, source in SOURCES.items():
        try:
            content = (folder / f"{name}.tsv").read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(content).hexdigest() != source.sha256:
            return None
        lines = content.decode("utf-8").split("\n")[1:-1]
        sets[name] = [(text, label) for text, _, label in (line.rpartition("\t") for line in lines)]
    return sets


def main() -> int:
    """Download the sets in advance, so that tests need no network: ``python -m railkd.cli.demo.data``."""
    try:
        sets = sentiment_sets()
    except RailkdError as error:
        print(f"railkd: {error}", file=sys.stderr)
        return 2
    print(f"the demo's data is ready: {len(sets.train):,} movie sentences to train on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
