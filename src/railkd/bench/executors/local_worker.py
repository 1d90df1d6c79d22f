"""A worker process that runs one job after another: python -m railkd.bench.executors.local_worker OUTPUT THREADS.

It reads a job from each line of standard input and writes an answer to a line of standard output, both as JSON. What a
job prints goes to the job's log. When the bench ends in any way, its end of the pipe closes and the worker exits.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading

from railkd.runtime.temporary import delete_temporary_folders


def main(output: str, threads: int) -> None:
    """Run jobs until standard input closes.

    Args:
        output: the bench's folder.
        threads: of this process.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # Keeps the prints of libraries out of the answers.
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_input, args=(lines,), daemon=True).start()

    from railkd.bench import attempt
    from railkd.bench.plan import Job

    attempt.set_threads(threads)
    while True:
        job = Job.from_plain(json.loads(lines.get()))
        with attempt.logged(job, output):
            error = attempt.run(job, output)
        answers.write(json.dumps({"error": error}) + "\n")
        answers.flush()


def _read_input(lines: queue.Queue[str]) -> None:
    """Queue the lines of standard input; exit when it closes, even in the middle of a job."""
    for line in sys.stdin:
        lines.put(line)
    delete_temporary_folders()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
