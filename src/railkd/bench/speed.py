"""Measures how fast this machine runs and trains a model: each model once, at two lengths of text."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from railkd.models.checkpoints import Checkpoint
from railkd.models.heads import task_of_config
from railkd.models.limits import position_limit
from railkd.models.quiet import quiet_transformers
from railkd.runtime import hardware

#: Tokens of the two texts; rows of a batch on a CPU, where the time of a row hardly depends on it.
_SHORT, _LONG, _ROWS = 16, 64, 8
#: A step that takes longer than this is not repeated.
_LONG_STEP = 2.0


@dataclass(frozen=True)
class Speed:
    """Seconds for one row, as a line through two measurements.

    Attributes:
        forward: (seconds of a row without tokens, seconds of a token) of a forward pass.
        training: the same of a training step.
    """

    forward: tuple[float, float]
    training: tuple[float, float]

    def seconds(self, kind: str, tokens: float) -> float:
        """Return the seconds of one row.

        Args:
            kind: "forward" or "training".
            tokens: mean length of the rows.
        """
        base, slope = self.forward if kind == "forward" else self.training
        return base + slope * tokens


def measure_speeds(
    models: Iterable[tuple[Checkpoint, int | None, int]], advance: Callable[[int, int], None]
) -> dict[tuple[str, int | None], Speed]:
    """Measure models with random weights.

    Args:
        models: (checkpoint, number of blocks or None for its own, rows of a training batch), each model once.
        advance: called with (models measured, models in all).

    Returns:
        (name of the checkpoint, number of blocks) -> its speed.
    """
    wanted = list(models)
    found = {}
    for place, (checkpoint, layers, rows) in enumerate(wanted):
        found[checkpoint.name, layers] = _measure(checkpoint, layers, rows)
        advance(place + 1, len(wanted))
    return found


def _measure(checkpoint: Checkpoint, layers: int | None, batch: int) -> Speed:
    config = checkpoint.new_config(**({"num_hidden_layers": layers} if layers else {}))
    with quiet_transformers():
        network = task_of_config(config).auto_model().from_config(config, trust_remote_code=checkpoint.trusted)
    network.to(hardware.device()).train()
    rows = batch if hardware.device().type != "cpu" else min(batch, _ROWS)
    longest = min(_LONG, position_limit(config) or _LONG)
    shortest = max(1, min(_SHORT, longest // 2))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0)
    seconds = [_time_steps(network, optimizer, rows, length) for length in (shortest, longest)]
    lines = [_line_through(shortest, low, longest, high) for low, high in zip(*seconds, strict=True)]
    return Speed(*lines)


def _line_through(x: int, low: float, further: int, high: float) -> tuple[float, float]:
    """Return (value at 0, slope) of a line through two points; it never falls, and is never below 0."""
    slope = max(0.0, (high - low) / (further - x))
    return max(0.0, low - slope * x), slope


def _time_steps(network: Any, optimizer: Any, rows: int, length: int) -> tuple[float, float]:
    """Return the seconds for one row: of a forward pass, and of a training step."""
    inputs = torch.full((rows, length), 5, device=hardware.device())
    mask = torch.ones_like(inputs)

    def forward() -> Any:
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=hardware.fast_bf16()):
            return network(input_ids=inputs, attention_mask=mask).logits

    def infer() -> None:
        with torch.no_grad():
            forward()

    def train() -> None:
        forward().float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return _seconds(infer) / rows, _seconds(train) / rows


def _seconds(step: Callable[[], None], times: int = 3) -> float:
    """Return the shortest of a few runs, after one run to warm up. A long first run is not repeated."""
    best = math.inf
    for number in range(times + 1):
        start = time.perf_counter()
        step()
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        taken = time.perf_counter() - start
        if not number and taken > _LONG_STEP:
            return taken
        best = min(best, taken) if number else best
    return best
