"""Finds checkpoints by folder or hub name. Each part of a checkpoint is read once, when it is first used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from railkd.errors import RailkdError
from railkd.models import trust as trusting
from railkd.models.heads import label_names, task_of_config

if TYPE_CHECKING:
    from railkd.signals import BlockShape
    from railkd.tasks import Task

#: The weights of the objective, which training writes beside those of the student.
OBJECTIVE_FILE = "objective.safetensors"
WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin")
_SIDE_FILES = ("*.json", "*.txt", "*.model", "merges.txt")


class Checkpoint:
    """A model folder, as `find` returns it. Its parts are read when they are first used, and kept.

    The user's permission to run Python code that the checkpoint brings belongs to this object. An object found anew,
    from the folder or the name, does not have it.

    Args:
        folder: holds config.json and weights.
        name: as the user gave it, for messages.
        trusted: Python code that the checkpoint brings may run.
    """

    def __init__(self, folder: Path, name: str, *, trusted: bool = False) -> None:
        self.folder, self.name, self.trusted = folder, name, trusted
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
            name: folder written by ``save_pretrained``, or hub name such as ``org/name``.
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
            folder = _downloaded(text, revision, trust, download)
        _check_folder(folder, text, model=model)
        if trust:
            trusting.announce(folder, text)
        return cls(folder, text, trusted=trust)

    @property
    def weights(self) -> tuple[Path, ...]:
        """Weight files of the model, without those of the objective, which may lie beside them."""
        return _weight_files(self.folder)

    @cached_property
    def digest(self) -> str:
        """Digest of the weight files and, if the checkpoint is trusted, of its code. The numbers depend on both.

        It is a fast digest of 128 bits. It protects against mistakes, not against forgery.
        """
        digest = xxhash.xxh3_128()
        for path in (*self.weights, *(sorted(self.folder.glob("*.py")) if self.trusted else ())):
            digest.update(path.name.encode())
            with path.open("rb") as file:
                while chunk := file.read(1 << 22):
                    digest.update(chunk)
        return digest.hexdigest()

    @cached_property
    def config(self) -> Any:
        """Config as it is stored. It is shared: change a copy of it (`new_config`).

        Raises:
            RailkdError: the config does not load.
        """
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(self.folder, trust_remote_code=self.trusted)
        except (ValueError, OSError, ImportError) as error:
            raise RailkdError(f"cannot read the config of '{self}': {_reason(error)}") from error

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
        except (ValueError, OSError, TypeError, KeyError, ImportError) as error:
            raise RailkdError(f"'{self}' holds no tokenizer that loads: {_reason(error)}") from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
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

    def model(self, **config: Any) -> Any:
        """Load a sequence classifier (or regressor) in single precision: small steps are lost in half precision.

        A checkpoint without a head gets a new one, drawn from torch's global seed; so does one whose head does not fit
        the changes.

        Args:
            config: changes such as ``num_labels``, ``id2label``, ``problem_type``.

        Returns:
            The model, in evaluation mode.

        Raises:
            RailkdError: the weights do not load, or the model needs Python code of its own and is not trusted.
        """
        import torch

        wanted = self.new_config(**config)
        auto = task_of_config(wanted).auto_model()
        try:
            with quiet_transformers():
                model = auto.from_pretrained(
                    self.folder,
                    config=wanted,
                    dtype=torch.float32,
                    # Never left open: transformers would ask at the terminal, and take "y" for a yes.
                    trust_remote_code=self.trusted,
                    ignore_mismatched_sizes=bool(config),
                )
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            raise RailkdError(f"cannot load a sequence classifier from '{self}': {_reason(error)}") from error
        self.name_padding(model.config)
        return model

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

    def frozen(self) -> Any:
        """Return the model on this machine's device, in evaluation mode. Do not change it: it may be shared.

        Returns:
            The model.
        """
        from railkd.runtime import hardware

        model = self.model().to(hardware.device()).eval() if self._shared is None else self._shared
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


def empty_classifier(config: Any, *, trusted: bool = False) -> Any:
    """Build a sequence classifier on the meta device: it has sizes, and no memory is allocated.

    Args:
        config: of the model.
        trusted: Python code that the checkpoint of the config brings may run.

    Returns:
        The model.
    """
    import torch

    with torch.device("meta"), quiet_transformers():
        return task_of_config(config).auto_model().from_config(config, trust_remote_code=trusted)


class quiet_transformers:
    """Keep transformers' loading report and progress bars away from the user's screen."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._level, self._bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self._level)
        if self._bars:
            logging.enable_progress_bar()


def _check_folder(path: Path, name: str, *, model: bool) -> None:
    """Raise if this is not a folder or, where a model is wanted, if it holds no config or no weights."""
    if not path.is_dir():
        raise RailkdError(
            f"Expected a model folder, got the file '{name}'. Fix: give a folder written by save_pretrained, or a hub "
            "name."
        )
    if not model:
        return
    if not (path / "config.json").is_file():
        raise RailkdError(
            f"'{name}' holds no model: it has no config.json. Fix: give a folder written by save_pretrained."
        )
    if not _weight_files(path):
        raise RailkdError(
            f"'{name}' holds no model weights ({' or '.join(WEIGHT_PATTERNS)}). Fix: save the model there again."
        )


def _downloaded(name: str, revision: str | None, trust: bool, download: Callable[..., str] | None) -> Path:
    """Return the folder of a hub name in the hub's local store. Pickled weights are fetched only if no others exist."""
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or not name:
        raise RailkdError(
            f"no model at '{name}': no such folder; give an existing folder or a hub name such as 'org/name'"
        )
    from huggingface_hub import snapshot_download

    fetch = download or snapshot_download
    beside = [*_SIDE_FILES, "*.py"] if trust else [*_SIDE_FILES]
    try:
        folder = Path(fetch(name, revision=revision, allow_patterns=[*beside, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(fetch(name, revision=revision, allow_patterns=[*beside, "pytorch_model*.bin"]))
    except Exception as error:  # the hub client has many kinds of error; each means the same to the user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RailkdError(f"no model at '{name}': no such folder, and the hub gave: {reason[:200]}") from error
    return folder


def _weight_files(folder: Path) -> tuple[Path, ...]:
    every = (sorted(folder.glob(pattern)) for pattern in WEIGHT_PATTERNS)
    of_model = (tuple(path for path in found if path.name != OBJECTIVE_FILE) for found in every)
    return next((found for found in of_model if found), ())


def _reason(error: Exception) -> str:
    """Return in one line why a checkpoint does not load."""
    if "trust_remote_code=True" in str(error):
        return trusting.REFUSED
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
