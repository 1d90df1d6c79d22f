"""What distillation costs beside plain fine-tuning: step time, cache on disk, memory, start of the command line.

    python benchmarks/step_cost.py                  # everything, about six minutes on two cores
    python benchmarks/step_cost.py --part steps     # or: disk, memory, help

Steps: one student (--pair: 6 of 12 random blocks, or the demo's MiniLM, 3 of its 6), real sentences, batch 32, one
process. Every method takes the same batches in turn, so that noise of the machine falls on all alike; a ratio is the
median over batches of (step of the method / step of fine-tuning on the same batch), its interval a bootstrap over
batches.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import work

BLOCKS, WIDTH, LABELS = 6, 384, 2
DEFAULT_METHODS = ("rail-kd-l", "rail-kd-c", "kd")
#: Methods measured side by side, each with a student and optimizer of its own: all at once would want 5 GB.
GROUP = 6


def models() -> tuple[Any, Any]:
    """Teacher (6 blocks) and its tokenizer: the demo's MiniLM, or its shape with random weights."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from railkd import checkpoints
    from railkd.demo.model import encoder_folder

    folder = encoder_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = BertConfig.from_pretrained(folder, num_labels=LABELS)
    teacher = checkpoints.load_classifier(folder, num_labels=LABELS)
    assert isinstance(teacher, BertForSequenceClassification) and config.num_hidden_layers == BLOCKS
    return teacher, tokenizer


