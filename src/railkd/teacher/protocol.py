"""What training asks of a teacher: who it is, and its signals for a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, Field
from torch import Tensor

from railkd.signals import BlockShape, Signals
from railkd.tasks import task_of

#: A number that a file holds.
Count = Annotated[int, Field(ge=0, lt=2**53)]


def _known(problem_type: str) -> str:
    return task_of(problem_type).problem_type


@dataclass(frozen=True)
class TeacherInfo:
    """Who a teacher is, as far as a student must know.

    Attributes:
        blocks, width: of its states. labels: class names in the order of its outputs. problem_type: what it predicts.
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
        """For JSON."""
        return asdict(self) | {"labels": list(self.labels)}


class Teacher(Protocol):
    """A live teacher or a cache."""

    info: TeacherInfo
    poolings: tuple[str, ...]

    def __call__(self, batch: Mapping[str, Tensor], pooling: str | None) -> Signals:
        """The signals of one batch, in its row order.

        Args:
            batch: holds ``example_key`` (B, 2); for a live teacher also its own tokens under ``teacher_``.
            pooling: which states; None: logits only.
        """
        ...
