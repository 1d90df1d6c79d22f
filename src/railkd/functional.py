"""Pure tensor functions: pooling, distances and the two losses on logits. No model, no module, no state.

Letters: B batch, L tokens, n blocks, d hidden size, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]

#: Marks a row without a label among class indices; among real-valued labels (regression, multi-label) NaN does.
UNLABELLED = -100


def mean_weights(mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B, L) mask to (B, L) weights: one over the number of real tokens at each of them, 0 at padding.

    >>> mean_weights(torch.tensor([[1, 1, 0]]))
    tensor([[0.5000, 0.5000, 0.0000]])
    """
    kept = mask.to(torch.bool).to(dtype)
    return kept / kept.sum(dim=1, keepdim=True).clamp(min=1)


def masked_mean(states: Tensor, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of the real tokens' states: ``sum_k mask_k h_k / sum_k mask_k``.

    Args:
        states: (B, L, d).
        mask: (B, L), nonzero at real tokens.
        weights: `mean_weights` of the mask, where many states are pooled by one mask.

    Returns:
        (B, d), in float32 at least: the sum of a long half-precision text overflows. Whatever stands at padded
        positions, NaN included, does not count.

    Source: RAIL-KD (arXiv 2109.10164) section 3, which writes the mean over all L; here padding is left out, so that
    the same sentence in a longer batch gives the same numbers, but for the last digits of a sum.

    >>> masked_mean(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[1, 1, 0]]))
    tensor([[2.]])
    """
    if weights is None or states.dtype is torch.float64:
        weights = mean_weights(mask, torch.promote_types(states.dtype, torch.float32))
    if states.device.type == "cpu" and not torch.compiler.is_compiling():
        # One product reads the states once, forward and backward, where a fill and a sum cost several times that. But
        # it lets NaN at padding through. Under autocast it would be taken in half precision.
        with torch.autocast("cpu", enabled=False):
            full, rows = full_precision(states), weights.unsqueeze(1)  # (B, 1, L)
            mean = torch.bmm(rows, full).squeeze(1)
            if all_finite(mean):
                return mean
            return torch.bmm(rows, full.masked_fill((rows == 0).transpose(1, 2), 0)).squeeze(1)
    total = states.masked_fill((weights == 0).unsqueeze(2), 0).sum(dim=1, dtype=weights.dtype)
    return total * weights.amax(dim=1, keepdim=True)


def token_at_edge(states: Tensor, mask: Tensor, *, last: bool = False) -> Tensor:
    """State of the first real token (or the last one), whichever side is padded.

    Args:
        states: (B, L, d).
        mask: (B, L), nonzero at real tokens.
        last: take the last real token: what a causal model has in place of [CLS].

    Returns:
        (B, d).

    >>> h = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> token_at_edge(h, torch.tensor([[0, 1, 1]])), token_at_edge(h, torch.tensor([[1, 1, 0]]), last=True)
    (tensor([[2.]]), tensor([[2.]]))
    """
    real = mask.to(torch.bool)
    length = real.shape[1]
    position = torch.arange(length, device=states.device)
    if last:
        index = torch.where(real, position, -1).amax(dim=1).clamp(min=0)
    else:
        index = torch.where(real, position, length).amin(dim=1).clamp(max=length - 1)
    return states[torch.arange(states.shape[0], device=states.device), index]


def full_precision(x: Tensor) -> Tensor:
    """Half-precision tensors as float32, others as they are: three digits are too few for small differences."""
    return x.float() if x.dtype.itemsize < 4 else x


def all_finite(x: Tensor) -> bool:
    """Whether no number is NaN or infinite. One such makes the sum such, and a sum is fast; it may overflow, though.

    >>> all_finite(torch.tensor([3e38, 3e38])), all_finite(torch.tensor([1.0, torch.nan]))
    (True, False)
    """
    return math.isfinite(full_precision(x.detach()).sum()) or bool(x.isfinite().all())


def unit(x: Tensor) -> Tensor:
    """``x / |x|`` over the last dimension; the zero vector stays zero and its gradient finite."""
    return F.normalize(x, dim=-1, eps=1e-6)


def normalized_distance(a: Tensor, b: Tensor) -> Tensor:
    """``| a/|a| - b/|b| |^2`` over the last dimension: 0 for parallel, 2 for orthogonal, 4 for opposite vectors.

    Args:
        a, b: (..., u), broadcastable.

    Returns:
        (...). Source: RAIL-KD, the distance of both its variants.

    >>> normalized_distance(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 5.0]))
    tensor(2.)
    """
    return (unit(full_precision(a)) - unit(full_precision(b))).square().sum(dim=-1)


def info_nce(student: Tensor, teacher: Tensor, negatives: Tensor, tau: float, keep: Tensor | None = None) -> Tensor:
    """``-log e^(s.t/tau) / (e^(s.t/tau) + sum_k e^(s.n_k/tau))``, mean over the batch.

    Args:
        student, teacher: (B, u) unit vectors, row by row of the same examples.
        negatives: (B, K, u) unit vectors of other examples.
        tau: temperature of the contrast. keep: (B, K) bool, False leaves a negative out.

    Source: van den Oord et al. 2018 (arXiv 1807.03748), equation 4.

    >>> s = torch.tensor([[1.0, 0.0]])
    >>> info_nce(s, s, torch.tensor([[[0.0, 1.0]]]), tau=1.0)
    tensor(0.3133)
    """
    positive = (student * teacher).sum(dim=-1, keepdim=True) / tau  # (B, 1)
    other = torch.einsum("bu,bku->bk", student, negatives) / tau  # (B, K)
    if keep is not None:
        other = other.masked_fill(~keep.to(other.device), -torch.inf)
    return (torch.cat([positive, other], dim=-1).logsumexp(dim=-1) - positive.squeeze(-1)).mean()


def cross_entropy(logits: Tensor, labels: Tensor | None) -> Tensor:
    """Return the cross-entropy with the true classes, summed over the labelled rows and divided by B.

    Args:
        logits: (B, C).
        labels: (B,) class indices, `UNLABELLED` where a row has none; None: no row has one.

    Returns:
        A scalar.
    """
    z = full_precision(logits)
    if labels is None:
        return z.sum() * 0.0
    return F.cross_entropy(z, labels.long(), ignore_index=UNLABELLED, reduction="sum") / z.shape[0]


def binary_cross_entropy(logits: Tensor, labels: Tensor | None) -> Tensor:
    """Return the binary cross-entropy of each class, mean over classes, over the labelled rows and divided by B.

    Args:
        logits: (B, C).
        labels: (B, C) floats, NaN where a row has none; None: no row has one.

    Returns:
        A scalar.
    """
    return _of_numbers(F.binary_cross_entropy_with_logits, logits, labels)


def squared_error(outputs: Tensor, labels: Tensor | None) -> Tensor:
    """Return the squared error, summed over the labelled rows and divided by B.

    Args:
        outputs: (B, 1).
        labels: (B,) or (B, 1) floats, NaN where a row has none; None: no row has one.

    Returns:
        A scalar.
    """
    return _of_numbers(F.mse_loss, outputs, labels)


def _of_numbers(loss: Callable[..., Tensor], outputs: Tensor, labels: Tensor | None) -> Tensor:
    z = full_precision(outputs)  # (B, C)
    if labels is None:
        return z.sum() * 0.0
    target = labels.to(z.dtype).reshape(z.shape)
    labelled = ~torch.isnan(target)
    target = torch.where(labelled, target, 0)
    return (loss(z, target, reduction="none") * labelled).sum() / (z.shape[0] * z.shape[-1])


def kl_of_classes(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return ``T^2 KL( softmax(z_t/T) || softmax(z_s/T) )``, summed over classes, mean over the batch.

    Args:
        student_logits, teacher_logits: (B, C).
        temperature: T > 0.

    Returns:
        A scalar.
    """
    z_s, z_t = _softened(student_logits, teacher_logits, temperature)
    log_p_s, log_p_t = F.log_softmax(z_s, dim=-1), F.log_softmax(z_t, dim=-1)
    return temperature**2 * F.kl_div(log_p_s, log_p_t, reduction="batchmean", log_target=True)


