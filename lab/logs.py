"""A log that never keeps its writer waiting, whether or not anybody reads it."""

import atexit
import contextlib
import logging
import logging.handlers
import os
import queue
import threading
import time

_MOST_LINES = 10_000
_LAST_LINES_S = 0.5


def log_without_waiting() -> None:
    """Log to stderr from a thread: if nobody reads it, work goes on, and lost lines are counted."""
    lines: queue.Queue[str] = queue.Queue(_MOST_LINES)
    counting = _Counting(lines)
    counting.setFormatter(logging.Formatter("%(asctime)s %(process)d %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[counting], force=True)
    threading.Thread(target=_write, args=(lines,), name="log", daemon=True).start()
    atexit.register(_written, lines)


def _write(lines: "queue.Queue[str]") -> None:
    while True:
        line = f"{lines.get()}\n".encode(errors="replace")
        with contextlib.suppress(OSError):
            os.write(2, line)  # sys.stderr has a lock, for which the end of the process would wait
        lines.task_done()


def _written(lines: "queue.Queue[str]") -> None:
    """Return when all lines are written, or nobody reads them."""
    deadline_s = time.monotonic() + _LAST_LINES_S
    while lines.unfinished_tasks and time.monotonic() < deadline_s:
        time.sleep(0.005)


class _Counting(logging.handlers.QueueHandler):
    """Puts lines into a queue; counts those without room, and says so in the next one."""

    lost = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        lost = f"({self.lost} lines lost, as nobody read this) " if self.lost else ""
        try:
            self.queue.put_nowait(lost + record.getMessage())
            self.lost = 0
        except queue.Full:
            self.lost += 1
