"""The pool behind the one event loop of an `offload` server: n processes or threads that run the hot loop."""

import asyncio
import json
import socket
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from lab import hotloop, processes
from lab.channel import Channel, Message, frequent
from lab.cpus import give_way, pin
from lab.errors import LabError
from lab.hotloop import LoopRun
from lab.servers.counters import SharedCounts
from lab.servers.spec import ServerSpec
from lab.servers.worker_handle import WorkerHandle
from lab.servers.workers import Workers
from lab.web import Work

_RUN = frequent({"do": "run"})

_BOUND = 2
"""Runs that a process may hold: it is at work on one, and the next is at hand when that is done.

All runs of a server are equally long, so it hardly ever waits there while another process is free.
"""


class Runners:
    """The dispatch of runs to processes: each has `_BOUND` of them at most, the others wait in one queue."""

    def __init__(self) -> None:
        self._members: dict[WorkerHandle, None] = {}  # who began first is first, and done first
        self._held: dict[WorkerHandle, deque[asyncio.Future[LoopRun]]] = {}
        self._waiting: deque[asyncio.Future[LoopRun]] = deque()

    async def run(self) -> LoopRun:
        """Run the hot loop in the next free process. Raises LabError if that process dies meanwhile."""
        done: asyncio.Future[LoopRun] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._match()
        return await done

    def listener(self) -> None:
        """Return nothing: runners do not accept connections."""

    def add(self, worker: WorkerHandle) -> None:
        """Give it runs from now on."""
        worker.on_event = self._hear
        worker.on_gone = self.remove  # at once: its successor may take long to start
        self._members[worker] = None
        self._held[worker] = deque()
        self._match()

    def remove(self, worker: WorkerHandle) -> None:
        """Give it no more runs; if it is gone, the run that it was at fails, and the next one waits again."""
        self._members.pop(worker, None)
        if worker.gone.is_set() and (held := self._held.pop(worker, None)):
            held.popleft().set_exception(LabError(f"process {worker.pid} of the pool died over this run"))
            self._give_back(held)

    def take(self, connection: socket.socket) -> None:
        """Close it: runners have no connections to hand over."""
        connection.close()

    def close(self) -> None:
        """Do nothing: nothing listens."""

    async def emptied(self) -> None:
        """Return at once: what waits here is requests, and others wait for their connections."""

    def _hear(self, worker: WorkerHandle, message: Message) -> None:
        if message["event"] == "drained":
            self._give_back(self._held.pop(worker))
        else:
            self._held[worker].popleft().set_result(LoopRun(**message["run"]))
            self._match()

    def _give_back(self, held: "deque[asyncio.Future[LoopRun]]") -> None:
        """Let runs that were not begun wait again, before the others."""
        self._waiting.extendleft(reversed(held))
        self._match()

    def _match(self) -> None:
        while self._waiting and self._members:
            worker = min(self._members, key=lambda member: len(self._held[member]))
            if len(self._held[worker]) >= _BOUND:
                break
            del self._members[worker]
            self._members[worker] = None  # now last: it began after the others
            self._held[worker].append(self._waiting.popleft())
            worker.send(_RUN)


@asynccontextmanager
async def in_processes(spec: ServerSpec) -> AsyncIterator[tuple[Work, Workers]]:
    """Yield work that `spec.workers` processes do, and those processes as workers to look after.

    Raises LabError, cancelling what runs in the context, if one of them cannot be kept running.
    """
    give_way()  # each answer would cost a process of the pool its CPU, just before its next run
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
    """Be the runner that was started, until told to go: then another process does the run at hand."""
    arguments = json.loads(text)
    spec = ServerSpec.received(arguments["spec"])
    if spec.pin:
        pin(arguments["index"])
    processes.begin(arguments["channel"])
    channel = Channel.adopt(arguments["channel"])
    counts = SharedCounts.adopt(arguments["counts"])
    kernel = hotloop.kernel(spec.kernel)
    channel.send({"event": "ready"})
    ahead: deque[Message] = deque()
    while True:
        received = (channel.waiting() or []) if ahead else channel.receive()
        ahead.extend(message for message, _ in received)
        if ahead and ahead[-1]["do"] == "drain":
            channel.send({"event": "drained"})
            return
        if ahead:
            ahead.popleft()
            run = hotloop.run(kernel, spec.iterations)
            counts.add(requests=1, busy_s=run.duration_s)
            channel.send({"event": "done", "run": vars(run)})