def kl_of_each_class(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the two-class form of `kl_of_classes` for each class by itself, mean over classes and over the batch.

    Args:
        student_logits, teacher_logits: (B, C).
        temperature: T > 0.

    Returns:
        A scalar.
    """
    z_s, z_t = _softened(student_logits, teacher_logits, temperature)
    p = torch.sigmoid(z_t)
    kl = p * (F.logsigmoid(z_t) - F.logsigmoid(z_s)) + (1 - p) * (F.logsigmoid(-z_t) - F.logsigmoid(-z_s))  # (B, C)
    return temperature**2 * kl.mean(dim=-1).mean()


def squared_difference(student_outputs: Tensor, teacher_outputs: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean squared difference of two models' numbers.

    Args:
        student_outputs, teacher_outputs: (B, 1).
        temperature: not read; numbers are not softened.

    Returns:
        A scalar.
    """
    z_s = full_precision(student_outputs)
    return F.mse_loss(z_s, teacher_outputs.detach().to(z_s))


def _softened(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    z_s = full_precision(student)
    z_t = teacher.detach().to(z_s)
    return z_s / temperature, z_t / temperature


#: problem type -> task term and logit term; `railkd.tasks` knows what else differs between kinds of tasks.
_TERMS: dict[str, tuple[Callable[[Tensor, Tensor | None], Tensor], Callable[[Tensor, Tensor, float], Tensor]]] = {
    "single_label_classification": (cross_entropy, kl_of_classes),
    "multi_label_classification": (binary_cross_entropy, kl_of_each_class),
    "regression": (squared_error, squared_difference),
}


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    problem_type: ProblemType = "single_label_classification",
) -> Tensor:
    """``T^2 KL( softmax(z_t/T) || softmax(z_s/T) )``, summed over classes, mean over the batch.

    Args:
        student_logits, teacher_logits: (B, C).
        temperature: T > 0.
        problem_type: regression takes the mean squared error of the outputs instead; multi-label the two-class form of
            each label, mean over labels.

    Returns:
        A scalar; 0 when both are equal. Source: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531), section 2; they minimise
        the cross-entropy with the soft targets, which has the same gradient but is not 0 at the optimum.

    >>> z = torch.tensor([[0.0, 1.0]])
    >>> kd_loss(z, z, temperature=2.0)
    tensor(0.)
    """
    return _TERMS[problem_type][1](student_logits, teacher_logits, temperature)


def task_loss(
    logits: Tensor, labels: Tensor | None, problem_type: ProblemType = "single_label_classification"
) -> Tensor:
    """The loss against the true labels: summed over the labelled rows, divided by the whole batch size.

    Unlabelled rows (index -100; NaN among real-valued labels) add nothing, yet count in the divisor, so that splitting
    a batch in micro-batches changes nothing.

    Args:
        logits: (B, C).
        labels: (B,) class indices; (B,) or (B, 1) floats for regression; (B, C) floats for multi-label; None: no row
            has one.

    Returns:
        A scalar: cross-entropy, mean squared error, or binary cross-entropy (mean over labels).

    >>> float(task_loss(torch.zeros(2, 2), torch.tensor([1, -100])))  # doctest: +ELLIPSIS
    0.3465...
    """
    return _TERMS[problem_type][0](logits, labels)
