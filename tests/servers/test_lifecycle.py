"""A server from its start to the proof that it is gone."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.clients import PATIENCE_S, Connection, computing, get, gone, refused, until

from lab.errors import LabError
from lab.load.attack import attack
from lab.servers import serve

ARRANGEMENTS = [
    {"topology": "single"},
    {"topology": "offload", "pool": "process", "workers": 1},
    {"topology": "offload", "pool": "thread", "workers": 1},
    *({"dispatch": name, "workers": 1} for name in ("shared", "reuseport", "round-robin", "least-busy")),
]
ENDLESS = 10**9
SHORT = 1000


def name(arrangement: dict[str, object]) -> str:
    return "-".join(str(arrangement.get(key, "")) for key in ("topology", "pool", "dispatch")).strip("-")


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have logs made in a folder of the test's own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def once_before() -> None:
    """Have opened what the first server of a program opens for good."""
    with serve("single", iterations=SHORT, drain_s=0):
        pass


@pytest.mark.parametrize("arrangement", ARRANGEMENTS, ids=name)
def test_it_answers_when_serve_returns_and_is_gone_when_stop_does(
    arrangement: dict[str, object], own_folder: Path, once_before: None
) -> None:
    before = open_files()
    server = serve(iterations=SHORT, **arrangement)  # type: ignore[arg-type]
    pids = {server.pid, *server.workers}
    assert get(server.url).body.startswith("Result number is ")
    assert get(server.url, "/").body == "Hello World!"
    server.stop()
    assert all(gone(pid) for pid in pids)
    assert refused(server.url)
    assert server.workers == []
    assert list(own_folder.iterdir()) == []
    assert open_files() == before
    server.stop()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
def test_every_kernel_serves(kernel: str) -> None:
    with serve("single", kernel=kernel, iterations=SHORT) as server:
        assert get(server.url).status == 200


@pytest.mark.parametrize("topology", ["cluster", "offload"])
def test_workers_are_as_many_as_asked_and_are_not_the_supervisor_and_all_go(topology: str) -> None:
    with serve(topology, workers=3, iterations=SHORT) as server:
        workers = server.workers
        assert len(workers) == len(set(workers) - {server.pid}) == 3
    assert all(gone(pid) for pid in workers)


def test_an_error_in_the_block_stops_it() -> None:
    with pytest.raises(ZeroDivisionError), serve(workers=1, iterations=SHORT) as server:
        _ = 1 / 0
    assert gone(server.pid)


def test_a_taken_port_is_said_before_anything_starts(own_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LabError, match=rf"^port {port} of 127.0.0.1 is taken: "):
            serve(port=port, iterations=SHORT)
    assert list(own_folder.iterdir()) == []


def test_that_no_port_is_free_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(sock: socket.socket, address: object) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(LabError, match=r"^no port of 127.0.0.1 is free: "):
        serve(iterations=SHORT)


@pytest.mark.parametrize("dispatch", ["reuseport", "shared"])
def test_a_stale_reuseport_listener_does_not_share_the_port(dispatch: str) -> None:
    with socket.socket() as stale:
        stale.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stale.bind(("127.0.0.1", 0))
        stale.listen()
        port = stale.getsockname()[1]
        with pytest.raises(LabError, match=rf"^port {port} of 127.0.0.1 is taken: "):
            serve(dispatch=dispatch, port=port, iterations=SHORT)


def test_two_servers_cannot_have_one_port() -> None:
    with serve(dispatch="reuseport", workers=1, iterations=SHORT) as server:
        port = int(server.url.rsplit(":", 1)[1])
        with pytest.raises(LabError, match="is taken"):
            serve(dispatch="reuseport", port=port, iterations=SHORT)


def test_an_unknown_host_is_said() -> None:
    with pytest.raises(LabError, match=r"^cannot listen on no.such.host.invalid: "):
        serve(host="no.such.host.invalid")


def test_an_ipv6_address_is_written_as_clients_write_it() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("there is no IPv6 here")
    with serve("single", host="::1", iterations=SHORT) as server:
        assert server.url.startswith("http://[::1]:")
        assert get(server.url).status == 200


@pytest.mark.parametrize(
    ("host", "dispatch", "url"),
    [
        ("0.0.0.0", "shared", "http://127.0.0.1:"),
        ("::", "shared", "http://[::1]:"),
        ("::", "reuseport", "http://[::1]:"),
        ("::ffff:127.0.0.1", "reuseport", "http://127.0.0.1:"),
    ],
)
def test_the_url_of_a_server_on_all_addresses_is_one_that_we_attack(
    host: str, dispatch: str, url: str
) -> None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))  # create_server would refuse a mapped address
    except OSError:
        pytest.skip("there is no IPv6 here")
    with serve(host=host, dispatch=dispatch, workers=1, iterations=SHORT) as server:
        assert server.url.startswith(url)
        assert attack(server.url + "/", rate=20, duration=0.1).summary["ok"] == 2


@pytest.mark.parametrize("topology", ["single", "cluster", "offload"])
def test_a_request_within_the_deadline_is_answered_before_the_end(topology: str) -> None:
    with (
        serve(topology, workers=1, iterations=3_000_000, drain_s=30) as server,
        Connection(server.url) as client,
    ):
        client.ask()
        computing(server.workers)
        server.stop()
        assert client.answer().status == 200


@pytest.mark.parametrize(
    "options", [{"dispatch": "shared"}, {"dispatch": "least-busy"}, {"dispatch": "least-busy", "bound": 2}]
)
def test_what_waits_for_a_worker_when_it_is_told_to_stop_is_answered(options: dict[str, Any]) -> None:
    """They stand still until nobody can connect any more."""
    with serve(workers=2, iterations=SHORT, drain_s=PATIENCE_S, **options) as server, ExitStack() as stack:
        workers = server.workers
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        clients = [stack.enter_context(Connection(server.url)).ask() for _ in range(10)]
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        until(lambda: refused(server.url))
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        assert [client.answer().status for client in clients] == [200] * 10
        stopping.join()


@pytest.mark.parametrize("dispatch", ["shared", "least-busy"])
def test_of_what_waits_at_the_end_a_worker_that_stands_still_takes_one(dispatch: str) -> None:
    with serve(dispatch=dispatch, workers=2, iterations=SHORT, drain_s=1) as server, ExitStack() as stack:
        still, goes_on = server.workers
        for pid in (still, goes_on):
            os.kill(pid, signal.SIGSTOP)
        clients = [stack.enter_context(Connection(server.url)).ask() for _ in range(10)]
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        until(lambda: refused(server.url))
        os.kill(goes_on, signal.SIGCONT)
        until(lambda: sum(client.has_answer() for client in clients) == 9)
        stopping.join()


@pytest.mark.parametrize("arrangement", ARRANGEMENTS, ids=name)
def test_a_request_past_the_deadline_does_not_hold_the_end_up(arrangement: dict[str, object]) -> None:
    server = serve(iterations=ENDLESS, drain_s=0.1, **arrangement)  # type: ignore[arg-type]
    with server, Connection(server.url) as client:
        pids = {server.pid, *server.workers}
        client.ask()
        computing(server.workers)
        server.stop()
        assert all(gone(pid) for pid in pids)
        with pytest.raises(OSError, match=r"."):
            client.answer()


@pytest.mark.parametrize(  # the other signals, tests/cli/test_serve.py
    ("topology", "number"),
    [("single", signal.SIGTERM), ("cluster", signal.SIGINT), ("offload", signal.SIGTERM)],
)
def test_a_second_signal_ends_it_at_once(topology: str, number: int) -> None:
    with (
        serve(topology, workers=1, iterations=ENDLESS, drain_s=600) as server,
        Connection(server.url) as client,
    ):
        pids = {server.pid, *server.workers}
        client.ask()
        computing(server.workers)
        threads = psutil.Process(server.pid).num_threads()
        server.send_signal(number)
        until(
            lambda: refused(server.url) or psutil.Process(server.pid).num_threads() > threads
        )  # it was heard
        server.send_signal(number)
        server.wait()
        until(lambda: all(gone(pid) for pid in pids), 2)
        assert refused(server.url)


def test_commands_while_it_stops_are_refused() -> None:
    with serve(workers=1, iterations=ENDLESS, drain_s=1) as server, Connection(server.url) as client:
        client.ask()
        computing(server.workers)
        refusals: list[str] = []

        def recycle() -> None:
            with pytest.raises(LabError) as caught:
                server.recycle()
            refusals.append(str(caught.value))

        recycling = threading.Thread(target=recycle)
        recycling.start()
        until(lambda: len(server.workers) == 1)
        server.stop()
        recycling.join()
        assert refusals
        with pytest.raises(LabError, match=r"^the server is gone: it was stopped$"):
            server.scale(2)


def test_the_end_of_the_program_is_the_end_of_its_servers(tmp_path: Path) -> None:
    program = "from lab.servers import serve; s = serve(workers=2, iterations=1000); print(s.pid, *s.workers)"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    ).stdout
    pids = [int(pid) for pid in output.split()]
    assert len(pids) == 3
    assert all(gone(pid) for pid in pids)
    assert list(tmp_path.iterdir()) == []


def test_the_log_tells_the_sum_and_the_worker() -> None:
    with serve("single", iterations=SHORT) as server:
        total = get(server.url).body.removeprefix("Result number is ")
        until(lambda: server.log(lines=1).endswith(f" {server.pid} result {total}"))
    assert server.log() == ""


def test_two_signals_at_once_end_it_though_connections_wait_for_a_worker() -> None:
    with serve(workers=1, iterations=ENDLESS, drain_s=600) as server, ExitStack() as stack:
        pids = {server.pid, *server.workers}
        for _ in range(20):  # more than the worker takes before it answers
            stack.enter_context(Connection(server.url)).ask()
        computing(server.workers)
        server.send_signal(signal.SIGINT)
        server.send_signal(signal.SIGTERM)
        server.wait()
        until(lambda: all(gone(pid) for pid in pids), 2)
