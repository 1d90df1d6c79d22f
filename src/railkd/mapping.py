"""Map teacher blocks to student blocks: pure functions of (seed, draw index), without torch.

Blocks are numbered 1..n; the embedding output is not a block. A draw is a tuple of teacher blocks: its i-th member
teaches the i-th matched student block. There is no state: every rank computes the same draw, and a checkpoint stores
none.

Letters: s student blocks, n teacher blocks, m matched student blocks, N candidate teacher blocks.
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
    """Return the mapping of PKD-skip: teacher block ``floor(i n / s)`` for the student blocks i = 1..s-1.

    Source: Sun et al. 2019, "Patient Knowledge Distillation for BERT Model Compression" (arXiv 1908.09355).

    Args:
        s: number of student blocks.
        n: number of teacher blocks, at least s.

    Returns:
        s - 1 teacher blocks.

    >>> skip(6, 12)
    (2, 4, 6, 8, 10)
    """
    _check_depths(s, n)
    return tuple(i * n // s for i in range(1, s))


def last(s: int, n: int) -> Draw:
    """Return the mapping of PKD-last: the s - 1 teacher blocks below the last one, ``n-s+1 .. n-1``.

    Source: Sun et al. 2019 (arXiv 1908.09355).

    Args:
        s: number of student blocks.
        n: number of teacher blocks, at least s.

    Returns:
        s - 1 teacher blocks.

    >>> last(6, 12)
    (7, 8, 9, 10, 11)
    """
    _check_depths(s, n)
    return tuple(range(n - s + 1, n))


def candidates(n: int, *, include_last: bool = False) -> Draw:
    """Return the teacher blocks that a draw can pick.

    Args:
        n: number of teacher blocks.
        include_last: include the last block.

    Returns:
        1..n-1, the intermediate blocks; 1..n with the last block.
    """
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
    """Draw m of the candidate teacher blocks without replacement.

    Source: the random mapping of RAIL-KD, Haidar et al. 2022 (arXiv 2109.10164), section 3. The strategies other than
    ``uniform`` and the option ``ordered=False`` are additions of this library.

    Args:
        m: number of blocks to draw, one for each matched student block.
        candidates: the blocks to draw from; an integer N stands for 1..N.
        seed: seed of the run.
        epoch: the draw index: the epoch, or the optimizer step if every step draws. The result depends only on seed and
            index.
        strategy: ``uniform`` as in the paper; ``stratified``: one block from each of m depth quantiles; ``cyclic``:
            deal a shuffled deck, so that ceil(N/m) draws use every block once before any block repeats; ``even``:
            evenly spaced blocks, the same at every index.
        ordered: sort the blocks by depth, as in the paper. Otherwise they stay in random order.

    Returns:
        m teacher blocks.

    Raises:
        RailkdError: m is below 1 or above the number of candidates, candidates repeat, or the strategy is unknown.

    >>> draw(3, 11, seed=0, epoch=0) == draw(3, range(1, 12), seed=0, epoch=0)
    True
    """
    # Convert to int: the draw hashes the repr, and numpy.int64(3) must draw the same blocks as 3.
    m, seed, epoch = int(m), int(seed), int(epoch)
    pool = range(1, int(candidates) + 1) if isinstance(candidates, Integral) else candidates
    blocks = tuple(int(block) for block in pool)  # type: ignore[union-attr]
    if len(set(blocks)) != len(blocks):
        raise RailkdError(f"Expected candidate blocks that differ from each other, got {blocks}.")
    if m < 1:
        raise RailkdError(f"Expected at least 1 matched block, got {m}.")
    if m > len(blocks):
        raise RailkdError(
            f"There are {m} matched student blocks but only {len(blocks)} candidate teacher blocks. "
            "Fix: match fewer blocks, use a student with fewer blocks, or include the last block (candidates='all')."
        )
    check_choice("strategy", strategy, STRATEGIES)
    if strategy == "uniform":
        picks = _shuffle(blocks, seed, "uniform", epoch)[:m]
    elif strategy == "stratified":
        picks = tuple(_shuffle(part, seed, "stratified", epoch)[0] for part in _split(blocks, m))
    elif strategy == "cyclic":
        picks = _deal(m, blocks, seed, epoch)
    else:
        picks = tuple(blocks[i * (len(blocks) + 1) // (m + 1) - 1] for i in range(1, m + 1))
    return tuple(sorted(picks)) if ordered else picks


def draw_index(redraw: str, *, epoch: int, step: int) -> int:
    """Return the draw index at a moment of training.

    Args:
        redraw: ``epoch``, ``step`` or ``never``.
        epoch: epochs finished before the moment.
        step: optimizer steps finished before the moment.

    Returns:
        The epoch, the step or 0.
    """
    check_choice("redraw", redraw, REDRAWS)
    return {"epoch": epoch, "step": step, "never": 0}[redraw]


@dataclass(frozen=True)
class Draws:
    """The rule by which a run draws teacher blocks. The rule and the seed determine every draw of the run.

    Args:
        m: number of matched student blocks.
        candidates: the teacher blocks to draw from, counted from 1.
        redraw: draw every ``epoch``, every optimizer ``step``, or once for the run (``never``).
        strategy: see `draw`.
        ordered: see `draw`.

    Raises:
        RailkdError: a choice is unknown, m is below 1 or above the number of candidates, or candidates repeat.

    >>> Draws(2, (1, 2, 3), strategy="even").schedule(0, steps=12, epochs=2)
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
        self.at(0, epoch=0, step=0)  # report a wrong m or candidates here, not at the first step

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
        """Return the rule for a student of s blocks and a teacher of n blocks.

        Args:
            s: number of student blocks.
            n: number of teacher blocks.
            candidates: ``intermediate`` maps teacher blocks 1..n-1 to student blocks 1..s-1; ``all`` maps 1..n to 1..s.
            redraw: draw again at each ``epoch``, at each optimizer ``step``, or ``never``.
            strategy: ``uniform``, ``stratified``, ``cyclic`` or ``even``; see `draw`.
            ordered: sort the drawn blocks by depth.

        Returns:
            The rule.

        Raises:
            RailkdError: a choice is unknown, or student or teacher has too few blocks.

        >>> Draws.between(3, 6)
        Draws(m=2, candidates=(1, 2, 3, 4, 5), redraw='epoch', strategy='uniform', ordered=True)
        """
        check_choice("candidates", candidates, CANDIDATES)
        everything = candidates == "all"
        m = s if everything else s - 1
        if m < 1:
            raise RailkdError(
                "A student of 1 block has no intermediate block to match. Fix: use candidates='all' (or --candidates "
                "all), which also matches the last block."
            )
        blocks = tuple(range(1, n + 1 if everything else n))
        return cls(m, blocks, redraw=redraw, strategy=strategy, ordered=ordered)

    def at(self, seed: int, *, epoch: int, step: int) -> Draw:
        """Return the draw at a moment of training.

        Args:
            seed: seed of the run.
            epoch: epochs finished before the moment.
            step: optimizer steps finished before the moment.

        Returns:
            m teacher blocks.
        """
        index = draw_index(self.redraw, epoch=epoch, step=step)
        return draw(self.m, self.candidates, seed=seed, epoch=index, strategy=self.strategy, ordered=self.ordered)

    def schedule(self, seed: int, *, steps: int, epochs: int) -> list[Draw]:
        """Return the draws of a whole run, in order.

        Args:
            seed: seed of the run.
            steps: number of optimizer steps.
            epochs: number of epochs, including a last one that is not complete.

        Returns:
            One draw for each draw index.
        """
        count = {"epoch": epochs, "step": steps, "never": 1}[self.redraw]
        return [self.at(seed, epoch=index, step=index) for index in range(count)]


