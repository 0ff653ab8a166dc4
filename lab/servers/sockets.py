"""Listening sockets: bound before any process starts, so that a taken port is known at once."""

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable

from lab.errors import LabError

HEAD_TIMEOUT_S = 10.0
"""Once a client has begun the head of a request, it must send all of it within this time."""

QUIET_S = 0.25
"""How long clients of a worker that must go may stay silent before their connections are closed."""

BACKLOG = 4096
"""Connections that may wait to be accepted: overload must queue. The system's somaxconn may be lower."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises LabError if the port is taken or the host unknown."""
    return _bound(host, port, listening=True)


def reserve(host: str, port: int) -> socket.socket:
    """Return a socket that keeps a port for `listen_beside`. Raises LabError as `listen` does.

    With SO_REUSEPORT, a stale server would silently share the port; so it is first bound without.
    """
    with _bound(host, port, listening=True) as probe:
        port = probe.getsockname()[1]
    return _bound(host, port, reuse_port=True)


def listen_beside(reserved: socket.socket) -> socket.socket:
    """Return one more listening socket on a reserved port: the kernel hashes connections over all of them."""
    host, port = reserved.getsockname()[:2]
    return _bound(host, port, listening=True, reuse_port=True)


def url(sock: socket.socket) -> str:
    """Return where clients on this machine find a bound socket: on loopback, if it has all addresses."""
    host, port = sock.getsockname()[:2]
    address = ipaddress.ip_address(host)
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    written = f"[{address}]" if address.version == 6 else address
    return f"http://{written}:{port}"


def _bound(host: str, port: int, *, listening: bool = False, reuse_port: bool = False) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind)
    except OSError as error:
        raise LabError(f"cannot listen on {host}: {error.strerror}") from error
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        if listening:
            sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _refused(host, port, error) from error
    return sock


def _refused(host: str, port: int, error: OSError) -> LabError:
    if error.errno == errno.EADDRINUSE and port == 0:
        return LabError(f"no port of {host} is free: stop what holds them, or wait for closed ones to expire")
    if error.errno == errno.EADDRINUSE:
        return LabError(
            f"port {port} of {host} is taken: stop what listens there, or use port 0 for a free one"
        )
    return LabError(f"cannot listen on {host}, port {port}: {error.strerror}")


REST_S = 0.1
"""How long a process that may not open another file takes no connections: some may be over then."""


class Acceptor:
    """Hands each connection of a listening socket to `take`, until it is closed.

    An asyncio server would do, but on closing it loses the connections that it has just accepted.
    """

    def __init__(self, listener: socket.socket, take: Callable[[socket.socket], None]) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._watched = False
        self._watch()

    def close(self) -> None:
        """Stop listening; closing twice is fine."""
        self._unwatch()
        self._listener.close()

    def _accept(self) -> None:
        while connection := self._next():
            self._take(connection)

    def _next(self) -> socket.socket | None:
        """Accept the next connection; if there is none yet, watch for it."""
        try:
            return self._listener.accept()[0]
        except (BlockingIOError, ConnectionAbortedError):
            self._watch()
        except OSError as error:
            if error.errno in (errno.EBADF, errno.EINVAL):  # closed, here or for all that share it
                self.close()
            else:  # no more files or memory, or an error of the network: either may be over soon
                self._rest()
        return None

    def _rest(self) -> None:
        # The others wait in the listening socket until some accepted connections are over.
        self._unwatch()
        self._loop.call_later(REST_S, self._watch)

    def _watch(self) -> None:
        if not self._watched and self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)
            self._watched = True

    def _unwatch(self) -> None:
        if self._watched:
            self._loop.remove_reader(self._listener)
            self._watched = False


class OneByOne(Acceptor):
    """Hands `take` the next connection once it is done with the last, and with it what to call then.

    What waits is in the listening socket, which others share: with nobody while one is idle, and nobody can
    lose it.
    """

    def __init__(
        self, listener: socket.socket, take: Callable[[socket.socket, Callable[[], None]], None]
    ) -> None:
        super().__init__(listener, lambda connection: take(connection, self._accept))

    def _accept(self) -> None:
        if connection := self._next():
            self._unwatch()
            self._take(connection)
