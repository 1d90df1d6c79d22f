"""Pure tensor functions: pooling, distances, and the losses on logits. They have no state and know no model.

Letters: B batch, L tokens, d hidden size, u width of a projection, K negatives, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from railkd.signals import checked_outputs, class_indices, shaped_like

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]

#: Class index of a row without a label. Real-valued labels (regression, multi-label) use NaN.
UNLABELLED = -100


def mean_weights(mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the weights that turn a sum over tokens into a mean over real tokens.

    Args:
        mask: (B, L), nonzero at real tokens.
        dtype: type of the weights.

    Returns:
        (B, L): 1 / (number of real tokens) at real tokens, 0 at padding.

    >>> mean_weights(torch.tensor([[1, 1, 0]]))
    tensor([[0.5000, 0.5000, 0.0000]])
    """
    real = mask.to(torch.bool).to(dtype)
    return real / real.sum(dim=1, keepdim=True).clamp(min=1)


def masked_mean(
    states: Tensor, mask: Tensor, weights: Tensor | None = None, tests: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Return the mean state of the real tokens: ``sum_k mask_k h_k / sum_k mask_k``.

    Source: RAIL-KD, Haidar et al. 2022 (arXiv 2109.10164), section 3. The paper writes the mean over all L positions.
    Here padding is left out, so a sentence gives the same numbers in a longer batch, up to rounding.

    Args:
        states: (B, L, d). Values at padding are ignored, even NaN.
        mask: (B, L), nonzero at real tokens.
        weights: `mean_weights` of the mask, to compute them once for many states. Default: computed here.
        tests: of the weights, likewise: (B, L, 1), True at padding, and (B, 1), the largest weight.

    Returns:
        (B, d), at least float32, because a sum over a long text overflows in half precision.

    >>> masked_mean(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[1, 1, 0]]))
    tensor([[2.]])
    """
    if weights is None or states.dtype is torch.float64:
        weights, tests = mean_weights(mask, torch.promote_types(states.dtype, torch.float32)), None
    if states.device.type == "cpu" and not torch.compiler.is_compiling():
        # One matrix product reads the states once, forward and backward, which is several times faster than fill and
        # sum. But 0 * NaN is NaN, so NaN at padding needs the fill. Autocast would compute it in half precision.
        with torch.autocast("cpu", enabled=False):
            full, rows = full_precision(states), weights.unsqueeze(1)  # (B, 1, L)
            mean = torch.bmm(rows, full).squeeze(1)
            if all_finite(mean):
                return mean
            return torch.bmm(rows, full.masked_fill((rows == 0).transpose(1, 2), 0)).squeeze(1)
    padding, share = tests or ((weights == 0).unsqueeze(2), weights.amax(dim=1, keepdim=True))
    return states.masked_fill(padding, 0).sum(dim=1, dtype=weights.dtype) * share


def token_at_edge(states: Tensor, mask: Tensor, *, last: bool = False) -> Tensor:
    """Return the state of the first or the last real token, for padding on either side.

    Args:
        states: (B, L, d).
        mask: (B, L), nonzero at real tokens.
        last: take the last real token, which a causal model uses in place of [CLS].

    Returns:
        (B, d).

    >>> h = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> token_at_edge(h, torch.tensor([[0, 1, 1]])), token_at_edge(h, torch.tensor([[1, 1, 0]]), last=True)
    (tensor([[2.]]), tensor([[2.]]))
    """
    real, length = mask.to(torch.bool), mask.shape[1]
    position = torch.arange(length, device=states.device)
    if last:
        index = torch.where(real, position, -1).amax(dim=1).clamp(min=0)
    else:
        index = torch.where(real, position, length).amin(dim=1).clamp(max=length - 1)
    return states[torch.arange(states.shape[0], device=states.device), index]


def full_precision(x: Tensor) -> Tensor:
    """Return half-precision tensors of any shape as float32, because they lose small differences; others unchanged."""
    return x.float() if x.dtype.itemsize < 4 else x


def all_finite(x: Tensor) -> bool:
    """Return True if no value is NaN or infinite.

    NaN or infinity makes the sum non-finite, so a finite sum proves that all values are finite, and a sum is fast.
    Otherwise each value is checked, because finite values can overflow the sum.

    Args:
        x: a tensor of any shape.

    Returns:
        True or False. On a GPU this waits for the device.
    """
    return math.isfinite(full_precision(x.detach()).sum()) or bool(x.isfinite().all())


def unit(x: Tensor) -> Tensor:
    """Return ``x / |x|`` over the last dimension of x, (..., u). The zero vector stays zero, with a finite gradient."""
    return F.normalize(x, dim=-1, eps=1e-6)


def normalized_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return ``| a/|a| - b/|b| |^2`` over the last dimension.

    Source: RAIL-KD, Haidar et al. 2022 (arXiv 2109.10164), the distance of both variants.

    Args:
        a: (..., u).
        b: (..., u), broadcastable to a.

    Returns:
        (...): 0 for parallel, 2 for orthogonal, 4 for opposite vectors.

    >>> normalized_distance(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 5.0]))
    tensor(2.)
    """
    return (unit(full_precision(a)) - unit(full_precision(b))).square().sum(dim=-1)


