"""Load whose rate may change while it is offered: the process that offers it, and its starter's view of that.

The instrument is that of an attack. The schedule is made a slice at a time; each has a `Sender` of its own,
and they follow one another without a gap, on one clock. So a request leaves when it is due, whatever became
of those before it, and a new rate holds from the next slice on.
"""

import asyncio
import contextlib
import gc
import json
import math
import os
import queue
import random
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

from lab import processes
from lab.channel import Channel, Message
from lab.errors import LabError
from lab.load import target
from lab.load.connection import Connection
from lab.load.generator import take_realtime_priority
from lab.load.log import OUTCOMES, Log, Outcome
from lab.load.sender import Sender
from lab.load.target import Assignment

SLICE_S = 0.1
_LEAD_S = 0.05
"""How long before its first request a slice is planned."""

_TELL_EVERY_S = 0.1
_STARTED_WITHIN_S = 30.0
_ENDED_WITHIN_S = 5.0

_WAITING_SHOWN = 200
"""Of the requests that wait, so many due times are told: enough to draw a queue."""


class Row(NamedTuple):
    """What became of one request; times in seconds from the start, None for what did not happen."""

    due_s: float
    sent_s: float | None
    end_s: float | None
    service_s: float | None
    service_cpu_s: float | None
    outcome: str
    worker: int


@dataclass(frozen=True)
class Report:
    """What is new at `now_s`: the requests that ended since the report before, in the order of their ends.

    due: how many have fallen due so far. waiting: how many of them have not ended; waiting_due_s: when the
    oldest of those were due.
    """

    now_s: float
    due: int
    rows: list[Row]
    waiting: int
    waiting_due_s: list[float]


class Schedule:
    """Due times at a rate that may change at any moment; arrivals are constant or Poisson.

    As in `lab.load.arrivals`, the integral of the rate counts the arrivals. From one to the next, it grows
    by 1, or by an exponential time with mean 1.
    """

    def __init__(self, arrivals: str, seed: int) -> None:
        draw = random.Random(seed)
        self._gap: Callable[[], float] = (
            (lambda: draw.expovariate(1.0)) if arrivals == "poisson" else lambda: 1.0
        )
        self._at_s = 0.0
        self._left = self._gap() if arrivals == "poisson" else 0.0

    def until(self, end_s: float, rate_rps: float) -> Iterator[float]:
        """Yield what falls due from where the last call ended until `end_s`, at this rate; 0 is a pause."""
        while rate_rps > 0 and (due_s := self._at_s + self._left / rate_rps) < end_s:
            yield due_s
            self._at_s, self._left = due_s, self._gap()
        self._left -= (end_s - self._at_s) * rate_rps
        self._at_s = end_s


class LiveLoad:
    """The starter's view: a generator that offers load until `stop`, or until this process ends in any way.

    Reports arrive every tenth of a second, in a thread of their own. Without them it goes on all the same.
    """

    def __init__(
        self,
        url: str,
        rate_rps: float,
        on_report: Callable[[Report], None],
        *,
        arrivals: str = "constant",
        timeout_s: float = 10.0,
        seed: int = 0,
        realtime: bool = False,
    ) -> None:
        """Begin to offer `rate_rps` to `url`, which must be on loopback, each request on its own connection.

        `realtime` asks for real-time priority. Raises UsageError for a target off loopback, LabError if it
        cannot be reached.
        """
        at = target.check(url, remote=False)
        order = {
            "address": at.accepting(), "port": at.port, "timeout_s": timeout_s, "realtime": realtime,
            "payload": at.request("GET", (), b"", keepalive=False).decode(),
        }  # fmt: skip
        arguments = {"assigned": order, "arrivals": arrivals, "seed": seed, "rate_rps": rate_rps}
        self._process, self._channel = processes.start_with_channel(
            "lab.load.live", arguments, fds={}, log=subprocess.DEVNULL
        )
        self.pid = self._process.pid
        self._on_report = on_report
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="live-load", daemon=True)
        self._thread.start()
        if not self._started.wait(_STARTED_WITHIN_S) or not self.start_s:
            self._end()
            raise LabError("the load generator has not started")

    @property
    def is_running(self) -> bool:
        """Whether its generator still runs: it may have been killed."""
        return self._process.poll() is None

    def set_rate(self, rate_rps: float) -> None:
        """Offer another rate from now on; 0 for none. The change takes effect within a slice and its lead."""
        self._channel.tell({"rate_rps": rate_rps})

    def stop(self) -> None:
        """End it: requests without an answer are unfinished. The last report has come when this returns."""
        self._channel.tell({"stop": True})
        if threading.current_thread() is not self._thread:
            self._thread.join(_ENDED_WITHIN_S)
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _end(self) -> None:
        processes.end_group(self._process)
        self._channel.close()

    def _listen(self) -> None:
        self.start_s = 0.0
        with contextlib.suppress(EOFError, OSError, ValueError):  # it has ended, or the channel is closed
            while True:
                for message, _ in self._channel.receive():
                    self._hear(message)
        self._started.set()

    def _hear(self, message: Message) -> None:
        if "start_s" in message:
            self.start_s = message["start_s"]
            self._started.set()
            return
        rows = [Row(*row) for row in message["rows"]]
        figures = {name: message[name] for name in ("now_s", "due", "waiting", "waiting_due_s")}
        self._on_report(Report(rows=rows, **figures))


