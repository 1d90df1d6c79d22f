"""The time that the digests in checkpoints take, of saving, of resuming, and of a whole run.

    python performance/checkpoints.py     # about two minutes on two cores

A student of 6 blocks, 384 wide, is trained for three epochs and saved after each. Sealing its newest checkpoint, and
looking for damage in it, are then timed alone, and the medians are compared with the run.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import work
from datasets import Dataset

from railkd import DistillationTrainer, DistillationTrainingArguments
from railkd.runtime.sealed import find_damage, seal
from railkd.training.checkpoint_folders import newest_checkpoint

SENTENCES, EPOCHS, REPEATS = 640, 3, 7


def main() -> None:
    """Train, measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work.prepare(folder, "deep", SENTENCES)
        table, _ = work.read(folder)
        args = DistillationTrainingArguments(
            output_dir=str(folder / "run"),
            method="finetune",
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=work.BATCH,
            save_strategy="epoch",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = DistillationTrainer(str(folder / "student"), args=args, train_dataset=Dataset.from_list(table))
        run = seconds(trainer.train)
        checkpoint = newest_checkpoint(folder / "run")
        assert checkpoint is not None
        write = statistics.median(seconds(lambda: trainer._save_checkpoint(trainer.model, None)) for _ in range(3))
        sealing = statistics.median(seconds(lambda: seal(checkpoint)) for _ in range(REPEATS))
        looking = statistics.median(seconds(lambda: find_damage(checkpoint)) for _ in range(REPEATS))
        size = sum(file.stat().st_size for file in checkpoint.iterdir())
    found = {
        "machine": work.machine(),
        "megabytes of a checkpoint": round(size / 1e6),
        "seconds of the run": round(run, 1),
        "seconds of a checkpoint": round(write, 3),
        "seconds of its digests": round(sealing, 3),
        "seconds of the search for damage at a resume": round(looking, 3),
        "digests / run": round(EPOCHS * sealing / run, 4),
        "search / run": round(looking / run, 4),
    }
    print(json.dumps(found, indent=1))


def seconds(do: Callable[[], object]) -> float:
    """Return the wall-clock seconds of a call."""
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
