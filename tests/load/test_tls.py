"""TLS: who the server is gets verified, unless told not to; what goes wrong with it is the client's error."""

import contextlib
import socket
import ssl
import threading
from pathlib import Path

import pytest
from helpers.load_servers import greet, serving

from lab.load.attack import attack


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
