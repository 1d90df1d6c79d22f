"""Several processes that do one job (torchrun, accelerate launch): who am I, wait for all, agree. Alone: rank 0."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
import torch.distributed as dist


def start() -> None:
    """Meet the other ranks, where a launcher started several; training arguments do it themselves."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=not torch.accelerator.is_available())


def world() -> int:
    """How many."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them."""
    return dist.get_rank() if world() > 1 else 0


def first() -> bool:
    """Whether this process writes and speaks for all."""
    return rank() == 0


def wait() -> None:
    """Until all are here."""
    if world() > 1:
        dist.barrier()


def largest(number: int) -> int:
    """Of the numbers of all ranks; the same answer on all."""
    if world() == 1:
        return number
    return int(_reduced(torch.tensor(number), dist.ReduceOp.MAX))


def added(parts: np.ndarray) -> np.ndarray:
    """The sum of an array of this shape over the ranks; where others hold zeros, it is exact."""
    if world() == 1:
        return parts
    return np.asarray(_reduced(torch.from_numpy(parts), dist.ReduceOp.SUM).cpu().numpy())


def _reduced(tensor: torch.Tensor, how: Any) -> torch.Tensor:
    if dist.get_backend() == "nccl":  # it knows tensors of its own device only
        tensor = tensor.to(torch.device("cuda", torch.cuda.current_device()))
    dist.all_reduce(tensor, how)
    return tensor
