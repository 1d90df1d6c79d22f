"""Finds checkpoints by folder or hub name. Each part of a checkpoint is read once, when it is first used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from railkd.errors import RailkdError
from railkd.models import trust as trusting
from railkd.models.adapters import is_adapter, merge_adapter
from railkd.models.folders import check_folder, download_folder
from railkd.models.heads import fit_head, label_names, task_of_config
from railkd.models.loading import Loading, kept_dtype, on_device, options_of, quantisation
from railkd.models.quiet import quiet_transformers
from railkd.models.weights import KINDS, check_finite, check_report, digest_of, read_weights, weight_files

if TYPE_CHECKING:
    from railkd.signals import BlockShape
    from railkd.tasks import Task

#: The weights of the objective, which training writes beside those of the student.
OBJECTIVE_FILE = "objective.safetensors"


class Checkpoint:
    """A model folder, as `find` returns it. Its parts are read when they are first used, and kept.

    The user's permission to run Python code that the checkpoint brings belongs to this object. An object found anew,
    from the folder or the name, does not have it.

    Args:
        folder: holds config.json and weights.
        name: as the user gave it, for messages.
        trusted: Python code that the checkpoint brings may run.

    Attributes:
        loading: how `frozen` loads the model; see `loaded_as`.
    """

    def __init__(self, folder: Path, name: str, *, trusted: bool = False) -> None:
        self.folder, self.name, self.trusted = folder, name, trusted
        self.loading = Loading()
        self._sharing, self._shared = False, None

    def __str__(self) -> str:
        return self.name

    @classmethod
    def find(
        cls,
        name: str | Path | Checkpoint,
        revision: str | None = None,
        trust: bool = False,
        *,
        model: bool = True,
        download: Callable[..., str] | None = None,
    ) -> Checkpoint:
        """Find a local folder, or download a hub name into the hub's local store. Return a `Checkpoint` as it is.

        Args:
            name: folder written by ``save_pretrained``, or hub name such as ``org/name``. An adapter that peft wrote is
                merged into a copy of its model.
            revision: branch, tag or commit of a hub name.
            trust: run Python code that the checkpoint brings whenever it is loaded. A log line names its owner. If
                False, no Python file is downloaded.
            model: the folder must hold a config and weights. False if only its tokenizer is used.
            download: used instead of `huggingface_hub.snapshot_download`.

        Returns:
            The checkpoint.

        Raises:
            RailkdError: the folder does not exist or holds no model, or the hub cannot be reached.
        """
        if isinstance(name, Checkpoint):
            if name.trusted or not trust:
                return name
            name = name.folder
        text = str(name)
        if Path(name).exists():
            if revision is not None:
                raise RailkdError(f"got revision '{revision}' for the folder '{name}'; only a hub name has revisions")
            folder = Path(name)
        else:
            folder = download_folder(text, revision, trust, download)
        if model and folder.is_dir() and is_adapter(folder):
            folder = merge_adapter(folder, text, cls.find, trust)
        check_folder(folder, text, model=model)
        if trust:
            trusting.announce(folder, text)
        return cls(folder, text, trusted=trust)

    @property
    def weights(self) -> tuple[Path, ...]:
        """Files from which transformers reads the weights."""
        return weight_files(self.folder)

    @cached_property
    def digest(self) -> str:
        """Digest of the weight files and, if the checkpoint is trusted, of its code. The numbers depend on both."""
        return digest_of((*self.weights, *(sorted(self.folder.glob("*.py")) if self.trusted else ())))

    @cached_property
    def config(self) -> Any:
        """Config as it is stored. It is shared: change a copy of it (`new_config`).

        Raises:
            RailkdError: the config does not load.
        """
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(self.folder, trust_remote_code=self.trusted)
        except Exception as error:  # damage shows as one of many kinds of error, of two libraries
            raise RailkdError(f"cannot read the config of '{self}': {_reason(error)}") from error
        if getattr(config, "transformers_weights", None):
            raise RailkdError(
                f"the config of '{self}' names other weight files (transformers_weights). Fix: rename them to "
                f"{KINDS[0]} and remove the entry."
            )
        if not self.trusted:
            trusting.drop_kernels(config, self.name)
        return config

    def new_config(self, **changes: Any) -> Any:
        """Return a copy of the config with some entries changed.

        Args:
            changes: the entries, e.g. ``num_labels``.

        Returns:
            The copy.
        """
        config = copy.deepcopy(self.config)
        for name, value in changes.items():
            setattr(config, name, value)
        return config

    @cached_property
    def tokenizer(self) -> Any:
        """Tokenizer of the model. It pads on the right unless the model is made for padding on the left.

        Raises:
            RailkdError: the tokenizer does not load.
        """
        from transformers import AutoTokenizer

        from railkd.models.limits import left_padding_counts

        config = self.config if (self.folder / "config.json").is_file() else None
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, config=config, trust_remote_code=self.trusted)
        except (ValueError, OSError, TypeError, KeyError, ImportError, RecursionError) as error:
            raise RailkdError(f"'{self}' holds no tokenizer that loads: {_reason(error)}") from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token is None:
            raise RailkdError(
                f"the tokenizer of '{self}' has neither a pad_token nor an eos_token, so that texts of different "
                "length cannot share a batch. Fix: name a pad_token in its tokenizer_config.json."
            )
        if config is not None and left_padding_counts(config, tokenizer):
            tokenizer.padding_side = "right"
        return tokenizer

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the outputs."""
        return label_names(self.config)

    @property
    def task(self) -> Task:
        """Kind of task that the model is for."""
        return task_of_config(self.config)

    @property
    def shape(self) -> BlockShape:
        """Number of blocks and width of the model."""
        from railkd.signals import BlockShape

        return BlockShape(self.config.num_hidden_layers, self.config.hidden_size)

    def model(self, *, new_head: bool | None = None, **config: Any) -> Any:
        """Load a sequence classifier (or regressor) in single precision: small steps are lost in half precision.

        A head that is missing, or that does not fit the changes, is drawn from torch's global seed if training follows.
        If the classes only have another order, the rows of the head are reordered. A log line says which.

        Args:
            new_head: training follows, so that a head may be drawn anew. None: it does if ``config`` is given.
            config: changes such as ``num_labels``, ``id2label``, ``problem_type``.

        Returns:
            The model, in evaluation mode.

        Weights that do not load or do not fit the model raise `RailkdError`, and so does Python code that is not
        trusted.
        """
        return self._whole(self.new_config(**config), new_head=bool(config) if new_head is None else new_head)

    def _whole(self, config: Any, *, new_head: bool, **options: Any) -> Any:
        """Return the model after all checks of its weights."""
        model, report = self._load(config, **options)
        model = fit_head(model, report, self.name, self.config, new_head=new_head)
        check_finite(model.state_dict(), self.name)
        self.name_padding(model.config)
        return model

    def check_weights(self, *, new_head: bool = False) -> None:
        """Check the weights without a model in memory: see `model`, which checks the same.

        Args:
            new_head: training follows, so the head may be missing.
        """
        model, report = self._load(self.new_config(), device_map="meta")
        check_report(model, report, self.name, new_head=new_head)
        check_finite(read_weights(self.weights, self.name), self.name)

    def _load(self, config: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Return the model and transformers' report of its weights."""
        import torch

        read_weights(self.weights, self.name, sizes_only=True)
        try:
            with quiet_transformers():
                loaded: tuple[Any, dict[str, Any]] = (
                    task_of_config(config)
                    .auto_model()
                    .from_pretrained(
                        self.folder,
                        config=config,
                        # Never left open: transformers would ask at the terminal, and take "y" for a yes.
                        trust_remote_code=self.trusted,
                        ignore_mismatched_sizes=True,
                        output_loading_info=True,
                        **{"dtype": torch.float32, **options},
                    )
                )
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            raise RailkdError(f"cannot load a sequence classifier from '{self}': {_reason(error)}") from error
        return loaded

    def name_padding(self, config: Any) -> None:
        """Set the padding token of a config that has none, e.g. a decoder's: a classifier reads the token before it.

        Args:
            config: is changed.
        """
        if config.pad_token_id is None:
            config.pad_token_id = self.tokenizer.pad_token_id

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """Share one model between all calls of `frozen` inside of the ``with`` block, and release it at its end.

        Yields:
            Nothing.
        """
        self._sharing = True
        try:
            yield
        finally:
            self._sharing, self._shared = False, None

    def loaded_as(self, dtype: str = "auto", device_map: str | None = None) -> Checkpoint:
        """Return the checkpoint with another precision and other devices for `frozen`.

        Args:
            dtype: ``bfloat16``, ``float16``, ``float32``, or ``auto``: the precision of its weight files.
            device_map: ``auto`` spreads the model over the devices and the CPU (accelerate); None: one device.
        """
        found = copy.copy(self)
        found.loading, found._sharing, found._shared = Loading(dtype, device_map), False, None
        return found

    @cached_property
    def kept_dtype(self) -> str:
        """Precision of the weight files: ``bfloat16``, ``float16`` or ``float32``."""
        return kept_dtype(read_weights(self.weights, self.name, sizes_only=True))

    @property
    def dtype(self) -> str:
        """Precision in which `frozen` loads the model."""
        return self.kept_dtype if self.loading.dtype == "auto" else self.loading.dtype

    @property
    def precision(self) -> str:
        """Precision of the numbers of `frozen`, in words: ``float32``, ``bfloat16 weights``, ``gptq weights``."""
        kind = quantisation(self.config)
        return "float32" if kind is None and self.dtype == "float32" else f"{kind or self.dtype} weights"

    def frozen(self) -> Any:
        """Return the model as `loading` says, in evaluation mode. Do not change it: it may be shared.

        Returns:
            The model, on this machine's device unless it is spread over several.
        """
        from railkd.runtime import hardware

        if (model := self._shared) is None:
            config, device = self.new_config(), hardware.device()
            options = options_of(self.loading, self.dtype, config, device)
            model = on_device(self._whole(config, new_head=False, **options), device).eval()
        if self._sharing:
            self._shared = model
        return model


def load_classifier(source: str | Path | Checkpoint, **config: Any) -> Any:
    """Load a sequence classifier (or regressor); see `Checkpoint.model`.

    Args:
        source: folder, hub name or `Checkpoint`.
        config: changes such as ``num_labels``, ``id2label``, ``problem_type``.

    Returns:
        The model, in evaluation mode.
    """
    return Checkpoint.find(source).model(**config)


def load_tokenizer(source: str | Path | Checkpoint) -> Any:
    """Load a tokenizer; see `Checkpoint.tokenizer`.

    Args:
        source: folder (which needs no weights), hub name or `Checkpoint`.

    Returns:
        The tokenizer.
    """
    return Checkpoint.find(source, model=False).tokenizer


def _reason(error: Exception) -> str:
    """Return in one line why a checkpoint does not load."""
    if "trust_remote_code=True" in str(error):
        return trusting.REFUSED
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    return f"{first} {more[0].strip()}" if first.endswith(":") and more else first
