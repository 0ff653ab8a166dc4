"""The queue that the workers of `least-busy` take from, alone: a test's socket stands for a worker's."""

import asyncio
import errno
import select
import socket
from contextlib import ExitStack
from typing import Any

import pytest
from helpers.clients import PATIENCE_S, Connection

from lab.channel import polled
from lab.servers import sockets
from lab.servers.one_queue import OneQueue


def test_what_the_system_lets_no_more_wait_there_comes_later_in_its_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Linux limits how many sockets of one user may be on their way between processes.

    There are more refusals than connections, so no later one brings the last of them along.
    """
    refusals, send_fds = [errno.ETOOMANYREFS] * 4, socket.send_fds

    def send_or_refuse(*arguments: Any) -> int:
        if refusals:
            raise OSError(refusals.pop(), "too many references")
        return send_fds(*arguments)

    monkeypatch.setattr(socket, "send_fds", send_or_refuse)
    assert asyncio.run(_requests_taken(["/1", "/2", "/3"])) == ["/1", "/2", "/3"]
    assert not refusals


async def _requests_taken(paths: list[str]) -> list[str]:
    """Ask on a connection each, and return the paths in the order in which a worker gets them."""
    taken = []
    with ExitStack() as stack:
        listener = sockets.listen("127.0.0.1", 0)
        for path in paths:
            stack.enter_context(Connection(sockets.url(listener))).ask(path)
        queue = OneQueue(listener)
        end = stack.enter_context(queue.listener())
        for _ in paths:
            assert await asyncio.to_thread(polled, end.fileno(), select.POLLIN, PATIENCE_S)
            _, (fd,), _, _ = socket.recv_fds(end, 1, 1)
            connection = stack.enter_context(socket.socket(fileno=fd))
            taken.append(connection.recv(4096).split()[1].decode())
        await asyncio.wait_for(queue.emptied(), PATIENCE_S)
        queue.close()
        for kept in (queue._in, queue._out):  # a supervisor keeps them to its end
            kept.close()
    return taken
