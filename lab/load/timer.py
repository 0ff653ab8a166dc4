"""A timer that is not late: epoll counts in milliseconds, a Linux timerfd in nanoseconds."""

import asyncio
import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """Calls back once for each time it was set."""

    def set(self, when_s: float) -> None:
        """Call back at `when_s` on the clock of `time.monotonic`, at once if that has passed."""

    def close(self) -> None:
        """Call back no more."""


def timer(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> Timer:
    """Return the most precise timer that this system has."""
    return _TimerFd(loop, callback) if sys.platform == "linux" else _LoopTimer(loop, callback)


class _LoopTimer:
    """The event loop's own timer, for systems without a timerfd."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop, self._callback = loop, callback
        self._handle: asyncio.TimerHandle | None = None

    def set(self, when_s: float) -> None:
        self.close()
        self._handle = self._loop.call_later(max(0.0, when_s - time.monotonic()), self._callback)

    def close(self) -> None:
        if self._handle:
            self._handle.cancel()


class _TimerFd:
    """A timerfd with absolute times, read by the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop, self._callback = loop, callback
        self._fd = _create()
        loop.add_reader(self._fd, self._expired)

    def set(self, when_s: float) -> None:
        _set(self._fd, int(when_s * 1e9) + 1)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _expired(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it was set anew since it expired
            os.read(self._fd, 8)
            self._callback()


if sys.version_info >= (3, 13) and sys.platform == "linux":

    def _create() -> int:
        return os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)

    def _set(fd: int, when_ns: int) -> None:
        os.timerfd_settime_ns(fd, flags=os.TFD_TIMER_ABSTIME, initial=when_ns)

else:

    class _ITimerSpec(ctypes.Structure):
        """struct itimerspec of timerfd_settime(2): interval and first expiry, in seconds and nanoseconds."""

        _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns")]

    _ABSOLUTE = 1  # TFD_TIMER_ABSTIME

    def _create() -> int:
        fd = _libc().timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        return int(fd)

    def _set(fd: int, when_ns: int) -> None:
        at_s, at_ns = divmod(when_ns, 1_000_000_000)
        if _libc().timerfd_settime(fd, _ABSOLUTE, ctypes.byref(_ITimerSpec(0, 0, at_s, at_ns)), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def _libc() -> ctypes.CDLL:
        return _LIBC

    _LIBC = ctypes.CDLL(None, use_errno=True)
