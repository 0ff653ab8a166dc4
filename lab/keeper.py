"""The keeper: a process of ours above a foreign program, so that nothing of that program is left behind.

It is the program's parent, passes signals on to it, and ends as it ends. When the program has ended, or the
starter is gone, it kills all that the program has started. That includes what left its process group, because
orphans become the keeper's own children (Linux). Only `kill -9` of both starter and keeper leaves a program.
Of a starter that is gone without a farewell, it also removes the files that were for it alone.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from lab.channel import Channel
from lab.processes import end_with_group, is_hung_up, on_hang_up
from lab.streams import guard_standard_streams

_GONE_WITHIN_S = 1.5
"""How long killed processes may take to be gone, before our starter loses patience."""

_PASSED_ON = "HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "TTIN", "TTOU", "WINCH"

_BECOME_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER, from <linux/prctl.h>."""


def main(text: str) -> None:
    """Run the program that the first message names; report that it runs, and finally what it cost."""
    guard_standard_streams()
    channel = Channel.adopt(json.loads(text)["channel"])
    leftovers: list[str] = []
    _adopt_orphans()
    on_hang_up(channel.fileno(), lambda: _end_all(channel, leftovers))
    order = channel.next()
    leftovers += order["leftovers"]
    running: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: object) -> None:
        for program in running:
            program.send_signal(number)

    for name in _PASSED_ON:  # before the start: a program starts out ignoring what its parent ignores
        signal.signal(signal.Signals[f"SIG{name}"], pass_on)
    try:
        running.append(_popen(order))
    except OSError as error:
        channel.tell({"failed": (error.strerror or str(error)).lower()})
        sys.exit(127)
    channel.tell({"started": running[0].pid})
    status = running[0].wait()
    if is_hung_up(channel.fileno()):
        threading.Event().wait()  # the program was killed by `_end_all`, which has not finished
    _end_descendants()
    channel.tell({"cpu_s": _cpu_s()})
    _end_like(status)


def _popen(order: dict[str, Any]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        order["command"], stdin=subprocess.DEVNULL, cwd=order["cwd"], env=order["env"], pass_fds=order["fds"]
    )


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_BECOME_SUBREAPER, 1, 0, 0, 0)


def _end_all(channel: Channel, leftovers: Iterable[str]) -> None:
    _end_descendants()
    _cpu_s()  # what they spent is then part of what we did, to a starter that counts
    try:
        channel.next(timeout_s=0)  # the farewell of a starter that removes them itself
    except (EOFError, OSError):
        _remove(leftovers)
    end_with_group()


def _remove(leftovers: Iterable[str]) -> None:
    for path in map(Path, leftovers):
        with contextlib.suppress(OSError):
            path.unlink()
        shutil.rmtree(path, ignore_errors=True)


def _end_descendants() -> None:
    """Kill all descendants, and what they start meanwhile, until none is left or time is up."""
    deadline_s = time.monotonic() + _GONE_WITHIN_S
    while (left := _living_descendants()) and time.monotonic() < deadline_s:
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.002)


def _living_descendants() -> list[psutil.Process]:
    living = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living


def _cpu_s() -> float:
    """Return the CPU seconds of all descendants, once they are gone: the system counts those waited for.

    Of a killed process with threads, the last takes a moment longer to end than the first.
    """
    deadline_s = time.monotonic() + _GONE_WITHIN_S
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline_s:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.002)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _end_like(status: int) -> None:
    """End with the program's status, or by its signal, though without another core dump."""
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):  # SIGKILL cannot be handled
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1])
