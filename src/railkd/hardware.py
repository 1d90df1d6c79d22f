"""What this machine can do."""

from __future__ import annotations

import torch


def device() -> torch.device:
    """The accelerator of this machine, or its CPU."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def fast_bf16() -> bool:
    """Whether bfloat16 arithmetic is done by the hardware here: a recent GPU, or a CPU with AVX512-BF16 or AMX.

    Without it a CPU emulates bfloat16, slower than float32.
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name)()) for name in probes if hasattr(torch.cpu, name))