def steps(methods: tuple[str, ...], batches: int, bf16: bool, pair: str) -> dict[str, Any]:
    """Median step time of each method over that of fine-tuning, from a warm cache."""
    import torch
    from datasets import Dataset

    from railkd import checkpoints, hardware
    from railkd.distiller import Distiller
    from railkd.examples import PaddingCollator, keyed_tokens
    from railkd.objectives import METHODS
    from railkd.teacher import TeacherCache
    from railkd.training.negatives import Negatives

    hardware.keep_freed_memory()  # as every run does
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work.prepare(folder, pair, 32 * 24)
        table, _ = work.read(folder)
        rows = Dataset.from_list(table)
        labels = list(rows["label"])
        student, tokenizer = (
            checkpoints.load_classifier(folder / "student"),
            checkpoints.load_tokenizer(folder / "student"),
        )
        cache = TeacherCache.build(folder / "teacher", rows, folder / "cache", pooling=("mean", "cls"), bf16=bf16)
        tokens = keyed_tokens(rows, tokenizer, max_length=128)
        cache(_keys(tokens.keys), "mean"), cache(_keys(tokens.keys), "cls")  # warm: every checksum is behind us
        order = np.argsort(tokens.lengths)
        collate = PaddingCollator(tokenizer)
        table = [
            {n: v[i] for n, v in tokens.inputs.items()} | {"example_key": tokens.keys[i], "labels": labels[i]}
            for i in order
        ]
        rng = np.random.default_rng(0)
        bases: list[float] = []
        results: dict[str, Any] = {}
        for first in range(0, len(methods), GROUP):
            group = methods[first : first + GROUP]
            runs = {}
            for name in ("finetune", *group):
                distiller = Distiller.from_method(name, copy.deepcopy(student), cache.info.shape).train()
                if distiller.objective.needs_fit:
                    distiller.objective.fit(cache.moments("mean"))
                optimizer = torch.optim.AdamW(
                    [p for p in distiller.parameters() if p.requires_grad], lr=1e-5, fused=True
                )
                count = distiller.objective.negatives
                negatives = (
                    Negatives(cache, tokens.keys, labels, pooling="mean", count=count, seed=0) if count else None
                )
                runs[name] = (distiller, optimizer, negatives)
            taken: dict[str, list[float]] = {name: [] for name in runs}
            for step in range(batches + 3):  # three to warm up
                start_row = int(rng.integers(len(table) // 32)) * 32
                for name in rng.permutation(list(runs)):
                    distiller, optimizer, negatives = runs[name]
                    start = time.perf_counter()
                    batch = collate(table[start_row : start_row + 32])
                    keys = {"example_key": batch.pop("example_key")}
                    if METHODS[name].needs_teacher:
                        signals = cache(keys, distiller.pooling)
                        draw = distiller.objective.draw(0, epoch=step, step=step)
                        batch |= {"teacher_logits": signals.logits, "teacher_states": signals.states}
                        batch["draw"] = torch.tensor(draw) if draw else None
                        if negatives is not None:
                            batch |= negatives({**keys, "labels": batch["labels"]}, step=step)
                    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                        loss = distiller(**batch)[0]
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(distiller.parameters(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad()
                    if step >= 3:
                        taken[name].append(time.perf_counter() - start)
            base = np.asarray(taken["finetune"])
            bases += taken["finetune"]
            for name in group:
                ratio = np.asarray(taken[name]) / base
                draws = np.median(rng.choice(ratio, (2000, len(ratio))), axis=1)
                results[name] = {
                    "ratio": round(float(np.median(ratio)), 3),
                    "interval_95": [round(float(q), 3) for q in np.quantile(draws, [0.025, 0.975])],
                    "ratio_of_medians": round(float(np.median(taken[name]) / np.median(base)), 3),
                }
    return {"finetune_ms": round(1000 * float(np.median(bases)), 1), "batches": batches, "bf16": bf16} | results


def disk() -> dict[str, Any]:
    """Bytes of a cache over n * d * 2 + logits for each example and pooling."""
    with tempfile.TemporaryDirectory() as folder:
        cache, _ = synthetic_cache(Path(folder), 10_000)
        each = cache.bytes / cache.rows
    bound = BLOCKS * WIDTH * 2 + LABELS * 4
    return {
        "bytes_per_example": round(each, 1),
        "states_and_logits": bound,
        "ratio": round(each / bound, 4),
        "bar": 1.1,
    }


def synthetic_cache(folder: Path, rows: int) -> tuple[Any, np.ndarray]:
    """A cache of random states, through the public writer."""
    from railkd.examples import example_key, key_array
    from railkd.teacher import CacheWriter, TeacherCache, TeacherInfo
    from railkd.teacher.identity import Identity

    rng = np.random.default_rng(0)
    keys = key_array(example_key(i) for i in range(rows))
    info = TeacherInfo(BLOCKS, WIDTH, ("a", "b"), "single_label_classification", 128)
    with CacheWriter(folder, info, Identity("synthetic", {}, "none", 128, "float32", "float16")) as writer:
        for start in range(0, rows, 2048):
            part = keys[start : start + 2048]
            states = rng.standard_normal((len(part), BLOCKS, WIDTH), dtype=np.float32)
            writer.add(part, rng.standard_normal((len(part), LABELS), dtype=np.float32), {"mean": states})
    return TeacherCache.open(folder), keys


def memory() -> dict[str, Any]:
    """Peak RssAnon of training from the cache over that of fine-tuning, each in a process of its own."""
    results: dict[str, Any] = {"bar": 1.05}
    with tempfile.TemporaryDirectory() as folder:
        for rows in (10_000, 60_000):
            cache = Path(folder) / str(rows)
            synthetic_cache(cache, rows)
            peaks = {}
            for method in ("finetune", "rail-kd-l"):
                command = [sys.executable, __file__, "--child", method, str(rows), str(cache)]
                # One thread: the allocator's arenas of idle threads would be noise here.
                environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
                out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
                peaks[method] = json.loads(out.splitlines()[-1])["anon_mb"]
            ratio = round(peaks["rail-kd-l"] / peaks["finetune"], 3)
            results[f"{rows:,} examples"] = {"anon_mb": peaks, "ratio": ratio}
    return results


def child(method: str, rows: int, folder: str) -> None:
    """100 random steps of a small student; prints the peak of RssAnon."""
    import torch

    from railkd.distiller import Distiller
    from railkd.examples import example_key, key_array
    from railkd.student import make_student
    from railkd.teacher import TeacherCache

    torch.manual_seed(0)
    teacher, _ = models()
    student = make_student(teacher, 3)
    del teacher
    distiller = Distiller.from_method(method, student, (BLOCKS, WIDTH)).train()
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=1e-5, fused=True)
    cache = TeacherCache.open(folder) if method != "finetune" else None
    keys = key_array(example_key(i) for i in range(rows))
    rng = np.random.default_rng(0)
    peak = 0.0
    for step in range(100):
        chosen = rng.choice(rows, 32, replace=False)
        ids = torch.from_numpy(rng.integers(1000, 20000, (32, 32)))
        batch: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": torch.from_numpy(rng.integers(0, LABELS, 32)),
        }
        if cache is not None:
            signals = cache(_keys(keys[chosen]), distiller.pooling)
            draw = torch.tensor(distiller.objective.draw(0, epoch=step, step=step))
            batch |= {"teacher_logits": signals.logits, "teacher_states": signals.states, "draw": draw}
        distiller(**batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
        peak = max(peak, work.rss_anon_mb())
    print(json.dumps({"anon_mb": round(peak, 1)}))


def help_seconds(runs: int = 5) -> dict[str, Any]:
    """Wall-clock seconds of ``railkd --help``, median of some runs after one to warm up."""
    command = [sys.executable, "-m", "railkd", "--help"]
    taken = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        taken.append(time.perf_counter() - start)
    return {"median_s": round(float(np.median(taken[1:])), 3), "bar": 0.6}


def _keys(keys: np.ndarray) -> dict[str, Any]:
    import torch

    return {"example_key": torch.from_numpy(np.ascontiguousarray(keys))}


def main() -> None:
    """Parse the command line and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["steps", "disk", "memory", "help", "all"], default="all")
    parser.add_argument("--methods", nargs="+", default=list(DEFAULT_METHODS), help="methods, or 'all'")
    parser.add_argument("--batches", type=int, default=150)
    parser.add_argument("--pair", choices=list(work.PAIRS), default="deep")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], int(args.child[1]), args.child[2])
        return
    import torch

    from railkd.hardware import fast_bf16
    from railkd.objectives import METHODS

    chosen = [name for name in METHODS if name != "finetune"] if args.methods == ["all"] else args.methods
    print(
        f"machine: {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads"
    )
    if args.part in ("disk", "all"):
        print("cache on disk:", json.dumps(disk()))
    if args.part in ("memory", "all"):
        print("memory:", json.dumps(memory()))
    if args.part in ("help", "all"):
        print("railkd --help:", json.dumps(help_seconds()))
    if args.part in ("steps", "all"):
        for bf16 in [False, True] if fast_bf16() else [False]:
            print("steps:", json.dumps(steps(tuple(chosen), args.batches, bf16, args.pair), indent=1))


if __name__ == "__main__":
    main()
