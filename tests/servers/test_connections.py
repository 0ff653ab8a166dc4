"""How a worker that must go parts from its clients, in one event loop whose every step a test decides."""

import asyncio
import select
import socket
import time

import pytest
from aiohttp import web
from helpers.clients import PATIENCE_S

from lab.channel import polled
from lab.servers.connections import _SOON_S, ServedConnection, close_idle

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
        await loop.connect_accepted_socket(lambda: ServedConnection(server, loop, None), served)
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


async def _connected(server: web.Server) -> socket.socket:
    """Return the client's end of a connection to it."""
    loop = asyncio.get_running_loop()
    client, served = socket.socketpair()
    client.setblocking(False)
    await loop.connect_accepted_socket(lambda: ServedConnection(server, loop, None), served)
    return client


async def _answered(*parts: bytes, closing_after: int = 10) -> bytes:
    """Send a request in parts, with an end of the worker after so many of them; return what comes back."""
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(_app())
    await runner.setup()
    assert runner.server is not None
    client = await _connected(runner.server)
    answer, closing = b"", None
    with client:
        for number, part in enumerate(parts):
            if number == closing_after:
                closing = loop.create_task(close_idle(runner.server, quiet_s=0))
                await asyncio.sleep(0.02)  # so that what is idle is closed before
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


_POST = b"POST / HTTP/1.1\r\nHost: lab\r\nContent-Length: 4\r\n\r\nbody"


@pytest.mark.parametrize(
    ("parts", "answers"),
    [
        ((_REQUEST[:10], _REQUEST[10:]), 1),
        ((_REQUEST[:-1], _REQUEST[-1:]), 1),
        ((_POST[:-2], _POST[-2:]), 1),
        ((_REQUEST + _REQUEST[:10], _REQUEST[10:]), 2),
        ((_REQUEST, b"\r\n" + _REQUEST[:10], _REQUEST[10:]), 2),
        ((_REQUEST[:-2], b"\r\n" + _REQUEST[:10], _REQUEST[10:]), 2),
    ],
    ids=["begun", "all-but-a-byte", "a-body", "behind-another", "after-another", "behind-a-split-one"],
)
def test_half_a_request_is_no_idle_connection(parts: tuple[bytes, ...], answers: int) -> None:
    """The worker must go before the last part comes."""
    answer = asyncio.run(asyncio.wait_for(_answered(*parts, closing_after=len(parts) - 1), PATIENCE_S))
    assert answer.count(b"HTTP/1.1 ") == answers


@pytest.mark.parametrize(
    "said", [(_REQUEST,), (_REQUEST, b"\r\n"), (_POST,), (_POST + b"\r\n",), (_POST, b"\r\n")]
)
def test_a_whole_request_and_what_old_clients_add_is_not_timed(
    said: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.servers.connections.HEAD_TIMEOUT_S", 0.0)
    answer = asyncio.run(asyncio.wait_for(_answered(*said, _REQUEST), PATIENCE_S))
    assert answer.count(b"HTTP/1.1 ") == 2


def test_a_head_that_stays_incomplete_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.servers.connections.HEAD_TIMEOUT_S", 0.05)
    assert asyncio.run(asyncio.wait_for(_answered(_REQUEST[:10]), PATIENCE_S)) == b""


def test_a_worker_that_was_late_to_read_a_request_does_not_report_that_none_has_come() -> None:
    assert asyncio.run(asyncio.wait_for(_done_after_blocking(), PATIENCE_S)) == [True]


async def _done_after_blocking() -> list[bool]:
    """Block the loop before it can read a request; return, for each report, whether that was answered."""
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(_app())
    await runner.setup()
    server = runner.server
    assert server is not None
    client, served = socket.socketpair()
    reports: list[bool] = []
    with client:
        client.setblocking(False)

        def connection() -> ServedConnection:
            made = ServedConnection(server, loop, lambda: reports.append(is_answered()))
            time.sleep(2 * _SOON_S)
            return made

        def is_answered() -> bool:
            return polled(client.fileno(), select.POLLIN, 0)

        client.sendall(_REQUEST)
        await loop.connect_accepted_socket(connection, served)
        await loop.sock_recv(client, 4096)
        await close_idle(server, quiet_s=0)
    await runner.cleanup()
    return reports
