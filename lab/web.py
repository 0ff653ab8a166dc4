"""The aiohttp application that servers run: the article's routes, around whatever runs the hot loop."""

import logging
import os
from collections.abc import Awaitable, Callable

from aiohttp import web

from lab.hotloop import MOST_TIMES, Kernel, LoopRun, run

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
        runs = [await work() for _ in range(_times(request))]
        done = runs[-1]
        wall_ms, cpu_ms = 1000 * sum(run.duration_s for run in runs), 1000 * sum(run.cpu_s for run in runs)
        log.info("%r %d", done.total, done.pid)
        timing = f"loop;dur={wall_ms:.3f}, cpu;dur={cpu_ms:.3f}"
        headers = {"Server-Timing": timing, "X-Worker": str(done.pid)}
        return web.Response(text=f"Result number is {done.total!r}", headers=headers)

    return slow


def _times(request: web.Request) -> int:
    text = request.query.get("times", "1")
    if not (text.isdecimal() and len(text) < 5 and 1 <= int(text) <= MOST_TIMES):
        raise web.HTTPBadRequest(text=f"times must be a whole number from 1 to {MOST_TIMES}")
    return int(text)
