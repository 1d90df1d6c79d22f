"""What objectives hold beside their formula: fixed numbers, and the projections W of RAIL-KD in one tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from railkd.errors import RailkdError
from railkd.signals import Moments


class Constants(nn.Module):
    """Fixed numbers that move with the module they belong to: to a device once, not at every step.

    They are not stored in checkpoints. A change of precision starts from the exact numbers, and precisions under
    float32 are left out: distances are never taken in fewer digits.

    Args:
        exact: numbers, or lists of them.
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


class MapBank(nn.Module):
    """G linear maps of one shape in one tensor, picked by index: the projections W of RAIL-KD.

    One tensor instead of G modules: the draw then is an index and not a choice of code, so compiled training does not
    retrace, and maps that were not drawn still take part in the gradient (as zeros), which keeps ranks equal.

    Args:
        maps: G. d_in, d_out: sizes of each map. Initialised as `torch.nn.Linear` is.
    """

    def __init__(self, maps: int, d_in: int, d_out: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(d_in)
        self.weight = nn.Parameter(torch.empty(maps, d_in, d_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(maps, d_out).uniform_(-bound, bound))

    def forward(self, x: Tensor, index: Tensor | None) -> Tensor:
        """(B, m, d_in) through the maps ``index`` (m,) to (B, m, d_out); None: through all of them, in order."""
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if index is not None:
            weight, bias = weight.index_select(0, index), bias.index_select(0, index)
        # (m, B, d_in) @ (m, d_in, d_out): as einsum does it, without its detours
        mapped = torch.baddbmm(bias.to(x.dtype).unsqueeze(1), x.transpose(0, 1), weight.to(x.dtype))
        return mapped.transpose(0, 1)

    def principal_(self, moments: Moments, *, whiten: bool) -> MapBank:
        """Map g becomes the top principal components of block g, over their standard deviations if ``whiten``."""
        u = self.bias.shape[1]
        if moments.count <= u:
            raise RailkdError(
                f"got {moments.count} rows to fit {u} principal components on, wanted more rows than components; "
                "lower shared_size (--shared-size) or cache more rows"
            )
        with torch.no_grad():
            for block, (mean, covariance) in enumerate(zip(moments.mean, moments.covariance, strict=True)):
                values, vectors = torch.linalg.eigh(covariance)  # rising
                values, vectors = values.flip(0)[:u], vectors.flip(1)[:, :u]
                # The sign of an eigenvector is arbitrary; fix it, so that the same cache gives the same targets
                # anywhere.
                largest = vectors.abs().argmax(dim=0)
                vectors = vectors * vectors[largest, torch.arange(u)].sign()
                if whiten:
                    # Components the data hardly has are noise; dividing by their deviation would make it loud.
                    vectors = vectors / values.clamp(min=float(values[0]) * 1e-6).sqrt()
                self.weight[block].copy_(vectors)
                self.bias[block].copy_(-(mean @ vectors))
        return self

    def orthogonal_(self, seed: int) -> MapBank:
        """Make every map a semi-orthogonal one, drawn by ``seed``."""
        maker = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.weight:
                random = torch.randn(max(weight.shape), min(weight.shape), generator=maker)
                q = torch.linalg.qr(random).Q
                weight.copy_(q if q.shape == weight.shape else q.T)
            self.bias.zero_()
        return self
