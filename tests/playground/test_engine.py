"""The playground without a browser: a server and its load start, are disturbed and end together."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from helpers.clients import gone, until

from lab.errors import LabError, UsageError
from lab.playground.engine import Engine, Parameters
from lab.servers.spec import most_workers

SETTINGS: dict[str, Any] = {
    "topology": "cluster", "dispatch": "round-robin", "workers": 2, "kernel": "python", "iterations": 1000,
    "arrivals": "constant", "rate": 50,
}  # fmt: skip

OWNER = """
import json, sys, time
from lab.playground.engine import Engine, Parameters
engine = Engine()
engine.start(Parameters(**json.loads(sys.argv[1])))
print(json.dumps(engine.pids), flush=True)
time.sleep(600)
"""


def settings(**changed: Any) -> Parameters:
    return Parameters.from_batch({}, SETTINGS | changed)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


def answered(engine: Engine, least: int = 1) -> None:
    until(lambda: engine.moment().numbers.answers >= least)


def test_numbers_follow_the_rate_and_nothing_is_lost(engine: Engine) -> None:
    engine.start(settings())
    answered(engine, 20)
    assert engine.moment().rate_rps == 50
    engine.set_rate(200)
    until(lambda: engine.moment().numbers.offered_rps > 150)
    until(lambda: (theory := engine.moment().theory) and theory.throughput_rps == 200)
    moment = engine.moment()
    assert [(worker.index, worker.is_busy) for worker in moment.workers] == [(0, False), (1, False)]
    assert sum(worker.share for worker in moment.workers) == pytest.approx(1)
    assert moment.numbers.p50_s is not None
    assert moment.numbers.p99_s is not None
    assert moment.numbers.p50_s <= moment.numbers.p99_s
    pids = engine.pids
    totals = engine.stop()
    assert totals.due == sum(totals.outcomes.values()) > 40
    assert set(totals.outcomes) <= {"ok", "unfinished"}
    assert all(gone(pid) for pid in pids)
    assert not engine.is_running
    assert engine.stop().due == 0


def test_workers_are_killed_blocked_recycled_and_scaled(engine: Engine) -> None:
    engine.start(settings(iterations=20_000))
    answered(engine)
    before = {worker.pid for worker in engine.moment().workers}
    killed = engine.kill_worker()
    until(lambda: any(worker.restarts for worker in engine.moment().workers))
    until(lambda: len(engine.moment().workers) == 2)
    (dead,) = before - {worker.pid for worker in engine.moment().workers}
    assert str(dead) in killed
    with ThreadPoolExecutor(1) as pool:
        blocking = pool.submit(engine.block_worker)
        until(lambda: (engine.moment().numbers.p99_s or 0) > 0.3)  # those that wait count while they wait
        (blocked,) = until(lambda: [worker for worker in engine.moment().workers if worker.is_busy])
    assert f"worker {blocked.index + 1} (process {blocked.pid})" in blocking.result()
    before = {worker.pid for worker in engine.moment().workers}
    assert engine.recycle() == "2 new ones"
    until(lambda: before.isdisjoint(worker.pid for worker in engine.moment().workers))
    engine.scale(3)
    until(lambda: len(engine.moment().workers) == 3)
    totals = engine.stop()
    assert totals.due == sum(totals.outcomes.values())


def test_a_single_server_that_is_killed_stays_dead_and_says_so(engine: Engine, tmp_path: Path) -> None:
    engine.start(settings(topology="single"))
    answered(engine)
    with pytest.raises(UsageError, match="start a cluster to recycle it"):
        engine.recycle()
    engine.kill_worker()
    until(lambda: engine.moment().trouble)
    until(lambda: engine.moment().numbers.failures.get("refused"))
    with pytest.raises(LabError, match="no worker left"):
        engine.kill_worker()
    assert engine.stop().outcomes["refused"] > 0


def test_a_generator_that_is_killed_is_noticed(engine: Engine) -> None:
    engine.start(settings(topology="offload"))
    os.kill(engine.pids[-1], signal.SIGKILL)
    until(lambda: "generator" in engine.moment().trouble)
    pids = engine.pids
    engine.stop()
    assert all(gone(pid) for pid in pids)


def test_overload_ends_at_once_although_thousands_wait(engine: Engine) -> None:
    engine.start(settings(iterations=400_000, rate=1000))
    until(lambda: engine.moment().numbers.in_flight > 500)
    until(lambda: (theory := engine.moment().theory) and theory.grows_rps > 0)
    pids = engine.pids
    totals = engine.stop()
    assert totals.outcomes["unfinished"] > 400
    assert all(gone(pid) for pid in pids)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"workers": 100_000}, f"must be at most {most_workers()} here"),
        ({"workers": 0}, "must be at least 1"),
        ({"topology": "grid"}, "'single', 'cluster' or 'offload'"),
        ({"kernel": "fortran"}, "'python', 'numpy', 'numba' or 'sleep'"),
        ({"rate": 5000}, "must be at most 1000"),
        ({"rate": 0}, "must be above 0"),
        ({"iterations": -1}, "must be at least 0"),
    ],
)
def test_bad_settings_are_refused_in_one_line(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        settings(**changed)
    assert "\n" not in str(caught.value)


def test_a_kernel_that_is_not_installed_is_named(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('numba is not installed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(LabError, match="numba is not installed"):
        engine.start(settings(topology="single", kernel="numba"))
    assert not engine.is_running
    with pytest.raises(LabError, match="nothing runs"):
        engine.moment()


def test_of_an_owner_that_is_killed_nothing_is_left() -> None:
    command = [sys.executable, "-c", OWNER, json.dumps(SETTINGS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        pids = json.loads(owner.stdout.readline())
        assert len(pids) == 4
        owner.kill()
        until(lambda: all(gone(pid) for pid in pids), 2)
