"""The article's routes for `gunicorn article:wsgi` and `uvicorn article:asgi`.

The environment says what to run: SCALING_LAB_ITERATIONS and SCALING_LAB_KERNEL. A worker that is ready puts a
file, named by its pid, into the folder SCALING_LAB_WORKERS. This is a module of its own, outside the package,
so that a worker imports no more of ours than its loop.
"""

import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from lab.errors import UsageError
from lab.hotloop import ITERATIONS, in_all, kernel, run, times_of
from lab.streams import log_without_waiting

log = logging.getLogger(__name__)

_iterations = int(os.environ.get("SCALING_LAB_ITERATIONS", ITERATIONS))
_loop = kernel(os.environ.get("SCALING_LAB_KERNEL", "python"))
log_without_waiting()  # as our own workers do

Answer = tuple[str, list[tuple[str, str]], bytes]
"""Status with its reason, headers, body."""


def wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer a request of a WSGI server."""
    status, headers, body = _respond(environ["PATH_INFO"], environ.get("QUERY_STRING", ""))
    start_response(status, headers)
    return [body]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer a request of an ASGI server; the loop blocks its event loop, as in the article."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "http":
        status, headers, body = _respond(scope["path"], scope["query_string"].decode())
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": int(status[:3]), "headers": encoded})
        await send({"type": "http.response.body", "body": body})


async def _live(
    receive: Callable[[], Awaitable[dict[str, Any]]], send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    for kind in ("startup", "shutdown"):
        await receive()
        if kind == "startup":
            ready()
        await send({"type": f"lifespan.{kind}.complete"})


def ready() -> None:
    """Tell the starter that this worker accepts, or is about to."""
    if folder := os.environ.get("SCALING_LAB_WORKERS"):
        (Path(folder) / str(os.getpid())).touch()


def _respond(path: str, query: str) -> Answer:
    """Answer a request; `lab.web.create_app` says what the routes are, and what the headers mean."""
    if path == "/api/slow":
        return _slow(query)
    if path == "/":
        return _answer("200 OK", "Hello World!")
    if path == "/healthz":
        return _answer("200 OK", "ok")
    return _answer("404 Not Found", "404: Not Found")


def _slow(query: str) -> Answer:
    try:
        times = times_of(parse_qs(query).get("times", ["1"])[0])
    except UsageError as error:
        return _answer("400 Bad Request", str(error))
    done = in_all([run(_loop, _iterations) for _ in range(times)])
    log.info("%r %d", done.total, done.pid)
    return _answer("200 OK", f"Result number is {done.total!r}", ("Server-Timing", done.server_timing()))


def _answer(status: str, text: str, *headers: tuple[str, str]) -> Answer:
    body = text.encode()
    usual = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    return status, [*usual, ("X-Worker", str(os.getpid())), *headers], body