def info_nce(student: Tensor, teacher: Tensor, negatives: Tensor, tau: float, keep: Tensor | None = None) -> Tensor:
    """Return the contrastive loss ``-log e^(s.t/tau) / (e^(s.t/tau) + sum_k e^(s.n_k/tau))``, mean over the batch.

    Source: van den Oord et al. 2018 (arXiv 1807.03748), equation 4.

    Args:
        student: (B, u) unit vectors s.
        teacher: (B, u) unit vectors t of the same examples.
        negatives: (B, K, u) unit vectors n_k of other examples.
        tau: temperature, above 0.
        keep: (B, K) bool; False leaves a negative out.

    Returns:
        A scalar.

    >>> s = torch.tensor([[1.0, 0.0]])
    >>> info_nce(s, s, torch.tensor([[[0.0, 1.0]]]), tau=1.0)
    tensor(0.3133)
    """
    positive = (student * teacher).sum(dim=-1, keepdim=True) / tau  # (B, 1)
    other = torch.einsum("bu,bku->bk", student, negatives) / tau  # (B, K)
    if keep is not None:
        other = other.masked_fill(~keep.to(other.device), -torch.inf)
    return (torch.cat([positive, other], dim=-1).logsumexp(dim=-1) - positive.squeeze(-1)).mean()


def cross_entropy(logits: Tensor, labels: Tensor | None, class_weights: Tensor | None = None) -> Tensor:
    """Return the cross-entropy with the true classes, summed over the labelled rows and divided by B.

    Args:
        logits: (B, C).
        labels: (B,) class indices, `UNLABELLED` for a row without a label; None if no row has one.
        class_weights: (C,) factor of the rows of each class; None: 1.

    Returns:
        A scalar.
    """
    z = full_precision(checked_outputs(logits))
    if labels is None:
        return z.sum() * 0.0
    weight = None if class_weights is None else class_weights.to(z.dtype)
    total = F.cross_entropy(z, class_indices(z, labels), weight, ignore_index=UNLABELLED, reduction="sum")
    return total / z.shape[0]


