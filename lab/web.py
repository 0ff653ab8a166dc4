"""The aiohttp application that servers run: the article's routes, around whatever runs the hot loop."""

import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from lab.hotloop import Kernel

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopRun:
    """One run of the hot loop: its sum, its wall time in seconds, and the process that ran it."""

    total: float
    duration_s: float
    pid: int


Work = Callable[[], Awaitable[LoopRun]]
"""Runs the hot loop once, where the topology has it run."""


def run_loop(kernel: Kernel, iterations: int) -> LoopRun:
    """Run the hot loop here and now, and time it."""
    start = time.perf_counter()
    total = kernel(iterations)
    return LoopRun(total, time.perf_counter() - start, os.getpid())


def blocking(kernel: Kernel, iterations: int) -> Work:
    """Return work that blocks the event loop while it runs, as in the article: that is the experiment."""

    async def work() -> LoopRun:
        return run_loop(kernel, iterations)

    return work


def create_app(work: Work) -> web.Application:
    """Make the application: `/`, `/healthz`, and `/api/slow`, which awaits `work()`.

    Every answer names the process that made it in `X-Worker`; a slow one names the one that ran the loop,
    and gives the loop's wall time in `Server-Timing`.
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
        run = await work()
        log.info("%r %d", run.total, run.pid)
        headers = {"Server-Timing": f"loop;dur={1000 * run.duration_s:.3f}", "X-Worker": str(run.pid)}
        return web.Response(text=f"Result number is {run.total!r}", headers=headers)

    return slow
