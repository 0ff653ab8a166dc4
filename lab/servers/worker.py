"""A worker: its own process, with one event loop and one application. A `single` server is one of these."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
from types import FrameType

from aiohttp import web

from lab import hotloop
from lab.servers import lifeline
from lab.servers.channel import Channel
from lab.servers.connections import Connection, close_idle, middleware
from lab.servers.sockets import BACKLOG, allow_many_files
from lab.servers.spec import ServerSpec
from lab.web import blocking, create_app

QUIET_S = 0.25
"""How long clients of a worker that must go may stay silent before their connections are closed."""


class Worker:
    """Serves connections, accepted or passed on by the supervisor, until it is told to drain."""

    def __init__(
        self, spec: ServerSpec, channel: Channel, listener: socket.socket | None, alone: bool
    ) -> None:
        self._spec = spec
        self._channel = channel
        self._listener = listener
        self._alone = alone
        self._leaving = False
        self._drain = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        app = create_app(blocking(hotloop.kernel(spec.kernel), spec.iterations))
        app.middlewares.append(middleware(self._keeps_connections))
        self._runner = web.AppRunner(app, access_log=None)

    async def run(self) -> None:
        """Say that it is ready once it accepts; return when everything it accepted is answered."""
        await self._runner.setup()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._loop.add_reader(self._channel, self._receive)
        listening = await self._listen()
        self._channel.send({"event": "ready"})
        await self._drain.wait()
        if listening:
            listening.close()
        if self._opening:
            await asyncio.wait(self._opening)
        await close_idle(self._server, quiet_s=QUIET_S)
        await self._runner.cleanup()

    @property
    def _server(self) -> web.Server:
        server = self._runner.server
        assert server is not None  # noqa: S101 - for mypy: the runner is set up
        return server

    async def _listen(self) -> asyncio.Server | None:
        if self._listener is None:
            return None
        return await self._loop.create_server(self._server, sock=self._listener, backlog=BACKLOG)

    def _keeps_connections(self) -> bool:
        return bool(self._spec.keepalive) and not self._drain.is_set()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Not the loop's own handler: that is deaf during the hot loop, and so to the second signal.
        if self._leaving:
            os._exit(0)
        self._leaving = True
        self._loop.call_soon_threadsafe(self._leave)
        if self._alone:
            deadline = threading.Timer(self._spec.drain_s, os._exit, (0,))
            deadline.daemon = True
            deadline.start()

    def _leave(self) -> None:
        """Go, at once if it is alone; else ask for a replacement, and go when the supervisor says so."""
        if self._alone:
            self._drain.set()
        else:
            self._tell("leaving")

    def _receive(self) -> None:
        with contextlib.suppress(EOFError, OSError):  # then the lifeline ends this process
            for message, fd in self._channel.receive():
                if fd is not None:
                    self._accept(socket.socket(fileno=fd))
                elif message["do"] == "drain":
                    self._drain.set()

    def _accept(self, sock: socket.socket) -> None:
        self._tell("accepted")
        sock.setblocking(False)
        opening = self._loop.create_task(self._loop.connect_accepted_socket(self._connection, sock))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    def _connection(self) -> Connection:
        return Connection(self._server, self._loop, on_lost=lambda: self._tell("done"))

    def _tell(self, event: str) -> None:
        with contextlib.suppress(OSError):
            self._channel.send({"event": event})


async def _serve(arguments: dict[str, object], spec: ServerSpec, channel: Channel) -> None:
    fd = arguments.get("listener")
    listener = socket.socket(fileno=fd) if isinstance(fd, int) else None
    await Worker(spec, channel, listener, alone=bool(arguments["alone"])).run()


def main() -> None:
    """Run as `python -m lab.servers.worker ARGUMENTS`, started by `spawn`."""
    arguments = json.loads(sys.argv[1])
    channel = Channel.adopt(arguments["channel"])
    lifeline.tie(channel.fileno())
    allow_many_files()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(process)d %(message)s")
    asyncio.run(_serve(arguments, ServerSpec(**arguments["spec"]), channel))


if __name__ == "__main__":
    main()
