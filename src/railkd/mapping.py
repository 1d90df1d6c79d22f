"""Which teacher block teaches which student block: pure functions of (seed, draw index).

Blocks are numbered 1..n; the embedding output is not a block. A draw is a tuple of teacher blocks: its i-th member
teaches the i-th matched student block. Nothing here knows torch, and nothing here keeps state: every rank computes the
same draw, and a resumed run needs nothing stored.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral

from railkd.errors import RailkdError, did_you_mean

Draw = tuple[int, ...]

STRATEGIES = ("uniform", "stratified", "cyclic", "even")
REDRAWS = ("epoch", "step", "never")
CANDIDATES = ("intermediate", "all")


def skip(s: int, n: int) -> Draw:
    """PKD-skip: teacher block ``floor(i n / s)`` for the intermediate student blocks i = 1..s-1.

    Source: Sun et al. 2019 (arXiv 1908.09355).

    >>> skip(6, 12)
    (2, 4, 6, 8, 10)
    """
    _check_depths(s, n)
    return tuple(i * n // s for i in range(1, s))


def last(s: int, n: int) -> Draw:
    """PKD-last: the s-1 teacher blocks below the last one, ``n-s+1 .. n-1``.

    >>> last(6, 12)
    (7, 8, 9, 10, 11)
    """
    _check_depths(s, n)
    return tuple(range(n - s + 1, n))


def candidates(n: int, *, include_last: bool = False) -> Draw:
    """The teacher blocks a draw may pick: the intermediate ones, 1..n-1, or all of 1..n."""
    return tuple(range(1, n + 1 if include_last else n))


def draw(
    m: int,
    candidates: int | Sequence[int],
    *,
    seed: int,
    epoch: int,
    strategy: str = "uniform",
    ordered: bool = True,
) -> Draw:
    """Draw m of the candidate teacher blocks without replacement: RAIL-KD's random mapping (arXiv 2109.10164, section
    3).

    Args:
        m: how many blocks: the number of matched student blocks.
        candidates: the blocks to draw from; an integer N stands for 1..N.
        seed: of the run.
        epoch: the draw index: the epoch, or the optimizer step when every step draws anew. The result depends on (seed,
            index) alone.
        strategy: ``uniform`` (the paper); ``stratified``: one block out of each of m depth quantiles; ``cyclic``: a
            shuffled deck is dealt, so that every block is used once in ceil(N/m) draws before any comes back; ``even``:
            evenly spaced, the same at every index.
        ordered: sort the blocks, so that depth order is kept (the paper). Otherwise they stay as drawn.

    Raises:
        RailkdError: m < 1, more matched blocks than candidates, repeated candidates, an unknown strategy.

    >>> draw(3, 11, seed=0, epoch=0) == draw(3, range(1, 12), seed=0, epoch=0)
    True
    """
    # Plain integers, whatever integers came: the same numbers of another type must not draw other blocks.
    m, seed, epoch = int(m), int(seed), int(epoch)
    among = range(1, int(candidates) + 1) if isinstance(candidates, Integral) else candidates
    blocks = tuple(int(block) for block in among)  # type: ignore[union-attr]
    if len(set(blocks)) != len(blocks):
        raise RailkdError(f"candidate blocks must differ from each other, got {blocks}")
    if m < 1:
        raise RailkdError(f"got {m} matched blocks, wanted at least 1")
    if m > len(blocks):
        raise RailkdError(
            f"got {m} matched student blocks but only {len(blocks)} candidate teacher blocks; "
            "match fewer blocks, use a shallower student, or let the last block take part (candidates='all')"
        )
    if strategy == "uniform":
        drawn = _shuffled(blocks, seed, "uniform", epoch)[:m]
    elif strategy == "stratified":
        drawn = tuple(_shuffled(part, seed, "stratified", epoch)[0] for part in _split(blocks, m))
    elif strategy == "cyclic":
        drawn = _deal(m, blocks, seed, epoch)
    elif strategy == "even":
        drawn = tuple(blocks[i * (len(blocks) + 1) // (m + 1) - 1] for i in range(1, m + 1))
    else:
        raise RailkdError(
            f"unknown draw strategy '{strategy}'; known: {', '.join(STRATEGIES)}.{did_you_mean(strategy, STRATEGIES)}"
        )
    return tuple(sorted(drawn)) if ordered else drawn


def draw_index(redraw: str, *, epoch: int, step: int) -> int:
    """The draw index of a moment of training: its epoch, its optimizer step, or always 0."""
    check_choice("redraw", redraw, REDRAWS)
    return {"epoch": epoch, "step": step, "never": 0}[redraw]


@dataclass(frozen=True)
class Draws:
    """How a run draws teacher blocks: every draw of the run follows from this value and the seed.

    Args:
        m: the number of matched student blocks.
        candidates: the teacher blocks to draw from, 1-based.
        redraw: draw anew every ``epoch``, every optimizer ``step``, or ``never``.
        strategy: see `draw`.
        ordered: see `draw`.

    Raises:
        RailkdError: an unknown choice, m < 1, repeated candidates or fewer of them than m.

    >>> Draws(2, (1, 2, 3), strategy="even").used(0, steps=12, epochs=2)
    [(1, 2), (1, 2)]
    """

    m: int
    candidates: Draw
    redraw: str = "epoch"
    strategy: str = "uniform"
    ordered: bool = True

    def __post_init__(self) -> None:
        check_choice("redraw", self.redraw, REDRAWS)
        check_choice("strategy", self.strategy, STRATEGIES)
        self.at(0, epoch=0, step=0)  # more matched blocks than candidates: fail here, not at the first step

    @classmethod
    def between(
        cls,
        s: int,
        n: int,
        *,
        candidates: str = "intermediate",
        redraw: str = "epoch",
        strategy: str = "uniform",
        ordered: bool = True,
    ) -> Draws:
        """Return the draws that teach a student of ``s`` blocks by a teacher of ``n`` blocks.

        Args:
            s: blocks of the student.
            n: blocks of the teacher.
            candidates: ``intermediate``: teacher blocks 1..n-1 for student blocks 1..s-1; ``all``: 1..n for 1..s.
            redraw: see the class.
            strategy: see `draw`.
            ordered: see `draw`.

        Raises:
            RailkdError: an unknown choice, or a pair without enough blocks.

        >>> Draws.between(3, 6)
        Draws(m=2, candidates=(1, 2, 3, 4, 5), redraw='epoch', strategy='uniform', ordered=True)
        """
        check_choice("candidates", candidates, CANDIDATES)
        everything = candidates == "all"
        m = s if everything else s - 1
        if m < 1:
            raise RailkdError(
                "a student of 1 block has no intermediate block to match; use candidates='all' "
                "(--candidates all), which matches its last block too"
            )
        blocks = tuple(range(1, n + 1 if everything else n))
        return cls(m, blocks, redraw=redraw, strategy=strategy, ordered=ordered)

    def at(self, seed: int, *, epoch: int, step: int) -> Draw:
        """Return the draw of a moment of training.

        Args:
            seed: of the run.
            epoch: epochs finished before the moment.
            step: optimizer steps finished before the moment.
        """
        index = draw_index(self.redraw, epoch=epoch, step=step)
        return draw(self.m, self.candidates, seed=seed, epoch=index, strategy=self.strategy, ordered=self.ordered)

    def used(self, seed: int, *, steps: int, epochs: int) -> list[Draw]:
        """Return the draws of a whole run in their order, each once.

        Args:
            seed: of the run.
            steps: its optimizer steps.
            epochs: its epochs, the last one counted if it has begun.
        """
        count = {"epoch": epochs, "step": steps, "never": 1}[self.redraw]
        return [self.at(seed, epoch=index, step=index) for index in range(count)]


def check_choice(option: str, got: str, known: Sequence[str]) -> None:
    """Raise an error that lists the known values of an option, unless ``got`` is among them."""
    if got not in known:
        raise RailkdError(f"unknown {option} '{got}'; known: {', '.join(known)}.{did_you_mean(str(got), known)}")


def order_statistics(m: int, candidates: int) -> list[list[Fraction]]:
    """``P(r(i) = t) = C(t-1, i-1) C(N-t, m-i) / C(N, m)``: how often the i-th of m sorted uniform draws is block t.

    Returns:
        m rows of N exact fractions; row i has mean ``i (N+1) / (m+1)``.

    >>> [str(p) for p in order_statistics(2, 3)[0]]
    ['2/3', '1/3', '0']
    """
    n, total = candidates, math.comb(candidates, m)
    return [
        [Fraction(math.comb(t - 1, i - 1) * math.comb(n - t, m - i), total) for t in range(1, n + 1)]
        for i in range(1, m + 1)
    ]


def coverage(draws: Iterable[Draw], candidates: Sequence[int]) -> dict[int, list[int]]:
    """For each candidate block, how often it taught the 1st, 2nd, ... matched student block.

    >>> coverage([(1, 3), (2, 3)], [1, 2, 3])
    {1: [1, 0], 2: [1, 0], 3: [0, 2]}
    """
    drawn = list(draws)
    m = max((len(d) for d in drawn), default=0)
    return {t: [sum(len(d) > i and d[i] == t for d in drawn) for i in range(m)] for t in candidates}


@functools.lru_cache(maxsize=64)  # an epoch's draw is asked for at every step
def _shuffled(blocks: Draw, seed: int, *purpose: object) -> Draw:
    """A uniform permutation: blocks sorted by a keyed hash.

    Not ``random.Random``: its shuffle and sample may change between Python versions; a run must be repeatable for
    years.
    """

    def key(block: int) -> bytes:
        return hashlib.blake2b(repr((seed, *purpose, block)).encode(), digest_size=16).digest()

    return tuple(sorted(blocks, key=key))


def _split(blocks: Draw, m: int) -> list[Draw]:
    """m contiguous parts, as equal as can be."""
    edges = [i * len(blocks) // m for i in range(m + 1)]
    return [blocks[a:b] for a, b in itertools.pairwise(edges)]


def _deal(m: int, blocks: Draw, seed: int, index: int) -> Draw:
    draws_per_cycle = math.ceil(len(blocks) / m)
    cycle, turn = divmod(index, draws_per_cycle)
    deck = _shuffled(blocks, seed, "cyclic", cycle)
    hand = deck[turn * m : (turn + 1) * m]
    return hand + deck[: m - len(hand)]  # the last hand is filled from the top: blocks that are not in it


def _check_depths(s: int, n: int) -> None:
    if s < 1 or n < s:
        raise RailkdError(
            f"got a student of {s} blocks and a teacher of {n}; wanted 1 <= student blocks <= teacher blocks"
        )
