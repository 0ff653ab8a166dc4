"""Who gets which connection, to the last one, in bursts that a test scripts."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psutil
import pytest
from helpers.clients import PATIENCE_S, Connection, burst, computing, get, gone, until
from helpers.workers import HANGS, Sabotage

from lab.servers import Server, serve

ENDLESS = 10**9
SHORT = 1000
LONG = "/api/slow?times=1000"
OPENS_NOT_AT_FIRST = """
from lab.servers import worker
def opened(*arguments, serves=worker.ServedConnection, fails=[OSError("no luck")]):
    if fails:
        raise fails.pop()
    return serves(*arguments)
worker.ServedConnection = opened
"""
DISPATCHES = ["shared", "reuseport", "round-robin", "least-busy"]


def blocked(server: Server, client: Connection) -> int:
    """Have one worker inside the loop for good, and return it."""
    client.ask()
    return computing(server.workers)


@pytest.fixture(scope="module")
def shared_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with three workers, for tests that leave it as it was."""
    with serve(dispatch=request.param, workers=3, iterations=SHORT) as server:
        yield server


with_each = pytest.mark.parametrize("shared_server", DISPATCHES, indirect=True)
with_round_robin = pytest.mark.parametrize("shared_server", ["round-robin"], indirect=True)


@with_round_robin
def test_round_robin_takes_turns(shared_server: Server) -> None:
    answers = [get(shared_server.url).worker for _ in range(12)]
    assert len(set(answers[:3])) == 3
    assert answers == answers[:3] * 4


