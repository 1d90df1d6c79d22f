"""The protocol of a teacher: its properties, and its signals for a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, Field
from torch import Tensor

from railkd.signals import BlockShape, Signals
from railkd.tasks import task_of

#: A number of things in a file: a whole number that JSON can hold.
Count = Annotated[int, Field(ge=0, lt=2**53)]


def _known(problem_type: str) -> str:
    return task_of(problem_type).problem_type


@dataclass(frozen=True)
class TeacherInfo:
    """The properties of a teacher that a student needs.

    Attributes:
        blocks: how many it has.
        width: of the states of a block.
        labels: class names in the order of its outputs.
        problem_type: what it predicts.
        max_length: of its inputs, in its own tokens.
    """

    blocks: Count
    width: Count
    labels: tuple[str, ...]
    problem_type: Annotated[str, AfterValidator(_known)]
    max_length: Count

    @property
    def shape(self) -> BlockShape:
        """(blocks, width)."""
        return BlockShape(self.blocks, self.width)

    def as_dict(self) -> dict[str, Any]:
        """Return the properties as JSON holds them."""
        return asdict(self) | {"labels": list(self.labels)}


class Teacher(Protocol):
    """A live teacher or a cache."""

    info: TeacherInfo
    poolings: tuple[str, ...]

    def __call__(self, batch: Mapping[str, Tensor], pooling: str | None) -> Signals:
        """Return the signals of one batch, in the order of its rows.

        Args:
            batch: holds ``example_key`` (B, 2); for a live teacher also its own tokens (B, L) under ``teacher_``.
            pooling: which states; None: logits only.

        Returns:
            Logits (B, C), and states (B, n, d) if a pooling is given.
        """
        ...
