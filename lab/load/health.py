"""What a generator knows about itself: CPU used, garbage collection pauses, stalls of its event loop."""

import asyncio
import gc
import time

_BEAT_S = 0.01
_STALL_S = 0.01
"""A heartbeat later than this is a stall; the loop's own timers are exact to about 1 ms."""


class Health:
    """Watches its own process from `begin_s`, on the clock of `time.monotonic`, until `report`.

    What comes before that instant, a warm-up, is forgotten.
    """

    def __init__(self, begin_s: float) -> None:
        gc.collect()
        gc.freeze()  # what exists now is never looked at again: a collection then costs microseconds
        gc.callbacks.append(self._collecting)
        self._begin_s = self._due_s = begin_s
        self._pause_began_s = 0.0
        self._shares: dict[str, float] = {}
        self._forget()
        self._loop = asyncio.get_running_loop()
        self._beat = self._loop.call_later(max(0.0, begin_s - time.monotonic()), self._begin)

    def report(self) -> dict[str, float]:
        """Return the figures; shares are those summed up before, or else as of now."""
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
        """Take the shares of one core's time, and of the time, from `begin_s` until now."""
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
        """Time a collection by its CPU time: what others take of the CPU meanwhile shows as a stall."""
        if phase == "start":
            self._pause_began_s = time.thread_time()
            return
        self._pauses += 1
        self._longest_pause_s = max(self._longest_pause_s, time.thread_time() - self._pause_began_s)
