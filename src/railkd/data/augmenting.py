"""Make new texts from those that are there, for a teacher to label: words replaced or dropped, two rows spliced.

No model is needed. A word is a run of characters without a space, or a single Chinese or Japanese character. What lies
between the words that stay is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

Item = TypeVar("Item")
_ONE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_ONE}]|[^\s{_ONE}]+")
_ALONE = re.compile(rf"[{_ONE}]")
#: How often a copy is drawn until it is a new text.
_TRIES = 3


@dataclass(frozen=True)
class Origin:
    """A row of the corpus.

    Attributes:
        texts: one text, or the two of a pair.
        place: file and number of the row, from 0, such as ``train.tsv:12``.
    """

    texts: tuple[str, ...]
    place: str


class Sample(Generic[Item]):
    """A uniform sample of a stream in bounded memory. It holds all items of a short stream.

    Args:
        most: number of items to keep.
        seed: of the draws.

    Attributes:
        kept: the items.
    """

    def __init__(self, most: int, seed: Sequence[int]) -> None:
        self.kept: list[Item] = []
        self._most, self._seen, self._rng = most, 0, np.random.default_rng(list(seed))

    def add(self, items: Sequence[Item]) -> None:
        """Look at the next items of the stream.

        Args:
            items: any number of them.
        """
        free = max(0, min(self._most - self._seen, len(items)))
        self.kept += items[:free]
        rest = np.arange(free, len(items))
        places = (self._rng.random(len(rest)) * (self._seen + rest + 1)).astype(np.int64)
        for number in np.flatnonzero(places < self._most):
            self.kept[int(places[number])] = items[free + int(number)]
        self._seen += len(items)


def words_of(text: str) -> list[str]:
    """Return the words of a text.

    Args:
        text: of any language; scripts without spaces, other than Chinese and Japanese, have long words.

    Example:
        >>> words_of("so  good, 很好")
        ['so', 'good,', '很', '好']
    """
    return _WORD.findall(text)


@dataclass(frozen=True)
class Augmenter:
    """Draws copies of rows.

    Attributes:
        hows: names of `HOWS`; the copies of a row take them in turn.
        copies: of each row.
        rate: share of the words of a copy that change, on average.
        one_side: of pairs, the share of copies that change one text and keep the other.
        words: a sample of the words of the corpus, as frequent as they are there.
        donors: a sample of the rows, whose ends are spliced to other rows.
    """

    hows: Sequence[str]
    copies: int
    rate: float
    one_side: float
    words: Sequence[str]
    donors: Sequence[Origin]

    def copies_of(self, row: Origin, rng: np.random.Generator) -> Iterator[tuple[tuple[str, ...], str, str] | None]:
        """Draw the copies of one row, no two alike and none like the row.

        Args:
            row: to copy.
            rng: of the draws.

        Yields:
            For each copy its texts, how it was made, and from which rows; None: no new text was found.
        """
        known = {row.texts}
        for number in range(self.copies):
            how = self.hows[number % len(self.hows)]
            for _ in range(_TRIES):
                donor = self.donors[_index(rng, len(self.donors))]
                texts = self._changed(row, donor, how, rng)
                if texts not in known:
                    known.add(texts)
                    yield texts, how, f"{row.place}+{donor.place}" if how == "splice" else row.place
                    break
            else:
                yield None

    def _changed(self, row: Origin, donor: Origin, how: str, rng: np.random.Generator) -> tuple[str, ...]:
        changed = range(len(row.texts))
        if len(row.texts) > 1 and rng.random() < self.one_side:
            changed = range(first := _index(rng, 2), first + 1)
        texts = list(row.texts)
        for side in changed:
            texts[side] = HOWS[how](texts[side], donor.texts[side], self, rng)
        return tuple(texts)


def _index(rng: np.random.Generator, count: int) -> int:
    return int(rng.random() * count)


def _some(count: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Return which of the words change, at least one of them: (count,) bool."""
    chosen: np.ndarray = rng.random(count) < rate
    if not chosen.any():
        chosen[_index(rng, count)] = True
    return chosen


def _replace(text: str, other: str, asked: Augmenter, rng: np.random.Generator) -> str:
    """Replace words by words of the corpus."""
    words, gaps = _WORD.findall(text), _WORD.split(text)
    if not words:
        return text
    for place in np.flatnonzero(_some(len(words), asked.rate, rng)):
        words[place] = asked.words[_index(rng, len(asked.words))]
    return gaps[0] + "".join(word + gap for word, gap in zip(words, gaps[1:], strict=True))


def _drop(text: str, other: str, asked: Augmenter, rng: np.random.Generator) -> str:
    """Leave out words, but not all."""
    words, gaps = _WORD.findall(text), _WORD.split(text)
    if len(words) < 2:
        return text
    gone = _some(len(words), asked.rate, rng)
    if gone.all():
        gone[_index(rng, len(words))] = False
    first, *rest = np.flatnonzero(~gone).tolist()
    return words[first] + "".join(gaps[place] + words[place] for place in rest)


def _splice(text: str, other: str, asked: Augmenter, rng: np.random.Generator) -> str:
    """Put the end of another text behind the beginning of a text."""
    mine, theirs = list(_WORD.finditer(text)), list(_WORD.finditer(other))
    if not mine or not theirs:
        return text
    low, high = max(0.0, 2 * asked.rate - 1), min(1.0, 2 * asked.rate)
    share = low + (high - low) * rng.random()
    kept = min(max(1, len(mine) - 1), max(1, round((1 - share) * len(mine))))
    taken = max(1, round(share * len(theirs)))
    head, tail = text[: mine[kept - 1].end()], other[theirs[-taken].start() : theirs[-1].end()]
    return head + ("" if _ALONE.match(head[-1]) and _ALONE.match(tail) else " ") + tail


#: Name -> function of a text, the text of another row, the settings and the draws; it returns the new text.
HOWS: dict[str, Callable[[str, str, Augmenter, np.random.Generator], str]] = {
    "replace": _replace,
    "drop": _drop,
    "splice": _splice,
}
