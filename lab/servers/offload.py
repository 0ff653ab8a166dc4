"""The pool behind the one event loop of an `offload` server: n processes or threads that run the hot loop."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict

from lab import hotloop, processes
from lab.channel import Channel, Message
from lab.cpus import pin
from lab.errors import LabError
from lab.hotloop import LoopRun
from lab.servers.counters import SharedCounts
from lab.servers.spec import ServerSpec
from lab.servers.worker_handle import WorkerHandle
from lab.servers.workers import Workers
from lab.web import Work


class Runners:
    """The dispatch of runs to processes: each has one at a time, the other runs wait in one queue."""

    def __init__(self) -> None:
        self._members: set[WorkerHandle] = set()
        self._free: asyncio.Queue[WorkerHandle] = asyncio.Queue()
        self._running: dict[WorkerHandle, asyncio.Future[LoopRun]] = {}

    async def run(self) -> LoopRun:
        """Run the hot loop in the next free process. Raises LabError if that process dies meanwhile."""
        while (runner := await self._free.get()) not in self._members:
            pass
        done: asyncio.Future[LoopRun] = asyncio.get_running_loop().create_future()
        self._running[runner] = done
        runner.send({"do": "run"})
        return await done

    def listener(self) -> None:
        """Return nothing: runners do not accept connections."""

    def add(self, worker: WorkerHandle) -> None:
        """Give it runs from now on."""
        self._members.add(worker)
        worker.on_event = self._hear
        self._free.put_nowait(worker)

    def remove(self, worker: WorkerHandle) -> None:
        """Give it no more runs; if it is gone, its current run fails."""
        self._members.discard(worker)
        if worker.gone.is_set() and (run := self._running.pop(worker, None)):
            run.set_exception(LabError(f"process {worker.pid} of the pool died over this run"))

    def take(self, connection: socket.socket) -> None:
        """Close it: runners have no connections to hand over."""
        connection.close()

    def close(self) -> None:
        """Do nothing: nothing listens."""

    async def emptied(self) -> None:
        """Return at once: what waits here is requests, and others wait for their connections."""

    def _hear(self, worker: WorkerHandle, message: Message) -> None:
        self._running.pop(worker).set_result(LoopRun(**message["run"]))
        if worker in self._members:
            self._free.put_nowait(worker)


@asynccontextmanager
async def in_processes(spec: ServerSpec) -> AsyncIterator[tuple[Work, Workers]]:
    """Yield work that `spec.workers` processes do, and those processes as workers to look after.

    Raises LabError, cancelling what runs in the context, if one of them cannot be kept running.
    """
    runners = Runners()
    workers = Workers(main, spec, runners)
    try:
        await workers.scale(spec.count)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(workers.until_it_fails())
            yield runners.run, workers
            watch.cancel()
    except* LabError as errors:
        raise errors.exceptions[0] from None
    finally:
        await workers.close()


@asynccontextmanager
async def in_threads(spec: ServerSpec) -> AsyncIterator[tuple[Work, None]]:
    """Yield work that `spec.workers` threads of this process do."""
    loop = asyncio.get_running_loop()
    kernel = hotloop.kernel(spec.kernel)
    indices = iter(range(spec.count))
    with ThreadPoolExecutor(spec.count, initializer=lambda: pin(next(indices)) if spec.pin else None) as pool:

        async def work() -> LoopRun:
            return await loop.run_in_executor(pool, hotloop.run, kernel, spec.iterations)

        yield work, None


def main(text: str) -> None:
    """Be the runner that was started, until told to go."""
    arguments = json.loads(text)
    spec = ServerSpec.received(arguments["spec"])
    if spec.pin:
        pin(arguments["index"])
    processes.begin(arguments["channel"])
    channel = Channel.adopt(arguments["channel"])
    counts = SharedCounts.adopt(arguments["counts"])
    kernel = hotloop.kernel(spec.kernel)
    channel.send({"event": "ready"})
    while True:
        for message, _ in channel.receive():
            if message["do"] == "drain":
                return
            run = hotloop.run(kernel, spec.iterations)
            counts.add(requests=1, busy_s=run.duration_s)
            channel.send({"event": "done", "run": asdict(run)})
