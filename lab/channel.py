"""A channel between two processes: messages, and open sockets with them, over a socket pair."""

import contextlib
import json
import os
import select
import socket
import weakref
from array import array
from typing import TYPE_CHECKING, Any, Self, TypeAlias

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket

Message = dict[str, Any]
"""What JSON can write. Who receives one leaves it as it is: a frequent one is the same object each time."""

Passed: TypeAlias = "socket.socket | TransportSocket | Channel"

_ROOM_FOR_FDS = socket.CMSG_SPACE(64 * array("i").itemsize)
_PASSING = b"+"  # before a message with an open socket
_frequent: dict[bytes, Message] = {}
_open: "weakref.WeakSet[Channel]" = weakref.WeakSet()


def frequent(message: Message) -> bytes:
    """Return a message as it is sent, for one sent often: written once, and known without being read."""
    line = _line(message)
    _frequent[line] = message
    return line + b"\n"


class Channel:
    """One end of a socket pair that carries messages: JSON lines, and open sockets with them.

    The starter's end is the lifeline of what it started, so it must have no copies: programs do not inherit
    it, and forks close it.
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
        """Return the end that was inherited as `fd`, and keep children from inheriting it."""
        os.set_inheritable(fd, False)
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """Return the file descriptor, -1 once it is closed."""
        return self._sock.fileno()

    def send(
        self, message: Message | bytes, *, passing: "Passed | None" = None, timeout_s: float | None = None
    ) -> None:
        """Send a message, perhaps a `frequent` one, with a copy of an open socket if any.

        Raises OSError if the other end is closed; TimeoutError, an OSError, if it does not read in time.
        """
        rest = message if isinstance(message, bytes) else _line(message) + b"\n"
        extra = []
        if passing is not None:
            rest, extra = _PASSING + rest, [_rights(passing.fileno())]
        while rest:
            try:  # `send_fds` also takes flags, but ignores them
                sent = self._sock.sendmsg([rest], extra, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait(select.POLLOUT, timeout_s)
            else:
                rest, extra = rest[sent:], []

    def tell(self, message: Message | bytes, *, passing: "Passed | None" = None) -> None:
        """Send a message, which is dropped if the other end is gone."""
        with contextlib.suppress(OSError):
            self.send(message, passing=passing)

    def receive(self, timeout_s: float | None = None) -> list[tuple[Message, int | None]]:
        """Return what one read brings: whole messages, each with the file descriptor passed with it, or none.

        There is none, too, if this process may not open another file.

        Raises EOFError if the other end is closed, TimeoutError if nothing came in time.
        """
        while (messages := self.waiting()) is None:
            self._wait(select.POLLIN, timeout_s)
        return messages

    def waiting(self) -> list[tuple[Message, int | None]] | None:
        """Return what one read brings, as `receive` does, or None if there is nothing to read."""
        if (read := self._read()) is None:
            return None
        data, fds = read
        self._fds += fds
        if not data:
            raise EOFError
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [(_message(line.removeprefix(_PASSING)), self._fd_of(line)) for line in lines]

    def next(self, timeout_s: float | None = None) -> Message:
        """Return the next message of those that are sent one at a time. Raises what `receive` does."""
        while not (messages := self.receive(timeout_s)):
            pass
        return messages[0][0]

    def close(self) -> None:
        """Close this end; closing twice is fine."""
        self._sock.close()

    def _read(self) -> tuple[bytes, list[int]] | None:
        """Return bytes and file descriptors, as `socket.recv_fds` does, which ignores its flags; or None."""
        try:
            data, ancillary, _, _ = self._sock.recvmsg(65536, _ROOM_FOR_FDS, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        fds = array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        return data, fds.tolist()

    def _fd_of(self, line: bytes) -> int | None:
        return self._fds.pop(0) if line.startswith(_PASSING) and self._fds else None

    def _wait(self, event: int, timeout_s: float | None) -> None:
        if timeout_s == 0 or not polled(self.fileno(), event, timeout_s):
            raise TimeoutError(f"the other end has kept us waiting for {timeout_s:g} s")


def polled(fd: int, event: int, timeout_s: float | None) -> bool:
    """Wait for an event or a hang-up; return whether it came in time."""
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(None if timeout_s is None else 1000 * timeout_s))


def _line(message: Message) -> bytes:
    return json.dumps(message).encode()


def _message(line: bytes) -> Message:
    return _frequent.get(line) or json.loads(line)


def _rights(fd: int) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]).tobytes()


def _close_in_fork() -> None:
    for channel in list(_open):
        channel.close()


os.register_at_fork(after_in_child=_close_in_fork)
