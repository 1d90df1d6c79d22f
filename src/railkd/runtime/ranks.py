"""Helpers for distributed runs (torchrun, accelerate launch): rank, world size, barrier, all-reduce.

Without a launcher there is one process, rank 0 of 1, and every function returns at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from railkd.errors import RailkdError
from railkd.runtime import hardware
from railkd.runtime.launcher import launched_processes


def initialize() -> None:
    """Join the process group if a launcher started several processes. `TrainingArguments` does this on its own."""
    if launched_processes() > 1 and not dist.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=hardware.device().type == "cpu")


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_main_process() -> bool:
    """Return True on rank 0, the only process that writes files and prints."""
    return rank() == 0


@contextmanager
def first_alone(enter: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Enter a context on rank 0 alone. If that fails, every rank raises.

    On rank 0 the error is that of the context, on the others a `RailkdError`.

    Args:
        enter: makes the context.

    Yields:
        Nothing.
    """
    with ExitStack() as stack:
        failed: Exception | None = None
        try:
            if is_main_process():
                stack.enter_context(enter())
        except Exception as error:
            failed = error
        if all_reduce_max(int(failed is not None)):
            raise failed or RailkdError("the first process could not start; it says why")
        yield


def barrier() -> None:
    """Wait until every process has reached this call."""
    if world_size() > 1:
        dist.barrier()


def all_reduce_max(number: int) -> int:
    """Return the largest of the numbers of all processes.

    Args:
        number: the number of this process.

    Returns:
        The largest number, the same on every process.
    """
    if world_size() == 1:
        return number
    return int(_all_reduce(torch.tensor(number), dist.ReduceOp.MAX))


def all_reduce_sum(parts: np.ndarray) -> np.ndarray:
    """Return the sum of an array over all processes.

    The sum assembles disjoint parts exactly if every process holds zeros outside its own part.

    Args:
        parts: the array of this process, of one shape on every process. The call may overwrite it.

    Returns:
        The sum, of the same shape, the same on every process.
    """
    if world_size() == 1:
        return parts
    return np.asarray(_all_reduce(torch.from_numpy(parts), dist.ReduceOp.SUM).cpu().numpy())


def _all_reduce(tensor: torch.Tensor, operation: Any) -> torch.Tensor:
    if dist.get_backend() in ("nccl", "xccl"):  # these reduce only tensors on the GPU
        tensor = tensor.to(torch.device(hardware.device().type, torch.accelerator.current_device_index()))
    dist.all_reduce(tensor, operation)
    return tensor
