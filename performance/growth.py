"""How bytes, time per example, start-up and memory of a cache depend on the number of examples.

    python performance/growth.py                       # 10,000 to 300,000 examples; about five minutes, 3 GB of disk
    python performance/growth.py --part memory         # 6,000 and 600,000 examples, 6 GB of disk
    python performance/growth.py --plot docs/growth.svg

The public writer writes caches of random states of 12 blocks of 384. A separate process reads each cache: it gathers
random batches of 32, as training steps do. The first read of a row verifies its checksum and reads it from disk. The
second read does neither.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import work

BLOCKS, WIDTH, LABELS, BATCH = 12, 384, 2, 32
SIZES = (10_000, 30_000, 100_000, 300_000)


def keys_of(rows: int) -> np.ndarray:
    """Return the content keys (rows, 2) of made-up examples."""
    from railkd.data.keys import example_key, key_array

    return key_array(example_key(i) for i in range(rows))


def write(folder: Path, rows: int) -> dict[str, float]:
    """Write a cache of random states; return the seconds, without those for the random numbers, and the bytes."""
    from railkd.teacher import CacheWriter, TeacherCache, TeacherInfo
    from railkd.teacher.identity import Identity

    rng = np.random.default_rng(0)
    keys = keys_of(rows)
    info = TeacherInfo(BLOCKS, WIDTH, ("a", "b"), "single_label_classification", 128)
    states = rng.standard_normal((2048, BLOCKS, WIDTH), dtype=np.float32)
    logits = rng.standard_normal((2048, LABELS), dtype=np.float32)
    start = time.perf_counter()
    with CacheWriter(folder, info, Identity("synthetic", {}, "none", 128, "float32", "float16")) as writer:
        for at in range(0, rows, 2048):
            part = keys[at : at + 2048]
            writer.add(part, logits[: len(part)], {"mean": states[: len(part)]})
    return {"write_s": time.perf_counter() - start, "bytes": TeacherCache.open(folder).bytes}


def read(folder: Path, rows: int, steps: int) -> dict[str, float]:
    """Measure the start-up, the milliseconds of a first and of a second read, and the peak of anonymous memory."""
    import torch

    from railkd.teacher import TeacherCache

    keys = keys_of(rows)
    start = time.perf_counter()
    cache = TeacherCache.open(folder)
    opened = time.perf_counter() - start
    rng = np.random.default_rng(1)
    batches = [torch.from_numpy(keys[rng.choice(rows, BATCH, replace=False)]) for _ in range(steps)]
    first: list[float] = []
    second: list[float] = []
    peak = work.rss_anon_mb()
    for taken in (first, second):
        for batch in batches:
            start = time.perf_counter()
            cache({"example_key": batch}, "mean")
            taken.append(time.perf_counter() - start)
            peak = max(peak, work.rss_anon_mb())
    return {
        "open_ms": 1000 * opened,
        "first_touch_ms": 1000 * float(np.median(first)),
        "gather_ms": 1000 * float(np.median(second)),
        "anon_mb": peak,
    }


def train(folder: Path, rows: int, steps: int, method: str = "rail-kd-l") -> dict[str, float]:
    """Measure the peak of anonymous memory over random training steps, from the cache or from labels alone."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from railkd.models.distiller import Distiller
    from railkd.teacher import TeacherCache

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=2000, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=12, intermediate_size=2 * WIDTH
    )
    distiller = Distiller.from_method(method, BertForSequenceClassification(config), (BLOCKS, WIDTH)).train()
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=1e-5, fused=True)
    # The keys belong to the data set and not to the cache. A data set is paged from disk, so these keys are too.
    table = folder.parent / f"keys-{rows}.npy"
    if not table.exists():
        np.save(table, keys_of(rows), allow_pickle=False)
    keys = np.load(table, mmap_mode="r", allow_pickle=False)
    cache = TeacherCache.open(folder)
    rng = np.random.default_rng(1)
    peak = 0.0
    for step in range(steps):
        chosen = np.sort(rng.integers(0, rows, BATCH))
        ids = torch.from_numpy(rng.integers(5, 2000, (BATCH, 16)))
        batch: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        batch["labels"] = torch.from_numpy(rng.integers(0, LABELS, BATCH))
        if distiller.pooling is not None:
            signals = cache({"example_key": torch.from_numpy(np.ascontiguousarray(keys[chosen]))}, "mean")
            draw = torch.tensor(distiller.objective.draw(0, epoch=step, step=step))
            batch |= {"teacher_logits": signals.logits, "teacher_states": signals.states, "draw": draw}
        distiller(**batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
        peak = max(peak, work.rss_anon_mb())
    return {"anon_mb": peak}


def child(what: str, folder: Path, rows: int, steps: int) -> dict[str, float]:
    """Run one of the functions above in a separate process."""
    command = [sys.executable, __file__, "--child", what, str(folder), str(rows), str(steps)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    return dict(json.loads(out.splitlines()[-1]))


def growth(sizes: tuple[int, ...], steps: int) -> list[dict[str, float]]:
    """Measure each size in turn; only one cache is on disk at a time."""
    rows: list[dict[str, float]] = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "cache"
            found = child("write", folder, size, 0) | child("read", folder, size, steps)
        found["examples"], found["write_us_per_example"] = size, 1e6 * found.pop("write_s") / size
        found["bytes_per_example"] = found["bytes"] / size
        rows.append({name: round(value, 3) for name, value in found.items()})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def memory(steps: int) -> dict[str, Any]:
    """Compare the peak anonymous memory of training from a large cache, from a small one, and of fine-tuning."""
    peaks = {}
    for size in (6_000, 600_000):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "cache"
            child("write", folder, size, 0)
            peaks[f"{size:,} examples"] = child("train", folder, size, steps)["anon_mb"]
            if "fine-tuning" not in peaks:
                peaks["fine-tuning"] = child("finetune", folder, size, steps)["anon_mb"]
    more = round(peaks["600,000 examples"] - peaks["6,000 examples"], 1)
    return {"anon_mb": {name: round(peak, 1) for name, peak in peaks.items()}, "more_mb": more, "bar": 100}


def plot(rows: list[dict[str, float]], target: Path) -> None:
    """Plot the time per example, the start-up and the bytes over the number of examples, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "railkd"
    figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
    x = [row["examples"] for row in rows]
    panels = (
        (
            "reading, microseconds per example",
            [("first touch", "first_touch_ms"), ("again", "gather_ms")],
            1000 / BATCH,
        ),
        ("opening the cache, milliseconds", [("", "open_ms")], 1.0),
        ("size, GB", [("", "bytes")], 1e-9),
    )
    for axis, (title, lines, factor) in zip(axes, panels, strict=True):
        for label, name in lines:
            axis.plot(x, [factor * row[name] for row in rows], marker="o", label=label)
        axis.set(title=title, xlabel="examples", ylim=(0, None))
        axis.ticklabel_format(style="plain", axis="x")
        axis.set_xticks(x[-2:], [f"{value // 1000:,}k" for value in x[-2:]])
        axis.spines[["top", "right"]].set_visible(False)
        if len(lines) > 1:
            axis.legend(frameon=False)
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    """Parse the command line, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["growth", "memory", "all"], default="all")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--plot", type=Path, help="write a plot of the growth to this file, as SVG")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        what, folder, rows, steps = args.child
        if what == "write":
            print(json.dumps(write(Path(folder), int(rows))))
        else:
            parts: dict[str, Callable[..., dict[str, float]]] = {
                "read": read,
                "train": train,
                "finetune": partial(train, method="finetune"),
            }
            print(json.dumps(parts[what](Path(folder), int(rows), int(steps))))
        return
    print(work.machine())
    if args.part in ("growth", "all"):
        rows = growth(tuple(args.sizes), args.steps)
        if args.plot:
            plot(rows, args.plot)
    if args.part in ("memory", "all"):
        print(json.dumps(memory(args.steps)))


if __name__ == "__main__":
    main()
