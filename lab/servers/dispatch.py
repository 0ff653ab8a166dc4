"""Which worker gets a cluster's next connection: strategies behind one tiny interface, add and remove."""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol

from lab.channel import Message
from lab.servers import sockets
from lab.servers.sockets import HEAD_TIMEOUT_S, QUIET_S, Acceptor
from lab.servers.spec import ServerSpec
from lab.servers.worker_handle import WorkerHandle

_MOST_HEAD = 65536
"""Bytes of a head: more than a worker accepts."""


class Dispatch(Protocol):
    """A strategy. A worker is added when it is ready, and removed before it drains or when it is gone."""

    def listener(self) -> socket.socket | None:
        """Return the socket for the next worker to accept from, or None. The caller closes it."""

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
    """All workers accept from one listening socket; whichever is awake takes what waits, one or all."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._members: deque[WorkerHandle] = deque()

    def listener(self) -> socket.socket:
        return self._listener.dup()

    def add(self, worker: WorkerHandle) -> None:
        worker.on_gone = self.remove  # at once: its successor may take long to start
        self._members.append(worker)

    def remove(self, worker: WorkerHandle) -> None:
        with contextlib.suppress(ValueError):
            self._members.remove(worker)
        if worker.gone.is_set():
            for connection in worker.unreceived():
                self.take(connection)

    def take(self, connection: socket.socket) -> None:
        if self._members:
            self._members[0].pass_on(connection)
            self._members.rotate()
        else:
            connection.close()

    def close(self) -> None:
        self._listener.close()

    async def emptied(self) -> None:
        pass


class Reuseport(Shared):
    """Each worker has a listening socket of its own, and the kernel hashes connections over them.

    The queues are separate: a connection waits for its worker even if another is idle, and is reset if its
    worker goes.
    """

    def listener(self) -> socket.socket:
        return sockets.listen_beside(self._listener)


def _peek(connection: socket.socket) -> bytes:
    return connection.recv(_MOST_HEAD, socket.MSG_PEEK | socket.MSG_DONTWAIT)


def _is_whole(head: bytes) -> bool:
    if len(head) == _MOST_HEAD:
        return True  # it is too long, which a worker says
    return b"\r\n\r\n" in head.lstrip(b"\r\n")  # workers, too, ignore empty lines before a head


def has_whole_head(connection: socket.socket) -> bool:
    """Return whether the whole head of a request waits to be read."""
    try:
        return _is_whole(_peek(connection))
    except OSError:
        return False


def _is_reset(connection: socket.socket) -> bool:
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0  # which uvloop tells only once


class HeadWatch:
    """Waits until a request's whole head has arrived, then hands the connection on unread.

    If the head stays incomplete for too long after its first byte, the connection is closed, and None is
    handed on. A silent one may wait as long as it likes: browsers open such connections in advance.
    """

    def __init__(
        self, connection: socket.socket, hand_on: "Callable[[HeadWatch, socket.socket | None], None]"
    ) -> None:
        self._connection = connection
        self._hand_on = hand_on
        self._seen = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection, self._look)

    def close_if_silent(self) -> None:
        """Close the connection unless a byte of a head has come."""
        if not self._seen:
            self._close()

    def _look(self) -> None:
        try:
            head = _peek(self._connection)
        except BlockingIOError:
            return
        except OSError:
            head = b""
        if _is_whole(head):
            self._wake_at(1)
            self._release()
            self._hand_on(self, self._connection)
        elif len(head) == self._seen or _is_reset(self._connection):
            self._close()  # if it can be read, but there is nothing new, it was closed
        else:
            self._seen = len(head)
            self._wake_at(self._seen + 1)
            self._timer = self._timer or self._loop.call_later(HEAD_TIMEOUT_S, self._close)

    def _wake_at(self, waiting: int) -> None:
        """Look again only when `waiting` bytes can be read, or no more will come."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, waiting)

    def _release(self) -> None:
        self._loop.remove_reader(self._connection)
        if self._timer is not None:
            self._timer.cancel()

    def _close(self) -> None:
        self._release()
        self._connection.close()
        self._hand_on(self, None)


class PassedOn:
    """The supervisor accepts, and passes each connection on to a free worker; the others wait here, in order.

    Round robin: as in Node, a worker is free again when it acknowledges receipt, and the one free for longest
    is next. A worker whose event loop is blocked cannot acknowledge, so it holds at most one more.

    Least busy: the next is the worker that holds the fewest requests, if under `bound`, and the others wait
    in one central queue: JBSQ(bound) of Kogias et al., R2P2, USENIX ATC 2019. A worker with a bound of 1
    stands idle from its answer until the next request has come; with 2, that has come meanwhile, but waits
    even if another worker is free first. A connection is passed on once the head of its request is complete:
    a silent one would hold up its worker.
    """

    def __init__(self, listener: socket.socket, *, least_busy: bool, bound: int = 1) -> None:
        self._least_busy = least_busy
        self._bound = bound
        self._held: dict[WorkerHandle, int] = {}  # who began first is first, and of equals next
        self._waiting: deque[socket.socket] = deque()
        self._watches: set[HeadWatch] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._loop = asyncio.get_running_loop()
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
        if self._watches:
            await asyncio.sleep(QUIET_S)  # requests that are on their way arrive
        for watch in tuple(self._watches):
            watch.close_if_silent()
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

    def _accepted(self, connection: socket.socket) -> None:
        if self._least_busy and not has_whole_head(connection):
            self._watches.add(HeadWatch(connection, self._watched))
            self._empty.clear()
        else:
            self._enqueue(connection)

    def _watched(self, watch: HeadWatch, connection: socket.socket | None) -> None:
        self._watches.remove(watch)
        if connection:
            self._enqueue(connection)
        else:
            self._match()

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
        if self._waiting or self._watches:
            self._empty.clear()
        else:
            self._empty.set()

    def _hold(self, worker: WorkerHandle, more: int) -> None:
        self._held[worker] = self._held.pop(worker) + more  # now last: it began a request, or fell idle


def for_spec(spec: ServerSpec, listener: socket.socket) -> Dispatch:
    """Return the strategy that a spec names. For `reuseport`, `listener` only reserves the port."""
    match spec.dispatch:
        case "shared":
            return Shared(listener)
        case "reuseport":
            return Reuseport(listener)
        case _:
            return PassedOn(listener, least_busy=spec.dispatch == "least-busy", bound=spec.bound)
