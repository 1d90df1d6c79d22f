"""The committed records of a study, and its models' right answers, row by row.

``records/NAME.jsonl.gz`` holds the records of a bench, ``records/NAME.right.json.gz`` which rows each model got right.
``python studies/cells.py NAME`` writes both from the bench in studies/work/NAME.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
import tempfile
from pathlib import Path

from railkd.records import RunRecord, read_lines

STUDIES = Path(__file__).resolve().parent
RECORDS = STUDIES / "records"
#: Run folder -> set -> one character a row: 1 if the model was right, 0 if it was wrong.
Right = dict[str, dict[str, str]]


def read_records(study: str, records: Path = RECORDS) -> list[RunRecord]:
    """Return the committed records of a study."""
    file = records / f"{study}.jsonl.gz"
    if not file.exists():
        there = ", ".join(sorted(path.name.removesuffix(".jsonl.gz") for path in records.glob("*.jsonl.gz")))
        raise SystemExit(f"No records of '{study}'. There are records of: {there or 'no study'}.")
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / f"{study}.jsonl"
        plain.write_bytes(gzip.decompress(file.read_bytes()))
        return [record for record in read_lines(plain) if record.state == "finished"]


def read_right(study: str, records: Path = RECORDS) -> Right:
    """Return the right answers of a study's models."""
    found: Right = json.loads(gzip.decompress((records / f"{study}.right.json.gz").read_bytes()))
    return found


def cell_of(record: RunRecord) -> str:
    """Return the name of a student's cell: task, student, arm and seed."""
    return ",".join([record.task, record.student, record.arm, str(record.seed)])


def collect(study: str, output: Path, records: Path = RECORDS) -> None:
    """Write the records and right answers of a bench. Its paths become those of a bench in studies/work."""
    lines = (output / "records.jsonl").read_text(encoding="utf-8").replace(str(output), f"studies/work/{study}")
    right: Right = {}
    for record in read_lines(output / "records.jsonl"):
        for name, file in record.predictions.items() if record.state == "finished" else ():
            with (output / record.folder / file).open(encoding="utf-8", newline="") as rows:
                answers = ["1" if row["gold"] == row["label"] else "0" for row in csv.DictReader(rows, delimiter="\t")]
            right.setdefault(record.folder, {})[name] = "".join(answers)
    records.mkdir(exist_ok=True)
    for name, text in ((f"{study}.jsonl.gz", lines), (f"{study}.right.json.gz", json.dumps(right))):
        (records / name).write_bytes(gzip.compress(text.encode(), mtime=0))
        print(f"written: {records / name}")


if __name__ == "__main__":
    collect(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else STUDIES / "work" / sys.argv[1])