@pytest.mark.parametrize(
    ("dispatch", "shares"),
    [("shared", [12]), ("round-robin", [10, 1, 1]), ("least-busy", [12])],
)
def test_a_burst_goes_to_who_takes_it(dispatch: str, shares: list[int]) -> None:
    """Twelve connections come while all three workers stand still, and then one of them goes on.

    It takes all that waits. With round robin each worker was passed one; those that stand still do not
    acknowledge theirs, so all the others go to the one that does.
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


@with_each
def test_a_burst_is_answered_to_the_last(shared_server: Server) -> None:
    before = sum(counters.requests for counters in shared_server.counters())
    assert burst(shared_server.url, 200).total() == 200
    assert sum(counters.requests for counters in shared_server.counters()) == before + 200


@pytest.mark.parametrize(
    ("dispatch", "bound", "held"),
    [("round-robin", 1, 1), ("least-busy", 1, 0), ("least-busy", 2, 1), ("shared", 1, 0)],
)
def test_a_blocked_worker_holds_at_most_one_connection_more(dispatch: str, bound: int, held: int) -> None:
    """Eight fast requests while one worker is inside the loop: the other one answers all but `held`."""
    with (
        serve(dispatch=dispatch, bound=bound, workers=2, iterations=ENDLESS, drain_s=0) as server,
        Connection(server.url) as slow,
    ):
        busy = blocked(server, slow)
        fast = [Connection(server.url).ask("/") for _ in range(8)]
        (idle,) = set(server.workers) - {busy}

        until(lambda: requests(server, idle) >= 8 - held)
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


def test_what_a_worker_that_stands_still_would_get_the_others_take() -> None:
    with serve(dispatch="least-busy", workers=2, iterations=SHORT) as server, ExitStack() as stack:
        still, goes_on = server.workers
        os.kill(still, signal.SIGSTOP)
        clients = [stack.enter_context(Connection(server.url)).ask("/") for _ in range(6)]
        assert {client.answer().worker for client in clients} == {goes_on}
        os.kill(still, signal.SIGCONT)


def test_a_connection_that_cannot_be_opened_does_not_take_its_worker_along(sabotage: Sabotage) -> None:
    sabotage(OPENS_NOT_AT_FIRST)
    with serve(dispatch="least-busy", workers=1, iterations=SHORT) as server:
        with pytest.raises(ConnectionError):
            get(server.url)
        assert get(server.url).status == 200


def test_least_busy_fills_each_worker_to_its_bound_and_keeps_the_rest() -> None:
    """Both workers are inside the loop and hold one more each: killing one frees five of six."""
    with (
        serve(dispatch="least-busy", bound=2, workers=2, iterations=ENDLESS, drain_s=0) as server,
        Connection(server.url) as one,
        Connection(server.url) as two,
        ExitStack() as stack,
    ):
        first = blocked(server, one)
        two.ask()
        (second,) = set(server.workers) - {first}
        computing([second])
        waiting = [stack.enter_context(Connection(server.url)).ask("/") for _ in range(6)]
        os.kill(first, signal.SIGKILL)
        until(lambda: sum(connection.has_answer() for connection in waiting) == 5)
        os.kill(second, signal.SIGKILL)
        answers = [connection.answer() for connection in waiting]
        assert {answer.worker for answer in answers}.isdisjoint({first, second})


@pytest.mark.parametrize(
    "options", [{"topology": "single"}, {"dispatch": "shared"}, {"dispatch": "round-robin"}]
)
def test_an_answer_does_not_wait_for_the_loops_that_came_with_it(options: dict[str, str]) -> None:
    """Three requests reach one worker at once; the first is answered while the last one blocks it."""
    with serve(**options, workers=1, iterations=100 * SHORT, drain_s=0) as server, ExitStack() as stack:
        os.kill(server.workers[0], signal.SIGSTOP)
        clients = [stack.enter_context(Connection(server.url)) for _ in range(3)]
        for client, path in zip(clients, ["/api/slow", "/", LONG], strict=True):
            client.ask(path)
        os.kill(server.workers[0], signal.SIGCONT)
        assert [client.answer().status for client in clients[:2]] == [200, 200]
        assert not clients[2].has_answer()


@pytest.mark.parametrize("dispatch", ["shared", "reuseport", "round-robin"])
def test_a_kept_connection_stays_with_its_worker_and_outlives_it(dispatch: str) -> None:
    """A client cannot know that its worker must go: another one goes on with the connection."""
    with serve(dispatch=dispatch, workers=1, iterations=SHORT) as server, Connection(server.url) as client:
        answers = [client.ask().answer() for _ in range(4)]
        (before,) = {answer.worker for answer in answers}
        assert not any("Connection" in answer.headers for answer in answers)
        server.recycle()
        answer = client.ask().answer()
        assert answer.worker in server.workers
        assert answer.worker != before


@pytest.mark.parametrize(
    "options",
    [
        {"dispatch": "least-busy"},
        {"dispatch": "round-robin", "keepalive": False},
        {"topology": "single", "keepalive": False},
        {"topology": "offload", "keepalive": False},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_without_keepalive_every_answer_closes_its_connection(options: dict[str, object]) -> None:
    with serve(**{"topology": "cluster", "workers": 1, "iterations": SHORT, **options}) as server:  # type: ignore[arg-type]
        for path in ("/", "/api/slow", "/nothing"):
            assert get(server.url, path).headers["Connection"] == "close"


def test_a_worker_that_is_busy_gets_its_connections_later_and_nobody_waits_for_it() -> None:
    """More kept connections than a channel has room for are handed over to two workers, one of them deaf."""
    with serve(dispatch="shared", workers=2, iterations=SHORT, drain_s=20) as server:
        going, busy = server.workers
        os.kill(busy, signal.SIGSTOP)
        kept = [Connection(server.url).ask("/") for _ in range(700)]
        assert {connection.answer().worker for connection in kept} == {going}
        os.kill(going, signal.SIGTERM)
        until(lambda: gone(going))
        assert busy in server.workers
        os.kill(busy, signal.SIGCONT)
        shares = Counter(connection.ask("/").answer().worker for connection in kept)
        assert shares == dict.fromkeys(server.workers, 350)
        for connection in kept:
            connection.close()


@pytest.mark.parametrize("dispatch", ["shared", "least-busy"])
def test_overload_waits_and_is_not_refused(dispatch: str) -> None:
    """1,500 connections while no worker accepts, more than one queue holds: each is answered in the end."""
    with serve(dispatch=dispatch, workers=2, iterations=SHORT) as server:
        for pid in server.workers:
            os.kill(pid, signal.SIGSTOP)
        waiting = [Connection(server.url).ask("/") for _ in range(1500)]
        for pid in server.workers:
            os.kill(pid, signal.SIGCONT)
        assert Counter(connection.answer().status for connection in waiting) == {200: 1500}
        for connection in waiting:
            connection.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the files of a process that runs")
@pytest.mark.parametrize(
    ("options", "room"),
    [
        ({"dispatch": "round-robin"}, 4),
        ({"dispatch": "least-busy"}, 1),
        ({"dispatch": "least-busy", "bound": 9}, 1),
    ],
)
def test_a_worker_that_may_open_no_more_files_gets_its_connections_as_others_are_over(
    options: dict[str, Any], room: int
) -> None:
    with serve(**options, workers=1, iterations=SHORT, drain_s=0) as server:
        worker = psutil.Process(server.workers[0])
        worker.rlimit(psutil.RLIMIT_NOFILE, (most := worker.num_fds() + room, most))
        waiting = [Connection(server.url).ask("/") for _ in range(12)]
        while waiting:
            until(lambda: any(client.has_answer() for client in waiting))
            client = next(client for client in waiting if client.has_answer())
            assert client.answer().status == 200
            client.close()
            waiting.remove(client)


def test_nobody_waits_for_a_worker_that_died_while_its_successor_starts(sabotage: Sabotage) -> None:
    """It was being renewed, and the new worker takes its time."""
    options = {"dispatch": "least-busy", "bound": 9, "workers": 2, "start_timeout_s": 2 * PATIENCE_S}
    with serve(**options, iterations=SHORT) as server, ExitStack() as stack:  # type: ignore[arg-type]
        leaves, stays = server.workers
        sabotage(HANGS)
        os.kill(leaves, signal.SIGTERM)
        until(lambda: len(psutil.Process(server.pid).children()) == 3)
        os.kill(leaves, signal.SIGKILL)
        clients = [stack.enter_context(Connection(server.url)).ask("/") for _ in range(8)]
        assert {client.answer().worker for client in clients} == {stays}
