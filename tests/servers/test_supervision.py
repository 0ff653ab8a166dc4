"""What the supervisor does about workers that die, cannot start or hang, and how it scales them."""

import os
import re
import resource
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.clients import Connection, burst, computing, get, gone, until
from helpers.workers import DIES, HANGS, Sabotage, kill, replaced

from lab.errors import LabError, UsageError
from lab.servers import Server, serve
from lab.servers.workers import SETTLED_S, Backoff

ENDLESS = 10**9
SHORT = 1000

# -- workers that die


def test_workers_that_die_are_replaced_and_the_supervisor_stays_and_keeps_no_zombie() -> None:
    with serve(workers=2, iterations=SHORT) as server:
        victim, other = server.workers
        kill(victim)
        until(lambda: replaced(server, victim, 2))
        assert other in server.workers
        assert set(burst(server.url, 20)) <= set(server.workers)
        assert [counters.restarts for counters in server.counters()] == [1, 0]
        assert f"worker {victim} ended: SIGKILL; another one starts in 0 s" in server.log(lines=100)
        before = server.workers
        for pid in before:
            kill(pid)
        until(lambda: len(set(server.workers) - set(before)) == 2)
        children = psutil.Process(server.pid).children()
        assert {child.pid for child in children} == set(server.workers)
        assert psutil.STATUS_ZOMBIE not in {child.status() for child in children}


def test_a_worker_that_is_killed_with_messages_unread_at_both_ends_is_replaced() -> None:
    """It reads some of its connections before it begins the first request, and says so."""
    with (
        serve(dispatch="least-busy", bound=20, workers=1, iterations=ENDLESS, drain_s=0) as server,
        ExitStack() as stack,
    ):
        (victim,) = server.workers
        os.kill(victim, signal.SIGSTOP)
        for _ in range(20):
            stack.enter_context(Connection(server.url)).ask()
        assert server.workers == server.workers  # it has seen them all once it has answered twice
        os.kill(server.pid, signal.SIGSTOP)
        os.kill(victim, signal.SIGCONT)
        computing([victim])
        os.kill(victim, signal.SIGKILL)
        until(lambda: gone(victim))
        os.kill(server.pid, signal.SIGCONT)
        until(lambda: replaced(server, victim))


def test_a_worker_that_cannot_start_is_reported_once_with_its_reason(sabotage: Sabotage) -> None:
    sabotage(DIES)
    with pytest.raises(LabError) as caught:
        serve(workers=2, iterations=SHORT)
    message = str(caught.value)
    assert re.match(r"the server did not start: worker \d+ ended before it was ready: status 3 \(", message)
    assert "no luck today" in message
    assert "\n" not in message
    log = re.search(r"\((/\S+\.log): ", message)
    assert log
    assert Path(log[1]).read_text().count("no luck today") <= 2


def test_a_single_server_that_cannot_start_is_reported_alike(sabotage: Sabotage) -> None:
    sabotage(DIES)
    with pytest.raises(LabError, match=r"did not start: process \d+ ended, status 3 \(.*no luck today\)$"):
        serve("single", iterations=SHORT)


@pytest.mark.parametrize("topology", ["single", "cluster"])
def test_a_server_that_is_never_ready_is_given_up_and_its_log_is_kept(
    sabotage: Sabotage, topology: str, tmp_path: Path
) -> None:
    sabotage(HANGS)
    for tries in range(1, 3):
        with pytest.raises(LabError, match=r"was not ready after 0.1 s"):
            serve(topology, workers=1, iterations=SHORT, start_timeout_s=0.1)
        assert len(list(tmp_path.glob("scaling-lab-*.log"))) == tries


