"""Finds a finished model by name, in PyTorch or as an ONNX file, and computes its logits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from railkd.export.latency import Side
from railkd.export.layout import find_onnx, onnx_parts, onnx_size
from railkd.jobs.trained import trained_length
from railkd.models.checkpoints import Checkpoint
from railkd.models.inference import predict_logits
from railkd.models.loading import on_device
from railkd.runtime import hardware
from railkd.runtime.progress import Advance
from railkd.tasks import task_of
from railkd.teacher import TeacherInfo
from railkd.teacher.identity import content_of, digest_of, tokenizer_digest
from railkd.teacher.mean import match_labels, mean_of_outputs, shares_of


class Scorer:
    """A finished model. It is loaded at its first use.

    Args:
        checkpoint: the config and the tokenizer, and the weights of a model in PyTorch.
        onnx: the model as an ONNX file; None: it runs in PyTorch.
    """

    def __init__(self, checkpoint: Checkpoint, onnx: Any = None) -> None:
        self.checkpoint, self.onnx = checkpoint, onnx

    @classmethod
    def find(cls, name: str | Path, *, trust: bool = False) -> Scorer:
        """Find a model.

        Args:
            name: a checkpoint, by folder or hub name, or an ONNX file or folder (see `railkd.export.layout.find_onnx`).
            trust: run Python code that it brings.

        Returns:
            The model.
        """
        file = find_onnx(name)
        if file is None:
            return cls(Checkpoint.find(name, trust=trust))
        from railkd.export.session import OnnxModel

        found = OnnxModel(file, trust=trust)
        return cls(found.checkpoint, found)

    @cached_property
    def _model(self) -> Any:
        return on_device(self.checkpoint.frozen(), hardware.device())

    def load(self) -> Scorer:
        """Load the model now, with its tokenizer, so that damage is found before the rows are worked on."""
        _ = (self._model if self.onnx is None else self.onnx.inputs), self.checkpoint.tokenizer
        return self

    def logits(
        self, rows: Any, *, max_length: int, batch_size: int = 64, on_progress: Advance | None = None
    ) -> np.ndarray:
        """Compute the logits of a table of texts; see `railkd.models.inference.predict_logits`."""
        how: dict[str, Any] = {"max_length": max_length, "batch_size": batch_size, "on_progress": on_progress}
        if self.onnx is not None:
            found: np.ndarray = self.onnx.logits(rows, **how)
            return found
        return predict_logits(self._model, self.checkpoint.tokenizer, rows, **how)

    def is_the_model_of(self, other: Scorer) -> bool:
        """Return whether another name means the same model in the same form."""
        return (self.onnx is None) == (other.onnx is None) and self.content() == other.content()

    def side(self, name: str) -> Side:
        """Return the model to be timed, on the CPU.

        Args:
            name: in the table.
        """
        if self.onnx is not None:
            return Side.of_onnx(name, self.onnx.file)
        return Side.of_model(name, self._model.to("cpu"), self.checkpoint.tokenizer)

    def content(self) -> str:
        """Return a digest of the weights, config and tokenizer; for an ONNX model, of its files and tokenizer."""
        if self.onnx is not None:
            digest = xxhash.xxh3_128(tokenizer_digest(self.checkpoint.tokenizer).encode())
            for file in onnx_parts(self.onnx.file):
                with file.open("rb") as stream:
                    for piece in iter(lambda: stream.read(1 << 24), b""):
                        digest.update(piece)
            return digest.hexdigest()
        return content_of(self.checkpoint)

    def sizes(self) -> dict[str, int]:
        """Return the number of parameters of a model in PyTorch, or the bytes of an ONNX model."""
        if self.onnx is not None:
            return {"bytes": onnx_size(self.onnx.file)}
        return {"parameters": sum(parameter.numel() for parameter in self._model.parameters())}


class MeanScorer(Scorer):
    """The mean of the answers of several finished models, as several teachers teach together.

    Labels are matched by name, in the order of the first model. Models with other labels are refused.

    Args:
        names: of the models, as `Scorer.find` takes them.
        weights: one for each model; None: equal.
        max_length: of all models, in tokens; None: each has the one of its training.
        trust: run Python code that a model brings.

    Attributes:
        described: the models and their weights in one line.
    """

    def __init__(
        self, names: Sequence[str], weights: Sequence[float] | None, *, max_length: int | None, trust: bool = False
    ) -> None:
        self.models = [Scorer.find(name, trust=trust) for name in names]
        super().__init__(self.models[0].checkpoint)
        self._shares, self._max_length = shares_of(weights, len(names)), max_length
        checkpoints = [model.checkpoint for model in self.models]
        infos = [TeacherInfo(0, 0, one.labels, one.task.problem_type, 0) for one in checkpoints]
        self._order = match_labels(infos, names)
        parts = (f"{share:.3g} of {name}" for share, name in zip(self._shares, names, strict=True))
        self.described = f"mean of models: {', '.join(parts)}"

    def load(self) -> MeanScorer:
        """Load all models now; see `Scorer.load`."""
        for model in self.models:
            model.load()
        return self

    def logits(
        self, rows: Any, *, max_length: int, batch_size: int = 64, on_progress: Advance | None = None
    ) -> np.ndarray:
        """Compute the logits of the mean; see `railkd.teacher.mean`.

        Args:
            rows: B texts.
            max_length: not used, because each model has its own.
            batch_size: rows of a batch.
            on_progress: called with (rows done, rows to do) of each model in turn.

        Returns:
            (B, C).
        """
        outputs = []
        for model, order in zip(self.models, self._order, strict=True):
            length = trained_length(self._max_length, model.checkpoint.config, lambda line: None)
            found = model.logits(rows, max_length=length, batch_size=batch_size, on_progress=on_progress)
            outputs.append(found[:, order])
        weights = np.repeat(self._shares[:, None], len(rows), axis=1)  # (K, B)
        return mean_of_outputs(task_of(self.checkpoint.task.problem_type), outputs, weights)

    def content(self) -> str:
        """Return a digest of the contents of all models."""
        return digest_of([model.content() for model in self.models])

    def sizes(self) -> dict[str, int]:
        """Return the sums of the sizes of the models."""
        found: dict[str, int] = {}
        for model in self.models:
            for name, count in model.sizes().items():
                found[name] = found.get(name, 0) + count
        return found
