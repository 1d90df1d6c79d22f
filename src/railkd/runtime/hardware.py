"""What this machine can do."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import Any

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


def keep_freed_memory() -> bool:
    """Let glibc keep large blocks that were freed, for the next step, instead of giving them back to the system.

    The gradient of a word embedding (47 MB in MiniLM) is above glibc's threshold, so each step the system maps it anew
    and zeroes it page by page: a sixth of a CPU step. It holds for the whole process and cannot be undone; the most
    memory in use stays the same.

    Returns:
        Whether it was done: on Linux with glibc.
    """
    threshold, trim, large = -3, -1, 1 << 30  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(threshold, large)) and bool(mallopt(trim, large))


def machine() -> dict[str, Any]:
    """What a timing must be read beside: processor, cores, threads, accelerator. No host name, no paths."""
    return {
        "system": platform.system(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        "fast bf16": fast_bf16(),
    }


def forget_peak_memory() -> None:
    """Start `peak_memory` anew, where the system lets a process do so (Linux)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory() -> int:
    """The most bytes this process has had allocated on its GPU, or without one resident; 0: not known."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
