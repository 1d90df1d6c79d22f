"""Explain in words that memory ran out in training, with the settings of the run that need less of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from railkd.errors import RunFailed
from railkd.runtime import hardware

_ASKED = re.compile(r"(?:tried to allocate|you tried to allocate)\s+([\d.,]+\s*\w+)", re.IGNORECASE)


@contextmanager
def explained(args: Any) -> Iterator[None]:
    """Raise `RunFailed`, with the memory that was asked for and the flags that help, if memory runs out.

    Args:
        args: `railkd.training.DistillationTrainingArguments` of the run.

    Yields:
        Nothing.
    """  # noqa: DOC501 - other errors pass
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not hardware.is_out_of_memory(error):
            raise
        found = _ASKED.search(str(error))
        asked = f", when {found[1]} were asked for" if found else ""
        raise RunFailed(
            f"Memory ran out in training on {args.device}{asked}. Fix, any of these: {'; '.join(_advice(args))}."
        ) from error


def _advice(args: Any) -> list[str]:
    """Return the flags that help, with the values of this run."""
    rows, parts, length = args.per_device_train_batch_size, args.gradient_accumulation_steps, args.max_length
    found = []
    if rows > 1:
        half = (rows + 1) // 2
        found.append(
            f"--batch-size {half} --gradient-accumulation-steps {-(-rows * parts // half)} (now {rows} and {parts}), "
            "which takes the same steps"
        )
    if not args.activation_checkpointing:
        found.append("--activation-checkpointing, which computes activations twice")
    if length > 32:
        found.append(f"--max-length {length // 2} (now {length})")
    if not (args.bf16 or args.fp16):
        found.append("--bf16")
    if args.states_on_device != "no" and args.device.type != "cpu":
        found.append(f"--states-on-device no (now {args.states_on_device})")
    if not args.freeze_embeddings and "embeddings" not in (args.freeze or ()):
        found.append("--freeze embeddings")
    return [*found, "a student of fewer blocks"]
