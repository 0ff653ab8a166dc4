"""The supervisor of a cluster: its own process, with a slot for each worker that should run."""

import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
from typing import Any

from lab.errors import LabError, UsageError
from lab.servers import dispatch, lifeline
from lab.servers.channel import Channel, Message
from lab.servers.slot import Slot
from lab.servers.sockets import allow_many_files
from lab.servers.spec import ServerSpec

log = logging.getLogger(__name__)


class Supervisor:
    """Starts the workers, keeps them running, and obeys the handle and the signals known from gunicorn.

    TTIN, TTOU: one worker more, one less. HUP: recycle. TERM, INT: drain and stop; again: stop at once.
    """

    def __init__(self, spec: ServerSpec, channel: Channel, listener: socket.socket) -> None:
        self._spec = spec
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._dispatch = dispatch.for_spec(spec, listener)
        self._slots: list[Slot] = []
        self._keepers: dict[Slot, asyncio.Task[None]] = {}
        self._orders: set[asyncio.Task[None]] = set()
        self._one_change = asyncio.Lock()
        self._one_renewal = asyncio.Lock()
        self._gave_up: asyncio.Future[None] = self._loop.create_future()
        self._stopping = False

    async def run(self) -> int:
        """Serve until told to stop, or until a worker cannot be kept running; return the exit status."""
        self._listen_to_signals(asyncio.current_task())
        try:
            await self._scale(self._spec.count)
            self._channel.send({"event": "ready"})
            self._loop.add_reader(self._channel, self._receive)
            await self._gave_up
        except asyncio.CancelledError:
            return 0
        except LabError as error:
            log.error("%s", error)
            with contextlib.suppress(OSError):
                self._channel.send({"event": "failed", "reason": str(error)})
            return 1
        finally:
            await self._close()
        raise AssertionError("a server that did not give up was not told to stop either")

    def _listen_to_signals(self, main: "asyncio.Task[Any] | None") -> None:
        assert main is not None  # noqa: S101 - for mypy: there is a current task
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop, main)
        orders: dict[signal.Signals, Message] = {
            signal.SIGTTIN: {"do": "add", "n": 1},
            signal.SIGTTOU: {"do": "add", "n": -1},
            signal.SIGHUP: {"do": "recycle"},
        }
        for number, order in orders.items():
            self._loop.add_signal_handler(number, self._begin, order, None)

    def _stop(self, main: "asyncio.Task[Any]") -> None:
        if self._stopping:
            for slot in self._slots:
                slot.kill()
        else:
            self._stopping = True
            main.cancel()

    def _receive(self) -> None:
        with contextlib.suppress(EOFError, OSError):  # then the lifeline ends this process
            for order, fd in self._channel.receive():
                self._begin(order, None if fd is None else Channel.adopt(fd))

    def _begin(self, order: Message, reply: Channel | None) -> None:
        task = self._loop.create_task(self._answer(order, reply))
        self._orders.add(task)
        task.add_done_callback(self._orders.discard)

    async def _answer(self, order: Message, reply: Channel | None) -> None:
        try:
            answer = {"result": await self._obey(order)}
        except LabError as error:
            log.warning("%s: %s", order["do"], error)
            answer = {"error": str(error)}
        except asyncio.CancelledError:
            answer = {"error": "the server is stopping"}
        if reply is not None:
            with contextlib.suppress(OSError):
                reply.send(answer)
            reply.close()

    async def _obey(self, order: Message) -> object:
        match order["do"]:
            case "workers":
                return self._pids()
            case "scale":
                async with self._one_change:
                    await self._scale(order["n"])
            case "add":
                async with self._one_change:
                    await self._scale(len(self._slots) + order["n"])
            case "recycle":
                async with self._one_change:
                    await self._recycle()
            case unknown:
                raise LabError(f"the supervisor knows no order {unknown!r}")
        return None

    def _pids(self) -> list[int]:
        workers = [slot.worker for slot in self._slots]
        return [worker.pid for worker in workers if worker is not None and not worker.gone.is_set()]

    async def _scale(self, count: int) -> None:
        if count < 1:
            raise UsageError(f"a cluster has at least 1 worker, not {count}: stop it instead")
        fresh = [self._slot(index) for index in range(len(self._slots), count)]
        self._slots += fresh
        try:
            async with asyncio.TaskGroup() as starting:
                for slot in fresh:
                    starting.create_task(slot.start())
        except* LabError as errors:
            await self._drop(fresh)
            raise errors.exceptions[0] from None
        for slot in fresh:
            self._keep(slot)
        await self._drop(self._slots[count:])

    async def _recycle(self) -> None:
        for slot in tuple(self._slots):
            await slot.renew()

    def _slot(self, index: int) -> Slot:
        return Slot(index, self._spec, self._dispatch, self._one_renewal)

    def _keep(self, slot: Slot) -> None:
        self._keepers[slot] = keeper = self._loop.create_task(slot.keep())
        keeper.add_done_callback(self._kept)

    def _kept(self, keeper: "asyncio.Task[None]") -> None:
        if not keeper.cancelled() and (error := keeper.exception()) and not self._gave_up.done():
            self._gave_up.set_exception(error)

    async def _drop(self, slots: list[Slot]) -> None:
        self._slots = [slot for slot in self._slots if slot not in slots]
        await asyncio.gather(*(self._end(slot) for slot in slots))

    async def _end(self, slot: Slot) -> None:
        if keeper := self._keepers.pop(slot, None):
            keeper.cancel()
            await asyncio.wait((keeper,))
        await slot.close()

    async def _close(self) -> None:
        for order in tuple(self._orders):
            order.cancel()
        if self._orders:
            await asyncio.wait(self._orders)
        self._loop.remove_reader(self._channel)
        self._dispatch.close()
        await asyncio.gather(*(self._end(slot) for slot in self._slots))


async def _supervise(arguments: dict[str, Any], channel: Channel) -> int:
    listener = socket.socket(fileno=arguments["listener"])
    return await Supervisor(ServerSpec(**arguments["spec"]), channel, listener).run()


def main() -> None:
    """Run as `python -m lab.servers.supervisor ARGUMENTS`, started by `spawn`."""
    arguments = json.loads(sys.argv[1])
    channel = Channel.adopt(arguments["channel"])
    lifeline.tie(channel.fileno())
    allow_many_files()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(process)d %(message)s")
    sys.exit(asyncio.run(_supervise(arguments, channel)))


if __name__ == "__main__":
    main()
