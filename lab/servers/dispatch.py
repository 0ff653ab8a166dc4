"""Which worker gets a cluster's next connection: strategies behind one tiny interface, add and remove."""

import asyncio
import contextlib
import socket
from collections import deque
from typing import Protocol

from lab.channel import Message
from lab.servers import sockets
from lab.servers.heads import Heads
from lab.servers.sockets import Acceptor
from lab.servers.spec import ServerSpec
from lab.servers.worker_handle import WorkerHandle


class Dispatch(Protocol):
    """A strategy. A worker is added when it is ready, and removed before it drains or when it is gone."""

    def listener(self) -> socket.socket | None:
        """Return the socket that brings the next worker its connections, or None. The caller closes it."""

    def add(self, worker: WorkerHandle) -> None:
        """Give it connections from now on."""

    def remove(self, worker: WorkerHandle) -> None:
        """Give it no more connections."""

    def take(self, connection: socket.socket) -> None:
        """Give a connection, whose worker must go or has no room, to the next; close it if there is none."""

    def close(self) -> None:
        """Stop listening."""

    async def emptied(self) -> None:
        """Return when no connection waits here for a worker."""


class Shared:
    """All workers accept from one listening socket.

    Shared: whichever is awake takes what waits, one or all. Least busy: each takes the next when it is done
    with the last, so what waits there is one queue.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._members: deque[WorkerHandle] = deque()
        self._at_last: PassedOn | None = None

    def listener(self) -> socket.socket:
        return self._listener.dup()

    def add(self, worker: WorkerHandle) -> None:
        worker.on_gone = self.remove  # at once: its successor may take long to start
        self._members.append(worker)

    def remove(self, worker: WorkerHandle) -> None:
        if self._at_last:
            self._at_last.remove(worker)
            return
        with contextlib.suppress(ValueError):
            self._members.remove(worker)
        if worker.gone.is_set():
            for connection in worker.unreceived():
                self.take(connection)

    def take(self, connection: socket.socket) -> None:
        if self._at_last:
            self._at_last.take(connection)
        elif self._members:
            self._members[0].pass_on(connection)
            self._members.rotate()
        else:
            connection.close()

    def close(self) -> None:
        """Pass on what still waits there, to whoever is free: workers, too, accept no more from now on."""
        waiting = []
        with contextlib.suppress(OSError):  # nothing waits any more, or no file is left for it
            while True:
                waiting.append(self._listener.accept()[0])
        with contextlib.suppress(OSError):  # not everywhere
            self._listener.shutdown(socket.SHUT_RDWR)
        self._at_last = PassedOn(self._listener, least_busy=False, bound=1)
        self._at_last.close()
        for worker in self._members:
            self._at_last.add(worker)
        for connection in waiting:
            self._at_last.take(connection)

    async def emptied(self) -> None:
        if self._at_last:
            await self._at_last.emptied()


class Reuseport(Shared):
    """Each worker has a listening socket of its own, and the kernel hashes connections over them.

    The queues are separate: a connection waits for its worker even if another is idle, and is reset if its
    worker goes.
    """

    def listener(self) -> socket.socket:
        return sockets.listen_beside(self._listener)


class PassedOn:
    """The supervisor accepts, and passes each connection on to a free worker; the others wait here, in order.

    Round robin: as in Node, a worker is free again when it acknowledges receipt, and the one free for longest
    is next. A worker whose event loop is blocked cannot acknowledge, so it holds at most one more.

    Least busy: the next is the worker that holds the fewest requests, if under `bound`, and the others wait
    in one central queue: JBSQ(bound) of Kogias et al., R2P2, USENIX ATC 2019. With a bound of 2 the next
    request has come when a worker has answered one, but it waits for this worker even if another is free
    first; for a bound of 1, see `Shared`. A connection is passed on once the head of its request is
    complete: a silent one would hold up its worker.
    """

    def __init__(self, listener: socket.socket, *, least_busy: bool, bound: int) -> None:
        self._bound = bound
        self._held: dict[WorkerHandle, int] = {}  # who began first is first, and of equals next
        self._waiting: deque[socket.socket] = deque()
        self._heads = Heads(self._enqueue)
        self._empty = asyncio.Event()
        self._empty.set()
        self._accepted = self._heads.take if least_busy else self._enqueue
        self._acceptor = Acceptor(listener, self._accepted)

    def listener(self) -> None:
        return None

    def add(self, worker: WorkerHandle) -> None:
        worker.on_event = self._hear
        worker.on_gone = self.remove  # at once: its successor may take long to start
        self._held[worker] = 0
        self._match()

    def remove(self, worker: WorkerHandle) -> None:
        self._held.pop(worker, None)
        if worker.gone.is_set():
            self._waiting.extendleft(reversed(worker.unreceived()))  # so nothing is lost
            self._match()

    def close(self) -> None:
        self._acceptor.close()

    async def emptied(self) -> None:
        await self._heads.settled()
        await self._empty.wait()

    def _hear(self, worker: WorkerHandle, message: Message) -> None:
        if message["event"] in ("free", "refused") and worker in self._held:
            self._hold(worker, -1)
            self._match()

    def take(self, connection: socket.socket) -> None:
        if self._held:
            self._accepted(connection)
        else:
            connection.close()

    def _enqueue(self, connection: socket.socket) -> None:
        self._waiting.append(connection)
        self._match()

    def _match(self) -> None:
        while self._waiting and self._held:
            worker = min(self._held, key=self._held.__getitem__)
            if self._held[worker] >= self._bound:
                break
            self._hold(worker, 1)
            worker.pass_on(self._waiting.popleft())
        if self._waiting:
            self._empty.clear()
        else:
            self._empty.set()

    def _hold(self, worker: WorkerHandle, more: int) -> None:
        self._held[worker] = self._held.pop(worker) + more  # now last: it began a request, or fell idle


def for_spec(spec: ServerSpec, listener: socket.socket) -> Dispatch:
    """Return the strategy that a spec names. For `reuseport`, `listener` only reserves the port."""
    if spec.dispatch == "shared" or spec.has_one_queue:
        return Shared(listener)
    if spec.dispatch == "reuseport":
        return Reuseport(listener)
    return PassedOn(listener, least_busy=spec.dispatch == "least-busy", bound=spec.bound)
