"""Run one cell of a study again and compare it with its record: ``make study STUDY=F-movies CELL="movies,even,kd,1"``.

The teacher and its cache are made first, in studies/work/STUDY, unless they are there. Without a cell the cells are
listed. Ends with 1 if a score differs by more than a point: threads and machines change the last digits of a run, and
so, now and then, the answer to a row.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cells

from railkd.cli import main as railkd
from railkd.records import RECORD_FILE, RunRecord
from railkd.runtime.yaml_text import write_yaml

TOLERANCE = 0.01


def main(study: str, cell: str, folder: Path = cells.RECORDS) -> int:
    """Run the cell and print each score beside the recorded one. Return the exit status."""
    records = cells.read_records(study, folder)
    students = {cells.cell_of(record): record for record in records if record.job == "distill"}
    if cell not in students:
        print(f"Cells of {study}, to be given as CELL:", *students, sep="\n  ")
        return 0 if not cell else 2
    record = students[cell]
    for needed in [*(other for other in records if _makes(other, record)), record]:
        if not _run(needed):
            return 1
    again = RunRecord.read(Path(record.config["output"]) / RECORD_FILE)
    worst = 0.0
    for name, scores in record.metrics.items():
        for metric, value in scores.items():
            now = again.metrics[name][metric]
            worst = max(worst, abs(now - value))
            print(f"{name} {metric}: recorded {value:.4f}, now {now:.4f}, difference {now - value:+.4f}")
    print("the same to the last digit" if worst == 0 else f"largest difference {worst:.4f}")
    return int(worst > TOLERANCE)


def _makes(other: RunRecord, record: RunRecord) -> bool:
    """Return True if a job makes the teacher or the cache of another."""
    if other.job == "finetune":
        return str(record.config["teacher"]).startswith(f"{other.config['output']}/")
    return other.job == "cache" and other.config["cache"] == record.config.get("cache")


def _run(record: RunRecord) -> bool:
    """Run a job by its recorded settings, unless its folder is there. Return True if it succeeded."""
    made = Path(record.config["cache"] if record.job == "cache" else record.config["output"])
    if made.exists() and record.job != "distill":
        return True
    made.parent.mkdir(parents=True, exist_ok=True)
    file = made.parent / f"{made.name}.again.yaml"
    file.write_text(write_yaml(record.config), encoding="utf-8")
    words = [record.job, "--config", str(file), "--quiet", *(["--overwrite"] if record.job == "distill" else [])]
    return railkd(words) == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""))