def check_choice(option: str, got: str, known: Sequence[str]) -> None:
    """Check that an option has a known value.

    Args:
        option: name of the option.
        got: its value.
        known: the known values.

    Raises:
        RailkdError: the value is not known. The message lists the known ones.
    """
    if got not in known:
        raise RailkdError(f"unknown {option} '{got}'; known: {', '.join(known)}.{did_you_mean(str(got), known)}")


def order_statistics(m: int, candidates: int) -> list[list[Fraction]]:
    """Return the probability that the i-th of m sorted uniform draws is block t.

    ``P(r(i) = t) = C(t-1, i-1) C(N-t, m-i) / C(N, m)``: i - 1 of the draws lie below block t and m - i above it.

    Args:
        m: number of blocks to draw.
        candidates: N, the number of candidates.

    Returns:
        m rows of N exact fractions; the mean of row i is ``i (N+1) / (m+1)``.

    >>> [str(p) for p in order_statistics(2, 3)[0]]
    ['2/3', '1/3', '0']
    """
    n, total = candidates, math.comb(candidates, m)
    return [
        [Fraction(math.comb(t - 1, i - 1) * math.comb(n - t, m - i), total) for t in range(1, n + 1)]
        for i in range(1, m + 1)
    ]


def coverage(draws: Iterable[Draw], candidates: Sequence[int]) -> dict[int, list[int]]:
    """Count how often each candidate block taught the 1st, 2nd, ... matched student block.

    Args:
        draws: the draws of a run.
        candidates: the blocks to count.

    Returns:
        Teacher block -> m counts.

    >>> coverage([(1, 3), (2, 3)], [1, 2, 3])
    {1: [1, 0], 2: [1, 0], 3: [0, 2]}
    """
    draws = list(draws)
    m = max((len(d) for d in draws), default=0)
    return {t: [sum(len(d) > i and d[i] == t for d in draws) for i in range(m)] for t in candidates}


@functools.lru_cache(maxsize=64)  # every step of an epoch needs the same draw
def _shuffle(blocks: Draw, seed: int, *purpose: object) -> Draw:
    """Return a uniform permutation: the blocks sorted by a keyed hash.

    ``random.Random`` is no alternative, because ``shuffle`` and ``sample`` can change between versions of Python.
    """

    def key(block: int) -> bytes:
        return hashlib.blake2b(repr((seed, *purpose, block)).encode(), digest_size=16).digest()

    return tuple(sorted(blocks, key=key))


def _split(blocks: Draw, m: int) -> list[Draw]:
    """Split the blocks into m contiguous parts whose sizes differ by at most 1."""
    edges = [i * len(blocks) // m for i in range(m + 1)]
    return [blocks[a:b] for a, b in itertools.pairwise(edges)]


def _deal(m: int, blocks: Draw, seed: int, index: int) -> Draw:
    """Deal m blocks from a shuffled deck. Every ceil(N/m) draws the deck is shuffled again."""
    draws_per_cycle = math.ceil(len(blocks) / m)
    cycle, turn = divmod(index, draws_per_cycle)
    deck = _shuffle(blocks, seed, "cyclic", cycle)
    hand = deck[turn * m : (turn + 1) * m]
    return hand + deck[: m - len(hand)]  # fill the last hand from the top of the deck; it shares no block with the top


def _check_depths(s: int, n: int) -> None:
    if s < 1 or n < s:
        raise RailkdError(
            f"Expected 1 <= student blocks <= teacher blocks, got a student of {s} blocks and a teacher of {n}."
        )
