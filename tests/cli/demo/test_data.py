"""The demo's rows: downloaded once and safely, split by text, equal on every machine."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import venv
from collections import Counter
from pathlib import Path

import pytest

import railkd
import tiny
from railkd.cli import main
from railkd.cli.demo import archive
from railkd.cli.demo.archive import NESTED, SOURCES, ground_truth, labelled_rows
from railkd.cli.demo.data import SentimentSets, cache_folder, normalise, sentiment_sets, split_of, subset, write_tsv
from railkd.errors import RailkdError


def tar_gz(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def sdist(folder: Path, nested: dict[str, bytes], **outer: bytes) -> tuple[Path, str]:
    content = tar_gz({NESTED: tar_gz(nested), **outer})
    path = folder / "made-1.0.tar.gz"
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


GOOD = {source.member: f"1\t2.0\tgood {name}\r\n2\t-1.0\tbad caf\u00e9".encode() for name, source in SOURCES.items()}


def test_the_three_sets_are_read_out_of_the_archive(tmp_path: Path) -> None:
    texts = ground_truth(*sdist(tmp_path, {**GOOD, "hutto_ICWSM_2014/tweets_GroundTruth.txt": b"unseen"}))
    assert labelled_rows(texts["news"]) == [("good news", "positive"), ("bad café", "negative")]
    assert sorted(texts) == ["movie", "news", "product"]


@pytest.mark.thorough
def test_an_environment_without_pip_gets_one_for_the_download(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare" / "bin" / "python"
    # The bare environment lacks the libraries of the package too, so the file is run alone.
    code = "import pathlib, runpy, sys; found = runpy.run_path(sys.argv[2]); "
    code += "print(found['pip_python'](pathlib.Path(sys.argv[1])))"
    env = {**os.environ, "PYTHONPATH": str(Path(railkd.__file__).parents[1])}
    done = subprocess.run(
        [python, "-c", code, tmp_path, archive.__file__], capture_output=True, text=True, env=env, check=False
    )
    found = done.stdout.strip()
    assert found.startswith(str(tmp_path / "environment")), done.stderr
    said = subprocess.run([found, "-m", "pip", "--version"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path / "environment") in said


def test_altered_archive_is_refused(tmp_path: Path) -> None:
    path, sha256 = sdist(tmp_path, GOOD)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(RailkdError, match=f"expected sha256 {sha256[:8]}.*download it again"):
        ground_truth(path, sha256)


@pytest.mark.parametrize(
    "name", ["../escaped.txt", "/escaped.txt", "a/../../escaped.txt", "C:\\escaped.txt", "..\\escaped.txt"]
)
@pytest.mark.parametrize("level", ["outer", "nested"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, name: str, level: str) -> None:
    bad = {name: b"x"}
    path, sha256 = sdist(tmp_path, {**GOOD, **bad}) if level == "nested" else sdist(tmp_path, GOOD, **bad)
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(RailkdError, match="leaves its folder"):
        ground_truth(path, sha256)
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_link_in_place_of_a_set_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        link = tarfile.TarInfo(SOURCES["movie"].member)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    content = tar_gz({NESTED: buffer.getvalue()})
    path = tmp_path / "made-1.0.tar.gz"
    path.write_bytes(content)
    with pytest.raises(RailkdError, match="not a plain file"):
        ground_truth(path, hashlib.sha256(content).hexdigest())


def test_a_missing_set_is_named(tmp_path: Path) -> None:
    some = {name: content for name, content in GOOD.items() if "movie" not in name}
    with pytest.raises(RailkdError, match="lacks hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"):
        ground_truth(*sdist(tmp_path, some))


def test_a_line_of_another_shape_is_named() -> None:
    with pytest.raises(RailkdError, match="line 2 .* got 'no tabs'"):
        labelled_rows("1\t2.0\tfine\nno tabs\n")


@pytest.fixture
def no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give pip no package index, as on a machine without network."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def test_a_failed_download_is_an_error_in_one_line(tmp_path: Path, no_index: None) -> None:
    with pytest.raises(RailkdError, match=r"pip could not download vaderSentiment.*run again") as error:
        sentiment_sets(tmp_path / "cache")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").rglob("*.tsv"))


def test_a_cache_folder_that_is_a_file_is_an_error_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(RailkdError, match="RAILKD_CACHE"):
        sentiment_sets(tmp_path / "cache")


def test_the_verb_reports_a_bad_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("in the way")
    monkeypatch.setenv("RAILKD_CACHE", str(tmp_path / "cache"))
    assert main(["demo", "--quick", "--quiet", "--output", str(tmp_path / "out")]) == 2
    assert "RAILKD_CACHE" in capsys.readouterr().err


def test_equal_texts_are_in_the_same_part() -> None:
    texts = [f"Sentence  number {n}" for n in range(4000)]
    assert all(split_of(text) == split_of(f" {text.upper()}\t") for text in texts)
    share = {name: count / len(texts) for name, count in Counter(map(split_of, texts)).items()}
    assert share == pytest.approx({"train": 0.7, "dev": 0.1, "test": 0.2}, abs=0.025)


def test_the_split_does_not_change_between_versions() -> None:
    parts = " ".join(split_of(f"sentence {n}") for n in range(12))
    assert parts == "test train train test train train train train train test train train"


def test_subsets_nest_and_keep_order() -> None:
    rows = [(f"text {n}", "positive" if n % 2 else "negative") for n in range(500)]
    small, large = subset(rows, 100, seed=3), subset(rows, 300, seed=3)
    assert (len(small), len(large)) == (100, 300)
    assert set(small) < set(large)
    assert list(small) == sorted(small, key=rows.index)
    assert set(subset(rows[::-1], 100, seed=3)) == set(small)
    assert set(subset(rows, 100, seed=4)) != set(small)
    assert subset(rows, 501) == tuple(rows)


def test_an_empty_subset_is_refused() -> None:
    with pytest.raises(RailkdError, match="at least 1 row, got 0"):
        subset([("a", "positive")], 0)


def test_rows_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "new" / "rows.tsv", [('say "café" &amp; go', "positive")])
    assert path.read_bytes().decode() == 'text\tlabel\nsay "café" &amp; go\tpositive\n'
    assert [file.name for file in path.parent.iterdir()] == ["rows.tsv"]


@pytest.fixture(scope="module")
def sets() -> SentimentSets:
    try:
        return sentiment_sets()
    except RailkdError as error:
        tiny.missing(f"the demo's data is neither cached nor can it be downloaded: {error}")


def test_the_known_rows_are_there(sets: SentimentSets) -> None:
    movie = len(sets.train) + len(sets.dev) + len(sets.test)
    assert (movie, len(sets.product), len(sets.news)) == (10_043, 2_943, 2_788)
    assert (len(sets.train), len(sets.dev), len(sets.test)) == (7_014, 1_067, 1_962)
    assert ("Effective but too tepid biopic", "negative") in sets.train + sets.dev + sets.test
    every = sets.train + sets.dev + sets.test + sets.product + sets.news
    assert {label for _, label in every} == {"negative", "positive"}
    assert not any("\r" in text or "\t" in text or not text.strip() for text, _ in every)


def test_no_text_is_in_two_parts(sets: SentimentSets) -> None:
    train, dev, test = ({normalise(text) for text, _ in part} for part in (sets.train, sets.dev, sets.test))
    assert not (train & dev or train & test or dev & test)


def test_cached_rows_are_read_without_pip_and_altered_ones_never(
    sets: SentimentSets, tmp_path: Path, no_index: None
) -> None:
    folder = tmp_path / "hutto-2014"
    folder.mkdir()
    for name in SOURCES:
        shutil.copy(cache_folder() / "hutto-2014" / f"{name}.tsv", folder)
    assert sentiment_sets(tmp_path) == sets
    with (folder / "news.tsv").open("a", encoding="utf-8") as file:
        file.write("one more\tpositive\n")
    with pytest.raises(RailkdError, match="pip could not download"):
        sentiment_sets(tmp_path)
