"""Decides in which precision and on which devices a frozen model is loaded. A model to be trained is in float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from railkd.models.heads import task_of_config
from railkd.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from torch import Tensor

#: Precisions that a user can ask for. "auto" is the one that the checkpoint keeps.
DTYPES = ("auto", "bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Loading:
    """How a frozen model is loaded.

    Attributes:
        dtype: one of `DTYPES`.
        device_map: of transformers and accelerate, such as ``auto``; None: the whole model is on one device.
    """

    dtype: str = "float32"
    device_map: str | None = None


def kept_dtype(weights: Mapping[str, Tensor]) -> str:
    """Return the precision of most numbers among the weights of a checkpoint.

    Args:
        weights: by name; they need no values.

    Returns:
        ``bfloat16``, ``float16``, or ``float32`` for every other type.
    """
    numbers = Counter[str]()
    for tensor in weights.values():
        numbers[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    most = max(numbers, key=lambda name: numbers[name], default="float32")
    return most if most in DTYPES else "float32"


def quantisation(config: Any) -> str | None:
    """Return the name of the method that the weights of a checkpoint are quantised with, or None.

    Args:
        config: of the model.
    """
    found = getattr(config, "quantization_config", None)
    if found is None:
        return None
    values = found if isinstance(found, dict) else found.to_dict()
    return str(values.get("quant_method", "unknown"))


def options_of(loading: Loading, dtype: str, config: Any, device: Any) -> dict[str, Any]:
    """Return the arguments of transformers' ``from_pretrained`` that load a model so.

    Args:
        loading: what was asked for.
        dtype: the precision, resolved.
        config: of the model.
        device: for a model that is on one.
    """
    import torch

    device_map: Any = loading.device_map
    if quantisation(config) is None:
        chosen: Any = getattr(torch, dtype)
    else:  # the parts that are not quantised are in the precision that the config names
        chosen = "auto" if loading.dtype == "auto" else getattr(torch, dtype)
        device_map = device_map or {"": device}  # a quantised model cannot be moved
    return {"dtype": chosen} | ({"device_map": device_map} if device_map else {})


def on_device(model: Any, device: Any) -> Any:
    """Return a model on a device. One that is quantised or spread over devices stays where it is.

    Args:
        model: of transformers.
        device: to move it to.
    """
    fixed = getattr(model, "hf_device_map", None) or getattr(model, "is_quantized", False)
    return model if fixed else model.to(device)


def first_device(model: Any) -> Any:
    """Return the device that the inputs of a model go to, also if the model is spread over several.

    Args:
        model: of transformers.
    """
    import torch

    there = (parameter.device for parameter in model.parameters())
    return next((device for device in there if device.type != "meta"), torch.device("cpu"))


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
