"""Who accepts from a listening socket, in one event loop: a test's socket stands for the system's."""

import asyncio
import errno
import socket
from collections import deque
from typing import Any

import pytest
from helpers.clients import PATIENCE_S

from lab.servers import sockets
from lab.servers.sockets import OneByOne


class Unlucky(socket.socket):
    """A listening socket with which the system has some trouble first."""

    troubles: deque[int]

    def accept(self) -> Any:
        if self.troubles:
            raise OSError(self.troubles.popleft(), "trouble")
        return super().accept()


@pytest.mark.parametrize("trouble", [errno.EMFILE, errno.ENOBUFS, errno.EPROTO, errno.ECONNABORTED])
def test_trouble_when_a_worker_wants_its_next_connection_leaves_it_not_without(trouble: int) -> None:
    came, served = asyncio.run(asyncio.wait_for(_take_two(trouble), PATIENCE_S))
    assert served == came


async def _take_two(trouble: int) -> tuple[list[Any], list[Any]]:
    """Return the addresses of two clients, and whom the worker took, though there is trouble after each."""
    taken: asyncio.Queue[socket.socket] = asyncio.Queue()
    listener = Unlucky(fileno=sockets.listen("127.0.0.1", 0).detach())
    listener.troubles = deque()

    def take(connection: socket.socket, on_done: Any) -> None:
        listener.troubles.append(trouble)
        taken.put_nowait(connection)
        on_done()

    acceptor, served = OneByOne(listener, take), []
    address = listener.getsockname()
    with socket.create_connection(address) as first, socket.create_connection(address) as second:
        for _ in range(2):
            with await taken.get() as connection:
                served.append(connection.getpeername())
        came = [first.getsockname(), second.getsockname()]
    acceptor.close()
    assert not listener.troubles, "each was met"
    return came, served
