"""Choose the blocks that a student copies from its source. Needs no torch.

Letters: n blocks of the source, s blocks of the student, k_1 < .. < k_s the copied blocks, counted from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from railkd.errors import RailkdError, did_you_mean

Keep = str | Sequence[int]


def _even(s: int, n: int) -> tuple[int, ...]:
    """Return the last block, the middle one of the first n/s blocks, and the others evenly between them."""
    if s == 1:
        return (n,)
    a = max(1, (n + s) // (2 * s))  # round(n / 2s), halves up
    # k_j = round(a + (j-1)(n-a) / (s-1)), halves down, in whole numbers
    return tuple(a - ((s - 1) - 2 * j * (n - a)) // (2 * (s - 1)) for j in range(s))


#: Name of a rule -> the blocks that it keeps, from s and n.
RULES: Mapping[str, Callable[[int, int], tuple[int, ...]]] = MappingProxyType(
    {
        "even": _even,
        "spaced": lambda s, n: tuple(round(j * n / s) for j in range(1, s + 1)),
        "first": lambda s, n: tuple(range(1, s + 1)),
        "last": lambda s, n: tuple(range(n - s + 1, n + 1)),
    }
)
#: The values of ``keep``, in words.
KEEP_WORDS = f"{', '.join(RULES)} or block numbers such as 1,3,6"


def blocks_to_keep(num_layers: int, depth: int, keep: Keep = "even") -> tuple[int, ...]:
    """Return the source blocks (1-based) that a student starts from.

    Which blocks are copied changes a student more than any intermediate loss does. This rule is not the match of a
    method: ``pkd-skip`` is taught by the blocks floor(i n / s), whatever the student starts from.

    Args:
        num_layers: blocks of the student, s.
        depth: blocks of the source, n.
        keep: ``even``: the last block, the middle one of the first n/s blocks, and the others evenly between;
            ``spaced``: blocks round(j n / s), the ``even`` of version 0.1.0; ``first``; ``last``; or the block numbers
            themselves.

    Returns:
        The s block numbers, rising.

    Raises:
        RailkdError: the student has more blocks than the source, or ``keep`` is unknown.

    >>> blocks_to_keep(3, 6), blocks_to_keep(6, 12), blocks_to_keep(1, 6)
    ((1, 3, 6), (1, 3, 5, 8, 10, 12), (6,))
    >>> blocks_to_keep(3, 6, "spaced"), blocks_to_keep(3, 6, "last"), blocks_to_keep(2, 6, [1, 6])
    ((2, 4, 6), (4, 5, 6), (1, 6))
    """
    if num_layers < 1:
        raise RailkdError(f"Expected a student of at least 1 block, got {num_layers}. Fix: give a larger number.")
    if num_layers > depth:
        raise RailkdError(
            f"Expected a student of at most {depth} blocks, as many as its source has, got {num_layers}. Fix: give a "
            "smaller number, or start from another checkpoint (--student)."
        )
    if isinstance(keep, str):
        if keep not in RULES:
            near = did_you_mean(keep, RULES)
            raise RailkdError(f"Expected keep to be {KEEP_WORDS}, got '{keep}'.{near} Fix: give one of these.")
        return RULES[keep](num_layers, depth)
    chosen = tuple(int(block) for block in keep)
    if (
        len(chosen) != num_layers
        or not all(1 <= block <= depth for block in chosen)
        or sorted(set(chosen)) != list(chosen)
    ):
        raise RailkdError(
            f"Expected {num_layers} rising numbers from 1 to {depth} of the blocks to keep, got {chosen}. Fix: give as "
            "many block numbers as the student has blocks."
        )
    return chosen
