"""Small applications of known behaviour, as readers have them: WSGI's, and ASGI's."""

import fcntl
import itertools
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

_asked = itertools.count(1)
_kept: list[bytearray] = []
_lock = tempfile.TemporaryFile()  # noqa: SIM115 - of this server's workers, who are forked after it is opened
FAILS_EVERY = 50


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Do what the path says.

    /sleep: for 20 ms, after 2 ms of CPU time, which a clock of hundredths sees; /lock: sleep as long, one
    worker at a time; /leak: 1 MB; /fail: each 50th time; /order: take what is ordered by POST, with a key;
    else just answer.
    """
    path, status = environ["PATH_INFO"], "200 OK"
    if path == "/sleep":
        until_s = time.process_time() + 0.002
        while time.process_time() < until_s:
            pass
        time.sleep(0.02)
    elif path == "/lock":
        fcntl.lockf(_lock, fcntl.LOCK_EX)
        time.sleep(0.02)
        fcntl.lockf(_lock, fcntl.LOCK_UN)
    elif path == "/leak":
        _kept.append(bytearray(b"x" * 2**20))
    elif path == "/fail":
        status = "200 OK" if next(_asked) % FAILS_EVERY else "500 Internal Server Error"
    elif path == "/order":
        status = "200 OK" if _ordered(environ) else "403 Forbidden"
    elif path == "/missing":
        status = "404 Not Found"
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


def _ordered(environ: dict[str, Any]) -> bool:
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
    return (environ["REQUEST_METHOD"], environ.get("HTTP_X_KEY"), body) == ("POST", "hush", b"one")


async def asgi(scope: dict[str, Any], receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    """Answer."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
