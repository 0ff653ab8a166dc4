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
