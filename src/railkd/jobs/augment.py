"""Writes new texts for a teacher to label, made from the texts that are there, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from railkd.data.augmenting import Augmenter, Origin, Sample, words_of
from railkd.data.delimited_writer import needs_quotes
from railkd.data.keys import example_key, normalised
from railkd.data.predictions import write_predictions
from railkd.data.reading import Reading
from railkd.data.sources import Source, parse_named
from railkd.data.streams import TextStream, read_stream
from railkd.errors import RailkdError, RunFailed
from railkd.jobs.option import Say, required
from railkd.jobs.text_options import AugmentOptions
from railkd.runtime.progress import Advance, bar

#: Rows that are in memory at once; each block has draws of its own.
_BLOCK = 1024
#: Words and rows of the corpus that are kept to draw from.
_WORDS, _DONORS = 2**17, 2**14
#: Of pairs, the share of copies that change one text, if the user gives none.
_ONE_SIDE = 0.5
#: Columns that say how a row was made, and from which row of which file.
PROVENANCE = ("how", "origin")
#: What became of rows and copies that are not written -> words.
_LEFT_OUT = {
    "held": "rows of --train and --unlabelled, whose texts are in --eval, --test or --ood",
    "leak": "new texts that are in --eval, --test or --ood",
    "none": "copies of short texts, of which no other new text was found",
}


def augment(options: AugmentOptions, say: Say) -> int:
    """Write new texts, made from those of --train and --unlabelled.

    If no new text is found, `railkd.errors.RunFailed` is raised and nothing is written.

    Args:
        options: settings of ``railkd augment``.
        say: receives lines for the user.

    Returns:
        The number of rows written.
    """
    output = required(options.output, "--output")
    corpus = _Corpus.read(options, say)
    words, donors = corpus.sample(options.seed)
    one_side = _ONE_SIDE if options.one_side is None else options.one_side
    augmenter = Augmenter(options.how, options.copies, options.rate, one_side, words, donors)
    counts: Counter[str] = Counter()
    with bar("augmenting", "rows", quiet=options.quiet, lines=False) as advance:
        rows = _new_rows(corpus, augmenter, options.seed, counts, advance)
        write_predictions(output, rows, quoted=corpus.quoted)
    for why, words_of_it in _LEFT_OUT.items():
        if counts[why]:
            say(f"left out {counts[why]:,} {words_of_it}")
    say(f"written: {counts['written']:,} rows to {output}")
    return counts["written"]


@dataclass(frozen=True)
class _Corpus:
    """The rows to make texts from.

    Attributes:
        streams: of the files, read one after the other.
        held: keys of the texts of --eval, --test and --ood.
    """

    streams: Sequence[TextStream]
    held: frozenset[tuple[int, int]]

    @classmethod
    def read(cls, options: AugmentOptions, say: Say) -> _Corpus:
        """Look through all files once.

        Args:
            options: settings of ``railkd augment``.
            say: receives lines for the user.

        Returns:
            The rows and what they must not be.

        Raises:
            RailkdError: some files have one text a row and others pairs, or --one-side is given for single texts.
        """
        reading = Reading.parse(options.text_column, None, None)
        given = [(Source.parse(text), "train") for text in (*options.train, *options.unlabelled)]
        kept = [(Source.parse(options.eval), "dev")] if options.eval else []
        kept += [(source, source.scored_split) for source in parse_named([*options.test, *options.ood]).values()]
        found, others = (_streams(sources, reading, say) for sources in (given, kept))
        for stream in (*found, *others):
            _compare_texts(found[0], stream)
        if options.one_side is not None and len(found[0].columns.text) == 1:
            raise RailkdError(
                f"--one-side: expected pairs of texts, got one text a row in '{found[0].source.text}'. Fix: leave it "
                "out."
            )
        return cls(found, frozenset(_key(texts) for stream in others for texts in _texts(stream)))

    @property
    def quoted(self) -> bool:
        """True if a tsv of its texts, with their places, needs quotes."""
        return any(stream.quoted or needs_quotes(stream.source.text) for stream in self.streams)

    @property
    def columns(self) -> tuple[str, ...]:
        """The text columns of the first file."""
        return self.streams[0].columns.text

    def blocks(self) -> Iterator[tuple[list[Origin], int]]:
        """Yield the rows that may be used, some at a time, with the number of those that were left out."""
        for stream in self.streams:
            place = 0
            for block in stream.blocks(_BLOCK):
                texts = zip(*stream.texts(block).values(), strict=True)
                rows = [Origin(row, f"{stream.source.text}:{number}") for number, row in enumerate(texts, place)]
                place += len(rows)
                used = [row for row in rows if not self.held or _key(row.texts) not in self.held]
                yield used, len(rows) - len(used)

    def sample(self, seed: int) -> tuple[list[str], list[Origin]]:
        """Return words of the corpus, as frequent as they are there, and rows whose ends are spliced to others.

        Raises:
            RunFailed: no row may be used, or there is no word.
        """
        words, donors = Sample[str](_WORDS, [seed, 1]), Sample[Origin](_DONORS, [seed, 2])
        for rows, _ in self.blocks():
            donors.add(rows)
            words.add([word for row in rows for text in row.texts for word in words_of(text)])
        if not words.kept:
            raise RunFailed("no row of --train and --unlabelled holds a word that may be used, so nothing is written")
        return words.kept, donors.kept


def _streams(sources: Sequence[tuple[Source, str]], reading: Reading, say: Say) -> list[TextStream]:
    found = []
    for source, split in sources:
        # The files of a pattern are read one by one. A slice counts through all of them.
        for part in source.parts if source.parts and not source.cut else (source,):
            stream = read_stream(part, reading, split=split)
            for line in (f"{part.text}: {stream.count:,} rows; {stream.described}", *stream.notes):
                say(line)
            found.append(stream)
    return found


def _texts(stream: TextStream) -> Iterator[tuple[str, ...]]:
    for block in stream.blocks(_BLOCK):
        yield from zip(*stream.texts(block).values(), strict=True)


def _compare_texts(first: TextStream, other: TextStream) -> None:
    """Refuse single texts in one file and pairs in another."""
    words = ("one text a row", "pairs of texts")
    expected, got = (words[len(stream.columns.text) - 1] for stream in (first, other))
    if got != expected:
        raise RailkdError(
            f"Expected {expected} as in '{first.source.text}', got {got} in '{other.source.text}'. Fix: name columns "
            "of both with --text-column, or leave one out."
        )


def _new_rows(
    corpus: _Corpus, augmenter: Augmenter, seed: int, counts: Counter[str], advance: Advance
) -> Iterator[dict[str, Any]]:
    """Yield the new rows, and count them and what is left out."""
    names = [*corpus.columns, *(f"made_{name}" if name in corpus.columns else name for name in PROVENANCE)]
    done, total = 0, sum(stream.count for stream in corpus.streams)
    for number, (rows, left_out) in enumerate(corpus.blocks()):
        rng = np.random.default_rng([seed, 0, number])
        for row in rows:
            for copy in augmenter.copies_of(row, rng):
                fate = "none" if copy is None else "leak" if _is_held(corpus, copy[0]) else "written"
                counts[fate] += 1
                if copy is not None and fate == "written":
                    texts, how, place = copy
                    yield dict(zip(names, (*texts, how, place), strict=True))
        counts["held"] += left_out
        done += len(rows) + left_out
        advance(done, total)
    if not counts["written"]:  # raised inside of the writer, which leaves no file then
        raise RunFailed("the texts are too short to make others from, so nothing is written. Fix: try --how splice")


def _is_held(corpus: _Corpus, texts: tuple[str, ...]) -> bool:
    return bool(corpus.held) and _key(texts) in corpus.held


def _key(texts: tuple[str, ...]) -> tuple[int, int]:
    """Return a key that differences of case and white space do not change, as the check for leaks compares texts."""
    return example_key(*normalised(texts))
