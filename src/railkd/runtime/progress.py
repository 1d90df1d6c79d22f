"""Show the progress of a job: a live bar for each phase on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from railkd.runtime.launcher import is_first_process
from railkd.runtime.words import duration, visible

#: Called with (items done, items in total).
Advance = Callable[[int, int], None]
_SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def bar(title: str, unit: str, *, quiet: bool = False, lines: bool = True) -> Iterator[Advance]:
    """Show the progress of a phase on standard error.

    A terminal gets a bar with rate and time left, anything else a line every 15 seconds.

    Args:
        title: name of the phase.
        unit: what is counted, in the plural, such as "examples".
        quiet: show nothing.
        lines: print lines where there is no terminal; otherwise show nothing there.

    Yields:
        A function to call with (items done, items in total).
    """
    if quiet or not is_first_process():
        yield lambda done, total: None
        return
    console = Console(stderr=True)
    start, title = time.perf_counter(), visible(title)
    if not console.is_terminal and not lines:
        yield lambda done, total: None
        return
    if not console.is_terminal:
        last = start

        def line(done: int, total: int) -> None:
            nonlocal last
            now = time.perf_counter()
            if now - last >= _SECONDS_BETWEEN_LINES or done == total:
                last = now
                rate = done / max(now - start, 1e-9)
                left = f", {duration((total - done) / max(rate, 1e-9))} left" if done < total else ""
                print(f"{title}: {done:,} of {total:,} {unit}, {rate:,.1f} {unit}/s{left}", file=sys.stderr, flush=True)

        yield line
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as display:
        task = display.add_task(title, total=None, rate="")

        def move(done: int, total: int) -> None:
            rate = done / max(time.perf_counter() - start, 1e-9)
            display.update(task, completed=done, total=total, rate=f"{rate:,.1f} {unit}/s")

        yield move


@contextmanager
def tqdm_bar(title: str, unit: str, total: int) -> Iterator[Advance]:
    """Show the progress of a phase to a caller in Python: a bar in a notebook and on a terminal, nothing elsewhere.

    Args:
        title: name of the phase.
        unit: what is counted, in the plural.
        total: how many; without any there is no bar.

    Yields:
        A function to call with (items done, items in total).
    """
    from tqdm.auto import tqdm

    # None: tqdm shows nothing unless it writes to a terminal or a notebook.
    hidden = True if total == 0 or not is_first_process() else None
    with tqdm(total=total, desc=title, unit=f" {unit}", disable=hidden) as shown:
        yield lambda done, _total: shown.update(done - shown.n)