def test_workers_that_keep_dying_are_given_up_with_the_reason(sabotage: Sabotage) -> None:
    with serve(workers=1, iterations=SHORT) as server:
        (victim,) = server.workers
        sabotage(DIES)
        kill(victim)
        with pytest.raises(
            LabError, match=r"^the server ended: worker \d+ ended before it was ready: status 3; gave up"
        ):
            server.wait()
        assert server.workers == []
        with pytest.raises(LabError, match=r"^the server is gone: .*gave up.*no luck today"):
            server.scale(2)
        assert server.log_path is not None
        assert "no luck today" in server.log_path.read_text()
    assert server.log_path.exists()


def test_a_worker_that_cannot_start_for_a_while_comes_back(sabotage: Sabotage) -> None:
    with serve(workers=1, iterations=SHORT) as server:
        (victim,) = server.workers
        sabotage(DIES)
        kill(victim)
        until(lambda: "another one starts in 0.1 s" in server.log())
        sabotage("")
        until(lambda: replaced(server, victim))
        assert get(server.url).status == 200


def test_back_off_is_immediate_then_doubles_then_gives_up() -> None:
    backoff = Backoff()
    assert [backoff.after_death(0) for _ in range(6)] == [0.0, 0.1, 0.2, 0.4, 0.8, None]


def test_back_off_forgets_once_a_worker_has_settled() -> None:
    backoff = Backoff()
    for _ in range(4):
        backoff.after_death(0)
    assert backoff.after_death(SETTLED_S) == 0.0
    assert backoff.after_death(0) == 0.0
    assert backoff.after_death(0) == 0.1


def test_what_dies_of_age_is_never_given_up() -> None:
    backoff = Backoff()
    assert {backoff.after_death(SETTLED_S) for _ in range(100)} == {0.0}


# -- more, fewer, new ones


@pytest.mark.parametrize("arrangement", [{"dispatch": "round-robin"}, {"topology": "offload"}])
def test_scale_up_and_down(arrangement: dict[str, str]) -> None:
    with serve(**{"topology": "cluster", **arrangement}, workers=1, iterations=SHORT) as server:
        (first,) = server.workers
        server.scale(2)
        assert server.workers[0] == first
        second = server.workers[1]
        assert set(burst(server.url, 12)) == {first, second}
        server.scale(1)
        assert server.workers == [first]
        assert gone(second)
        assert set(burst(server.url, 4)) == {first}


def test_scale_to_what_makes_no_sense_is_refused() -> None:
    refused: dict[Any, str] = {
        0: r"^workers must be at least 1, got 0: to have none, stop the server$",
        -1: r"^workers must be at least 1, got -1: ",
        1_000_000: r"^workers must be at most \d+ here",
        "many": r"^workers must be a whole number, got 'many'$",
    }
    with serve(workers=1, iterations=SHORT) as server:
        before = server.workers
        for workers, message in refused.items():
            with pytest.raises(UsageError, match=message):
                server.scale(workers)
        assert server.workers == before


@pytest.mark.parametrize("options", [{"topology": "single"}, {"topology": "offload", "pool": "thread"}])
def test_what_is_one_process_cannot_be_scaled_or_recycled(options: dict[str, str]) -> None:
    with serve(**options, iterations=SHORT) as server:
        with pytest.raises(UsageError, match=r"is one process: start a cluster to scale it$"):
            server.scale(2)
        with pytest.raises(UsageError, match=r"is one process: start a cluster to recycle it$"):
            server.recycle()
        for said, number in enumerate((signal.SIGTTIN, signal.SIGTTOU, signal.SIGHUP), start=1):
            server.send_signal(number)
            until(lambda said=said: server.log().count("server has no workers") == said)  # type: ignore[misc]
        assert server.workers == [server.pid]
        assert get(server.url).status == 200


def test_a_worker_for_which_there_is_no_open_file_is_said_and_leaves_the_others() -> None:
    with serve(workers=1, iterations=SHORT) as server:
        before = server.workers
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (14, 14))
        with pytest.raises(LabError, match="cannot start a worker: too many open files"):
            server.scale(12)
        assert server.workers == before
        assert get(server.url).status == 200


