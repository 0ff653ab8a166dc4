"""Heads of requests that come in parts, late or never, and connections that last: none holds a worker."""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import psutil
import pytest
from helpers.clients import PATIENCE_S, Connection, get, refused, until

from lab.processes import run_loop
from lab.servers import Server, serve
from lab.servers.heads import HeadWatch
from lab.servers.sockets import HEAD_TIMEOUT_S
from lab.servers.spec import DISPATCHES

SHORT = 1000


@pytest.fixture(scope="module", params=[1, 2], ids=["accepts", "is-passed"])
def least_busy(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with three workers, for tests that leave it as it was; in the end, some clients owe a body."""
    options = {"dispatch": "least-busy", "bound": request.param, "workers": 3}
    with serve(**options, iterations=SHORT, drain_s=0.2) as server:
        yield server


def test_silent_connections_do_not_hold_least_busy_workers(least_busy: Server) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(Connection(least_busy.url)) for _ in least_busy.workers]
        assert get(least_busy.url).status == 200
        assert {client.ask().answer().status for client in silent} == {200}


def test_clients_that_give_up_while_they_wait_cost_nothing(least_busy: Server) -> None:
    for _ in least_busy.workers:
        Connection(least_busy.url).close()
        Connection(least_busy.url).ask().close()
    assert get(least_busy.url).status == 200


def test_half_a_head_holds_no_least_busy_worker(least_busy: Server) -> None:
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(address(least_busy))) for _ in least_busy.workers
        ]
        for client in silent:
            client.sendall(b"G")
        assert get(least_busy.url).status == 200
        for client in silent:
            client.sendall(b"ET / HTTP/1.1\r\nHost: lab\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 OK")


def address(server: Server) -> tuple[str, int]:
    parts = urlsplit(server.url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_half_a_head_is_answered_though_the_server_is_told_to_stop(dispatch: str) -> None:
    with (
        serve(dispatch=dispatch, workers=1, iterations=SHORT) as server,
        socket.create_connection(address(server), timeout=PATIENCE_S) as silent,
        socket.create_connection(address(server), timeout=PATIENCE_S) as client,
    ):
        client.sendall(b"GET / HT")
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        until(lambda: refused(server.url))
        client.sendall(b"TP/1.1\r\nHost: lab\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK")
        stopping.join(PATIENCE_S)
        assert not stopping.is_alive()
        assert silent.recv(1) == b""


def test_a_large_body_with_its_head_reaches_a_least_busy_worker(least_busy: Server) -> None:
    body = bytes(range(256)) * 400
    head = b"POST / HTTP/1.1\r\nHost: lab\r\nContent-Length: %d\r\n\r\n" % len(body)
    for _ in range(4):
        with socket.create_connection(address(least_busy), timeout=PATIENCE_S) as client:
            client.sendall(head + body)
            assert client.recv(4096).startswith(b"HTTP/1.1 405 ")


def test_who_waits_for_the_end_does_not_wait_for_a_connection_that_was_passed_on_before() -> None:
    """That one's head never ends, but is longer than the supervisor looks at: so a worker holds it."""
    fields = [b"X%d: %s" % (number, b"x" * 8000) for number in range(9)]
    with (
        serve(dispatch="least-busy", bound=2, workers=1, iterations=SHORT, drain_s=0) as server,
        socket.create_connection(address(server)) as endless,
    ):
        endless.sendall(b"\r\n".join([b"GET / HTTP/1.1", b"Host: lab", *fields]))
        until(lambda: bool(psutil.Process(server.workers[0]).net_connections("tcp")))
        with socket.create_connection(address(server), timeout=HEAD_TIMEOUT_S / 2) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
            parts = [*iter(lambda: client.recv(4096), b"")]
        assert parts[0].startswith(b"HTTP/1.1 200 OK")


def test_empty_lines_are_no_head_and_hold_no_least_busy_worker(least_busy: Server) -> None:
    with ExitStack() as stack:
        for _ in least_busy.workers:
            stack.enter_context(socket.create_connection(address(least_busy))).sendall(b"\r\n\r\n")
        assert get(least_busy.url).status == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET / HTTP/1.1\r\nContent-Length: 9\r\n", 200),
        ("POST /nothing HTTP/1.1\r\nContent-Length: 9\r\n", 404),
        ("GET / HTTP/1.1\r\nExpect: a miracle\r\n", 417),
    ],
)
def test_a_connection_that_lasts_after_its_answer_holds_no_least_busy_worker(
    least_busy: Server, head: str, status: int
) -> None:
    """One still owes its body, and another is kept open by aiohttp."""
    with ExitStack() as stack:
        for _ in least_busy.workers:
            client = stack.enter_context(socket.create_connection(address(least_busy)))
            client.sendall(f"{head}Host: lab\r\n\r\n".encode())
            assert client.recv(4096).startswith(f"HTTP/1.1 {status} ".encode())
        with Connection(least_busy.url) as other:
            other.ask("/")
            until(lambda: other.has_answer(), patience_s=5)


@pytest.mark.parametrize("closes", [False, True])
def test_a_head_that_stays_incomplete_is_closed(closes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.servers.heads.HEAD_TIMEOUT_S", PATIENCE_S if closes else 0.05)
    assert asyncio.run(asyncio.wait_for(_handed_on([b"GE", b"T / HTTP/1.1\r\n"], closes), PATIENCE_S)) is None


def test_half_a_head_and_a_reset_that_come_at_once_end_the_watch() -> None:
    assert run_loop(asyncio.wait_for(_reset(b"GE"), PATIENCE_S / 10)) is None


async def _reset(said: bytes) -> socket.socket | None:
    """Watch a connection that was reset after so many bytes; return what is handed on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
    client.sendall(said)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    served.setblocking(False)
    handed_on: asyncio.Queue[socket.socket | None] = asyncio.Queue()
    HeadWatch(served, lambda watch, connection: handed_on.put_nowait(connection))
    return await handed_on.get()


@pytest.mark.parametrize(
    "parts", [[b"GET / HTTP/1.1\r\n\r\nrest"], [b"GET / HTTP/1.1\r\n\r", b"\nrest"], [b"x" * 70_000]]
)
def test_a_head_that_is_complete_is_handed_on_with_nothing_read(parts: list[bytes]) -> None:
    sent = b"".join(parts)
    found = asyncio.run(asyncio.wait_for(_handed_on(parts, closes=False), PATIENCE_S))
    assert found is not None
    assert sent.startswith(found)


async def _handed_on(parts: list[bytes], closes: bool) -> bytes | None:
    """Send a head in parts; return what the handed-on connection has to read, None if it is closed."""
    loop = asyncio.get_running_loop()
    handed_on: asyncio.Queue[socket.socket | None] = asyncio.Queue()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
    with client, served:
        client.setblocking(False)
        served.setblocking(False)
        HeadWatch(served, lambda watch, connection: handed_on.put_nowait(connection))
        for part in parts:
            await loop.sock_sendall(client, part)
            await asyncio.sleep(0.01)  # so that each part is looked at by itself
        if closes:
            client.shutdown(socket.SHUT_WR)
        connection = await handed_on.get()
        assert connection is None or connection is served
        return None if connection is None else connection.recv(100_000)
