"""Part "waits": the calls of quiet steps that make the host wait for the device, each with its line of code.

A quiet step does not log, save or evaluate. The part counts, from the end of one quiet step to the end of a later one:
synchronising CUDA calls (`torch.cuda.set_sync_debug_mode`), copies to the device from memory that is not pinned (a
stream waits before it starts one), and host reads (`tests/device/reads.py`; on any device).
`copies.py` is the part that counts copies and CUDA calls by the profiler.
"""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import sides
import torch
from context import Context
from material import Pair, scratch
from record import failure
from steps import BASE
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from device.reads import COPIES, HostReads, reader
from railkd.objectives import METHODS

WARM, COUNTED = 4, 8
#: Counted in any case; the other methods while there is time.
FIRST = (BASE, "finetune", "kd", "rail-kd-l", "rail-kd-l, accumulated", "kd, live teacher")
#: Of railkd's own lines there shall be none of these.
OWN = ("synchronising calls a step", "copies from unpinned memory a step")
PROFILED = (BASE, "finetune", "kd", "rail-kd-l")
#: Trains by name, with context managers around the quiet steps.
Run = Callable[..., None]


class Window(TrainerCallback):
    """Opens context managers at the end of a step and closes them at the end of a later one."""

    def __init__(self, *inside: Any) -> None:
        self.inside, self.steps, self.stack = inside, 0, contextlib.ExitStack()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by Trainer."""
        if state.global_step == WARM:
            for manager in self.inside:
                self.stack.enter_context(manager)
        if state.global_step == WARM + COUNTED:
            self.stack.close()
            self.steps = COUNTED


class SyncWarnings:
    """Counts synchronising CUDA calls by (package, "file.py:line"); counts nothing on other devices."""

    def __init__(self) -> None:
        self.found: Counter[tuple[str, str]] = Counter()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> SyncWarnings:
        if torch.cuda.is_available():
            self._stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("always")
            warnings.showwarning = self._show
            torch.cuda.set_sync_debug_mode("warn")
        return self

    def __exit__(self, *error: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")
            self._stack.close()

    def _show(self, message: Any, *_: Any, **__: Any) -> None:
        if "synchronizing" in str(message):
            self.found[reader(2)] += 1


class UnpinnedCopies(TorchDispatchMode):
    """Counts copies from memory that is not pinned to a device, by (package, "file.py:line")."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func).removeprefix("aten.").split(".")[0]
        source = args[1] if name == "copy_" else args[0] if name == "_to_copy" else None
        if source is not None and source.device.type == "cpu" and result.is_cuda and not source.is_pinned():
            self.found[reader(2)] += 1
        return result


def measure(context: Context) -> None:
    """Count for plain fine-tuning, every method, a live teacher and gradient accumulation, on the smaller pair."""
    others: list[dict[str, Any]] = []
    with _stand(context) as run:
        for name in dict.fromkeys([*FIRST, *METHODS]):
            if name not in FIRST and (context.quick or context.over):
                break
            with noted(context, "waits", name) as results:
                results |= _counted(run, name, cuda=context.device.type == "cuda")
                if name in FIRST:
                    context.say(f"  {name}: {_line(results)}")
                    if name != BASE:
                        _hold(context, name, [results])
                else:
                    others.append(results)
    if others:
        _hold(context, f"the {len(others)} other methods together", others)


def _hold(context: Context, name: str, found: list[dict[str, Any]]) -> None:
    """Hold the calls and copies of railkd's own lines against none."""
    if context.device.type == "cuda":
        for what in OWN:
            own = sum(results[what].get("railkd", 0) for results in found)
            context.record.bar(f"{what.removesuffix(' a step')} of railkd in a quiet step, {name}", own, 0)


def measure_copies(context: Context) -> None:
    """Count copies and CUDA calls of quiet steps by the profiler; nothing on other devices."""
    if context.device.type != "cuda":
        context.note("copies", "skipped", "only a CUDA device has copies to count")
        return
    with _stand(context) as run:
        for name in PROFILED:
            with noted(context, "copies", name) as results:
                profile = _profiler()
                run(name, profile)
                results |= _events(profile)
                context.say(f"  {name}: {results}")


