"""What a teacher pass holds in memory: block states pooled in hooks against ``output_hidden_states=True``.

    python performance/cache_memory.py                       # 12 blocks of 384, 64 rows of 128 tokens: ten seconds
    python performance/cache_memory.py --blocks 24 --width 1024 --batch 8

Counted, not sampled: every tensor the pass makes is added when it is made and taken off when its storage is freed, so
the same command gives the same numbers on any machine. Weights and inputs are not in it, nor what kernels use inside.
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
    """Bytes of the storages made inside the context: how many live now, and the most that ever did at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # What goes in is known already or was there before: a view of it is nothing new.
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

        def gone(_: Any) -> None:
            del self._known[key]
            self.now -= size

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


@torch.no_grad()
def peak_of(run: Callable[[], Any]) -> int:
    """The most bytes that lived at once while ``run`` ran; what it returns lives to the end, as in use."""
    with LiveBytes() as live:
        kept = run()
    del kept
    return live.peak


def measure(blocks: int, width: int, batch: int, tokens: int, poolings: tuple[str, ...]) -> dict[str, Any]:
    """Peaks of one pass in three ways, in megabytes, and their ratio."""
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
    """Parse the command line and print what was counted."""
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
