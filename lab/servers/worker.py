"""A worker: its own process, with one event loop and one application; outside a cluster, the whole server."""

import asyncio
import contextlib
import faulthandler
import json
import logging
import os
import random
import signal
import socket
import sys
import threading
from asyncio.trsock import TransportSocket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import FrameType
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from lab import hotloop, processes
from lab.channel import Channel, Message, frequent
from lab.cpus import pin
from lab.errors import LabError
from lab.hotloop import LoopRun
from lab.servers import offload
from lab.servers.connections import ServedConnection, close_idle
from lab.servers.counters import SharedCounts
from lab.servers.sockets import QUIET_S, Acceptor, OneByOne
from lab.servers.spec import ServerSpec
from lab.servers.workers import SIGNALS, Commands, Workers
from lab.web import Work, blocking, create_app

_FREE = frequent({"event": "free", "place": 0})

_BEATS = 4
"""How often the event loop shows that it is alive, within the time that it may be blocked."""


class Watchdog:
    """Ends this process, with its stack in the log, if nothing calls `beat` for too long.

    The event loop calls it, and so does each request as it begins: a worker that goes from request to request
    without returning to the loop is busy, not hung. A request may take `timeout_s`; the process ends at 1.25
    times that.
    """

    def __init__(self, timeout_s: float) -> None:
        self._period_s = timeout_s / _BEATS
        self._timeout_s = timeout_s + self._period_s

    def watch(self) -> None:
        """Watch the running event loop from now on."""
        self.beat()
        asyncio.get_running_loop().call_later(self._period_s, self.watch)

    def beat(self) -> None:
        """Start counting again."""
        faulthandler.dump_traceback_later(self._timeout_s, exit=True)


log = logging.getLogger(__name__)


