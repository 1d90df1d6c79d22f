"""Gauges that say whether an intermediate term still teaches: pure functions of states over a probe set.

Both maps of RAIL-KD trainable and a purely attractive loss admit a solution of zero loss that carries nothing: every
projected vector the same. A collapsed term looks like success in the loss curve, so its value alone cannot be trusted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from railkd.functional import unit
from railkd.runtime.words import listed

#: Under this effective rank, or this share of its first value, a layer term is called collapsed.
RANK_FLOOR, TERM_FLOOR = 2.0, 0.02


def effective_rank(vectors: Tensor) -> float:
    """``exp(entropy of the eigenvalues)`` of the second moment of unit vectors: 1 when all are one vector, u when they
    spread evenly.

    Args:
        vectors: (B, u), of any length.

    Source: Roy and Vetterli 2007, "The effective rank"; here of the uncentred second moment, whose trace is 1 for unit
    vectors, so that a cloud that shrank to a point reads 1 and not the rank of its noise.

    >>> round(effective_rank(torch.eye(4)), 3), round(effective_rank(torch.ones(4, 3)), 3)
    (4.0, 1.0)
    """
    x = unit(vectors.double())
    shares = torch.linalg.eigvalsh(x.T @ x / len(x)).clamp(min=0)
    shares = shares / shares.sum().clamp(min=1e-12)
    return float(torch.exp(-(shares * shares.clamp(min=1e-300).log()).sum()))


def component_variance(vectors: Tensor) -> float:
    """Mean variance of the components of unit vectors (B, u), times u: 0 when all are one vector, 1 when they spread
    evenly.

    >>> component_variance(torch.ones(4, 3))
    0.0
    """
    x = unit(vectors.double())
    return float(x.var(dim=0, correction=0).sum())


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of two sets of states of the same rows, in [0, 1].

    Args:
        x: (B, d_s). y: (B, d_t).

    Source: Kornblith et al. 2019 (arXiv 1905.00414), equation 3 with linear kernels.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> round(linear_cka(x, 3 * x + 1), 6)
    1.0
    """
    return _alignment(_gram(x), _gram(y))


def _gram(x: Tensor) -> Tensor:
    """(B, B) inner products of centred rows: rows are fewer than components."""
    x = x.double() - x.double().mean(dim=0)
    return x @ x.T


def _alignment(k: Tensor, g: Tensor) -> float:
    return float((k * g).sum() / (k.norm() * g.norm()).clamp(min=1e-12))


def similarity(student: Tensor, teacher: Tensor) -> list[list[float]]:
    """Linear CKA of student blocks (rows) with teacher blocks (columns): (B, s, d_s), (B, n, d_t) -> s x n."""
    ours, theirs = ([_gram(block) for block in states.unbind(1)] for states in (student, teacher))
    return [[round(_alignment(k, g), 4) for g in theirs] for k in ours]


def collapse_warning(rank: float, term: float, first_term: float, *, first_rank: float = float("inf")) -> str | None:
    """Words for a collapsed intermediate term, or None.

    Args:
        rank: effective rank of the projections now, of the side that has more. term, first_term: value of the
            intermediate term now and at the start.
        first_rank: the rank at the start. Some encoders have states in a narrow cone and start under the floor without
            having collapsed; they are warned of when half of what they had above 1 is gone.

    >>> collapse_warning(1.9, 1.0, 2.0, first_rank=1.95) is None
    True
    >>> collapse_warning(1.9, 1.0, 2.0, first_rank=9.0) is None
    False
    """
    floor = RANK_FLOOR if first_rank >= RANK_FLOOR else 1 + (first_rank - 1) / 2
    why = []
    if rank < floor:
        why.append(f"the projected states have an effective rank of {rank:.2f} (under {floor:.3g})")
    if first_term > 0 and term < TERM_FLOOR * first_term:
        why.append(f"the term is {100 * term / first_term:.1f} % of its start (under {100 * TERM_FLOOR:g} %)")
    if not why:
        return None
    return (
        f"the intermediate term has collapsed: {listed(why)}. Student and teacher maps agree on next to nothing, "
        "so it "
        "teaches no more; try frozen targets (--method rail-kd-w, or --teacher-map orthogonal)"
    )
