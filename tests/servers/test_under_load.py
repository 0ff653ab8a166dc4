"""What clients notice of changes while they ask: nothing, when workers change; little, when one is killed."""

import os
import signal

import pytest
from helpers.clients import Connection, Load, computing, gone, until

from lab.servers import serve

ITERATIONS = 20_000
PASSED_ON_OR_SHARED = ["shared", "round-robin", "least-busy"]
ENDLESS = 10**9


@pytest.mark.parametrize("dispatch", PASSED_ON_OR_SHARED)
def test_recycling_and_scaling_lose_no_request(dispatch: str) -> None:
    """Neither on connections that are kept nor on new ones."""
    with serve(dispatch=dispatch, workers=2, iterations=ITERATIONS, drain_s=30) as server:
        with Load(server.url, clients=2) as new, Load(server.url, clients=2, keepalive=True) as kept:
            for change in (server.recycle, lambda: server.scale(3), lambda: server.scale(1)):
                for load in (new, kept):
                    load.has_answers(more=5)
                change()
            for load in (new, kept):
                load.has_answers(more=5)
        assert new.failures + kept.failures == []
        assert {answer.status for answer in new.answers + kept.answers} == {200}


@pytest.mark.parametrize("dispatch", PASSED_ON_OR_SHARED)
def test_recycling_after_so_many_requests_loses_none(dispatch: str) -> None:
    with serve(dispatch=dispatch, workers=1, iterations=ITERATIONS, recycle_after=50, drain_s=30) as server:
        with Load(server.url) as load:
            until(lambda: all(counters.restarts >= 2 for counters in server.counters()))
        assert load.failures == []


@pytest.mark.parametrize("dispatch", ["round-robin", "least-busy"])
def test_kills_cost_only_what_the_workers_had_accepted(dispatch: str) -> None:
    """Each client has one request at a time: at most as many fail with each kill as there are clients."""
    with serve(dispatch=dispatch, workers=2, iterations=ITERATIONS) as server:
        with Load(server.url, clients=4) as load:
            for kills in (1, 2):
                load.has_answers(more=10)
                victim = server.workers[0]
                os.kill(victim, signal.SIGKILL)
                until(lambda victim=victim: victim not in server.workers and len(server.workers) == 2)  # type: ignore[misc]
                load.has_answers(more=20)
                assert len(load.failures) <= kills * (4 if dispatch == "round-robin" else 1)
        assert {answer.worker for answer in load.answers} >= set(server.workers)


@pytest.mark.parametrize("topology", ["single", "cluster"])
def test_stopping_under_load_is_bounded_and_complete(topology: str) -> None:
    with serve(topology, workers=1, iterations=ITERATIONS) as server, Load(server.url) as load:
        load.has_answers(more=5)
        pids = {server.pid, *server.workers}
        server.stop()
        assert all(gone(pid) for pid in pids)


def test_a_worker_inside_the_loop_is_killed_and_its_client_told() -> None:
    with serve(workers=2, iterations=ENDLESS, drain_s=0) as server, Connection(server.url) as client:
        client.ask()
        os.kill(computing(server.workers), signal.SIGKILL)
        with pytest.raises(ConnectionError):
            client.answer()
