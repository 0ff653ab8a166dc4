"""A slot keeps one worker running: it replaces one that dies, and renews one that shall go without a gap."""

import asyncio
import logging

from lab.errors import LabError
from lab.servers.backoff import Backoff
from lab.servers.dispatch import Dispatch
from lab.servers.spec import ServerSpec
from lab.servers.worker_handle import WorkerHandle, first

log = logging.getLogger(__name__)


class Slot:
    """One place among the workers of a cluster. All slots share `turn`: one worker at a time is renewed."""

    def __init__(
        self, role: str, index: int, spec: ServerSpec, dispatch: Dispatch, turn: asyncio.Lock
    ) -> None:
        self.index = index
        self.restarts = 0
        self.worker: WorkerHandle | None = None
        self._since_s = 0.0
        self._role = role
        self._spec = spec
        self._dispatch = dispatch
        self._turn = turn
        self._changing = asyncio.Lock()
        self._backoff = Backoff()
        self._alive: set[WorkerHandle] = set()

    async def start(self) -> None:
        """Return when its first worker accepts. Raises LabError if it cannot start."""
        self._install(await self._started())

    async def keep(self) -> None:
        """Keep a worker running, until cancelled. Raises LabError, with the reason, if workers keep dying."""
        while worker := self.worker:
            await first(worker.gone, worker.leaving)
            async with self._changing:
                if worker is not self.worker:
                    continue  # it was renewed meanwhile
                if worker.gone.is_set():
                    await self._revive(worker)
                else:
                    await self._let_go(worker)

    async def renew(self) -> None:
        """Return when another worker has taken over and the one of now is gone.

        Raises LabError if the other one could not start: the one of now stays.
        """
        async with self._changing:
            await self._renew()

    async def close(self) -> None:
        """Return when its workers have answered what they accepted and are gone; `keep` is over before."""
        self.worker = None
        await asyncio.gather(*(self._retire(worker) for worker in tuple(self._alive)))

    def kill(self) -> None:
        """End its workers now, whatever they are doing."""
        for worker in self._alive:
            worker.kill()

    async def _started(self) -> WorkerHandle:
        listener = self._dispatch.listener()
        try:
            worker = WorkerHandle(self._role, self._spec, self.index, listener)
        finally:
            if listener is not None:
                listener.close()
        self._alive.add(worker)
        try:
            await worker.accepting()
        except BaseException:
            worker.kill()
            await worker.gone.wait()
            self._alive.discard(worker)
            raise
        return worker

    def _install(self, worker: WorkerHandle) -> None:
        self.worker = worker
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
            await self._renew()
        except LabError as error:
            log.warning("worker %d stays: %s", worker.pid, error)
            worker.leaving.clear()

    async def _renew(self) -> None:
        async with self._turn:
            old = self.worker
            self._install(await self._started())
            self.restarts += 1
            if old is not None:
                await self._retire(old)

    async def _retire(self, worker: WorkerHandle) -> None:
        self._dispatch.remove(worker)
        await worker.drain()
        self._forget(worker)

    def _forget(self, gone: WorkerHandle) -> None:
        self._dispatch.remove(gone)
        self._alive.discard(gone)
