"""A process that does one job after another: python -m railkd.bench.local_worker OUTPUT THREADS.

A job a line on standard input, as JSON; an answer a line on standard output. Whatever a job prints goes to its log.
When the bench is gone, however it went, its end of the pipe closes, and the worker ends with it.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading


def main(output: str, threads: int) -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library that prints must not speak to the bench
    asked: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()

    from railkd.bench import attempt
    from railkd.bench.plan import Job

    attempt.prepare(threads)
    while True:
        error = attempt.logged(Job.from_plain(json.loads(asked.get())), output)
        answers.write(json.dumps({"error": error}) + "\n")
        answers.flush()


def _listen(asked: queue.Queue[str]) -> None:
    for line in sys.stdin:
        asked.put(line)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
