"""The aiohttp application that servers run: the article's routes, around whatever runs the hot loop."""

import logging
import os
from collections.abc import Awaitable, Callable

from aiohttp import web

from lab.errors import UsageError
from lab.hotloop import Kernel, LoopRun, in_all, run, times_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


Work = Callable[[], Awaitable[LoopRun]]
"""Runs the hot loop once, wherever the topology runs it."""


def blocking(kernel: Kernel, iterations: int) -> Work:
    """Return work that blocks the event loop while it runs, as in the article: that is the experiment."""

    async def work() -> LoopRun:
        return run(kernel, iterations)

    return work


def create_app(work: Work) -> web.Application:
    """Make the application: `/`, `/healthz`, and `/api/slow`, which awaits `work()`.

    `/api/slow?times=50` takes 50 times as long: it awaits `work()` that often, and reports the last run.

    Every answer names in `X-Worker` the process that made it; a slow one names the process that ran the loop,
    and gives the loop's wall and CPU time in `Server-Timing`: `loop;dur=<ms>, cpu;dur=<ms>`.
    """
    app = web.Application()
    app.on_response_prepare.append(_name_worker)
    app.router.add_get("/", _hello)
    app.router.add_get("/healthz", _healthy)
    app.router.add_get("/api/slow", _slow(work))
    return app


async def _name_worker(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.setdefault("X-Worker", str(os.getpid()))


async def _hello(request: web.Request) -> web.Response:
    return web.Response(text="Hello World!")


async def _healthy(request: web.Request) -> web.Response:
    return web.Response(text="ok")


def _slow(work: Work) -> Handler:
    async def slow(request: web.Request) -> web.Response:
        done = in_all([await work() for _ in range(_times(request))])
        elsewhere = "" if done.pid == os.getpid() else f" in process {done.pid}"  # each line names its own
        log.info("result %r%s", done.total, elsewhere)
        headers = {"Server-Timing": done.server_timing(), "X-Worker": str(done.pid)}
        return web.Response(text=f"Result number is {done.total!r}", headers=headers)

    return slow


def _times(request: web.Request) -> int:
    try:
        return times_of(request.query.get("times", "1"))
    except UsageError as error:
        raise web.HTTPBadRequest(text=str(error)) from None
