"""How a worker that must go parts from its clients, in one event loop whose every step a test decides."""

import asyncio
import socket

import pytest
from aiohttp import web
from helpers.clients import PATIENCE_S

from lab.servers.connections import Connection, close_idle

_REQUEST = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n"


@pytest.mark.parametrize("asks", [True, False])
def test_a_request_that_comes_while_the_loop_is_blocked_is_answered_before_the_end(asks: bool) -> None:
    """The kept connection seems idle: its request is with the kernel, and the loop has not looked yet."""
    assert asyncio.run(asyncio.wait_for(_part(asks), PATIENCE_S)).count(b"HTTP/1.1 200 OK") == 1 + asks


async def _part(asks: bool) -> bytes:
    """Have a first request answered, ask again or not, and at once close what is idle; return the answers."""
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(_app())
    await runner.setup()
    server = runner.server
    assert server is not None
    client, served = socket.socketpair()
    with client:
        client.setblocking(False)
        await loop.connect_accepted_socket(lambda: Connection(server, loop, None), served)
        client.sendall(_REQUEST)
        answers = await loop.sock_recv(client, 4096)
        if asks:
            client.sendall(_REQUEST)
        await close_idle(server, quiet_s=0)
        while more := await loop.sock_recv(client, 4096):
            answers += more
    await runner.cleanup()
    return answers


def _app() -> web.Application:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="Hello")

    app = web.Application()
    app.router.add_get("/", answer)
    return app


async def _connected(server: web.Server, head: bytes = b"") -> socket.socket:
    """Return the client's end of a connection to it."""
    loop = asyncio.get_running_loop()
    client, served = socket.socketpair()
    client.setblocking(False)
    await loop.connect_accepted_socket(lambda: Connection(server, loop, None, head), served)
    return client


async def _answered(*parts: bytes, head: bytes = b"", closing_after: int = 10) -> bytes:
    """Send a request in parts, with an end of the worker after so many of them; return what comes back."""
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(_app())
    await runner.setup()
    assert runner.server is not None
    client = await _connected(runner.server, head)
    answer, closing = b"", None
    with client:
        for number, part in enumerate(parts):
            if number == closing_after:
                closing = loop.create_task(close_idle(runner.server, quiet_s=0))
            await loop.sock_sendall(client, part)
            await asyncio.sleep(0.02)  # so that each part is read by itself
        while more := await loop.sock_recv(client, 4096):
            answer += more
            if closing is None:
                closing = loop.create_task(close_idle(runner.server, quiet_s=0))
    if closing:
        await closing
    await runner.cleanup()
    return answer


def test_half_a_head_is_no_idle_connection() -> None:
    halves = (_REQUEST[:10], _REQUEST[10:])
    answer = asyncio.run(asyncio.wait_for(_answered(*halves, closing_after=1), PATIENCE_S))
    assert answer.startswith(b"HTTP/1.1 200 OK")


def test_what_was_read_before_is_gone_on_with() -> None:
    answer = asyncio.run(asyncio.wait_for(_answered(_REQUEST[10:], head=_REQUEST[:10]), PATIENCE_S))
    assert answer.startswith(b"HTTP/1.1 200 OK")


def test_a_head_that_stays_incomplete_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.servers.connections.HEAD_TIMEOUT_S", 0.05)
    assert asyncio.run(asyncio.wait_for(_answered(_REQUEST[:10]), PATIENCE_S)) == b""
