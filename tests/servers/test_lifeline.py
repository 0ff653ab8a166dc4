"""No process outlives its starter by more than 2 s, even one that is inside the loop when that is killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.clients import Connection, computing, gone, until

from lab.servers import serve

ENDLESS = 10**9
PROMISE_S = 2.0

STARTER = """
import json, os, sys, time
from lab.servers import serve
server = serve(**json.loads(sys.argv[1]))
print(json.dumps({"url": server.url, "pid": server.pid, "workers": server.workers}), flush=True)
if sys.argv[2] == "fork" and not os.fork():
    print(json.dumps(os.getpid()), flush=True)
time.sleep(600)
"""


@dataclass(frozen=True)
class Started:
    """A process that has started a server, and what it said of it."""

    process: "subprocess.Popen[str]"
    url: str
    pid: int
    workers: list[int]


@contextmanager
def starter(how: str = "", **options: object) -> Iterator[Started]:
    arguments = [sys.executable, "-c", STARTER, json.dumps(options), how]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Started(process, **json.loads(process.stdout.readline()))
        finally:
            process.kill()


def all_gone(*pids: int) -> bool:
    return all(gone(pid) for pid in pids)


CASES = [
    {"topology": "single", "kernel": "python"},
    {"topology": "cluster", "kernel": "python"},
    {"topology": "single", "kernel": "numpy"},
    {"topology": "single", "kernel": "numba"},
    {"topology": "offload", "pool": "process", "workers": 2},
    {"topology": "offload", "pool": "thread", "workers": 2},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_of_a_starter_that_is_killed_while_a_worker_is_inside_the_loop_nothing_is_left(
    case: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    iterations = 2 * 10**7 if case.get("kernel") == "numpy" else ENDLESS  # numpy holds all terms in memory
    with (
        starter(**{"workers": 1, "iterations": iterations, **case}) as started,  # type: ignore[arg-type]
        Connection(started.url) as client,
    ):
        assert list(tmp_path.glob("*.log"))
        client.ask()
        computing(started.workers)
        started.process.kill()
        until(lambda: all_gone(started.pid, *started.workers), PROMISE_S)
        assert list(tmp_path.iterdir()) == []


def test_a_fork_of_the_starter_does_not_keep_the_server_alive() -> None:
    with starter("fork", workers=1, iterations=1000) as started:
        assert started.process.stdout is not None
        fork = json.loads(started.process.stdout.readline())
        try:
            started.process.kill()
            until(lambda: all_gone(started.pid, *started.workers), PROMISE_S)
            assert not gone(fork)
        finally:
            os.kill(fork, signal.SIGKILL)


def test_the_end_of_a_fork_is_not_the_end_of_the_server() -> None:
    with serve(workers=1, iterations=1000) as server:
        program = os.fork()
        if program == 0:
            os._exit(0)
        os.waitpid(program, 0)
        assert len(server.workers) == 1


@pytest.mark.parametrize("topology", ["cluster", "offload"])
def test_the_leader_is_killed_while_a_worker_is_inside_the_loop(topology: str) -> None:
    with serve(topology, workers=2, iterations=ENDLESS, drain_s=0) as server:
        workers = server.workers
        with Connection(server.url) as client:
            client.ask()
            computing(workers)
            os.kill(server.pid, signal.SIGKILL)
            until(lambda: all_gone(*workers), PROMISE_S)
        assert server.workers == []
