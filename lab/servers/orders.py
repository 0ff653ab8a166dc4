"""The orders that a handle gives over the channel, or a person by signals, to a process that leads a crew."""

import asyncio
import contextlib
import logging
import signal
from dataclasses import asdict

from lab.errors import LabError
from lab.servers.channel import Channel, Message
from lab.servers.crew import Crew

SIGNALS: dict[signal.Signals, Message] = {
    signal.SIGTTIN: {"do": "add", "more": 1},
    signal.SIGTTOU: {"do": "add", "more": -1},
    signal.SIGHUP: {"do": "recycle"},
}
"""What gunicorn's signals ask for."""

log = logging.getLogger(__name__)


class Orders:
    """Carries out each order as a task of its own: a question need not wait for a change that takes long."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, order: Message, reply: Channel | None = None) -> None:
        """Carry out an order, and send the result, or what was wrong, to who waits for a reply."""
        task = asyncio.get_running_loop().create_task(self._carry_out(order, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def cancel(self) -> None:
        """Return when all are over, one way or the other."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _carry_out(self, order: Message, reply: Channel | None) -> None:
        try:
            answer = {"result": await self._obey(order)}
        except LabError as error:
            log.warning("%s: %s", order["do"], error)
            answer = {"error": str(error)}
        except asyncio.CancelledError:
            answer = {"error": "the server is stopping"}
        if reply is not None:
            with contextlib.closing(reply), contextlib.suppress(OSError):
                reply.send(answer)

    async def _obey(self, order: Message) -> object:
        match order["do"]:
            case "workers":
                return self._crew.pids()
            case "counters":
                return [asdict(counters) for counters in self._crew.counters()]
            case "scale":
                await self._crew.scale(order["workers"])
            case "add":
                await self._crew.add(order["more"])
            case "recycle":
                await self._crew.recycle()
            case unknown:
                raise LabError(f"no such order: {unknown!r}")
        return None
