"""The open loop: each request leaves when it is due, whatever became of those before it.

A late request is sent at once, never skipped or re-timed. Latency and the timeout both count from the due
time, so neither a late generator nor a wait for a free slot can flatter the server.
"""

import asyncio
import contextlib
import ctypes
import os
import ssl
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from lab.load.connection import Connection
from lab.load.log import Log, Outcome, classify
from lab.load.target import Assignment


class Timer(Protocol):
    """Calls back once each time it is set."""

    def set(self, when_s: float) -> None:
        """Call back at `when_s` on the clock of `time.monotonic`, at once if that has passed."""

    def close(self) -> None:
        """Stop calling back."""


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
        with contextlib.suppress(BlockingIOError):  # it was set again after it expired
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


class Sender:
    """Sends the requests of one schedule, inside a running event loop; `run` returns when all have ended."""

    def __init__(self, assigned: Assignment, due_s: "array[float]", log: Log, start_s: float) -> None:
        self.log = log
        self.errors: Counter[str] = Counter()
        self.warmup_errors: Counter[str] = Counter()
        self.outcomes: Counter[Outcome] = Counter()  # of those that have ended
        self.unreadable = 0  # answers outside the warm-up whose Server-Timing or X-Worker is not a number
        self.recent_s: list[float] = []  # latencies since they were last taken, if progress is asked for
        self.sent = 0
        self._assigned, self._due_s, self._start_s = assigned, due_s, start_s
        self._next = 0
        self._in_flight: dict[int, Connection] = {}  # in the order of their due times
        self._waiting: deque[int] = deque()  # for a slot
        self._idle: dict[Connection, None] = {}  # used last, first out
        self.all_sent = asyncio.Event()  # or dropped
        self._all_ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._timer = timer(self._loop, self._send_what_is_due)
        self._expiry: asyncio.TimerHandle | None = None
        self._tls = _tls(assigned)

    async def run(self) -> None:
        """Send everything, and wait for each answer until its timeout."""
        self._set_timer()
        await self._all_ended.wait()
        self._timer.close()
        if self._expiry:
            self._expiry.cancel()
        for connection in self._idle:
            connection.close()

    def stop(self) -> None:
        """End now: unsent requests stay dropped, unanswered ones unfinished."""
        self._next = len(self._due_s)
        self._waiting.clear()
        for connection in self._in_flight.values():
            connection.close()
        self._in_flight.clear()
        self._all_ended.set()

    @property
    def in_flight(self) -> int:
        """How many requests are sent but not ended."""
        return len(self._in_flight)

    def now_s(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._start_s

    def _set_timer(self) -> None:
        if self._next < len(self._due_s):
            self._timer.set(self._start_s + self._due_s[self._next])

    def _send_what_is_due(self) -> None:
        now_s, due_s = self.now_s(), self._due_s
        while self._next < len(due_s) and due_s[self._next] <= now_s:
            request, self._next = self._next, self._next + 1
            if self._has_slot():
                self._send(request)
            else:
                self._waiting.append(request)
                self.log.waited[request] = 1
        if self._expiry is None:
            self._expire()
        self._set_timer()
        self._finish_if_last()

    def _has_slot(self) -> bool:
        return self._assigned.in_flight is None or len(self._in_flight) < self._assigned.in_flight

    def _send(self, request: int) -> None:
        self.log.sent_s[request] = self.now_s()
        self.log.outcome[request] = Outcome.UNFINISHED
        self.sent += 1
        if self._idle:
            connection, _ = self._idle.popitem()
        else:
            connection = Connection(self, self._assigned.payload, without_body=self._assigned.without_body)
            connection.connecting = self._loop.create_task(self._connect(connection))
        self._in_flight[request] = connection
        connection.begin(request)

    async def _connect(self, connection: Connection) -> None:
        to = self._assigned
        try:
            await self._loop.create_connection(
                lambda: connection, to.address, to.port, ssl=self._tls, server_hostname=to.server_name
            )
        except OSError as error:
            connection.connecting = None
            connection.end(*classify(error))

    def ended(self, connection: Connection, request: int, outcome: Outcome, error: str) -> None:
        """Log what became of a request, keep or close its connection, and send what waits for its slot."""
        del self._in_flight[request]
        self._write_down(connection, request, outcome, error)
        if self._assigned.keepalive and connection.reusable and len(self._idle) < self._assigned.connections:
            self._idle[connection] = None
        else:
            connection.close()
        while self._waiting and self._has_slot():
            self._send(self._waiting.popleft())
        self._finish_if_last()

    def lost(self, connection: Connection) -> None:
        """Forget an idle connection that was closed."""
        self._idle.pop(connection, None)

    def _write_down(self, connection: Connection, request: int, outcome: Outcome, error: str) -> None:
        answer, log = connection.answer, self.log
        log.end_s[request] = end_s = self.now_s()
        log.outcome[request] = outcome
        log.status[request] = answer.status
        log.service_s[request] = answer.service_s
        log.service_cpu_s[request] = answer.service_cpu_s
        log.worker[request] = answer.worker
        log.bytes_in[request] = answer.bytes_in
        self.outcomes[outcome] += 1
        if answer.unreadable and self._due_s[request] >= 0:
            self.unreadable += 1
        if error:
            self._count(error, request)
        if self._assigned.progress:
            self.recent_s.append(end_s - self._due_s[request])

    def _count(self, error: str, request: int) -> None:
        (self.errors if self._due_s[request] >= 0 else self.warmup_errors)[error] += 1

    def _finish_if_last(self) -> None:
        if self._next == len(self._due_s) and not self._waiting:
            self.all_sent.set()
            if not self._in_flight:
                self._all_ended.set()

    def _expire(self) -> None:
        """End what has reached its timeout. The oldest comes first, so one timer serves all."""
        expired_s = self.now_s() - self._assigned.timeout_s
        while self._waiting and self._due_s[self._waiting[0]] <= expired_s:
            self._count("no slot came free within the timeout", self._waiting.popleft())
            self.outcomes[Outcome.DROPPED] += 1
        while self._in_flight and self._due_s[oldest := next(iter(self._in_flight))] <= expired_s:
            connection = self._in_flight[oldest]
            before = "the answer was complete" if connection.connected else "it was connected"
            connection.end(Outcome.TIMEOUT, f"timed out before {before}")
        self._finish_if_last()
        self._expiry = None
        if heads := [*islice(self._in_flight, 1), *islice(self._waiting, 1)]:
            due_s = min(self._due_s[request] for request in heads)
            self._expiry = self._loop.call_later(max(0.001, due_s - expired_s), self._expire)


def _tls(assigned: Assignment) -> ssl.SSLContext | None:
    if assigned.server_name is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the default one would write to SSLKEYLOGFILE
    context.load_default_certs()
    if assigned.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
