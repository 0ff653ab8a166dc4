"""Processes that we start: they end with their starter, import nothing of the caller's, never wait to log."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from helpers.clients import PATIENCE_S, gone, until

from lab.errors import LabError
from lab.load.attack import attack
from lab.processes import end_group, running
from lab.servers import serve

STARTER = """
import sys, time
from pathlib import Path
from lab.processes import running
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
with running(sleep, cwd=Path("/"), stdout=None, stderr=None) as minder:
    print(minder.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder whose modules must not be imported, on a path that leads there first."""
    for name in ("queue.py", "lab/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise ImportError('this is the caller\\'s')")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_is_imported_from_the_callers_folder(trap: Path) -> None:
    for topology in ("single", "cluster", "offload"):
        with serve(topology, iterations=1000) as server:
            assert attack(server.url + "/api/slow", rate=20, duration=0.2).summary["success"] == 1


def _family(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def test_a_foreign_program_ends_with_the_block_and_with_its_starter() -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    with running(sleep, cwd=Path("/"), stdout=None, stderr=None) as minder:
        until(lambda: len(family := _family(minder.pid)) == 2 and family)
        family = _family(minder.pid)
    assert all(gone(process.pid) for process in family)
    with subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        until(lambda: len(_family(pid)) == 2)
        pids = [process.pid for process in _family(pid)]
        starter.kill()
    until(lambda: all(gone(pid) for pid in pids))


@pytest.mark.parametrize(("code", "status"), [("raise SystemExit(7)", 7), ("import os; os.abort()", 134)])
def test_a_foreign_program_leaves_its_status(code: str, status: int) -> None:
    with running([sys.executable, "-c", code], cwd=Path("/"), stdout=None, stderr=None) as minder:
        assert minder.wait(PATIENCE_S) == status


def test_a_group_is_ended_within_a_time_or_by_force() -> None:
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-c", stubborn], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        end_group(process, within_s=0.05)
        assert process.returncode == -signal.SIGKILL
        end_group(process)  # again it does nothing


def test_a_survivor_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.processes._PATIENCE_S", 0.0)
    monkeypatch.setattr("lab.processes._alive", lambda group: [group])
    process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    with pytest.raises(LabError, match=f"processes \\[{process.pid}\\] survived SIGKILL"):
        end_group(process)


LOGGING = """
import logging, sys, time
from lab.processes import log_without_waiting
log_without_waiting()
for number in range(50_000):
    logging.info("line %d %s", number, "x" * 100)
print("done", flush=True)
sys.stdin.readline()
while logging.getLogger().handlers[0].queue.unfinished_tasks:
    time.sleep(0.01)
logging.info("after")
"""


def test_a_log_that_nobody_reads_stops_nobody_and_counts_what_it_lost() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOGGING],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        _, log = process.communicate("go\n", timeout=PATIENCE_S)
    lines = log.splitlines()
    lost = int(lines[-1].partition("(")[2].partition(" ")[0])
    assert "line 0 " in lines[0]
    assert "lines lost, as nobody read this) " in lines[-1]
    assert lines[-1].endswith(" after")
    assert len(lines) - 1 + lost == 50_000


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_obstacle(tmp_path: Path, closed: str) -> None:
    code = (
        "import sys, os\n"
        "from lab.cli import main\n"
        "main(['attack', sys.argv[1], '--rate', '20', '--duration', '200ms', '--out', sys.argv[2]])\n"
    )
    out = tmp_path / "a.parquet"
    with serve("single", iterations=1000) as server:
        command = f'exec "$0" -c "$1" "$2" "$3" {closed}'
        done = subprocess.run(
            ["/bin/sh", "-c", command, sys.executable, code, server.url + "/", str(out)],
            check=False, timeout=PATIENCE_S,
        )  # fmt: skip
    assert done.returncode == 0
    assert out.stat().st_size > 0


def test_this_process_logs_as_before() -> None:
    assert not any(type(handler).__name__ == "_Counting" for handler in logging.getLogger().handlers)
    assert os.get_inheritable(0)
