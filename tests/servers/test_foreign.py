"""Servers that we did not write: started, found ready, measured, ended, and what is said if they fail."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest
from helpers.clients import gone, until

from lab.errors import LabError, UsageError
from lab.servers import sockets
from lab.servers.foreign import ForeignServer, ForeignSpec

_FORKS = """
import http.server, os, sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        names = "HOST", "PORT", "WEB_CONCURRENCY", "EXTRA"
        body = " ".join(os.environ.get(name, "-") for name in names).encode()
        self.send_response(500 if self.path == "/bad" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

server = http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Answer)
all_are_there, forking = os.pipe()
for _ in range(int(os.environ["WEB_CONCURRENCY"])):
    if os.fork() == 0:
        os.close(forking)
        os.read(all_are_there, 1)
        server.serve_forever()
os.close(forking)
os.wait()
"""
"""A server like gunicorn's: workers that accept from one socket, none before all are there."""


def _python(code: str) -> tuple[str, ...]:
    return sys.executable, "-c", textwrap.dedent(code)


@pytest.fixture(scope="module")
def server() -> Iterator[ForeignServer]:
    spec = ForeignSpec(command=_python(_FORKS), workers=2, environment={"EXTRA": "more"})
    with ForeignServer(spec) as server:
        yield server


def test_the_command_is_told_where_to_listen(server: ForeignServer) -> None:
    with urllib.request.urlopen(server.url) as answer:  # noqa: S310
        host, port, workers, extra = answer.read().decode().split()
    assert (f"http://{host}:{port}", workers, extra) == (server.url, "2", "more")


def test_its_workers_are_its_processes_without_children(server: ForeignServer) -> None:
    assert len(server.workers) == 2
    assert {psutil.Process(pid).ppid() for pid in server.workers} == {server.pid}
    assert {one.pid for one in server.processes()} == {server.pid, *server.workers}


def test_its_cpu_time_never_falls(server: ForeignServer) -> None:
    before_s = server.cpu_s()
    for _ in range(5):
        urllib.request.urlopen(server.url).close()  # noqa: S310
    assert server.cpu_s() >= before_s > 0


@pytest.mark.parametrize("drain_s", [0.0, 5.0], ids=["killed", "told"])
def test_what_its_workers_spent_is_counted_as_ours_however_it_ends(drain_s: float) -> None:
    """Of a trial, all else that was spent is taken for a disturbance by others."""
    works = _FORKS.replace("server.serve_forever()", "sum(range(3 * 10**7)); server.serve_forever()")
    before = os.times()
    with ForeignServer(ForeignSpec(command=_python(works), workers=2, drain_s=drain_s)) as server:
        workers = [psutil.Process(pid).cpu_times() for pid in server.workers]
    after = os.times()
    ours_s = after.children_user + after.children_system - before.children_user - before.children_system
    assert ours_s >= sum(one.user + one.system for one in workers) > 0.3


_THREADS = """
import http.server, os, threading
memory = bytearray(2 * 10**8)
memory[::4096] = bytes(len(memory[::4096]))
for _ in range(30):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
sum(range(3 * 10**7))
address = os.environ["HOST"], int(os.environ["PORT"])
http.server.HTTPServer(address, http.server.SimpleHTTPRequestHandler).serve_forever()
"""
"""A server like Node: one that is killed takes a moment to end, after its first thread has."""


def test_what_is_still_ending_is_counted_as_ours_too() -> None:
    before = os.times()
    with ForeignServer(ForeignSpec(command=_python(_THREADS), drain_s=0.0)) as server:
        spent = [process.cpu_times() for process in server.processes()]
    after = os.times()
    ours_s = after.children_user + after.children_system - before.children_user - before.children_system
    assert ours_s >= sum(one.user + one.system for one in spent) > 0.3


def test_placeholders_are_filled_in_and_nothing_is_left() -> None:
    command = (sys.executable, "-m", "http.server", "{port}", "--bind", "{host}")
    with ForeignServer(ForeignSpec(command=command)) as server:
        assert server.workers == [server.pid]
        assert server.ready_s > 0
        log = server.log_path
    server.stop()
    assert not log.exists()
    assert not psutil.pid_exists(server.pid)
    assert server.workers == []


def test_one_that_ignores_sigterm_is_ended() -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + _FORKS
    server = ForeignServer(ForeignSpec(command=_python(stubborn), drain_s=0.1))
    processes = server.processes()
    server.stop()
    assert len(processes) == 2
    assert not psutil.wait_procs(processes, timeout=10)[1]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("no-such-program",), "no such file"),
        (_python("print('no luck today'); raise SystemExit(3)"), r"status 3 .*no luck today"),
        (_python("import time; time.sleep(60)"), r"does it listen on \{host\}:\{port\}"),
    ],
    ids=["absent", "ends", "silent"],
)
def test_one_that_does_not_start_is_told_in_one_line(command: tuple[str, ...], words: str) -> None:
    with pytest.raises(LabError, match=words) as raised:
        ForeignServer(ForeignSpec(command=command, start_timeout_s=0.5 if "sleep" in command[-1] else 30))
    assert "\n" not in str(raised.value)


def test_the_reason_is_among_the_last_words_though_more_is_said_after_it() -> None:
    said = "\n".join(["why it ends", *(f"stopping part {number}" for number in range(5))])
    with pytest.raises(LabError, match="why it ends"):
        ForeignServer(ForeignSpec(command=_python(f"print({said!r}); raise SystemExit(3)")))


def test_one_whose_ready_path_fails_is_never_ready() -> None:
    with pytest.raises(LabError, match=r"answers 500 at .*/bad"):
        ForeignServer(ForeignSpec(command=_python(_FORKS), ready_path="/bad", start_timeout_s=0.5))


def test_a_misspelt_placeholder_is_named() -> None:
    with pytest.raises(UsageError, match=r"no placeholder \{prot\}: there are \{host\}"):
        ForeignSpec(command=("gunicorn", "-b", "{host}:{prot}"))


def test_a_taken_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(LabError, match="is taken"):
        ForeignServer(ForeignSpec(command=_python(_FORKS), port=taken.getsockname()[1]))


@pytest.mark.parametrize(("times", "freed"), [(3, True), (10_000, False)])
def test_a_port_that_is_held_when_all_is_killed_is_waited_for_but_not_forever(
    times: int, freed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last threads of a killed process hold it a moment longer than the process seems to exist."""
    server = ForeignServer(ForeignSpec(command=_python(_FORKS), drain_s=0))
    listen, held = sockets.listen, iter(range(times))

    def refused(host: str, port: int) -> socket.socket:
        if next(held, None) is None:
            return listen(host, port)
        raise LabError(f"port {port} is taken")

    monkeypatch.setattr(sockets, "listen", refused)
    with nullcontext() if freed else pytest.raises(LabError, match="is taken"):
        server.stop()
    assert (next(held, None) is None) == freed


def test_it_does_not_outlive_its_starter(tmp_path: Path) -> None:
    starter = f"""
        import sys, time
        from lab.servers.foreign import ForeignServer, ForeignSpec
        server = ForeignServer(ForeignSpec(command=(sys.executable, "-c", {_FORKS!r}), workers=2))
        print(*(one.pid for one in server.processes()), flush=True)
        time.sleep(60)
    """
    with subprocess.Popen(_python(starter), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        os.kill(process.pid, signal.SIGKILL)
    assert len(pids) == 3
    until(lambda: all(gone(pid) for pid in pids))
