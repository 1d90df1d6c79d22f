"""Measure railkd on a CUDA card beside plain fine-tuning, and write a record: ratios first.

    python performance/gpu/run.py                                  # 7 minutes, record in performance/gpu/records
    python performance/gpu/run.py --device cpu --quick             # the same program with tiny models, about a minute
    python performance/gpu/run.py --parts steps waits --minutes 4  # some parts

Parts in their order: waits, steps, laws (tests/device on the device), memory, passes, jobs, copies. Each has a cap in
seconds, except "steps", which gets what the caps leave. The record is written after every result. A part that fails
leaves its traceback there.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MINUTES = 7.0
#: Part -> its most seconds in a run of `MINUTES`, less in a shorter one; None: what the caps of later parts leave.
CAPS = {"waits": 25.0, "steps": None, "laws": 45.0, "memory": 15.0, "passes": 25.0, "jobs": 60.0, "copies": 12.0}
#: A part that would get less is skipped.
LEAST_S = 4.0
#: Of the summary that is printed at the end.
MOST_CHARACTERS = 5000
#: After the end of the time, until the process ends itself: a call of the device that hangs cannot be interrupted.
GRACE_S = 20.0


def main() -> int:
    """Parse the command line and run the parts; returns 1 when a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record (default: named after card and time, in records/)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny models and few steps: does the program run?")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all parts together")
    parser.add_argument("--parts", nargs="+", choices=list(CAPS), default=list(CAPS))
    args = parser.parse_args()
    start = time.monotonic()
    faulthandler.dump_traceback_later(args.minutes * 60 + GRACE_S, exit=True)
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one card; Trainer would split batches over several
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    sys.path[:0] = [str(HERE), str(ROOT / "src"), str(ROOT / "tests")]
    sys.path.append(str(ROOT / "performance"))  # last, because it has a `sides` too
    return _run(args, start)


def _run(args: argparse.Namespace, start: float) -> int:
    try:
        import torch
        from context import Context
        from material import scratch
        from record import Record, machine
        from table import section
        from transformers.utils import logging
    except ImportError as error:
        print(
            f"This Python lacks a package that railkd needs: {error}. Fix: run make gpu-wheels where there is a "
            "network, and bring the folder .whl."
        )
        return 2

    if args.device == "cuda" and not torch.cuda.is_available():
        print("torch finds no CUDA card here. Fix: run on a machine with one, or give --device cpu --quick.")
        return 2
    logging.set_verbosity_error()
    known = machine()
    out = args.out or HERE / "records" / f"{_slug(known['gpu'])}-{time.strftime('%Y-%m-%d-%H%M')}.json"
    copies = [Path(os.environ["OUT"]) / out.name] if os.environ.get("OUT") else []
    record = Record([out, *copies], device=args.device, quick=args.quick, minutes=args.minutes, parts=args.parts)
    record.save()  # is the place writable? Better to know now
    with scratch() as folder:
        context = Context(torch.device(args.device), args.quick, record, start + args.minutes * 60, folder)
        context.say(" | ".join(f"{name} {value}" for name, value in known.items()))
        failed = [part for number, part in enumerate(args.parts) if not _measure(context, args, number, start)]
    record.data["seconds"] = round(time.monotonic() - start)
    record.save()
    print("\n" + section(record.data, out.name)[:MOST_CHARACTERS])
    context.say(f"record: {out} ({time.monotonic() - start:.0f} s)")
    return int(bool(failed))


def _measure(context: Any, args: argparse.Namespace, number: int, start: float) -> bool:
    """Measure one part within its cap; False: it failed."""
    from record import failure

    part, record, began = args.parts[number], context.record, time.monotonic()
    scale = min(1.0, args.minutes / MINUTES)
    left = context.ends - began
    cap = CAPS[part]
    seconds = left - scale * sum(CAPS[later] or 0 for later in args.parts[number + 1 :]) if cap is None else scale * cap
    if min(left, seconds) < LEAST_S:
        context.note(part, "skipped", "no time was left")
        context.say(f"{part}: skipped, no time was left")
        return True
    context.say(f"{part} (from second {began - start:.0f}, at most {min(left, seconds):.0f} s)")
    try:
        with context.within(seconds):
            importlib.import_module(part).measure(context)
    except Exception as error:
        record.part(part).update(failure(error))
        context.say(f"  {record.part(part)['traceback'][-800:]}")
        return False
    finally:
        record.data.setdefault("seconds by part", {})[part] = round(time.monotonic() - began, 1)
        record.save()
    return True


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # threads of trainings that hang would keep the process alive
