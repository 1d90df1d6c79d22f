"""Part "copies": copies and CUDA calls of quiet steps, by the profiler. The last part: a profiler can crash."""

from __future__ import annotations

from waits import measure_copies as measure

__all__ = ["measure"]
