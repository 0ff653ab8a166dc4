"""What a server may do to a connection: none is left behind, and none is used again that cannot be.

TLS: who the server is gets verified, unless told not to; what goes wrong with it is the client's error.
"""

import asyncio
import contextlib
import errno
import json
import socket
import ssl
import subprocess
import threading
import time
from array import array
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop
from helpers.load_servers import answer, greet, serving

from lab.cli import main
from lab.load.attack import attack
from lab.load.log import Log, Outcome, classify
from lab.load.report import report
from lab.load.sender import Sender
from lab.load.target import Assignment

Loop = Callable[[Coroutine[Any, Any, Any]], Any]
LOOPS = pytest.mark.parametrize("loop", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
LONG = b"x" * 30_000_000
"""More than what two sockets hold between them."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a self-signed certificate for localhost, with its key in the same file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        str(path),
        "-out",
        f"{path}.crt",
    ]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


async def early(number: int, writer: asyncio.StreamWriter) -> None:
    """Answer as soon as the head is there, and never read the body."""
    writer.write(answer())
    await writer.drain()
    await asyncio.Event().wait()


def test_a_connection_that_was_answered_early_is_not_used_again() -> None:
    options = {"keepalive": True, "method": "POST", "body": LONG, "in_flight": 1}
    with serving(early) as server:
        summary = attack(server.url, rate=20, duration=0.2, timeout=20, **options).summary  # type: ignore[arg-type]
        assert server.connections == 1 + 4  # one asked whether anybody is there
    assert summary["outcomes"]["ok"] == 4


async def _send(address: str, port: int, timeout_s: float, server_name: str | None) -> Sender:
    head = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(LONG)
    assignment = Assignment(
        address, port, head + LONG, timeout_s, server_name=server_name, insecure=True, keepalive=True
    )
    sender = Sender(assignment, array("d", [0.0, 0.01, 0.02]), Log(3), time.monotonic())
    await sender.run()
    return sender


@LOOPS
@pytest.mark.parametrize("server_name", [None, "localhost"])
def test_a_time_out_leaves_no_socket(loop: Loop, server_name: str | None) -> None:
    """The server accepts and never reads: neither a request nor, with TLS, a handshake."""
    me, open_files = psutil.Process(), []

    async def attack_thrice(port: int) -> None:
        for _ in range(3):
            sender = await _send("127.0.0.1", port, 0.1, server_name)
            assert sender.outcomes == {Outcome.TIMEOUT: 3}
            await asyncio.sleep(0)  # a transport closes its socket in the loop's next round
            open_files.append(me.num_fds())

    with socket.create_server(("127.0.0.1", 0), backlog=32) as listener:
        loop(attack_thrice(listener.getsockname()[1]))
    assert open_files == open_files[:1] * 3


@LOOPS
def test_a_server_that_stops_reading_after_a_handshake_leaves_no_socket(
    loop: Loop, certificate: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    me, open_files, accepted = psutil.Process(), [], []

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # it is over
                return
            with contextlib.suppress(OSError):  # the client gave up first
                accepted.append(context.wrap_socket(connection, server_side=True))

    async def attack_twice(port: int) -> None:
        """Twice with time enough for three handshakes, however long those take here."""
        for timeout_s in (0.3, 0.3, 1.0, 1.0, 5.0, 5.0, 20.0, 20.0):
            before = len(accepted)
            sender = await _send("127.0.0.1", port, timeout_s, "localhost")
            assert sender.outcomes == {Outcome.TIMEOUT: 3}
            await asyncio.sleep(0.05)
            if len(accepted) == before + 3:
                open_files.append(me.num_fds() - len(accepted))
            if len(open_files) == 2:
                break

    with socket.create_server(("127.0.0.1", 0), backlog=32) as listener:
        thread = threading.Thread(target=accept, args=(listener,))
        thread.start()
        loop(attack_twice(listener.getsockname()[1]))
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in accepted:
        connection.close()
    assert open_files == open_files[:1] * 2


def test_numbers_that_are_none_leave_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    fields = [b"loop;dur=" + b"9" * 400, b"loop;dur=nan", b"loop;dur=-1", b"loop;dur=2.5"]

    async def behave(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(fields=b"Server-Timing: " + fields[number % 4] + b"\r\n"))

    load = "--rate 40 --duration 200ms --warmup 100ms --in-flight 1 --format json"
    with serving(behave) as server, pytest.raises(SystemExit, match="0"):
        main(["attack", server.url, *load.split()])
    summary = json.loads(capsys.readouterr().out)
    assert summary["ok"] == 8
    assert summary["generator"]["unreadable"] == 6  # those of the warm-up are not counted
    assert summary["service_s"]["min"] == summary["service_s"]["max"] == pytest.approx(0.0025)
    assert "[answers with unreadable numbers]  6\n" in report(summary)


def test_a_servers_own_phrases_are_not_repeated() -> None:
    async def behave(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(status=f"{404 if number % 2 else 499} \x1b[31mno, for the {number}th time"))

    with serving(behave) as server:
        summary = attack(server.url, rate=50, duration=0.2, in_flight=1).summary
    assert summary["errors"] == {"404 Not Found": 5, "499": 5}


LOCAL = (
    "EMFILE",
    "ENFILE",
    "EADDRNOTAVAIL",
    "ENOBUFS",
    "ENOMEM",
    "EACCES",
    "EPERM",
    "ENETUNREACH",
    "ENETDOWN",
)
REMOTE = {
    "ECONNREFUSED": Outcome.REFUSED,
    "ECONNRESET": Outcome.RESET,
    "EPIPE": Outcome.RESET,
    "ETIMEDOUT": Outcome.TIMEOUT,
}


@pytest.mark.parametrize("name", [*LOCAL, *REMOTE])
def test_the_clients_failures_are_told_from_the_servers(name: str) -> None:
    number = getattr(errno, name)
    outcome, text = classify(OSError(number, "anything"))
    assert outcome == REMOTE.get(name, Outcome.CLIENT_ERROR)
    assert text.endswith(f" ({name})")


@LOOPS
@pytest.mark.skipif(not Path("/proc").exists(), reason="what Linux says of a broadcast address")
def test_no_route_is_the_clients_failure(loop: Loop) -> None:
    sender = loop(_send("255.255.255.255", 80, 5.0, None))
    assert sender.errors == {"network is unreachable (ENETUNREACH)": 3}
    assert sender.outcomes == {Outcome.CLIENT_ERROR: 3}


@pytest.mark.parametrize(
    ("host", "trusted", "insecure", "error"),
    [
        ("localhost", True, False, ""),
        ("localhost", False, False, "TLS: self-signed certificate"),
        ("127.0.0.1", True, False, "TLS: IP address mismatch"),
        ("127.0.0.1", False, True, ""),
    ],
)
def test_a_certificate_is_verified(
    certificate: Path, host: str, trusted: bool, insecure: bool, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(greet, context) as server:
        url = f"https://{host}:{server.port}/"
        summary = attack(url, rate=50, duration=0.1, timeout=20, insecure=insecure).summary
        assert len(server.requests) == (0 if error else 5)
    assert summary["outcomes"]["client_error" if error else "ok"] == 5
    assert all(text.startswith(error) for text in summary["errors"])


def test_what_does_not_speak_tls_is_said_to() -> None:
    def greet_all() -> None:
        for _ in range(6):  # one asks whether anybody is there
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ConnectionError):  # that one leaves at once
                connection.sendall(b"220 mail.example ready\r\n")
                connection.recv(10_000)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=greet_all)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        summary = attack(url, rate=50, duration=0.1, timeout=20).summary
        thread.join()
    assert summary["outcomes"]["client_error"] == 5
    assert summary["errors"] == {"TLS: wrong version number": 5}
