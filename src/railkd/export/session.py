"""Runs an ONNX file by onnxruntime, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from railkd.errors import RailkdError
from railkd.export.layout import home_of, require_onnx
from railkd.models.checkpoints import Checkpoint
from railkd.models.inference import batched_logits
from railkd.runtime.progress import Advance


class OnnxModel:
    """An ONNX file with the config and the tokenizer of its folder.

    Args:
        file: the ONNX file.
        threads: that onnxruntime uses; None: as many as ``OMP_NUM_THREADS`` says, or all cores.
        trust: the tokenizer may bring Python code of its own.
    """

    def __init__(self, file: Path, *, threads: int | None = None, trust: bool = False) -> None:
        require_onnx()
        self.file, self.threads = file, threads
        #: The folder of the config and the tokenizer; its weights, if it has any, are not read.
        self.checkpoint = Checkpoint.find(home_of(file), trust=trust, model=False)

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        asked = os.environ.get("OMP_NUM_THREADS", "")
        options.intra_op_num_threads = self.threads or (int(asked) if asked.isdecimal() else 0)
        try:
            return onnxruntime.InferenceSession(self.file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class of its own for each kind of damage
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RailkdError(f"cannot load the ONNX file '{self.file}': {reason[:300]}") from error

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(value.name for value in self._session.get_inputs())

    def run(self, batch: Mapping[str, Any]) -> np.ndarray:
        """Return the logits of a padded batch.

        Args:
            batch: name -> (B, L) tokens, tensors or arrays.

        Returns:
            (B, C) float32.
        """
        feeds = {name: np.asarray(batch[name], dtype=np.int64) for name in self.inputs}
        found: np.ndarray = self._session.run(["logits"], feeds)[0]
        return found

    def logits(
        self, dataset: Any, *, max_length: int, batch_size: int = 64, on_progress: Advance | None = None
    ) -> np.ndarray:
        """Compute the logits of a table of texts; see `railkd.models.inference.predict_logits`."""
        return batched_logits(
            self.run,
            self.checkpoint.tokenizer,
            dataset,
            takes=self.inputs,
            config=self.checkpoint.config,
            max_length=max_length,
            batch_size=batch_size,
            on_progress=on_progress,
        )