class _Slice(Sender):
    """The requests of a slice, and which of them have not ended."""

    def __init__(self, assigned: Assignment, due_s: list[float], start_s: float, ends: list[Row]) -> None:
        super().__init__(assigned, array("d", due_s), Log(len(due_s)), start_s)
        self.open: dict[int, float] = dict(enumerate(due_s))
        self._ends = ends

    def ended(self, connection: Connection, request: int, outcome: Outcome, error: str) -> None:
        super().ended(connection, request, outcome, error)
        self._ends.append(self._row(request))
        del self.open[request]

    def left(self, now_s: float) -> list[Row]:
        """Return the requests that were due, and have not ended."""
        return [self._row(request) for request, due_s in self.open.items() if due_s <= now_s]

    def _row(self, request: int) -> Row:
        log = self.log
        return Row(
            round(self._due_s[request], 6),
            _written(log.sent_s[request]),
            _written(log.end_s[request]),
            _written(log.service_s[request]),
            _written(log.service_cpu_s[request]),
            OUTCOMES[log.outcome[request]],
            log.worker[request],
        )


def _written(time_s: float) -> float | None:
    """Return a time in whole microseconds, as JSON can write it."""
    return None if math.isnan(time_s) else round(time_s, 6)


class _Generator:
    """Offers what it is told to, and tells what became of it, until it is told to stop."""

    def __init__(self, assigned: Assignment, schedule: Schedule, rate_rps: float, channel: Channel) -> None:
        self._assigned, self._schedule, self._rate_rps, self._channel = assigned, schedule, rate_rps, channel
        self._ends: list[Row] = []
        self._told = 0
        self._slices: dict[asyncio.Task[None], _Slice] = {}
        self._stopping = asyncio.Event()
        self._outbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()

    async def run(self) -> None:
        """Offer load, and return when all is told."""
        telling = threading.Thread(target=self._send, daemon=True)
        telling.start()
        asyncio.get_running_loop().add_reader(self._channel, self._obey)
        self._start_s = time.monotonic() + _LEAD_S
        self._outbox.put({"start_s": self._start_s})
        await asyncio.gather(self._offer(), self._report())
        self._tell(last=True)
        self._outbox.put(None)
        telling.join()

    def _now_s(self) -> float:
        return time.monotonic() - self._start_s

    def _obey(self) -> None:
        with contextlib.suppress(EOFError, OSError):  # then the lifeline ends this process
            for order, _ in self._channel.receive():
                self._rate_rps = order.get("rate_rps", self._rate_rps)
                if "stop" in order:
                    self._stopping.set()

    async def _offer(self) -> None:
        slices = 0
        while not await self._stopped_within(slices * SLICE_S - _LEAD_S - self._now_s()):
            slices += 1
            if due_s := list(self._schedule.until(slices * SLICE_S, self._rate_rps)):
                sender = _Slice(self._assigned, due_s, self._start_s, self._ends)
                task = asyncio.create_task(sender.run())
                self._slices[task] = sender
                task.add_done_callback(self._slices.pop)

    async def _report(self) -> None:
        while not await self._stopped_within(_TELL_EVERY_S):
            self._tell()

    async def _stopped_within(self, wait_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), max(0.0, wait_s))
        return self._stopping.is_set()

    def _tell(self, last: bool = False) -> None:
        now_s = self._now_s()
        left = [row for one in self._slices.values() for row in (one.left(now_s) if last else ())]
        waiting = [due_s for one in self._slices.values() for due_s in one.open.values() if due_s <= now_s]
        if last:
            for one in self._slices.values():
                one.stop()
        rows = [*self._ends, *left]
        self._ends.clear()
        self._told += len(rows)
        waits = 0 if last else len(waiting)
        self._outbox.put(
            {
                "now_s": now_s, "due": self._told + waits, "rows": rows,
                "waiting": waits, "waiting_due_s": waiting[: min(waits, _WAITING_SHOWN)],
            }
        )  # fmt: skip

    def _send(self) -> None:
        """Send what is put out, in a thread: a starter that does not read must not delay what is due."""
        with contextlib.suppress(OSError):
            while (message := self._outbox.get()) is not None:
                self._channel.send(message)


def main(text: str) -> None:
    """Be the generator that was started, until the end of the process."""
    arguments = json.loads(text)
    processes.begin(arguments["channel"])
    channel = Channel.adopt(arguments["channel"])
    order = arguments["assigned"]
    assigned = Assignment(**order | {"payload": order["payload"].encode()})
    schedule = Schedule(arguments["arrivals"], arguments["seed"])
    if assigned.realtime:
        take_realtime_priority()
    gc.collect()
    gc.freeze()  # what exists now is never scanned again: a collection then costs microseconds

    async def offer() -> None:
        await _Generator(assigned, schedule, arguments["rate_rps"], channel).run()

    processes.run_loop(offer())
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
