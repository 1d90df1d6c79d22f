"""The folder that is shipped: the names that servers and libraries look for. Light: needs no torch and no onnx.

A shipped folder is a plain transformers folder. Beside its weights lies ``onnx/model.onnx``, where transformers.js,
fastembed, sentence-transformers and text-embeddings-inference look for it, and ``onnx/model_quantized.onnx``, which
transformers.js takes by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from railkd.errors import RailkdError
from railkd.models.weights import weight_files
from railkd.runtime.ownership import MARK, Ledger

#: Word of ``--vocabulary`` that keeps every piece of the data.
FROM_DATA = "from-data"
#: The model card, where the hub looks for it.
CARD_FILE = "README.md"
#: Packages of the extra ``railkd[onnx]``, by the name under which they are imported.
_EXTRA = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Shipped:
    """The files of a shipped folder, each by its name.

    =============================  =============================================================================
    ``config.json``, weights, ...  the model and its tokenizer, as ``save_pretrained`` writes them
    ``README.md``                  the model card
    ``onnx/model.onnx``            the model in float32
    ``onnx/model_quantized.onnx``  the model in int8
    ``onnx/quantize_config.json``  how the int8 file was made, and the figures of its gates
    ``export.json``                settings, gates, sizes and latencies of the export
    ``thresholds.json``            thresholds of the model, if they lie beside it
    ``example.py``                 ten lines that run the model by onnxruntime
    ``files.json``                 the mark of railkd: the list of the files that it wrote here
    =============================  =============================================================================

    Attributes:
        path: of the folder.
    """

    path: Path

    @property
    def onnx(self) -> Path:
        """The model in float32."""
        return self.path / "onnx" / "model.onnx"

    @property
    def int8(self) -> Path:
        """The model in int8."""
        return self.path / "onnx" / "model_quantized.onnx"

    @property
    def quantize_config(self) -> Path:
        """How the int8 file was made."""
        return self.path / "onnx" / "quantize_config.json"

    @property
    def record(self) -> Path:
        """Settings, gates, sizes and latencies of the export."""
        return self.path / "export.json"

    @property
    def thresholds(self) -> Path:
        """Thresholds of the model."""
        return self.path / "thresholds.json"

    @property
    def tokenizer_config(self) -> Path:
        """Settings of the tokenizer, with the name of its class."""
        return self.path / "tokenizer_config.json"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.path / CARD_FILE

    @property
    def example(self) -> Path:
        """Ten lines that run the model by onnxruntime."""
        return self.path / "example.py"

    def finish(self) -> None:
        """Put every file on the list of those that railkd wrote. Call it when the folder is complete."""
        files = [path for path in self.path.rglob("*") if path.is_file()]
        Ledger(self.path).add(*(path.relative_to(self.path).as_posix() for path in files))

    def foreign(self) -> list[Path]:
        """Return the files, links and empty folders that an export did not write here."""
        inside = [path for path in self.path.iterdir() if path.name != MARK] if self.path.is_dir() else []
        return Ledger(self.path).foreign(sorted(inside))


def require_onnx(packages: Sequence[str] = _EXTRA) -> None:
    """Refuse to continue without the extra ``railkd[onnx]``.

    Args:
        packages: that are needed, by the names under which they are imported.

    Raises:
        RailkdError: a package of the extra is not installed.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise RailkdError(
            f"Expected the packages of railkd[onnx], got no {' and no '.join(missing)}. "
            'Fix: pip install "railkd[onnx]".'
        )


def find_onnx(name: str | Path) -> Path | None:
    """Return the ONNX file that a name of a model means.

    Args:
        name: an ``.onnx`` file, a folder, or a name on the hub. A folder with PyTorch weights means these. In a folder
            without weights, ``model.onnx`` comes before ``model_quantized.onnx``.

    Returns:
        The file; None if the name means a checkpoint.
    """
    path = Path(name)
    if path.suffix == ".onnx" and path.is_file():
        return path
    if not path.is_dir() or weight_files(path):
        return None
    shipped = Shipped(path)
    beside = (path / file.name for file in (shipped.onnx, shipped.int8))
    return next((file for file in (*beside, shipped.onnx, shipped.int8) if file.is_file()), None)


def onnx_parts(file: Path) -> list[Path]:
    """Return the files of an ONNX model: the ``.onnx`` file, and the file of its weights if they lie apart.

    Weights above about 1.5 GB lie apart, as ``model.onnx.data``, or ``model.onnx_data`` of other exporters.

    Args:
        file: the ``.onnx`` file.
    """
    apart = (file.with_name(file.name + end) for end in (".data", "_data"))
    return [file, *(path for path in apart if path.is_file())]


def onnx_size(file: Path) -> int:
    """Return the bytes of an ONNX model, with the weights that lie apart.

    Args:
        file: the ``.onnx`` file.
    """
    return sum(path.stat().st_size for path in onnx_parts(file))


def home_of(file: Path) -> Path:
    """Return the folder with the config and the tokenizer of an ONNX file: its own, or the one above.

    Args:
        file: the ONNX file.

    Returns:
        The folder.

    Raises:
        RailkdError: neither folder has a config.json.
    """
    for folder in (file.parent, file.absolute().parent.parent):
        if (folder / "config.json").is_file():
            return folder
    raise RailkdError(
        f"Expected config.json and a tokenizer beside '{file}' or in the folder above it, got none. Fix: keep the ONNX "
        "file in the folder that railkd export wrote."
    )
