"""Last block: first the state that the head reads, then the task.

Equation of the term: ``( (W hs_s - ht_n) / c )^2``, mean over batch and components, with the CLS states hs_s (B, d_s)
and ht_n (B, d_t) of the last blocks, and c the mean over components of the standard deviation of ht_n over the rows
of the teacher cache. W is a trained linear map where the widths differ, and the identity otherwise.

Stages: in the first half of the steps the loss is ``term + 0.1 KD``, then it is ``(CE + KD) / 2``.

Sources: SimKD, Chen et al. 2022 (CVPR, arXiv 2203.14001); TinyBERT's two stages, Jiao et al. 2020 (arXiv 1909.10351);
the layer reduction of sentence-transformers.

Differences: SimKD keeps the head of the teacher and trains no second stage; TinyBERT matches all blocks, attentions and
embeddings in its first stage. The states are CLS states, which most heads read: the first token of an encoder and the
last one of a causal model. A head that pools otherwise is taught through that token too.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from railkd.errors import RailkdError
from railkd.mapping import Draw
from railkd.objectives.base import Objective, Shape, states_of
from railkd.objectives.maps import Fitted, map_between
from railkd.signals import Moments, Signals

#: Factors on equal weights of [CE, KD, intermediate], so that the first stage is 0, 0.1, 1 and the second 1/2, 1/2, 0.
FIRST, SECOND = (0.0, 0.3, 3.0), (1.5, 1.5, 0.0)


class LastBlock(Objective):
    """``mean ((W hs_s - ht_n) / c)^2`` in the first stage, CE and KD in the second.

    In a loop of your own, `term_scales` returns the factors of a moment, and ``forward`` takes them as ``term_scales``.
    Without them all three terms count at all times.

    Args:
        student_shape: (blocks s, width d_s).
        teacher_shape: (blocks n, width d_t).
        first_stage: share of the training that is the first stage, from 0 to 1.
        options: see `Objective`.

    Raises:
        RailkdError: ``first_stage`` is not a share.

    Example: c = 2, student (1, 0), teacher (3, 4): ( (-2/2)^2 + (-4/2)^2 ) / 2 = 2.5.
    """

    paper = "cf. arXiv 2203.14001"
    reads = "the last of both, first"
    pooling = "cls"
    own_coordinates = True
    needs_fit = True
    staged = True

    def __init__(self, student_shape: Shape, teacher_shape: Shape, *, first_stage: float = 0.5, **options: Any) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        if not 0 <= first_stage <= 1:
            raise RailkdError(f"Expected a share of the training from 0 to 1, got first_stage {first_stage}.")
        self.first_stage = float(first_stage)
        self.student_map = map_between(self.student_shape.width, self.teacher_shape.width)
        self.spread = Fitted()  # c

    def fit(self, moments: Moments) -> None:
        """Keep c of the last block; see `Objective.fit`."""
        self.spread.set_(moments.covariance[-1].diagonal().clamp(min=0).sqrt().mean())

    def term_scales(self, progress: float) -> tuple[float, float, float]:
        """Return the factors of the stage; see `Objective.term_scales`."""
        return FIRST if progress < self.first_stage else SECOND

    def intermediate(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> Tensor:
        """Return the term, a scalar; see `Objective.intermediate`. ``draw`` is ignored."""
        h_s = self.student_map(self.student_states(student)[:, -1])  # (B, d_t)
        h_t = states_of(teacher, self.teacher_shape, "teacher")[:, -1]  # (B, d_t)
        return ((h_s - h_t.to(h_s)) / self.spread().to(h_s).clamp(min=1e-6)).square().mean()
