"""``make faults N=50``: kill -9 after a random time or at a random file, up to three times in one run, and resume.
Every run must end as if it had never been killed. The moments come from a seed, which is printed."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "src")]

# ruff: noqa: E402
from faults.driver import driver
from faults.runs import BY_EPOCHS, BY_STEPS, differences, left, prepare, room

#: As many files a run opens, makes or renames in its folder, about; most of them in checkpoints.
FILES = 120


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    chosen = parser.parse_args()
    chance = random.Random(chosen.seed)
    kinds = {"rail-kd-l by steps": BY_STEPS, "rail-kd-c by epochs": BY_EPOCHS}
    kills, wrong, places = 0, 0, Counter[str]()
    with tempfile.TemporaryDirectory() as name, driver() as railkd:
        base = prepare(Path(name) / "base")
        wholes, seconds = {}, {}
        for number, (kind, words) in enumerate(kinds.items()):
            folder = room(base, Path(name) / f"whole-{number}")
            start = time.perf_counter()
            code, said = railkd(folder, "distill", *words, "--output", "out")
            assert code == 0, said
            wholes[kind], seconds[kind] = left(folder), time.perf_counter() - start
        for number in range(chosen.runs):
            kind = chance.choice(list(kinds))
            folder = room(base, Path(name) / f"run-{number}")
            resume: list[str] = []
            for _ in range(chance.randint(1, 3)):
                moments = f"after:{chance.uniform(0, seconds[kind]):.3f}", f"touch:{chance.randint(1, FILES)}"
                fault = f"KILL@{chance.choice(moments)}"
                code, said = railkd(folder, "distill", *kinds[kind], "--output", "out", *resume, fault=fault)
                if code == 0:
                    break
                assert code == -9, said
                kills, resume = kills + 1, ["--resume"]
                places[_place(folder / "out")] += 1
            else:
                code, said = railkd(folder, "distill", *kinds[kind], "--output", "out", "--resume")
                if "is finished" in said:  # killed after its last word
                    code = 0
            differ = differences(left(folder), wholes[kind]) if code == 0 else [said]
            if differ:
                wrong += 1
                print(f"run {number} ({kind}): {differ}")
    print(
        f"seed {chosen.seed}: {chosen.runs} runs, {kills} kills, {wrong} runs that differ; "
        f"found on disk: {dict(places)}"
    )
    return int(wrong > 0)


def _place(out: Path) -> str:
    """How far the run had come, as seen on disk."""
    if (out / "metrics.json").exists():
        return "finished"
    if list(out.glob(".checkpoint-*.tmp")):
        return "in a checkpoint"
    if list(out.glob("checkpoint-*")):
        return "between checkpoints"
    if (out / "config.yaml").exists():
        return "before the first checkpoint"
    return "cache built" if (out / "cache" / "manifest.json").exists() else "before or in the teacher pass"


if __name__ == "__main__":
    sys.exit(main())
