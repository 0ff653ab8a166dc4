"""Processes that we start: they end with their starter, import nothing of the caller's, never wait to log."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import psutil
import pytest
from helpers.clients import PATIENCE_S, gone, until

from lab.errors import LabError
from lab.load.attack import attack
from lab.processes import Program, end_group, start_program
from lab.servers import serve

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STARTER = """
import json, sys, time
from pathlib import Path
from lab.processes import start_program
with start_program(json.loads(sys.argv[1]), cwd=Path("/"), stdout=2, stderr=2) as program:
    print(program.pid, flush=True)
    time.sleep(600)
"""
DAEMON = """
import os, sys, time
if not os.fork():
    os.setsid()
    if daemon := os.fork():
        print(daemon, flush=True)
    else:
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep(float(sys.argv[1]))
"""
"""It forks a process that leaves its session and its group, and loses its parent."""


def program(code: str, *arguments: str, out: IO[bytes] | None = None, **more: Any) -> Program:
    command = [sys.executable, "-u", "-c", code, *arguments]
    return start_program(command, **{"cwd": Path("/"), "stdout": out, "stderr": None, **more})


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
        with serve(topology, workers=1, iterations=1000) as server:
            assert attack(server.url + "/api/slow", rate=20, duration=0.2).summary["success"] == 1


def test_a_program_ends_with_the_block_and_with_its_starter() -> None:
    with start_program(SLEEP, cwd=Path("/"), stdout=None, stderr=None) as started:
        assert not gone(started.pid)
    assert gone(started.pid)
    command = [sys.executable, "-c", STARTER, json.dumps(SLEEP)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        keeper = psutil.Process(pid).ppid()
        starter.kill()
    until(lambda: gone(pid) and gone(keeper))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux finds the parents of orphans")
@pytest.mark.parametrize("how", ["the block ends", "the program ends", "the starter is killed"])
def test_what_has_left_the_programs_group_ends_too(how: str, tmp_path: Path) -> None:
    lasts_s = "0" if how == "the program ends" else "600"
    with (tmp_path / "out").open("wb+") as out, ExitStack() as stack:
        if how == "the starter is killed":
            command = [sys.executable, "-c", STARTER, json.dumps([sys.executable, "-c", DAEMON, lasts_s])]
            starter = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=out)
            stack.callback(starter.communicate)
            stack.callback(starter.kill)
        else:
            started = stack.enter_context(program(DAEMON, lasts_s, out=out))
        until(lambda: (tmp_path / "out").read_text().endswith("\n"))
        daemon = int((tmp_path / "out").read_text())
        assert os.getsid(daemon) == os.getpgid(daemon) if lasts_s != "0" else True
        if how == "the program ends":
            assert started.wait(PATIENCE_S) == 0
            assert gone(daemon)
    until(lambda: gone(daemon))


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(7)", 7),
        ("import os; os.abort()", -signal.SIGABRT),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
    ],
)
def test_a_program_leaves_its_status(code: str, status: int) -> None:
    with program(code) as started:
        assert started.wait(PATIENCE_S) == status


def test_signals_reach_a_program_even_where_its_starter_ignores_them(tmp_path: Path) -> None:
    """As under nohup, or in the background of a shell: what is ignored is inherited."""
    code = "import signal, time; signal.signal(1, lambda *_: exit(5)); print(); time.sleep(600)"
    ignored = (signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in ignored]
    try:
        with (tmp_path / "out").open("wb") as out:
            with program(code, out=out) as started:
                until(lambda: (tmp_path / "out").read_bytes())
                started.send_signal(signal.SIGHUP)
                assert started.wait(PATIENCE_S) == 5
            with program("import time; time.sleep(600)") as started:
                started.send_signal(signal.SIGINT)
                assert started.wait(PATIENCE_S) in (1, -signal.SIGINT)
    finally:
        for number, handler in zip(ignored, before, strict=True):
            signal.signal(number, handler)


@pytest.mark.parametrize("told", [True, False], ids=["told of its end", "looks for it"])
def test_a_program_may_end_by_itself_for_a_while_and_is_killed_then(
    told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not told:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    obeys = "import signal, time; signal.signal(15, lambda *_: exit(6)); print(); time.sleep(600)"
    refuses = "import signal, time; signal.signal(15, signal.SIG_IGN); print(); time.sleep(600)"
    for code, within_s, status in ((obeys, PATIENCE_S, 6), (refuses, 0.05, -signal.SIGKILL)):
        with (tmp_path / "out").open("wb") as out, program(code, out=out) as started:
            until(lambda: (tmp_path / "out").read_bytes())
            started.end(within_s)
            assert started.poll() == status
            assert gone(started.pid)


def test_the_cpu_time_is_that_of_the_program_and_of_what_it_started(tmp_path: Path) -> None:
    """The program knows its own, but for its last steps."""
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    code = f"import os\nif not os.fork():\n    exec({burn!r})\n    os._exit(0)\nos.wait()\n{burn}"
    code += "from resource import getrusage\n"
    code += "print(sum(sum(getrusage(whose)[:2]) for whose in (0, -1)), flush=True)\nos._exit(0)"
    with (tmp_path / "out").open("wb") as out, program(code, out=out) as started:
        cpu_s = started.cpu_s()
    own_s = float((tmp_path / "out").read_text())
    assert 0.6 <= own_s <= cpu_s <= own_s + 0.03, "and not that of its keeper"


@pytest.mark.parametrize(
    ("command", "cwd", "message"),
    [
        (["/no/such/program"], "/", "/program: no such file or directory; is it installed, and on PATH\\?$"),
        ([__file__], "/", "cannot start .*test_processes.py: permission denied"),
        (SLEEP, "/no/such/folder", "no such file or directory$"),
    ],
)
def test_a_program_that_cannot_be_started_is_said(command: list[str], cwd: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        start_program(command, cwd=Path(cwd), stdout=None, stderr=None)


def test_an_environment_may_be_large() -> None:
    with program("import os; assert len(os.environ['A']) == 100_000", env={"A": "b" * 100_000}) as started:
        assert started.wait(PATIENCE_S) == 0


def test_a_program_has_the_environment_and_the_files_that_it_is_given(tmp_path: Path) -> None:
    code = (
        "import os; print(dict(os.environ).get('A'), 'HOME' in os.environ, os.readlink('/proc/self/fd/FD'))"
    )
    with (tmp_path / "out").open("wb+") as out, (tmp_path / "given").open("wb") as given:
        with program(
            code.replace("FD", str(given.fileno())), out=out, env={"A": "b"}, fds=[given.fileno()]
        ) as started:
            assert started.wait(PATIENCE_S) == 0
        assert (tmp_path / "out").read_text().split() == ["b", "False", str(tmp_path / "given")]


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
from lab.streams import log_without_waiting
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
    losses = re.findall(r"\((\d+) lines lost, ", log)  # two, if the log was slow to start
    assert "line 0 " in lines[0]
    assert "lines lost, as nobody read this) " in lines[-1]
    assert lines[-1].endswith(" after")
    assert len(lines) - 1 + sum(map(int, losses)) == 50_000


def test_a_log_that_nobody_reads_does_not_keep_the_process_from_ending() -> None:
    code = LOGGING.partition("print(")[0]
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        assert process.wait(PATIENCE_S) == 0


def test_a_log_in_a_file_has_each_line_at_once(tmp_path: Path) -> None:
    code = LOGGING.partition("for ")[0] + "import os\nlogging.info('%s', 'last words')\nos._exit(1)\n"
    with (tmp_path / "log").open("w") as log:
        assert subprocess.run([sys.executable, "-c", code], stderr=log, check=False).returncode == 1
    assert (tmp_path / "log").read_text().endswith(" last words\n")


def test_a_line_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    """Be it ill-formed, or be there no room in the file."""
    full = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    code = LOGGING.partition("for ")[0] + "logging.info('%d', 'words')\n" + full + "logging.info('%s', 1)\n"
    with (tmp_path / "log").open("w") as log:
        assert subprocess.run([sys.executable, "-c", code], stderr=log, check=False).returncode == 0
    assert "TypeError" in (tmp_path / "log").read_text()


def test_this_process_logs_as_before() -> None:
    assert not any(type(handler).__name__ == "_Counting" for handler in logging.getLogger().handlers)
    assert os.get_inheritable(0)
