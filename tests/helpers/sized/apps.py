"""Small applications of known behaviour, as readers have them: WSGI's, and ASGI's."""

import itertools
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

_asked = itertools.count(1)
_kept: list[bytearray] = []
FAILS_EVERY = 50


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Do what the path says: /sleep for 10 ms; /worn: leak 1 MB, fail each 50th time; else just answer."""
    path, status = environ["PATH_INFO"], "200 OK"
    if path == "/sleep":
        time.sleep(0.01)
    elif path == "/worn":
        _kept.append(bytearray(b"x" * 2**20))
        status = "200 OK" if next(_asked) % FAILS_EVERY else "500 Internal Server Error"
    elif path == "/missing":
        status = "404 Not Found"
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


async def asgi(scope: dict[str, Any], receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    """Answer."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
