"""The supervisor's view of a worker; the worker itself is in `worker.py`, in its own process."""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Self

from lab.channel import Channel, Message, frequent
from lab.errors import LabError
from lab.forks import Body, Forked, fork_with_channel
from lab.processes import ending
from lab.servers.counters import SharedCounts, WorkerCounters
from lab.servers.sockets import REST_S
from lab.servers.spec import ServerSpec

log = logging.getLogger(__name__)

_SERVE = frequent({"do": "serve"})


class WorkerHandle:
    """A process: first it starts, then it is `ready`, perhaps `leaving`, and finally `gone`.

    Its user sets `on_event`, to hear its other messages, `on_gone`, to hear of its end, and `on_handed_over`,
    to receive the connections that it keeps when it must go, or has no room for.
    """

    def __init__(
        self, spec: ServerSpec, index: int, process: Forked, channel: Channel, counts: SharedCounts
    ) -> None:
        self._spec = spec
        self._index = index
        self._process = process
        self._channel = channel
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self.ready = asyncio.Event()
        self.leaving = asyncio.Event()
        self.gone = asyncio.Event()
        self.on_event: Callable[[WorkerHandle, Message], None] = lambda worker, message: None
        self.on_gone: Callable[[WorkerHandle], None] = lambda worker: None
        self.on_handed_over: Callable[[socket.socket], None] = socket.socket.close
        self._buried = False
        self._outbox: deque[tuple[Message | bytes, socket.socket | None]] = deque()
        self._passed: deque[socket.socket] = deque()
        self._passed_so_far = 0
        self._is_waiting_to_send = False
        self._loop.add_reader(self._channel, self._receive)

    @classmethod
    async def start(cls, body: Body, spec: ServerSpec, index: int, listener: socket.socket | None) -> Self:
        """Start a process that does `body`. Raises OSError if there can be none."""
        arguments = {"spec": asdict(spec), "index": index, "alone": False}
        fds = {} if listener is None else {"listener": listener.fileno()}
        with SharedCounts.new() as (counts, fd):
            process, channel = await fork_with_channel(body, arguments, fds={**fds, "counts": fd})
        return cls(spec, index, process, channel, counts)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ending(self) -> str:
        """How it ended, once it is gone."""
        return ending(self._process.wait())

    async def accepting(self) -> None:
        """Return when it is ready. Raises LabError if it dies first, or takes too long."""
        try:
            async with asyncio.timeout(self._spec.start_timeout_s):
                await first(self.ready, self.gone)
        except TimeoutError:
            raise LabError(
                f"worker {self.pid} was not ready after {self._spec.start_timeout_s:g} s"
            ) from None
        if not self.ready.is_set():
            raise LabError(f"worker {self.pid} ended before it was ready: {self.ending}")

    def counters(self, restarts: int) -> WorkerCounters:
        """Return what it has done so far, as the successor of `restarts` workers."""
        requests, busy_s = self._counts.read()
        return WorkerCounters(self._index, self.pid, requests, busy_s, restarts)

    def send(self, message: Message | bytes) -> None:
        """Send it a message, perhaps a `frequent` one, without waiting for it to read.

        Messages wait here while it is inside the loop. If it has just died, `gone` follows.
        """
        self._post(message, None)

    def pass_on(self, connection: socket.socket) -> None:
        """Give it an open connection, which stays open here, too, until it says that it is free again."""
        self._passed.append(connection)
        self._passed_so_far += 1
        self._post(_SERVE, connection)

    def unreceived(self) -> list[socket.socket]:
        """Take back, once it is gone, the connections that it never received; close those it had."""
        while len(self._passed) > self._passed_so_far - self._counts.received:
            self._passed.popleft().close()
        unreceived = [*self._passed]
        self._passed.clear()
        return unreceived

    def _post(self, message: Message | bytes, passing: socket.socket | None) -> None:
        if not self._buried:
            self._outbox.append((message, passing))
            if not self._is_waiting_to_send:
                self._send_on()

    def _send_on(self) -> None:
        while self._outbox:
            message, passing = self._outbox[0]
            try:
                self._channel.send(message, passing=passing, timeout_s=0)
            except TimeoutError:
                self._wait_to_send()
                return
            except OSError:
                pass
            self._outbox.popleft()
        if self._is_waiting_to_send:
            self._is_waiting_to_send = False
            self._loop.remove_writer(self._channel)

    def _wait_to_send(self) -> None:
        if not self._is_waiting_to_send:
            self._is_waiting_to_send = True
            self._loop.add_writer(self._channel, self._send_on)

    async def drain(self) -> None:
        """Let it answer what it has accepted, for a while; return when it is gone, killed if need be."""
        self.send({"do": "drain"})
        try:
            async with asyncio.timeout(self._spec.drain_s):
                await self.gone.wait()
        except TimeoutError:
            log.warning("worker %d had not finished after %g s", self.pid, self._spec.drain_s)
            self.kill()
            await self.gone.wait()

    def kill(self) -> None:
        """End it now; `gone` follows."""
        if not self.gone.is_set():
            self._process.kill()

    def _receive(self) -> None:
        while True:  # to the end: of a death with messages unread, an error, uvloop tells only once
            try:
                messages = self._channel.waiting()
            except (EOFError, OSError):
                self._bury()
                return
            if messages is None:
                return
            for message, fd in messages:
                self._hear(message, fd)

    def _hear(self, message: Message, fd: int | None) -> None:
        match message["event"]:
            case "handed over" if fd is not None:
                self.on_handed_over(socket.socket(fileno=fd))
            case "ready":
                self.ready.set()
            case "leaving":
                self.leaving.set()
            case "free":
                self._no_longer_passed(message["place"]).close()
                self.on_event(self, message)
            case "refused":  # it may not open another file
                refused = self._no_longer_passed(message["place"])
                self._loop.call_later(REST_S, self._give_back, refused)
            case _:
                self.on_event(self, message)

    def _no_longer_passed(self, place: int) -> socket.socket:
        connection = self._passed[place]
        del self._passed[place]
        return connection

    def _give_back(self, connection: socket.socket) -> None:
        self.on_event(self, {"event": "refused"})
        self.on_handed_over(connection)

    def _bury(self) -> None:
        # Only the process itself held the other end: it is exiting, so this wait is short.
        self._buried = True
        self._loop.remove_reader(self._channel)
        self._loop.remove_writer(self._channel)
        self._outbox.clear()
        self._channel.close()
        self._counts.close()
        self._process.wait()
        self.gone.set()
        self.on_gone(self)


async def first(*events: asyncio.Event) -> None:
    """Return as soon as one of them is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
