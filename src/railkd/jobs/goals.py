"""Reads the goal that thresholds are chosen for (``--goal``). Light: the early checks read it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from railkd.errors import RailkdError

BEST_F1 = "best-f1"
_LEAST = re.compile(r"(precision|recall)>?=(\d*\.?\d+)")


@dataclass(frozen=True)
class Goal:
    """The goal that the threshold of a class is chosen for.

    Attributes:
        text: as it is written down.
        least: "precision" or "recall" -> the least value; empty: the highest F1.
    """

    text: str
    least: dict[str, float]

    @classmethod
    def parse(cls, text: str) -> Goal:
        """Read a goal.

        Args:
            text: best-f1, precision>=P or recall>=R. A shell needs quotes around ``>``, so ``=`` alone means the same.

        Returns:
            The goal.

        Raises:
            RailkdError: it is something else, or a number that is no share.

        >>> Goal.parse("precision=0.9").text
        'precision>=0.9'
        """
        if text == BEST_F1:
            return cls(text, {})
        found = _LEAST.fullmatch(text.replace(" ", ""))
        if found is None or not 0 < float(found[2]) <= 1:
            raise RailkdError(
                f"--goal: expected {BEST_F1}, precision>=P or recall>=R with a share such as 0.9, got '{text}'. Fix: "
                'write it in quotes, as --goal "precision>=0.9", because a shell reads > as the name of a file.'
            )
        return cls(f"{found[1]}>={found[2]}", {found[1]: float(found[2])})
