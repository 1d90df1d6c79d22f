"""Query the machine: device, bfloat16 support, memory, and the facts that a timing depends on."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import torch

from railkd.errors import RailkdError

_CHOSEN: ContextVar[str | None] = ContextVar("device that the user chose", default=None)


def device() -> torch.device:
    """Return the accelerator of this machine, or its CPU if there is none or if the user chose it."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device("cpu") if accelerator is None or _CHOSEN.get() == "cpu" else accelerator


@contextmanager
def chosen(name: str | None) -> Iterator[None]:
    """Let `device` return the device that the user chose inside the block.

    Args:
        name: ``cpu``, or the kind of this machine's accelerator; None: the accelerator, if there is one.

    Yields:
        Nothing.

    Raises:
        RailkdError: this machine, or this build of torch, has no such device.
    """
    own = dict.fromkeys(["cpu", device().type])
    if name is not None and name not in own:
        raise RailkdError(
            f"Expected --device {' or '.join(own)}, which this machine and its torch have, got {name}. Fix: give "
            "another device, or install torch for it."
        )
    token = _CHOSEN.set(name)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def can_pin() -> bool:
    """Return True if copies from pinned memory to the accelerator of this machine do not make the host wait."""
    return device().type in ("cuda", "xpu")


def to_device(values: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return values of main memory as a tensor on a device; the host does not wait for the copy.

    Args:
        values: of any shape; copied to pinned memory first if the device is a CUDA one.
        device: the one that reads them. A CPU gets the values themselves, not a copy.
    """
    tensor = torch.as_tensor(values)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class Sender:
    """Sends arrays of main memory to a device from any thread, beside what the device computes.

    Args:
        device: the one that reads them. Only a CUDA device has a stream for the copies; elsewhere they are made when
            the arrays are received.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def send(self, arrays: Sequence[np.ndarray | None]) -> Callable[[], list[torch.Tensor | None]]:
        """Start to copy arrays to the device.

        Args:
            arrays: of any shape. None stays None.

        Returns:
            A function that returns the tensors to the thread that computes. It makes the device wait for the copies,
            and not the host.
        """

        def copy() -> list[torch.Tensor | None]:
            return [None if array is None else to_device(array, self._device) for array in arrays]

        if self._stream is None:
            return copy
        with torch.cuda.stream(self._stream):
            sent = copy()
            copied = self._stream.record_event()

        def receive() -> list[torch.Tensor | None]:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_event(copied)
            for tensor in sent:
                if tensor is not None:
                    tensor.record_stream(computing)  # its memory is not used again before the computation has ended
            return sent

        return receive


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in main memory. A copy from a CUDA device may still run: call `copies_from` and then its result.

    Args:
        tensor: on any device.
    """
    if tensor.device.type != "cuda":
        return tensor.cpu()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def copies_from(device: torch.device) -> Callable[[], None]:
    """Return a function that waits until the copies from a device that were started so far are complete.

    Args:
        device: the one that was copied from.
    """
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event.synchronize


def free_memory(device: torch.device) -> int | None:
    """Return the free bytes of a device, or None if its memory is that of the host.

    Args:
        device: of any kind.
    """
    if device.type not in ("cuda", "xpu"):
        return None
    return int(torch.get_device_module(device).mem_get_info(device)[0])


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error says that memory ran out, on any device.

    Args:
        error: of torch or of Python.
    """
    from accelerate.utils.memory import should_reduce_batch_size

    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or (isinstance(error, Exception) and bool(should_reduce_batch_size(error)))


def fast_bf16() -> bool:
    """Return True if the hardware computes in bfloat16: a recent GPU, or a CPU with AVX512-BF16 or AMX.

    Other CPUs emulate bfloat16, which is slower than float32.

    Returns:
        True or False.
    """
    kind = device().type
    if kind == "cuda":  # older cards emulate it too
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":  # an Apple GPU is not faster in bfloat16
        return kind == "xpu" and bool(torch.xpu.is_bf16_supported())
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name)()) for name in probes if hasattr(torch.cpu, name))


def fast_fp16() -> bool:
    """Return True if the hardware is fast in float16 under autocast with a gradient scaler: a CUDA card."""
    return device().type == "cuda"


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Limit the threads of torch inside the block.

    Args:
        threads: of one operation on the CPU.

    Yields:
        Nothing.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> bool:
    """Make glibc keep large blocks of freed memory for reuse, instead of returning them to the system.

    The gradient of a word embedding (47 MB in MiniLM) is larger than glibc's threshold. So by default the system maps
    its memory again at every step and zeroes it page by page, which takes a sixth of a step on a CPU. The setting
    applies to the whole process and cannot be undone. It does not change the peak memory.

    Returns:
        True if the setting was made, which needs Linux with glibc.
    """
    threshold, trim, large = -3, -1, 1 << 30  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # Windows has no name for the process itself: TypeError
        return False
    return bool(mallopt(threshold, large)) and bool(mallopt(trim, large))


def machine() -> dict[str, Any]:
    """Return the facts of this machine that a timing depends on, without host name and paths.

    Returns:
        ``system``, ``processor``, ``cores``, ``threads``, ``gpu``, ``fast bf16`` and ``device``, where models run.
    """
    return {
        "system": platform.system(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpu": _gpu(),
        "fast bf16": fast_bf16(),
        "device": device().type,
    }


def reset_peak_memory() -> None:
    """Start a new measurement of `peak_memory`. On a CPU this works on Linux only; elsewhere it does nothing."""
    if can_pin():
        torch.get_device_module(device()).reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory() -> int:
    """Return the highest memory use of this process so far.

    Returns:
        Bytes allocated on the GPU, or resident in main memory if there is no GPU; 0 if the system does not report it.
        Of an Apple GPU: the bytes allocated now.
    """
    if can_pin():
        return int(torch.get_device_module(device()).max_memory_allocated())
    if device().type == "mps":
        return int(torch.mps.driver_allocated_memory())
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0


def _gpu() -> str:
    """Return the name of the accelerator, or "none"."""
    kind = device().type
    if kind == "cpu":
        return "none"
    return str(torch.get_device_module(device()).get_device_name(0)) if can_pin() else f"{kind} device"


def processor() -> str:
    """Return the model name of the processor, or its kind if the system does not tell the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
