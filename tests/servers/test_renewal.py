"""How workers are renewed: the new one is ready before the old one drains, and goes."""

import contextlib
import os
import signal
from pathlib import Path

import psutil
import pytest
from helpers.clients import Connection, burst, computing, get, gone, until
from helpers.workers import DIES_ONCE, HANGS, Sabotage, kill

from lab.errors import LabError
from lab.servers import Server, serve
from lab.servers.worker import jittered

ENDLESS = 10**9
SHORT = 1000


@pytest.mark.parametrize("order", ["recycle", "each is told to go"])
def test_workers_are_renewed_one_at_a_time(order: str) -> None:
    with serve(workers=2, iterations=SHORT) as server:
        before, supervisor = set(server.workers), psutil.Process(server.pid)
        there = [before]

        def all_are_new() -> bool:
            there.append({child.pid for child in supervisor.children()})
            return not before & there[-1]

        if order == "recycle":
            server.send_signal(signal.SIGHUP)
        else:
            for pid in before:
                os.kill(pid, signal.SIGTERM)
        until(all_are_new)
        assert {len(pids) for pids in there} == {2, 2 + 1}
        assert get(server.url).status == 200


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux lists open files here")
@pytest.mark.parametrize("dispatch", ["shared", "reuseport", "round-robin"])
def test_new_workers_cost_the_supervisor_no_open_file(dispatch: str) -> None:
    with serve(dispatch=dispatch, workers=1, iterations=SHORT) as server:
        supervisor = psutil.Process(server.pid)
        before = supervisor.num_fds()
        server.recycle()
        server.scale(2)
        server.scale(1)
        until(lambda: supervisor.num_fds() == before)  # the last answer's channel is closed after it is sent


def test_a_recycle_renews_every_worker_or_ends_with_the_first_that_cannot_be_replaced(
    sabotage: Sabotage,
) -> None:
    with serve(workers=2, iterations=SHORT) as server:
        before = server.workers
        sabotage(DIES_ONCE)
        with pytest.raises(LabError, match=r"ended before it was ready: status 3"):
            server.recycle()
        assert server.workers == before
        assert set(burst(server.url, 8)) == set(before)
        server.recycle()
        assert len(set(before) | set(server.workers)) == 4
        assert all(gone(pid) for pid in before)
        assert [counters.restarts for counters in server.counters()] == [1, 1]


def test_a_replacement_that_is_never_ready_leaves_the_old_worker(sabotage: Sabotage) -> None:
    with started_in_time() as server:
        before = server.workers
        sabotage(HANGS)
        with pytest.raises(LabError, match="was not ready after"):
            server.recycle()
        assert server.workers == before
        assert get(server.url).worker in before


def started_in_time() -> Server:
    """Start a server whose workers have hardly longer to start than they need."""
    for timeout_s in (1.5, 3.0, 6.0, 12.0):
        with contextlib.suppress(LabError):
            return serve(workers=1, iterations=SHORT, start_timeout_s=timeout_s)
    return serve(workers=1, iterations=SHORT)


def test_a_worker_that_shall_go_answers_its_request_first() -> None:
    with serve(workers=1, iterations=3_000_000, drain_s=60) as server, Connection(server.url) as client:
        client.ask()
        old = computing(server.workers)
        server.recycle()
        assert client.answer().worker == old


def test_a_worker_goes_after_so_many_requests() -> None:
    with serve(workers=1, iterations=10, recycle_after=20) as server:
        (first,) = server.workers
        answered = 0
        while server.workers == [first]:
            answered += get(server.url).worker == first
        assert answered >= 20
        until(lambda: gone(first))
        assert get(server.url).worker in server.workers


@pytest.mark.parametrize(("requests", "most"), [(1, 2), (9, 10), (10, 11), (50, 55)])
def test_the_jitter_is_up_to_a_tenth_or_one(requests: int, most: int) -> None:
    assert {jittered(requests) for _ in range(1000)} == set(range(requests, most + 1))


def test_a_replacement_that_dies_while_the_old_worker_drains_is_replaced_at_once() -> None:
    with serve(workers=1, iterations=ENDLESS, drain_s=60) as server, Connection(server.url) as client:
        client.ask()
        old = computing(server.workers)
        server.send_signal(signal.SIGHUP)
        until(lambda: server.workers not in ([old], []))
        (successor,) = server.workers
        kill(successor)
        until(lambda: server.workers not in ([successor], []))
        assert psutil.pid_exists(old), "it still drains"
        kill(old)
