"""Who gets which connection, to the last one, in bursts that a test scripts."""

import asyncio
import contextlib
import os
import signal
import socket
from collections import Counter
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
from helpers.clients import PATIENCE_S, Connection, burst, computing, get, until

from lab.servers import Server, serve
from lab.servers.dispatch import HeadReader, Waiting

ENDLESS = 10**9
SHORT = 1000
DISPATCHES = ["shared", "reuseport", "round-robin", "least-busy"]


def blocked(server: Server, client: Connection) -> int:
    """Have one worker inside the loop for good, and return it."""
    client.ask()
    return computing(server.workers)


def test_round_robin_takes_turns() -> None:
    with serve(dispatch="round-robin", workers=3, iterations=SHORT) as server:
        answers = [get(server.url).worker for _ in range(12)]
        assert len(set(answers[:3])) == 3
        assert answers == answers[:3] * 4


@pytest.mark.parametrize(
    ("dispatch", "shares"),
    [("shared", [12]), ("round-robin", [10, 1, 1]), ("least-busy", [10, 1, 1])],
)
def test_a_burst_goes_to_who_takes_it(dispatch: str, shares: list[int]) -> None:
    """Twelve connections come while all three workers stand still, and then one of them goes on.

    With `shared` it takes all that waits. Where connections are passed on, each worker was passed one; those
    that stand still do not acknowledge theirs, so all the others go to the one that does.
    """
    with serve(dispatch=dispatch, workers=3, iterations=SHORT) as server:
        first, *others = server.workers
        for pid in server.workers:
            os.kill(pid, signal.SIGSTOP)
        waiting = [Connection(server.url).ask() for _ in range(12)]
        os.kill(first, signal.SIGCONT)
        until(lambda: requests(server, first) == shares[0])
        for pid in others:
            os.kill(pid, signal.SIGCONT)
        answers = Counter(connection.answer().worker for connection in waiting)
        assert answers[first] == shares[0]
        assert sorted(answers.values(), reverse=True) == shares
        for connection in waiting:
            connection.close()


def requests(server: Server, pid: int) -> int:
    return next(counters.requests for counters in server.counters() if counters.pid == pid)


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_a_burst_is_answered_to_the_last(dispatch: str) -> None:
    with serve(dispatch=dispatch, workers=2, iterations=SHORT) as server:
        assert burst(server.url, 200).total() == 200
        assert sum(counters.requests for counters in server.counters()) == 200


@pytest.mark.parametrize(("dispatch", "held"), [("round-robin", 1), ("least-busy", 0), ("shared", 0)])
def test_a_blocked_worker_holds_at_most_one_connection_more(dispatch: str, held: int) -> None:
    """Eight fast requests while one worker is inside the loop: the other one answers all but `held`."""
    with (
        serve(dispatch=dispatch, workers=2, iterations=ENDLESS, drain_s=0) as server,
        Connection(server.url) as slow,
    ):
        busy = blocked(server, slow)
        fast = [Connection(server.url).ask("/") for _ in range(8)]
        (idle,) = set(server.workers) - {busy}

        until(lambda: requests(server, idle) == 8 - held)
        os.kill(busy, signal.SIGKILL)  # what it held, but had not accepted, another one gets
        answers = [connection.answer() for connection in fast]
        assert Counter(answer.status for answer in answers) == {200: 8}
        assert Counter(answer.worker for answer in answers)[idle] >= 8 - held
        for connection in fast:
            connection.close()


def test_reuseport_gives_each_connection_to_one_worker_busy_or_not() -> None:
    """Connections hashed to a blocked worker wait for it, and are reset when it dies; others are answered."""
    with (
        serve(dispatch="reuseport", workers=2, iterations=ENDLESS, drain_s=0) as server,
        Connection(server.url) as slow,
    ):
        busy = blocked(server, slow)
        (idle,) = set(server.workers) - {busy}
        fast = [Connection(server.url).ask("/") for _ in range(40)]
        os.kill(busy, signal.SIGKILL)
        outcomes = Counter(outcome(connection) for connection in fast)
        assert outcomes.keys() == {str(idle), "reset"}
        assert outcomes.total() == 40


def outcome(connection: Connection) -> str:
    with connection:
        try:
            return str(connection.answer().worker)
        except ConnectionError:
            return "reset"


def test_least_busy_is_one_queue_and_one_request_at_a_time() -> None:
    """While both workers are inside the loop nothing is with them that could be elsewhere."""
    with (
        serve(dispatch="least-busy", workers=2, iterations=ENDLESS, drain_s=0) as server,
        Connection(server.url) as one,
        Connection(server.url) as two,
    ):
        first = blocked(server, one)
        two.ask()
        (second,) = set(server.workers) - {first}
        computing([second])
        waiting = [Connection(server.url).ask("/") for _ in range(6)]
        os.kill(first, signal.SIGKILL)
        answers = [connection.answer() for connection in waiting]
        assert len({answer.worker for answer in answers} - {first, second}) == 1
        for connection in waiting:
            connection.close()


