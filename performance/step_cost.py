"""The time of a distillation step against a step of plain fine-tuning, and the time that ``railkd --help`` takes.

    python performance/step_cost.py                  # steps and start, about four minutes on two cores
    python performance/step_cost.py --part sharing   # two runs on one machine: at once, and one after the other
    python performance/step_cost.py --part feeding   # signals read while the step before runs, against at their step

The steps train one student in one process on batches of 32 real sentences. With --pair deep the student has 6 of 12
random blocks, with --pair minilm 3 of the 6 blocks of the demo's model. All methods take each batch in turn, so that
noise of the machine affects them alike. Batches differ in length, so the ratio to fine-tuning is taken per batch. Its
median is reported, with a bootstrap interval over batches. All models are recreated five times in another order, to
average out effects of where they are placed in memory.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import work

DEFAULT_METHODS = ("rail-kd-l", "rail-kd-c", "kd")
#: Methods measured side by side. Each has its own student and optimizer, so all methods at once would need 5 GB.
GROUP = 6
#: How often models are recreated, and the batches to warm up after that.
PLACES, WARM = 5, 3
BATCHES_AN_EPOCH = 24
AHEAD = ", read ahead"


class Setup:
    """The parts that all methods share: a student to copy, tokens sorted by length, and a verified cache."""

    def __init__(self, folder: Path, pair: str, bf16: bool) -> None:
        from datasets import Dataset

        from railkd.data.collator import PaddingCollator
        from railkd.data.tokens import keyed_tokens
        from railkd.models import load_classifier, load_tokenizer
        from railkd.teacher import TeacherCache

        work.prepare(folder, pair, work.BATCH * BATCHES_AN_EPOCH)
        table, _ = work.read(folder)
        rows = Dataset.from_list(table)
        self.labels, self.bf16 = list(rows["label"]), bf16
        self.student = load_classifier(folder / "student")
        tokenizer = load_tokenizer(folder / "student")
        self.cache = TeacherCache.build(folder / "teacher", rows, folder / "cache", pooling=("mean", "cls"), bf16=bf16)
        tokens = keyed_tokens(rows, tokenizer, max_length=128)
        self.keys, self.collate = tokens.keys, PaddingCollator(tokenizer)
        for pooling in ("mean", "cls"):  # Reads every row once, so that all checksums are verified.
            self.cache(_keys(tokens.keys), pooling)
        self.table = [
            {n: v[i] for n, v in tokens.inputs.items()} | {"example_key": tokens.keys[i], "labels": self.labels[i]}
            for i in np.argsort(tokens.lengths)
        ]


class Run:
    """The student, objective and optimizer of one method; ``kd+embeddings`` is kd with frozen embeddings.

    With `AHEAD` behind it, as in training, a thread reads the signals of a batch while the step before it runs.
    """

    def __init__(self, method: str, setup: Setup) -> None:
        import torch

        from railkd.models.distiller import Distiller
        from railkd.models.freezing import freeze
        from railkd.objectives import METHODS
        from railkd.training.feeding import Feed
        from railkd.training.negatives import Negatives

        self.ahead = method.endswith(AHEAD)
        self.following: Any = None
        method, _, frozen = method.removesuffix(AHEAD).partition("+")
        student = copy.deepcopy(setup.student)
        freeze(student, frozen.split(",") if frozen else ())
        self.setup, self.needs_teacher = setup, METHODS[method].needs_teacher
        self.distiller = Distiller.from_method(method, student, setup.cache.info.shape).train()
        objective = self.objective = self.distiller.objective
        if objective.needs_fit:
            objective.fit(setup.cache.moments("mean"))
        trained = [p for p in self.distiller.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
        # Weights, gradients and the two moments of AdamW, in single precision.
        held = sum(parameter.numel() for parameter in self.distiller.parameters()) + 3 * sum(p.numel() for p in trained)
        self.megabytes = held * 4 / 1e6
        self.feed = Feed(setup.cache, None, self.distiller.pooling, torch.device("cpu"), "no")
        self.negatives = None
        if objective.negatives:
            self.negatives = Negatives(
                setup.cache, setup.keys, setup.labels, pooling="mean", count=objective.negatives, seed=0
            )

    def step(self, number: int, first_row: int, next_row: int) -> float:
        """Run one step and return its seconds. A step of a run that reads ahead makes the batch of the next one too."""
        import torch

        start = time.perf_counter()
        batch: Any = self.following or self._batch(first_row)
        if self.ahead:
            self.following = self._batch(next_row)
            self.following.ahead = self.feed.start(self.following.host["example_key"])
        keys = {"example_key": batch.pop("example_key")}
        if self.needs_teacher:
            signals = self.feed(batch, number)
            draw = self.objective.draw(0, epoch=number // BATCHES_AN_EPOCH, step=number)
            batch |= {"teacher_logits": signals.logits, "teacher_states": signals.states}
            batch["draw"] = torch.tensor(draw) if draw else None
            if self.negatives is not None:
                batch |= self.negatives({**keys, "labels": batch["labels"]}, step=number)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.setup.bf16):
            loss = self.distiller(**batch)[0]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.distiller.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - start

    def _batch(self, first_row: int) -> Any:
        return self.setup.collate(self.setup.table[first_row : first_row + work.BATCH])


def steps(methods: tuple[str, ...], batches: int, bf16: bool, pair: str, baseline: str = "finetune") -> dict[str, Any]:
    """Measure the step time of each method over that of fine-tuning, or of another baseline, from a warm cache."""
    from railkd.runtime import hardware

    hardware.keep_freed_memory()  # As every run does.
    rng = np.random.default_rng(0)
    bases: list[float] = []
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        setup = Setup(Path(name), pair, bf16)
        for first in range(0, len(methods), GROUP):
            group = methods[first : first + GROUP]
            taken: dict[str, list[float]] = {name: [] for name in (baseline, *group)}
            for _ in range(PLACES):
                runs = {name: Run(name, setup) for name in rng.permutation(list(taken)).tolist()}
                rows = work.BATCH * rng.integers(BATCHES_AN_EPOCH, size=WARM + batches // PLACES + 1)
                for number, (first_row, next_row) in enumerate(itertools.pairwise(rows.tolist())):
                    for name in rng.permutation(list(runs)).tolist():
                        seconds = runs[name].step(number, first_row, next_row)
                        if number >= WARM:
                            taken[name].append(seconds)
                for run in runs.values():
                    run.feed.close()
            held = {name: runs[name].megabytes for name in group}
            base = np.asarray(taken[baseline])
            bases += taken[baseline]
            for name in group:
                ratio = np.asarray(taken[name]) / base
                draws = np.median(rng.choice(ratio, (2000, len(ratio))), axis=1)
                results[name] = {
                    "ms": round(1000 * float(np.median(taken[name])), 1),
                    "ratio": round(float(np.median(ratio)), 3),
                    "interval_95": [round(float(q), 3) for q in np.quantile(draws, [0.025, 0.975])],
                    "ratio_of_medians": round(float(np.median(taken[name]) / np.median(base)), 3),
                    "weights_gradients_moments_mb": round(held[name], 1),
                }
    return {f"{baseline}_ms": round(1000 * float(np.median(bases)), 1), "batches": len(base), "bf16": bf16} | results


def sharing(batches: int, pair: str, precision: str) -> dict[str, Any]:
    """Compare two runs on this machine: one after the other with two threads, or at once with one thread each.

    Returns:
        Milliseconds for one step of rail-kd-l in three rounds of both ways, and their ratio.
    """
    command = [sys.executable, __file__, "--part", "steps", "--methods", "rail-kd-l", "--pair", pair]
    command += ["--batches", str(batches), "--precision", precision]
    taken: dict[str, list[float]] = {"one after the other": [], "at once": []}
    for _ in range(3):
        for way, processes in (("one after the other", 1), ("at once", 2)):
            environment = os.environ | {"OMP_NUM_THREADS": str(2 // processes)}
            running = [
                subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(processes)
            ]
            lines = [process.communicate()[0].splitlines()[-1:] for process in running]
            if any(process.returncode for process in running):
                raise SystemExit(f"a run of {' '.join(command)} failed; its error is printed above")
            each = [json.loads(line.removeprefix("steps: "))["rail-kd-l"]["ms"] for [line] in lines]
            taken[way].append(float(np.mean(each)) / processes)
    return {
        "ms_per_step": {way: [round(value, 1) for value in values] for way, values in taken.items()},
        "at once / one after the other": work.ratio(taken["at once"], taken["one after the other"]),
    }


def help_seconds(runs: int = 5) -> dict[str, Any]:
    """Measure the median wall-clock seconds of ``railkd --help`` after one run to warm up."""
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
    parser.add_argument("--part", choices=["steps", "help", "sharing", "feeding", "all"], default="all")
    parser.add_argument("--methods", nargs="+", default=list(DEFAULT_METHODS), help="methods, or 'all'")
    parser.add_argument("--batches", type=int, default=150)
    parser.add_argument("--pair", choices=list(work.PAIRS), default="deep")
    parser.add_argument("--precision", choices=["float32", "bfloat16", "both"], default="both")
    args = parser.parse_args()
    from railkd.objectives import METHODS
    from railkd.runtime.hardware import fast_bf16

    if args.precision == "bfloat16" and not fast_bf16():
        parser.error("--precision bfloat16: this machine is not fast at it. Give --precision float32")
    chosen = [name for name in METHODS if name != "finetune"] if args.methods == ["all"] else args.methods
    print(work.machine())
    if args.part in ("help", "all"):
        print("railkd --help:", json.dumps(help_seconds()))
    if args.part == "sharing":
        precision = "float32" if args.precision == "float32" or not fast_bf16() else "bfloat16"
        print("sharing:", json.dumps(sharing(args.batches // 3, args.pair, precision)))
    for part in ("steps", "feeding"):
        baseline, sides = ("finetune", chosen) if part == "steps" else ("rail-kd-l", [f"rail-kd-l{AHEAD}"])
        for precision in ("float32", "bfloat16") if args.part in (part, "all") else ():
            if args.precision in (precision, "both") and (precision == "float32" or fast_bf16()):
                found = steps(tuple(sides), args.batches, precision == "bfloat16", args.pair, baseline)
                print(f"{part}:", json.dumps(found))


if __name__ == "__main__":
    main()
