"""No process outlives the one that started it: a thread waits for the channel's other end to close."""

import os
import select
import signal
import threading
from collections.abc import Callable


def tie(fd: int) -> None:
    """End this process, and the group that it leads, as soon as who holds the other end of `fd` is gone."""
    on_hang_up(fd, _end)


def on_hang_up(fd: int, act: Callable[[], None]) -> None:
    """Act when the other end of a pipe, socket or terminal is closed; nothing is read from it.

    A thread does it, because an event loop is deaf while the hot loop blocks it.
    """

    def wait() -> None:
        _hang_up(fd, timeout_ms=None)
        act()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def is_hung_up(fd: int) -> bool:
    """Return whether there is nobody at the other end of `fd`, or no such descriptor."""
    return _hang_up(fd, timeout_ms=0)


def _hang_up(fd: int, timeout_ms: int | None) -> bool:
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(timeout_ms))


def _end() -> None:
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
