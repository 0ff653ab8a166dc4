"""Messages between a process and the one that started it: JSON lines and open sockets, over a socket pair."""

import contextlib
import json
import os
import socket
import weakref
from asyncio.trsock import TransportSocket
from typing import Any, Self, TypeAlias

Message = dict[str, Any]

Passed: TypeAlias = "socket.socket | TransportSocket | Channel"

_MOST_FDS = 64
_open: "weakref.WeakSet[Channel]" = weakref.WeakSet()


class Channel:
    """One end of a socket pair. Sending may block, never for long: the other end is always read.

    The end that the starter keeps is also the lifeline of what it started (see `lifeline`), so no copy of it
    may live on elsewhere: programs do not inherit it, and forks close it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""
        self._fds: list[int] = []
        _open.add(self)

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Return both ends."""
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs)

    @classmethod
    def adopt(cls, fd: int) -> Self:
        """Return the end that was inherited as `fd`, and let no child inherit it in turn."""
        os.set_inheritable(fd, False)
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """Return the file descriptor, -1 once it is closed."""
        return self._sock.fileno()

    def send(self, message: Message, *, passing: "Passed | None" = None) -> None:
        """Send a message, and a copy of an open socket with it. Raises OSError if nobody is there."""
        line = json.dumps(message | {"passing": passing is not None}).encode() + b"\n"
        if passing is None:
            self._sock.sendall(line)
        else:
            socket.send_fds(self._sock, [line], [passing.fileno()])

    def tell(self, message: Message, *, passing: "Passed | None" = None) -> None:
        """Send a message that is lost on nobody if the other end is gone."""
        with contextlib.suppress(OSError):
            self.send(message, passing=passing)

    def receive(self, timeout_s: float | None = None) -> list[tuple[Message, int | None]]:
        """Return what one read brings: messages, each with the file descriptor that was passed with it.

        Raises EOFError if the other end is closed, TimeoutError if nothing came in time.
        """
        self._sock.settimeout(timeout_s)
        data, fds, _, _ = socket.recv_fds(self._sock, 65536, _MOST_FDS)
        self._fds += fds
        if not data:
            raise EOFError
        *lines, self._rest = (self._rest + data).split(b"\n")
        messages = [json.loads(line) for line in lines]
        return [(message, self._fds.pop(0) if message["passing"] else None) for message in messages]

    def close(self) -> None:
        """Close this end; more than once is fine."""
        self._sock.close()


def _close_in_fork() -> None:
    for channel in list(_open):
        channel.close()


os.register_at_fork(after_in_child=_close_in_fork)
