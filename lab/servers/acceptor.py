"""Accepting connections: all that wait, as soon as they come, while there are file descriptors left."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable

_REST_S = 0.1


class Acceptor:
    """Hands each connection that a listening socket has to `take`, until it is closed.

    An asyncio server would do, but when it is closed it loses the connections that it has just accepted.
    """

    def __init__(self, listener: socket.socket, take: Callable[[socket.socket], None]) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._resume()

    def close(self) -> None:
        """Stop listening; more than once is fine."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def _resume(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                try:
                    connection, _ = self._listener.accept()
                except OSError as error:
                    if error.errno not in (errno.EMFILE, errno.ENFILE):
                        raise
                    return self._rest()
                self._take(connection)

    def _rest(self) -> None:
        # The others wait in the listening socket until some of those that were accepted are over.
        self._loop.remove_reader(self._listener)
        self._loop.call_later(_REST_S, self._resume)
