"""The aiohttp application that servers run: the article's routes, with the hot loop inside the handler."""

import logging
import os
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from lab.hotloop import Kernel

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


def create_app(kernel: Kernel, iterations: int) -> web.Application:
    """Make the application: `/`, `/healthz`, and `/api/slow`, which runs `kernel(iterations)`.

    The loop blocks the event loop on purpose, as in the article: that is the experiment.
    A slow answer carries the loop's wall time in `Server-Timing`; every answer its process in `X-Worker`.
    """
    app = web.Application()
    app.on_response_prepare.append(_name_worker)
    app.router.add_get("/", _hello)
    app.router.add_get("/healthz", _healthy)
    app.router.add_get("/api/slow", _slow(kernel, iterations))
    return app


async def _name_worker(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Worker"] = str(os.getpid())


async def _hello(request: web.Request) -> web.Response:
    return web.Response(text="Hello World!")


async def _healthy(request: web.Request) -> web.Response:
    return web.Response(text="ok")


def _slow(kernel: Kernel, iterations: int) -> Handler:
    async def slow(request: web.Request) -> web.Response:
        start = time.perf_counter()
        total = kernel(iterations)
        duration_ms = 1000 * (time.perf_counter() - start)
        log.info("%r %d", total, os.getpid())
        timing = {"Server-Timing": f"loop;dur={duration_ms:.3f}"}
        return web.Response(text=f"Result number is {total!r}", headers=timing)

    return slow
