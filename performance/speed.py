"""The time of a whole distillation against fine-tuning, a live teacher and the peers, as ratios on one machine.

    python performance/speed.py                          # both pairs of models, all sides; over an hour on two cores
    python performance/speed.py --pair deep --sides rail shared live plain teacher_pass --rounds 3
    python performance/speed.py --output speed.json

Every side is a process with its models loaded and warmed up. In each round each side runs one whole job, one at a time.
The order changes from round to round, so that variations of the machine affect all sides alike. A ratio is the ratio of
medians over rounds, and its interval a bootstrap over rounds. The peers are installed from the package index into a
separate environment (performance/.peers).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import work

HERE = Path(__file__).resolve().parent
PEERS = ("textbrewer==0.2.1.post1", "silverspoon-kd==0.1.0", "tensorboard", "setuptools<81")
OURS = ("rail", "shared", "live", "plain", "trainer", "teacher_pass")
THEIRS = ("textbrewer", "silverspoon")
#: Name of a ratio -> (numerator, denominator, the largest value that is allowed).
BARS = {
    "rail-kd-l, whole job / the same with a live teacher": ("rail", "live", 0.80),
    "rail-kd-l, whole job / TextBrewer GeneralDistiller": ("rail", "textbrewer", 0.30),
    "rail-kd-l, whole job / SilverSpoon-KD HolisticDistiller": ("rail", "silverspoon", 0.30),
    "rail-kd-l, whole job / transformers.Trainer, plain fine-tuning at its defaults": ("rail", "trainer", 0.45),
    "rail-kd-l, whole job / plain fine-tuning in railkd's fastest mode": ("rail", "plain", 1.25),
    "rail-kd-l, training from a warm cache / plain fine-tuning in the same mode": ("training", "plain", 1.08),
    "bare forward passes / teacher pass (its throughput; at least 0.95)": ("bare", "pass", None),
}


class Side:
    """A process that runs jobs of some sides on request."""

    def __init__(self, python: Path, script: str, names: list[str], folder: Path) -> None:
        self.names, self.log = names, folder / f"{script}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(python), str(HERE / script), ",".join(names), str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"},
            )

    def ready(self) -> None:
        """Wait until the process has warmed up."""
        assert self.process.stdout is not None
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"the side {','.join(self.names)} did not start:\n{self.log.read_text()[-2000:]}")

    def run(self, name: str, seed: int) -> dict[str, float]:
        """Run one whole job and return its seconds."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(name, seed, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"the side {name} ended:\n{self.log.read_text()[-2000:]}")
        return dict(json.loads(answer))

    def close(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.wait()


def peers_python() -> Path:
    """Return the interpreter of the peers' environment, which is made if it is missing."""
    folder = HERE / ".peers"
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        print("installing the peers into performance/.peers ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        import torch
        import transformers

        same = [f"torch=={torch.__version__.split('+')[0]}", f"transformers=={transformers.__version__}"]
        pinned = ["-c", str(HERE.parent / "constraints.txt")]
        subprocess.run(
            [str(python), "-m", "pip", "install", "-q", *same, "accelerate", "datasets", *pinned], check=True
        )
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PEERS], check=True)
        (folder / ".installed").touch()
    return python


def measure(pair: str, sentences: int, rounds: int, chosen: list[str]) -> dict[str, Any]:
    """Measure some sides of one pair of models in interleaved rounds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = work.prepare(folder, pair, sentences)
        scripts = (("sides.py", OURS, lambda: Path(sys.executable)), ("peers.py", THEIRS, peers_python))
        sides = [
            Side(python(), script, [name for name in names if name in chosen], folder)
            for script, names, python in scripts
            if set(names) & set(chosen)
        ]
        try:
            taken = _rounds(sides, rounds)
        finally:
            for side in sides:
                side.close()
    found: dict[str, Any] = {"settings": settings, "seconds": {k: [round(x, 2) for x in v] for k, v in taken.items()}}
    found["ratios"] = {
        what: work.ratio(taken[ours], taken[theirs]) | {"bar": bar}
        for what, (ours, theirs, bar) in BARS.items()
        if ours in taken and theirs in taken
    }
    if not {"rail", "shared", "plain"} <= taken.keys():
        return found
    # Five seeds of two methods from one cache, including its building, over ten plain runs; medians over all rounds.
    runs = taken["training"] + taken["shared"]
    build, plain = float(np.median(taken["pass_in_job"])), float(np.median(taken["plain"]))
    found["ratios"]["ten runs sharing a cache, including its building / ten plain fine-tuning runs"] = {
        "ratio": round((build + 10 * float(np.median(runs))) / (10 * plain), 3),
        "rounds": rounds,
        "bar": 1.08,
    }
    return found


def _rounds(sides: list[Side], rounds: int) -> dict[str, list[float]]:
    for side in sides:
        side.ready()
    rng = np.random.default_rng(0)
    taken: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        # "shared" reads the cache that "rail" wrote last, so it may come at any place in the order.
        for name in rng.permutation([name for side in sides for name in side.names]).tolist():
            side = next(side for side in sides if name in side.names)
            seconds = side.run(name, number)
            print(f"round {number + 1}, {name}: {json.dumps(seconds)}", file=sys.stderr, flush=True)
            if "all" in seconds:
                taken[name].append(seconds["all"])
            if name == "rail":
                taken["training"].append(seconds["training"])
                taken["pass_in_job"].append(seconds["pass"])
            if name == "teacher_pass":
                taken["bare"].append(seconds["bare"])
                taken["pass"].append(seconds["pass"])
    return dict(taken)


def table(found: dict[str, Any]) -> str:
    """Return the ratios as a Markdown table."""
    lines = ["| what | ratio | 95 % interval | bar |", "|---|---|---|---|"]
    for what, row in found["ratios"].items():
        low, high = row.get("interval_95", ("", ""))
        lines.append(f"| {what} | {row['ratio']} | {low} to {high} | {row['bar'] or ''} |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure, print tables, and write all results as JSON if --output is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", choices=[*work.PAIRS, "both"], default="both")
    parser.add_argument("--sentences", type=int, default=1920)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sides", nargs="+", choices=[*OURS, *THEIRS], default=[*OURS, *THEIRS])
    parser.add_argument("--output", type=Path, help="write settings, seconds and ratios to this file, as JSON")
    args = parser.parse_args()
    results: dict[str, Any] = {"machine": work.machine(), "pairs": {}}
    print(results["machine"])
    for pair in work.PAIRS if args.pair == "both" else (args.pair,):
        found = measure(pair, args.sentences, args.rounds, args.sides)
        results["pairs"][pair] = found
        print(f"\n{pair}: {json.dumps(found['settings'])}\n\n{table(found)}", flush=True)
    if args.output:
        args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
