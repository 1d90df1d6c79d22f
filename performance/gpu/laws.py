"""Part "laws": the tests of tests/device on the device, by pytest in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from context import Context
from material import scratch
from record import ROOT

#: Whatever versions and plugins of pytest a bare machine has: its warnings are no failures of ours.
OPTIONS = ("-q", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "minversion=0", "-o", "filterwarnings=")
OPTIONS += ("--import-mode=importlib", "--continue-on-collection-errors", "--tb=short", "-W", "ignore")


def measure(context: Context) -> None:
    """Run the laws until they end or their time is over, and note every outcome."""
    with scratch() as folder:
        report = folder / "laws.xml"
        command = [sys.executable, "-m", "pytest", *OPTIONS, f"--junitxml={report}", str(ROOT / "tests" / "device")]
        # cuBLAS is deterministic only with this, and reads it before its first call.
        environment = os.environ | {
            "RAILKD_TEST_DEVICE": context.device.type,
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
            "PYTHONUNBUFFERED": "1",
        }
        start = time.monotonic()
        with (folder / "output").open("w+", encoding="utf-8", errors="replace") as output:
            tests = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
            end = _end(tests, max(20.0, context.deadline - start))
            output.seek(0)
            tail = output.read()[-6000:].replace(f"{ROOT}{os.sep}", "")
        results = (_outcomes(report) if report.is_file() else _dots(tail)) | {
            "end": end,
            "seconds": round(time.monotonic() - start, 1),
        }
    if end != "exit status 0":
        results["output"] = tail
    context.record.part("laws").update(results)
    cut = "exit" not in end and not results["failed"]
    what = f"laws that failed ({results['passed']} passed" + (", then the time was over)" if cut else ")")
    context.record.bar(what, len(results["failed"]) + (end != "exit status 0" and not results["failed"]), 0)
    context.record.save()
    context.say(f"  {results['passed']} passed, {len(results['failed'])} failed, {results['skipped']} skipped; {end}")
    for name, why in list(results["failed"].items())[:20]:
        context.say(f"  FAILED {name}: {why[:200]}")
    if not results["passed"]:
        context.say(tail[-1500:])


def _end(tests: subprocess.Popen[bytes], limit: float) -> str:
    """Wait for the tests; interrupt them when their time is over, so that pytest still writes its report."""
    for signal_number, seconds in ((signal.SIGINT, limit), (signal.SIGKILL, 10.0)):
        try:
            status = tests.wait(timeout=seconds)
            return f"exit status {status}" if signal_number == signal.SIGINT else f"interrupted after {limit:.0f} s"
        except subprocess.TimeoutExpired:
            tests.send_signal(signal_number)
    tests.wait()
    return f"killed after {limit:.0f} s"


def _dots(output: str) -> dict[str, Any]:
    """Count outcomes where pytest was killed before it wrote a report: by the letters of its progress lines."""
    letters = "".join(re.findall(r"^[.sxXFE]+(?= *(?:\[ *\d+%\])?$)", output, re.MULTILINE))
    failed = {f"test {n + 1}": "no report was written" for n, letter in enumerate(letters) if letter in "FE"}
    return {"passed": letters.count("."), "skipped": letters.count("s"), "failed": failed, "slowest": {}}


def _outcomes(report: Path) -> dict[str, Any]:
    """Count outcomes; name what failed with the last line of its message."""
    results: dict[str, Any] = {"passed": 0, "skipped": 0, "failed": {}, "slowest": {}}
    times: dict[str, float] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"
        times[name] = float(case.get("time", 0))
        wrong = next((part for part in case if part.tag in ("failure", "error")), None)
        if wrong is not None:
            results["failed"][name] = (wrong.get("message") or "").strip()[:600]
        else:
            results["skipped" if case.find("skipped") is not None else "passed"] += 1
    slowest = sorted(times, key=lambda name: -times[name])[:5]
    results["slowest"] = {name: round(times[name], 1) for name in slowest}
    return results
