"""The supervisor of a cluster: its own process, which keeps the workers running until it is told to stop."""

import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
from typing import Any

from lab import processes
from lab.channel import Channel
from lab.errors import LabError
from lab.forks import freeze
from lab.servers import dispatch, worker
from lab.servers.spec import ServerSpec
from lab.servers.workers import SIGNALS, Commands, Workers

log = logging.getLogger(__name__)


class Supervisor:
    """Obeys the handle, over the channel, and these of gunicorn's signals.

    TTIN, TTOU: one worker more, one less. HUP: recycle. TERM, INT: drain and stop; repeated: stop at once.
    """

    def __init__(self, spec: ServerSpec, channel: Channel, listener: socket.socket) -> None:
        self._spec = spec
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._dispatch = dispatch.for_spec(spec, listener)
        self._workers = Workers(worker.main, spec, self._dispatch)
        self._commands = Commands(self._workers)
        self._stopping = False
        self._drain_s = spec.drain_s
        self._draining: asyncio.Timeout | None = None

    async def run(self) -> int:
        """Serve until told to stop, or until a worker cannot be kept running; return the exit status."""
        self._listen_to_signals(asyncio.current_task())
        try:
            await self._workers.scale(self._spec.count)
            self._channel.send({"event": "ready"})
            self._loop.add_reader(self._channel, self._receive)
            await self._workers.until_it_fails()
        except asyncio.CancelledError:
            return 0
        except LabError as error:
            log.error("%s", error)
            self._channel.tell({"event": "failed", "reason": str(error)})
            return 1
        finally:
            await self._close()
        raise AssertionError("a cluster is done when it is cancelled or fails")

    def _listen_to_signals(self, main: "asyncio.Task[Any] | None") -> None:
        assert main is not None  # noqa: S101 - for mypy: there is a current task
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop, main)
        for number, command in SIGNALS.items():
            self._loop.add_signal_handler(number, self._commands.begin, command)

    def _stop(self, main: "asyncio.Task[Any]") -> None:
        if self._stopping:
            self._workers.kill()
            self._drain_s = 0.0  # what waits for a worker waits in vain
            if self._draining:
                self._draining.reschedule(self._loop.time())
        else:
            self._stopping = True
            main.cancel()

    def _receive(self) -> None:
        with contextlib.suppress(EOFError, OSError):  # then the lifeline ends this process
            for command, fd in self._channel.receive():
                self._commands.begin(command, None if fd is None else Channel.adopt(fd))

    async def _close(self) -> None:
        """Hand over what waits and let the workers finish; at the deadline, end them."""
        self._loop.remove_reader(self._channel)
        await self._commands.cancel()
        self._dispatch.close()
        try:
            async with asyncio.timeout(self._drain_s) as self._draining:
                await self._dispatch.emptied()
                await self._workers.close()
        except TimeoutError:
            self._workers.kill()
            await self._workers.close()


async def _supervise(arguments: dict[str, Any], channel: Channel) -> int:
    listener = socket.socket(fileno=arguments["listener"])
    listener.setblocking(False)  # shared by all its copies; each socket made from one sets it again
    return await Supervisor(ServerSpec.received(arguments["spec"]), channel, listener).run()


def main(text: str) -> None:
    """Be the supervisor that was started, until the end of the process."""
    arguments = json.loads(text)
    processes.begin(arguments["channel"], arguments["log"])
    channel = Channel.adopt(arguments["channel"])
    freeze()
    sys.exit(processes.run_loop(_supervise(arguments, channel)))


if __name__ == "__main__":
    main(sys.argv[1])
