"""The modules inside an objective: fixed numbers, and linear maps, trained or set from the teacher's states.

Equation of one map: ``x W + b`` with x (B, d_in), W (d_in, d_out), b (d_out,). RAIL-KD, Haidar et al. 2022 (arXiv
2109.10164), trains its maps W^S and W^T. The frozen maps (whitened, centred, orthogonal) are additions of this library;
for whitened targets compare BERT-whitening (arXiv 2103.15316) and whitened feature distillation (arXiv 2205.14141).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from railkd.errors import RailkdError
from railkd.signals import Moments

#: More numbers than any model's states have. A larger shared space would only take memory.
LARGEST_SHARED_SIZE = 65_536


def check_shared_size(shared_size: int) -> None:
    """Refuse a shared space of no numbers, or of more than any use.

    Args:
        shared_size: u, the size of the shared space.

    Raises:
        RailkdError: it is not between 1 and 65,536.
    """
    if not 1 <= shared_size <= LARGEST_SHARED_SIZE:
        raise RailkdError(
            f"Expected 1 to {LARGEST_SHARED_SIZE:,} (default 128), got shared_size {shared_size}. Fix: choose a size "
            "no larger than the width of the models."
        )


class Constants(nn.Module):
    """Fixed numbers that move with the module that holds them: to a device once, and not at every step.

    A checkpoint does not store them. A change of precision starts from the exact numbers, and their precision is
    never below float32, because distances need it.

    Args:
        exact: numbers, or lists of them; the attribute ``values`` is the tensor of that shape.
    """

    def __init__(self, exact: Sequence[Any]) -> None:
        super().__init__()
        self.exact = exact
        self.values: Tensor
        self.register_buffer("values", torch.tensor(exact), persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Constants:
        super()._apply(fn, recurse)
        dtype = torch.promote_types(self.values.dtype, torch.float32) if self.values.is_floating_point() else None
        self.values = torch.tensor(self.exact, dtype=dtype, device=self.values.device)
        return self


class Fitted(nn.Module):
    """Numbers that are set once, from the teacher's states. A checkpoint stores them.

    Args:
        shape: of the numbers.
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.values: Tensor
        self.fitted: Tensor
        self.register_buffer("values", torch.zeros(shape))
        self.register_buffer("fitted", torch.tensor(False))
        self._known_fitted = False  # reading a buffer at every step would wait for the device

    def set_(self, values: Tensor) -> None:
        """Set the numbers."""
        self.values.copy_(values)
        self.fitted.fill_(True)
        self._known_fitted = True

    def forward(self) -> Tensor:
        """Return the numbers.

        Raises:
            RailkdError: they are not set yet.
        """
        if not self._known_fitted and not bool(self.fitted):
            raise RailkdError(
                "The objective is not fitted on the teacher's states yet. Fix: call "
                "objective.fit(cache.moments('mean')), with the pooling of the method, or train from a cache with "
                "DistillationTrainer."
            )
        self._known_fitted = True
        return self.values


class Linear(nn.Linear):
    """A linear map that computes in the precision of its input, whatever the precision of its weights."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., d_in) to (..., d_out)."""
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


def map_between(d_in: int, d_out: int) -> nn.Module:
    """Return a trainable linear map between two widths, or the identity if they are equal.

    Args:
        d_in: width of the input.
        d_out: width of the output.

    Returns:
        A module from (..., d_in) to (..., d_out).
    """
    return nn.Identity() if d_in == d_out else Linear(d_in, d_out)


class MapBank(nn.Module):
    """G linear maps of one shape in one tensor, selected by index: the projections W of RAIL-KD.

    One tensor instead of G modules makes the draw an index and not a branch of the code. So compiled training does not
    recompile, and maps that were not drawn have a gradient of zeros, as distributed training needs it.

    Args:
        maps: G, the number of maps.
        d_in: width of the input.
        d_out: width of the output. The maps are initialised like `torch.nn.Linear`.
    """

    def __init__(self, maps: int, d_in: int, d_out: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(d_in)
        self.weight = nn.Parameter(torch.empty(maps, d_in, d_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(maps, d_out).uniform_(-bound, bound))

    def forward(self, x: Tensor, index: Tensor | None) -> Tensor:
        """Apply one map to each of m states.

        Args:
            x: (B, m, d_in).
            index: (m,) of maps, counted from 0; None: all G = m maps, in order.

        Returns:
            (B, m, d_out).
        """
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if index is not None:
            weight, bias = weight.index_select(0, index), bias.index_select(0, index)
        # (m, B, d_in) @ (m, d_in, d_out), the product that einsum computes, with fewer copies.
        mapped = torch.baddbmm(bias.to(x.dtype).unsqueeze(1), x.transpose(0, 1), weight.to(x.dtype))
        return mapped.transpose(0, 1)

    def principal_(self, moments: Moments, *, whiten: bool) -> MapBank:
        """Set map g to the top d_out principal components of block g.

        Args:
            moments: mean (G, d_in) and covariance (G, d_in, d_in) of the states of each block.
            whiten: divide each component by its standard deviation.

        Returns:
            The bank.

        Raises:
            RailkdError: there are not more rows than components.
        """
        u = self.bias.shape[1]
        if moments.count <= u:
            raise RailkdError(
                f"Expected more rows than principal components, got {moments.count} rows to fit {u} components on. "
                "Fix: lower shared_size (--shared-size) or cache more rows."
            )
        with torch.no_grad():
            for block, (mean, covariance) in enumerate(zip(moments.mean, moments.covariance, strict=True)):
                values, vectors = torch.linalg.eigh(covariance)  # (d_in,) ascending, (d_in, d_in)
                values, vectors = values.flip(0)[:u], vectors.flip(1)[:, :u]
                # The sign of an eigenvector is arbitrary. Fix it, so the same cache gives the same targets on every
                # machine.
                largest = vectors.abs().argmax(dim=0)
                vectors = vectors * vectors[largest, torch.arange(u)].sign()
                if whiten:
                    # Components with almost no variance are noise, which the division would amplify.
                    vectors = vectors / values.clamp(min=float(values[0]) * 1e-6).sqrt()
                self.weight[block].copy_(vectors)
                self.bias[block].copy_(-(mean @ vectors))
        return self

    def orthogonal_(self, seed: int) -> MapBank:
        """Set every map to a random semi-orthogonal matrix and every bias to 0.

        Args:
            seed: determines the matrices.

        Returns:
            The bank.
        """
        if self.weight.is_meta:  # only the shapes are wanted
            return self
        maker = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.weight:
                random = torch.randn(max(weight.shape), min(weight.shape), generator=maker)
                q = torch.linalg.qr(random).Q
                weight.copy_(q if q.shape == weight.shape else q.T)
            self.bias.zero_()
        return self
