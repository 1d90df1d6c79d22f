"""Peak memory of a teacher pass: block states pooled in hooks against ``output_hidden_states=True``.

    python performance/cache_memory.py                       # 12 blocks of 384, 64 rows of 128 tokens: ten seconds
    python performance/cache_memory.py --blocks 24 --width 1024 --batch 8

The memory is counted and not sampled: the bytes of a tensor are added when it is created, and subtracted when its
storage is freed. So a command gives the same numbers on every machine. Weights, inputs and buffers inside kernels are
not counted.
"""

from __future__ import annotations

import argparse
import json
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import BertConfig, BertForSequenceClassification

from railkd.models.blocks import BlockReader, pool


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages created inside the context: those alive now, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Storages of arguments were counted before or are older than the context, so views of them are not counted.
        old = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in old and storage._cdata not in self._known:
                    self._add(storage)
        return out

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()

        def subtract(_: Any) -> None:
            del self._known[key]
            self.now -= size

        self._known[key] = weakref.ref(storage, subtract)
        self.now += size
        self.peak = max(self.peak, self.now)


@torch.no_grad()
def peak_of(run: Callable[[], Any]) -> int:
    """Return the peak of bytes alive while ``run`` ran. What it returns is kept until the end, as in use."""
    with LiveBytes() as live:
        kept = run()
    del kept
    return live.peak


def measure(blocks: int, width: int, batch: int, tokens: int, poolings: tuple[str, ...]) -> dict[str, Any]:
    """Return the peak memory of one pass in three ways, in megabytes, and their ratios."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=width, num_hidden_layers=blocks, num_attention_heads=width // 32, intermediate_size=4 * width
    )
    model = BertForSequenceClassification(config).eval()
    ids, mask = torch.randint(5, 30000, (batch, tokens)), torch.ones(batch, tokens, dtype=torch.long)
    reader = BlockReader(model, poolings)

    def hooked() -> Any:
        with reader.reading(mask):
            logits = model(ids, attention_mask=mask).logits
        return logits, reader.states()

    def hidden() -> Any:
        out = model(ids, attention_mask=mask, output_hidden_states=True)
        states = {name: torch.stack([pool(h, mask, name) for h in out.hidden_states[1:]], 1) for name in poolings}
        return out.logits, states

    torch.testing.assert_close(hooked()[1], hidden()[1])
    plain = peak_of(lambda: model(ids, attention_mask=mask).logits)
    with_hooks, with_hidden = peak_of(hooked), peak_of(hidden)
    return {
        "blocks": blocks,
        "width": width,
        "batch": f"{batch} x {tokens}",
        "poolings": list(poolings),
        "no states, MB": round(plain / 1e6, 1),
        "hooks, MB": round(with_hooks / 1e6, 1),
        "output_hidden_states, MB": round(with_hidden / 1e6, 1),
        "states alone, MB": [round((peak - plain) / 1e6, 1) for peak in (with_hooks, with_hidden)],
        "hooks over no states": round(with_hooks / plain, 3),
        "output_hidden_states over hooks": round(with_hidden / with_hooks, 2),
    }


def main() -> None:
    """Parse the command line, count, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--pooling", nargs="+", default=["mean", "cls"], choices=["mean", "cls"])
    args = parser.parse_args()
    print(json.dumps(measure(args.blocks, args.width, args.batch, args.tokens, tuple(args.pooling)), indent=1))


if __name__ == "__main__":
    main()
