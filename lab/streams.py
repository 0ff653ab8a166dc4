"""Standard streams, which may be closed, full, read by nobody, or unable to show a character.

What a command says: results on stdout, all else on stderr. What a process logs, without waiting for a reader.
"""

import atexit
import codecs
import contextlib
import io
import logging
import logging.handlers
import os
import queue
import stat
import sys
import threading
import time
import unicodedata

from lab.errors import LabError, one_line, shown

_PLAIN = str.maketrans({"µ": "u", "–": "-"})
"""Substitutes for our own characters that cannot be shown."""

_UNDECODED = range(0xDC80, 0xDD00)
"""How Python represents a byte of a file name that is not text."""


def guard_standard_streams() -> None:
    """Open any closed standard stream on /dev/null.

    Otherwise the next file or socket would take its number, and logging would write to it.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115  (open for as long as the process lives)
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115


def show_what_can_be_shown() -> None:
    """Show the nearest character if the terminal lacks one, rather than lose the result over it."""
    codecs.register_error("lab-nearest", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="lab-nearest")


def _nearest(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    if all(ord(char) in _UNDECODED for char in text):
        return bytes(ord(char) - 0xDC00 for char in text), error.end
    plain = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    return plain.encode("ascii", "replace").decode(), error.end


def write_out(text: object) -> None:
    """Print a result, but no control character: part of it may come from elsewhere.

    Raises LabError if stdout refuses it, as on a full disk.
    """
    try:
        print(shown(text), flush=True)
    except BrokenPipeError:
        raise  # the reader is gone: click exits silently
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise LabError(
            f"cannot write to stdout: {reason}; free some space there, or send it elsewhere"
        ) from None


def tell(text: object) -> None:
    """Print one line on stderr. If that fails, the work goes on all the same."""
    with contextlib.suppress(OSError):
        print(one_line(text), file=sys.stderr, flush=True)


_MOST_LINES = 10_000
_LAST_LINES_S = 0.5


def log_without_waiting() -> None:
    """Log to stderr, at once if it is a file. Else a thread does: if nobody reads it, work goes on, and lost
    lines are counted."""
    handler: logging.Handler
    if stat.S_ISREG(os.fstat(2).st_mode):
        handler = _Direct()
    else:
        lines: queue.Queue[str] = queue.Queue(_MOST_LINES)
        handler = _Counting(lines)
        threading.Thread(target=_write_log, args=(lines,), name="log", daemon=True).start()
        atexit.register(_wait_for_log, lines)
    # What no line shows need not be found out for each: see "Optimization" in the HOWTO of logging.
    logging._srcfile = None
    logging.logThreads = logging.logMultiprocessing = False
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _write_line(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="replace"))  # sys.stderr's lock may never be free


def _write_log(lines: "queue.Queue[str]") -> None:
    while True:
        _write_line(lines.get())
        lines.task_done()


def _wait_for_log(lines: "queue.Queue[str]") -> None:
    """Return when all lines are written, or nobody reads them."""
    deadline_s = time.monotonic() + _LAST_LINES_S
    while lines.unfinished_tasks and time.monotonic() < deadline_s:
        time.sleep(0.005)


class _Direct(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            _write_line(self.format(record))
        except Exception:  # as all handlers do: what cannot be written is no reason to fail
            self.handleError(record)


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
