"""Connections whose request has not come yet: they wait in the supervisor, so that they hold up no worker."""

import asyncio
import socket
from collections.abc import Callable

from lab.servers.sockets import HEAD_TIMEOUT_S, QUIET_S

_MOST_HEAD = 65536
"""Bytes of a head: more than a worker accepts."""

_LOOK_S = 0.01


def _peek(connection: socket.socket) -> bytes:
    return connection.recv(_MOST_HEAD, socket.MSG_PEEK | socket.MSG_DONTWAIT)


def _is_whole(head: bytes) -> bool:
    if len(head) == _MOST_HEAD:
        return True  # it is too long, which a worker says
    return b"\r\n\r\n" in head.lstrip(b"\r\n")  # workers, too, ignore empty lines before a head


def _has_whole_head(connection: socket.socket) -> bool:
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


class Heads:
    """Hands connections on as soon as the head of their request is complete."""

    def __init__(self, hand_on: Callable[[socket.socket], None]) -> None:
        self._hand_on = hand_on
        self._watches: set[HeadWatch] = set()

    def take(self, connection: socket.socket) -> None:
        """Hand a connection on, now or later, or close it if its head does not come."""
        if _has_whole_head(connection):
            self._hand_on(connection)
        else:
            self._watches.add(HeadWatch(connection, self._watched))

    async def settled(self) -> None:
        """Return when requests that are on their way have come, and the silent connections are closed."""
        if self._watches:
            await asyncio.sleep(QUIET_S)
        for watch in tuple(self._watches):
            watch.close_if_silent()
        while self._watches:
            await asyncio.sleep(_LOOK_S)

    def _watched(self, watch: HeadWatch, connection: socket.socket | None) -> None:
        self._watches.remove(watch)
        if connection:
            self._hand_on(connection)