class Worker:
    """Serves connections, accepted or passed on by the supervisor, until it is told to drain."""

    def __init__(
        self,
        spec: ServerSpec,
        channel: Channel,
        counts: SharedCounts,
        listener: socket.socket | None,
        alone: bool,
    ) -> None:
        self._spec = spec
        self._channel = channel
        self._counts = counts
        self._listener = listener
        self._alone = alone
        self._loop = asyncio.get_running_loop()
        self._leaving = False
        self._source: Acceptor | None = None
        self._held: list[socket.socket] = []
        self._drain = asyncio.Event()
        self._opening: set[asyncio.Task[object]] = set()
        self._workers: Workers | None = None
        self._commands: Commands | None = None
        self._watchdog = Watchdog(spec.hang_timeout_s) if spec.hang_timeout_s else None
        self._until_renewal = jittered(spec.recycle_after) if spec.recycle_after else 0

    async def run(self) -> None:
        """Report ready once it accepts; return when everything it accepted is answered.

        Raises LabError if the processes of its pool cannot be kept running.
        """
        async with _workshop(self._spec) as (work, self._workers):
            self._commands = Commands(self._workers) if self._workers else None
            app = create_app(self._tallied(work))
            if self._watchdog:
                app.middlewares.append(self._beat)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            assert runner.server is not None  # noqa: S101 - for mypy: it is set up
            await self._serve(runner.server)
            await runner.cleanup()

    async def _serve(self, server: web.Server) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if self._alone:
            for number, command in SIGNALS.items():
                self._loop.add_signal_handler(number, self._obey, command)
        self._loop.add_reader(self._channel, self._receive, server)
        self._source = self._source_for(server)
        if self._watchdog:
            self._watchdog.watch()
        self._channel.send({"event": "ready"})
        await self._drain.wait()
        if self._source:
            self._source.close()
        if self._opening:
            await asyncio.wait(self._opening)
        await close_idle(server, quiet_s=QUIET_S, hand_over=None if self._alone else self._hand_over)
        if self._commands:
            await self._commands.cancel()

    def _source_for(self, server: web.Server) -> Acceptor | None:
        """Return what gets it connections; None if the supervisor passes them on."""
        if self._listener is None:
            return None
        accept = OneByOne if self._spec.has_one_queue else Acceptor
        return accept(self._listener, partial(self._open, server))

    def _tallied(self, work: Work) -> Work:
        async def tallied() -> LoopRun:
            run = await work()
            self._counts.add(busy_s=run.duration_s)
            return run

        return tallied

    @web.middleware
    async def _beat(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        assert self._watchdog is not None  # noqa: S101 - for mypy: it is its middleware
        self._watchdog.beat()
        return await handler(request)

    def _count(self, answer: web.StreamResponse) -> None:
        self._counts.add(requests=1)
        self._until_renewal -= 1
        if self._until_renewal == 0:
            self._leave()
            self._until_renewal = (
                self._spec.recycle_after or 0
            )  # to ask again, should no other worker be able to start
        if not self._spec.keepalive or self._drain.is_set():
            answer.force_close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Not the loop's own handler: during the hot loop, that one is deaf, even to a second signal.
        if self._leaving:
            self._abandon()
        self._leaving = True
        self._loop.call_soon_threadsafe(self._leave)
        if self._alone:
            # With a pool, in the loop, which is free: else a run would first be answered as failed.
            end = partial(self._loop.call_soon_threadsafe, self._abandon) if self._workers else self._abandon
            deadline = threading.Timer(self._spec.drain_s, end)
            deadline.daemon = True
            deadline.start()

    def _abandon(self) -> None:
        """End now, but first end the processes of a pool: once reaped, their CPU time counts as ours."""
        if self._workers:
            pids = self._workers.pids()
            self._workers.kill()
            for pid in pids:
                with contextlib.suppress(ChildProcessError):  # the loop has reaped it
                    os.waitpid(pid, 0)
        os._exit(0)

    def _leave(self) -> None:
        """Drain at once if it is alone; else ask for a replacement, and drain when the supervisor says so."""
        if self._alone:
            self._drain.set()
        else:
            self._channel.tell({"event": "leaving"})

    def _receive(self, server: web.Server) -> None:
        with contextlib.suppress(EOFError, OSError):  # then the lifeline ends this process
            for message, fd in self._channel.receive():
                match message["do"]:
                    case "serve":
                        self._take_over(server, fd)
                    case "drain":
                        self._drain.set()
                    case _:
                        self._obey(message, None if fd is None else Channel.adopt(fd))

    def _obey(self, command: Message, reply: Channel | None = None) -> None:
        if self._commands:
            self._commands.begin(command, reply)
        else:
            log.warning("%s: a %s server has no workers", command["do"], self._spec.topology)

    def _take_over(self, server: web.Server, fd: int | None) -> None:
        self._counts.add(received=1)
        if fd is None:
            self._channel.tell({"event": "refused", "place": len(self._held)})
            return
        self._held.append(sock := socket.socket(fileno=fd))
        if self._spec.dispatch == "least-busy":
            self._open(server, sock, partial(self._tell_free, sock))
        else:
            self._tell_free(sock)
            self._open(server, sock)

    def _tell_free(self, sock: socket.socket) -> None:
        """Tell the supervisor, which then closes its copy, by its place among those that are held here."""
        place = self._held.index(sock)
        del self._held[place]
        self._channel.tell({"event": "free", "place": place} if place else _FREE)

    def _hand_over(self, connection: TransportSocket) -> None:
        self._channel.tell({"event": "handed over"}, passing=connection)

    def _open(
        self, server: web.Server, sock: socket.socket, on_done: Callable[[], None] | None = None
    ) -> None:
        sock.setblocking(False)
        connection = partial(ServedConnection, server, self._loop, on_done, self._count)
        opening = self._loop.create_task(self._loop.connect_accepted_socket(connection, sock))
        self._opening.add(opening)
        opening.add_done_callback(partial(self._opened, on_done))

    def _opened(self, on_done: Callable[[], None] | None, opening: asyncio.Task[object]) -> None:
        self._opening.discard(opening)
        if error := opening.exception():
            log.warning("a connection could not be opened: %s", error)
            if on_done:
                on_done()


def jittered(requests: int) -> int:
    """Add up to a tenth, or one, so that workers started together do not leave together."""
    return requests + random.randint(0, max(1, requests // 10))


def _workshop(spec: ServerSpec) -> AbstractAsyncContextManager[tuple[Work, Workers | None]]:
    """Return where the hot loop runs: here, in threads or in processes."""
    if spec.topology != "offload":
        return _blocking(spec)
    return offload.in_processes(spec) if spec.pool == "process" else offload.in_threads(spec)


@contextlib.asynccontextmanager
async def _blocking(spec: ServerSpec) -> AsyncIterator[tuple[Work, None]]:
    yield blocking(hotloop.kernel(spec.kernel), spec.iterations), None


async def _work(arguments: dict[str, Any], spec: ServerSpec, channel: Channel) -> None:
    fd = arguments.get("listener")
    listener = None if fd is None else socket.socket(fileno=fd)
    await Worker(spec, channel, SharedCounts.adopt(arguments["counts"]), listener, arguments["alone"]).run()


def main(text: str) -> None:
    """Be the worker that was started, until it has drained."""
    arguments = json.loads(text)
    spec = ServerSpec.received(arguments["spec"])
    if spec.pin and spec.topology != "offload":
        pin(arguments["index"])
    processes.begin(arguments["channel"], arguments.get("log"))
    channel = Channel.adopt(arguments["channel"])
    try:
        processes.run_loop(_work(arguments, spec, channel))
    except LabError as error:
        channel.tell({"event": "failed", "reason": str(error)})
        raise


if __name__ == "__main__":
    main(sys.argv[1])