def test_a_silent_connection_does_not_hold_a_least_busy_worker() -> None:
    with (
        serve(dispatch="least-busy", workers=1, iterations=SHORT) as server,
        Connection(server.url) as silent,
    ):
        assert get(server.url).status == 200
        assert silent.ask().answer().status == 200


def test_a_client_that_gives_up_while_it_waits_costs_nothing() -> None:
    with serve(dispatch="least-busy", workers=1, iterations=SHORT) as server:
        for _ in range(3):
            Connection(server.url).close()
            Connection(server.url).ask().close()
        assert get(server.url).status == 200


@pytest.mark.parametrize("dispatch", ["shared", "reuseport", "round-robin"])
def test_a_kept_connection_stays_with_its_worker(dispatch: str) -> None:
    with serve(dispatch=dispatch, workers=2, iterations=SHORT) as server, Connection(server.url) as client:
        answers = [client.ask().answer() for _ in range(4)]
        assert len({answer.worker for answer in answers}) == 1
        assert not any("Connection" in answer.headers for answer in answers)


@pytest.mark.parametrize("dispatch", ["shared", "reuseport", "round-robin"])
def test_a_kept_connection_outlives_its_worker(dispatch: str) -> None:
    """A client cannot know that its worker must go: another one goes on with the connection."""
    with serve(dispatch=dispatch, workers=2, iterations=SHORT) as server, Connection(server.url) as client:
        before = client.ask().answer().worker
        server.recycle()
        answer = client.ask().answer()
        assert answer.worker in server.workers
        assert answer.worker != before


@pytest.mark.parametrize(
    "options",
    [
        {"dispatch": "least-busy"},
        *({"dispatch": name, "keepalive": False} for name in ("shared", "reuseport", "round-robin")),
        {"topology": "single", "workers": 1, "keepalive": False},
        {"topology": "offload", "keepalive": False},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_without_keepalive_every_answer_closes_its_connection(options: dict[str, object]) -> None:
    with serve(**{"topology": "cluster", "workers": 2, "iterations": SHORT, **options}) as server:  # type: ignore[arg-type]
        for path in ("/", "/api/slow", "/nothing"):
            assert get(server.url, path).headers["Connection"] == "close"


def test_overload_waits_and_is_not_refused() -> None:
    """1,500 connections while no worker accepts: each is answered in the end."""
    with serve(dispatch="shared", workers=2, iterations=SHORT) as server:
        for pid in server.workers:
            os.kill(pid, signal.SIGSTOP)
        waiting = [Connection(server.url).ask("/") for _ in range(1500)]
        for pid in server.workers:
            os.kill(pid, signal.SIGCONT)
        assert Counter(connection.answer().status for connection in waiting) == {200: 1500}
        for connection in waiting:
            connection.close()


def test_half_a_head_holds_no_least_busy_worker() -> None:
    with serve(dispatch="least-busy", workers=2, iterations=SHORT) as server:
        address = urlsplit(server.url).hostname, urlsplit(server.url).port
        with ExitStack() as stack:
            silent = [stack.enter_context(socket.create_connection(address)) for _ in range(2)]
            for client in silent:
                client.sendall(b"G")
            assert get(server.url).status == 200
            for client in silent:
                client.sendall(b"ET / HTTP/1.1\r\nHost: lab\r\n\r\n")
                assert client.recv(4096).startswith(b"HTTP/1.1 200 OK")


def test_a_head_has_to_be_complete_within_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.servers.dispatch.HEAD_TIMEOUT_S", 0.05)
    asyncio.run(asyncio.wait_for(_heads(), PATIENCE_S))


async def _heads() -> None:
    loop = asyncio.get_running_loop()
    whole: asyncio.Queue[Waiting] = asyncio.Queue()
    heads = {b"GET / HT": False, b"GET / HTTP/1.1\r\n\r\nrest": True, b"x" * 70_000: False}
    for said, is_whole in heads.items():
        client, served = socket.socketpair()
        with client:
            client.setblocking(False)
            served.setblocking(False)
            HeadReader(served, whole.put_nowait)
            await loop.sock_sendall(client, said)
            if is_whole:
                waiting = await whole.get()
                assert (waiting.connection, waiting.head) == (served, said)
                served.close()
            else:
                with contextlib.suppress(ConnectionResetError):  # closed with bytes unread
                    assert await loop.sock_recv(client, 1) == b""
            assert served.fileno() == -1
