"""``augment``: every new text follows from the rows that it names, no held-out text is touched, a seed decides all."""

from __future__ import annotations

import csv
import random
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from railkd.cli import main
from railkd.data.augmenting import Sample, words_of
from railkd.data.keys import normalised
from railkd.data.reader import read
from railkd.data.reading import Reading
from railkd.data.sources import Source, load_rows
from tiny import WORDS, write_files

ROWS = 150


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Single texts in two files, pairs in another, and sets that share rows with them."""
    chance = random.Random(3)

    def text(word: str = "") -> str:
        return " ".join([*chance.choices(WORDS, k=chance.randint(2, 12)), *([word] if word else [])])

    single, more = [text() for _ in range(ROWS)], [text("frozen") for _ in range(ROWS)]
    held = ["the  Oscar goes to noone", "THE secret ending"]
    pairs = [(text(), text()) for _ in range(ROWS)]
    return write_files(
        tmp_path_factory.mktemp("texts"),
        {
            "train.tsv": "sentence\tlabel\n" + "".join(f"{row}\t1\n" for row in [*single, "the oscar goes to noone"]),
            "more.csv": "text\n" + "".join(f'"{row}"\n' for row in [*more, "the secret ending", 'a ""quoted"" film']),
            "pairs.tsv": "premise\thypothesis\n" + "".join(f"{a}\t{b}\n" for a, b in pairs),
            "dev.tsv": f"sentence\tlabel\n{held[0]}\t1\n",
            "test.tsv": f"sentence\tlabel\n{held[1]}\t0\n",
            "words.tsv": "sentence\nbad\ngood\n",
        },
    )


def augmented(room: Path, out: str, *words: object) -> list[dict[str, str]]:
    files = [str(room / word) if (room / str(word)).is_file() else str(word) for word in words]
    assert main(["augment", *files, "--output", str(room / out), "--quiet"]) == 0
    return [dict(row) for row in load_rows(str(room / out))]


@cache
def rows_of(file: str) -> list[tuple[str, ...]]:
    table = read(Source.parse(file), Reading(), split="train", labelled=False).rows
    return list(zip(*(table[name] for name in table.column_names), strict=True))


def source_rows(room: Path, row: dict[str, str]) -> list[tuple[str, ...]]:
    """The texts of the rows that a new row names."""
    found = []
    for place in row["origin"].split("+"):
        file, _, number = place.rpartition(":")
        found.append(rows_of(file)[int(number)])
    return found


def is_subsequence(part: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(word in rest for word in part)


def test_each_way_changes_texts_as_it_says_and_the_file_is_unlabelled_text(room: Path) -> None:
    files = ("--train", "train.tsv", "--unlabelled", "more.csv")
    rows = augmented(room, "all.tsv", *files, "--copies", 3, "--how", "replace", "drop", "splice")
    assert 0.95 * 3 * (2 * ROWS + 3) < len(rows) <= 3 * (2 * ROWS + 3)
    table = [*load_rows(str(room / "train.tsv"))["sentence"], *load_rows(str(room / "more.csv"))["text"]]
    known, shares = {word for text in table for word in words_of(text)}, []
    for row in rows[::7]:
        (text,), *donor = source_rows(room, row)
        new, old = words_of(row["sentence"]), words_of(text)
        assert row["sentence"] != text and set(new) <= known
        if row["how"] == "replace":
            assert len(new) == len(old)
            shares.append(sum(a != b for a, b in zip(new, old, strict=True)) / len(old))
        elif row["how"] == "drop":
            assert 0 < len(new) < len(old) and is_subsequence(new, old)
        else:
            other = words_of(donor[0][0])
            assert any(new == old[:k] + other[-(len(new) - k) :] for k in range(1, len(new)))
    assert 0.2 < np.mean(shares) < 0.45  # --rate 0.3, and at least one word of a short text
    assert Counter(row["how"] for row in rows).keys() == {"replace", "drop", "splice"}
    taken = read(Source.parse(str(room / "all.tsv")), Reading(), split="train", labelled=False)
    assert taken.rows.column_names == ["text"] and len(taken) == len(rows)


def test_words_come_as_often_as_in_the_corpus(room: Path) -> None:
    """Half of the texts end with one word, so every 14th word or so is that word."""
    rows = augmented(room, "often.tsv", "--unlabelled", "more.csv", "--copies", 8, "--rate", 1)
    words = [word for row in rows for word in words_of(row["text"])]
    corpus = [word for row in load_rows(str(room / "more.csv")) for word in words_of(row["text"])]
    wanted = corpus.count("frozen") / len(corpus)
    assert abs(words.count("frozen") / len(words) - wanted) < 0.15 * wanted


@pytest.mark.parametrize(("share", "both"), [(1, 0), (0, 1), (0.5, 0.5)])
def test_pairs_keep_their_other_side_in_the_stated_share(room: Path, share: float, both: float) -> None:
    rows = augmented(room, "pairs-out.tsv", "--train", "pairs.tsv", "--one-side", share, "--how", "drop")
    pairs = [tuple(row.values()) for row in load_rows(str(room / "pairs.tsv"))]
    changed: Counter[int] = Counter()
    for row in rows:
        old = pairs[int(row["origin"].rpartition(":")[2])]
        changed[sum(a != b for a, b in zip((row["premise"], row["hypothesis"]), old, strict=True))] += 1
    assert changed.keys() <= {1, 2} and abs(changed[2] / len(rows) - both) < 0.06


def test_no_text_of_an_eval_or_test_set_is_used_or_made(room: Path) -> None:
    files = ("--train", "train.tsv", "--unlabelled", "more.csv", "--how", "replace", "splice", "--eval", "dev.tsv")
    files += ("--test", "test.tsv")
    rows = augmented(room, "apart.jsonl", *files)
    words = {word.casefold() for row in rows for word in words_of(row["sentence"])}
    assert not words & {"oscar", "secret"} and len(words) > len(WORDS) - 3
    held = {normalised(("the oscar goes to noone",)), normalised(("the secret ending",))}
    assert not held & {normalised((row["sentence"],)) for row in rows}
    # What is made and is such a text is left out too.
    write_files(room, {"one.tsv": "text\nvery good film\n", "held.tsv": "text\tlabel\nGood  film\t1\n"})
    free, kept = (
        {
            row["text"]
            for row in augmented(room, "made.tsv", "--train", "one.tsv", "--how", "drop", "--copies", 9, *more)
        }
        for more in ((), ("--ood", "held.tsv"))
    )
    assert "good film" in free and kept == free - {"good film"}


def test_the_slice_of_a_pattern_counts_through_its_files(room: Path) -> None:
    write_files(room / "parts", {"a.tsv": "text\ngood film\nbad film\n", "b.tsv": "text\nso so\nold end\n"})
    rows = augmented(room, "cut.tsv", "--train", f"{room}/parts/*.tsv[1:3]", "--how", "drop")
    assert {row["origin"].rpartition(":")[2] for row in rows} <= {"0", "1"}
    assert {word for row in rows for word in words_of(row["text"])} <= {"bad", "film", "so"}


def test_a_seed_decides_every_byte(room: Path) -> None:
    made = []
    for seed, name in ((5, "one.csv"), (5, "two.csv"), (6, "three.csv")):
        augmented(room, name, "--train", "train.tsv", "--seed", seed, "--how", "splice", "drop")
        made.append((room / name).read_bytes())
    assert made[0] == made[1] != made[2]
    with (room / "one.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) > 3 * ROWS


def test_texts_that_allow_no_other_leave_no_file(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["augment", "--train", str(room / "words.tsv"), "--how", "drop", "--output", str(room / "none.tsv")]
    assert main(words) == 1
    assert "too short" in capsys.readouterr().err and not list(room.glob("*none*"))
    assert main([*words[:3], "--unlabelled", str(room / "pairs.tsv"), *words[-2:]]) == 2
    assert "Expected one text a row as in" in capsys.readouterr().err and not list(room.glob("*none*"))
    assert main([*words[:3], "--one-side", "0.5", *words[-2:]]) == 2  # it would have no effect
    assert "--one-side: expected pairs of texts" in capsys.readouterr().err and not list(room.glob("*none*"))


def test_a_sample_is_uniform_and_holds_all_of_a_short_stream() -> None:
    few, many = Sample[int](100, [1]), Sample[int](400, [1])
    for start in range(0, 60, 7):
        few.add(range(start, min(start + 7, 60)))
    for start in range(0, 20_000, 64):
        many.add(range(start, min(start + 64, 20_000)))
    assert few.kept == list(range(60))
    assert len(set(many.kept)) == 400 and abs(np.mean(many.kept) - 10_000) < 1_000
    assert np.histogram(many.kept, 4, (0, 20_000))[0].min() > 70


def test_words_of_scripts_without_spaces_are_characters(room: Path) -> None:
    (room / "zh.tsv").write_text("text\n" + "".join(f"很好的电影{i}\n" for i in range(20)), encoding="utf-8")
    rows = augmented(room, "zh-out.tsv", "--unlabelled", "zh.tsv", "--how", "splice", "drop")
    assert all(" " not in row["text"] for row in rows if row["text"][-1] not in "0123456789")
    assert any(row["text"] == "很好的电影" or row["text"][:2] == "好的" for row in rows)
