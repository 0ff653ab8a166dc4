"""A crew: how many workers should run, and what happens when one of them cannot be kept running."""

import asyncio

from lab.errors import LabError, UsageError
from lab.servers.dispatch import Dispatch
from lab.servers.slot import Slot
from lab.servers.spec import ServerSpec
from lab.servers.tally import WorkerCounters


class Crew:
    """Starts, scales, recycles and ends the worker processes of a role, which a dispatch puts to work.

    Changes are made one after another, in the order in which they are asked for.
    """

    def __init__(self, role: str, spec: ServerSpec, dispatch: Dispatch) -> None:
        self._role = role
        self._spec = spec
        self._dispatch = dispatch
        self._slots: list[Slot] = []
        self._keepers: dict[Slot, asyncio.Task[None]] = {}
        self._one_change = asyncio.Lock()
        self._one_renewal = asyncio.Lock()
        self._gave_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def pids(self) -> list[int]:
        """Return the workers that are at work."""
        return [slot.worker.pid for slot in self._slots if slot.worker]

    def counters(self) -> list[WorkerCounters]:
        """Return the figures of each worker at work."""
        return [slot.worker.counters(slot.restarts) for slot in self._slots if slot.worker]

    async def until_it_fails(self) -> None:
        """Wait for a worker that cannot be kept running. Raises LabError with the reason."""
        await asyncio.shield(self._gave_up)

    async def scale(self, count: int) -> None:
        """Return when `count` workers are ready and those beyond are gone.

        Raises UsageError for less than one; LabError if a new one cannot start, and then starts none.
        """
        async with self._one_change:
            await self._scale(count)

    async def add(self, more: int) -> None:
        """Scale by that many, from how many there are when it is this change's turn."""
        async with self._one_change:
            await self._scale(len(self._slots) + more)

    async def recycle(self) -> None:
        """Renew all workers, one at a time. Raises LabError if one could not be: it stays, as do the next."""
        async with self._one_change:
            for slot in tuple(self._slots):
                await slot.renew()

    async def close(self) -> None:
        """Return when what the workers have accepted is answered and they are gone."""
        await asyncio.gather(*(self._end(slot) for slot in self._slots))

    def kill(self) -> None:
        """End all workers now."""
        for slot in self._slots:
            slot.kill()

    async def _scale(self, count: int) -> None:
        if count < 1:
            raise UsageError(f"there is at least 1 worker, not {count}: to have none, stop the server")
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

    def _slot(self, index: int) -> Slot:
        return Slot(self._role, index, self._spec, self._dispatch, self._one_renewal)

    def _keep(self, slot: Slot) -> None:
        self._keepers[slot] = keeper = asyncio.create_task(slot.keep())
        keeper.add_done_callback(self._kept)

    def _kept(self, keeper: "asyncio.Task[None]") -> None:
        if not keeper.cancelled() and (error := keeper.exception()) and not self._gave_up.done():
            self._gave_up.set_exception(error)

    async def _drop(self, slots: list[Slot]) -> None:
        await asyncio.gather(*(self._end(slot) for slot in slots))
        self._slots = [slot for slot in self._slots if slot not in slots]

    async def _end(self, slot: Slot) -> None:
        if keeper := self._keepers.pop(slot, None):
            keeper.cancel()
            await asyncio.wait((keeper,))
        await slot.close()
