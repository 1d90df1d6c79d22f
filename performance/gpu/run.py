"""Measure railkd on a CUDA card beside plain fine-tuning, and write a record: ratios first.

    python performance/gpu/run.py                                  # 8 minutes, record in performance/gpu/records
    python performance/gpu/run.py --device cpu --quick             # the same program with tiny models, about a minute
    python performance/gpu/run.py --parts steps waits --minutes 4  # some parts

Parts in their order: laws (tests/device on the device), steps, waits, passes, memory, jobs, copies. Each gets a share
of the time that is left, and the record is written after every result. A part that fails leaves its traceback there.
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

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: Part -> its weight in the time that is left to it and the parts after it.
PARTS = {"laws": 1.6, "steps": 3.6, "waits": 0.7, "passes": 0.6, "memory": 0.5, "jobs": 1.8, "copies": 0.3}
#: After the end of the time, until the process ends itself: a call of the device that hangs cannot be interrupted.
GRACE_S = 20.0


def main() -> int:
    """Parse the command line and run the parts; returns 1 when a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record (default: named after card and time, in records/)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny models and few steps: does the program run?")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    args = parser.parse_args()
    start = time.monotonic()
    faulthandler.dump_traceback_later(args.minutes * 60 + GRACE_S, exit=True)
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one card; Trainer would split batches over several
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    sys.path[:0] = [str(HERE), str(ROOT / "src"), str(ROOT / "tests")]
    return _run(args, start)


def _run(args: argparse.Namespace, start: float) -> int:
    import torch
    from context import Context
    from record import Record, failure, machine
    from transformers.utils import logging

    if args.device == "cuda" and not torch.cuda.is_available():
        print("torch finds no CUDA card here. Fix: run on a machine with one, or give --device cpu --quick.")
        return 2
    logging.set_verbosity_error()
    known = machine()
    out = args.out or HERE / "records" / f"{_slug(known['gpu'])}-{time.strftime('%Y-%m-%d-%H%M')}.json"
    copies = [Path(os.environ["OUT"]) / out.name] if os.environ.get("OUT") else []
    record = Record([out, *copies], device=args.device, quick=args.quick, minutes=args.minutes, parts=args.parts)
    record.save()  # is the place writable? Better to know now
    context = Context(torch.device(args.device), args.quick, record, start + args.minutes * 60)
    context.say(" | ".join(f"{name} {value}" for name, value in known.items()))
    failed = False
    for number, part in enumerate(args.parts):
        context.say(f"{part} (from second {time.monotonic() - start:.0f})")
        began = time.monotonic()
        try:
            with context.share(PARTS[part], sum(PARTS[name] for name in args.parts[number:])):
                importlib.import_module(part).measure(context)
        except Exception as error:
            failed = True
            record.part(part).update(failure(error))
            context.say(f"  {record.part(part)['traceback'][-800:]}")
        record.data.setdefault("seconds by part", {})[part] = round(time.monotonic() - began, 1)
        record.save()
    bars = record.data["bars"]
    context.say(f"bars met: {sum(row['met'] for row in bars.values())} of {len(bars)}; not met:")
    for what, row in bars.items():
        if not row["met"]:
            limit = f"at least {row['at least']}" if "at least" in row else f"at most {row['at most']}"
            context.say(f"  {what}: {row['value']} ({limit})")
    context.say(f"record: {out} ({time.monotonic() - start:.0f} s)")
    return int(failed)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # threads of trainings that hang would keep the process alive
