"""One queue of connections for all workers: the supervisor fills it, and each takes its next from there."""

import asyncio
import contextlib
import os
import select
import socket
from collections import deque
from collections.abc import Callable

from lab.channel import Channel, Message, frequent, polled
from lab.servers.heads import Heads
from lab.servers.sockets import REST_S, Acceptor
from lab.servers.worker_handle import WorkerHandle

_TAKE = frequent({"do": "take"})
_IDLE = frequent({"event": "idle"})
_LOOK_S = 0.01


class OneQueue:
    """The dispatch: connections wait in a pair of sockets, of which each worker has the end to read from.

    So a worker that is done takes the next one itself, without a word to the supervisor and back. Only one
    that found none says so; of those, the one idle for longest is told when the next has come. What waits is
    with no worker, so none can lose it. A connection waits there once the head of its request is complete: a
    silent one would hold up its worker.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._in, self._out = socket.socketpair()
        for end in (self._in, self._out):
            end.setblocking(False)
        self._beyond: deque[socket.socket] = deque()  # for which it has no room
        self._members: set[WorkerHandle] = set()
        self._idle: deque[WorkerHandle] = deque()
        self._loop = asyncio.get_running_loop()
        self._heads = Heads(self._put)
        self._acceptor = Acceptor(listener, self._heads.take)

    def listener(self) -> socket.socket:
        """Return the end to read from."""
        return self._out.dup()

    def add(self, worker: WorkerHandle) -> None:
        """Let it take connections from now on."""
        worker.on_event = self._hear
        worker.on_gone = self.remove  # at once: its successor may take long to start
        self._members.add(worker)
        self._idles(worker)

    def remove(self, worker: WorkerHandle) -> None:
        """Tell it of no more connections; one that it was told of, but did not take, is for another."""
        self._members.discard(worker)
        with contextlib.suppress(ValueError):
            self._idle.remove(worker)
        self._tell_if_some_wait()

    def take(self, connection: socket.socket) -> None:
        """Put a connection that was handed over into the queue; close it if there is no worker."""
        if self._members:
            self._heads.take(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Stop listening."""
        self._acceptor.close()

    async def emptied(self) -> None:
        """Return when no connection waits."""
        await self._heads.settled()
        while self._beyond or self._some_wait():
            await asyncio.sleep(_LOOK_S)

    def _put(self, connection: socket.socket) -> None:
        self._beyond.append(connection)
        if len(self._beyond) == 1:  # else the next attempt is on its way
            self._fill()

    def _fill(self) -> None:
        while self._beyond:
            try:
                socket.send_fds(self._in, [b"+"], [self._beyond[0].fileno()])
            except BlockingIOError:
                self._loop.add_writer(self._in, self._fill)
                return
            except OSError:  # one user's sockets may wait in all queues together up to a limit (ETOOMANYREFS)
                self._loop.remove_writer(self._in)
                self._loop.call_later(REST_S, self._fill)
                return
            self._beyond.popleft().close()
            self._tell()
        self._loop.remove_writer(self._in)

    def _hear(self, worker: WorkerHandle, message: Message) -> None:
        if message["event"] == "idle" and worker in self._members:
            self._idles(worker)

    def _idles(self, worker: WorkerHandle) -> None:
        self._idle.append(worker)
        self._tell_if_some_wait()  # they may have come since it looked

    def _tell_if_some_wait(self) -> None:
        if self._some_wait():
            self._tell()

    def _tell(self) -> None:
        if self._idle:
            self._idle.popleft().send(_TAKE)

    def _some_wait(self) -> bool:
        return polled(self._out.fileno(), select.POLLIN, 0)


class Taker:
    """A worker's side: takes the next connection when it is told to, and whenever it is done with one."""

    def __init__(
        self,
        queue: socket.socket,
        channel: Channel,
        serve: Callable[[socket.socket, Callable[[], None]], None],
    ) -> None:
        """`serve` is given each connection, and what to call once it is done with it."""
        queue.setblocking(False)
        self._queue = queue
        self._channel = channel
        self._serve = serve
        self._closed = False

    def take(self) -> None:
        """Take the next connection; if there is none, tell the supervisor."""
        if self._closed:
            return
        try:
            connection = self._next()
        except OSError:  # it may not open another file: meanwhile the others may take it
            asyncio.get_running_loop().call_later(REST_S, self._tell_idle)
            return
        if connection:
            self._serve(connection, self.take)
        else:
            self._tell_idle()

    def close(self) -> None:
        """Take no more."""
        self._closed = True

    def _next(self) -> socket.socket | None:
        os.close(os.dup(self._queue.fileno()))  # without room for it, the connection would be lost
        try:
            _, fds, _, _ = socket.recv_fds(self._queue, 1, 1)
        except BlockingIOError:
            return None
        return socket.socket(fileno=fds[0]) if fds else None  # the supervisor may have ended

    def _tell_idle(self) -> None:
        self._channel.tell(_IDLE)