def binary_cross_entropy(logits: Tensor, labels: Tensor | None, class_weights: Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy of each class, mean over classes, over the labelled rows and divided by B.

    Args:
        logits: (B, C).
        labels: (B, C) floats, NaN for a row without labels; None if no row has any.
        class_weights: (C,) factor of each class where it applies; None: 1.

    Returns:
        A scalar.
    """
    return _elementwise_loss(partial(F.binary_cross_entropy_with_logits, pos_weight=class_weights), logits, labels)


def squared_error(outputs: Tensor, labels: Tensor | None) -> Tensor:
    """Return the squared error, summed over the labelled rows and divided by B.

    Args:
        outputs: (B, 1).
        labels: (B,) or (B, 1) floats, NaN for a row without a label; None if no row has one.

    Returns:
        A scalar.
    """
    return _elementwise_loss(F.mse_loss, outputs, labels)


def _elementwise_loss(loss: Callable[..., Tensor], outputs: Tensor, labels: Tensor | None) -> Tensor:
    """Return an elementwise loss, mean over C, summed over the labelled rows and divided by B."""
    z = full_precision(checked_outputs(outputs))  # (B, C)
    if labels is None:
        return z.sum() * 0.0
    target = shaped_like(z, labels, "labels").to(z.dtype)
    labelled = ~torch.isnan(target)
    target = torch.where(labelled, target, 0)
    return (loss(z, target, reduction="none") * labelled).sum() / (z.shape[0] * z.shape[-1])


def kl_of_classes(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, row_weights: Tensor | None = None
) -> Tensor:
    """Return ``T^2 KL( softmax(z_t/T) || softmax(z_s/T) )``, summed over classes, mean over the batch.

    Source: Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), section 2. Their cross-entropy with soft targets has the
    same gradient but is not 0 at the optimum.

    Args:
        student_logits: (B, C) logits z_s.
        teacher_logits: (B, C) logits z_t, without gradient.
        temperature: T > 0.
        row_weights: (B,) factor of each row; None: 1.

    Returns:
        A scalar; 0 for equal logits.
    """
    z_s, z_t = _soften(student_logits, teacher_logits, temperature)
    log_p_t, log_p_s = _of_possible(F.log_softmax(z_t, dim=-1), F.log_softmax(z_s, dim=-1))
    if row_weights is not None:
        kl = F.kl_div(log_p_s, log_p_t, reduction="none", log_target=True).sum(dim=-1)  # (B,)
        return temperature**2 * (row_weights.to(kl.dtype) * kl).sum() / len(kl)
    return temperature**2 * F.kl_div(log_p_s, log_p_t, reduction="batchmean", log_target=True)


def kl_of_each_class(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return `kl_of_classes` of "this class or not" for each class, mean over classes and over the batch.

    Args:
        student_logits: (B, C), independent logits for multi-label classification.
        teacher_logits: (B, C), without gradient.
        temperature: T > 0.

    Returns:
        A scalar.
    """
    z_s, z_t = _soften(student_logits, teacher_logits, temperature)
    log_t, log_s = _of_possible(F.logsigmoid(z_t), F.logsigmoid(z_s))
    log_not_t, log_not_s = _of_possible(F.logsigmoid(-z_t), F.logsigmoid(-z_s))
    p = torch.sigmoid(z_t)  # (B, C)
    kl = p * (log_t - log_s) + (1 - p) * (log_not_t - log_not_s)
    return temperature**2 * kl.mean(dim=-1).mean()


def squared_difference(student_outputs: Tensor, teacher_outputs: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean squared difference of the outputs of two regression models.

    Args:
        student_outputs: (B, 1).
        teacher_outputs: (B, 1), without gradient.
        temperature: ignored; it has no meaning for regression.

    Returns:
        A scalar.
    """
    z_s = full_precision(student_outputs)
    return F.mse_loss(z_s, shaped_like(z_s, teacher_outputs.detach(), "teacher outputs").to(z_s))


def _soften(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Divide the logits of both models by the temperature, in full precision; the teacher's get no gradient."""
    z_s = full_precision(checked_outputs(student))
    z_t = shaped_like(z_s, teacher.detach(), "teacher logits").to(z_s)
    return z_s / temperature, z_t / temperature


def _of_possible(log_p_t: Tensor, log_p_s: Tensor) -> tuple[Tensor, Tensor]:
    """Return both with 0 where the teacher's probability is exactly 0: such a class adds 0, but 0 * (-inf) is NaN."""
    possible = log_p_t > -torch.inf
    return torch.where(possible, log_p_t, 0.0), torch.where(possible, log_p_s, 0.0)


#: Problem type -> (task loss, distillation loss). `railkd.tasks` holds the other differences between kinds of tasks.
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
    """Return the distillation loss on the outputs of a problem type.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), without gradient.
        temperature: T > 0.
        problem_type: selects `kl_of_classes`, `kl_of_each_class` or `squared_difference`.

    Returns:
        A scalar; 0 for equal outputs.
    """
    return _TERMS[problem_type][1](student_logits, teacher_logits, temperature)


def task_loss(
    logits: Tensor, labels: Tensor | None, problem_type: ProblemType = "single_label_classification"
) -> Tensor:
    """Return the loss against the true labels: summed over the labelled rows, divided by the batch size B.

    Rows without a label (index -100; NaN for real-valued labels) add nothing but count in B. So the mean over
    equal micro-batches is the loss of the whole batch.

    Args:
        logits: (B, C).
        labels: (B,) class indices; (B,) or (B, 1) floats for regression; (B, C) floats for multi-label; None if no row
            has a label.
        problem_type: selects `cross_entropy`, `binary_cross_entropy` (mean over classes) or `squared_error`.

    Returns:
        A scalar.

    >>> float(task_loss(torch.zeros(2, 2), torch.tensor([1, -100])))  # doctest: +ELLIPSIS
    0.3465...
    """
    return _TERMS[problem_type][0](logits, labels)
