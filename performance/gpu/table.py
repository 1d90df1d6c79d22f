"""Print the section of docs/performance.md about a CUDA card, from a record of `run.py`.

    python performance/gpu/table.py performance/gpu/records/RECORD.json     # make gpu-table RECORD=...

Every figure comes from the record. It needs Python alone.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Results = dict[str, Any]
BASE = "transformers.Trainer"
PLAIN = "plain"
#: Ratios of the first table of steps; every other ratio stands in the second.
COLUMNS = (f"finetune / {BASE}", f"kd / {BASE}", f"rail-kd-l / {BASE}", "rail-kd-l / finetune")
WAITS = ("synchronising calls a step", "copies from unpinned memory a step", "host reads a step")


def section(record: Results, name: str) -> str:
    """Return the section as Markdown; ``name`` is the file of the record."""
    parts = [_title(record, name), _goals(record["bars"]), _gaps(record["parts"])]
    for part, write in (
        ("steps", _steps),
        ("waits", _waits),
        ("copies", _copies),
        ("memory", _memory),
        ("passes", _passes),
        ("jobs", _jobs),
    ):
        found = {what: row for what, row in record["parts"].get(part, {}).items() if isinstance(row, dict)}
        parts.append(write(found))
    if laws := record["parts"].get("laws", {}):
        parts.append(_laws(laws))
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(record: Results, name: str) -> str:
    known, settings = record["machine"], record["settings"]
    where = f"One {known['gpu']}" if record["settings"]["device"] == "cuda" else "A CPU, to try the program"
    text = (
        f"{where}; {known['processor']}, {known['cores']} cores; torch {known['torch']}, transformers "
        f"{known['transformers']}, Python {known['python']}. Measured by `make gpu` on {record['when'][:10]}, within "
        f"{settings['minutes']:g} minutes; record: `performance/gpu/records/{name}`. Models have random weights and "
        f'run in bfloat16 autocast. "{PLAIN}" is plain fine-tuning by transformers\' own Trainer with the same '
        "precision and optimizer. Intervals are 95 % bootstrap intervals over rounds."
    )
    text = "## On a CUDA card\n\n" + textwrap.fill(text, 140, break_long_words=False, break_on_hyphens=False)
    return text + ("\n\nTiny models and few steps: no figure here means anything." if settings["quick"] else "")


def _goals(bars: dict[str, Results]) -> str:
    missed = {what: row for what, row in bars.items() if not row["met"]}
    if not bars:
        return "No goal was measured."
    if not missed:
        return f"All {len(bars)} goals are met."
    lines = [f"{len(bars) - len(missed)} of {len(bars)} goals are met. These are missed:", ""]
    for what, row in missed.items():
        side = "at least" if "at least" in row else "at most"
        goal, (low, high) = row[side], row.get("interval_95", (None, None))
        doubt = low is not None and low <= goal <= high
        text = f"- {_plain(what)}: {row['value']:g}. The goal is {side} {goal:g}."
        lines.append(text + (f" The interval, {low:g} to {high:g}, includes the goal." if doubt else ""))
    return "\n".join(lines)


def _gaps(parts: dict[str, Results]) -> str:
    """Return a list of all that was not measured, with the reason."""
    lines = list(dict.fromkeys(_reasons(parts)))
    return "\n".join(["Not measured:", "", *lines]) if lines else ""


def _reasons(parts: dict[str, Results]) -> Iterator[str]:
    for part, results in parts.items():
        for what in ("error", "skipped"):
            if isinstance(results.get(what), str):
                yield f"- {part}: {results[what]}"
        for name, row in results.items():
            if isinstance(row, dict) and isinstance(row.get("error"), str):
                yield f"- {part}, {name}: {row['error']}"
            for side, why in row.get("not measured", {}).items() if isinstance(row, dict) else ():
                yield f"- {part}, {name}: {side}: {why['error'] if isinstance(why, dict) else why}"


def _steps(found: dict[str, Results]) -> str:
    found = {what: row for what, row in found.items() if "ratios" in row}
    if not found:
        return ""
    first = next(iter(found.values()))
    alike = (
        "take the same batches in the same order" if "warm-up steps" in first else "take batches in orders of their own"
    )
    head = (
        f"**One step**, from a warm cache. All sides {alike}, in turns of {first['steps a turn']} steps. A ratio is "
        f"the median over rounds.{_drift(found)}"
    )
    rows = [
        [
            name,
            f"{row['ms a step'].get(BASE, 0):.1f}",
            *(_ratio(row["ratios"].get(what)) for what in COLUMNS),
            str(_rounds(row["ratios"])),
        ]
        for name, row in found.items()
    ]
    text = head + "\n\n" + _table(["pair and batch", f"{PLAIN}, ms", *map(_plain, COLUMNS), "rounds"], rows)
    others = [
        [name, _plain(what), _ratio(ratio), str(ratio["rounds"])]
        for name, row in found.items()
        for what, ratio in row["ratios"].items()
        if what not in COLUMNS
    ]
    return text + ("\n\n" + _table(["pair and batch", "beside others", "ratio", "rounds"], others) if others else "")


def _drift(found: dict[str, Results]) -> str:
    """Return the largest difference between the first and the second half of the rounds, in words."""
    halves = [
        row["ratios"][what].get("halves", []) for row in found.values() for what in COLUMNS if what in row["ratios"]
    ]
    moved = [abs(first - second) for first, second in (half for half in halves if len(half) == 2)]
    return f" Between the first and second half of the rounds it moves by at most {max(moved):.3f}." if moved else ""


def _rounds(ratios: dict[str, Results]) -> int:
    return min((ratios[what]["rounds"] for what in COLUMNS if what in ratios), default=0)


def _waits(found: dict[str, Results]) -> str:
    columns = [what for what in WAITS if any(what in row for row in found.values())]
    rows = [
        [_plain(name), *(cell for what in columns for cell in _by_package(row.get(what, {})))]
        for name, row in found.items()
        if any(what in row for what in columns)
    ]
    if not rows:
        return ""
    head = "**What makes the host wait**, in a quiet step: by railkd's own lines, and by those of other libraries."
    names = [f"{what.removesuffix(' a step')}, {who}" for what in columns for who in ("railkd", "others")]
    return head + "\n\n" + _table(["training", *names], rows)


def _by_package(counts: dict[str, float]) -> tuple[str, str]:
    return f"{counts.get('railkd', 0):g}", f"{sum(n for who, n in counts.items() if who != 'railkd'):g}"


def _copies(found: dict[str, Results]) -> str:
    kinds = sorted({name for row in found.values() for name in row if name.startswith("Memcpy")})
    rows = [[_plain(name), *(f"{row.get(kind, 0):g}" for kind in kinds)] for name, row in found.items()]
    return "**Copies**, a quiet step:\n\n" + _table(["training", *kinds], rows) if kinds else ""


def _memory(found: dict[str, Results]) -> str:
    rows = [
        [
            name,
            *(f"{row['MB'].get(side, 0):.0f}" for side in (BASE, "finetune", "rail-kd-l")),
            *(f"{row['MB']['rail-kd-l'] / row['MB'][side]:.3f}" for side in ("finetune", BASE)),
        ]
        for name, row in found.items()
        if "MB" in row
    ]
    names = ["pair and batch", f"{PLAIN}, MB", "finetune, MB", "rail-kd-l, MB", "rail-kd-l / finetune"]
    return "**Peak of device memory**:\n\n" + _table([*names, f"rail-kd-l / {PLAIN}"], rows) if rows else ""


def _passes(found: dict[str, Results]) -> str:
    rows = [
        [
            name,
            *(f"{row['tokens a second'].get(what, 0):,}" for what in ("bare", "build")),
            *(_ratio(row["throughput / bare"].get(what)) for what in ("build", "alone")),
        ]
        for name, row in found.items()
        if "throughput / bare" in row
    ]
    names = ["pair", "bare forward passes, tokens/s", "`TeacherCache.build`, tokens/s", "build / bare"]
    names.append("build / bare, without identifying teacher and rows")
    return "**The teacher pass**, from tokenised rows:\n\n" + _table(names, rows) if rows else ""


def _jobs(found: dict[str, Results]) -> str:
    rows = [
        [
            name,
            str(row["pairs of jobs"]),
            _ratio(row),
            f"{row['loops']:g}",
            f"{row['seconds to build the cache']:.1f}",
            f"{sum(job['all'] for job in row['jobs']['plain']) / row['pairs of jobs']:.1f}",
        ]
        for name, row in found.items()
        if "ratio" in row
    ]
    if not rows:
        return ""
    head = "**Whole jobs**: methods on one cache, its building included, beside as many plain fine-tunings."
    names = ["pair", "jobs of each kind", "ratio", "training loops alone", "cache, s", "plain job, s"]
    return head + "\n\n" + _table(names, rows)


def _laws(laws: Results) -> str:
    if "passed" not in laws:
        return ""
    text = f"**Laws** (`tests/device` on the card): {laws['passed']} passed, {len(laws['failed'])} failed"
    return text + (f"; the run ended early: {laws['end']}." if "exit status 0" not in laws["end"] else ".")


def _ratio(row: Results | None) -> str:
    if row is None:
        return ""
    low, high = row["interval_95"]
    return f"{row['ratio']:.3f} ({low:.3f} to {high:.3f})"


def _plain(text: str) -> str:
    return re.sub(re.escape(BASE), PLAIN, text)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    print(section(json.loads(path.read_text(encoding="utf-8")), path.name), end="")
