"""The workers of a server: how many should run, and what happens when one cannot be kept running."""

import asyncio
import contextlib
import logging
import signal
from dataclasses import asdict, dataclass

from lab.channel import Channel, Message
from lab.errors import LabError
from lab.forks import Body
from lab.servers.counters import WorkerCounters
from lab.servers.dispatch import Dispatch
from lab.servers.spec import ServerSpec
from lab.servers.worker_handle import WorkerHandle, first

SETTLED_S = 2.0
"""If a worker accepted for this long before it died, its start was not the cause."""

_FIRST_DELAY_S = 0.1


@dataclass
class Backoff:
    """Counts consecutive deaths of workers that had not settled.

    The first replacement is immediate and the next ones wait .1, .2, .4, ... seconds. So a worker that cannot
    start, or crashes with every request, does not take the machine with it.
    """

    most: int = 6
    young: int = 0

    def after_death(self, accepted_for_s: float) -> float | None:
        """Return how many seconds to wait before the next start, or None to give up."""
        self.young = 0 if accepted_for_s >= SETTLED_S else self.young + 1
        if self.young >= self.most:
            return None
        return 0.0 if self.young <= 1 else _FIRST_DELAY_S * 2 ** (self.young - 2)


log = logging.getLogger(__name__)


class KeptWorker:
    """A worker that is kept running: replaced when it dies, renewed on request, one at a time by `turn`."""

    def __init__(
        self, body: Body, index: int, spec: ServerSpec, dispatch: Dispatch, turn: asyncio.Lock
    ) -> None:
        self.index = index
        self.restarts = 0
        self.worker: WorkerHandle | None = None
        self._since_s = 0.0
        self._body = body
        self._spec = spec
        self._dispatch = dispatch
        self._turn = turn
        self._changing = asyncio.Lock()
        self._replaced = asyncio.Event()
        self._backoff = Backoff()
        self._alive: set[WorkerHandle] = set()
        self._renewals: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Return when its first worker accepts. Raises LabError if it cannot start."""
        self._install(await self._started())

    async def keep(self) -> None:
        """Keep a worker running, until cancelled. Raises LabError, with the reason, if workers keep dying."""
        while worker := self.worker:
            await first(worker.gone, worker.leaving, self._replaced)
            if worker is not self.worker:
                continue  # it drains, and its successor is the one to watch
            if not worker.gone.is_set():
                worker.leaving.clear()
                self._renewals.add(renewal := asyncio.create_task(self._let_go(worker)))
                renewal.add_done_callback(self._renewals.discard)
                continue
            async with self._changing:
                if worker is self.worker:  # it was not renewed meanwhile
                    await self._revive(worker)

    async def renew(self, only: WorkerHandle | None = None) -> None:
        """Return when a new worker has taken over and the current one is gone.

        Given `only`, do nothing if the current worker is another. Raises LabError if the new one could not
        start: the current one stays. While the old one drains, its successor is already watched.
        """
        async with self._turn:
            async with self._changing:
                old = self.worker
                if only is not None and old is not only:
                    return
                self._install(await self._started())
                self.restarts += 1
            if old is not None:
                await self._retire(old)

    async def close(self) -> None:
        """Return when its workers have answered what they accepted and are gone; `keep` must be over."""
        self.worker = None
        for renewal in self._renewals:
            renewal.cancel()
        await asyncio.gather(*self._renewals, return_exceptions=True)
        await asyncio.gather(*(self._retire(worker) for worker in tuple(self._alive)))

    def kill(self) -> None:
        """Kill its workers now, whatever they are doing."""
        for worker in self._alive:
            worker.kill()

    async def _started(self) -> WorkerHandle:
        worker = await self._spawned()
        self._alive.add(worker)
        try:
            await worker.accepting()
        except BaseException:
            worker.kill()
            await worker.gone.wait()
            self._alive.discard(worker)
            raise
        return worker

    async def _spawned(self) -> WorkerHandle:
        try:
            with self._dispatch.listener() or contextlib.nullcontext() as listener:
                return await WorkerHandle.start(self._body, self._spec, self.index, listener)
        except OSError as error:  # too many processes, or too many open files
            raise LabError(f"cannot start a worker: {(error.strerror or str(error)).lower()}") from None

    def _install(self, worker: WorkerHandle) -> None:
        self.worker = worker
        self._replaced.set()
        self._replaced = asyncio.Event()
        self._since_s = asyncio.get_running_loop().time()
        worker.on_handed_over = self._dispatch.take
        self._dispatch.add(worker)

    async def _revive(self, dead: WorkerHandle) -> None:
        self._forget(dead)
        self.worker = None
        accepted_for_s = asyncio.get_running_loop().time() - self._since_s
        reason = f"worker {dead.pid} ended: {dead.ending}"
        while (delay_s := self._backoff.after_death(accepted_for_s)) is not None:
            log.warning("%s; another one starts in %g s", reason, delay_s)
            await asyncio.sleep(delay_s)
            self.restarts += 1
            try:
                return self._install(await self._started())
            except LabError as error:
                reason, accepted_for_s = str(error), 0.0
        raise LabError(f"{reason}; gave up, because {self._backoff.young} workers in a row died young")

    async def _let_go(self, worker: WorkerHandle) -> None:
        try:
            await self.renew(only=worker)
        except LabError as error:
            log.warning("worker %d stays: %s", worker.pid, error)

    async def _retire(self, worker: WorkerHandle) -> None:
        self._dispatch.remove(worker)
        await worker.drain()
        self._forget(worker)

    def _forget(self, gone: WorkerHandle) -> None:
        self._dispatch.remove(gone)
        self._alive.discard(gone)


class Workers:
    """Starts, scales, recycles and ends worker processes, which a dispatch puts to work.

    Changes are made one by one, in the order in which they are requested.
    """

    def __init__(self, body: Body, spec: ServerSpec, dispatch: Dispatch) -> None:
        self._body = body
        self._spec = spec
        self._dispatch = dispatch
        self._kept: list[KeptWorker] = []
        self._keepers: dict[KeptWorker, asyncio.Task[None]] = {}
        self._one_change = asyncio.Lock()
        self._one_renewal = asyncio.Lock()
        self._gave_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def pids(self) -> list[int]:
        """Return the pids of the workers at work."""
        return [kept.worker.pid for kept in self._kept if kept.worker]

    def counters(self) -> list[WorkerCounters]:
        """Return the figures of each worker at work."""
        return [kept.worker.counters(kept.restarts) for kept in self._kept if kept.worker]

    async def until_it_fails(self) -> None:
        """Wait for a worker that cannot be kept running. Raises LabError with the reason."""
        await asyncio.shield(self._gave_up)

    async def scale(self, count: int) -> None:
        """Return when `count` workers are ready and any beyond are gone.

        Raises UsageError for less than one; LabError if a new one cannot start, and then adds none.
        """
        async with self._one_change:
            await self._scale(count)

    async def add(self, more: int) -> None:
        """Scale by `more`, counted from the number of workers when this change begins."""
        async with self._one_change:
            await self._scale(len(self._kept) + more)

    async def recycle(self) -> None:
        """Renew all workers, one at a time. Raises LabError if one fails: it stays, as do those after it."""
        async with self._one_change:
            for kept in tuple(self._kept):
                await kept.renew()

    async def close(self) -> None:
        """Return when the workers have answered what they accepted and are gone."""
        await asyncio.gather(*(self._end(kept) for kept in self._kept))

    def kill(self) -> None:
        """Kill all workers now."""
        for kept in self._kept:
            kept.kill()

    async def _scale(self, count: int) -> None:
        self._spec.check_workers(count)
        fresh = [self._fresh(index) for index in range(len(self._kept), count)]
        self._kept += fresh
        try:
            async with asyncio.TaskGroup() as starting:
                for kept in fresh:
                    starting.create_task(kept.start())
        except* LabError as errors:
            await self._drop(fresh)
            raise errors.exceptions[0] from None
        for kept in fresh:
            self._keep(kept)
        await self._drop(self._kept[count:])

    def _fresh(self, index: int) -> KeptWorker:
        return KeptWorker(self._body, index, self._spec, self._dispatch, self._one_renewal)

    def _keep(self, kept: KeptWorker) -> None:
        self._keepers[kept] = keeper = asyncio.create_task(kept.keep())
        keeper.add_done_callback(self._keeper_ended)

    def _keeper_ended(self, keeper: "asyncio.Task[None]") -> None:
        if not keeper.cancelled() and (error := keeper.exception()) and not self._gave_up.done():
            self._gave_up.set_exception(error)

    async def _drop(self, dropped: list[KeptWorker]) -> None:
        await asyncio.gather(*(self._end(kept) for kept in dropped))
        self._kept = [kept for kept in self._kept if kept not in dropped]

    async def _end(self, kept: KeptWorker) -> None:
        if keeper := self._keepers.pop(kept, None):
            keeper.cancel()
            await asyncio.wait((keeper,))
        await kept.close()


SIGNALS: dict[signal.Signals, Message] = {
    signal.SIGTTIN: {"do": "add", "more": 1},
    signal.SIGTTOU: {"do": "add", "more": -1},
    signal.SIGHUP: {"do": "recycle"},
}
"""What gunicorn's signals ask for."""


class Commands:
    """Carries out each command in its own task, so that a question need not wait for a long change."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, command: Message, reply: Channel | None = None) -> None:
        """Carry out a command, and reply with the result or the error."""
        task = asyncio.get_running_loop().create_task(self._carry_out(command, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def cancel(self) -> None:
        """Cancel all commands, and return when they are over."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _carry_out(self, command: Message, reply: Channel | None) -> None:
        with contextlib.closing(reply) if reply else contextlib.nullcontext():
            try:
                answer = {"result": await self._obey(command)}
            except LabError as error:
                log.warning("%s: %s", command["do"], error)
                answer = {"error": str(error)}
            except asyncio.CancelledError:
                answer = {"error": "the server is stopping"}
            if reply:
                reply.tell(answer)

    async def _obey(self, command: Message) -> object:
        match command["do"]:
            case "workers":
                return self._workers.pids()
            case "counters":
                return [asdict(counters) for counters in self._workers.counters()]
            case "scale":
                await self._workers.scale(command["workers"])
            case "add":
                await self._workers.add(command["more"])
            case "recycle":
                await self._workers.recycle()
            case unknown:
                raise LabError(f"no such command: {unknown!r}")
        return None