def test_a_new_worker_that_cannot_start_leaves_the_others(sabotage: Sabotage) -> None:
    with serve(workers=1, iterations=SHORT) as server:
        before = server.workers
        sabotage(DIES)
        with pytest.raises(LabError, match=r"ended before it was ready: status 3"):
            server.scale(3)
        assert server.workers == before
        assert len(psutil.Process(server.pid).children()) == 1


@pytest.mark.parametrize("topology", ["cluster", "offload"])
def test_signals_that_people_know(topology: str) -> None:
    with serve(topology, workers=1, iterations=SHORT) as server:
        (first,) = server.workers
        server.send_signal(signal.SIGTTIN)
        until(lambda: len(server.workers) == 2)
        assert server.workers[0] == first
        server.send_signal(signal.SIGTTOU)
        until(lambda: server.workers == [first])
        server.send_signal(signal.SIGHUP)
        until(lambda: replaced(server, first))


# -- hanging


def test_a_worker_that_hangs_is_ended_and_replaced_with_its_stack_in_the_log() -> None:
    with serve(workers=1, iterations=ENDLESS, hang_timeout_s=0.5, drain_s=0) as server:
        (first,) = server.workers
        with Connection(server.url) as client:
            client.ask()
            until(lambda: replaced(server, first))
        assert get(server.url, "/").status == 200
        assert server.log_path is not None
        assert "in python_loop" in server.log_path.read_text()


def test_a_worker_that_is_merely_busy_does_not_hang() -> None:
    """Requests that are each far shorter than the time-out, and together far longer, without a pause."""
    with serve(dispatch="shared", workers=1, iterations=100_000, hang_timeout_s=0.5) as server:
        before, size = server.workers, 20
        while sum(counters.busy_s for counters in server.counters()) < 1.5:
            assert set(burst(server.url, size)) == set(before)
            size *= 2  # so that the last one takes half of the time
        assert server.workers == before


# -- figures and places


def test_counters_tell_what_each_worker_did() -> None:
    with serve(dispatch="round-robin", workers=2, iterations=20_000) as server:
        shares = burst(server.url, 10)
        counters = server.counters()
        assert {c.pid: c.requests for c in counters} == dict(shares)
        assert all(c.busy_s > 0 for c in counters)
        assert [c.index for c in counters] == [0, 1]


def test_counters_can_be_read_while_the_worker_is_inside_the_loop() -> None:
    with serve("single", iterations=ENDLESS, drain_s=0) as server, Connection(server.url) as client:
        get(server.url, "/")
        client.ask()
        computing([server.pid])
        assert [c.requests for c in server.counters()] == [1]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity")
@pytest.mark.parametrize(("topology", "workers"), [("cluster", 3), ("offload", 2)])
def test_pinned_workers_have_one_cpu_each_in_turn(topology: str, workers: int) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    with serve(topology, workers=workers, iterations=SHORT, pin=True) as server:
        places = [os.sched_getaffinity(pid) for pid in server.workers]
        assert places == [{cpus[slot % len(cpus)]} for slot in range(workers)]
        kill(victim := server.workers[1])
        until(lambda: replaced(server, victim, workers))
        assert [os.sched_getaffinity(pid) for pid in server.workers] == places


def test_a_supervisor_that_is_stopped_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    questions: list[Callable[[Server], object]] = [
        lambda server: server.workers,
        lambda server: server.counters(),
        lambda server: server.scale(2),
    ]
    with serve(workers=1, iterations=SHORT) as server:
        server.send_signal(signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr("lab.servers.handle._PATIENCE_S", 0.2)
            for ask in questions:
                with pytest.raises(LabError, match=f"process {server.pid}, has not responded for 0.2 s"):
                    ask(server)
        server.send_signal(signal.SIGCONT)
        assert server.workers


def test_a_change_may_take_longer_than_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.servers.handle._PATIENCE_S", 0.2)
    with serve(workers=1, iterations=SHORT) as server:
        server.scale(2)  # to start one takes longer
        assert len(server.workers) == 2
