"""Gauges that show whether an intermediate term still teaches: pure functions of states over a probe set.

RAIL-KD trains the projections of both models, and its loss only attracts. So the loss is also 0 if every state is
projected on the same vector. Such a collapse looks like success in the loss curve, so the value of the term alone
proves nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from railkd.functional import unit
from railkd.runtime.words import listed

#: A layer term has collapsed if the effective rank, or its share of its first value, lies below these.
RANK_FLOOR, TERM_FLOOR = 2.0, 0.02


def effective_rank(vectors: Tensor) -> float:
    """Return ``exp(entropy of the eigenvalues)`` of the second moment of the vectors, each scaled to length 1.

    Source: Roy and Vetterli 2007, "The effective rank". They take the singular values of a matrix; here it is the
    uncentred second moment, whose trace is 1 for unit vectors. So a cloud that shrank to a point has rank 1 and not the
    rank of its noise.

    Args:
        vectors: (B, u), of any length.

    Returns:
        1 if all vectors have one direction, up to u if they spread evenly.

    >>> round(effective_rank(torch.eye(4)), 3), round(effective_rank(torch.ones(4, 3)), 3)
    (4.0, 1.0)
    """
    x = unit(_exact(vectors))
    shares = torch.linalg.eigvalsh(x.T @ x / len(x)).clamp(min=0)
    shares = shares / shares.sum().clamp(min=1e-12)
    return float(torch.exp(-(shares * shares.clamp(min=1e-300).log()).sum()))


def component_variance(vectors: Tensor) -> float:
    """Return the sum over components of the variance of the vectors, each scaled to length 1.

    Args:
        vectors: (B, u), of any length.

    Returns:
        0 if all vectors have one direction, 1 if they spread evenly.

    >>> component_variance(torch.ones(4, 3))
    0.0
    """
    x = unit(_exact(vectors))
    return float(x.var(dim=0, correction=0).sum())


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Return the linear centred kernel alignment (CKA) of two sets of states of the same rows.

    Source: Kornblith et al. 2019 (arXiv 1905.00414), equation 3 with linear kernels.

    Args:
        x: (B, d_s).
        y: (B, d_t).

    Returns:
        A number in [0, 1]; 1 if one is a rotation of the other, scaled and shifted.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> round(linear_cka(x, 3 * x + 1), 6)
    1.0
    """
    return _alignment(_gram(x), _gram(y))


def _exact(x: Tensor) -> Tensor:
    """Return values in main memory and double precision, which Apple GPUs lack, as they lack eigenvalues."""
    return x.cpu().double()


def _gram(x: Tensor) -> Tensor:
    """Return the inner products (B, B) of the centred rows of x (B, d); a probe has fewer rows than components."""
    x = _exact(x) - _exact(x).mean(dim=0)
    return x @ x.T


def _alignment(k: Tensor, g: Tensor) -> float:
    """Return the cosine of two matrices of inner products, (B, B) each."""
    return float((k * g).sum() / (k.norm() * g.norm()).clamp(min=1e-12))


def similarity(student: Tensor, teacher: Tensor) -> list[list[float]]:
    """Return the linear CKA of every student block with every teacher block.

    Args:
        student: (B, s, d_s).
        teacher: (B, n, d_t).

    Returns:
        s rows of n numbers in [0, 1].
    """
    ours, theirs = ([_gram(block) for block in states.unbind(1)] for states in (student, teacher))
    return [[round(_alignment(k, g), 4) for g in theirs] for k in ours]


def collapse_warning(rank: float, term: float, first_term: float, *, first_rank: float = float("inf")) -> str | None:
    """Return a warning if the intermediate term has collapsed.

    Args:
        rank: effective rank of the projections now, of the model where it is higher.
        term: value of the intermediate term now.
        first_term: value of the intermediate term at the start.
        first_rank: the rank at the start. Some encoders have states in a narrow cone and start below the floor without
            a collapse. For them the floor is half of the rank above 1 that they started with.

    Returns:
        The warning, or None.

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
        f"the intermediate term has collapsed: {listed(why)}. Both maps send nearly all rows to the same vector, so "
        "the term no longer teaches. Fix: use frozen targets (--method rail-kd-w, or --teacher-map orthogonal)"
    )