@contextlib.contextmanager
def _stand(context: Context) -> Iterator[Run]:
    """Yield what trains by name with context managers around its quiet steps."""
    pair = list(context.pairs.values())[-1]
    batch = context.size.batches[0]
    rows, cache = context.material(pair)
    with scratch() as folder:

        def run(name: str, *managers: Any) -> None:
            window = Window(*managers)
            with window.stack:  # closed after an error, too
                _trainer(pair, cache, rows, folder, batch, window, name).train()
            if window.steps != COUNTED:
                raise RuntimeError(f"expected {COUNTED} quiet steps, got {window.steps}")

        yield run


def _counted(run: Run, name: str, *, cuda: bool) -> dict[str, Any]:
    """Count all kinds in one training; where counting host reads fails, the other kinds alone."""
    reads, waits, copies = HostReads(), SyncWarnings(), UnpinnedCopies()
    try:
        run(name, waits, copies, reads)
        return _counts(reads, waits, copies, cuda)
    except Exception as error:
        if not cuda:
            raise
        waits, copies = SyncWarnings(), UnpinnedCopies()
        run(name, waits, copies)
        return _counts(HostReads(), waits, copies, cuda) | {"host reads": failure(error)}


@contextlib.contextmanager
def noted(context: Context, part: str, name: str) -> Iterator[dict[str, Any]]:
    """Write what is put into the dictionary, or what went wrong, into the record."""
    results: dict[str, Any] = {}
    try:
        yield results
    except Exception as error:
        results |= failure(error)
        context.say(f"  {name}: {results['error']}")
    finally:
        if context.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
        context.note(part, name, results)
        gc.collect()


def _trainer(pair: Pair, cache: Any, rows: Any, folder: Any, batch: int, window: Window, name: str) -> Any:
    settings: dict[str, Any] = {"max_steps": WARM + COUNTED + 1, "in_order": True}
    if name == BASE:
        return sides.plain(pair, rows, folder, batch, [window], **settings)
    method, _, how = name.partition(", ")
    settings |= {"method": method, "gauges": False, "gradient_accumulation_steps": 2 if how == "accumulated" else 1}
    teacher = sides.live_teacher(pair) if how == "live teacher" else None if method == "finetune" else cache
    return sides.ours(pair, teacher, rows, folder, batch, [window], **settings)


def _counts(reads: HostReads, waits: SyncWarnings, copies: UnpinnedCopies, cuda: bool) -> dict[str, Any]:
    """Everything by step."""
    packages = sorted({key[0] for key in (*reads.found, *waits.found, *copies.found)} | {"railkd"})
    results: dict[str, Any] = {
        "host reads a step": {who: reads.count(who) / COUNTED for who in packages},
        "host copies a step": {who: reads.count(who, COPIES) / COUNTED for who in packages},
        "reads by line": {f"{place} {name}": n / COUNTED for (_, name, place), n in sorted(reads.found.items())},
    }
    if cuda:
        for what, lines, found in zip(OWN, ("calls by line", "copies by line"), (waits, copies), strict=True):
            results[what] = {who: sum(n for (w, _), n in found.found.items() if w == who) / COUNTED for who in packages}
            results[lines] = {place: n / COUNTED for (_, place), n in sorted(found.found.items())}
    return results


def _line(results: dict[str, Any]) -> str:
    names = [name for name in OWN if name in results] or ["host reads a step"]
    return "; ".join(f"{name} { {who: n for who, n in results[name].items() if n} or 0 }" for name in names)


def _profiler() -> torch.profiler.profile:
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    return torch.profiler.profile(activities=activities)


def _events(profile: torch.profiler.profile) -> dict[str, Any]:
    """Copies, sets and CUDA calls a step, by name; kernels summed up."""
    counts: Counter[str] = Counter()
    for event in profile.events() or ():
        if event.name.startswith(("Memcpy", "Memset", "cuda", "cu")):
            counts[event.name.split("<")[0][:60]] += 1
    return {name: round(number / COUNTED, 2) for name, number in counts.most_common(16)}
