"""Servers that we did not write: each answers as ours do, replaces its workers, and leaves nothing behind."""

import http.client
import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from lab.errors import LabError, UsageError
from lab.hotloop import python_loop
from lab.servers import peers
from lab.servers.peers import PEERS, PeerServer

ITERATIONS = 2_000
CLIENTS = 8


NAMES = [peer.name for peer in PEERS if peer.missing is None or peer.family != "balancer"]
"""In CI, all must be here but the balancers, which only Debian has; those are tested where they are."""


def workers_of(name: str) -> int:
    return 1 if name == "node" else 2


def here(name: str) -> None:
    if command := peers.peer(name).missing:
        pytest.skip(f"{name} is not on this machine: {command}")


def ask(url: str, path: str) -> tuple[int, dict[str, str], str]:
    """Send a request on a connection of its own."""
    at = urlsplit(url)
    with closing(http.client.HTTPConnection(str(at.hostname), at.port, timeout=10)) as connection:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, headers, response.read().decode()


def seen_at(server: PeerServer) -> set[int]:
    """Have several clients at once ask for long loops, until each worker has answered or time is up.

    Which worker accepts a connection is often the kernel's choice, and a busy machine's may fall on one.
    """
    seen: set[int] = set()
    deadline_s = time.monotonic() + 20
    with ThreadPoolExecutor(CLIENTS) as clients:
        while len(seen) < server.spec.workers and time.monotonic() < deadline_s:
            answers = list(clients.map(lambda _: ask(server.url, "/api/slow?times=20"), range(2 * CLIENTS)))
            assert {status for status, _, _ in answers} == {200}
            seen |= {int(headers["x-worker"]) for _, headers, _ in answers}
    return seen


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_gone(server: PeerServer, pids: set[int]) -> None:
    assert not any(map(alive, pids))
    assert not server.folder.exists()
    assert not server.log_path.exists()
    with pytest.raises(ConnectionRefusedError):
        ask(server.url, "/")


@pytest.mark.parametrize("name", NAMES)
def test_a_peer_answers_as_ours_do_replaces_its_workers_and_leaves_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(name)
    monkeypatch.setenv("GRANIAN_RESPAWN_INTERVAL", "0.5")  # else it rests for 3.5 s before each it ends
    with peers.start(name, workers=workers_of(name), iterations=ITERATIONS) as server:
        assert len(server.workers) == workers_of(name)
        assert ask(server.url, "/")[2] == "Hello World!"
        assert ask(server.url, "/healthz")[2] == "ok"
        assert ask(server.url, "/api/slow?times=no")[0] == 400
        _, headers, text = ask(server.url, "/api/slow")
        assert float(text.removeprefix("Result number is ")) == pytest.approx(python_loop(ITERATIONS), 1e-12)
        loop, cpu = (float(part.split("dur=")[1]) for part in headers["server-timing"].split(","))
        assert 0 < cpu < 10 * loop
        assert seen_at(server) == set(server.workers)
        told = [line for line in server.log(999).splitlines() if text.split()[-1] in line]
        assert any(headers["x-worker"] in line for line in told), "each slow request is logged, with its pid"
        pids = {process.pid for process in server.processes()}
        if peers.peer(name).reloads:
            before = set(server.workers)
            server.recycle()
            assert ask(server.url, "/api/slow")[0] == 200
            assert len(server.workers) == workers_of(name)
            assert not before & set(server.workers)
            pids |= {process.pid for process in server.processes()}
    assert_gone(server, pids)


_STARTER = """
import json, sys, time
from lab.servers import peers
running = [peers.start(name, workers=1, iterations=10) for name in sys.argv[1:]]
for one in running:
    pids = [process.pid for process in one.processes()]
    print(json.dumps([pids, str(one.folder), str(one.log_path), one.url]), flush=True)
print(flush=True)
time.sleep(600)
"""


def test_nothing_is_left_of_any_peer_when_its_starter_is_killed() -> None:
    """All at once, as there is one starter; each has files, sockets and processes of its own."""
    names = [peer.name for peer in peers.present()]
    starter = subprocess.Popen([sys.executable, "-c", _STARTER, *names], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    told = [json.loads(line) for line in iter(starter.stdout.readline, "\n")]
    assert len(told) == len(names)
    starter.kill()
    starter.wait()
    starter.stdout.close()
    deadline_s = time.monotonic() + 10
    for pids, folder, log, url in told:
        while any(map(alive, pids)) or Path(folder).exists() or Path(log).exists():
            assert time.monotonic() < deadline_s, (pids, folder, log)
            time.sleep(0.02)
        with pytest.raises(ConnectionRefusedError):
            ask(url, "/")


def test_what_is_not_here_is_absent_and_says_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    absent = {peer.name: peer.missing for peer in peers.absent()}
    assert {peer.name for peer in PEERS if peer.family != "Python"} <= set(absent)
    for name, command in absent.items():
        with pytest.raises(LabError, match="is not here") as caught:
            peers.start(name)
        assert str(command) in str(caught.value)


def test_what_a_peer_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match=r"did you mean gunicorn-sync\?"):
        peers.start("gunicorn-sink")
    with pytest.raises(UsageError, match="node is one process, got 2 workers: use node-cluster"):
        peers.start("node", workers=2)
    with pytest.raises(UsageError, match="node runs the loop in JavaScript, not numpy"):
        peers.start("node", kernel="numpy")
    with pytest.raises(UsageError, match=r"there are .*uvicorn"):
        peers.peer("qqqqqq")


def test_a_port_that_is_taken_is_refused() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken, pytest.raises(LabError, match="is taken"):
        peers.start("uvicorn", port=taken.getsockname()[1])
