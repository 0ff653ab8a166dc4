"""A CPU quota of our own: it holds, it is counted, and no control group is left behind, whatever ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.clients import gone, until
from helpers.quotas import groups, needs_a_group, needs_a_quota

from lab.cpus import available_cpus, cpu_groups, quota_of
from lab.errors import LabError, UsageError
from lab.quota import new_quota
from lab.servers import ServerSpec, serve

pytestmark = pytest.mark.usefixtures("no_group_left")


SPIN = [sys.executable, "-c", "while True: pass"]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@needs_a_quota
def test_a_quota_holds_a_process_and_what_it_starts_and_counts_its_pauses() -> None:
    limited = new_quota(0.2)
    with subprocess.Popen([*limited.prefix, *SPIN]) as process:
        try:
            limited.limit(True)
            before, used_s, began_s = limited.throttling(process.pid), cpu_s(process.pid), time.monotonic()
            until(lambda: limited.throttling(process.pid).since(before).throttled >= 5)
            share = (cpu_s(process.pid) - used_s) / (time.monotonic() - began_s)
            assert share <= 0.35, "a fifth of a CPU, and the budget of the period that had begun"
            found = limited.throttling(process.pid).since(before)
            assert found.periods >= found.throttled
            assert found.throttled_s > 0
        finally:
            process.kill()
    limited.close()


@needs_a_group
def test_what_a_command_starts_at_once_is_held_too() -> None:
    """It is in the group before it runs, so no child can escape by being quick."""
    limited = new_quota(0.5)
    command = [*limited.prefix, "sh", "-c", "sleep 60 & echo $!; wait"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        (mine,) = (group for group in groups() if f"-{os.getpid()}-" in group.name)
        assert {next(iter(cpu_groups(pid=pid))) for pid in (process.pid, child)} == {mine}
        process.kill()
        os.kill(child, signal.SIGKILL)
    limited.close()


@needs_a_group
def test_a_command_that_cannot_be_held_does_not_run() -> None:
    limited = new_quota(0.5)
    limited.close()
    done = subprocess.run([*limited.prefix, "echo", "ran"], capture_output=True, check=False)
    assert done.returncode != 0
    assert done.stdout == b""


@needs_a_group
def test_a_lifted_quota_throttles_no_more() -> None:
    limited = new_quota(0.1)
    with subprocess.Popen([*limited.prefix, *SPIN]) as process:
        try:
            limited.limit(True)
            until(lambda: limited.throttling(process.pid).throttled >= 2)
            limited.limit(False)
            lifted, used_s = limited.throttling(process.pid).throttled, cpu_s(process.pid)
            until(lambda: cpu_s(process.pid) > used_s + 0.3)
            assert limited.throttling(process.pid).throttled <= lifted + 1
        finally:
            process.kill()
    limited.close()


@needs_a_quota
def test_the_processes_of_a_server_are_held_and_its_starter_is_not() -> None:
    with serve(workers=2, iterations=1000, quota_cpus=0.5) as server:
        for pid in [server.pid, *server.workers]:
            assert next(map(quota_of, cpu_groups(pid=pid))) == 0.5
        assert 0.5 not in [quota_of(group) for group in cpu_groups()]
        found = server.throttling()
        assert found is not None
        assert found.periods >= found.throttled >= 0


@needs_a_group
def test_a_server_that_cannot_start_leaves_no_group() -> None:
    with serve("single", iterations=1000) as server, pytest.raises(LabError, match="port"):
        serve("single", iterations=1000, quota_cpus=0.5, port=int(server.url.rpartition(":")[2]))
    assert not any(f"-{os.getpid()}-" in group.name for group in groups())


STARTER = """
import json, time
from lab.servers import serve
server = serve(workers=2, iterations=10**9, quota_cpus=.5)
print(json.dumps([server.pid, *server.workers]), flush=True)
time.sleep(600)
"""


def _started(process: "subprocess.Popen[str]") -> tuple[list[int], set[Path]]:
    assert process.stdout is not None
    pids = json.loads(process.stdout.readline())
    return pids, {group for group in groups() if f"-{process.pid}-" in group.name}


@needs_a_group
def test_of_a_starter_that_is_killed_no_group_is_left() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True) as process:
        try:
            pids, made = _started(process)
            assert len(made) == 1
        finally:
            process.kill()
    until(lambda: all(gone(pid) for pid in pids))
    until(lambda: not made & groups())


@needs_a_group
def test_the_next_start_removes_what_a_starter_and_its_guardian_left() -> None:
    """A group as both of them leave it, of a process that is gone."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    parent = next(iter(cpu_groups()))
    left = parent / f"scaling-lab-{ended.pid}-0123abcd"
    living = parent / f"scaling-lab-{os.getppid()}-0123abcd"
    left.mkdir()
    living.mkdir()
    try:
        new_quota(0.5).close()
        assert not left.exists()
        assert living.exists(), "its starter lives"
    finally:
        living.rmdir()


@needs_a_group
def test_a_guardian_survives_the_signals_of_its_starters_terminal() -> None:
    code = (
        "import os, signal, time; from lab.quota import new_quota; new_quota(.5);"
        " signal.signal(signal.SIGINT, signal.default_int_handler);"  # ours may ignore it, as under nohup
        " os.killpg(0, signal.SIGINT); time.sleep(30)"  # until Python looks at its signals
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stderr=subprocess.DEVNULL
    ) as process:
        assert process.wait() == -signal.SIGINT
    until(lambda: not [group for group in groups() if f"-{process.pid}-" in group.name])


@pytest.mark.parametrize(("cpus", "workers"), [(0.5, 1), (1, 1), (1.5, 2), (99, None), (None, None)])
def test_workers_are_by_default_the_servers_own_quota_rounded_up(
    cpus: float | None, workers: int | None
) -> None:
    expected = available_cpus() if workers is None else min(workers, available_cpus())
    assert ServerSpec(quota_cpus=cpus).workers == expected


@pytest.mark.parametrize("cpus", [0, -1, 0.001, float("nan"), float("inf"), "half", True])
def test_a_quota_that_makes_no_sense_is_refused(cpus: Any) -> None:
    with pytest.raises(UsageError, match="quota_cpus must be"):
        ServerSpec(quota_cpus=cpus)


@needs_a_group
def test_every_default_inside_a_quota_respects_it() -> None:
    """The whole lab inside a real quota: workers of a server, of a notebook, generators, and the doctor."""
    code = """
import os
from lab.cpus import available_cpus
from lab.experiments import common
from lab.load.generators import generators_with_room
from lab.servers import ServerSpec
from lab.servers.spec import most_workers
print(available_cpus(), ServerSpec().workers, common.resolve("cpus"), generators_with_room(), most_workers())
"""
    limited = new_quota(0.5)
    try:
        with subprocess.Popen(
            [*limited.prefix, sys.executable, "-c", f"input()\n{code}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            limited.limit(True)
            out, _ = process.communicate("\n")
        assert out.split() == ["1", "1", "1", "1", "64"]
    finally:
        limited.close()
