"""A generator: a separate process, so that its starter's work never disturbs a measurement.

It reads its assignment and due times from stdin, says that it is ready, waits for the start instant, sends,
and writes its log to stdout. Stdin is also its lifeline.
"""

import asyncio
import contextlib
import gc
import json
import os
import pickle
import sys
import threading
import time
from array import array
from collections.abc import Callable
from typing import Any, BinaryIO

from lab.load.log import Log
from lab.load.sender import Sender
from lab.load.target import Assignment
from lab.processes import begin, run_loop

_BEAT_S = 0.01
_STALL_S = 0.01
"""A heartbeat later than this is a stall; the loop's own timers are exact to about 1 ms."""


class Health:
    """Watches its own process from `begin_s`, on the clock of `time.monotonic`, until `report`.

    Anything before that instant, a warm-up, is forgotten.
    """

    def __init__(self, begin_s: float) -> None:
        gc.collect()
        gc.freeze()  # what exists now is never scanned again: a collection then costs microseconds
        gc.callbacks.append(self._collecting)
        self._begin_s = self._due_s = begin_s
        self._pause_began_s = 0.0
        self._shares: dict[str, float] = {}
        self._forget()
        self._loop = asyncio.get_running_loop()
        self._beat = self._loop.call_later(max(0.0, begin_s - time.monotonic()), self._begin)

    def report(self) -> dict[str, float]:
        """Return the figures; shares are those summed up earlier, or else as of now."""
        gc.callbacks.remove(self._collecting)
        self._beat.cancel()
        if time.monotonic() <= self._begin_s:  # stopped in the warm-up
            self._forget()
        if not self._shares:
            self.sum_up()
        return {
            "cpu_s": self._cpu_used_s(),
            "gc_pauses": self._pauses,
            "gc_longest_s": self._longest_pause_s,
            "stalls": self._stalls,
            "stalled_s": self._stalled_s,
            "stall_longest_s": self._longest_stall_s,
            **self._shares,
        }

    def sum_up(self) -> None:
        """Compute the shares of one core's time, and of elapsed time, from `begin_s` until now."""
        elapsed_s = time.monotonic() - self._begin_s
        used = {"cpu_share": self._cpu_used_s(), "stalled_share": self._stalled_s}
        self._shares = {name: used_s / elapsed_s if elapsed_s > 0 else 0.0 for name, used_s in used.items()}

    def _cpu_used_s(self) -> float:
        return time.process_time() - self._cpu_s

    def _forget(self) -> None:
        self._cpu_s = time.process_time()
        self._stalls = self._pauses = 0
        self._longest_stall_s = self._longest_pause_s = self._stalled_s = 0.0

    def _begin(self) -> None:
        """Count from here; the first beat is due now, so a stall that began in the warm-up is seen."""
        self._forget()
        self._beaten()

    def _beaten(self) -> None:
        late_s = time.monotonic() - self._due_s
        if late_s > _STALL_S:
            self._stalls += 1
            self._stalled_s += late_s
            self._longest_stall_s = max(self._longest_stall_s, late_s)
        self._due_s = time.monotonic() + _BEAT_S
        self._beat = self._loop.call_later(_BEAT_S, self._beaten)

    def _collecting(self, phase: str, _: dict[str, int]) -> None:
        """Time a collection by its CPU time: CPU that others take meanwhile shows as a stall."""
        if phase == "start":
            self._pause_began_s = time.thread_time()
            return
        self._pauses += 1
        self._longest_pause_s = max(self._longest_pause_s, time.thread_time() - self._pause_began_s)


_PROGRESS_EVERY_S = 1.0
_SAMPLE = 1000
"""The most latencies in one progress message."""


def main() -> None:
    """Do what stdin says."""
    begin(lifeline=0)
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    assigned, due_s = pickle.load(stdin)  # noqa: S301  (our starter wrote it)
    log = Log(len(due_s))  # before it is ready: that of a long plan takes a tenth of a second
    realtime = assigned.realtime and take_realtime_priority()
    _say(stdout, {"ready": os.getpid()})
    run_loop(_attack(assigned, due_s, log, float(stdin.readline()), stdin, stdout, realtime))
    os._exit(0)  # `_obey` holds stdin's lock; a usual exit would wait a second for it


async def _attack(
    assigned: Assignment,
    due_s: "array[float]",
    log: Log,
    start_s: float,
    stdin: BinaryIO,
    stdout: BinaryIO,
    realtime: bool,
) -> None:
    loop = asyncio.get_running_loop()
    sender = Sender(assigned, due_s, log, start_s)
    threading.Thread(target=_obey, args=(stdin, loop, sender.stop), daemon=True).start()
    health = Health(start_s)
    tasks = [loop.create_task(_sum_up_when_sent(sender, health, start_s + assigned.lasts_s))]
    if assigned.progress:
        tasks.append(loop.create_task(_report_progress(sender, stdout)))
    await sender.run()
    for task in tasks:
        task.cancel()
    figures = health.report() | {"realtime": realtime, "unreadable": sender.unreadable}
    last: dict[str, Any] = {"errors": sender.errors, "warmup_errors": sender.warmup_errors}
    if assigned.progress:
        last |= {"progress": _progress(sender)}
    _say(stdout, {"health": figures, **last})
    sender.log.send_to(stdout)
    stdout.flush()


async def _sum_up_when_sent(sender: Sender, health: Health, ends_s: float) -> None:
    """Sum up before waiting for timeouts: that wait is idle, and would dilute the shares."""
    await sender.all_sent.wait()
    await asyncio.sleep(ends_s - time.monotonic())
    health.sum_up()


async def _report_progress(sender: Sender, stdout: BinaryIO) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_EVERY_S)
        _say(stdout, {"progress": _progress(sender)})


def _progress(sender: Sender) -> dict[str, Any]:
    recent_s, sender.recent_s = sender.recent_s, []
    return {
        "sent": sender.sent,
        "in_flight": sender.in_flight,
        "outcomes": {outcome.name.lower(): count for outcome, count in sender.outcomes.items()},
        "latency_s": recent_s[:: -(-len(recent_s) // _SAMPLE) or 1],
    }


def _obey(stdin: BinaryIO, loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Stop when told to."""
    while stdin.readline():
        with contextlib.suppress(RuntimeError):  # the loop is closed: everything is done
            loop.call_soon_threadsafe(stop)


def _say(stdout: BinaryIO, message: dict[str, Any]) -> None:
    stdout.write(json.dumps(message).encode() + b"\n")
    stdout.flush()


def take_realtime_priority() -> bool:
    """Get a CPU whenever something is due, if the system allows: else busy workers delay it by up to 4 ms.

    On a machine of its own, a client would not be delayed by the server, either.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # forbidden, or unknown in this sandbox
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            return True
    return False


if __name__ == "__main__":
    main()
