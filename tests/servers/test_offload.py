"""One event loop with a pool behind it: `/` stays fast, and the pool is mended."""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from helpers.clients import Connection, burst, computing, get, refused, until

from lab.errors import LabError
from lab.servers import serve

ENDLESS = 10**9


@pytest.mark.parametrize("pool", ["process", "thread"])
def test_fast_requests_are_answered_while_all_compute(pool: str) -> None:
    with serve("offload", pool=pool, workers=2, iterations=ENDLESS, drain_s=0) as server:
        slow = [Connection(server.url).ask() for _ in range(4)]
        computing(server.workers)
        assert get(server.url, "/").body == "Hello World!"
        assert burst(server.url, 10, "/") == {server.pid: 10}
        for connection in slow:
            connection.close()


def test_processes_share_what_waits_in_one_queue() -> None:
    with serve("offload", workers=2, iterations=20_000) as server:
        shares = burst(server.url, 40)
        assert shares.total() == 40
        assert set(shares) == set(server.workers)
        assert {c.pid: c.requests for c in server.counters()} == dict(shares)
        assert all(c.busy_s > 0 for c in server.counters())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this policy")
def test_the_event_loop_gives_way_to_the_processes_that_compute() -> None:
    with serve("offload", workers=2, iterations=1000) as server:
        assert os.sched_getscheduler(server.pid) == os.SCHED_BATCH


@pytest.mark.parametrize("drain_s", [0, 600])
def test_the_cpu_time_of_a_pool_counts_as_its_starter_s_once_it_is_gone(drain_s: float) -> None:
    """Else a trial would take it for that of strangers."""
    with serve("offload", workers=1, iterations=ENDLESS, drain_s=drain_s) as server:
        with Connection(server.url) as slow:
            slow.ask()
            runner = psutil.Process(computing(server.workers))
            until(lambda: runner.cpu_times().user > 0.5)
            before, used_s = os.times().children_user, runner.cpu_times().user
            if drain_s:
                server.send_signal(signal.SIGTERM)
                until(lambda: refused(server.url))  # it was heard: the next one is a second one
                server.send_signal(signal.SIGTERM)
        server.stop()
    assert os.times().children_user - before >= used_s


def test_a_process_of_the_pool_that_dies_takes_one_request_with_it_and_is_replaced() -> None:
    with serve("offload", workers=2, iterations=ENDLESS, drain_s=0) as server:
        with Connection(server.url) as slow:
            slow.ask()
            victim = computing(server.workers)
            os.kill(victim, signal.SIGKILL)
            assert slow.answer().status == 500
        until(lambda: victim not in server.workers and len(server.workers) == 2)
        assert get(server.url, "/").status == 200


def test_a_process_that_dies_loses_the_run_it_was_at_and_not_the_one_at_hand() -> None:
    with (
        serve("offload", workers=1, iterations=ENDLESS, drain_s=0) as server,
        Connection(server.url) as first,
        Connection(server.url) as second,
        Connection(server.url) as third,
    ):
        first.ask()
        victim = computing(server.workers)
        second.ask()
        third.ask()
        until(lambda: get(server.url, "/").status == 200)  # the event loop has read what came before
        os.kill(victim, signal.SIGKILL)
        assert first.answer().status == 500
        successor = computing(until(lambda: [pid for pid in server.workers if pid != victim]))
        assert not second.has_answer()
        os.kill(successor, signal.SIGKILL)
        assert second.answer().status == 500, "the runs keep their order"
        computing(until(lambda: [pid for pid in server.workers if pid != successor]))
        assert not third.has_answer()


def test_a_kill_among_many_requests_loses_one_and_answers_each_other_once() -> None:
    with serve("offload", workers=2, iterations=300_000) as server:
        connections = [Connection(server.url).ask() for _ in range(40)]
        os.kill(computing(server.workers), signal.SIGKILL)
        answers = [connection.answer() for connection in connections]
        for connection in connections:
            connection.close()
    assert Counter(answer.status for answer in answers) == {200: 39, 500: 1}


def test_a_renewed_process_answers_the_run_it_was_at_and_its_successor_the_one_at_hand() -> None:
    """So it need not outlast two runs: however long they take, it may take `drain_s` for one."""
    with serve("offload", workers=1, iterations=5_000_000) as server:
        connections = [Connection(server.url).ask() for _ in range(3)]
        old = computing(server.workers)
        server.recycle()
        answers = [connection.answer() for connection in connections]
        for connection in connections:
            connection.close()
        assert {answer.status for answer in answers} == {200}
        assert [answer.worker for answer in answers] == [old, *2 * server.workers]
        assert old not in server.workers


def test_a_pool_that_cannot_be_kept_running_ends_the_server() -> None:
    with serve("offload", workers=1, iterations=1000) as server:
        deaths: set[int] = set()
        while "gave up" not in server.log():
            for pid in set(server.workers) - deaths:
                deaths.add(pid)
                os.kill(pid, signal.SIGKILL)
        with pytest.raises(LabError, match=r"ended: SIGKILL; gave up, because 6 workers in a row died young"):
            server.wait()
        assert len(deaths) == 6


def test_threads_of_the_python_kernel_share_one_cpu() -> None:
    """The GIL: however many threads compute, they get no more than a second of CPU time in a second."""
    with serve("offload", pool="thread", workers=2, iterations=200_000) as server:
        process = psutil.Process(server.pid)
        start, used = time.perf_counter(), process.cpu_times()
        burst(server.url, 20)
        spent, elapsed_s = process.cpu_times(), time.perf_counter() - start
        assert spent.user - used.user <= 1.1 * elapsed_s


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the state of threads")
def test_threads_of_the_numba_kernel_compute_at_once() -> None:
    """Who waits for the GIL sleeps; who only waits for a CPU is running, however busy those are."""
    with _two_computing_threads("python") as pid:
        until(lambda: _running(pid) == 1)
    with _two_computing_threads("numba") as pid:
        assert min(_running(pid) for _ in range(500)) >= 2


@contextmanager
def _two_computing_threads(kernel: str) -> Iterator[int]:
    endless = serve("offload", pool="thread", workers=2, kernel=kernel, iterations=ENDLESS, drain_s=0)
    with endless as server, Connection(server.url) as one, Connection(server.url) as other:
        one.ask()
        other.ask()
        until(lambda: len(_threads_that_computed(server.pid)) == 2)
        yield server.pid


def _threads_that_computed(pid: int) -> list[int]:
    return [
        thread.id for thread in psutil.Process(pid).threads() if thread.id != pid and thread.user_time > 0.1
    ]


def _running(pid: int) -> int:
    """Count the threads of a process that run, or would if there were a CPU."""
    stats = Path(f"/proc/{pid}/task").glob("*/stat")
    return sum(stat.read_text().rpartition(")")[2].split()[0] == "R" for stat in stats)
