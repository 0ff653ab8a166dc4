"""A log that never keeps the process waiting that writes it, whether or not anybody reads it."""

import atexit
import logging
import logging.handlers
import queue
import sys
import threading
import time

_MOST_LINES = 10_000
_LAST_LINES_S = 0.5


def log_without_waiting() -> None:
    """Log to stderr from a thread: if nobody reads it, answers go on, and lost lines are counted."""
    lines: queue.Queue[logging.LogRecord] = queue.Queue(_MOST_LINES)
    counting = _Counting(lines)
    counting.setFormatter(logging.Formatter("%(asctime)s %(process)d %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[counting], force=True)
    writing = (lines, logging.StreamHandler(sys.stderr))
    threading.Thread(target=_write, args=writing, name="log", daemon=True).start()
    atexit.register(_written, lines)


def _write(lines: "queue.Queue[logging.LogRecord]", handler: logging.Handler) -> None:
    while True:
        handler.handle(lines.get())
        lines.task_done()


def _written(lines: "queue.Queue[logging.LogRecord]") -> None:
    """Return when all lines are written, or nobody reads them."""
    deadline_s = time.monotonic() + _LAST_LINES_S
    while lines.unfinished_tasks and time.monotonic() < deadline_s:
        time.sleep(0.005)


class _Counting(logging.handlers.QueueHandler):
    """Puts lines into a queue; those for which there is no room are counted, and the next one says so."""

    lost = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        if self.lost:
            record.msg = f"({self.lost} lines lost, as nobody read this) {record.msg}"
        try:
            self.queue.put_nowait(record)
            self.lost = 0
        except queue.Full:
            self.lost += 1
