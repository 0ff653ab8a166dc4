"""What a generator knows about itself: CPU used, garbage collection pauses, stalls of its event loop."""

import asyncio
import gc
import time

_BEAT_S = 0.01
_STALL_S = 0.01
"""A heartbeat later than this is a stall; the loop's own timers are exact to about 1 ms."""


class Health:
    """Watches its own process from the moment it is made until `report`."""

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()  # what exists now is never looked at again: a collection then costs microseconds
        gc.callbacks.append(self._collecting)
        self._began_s = time.monotonic()
        self._cpu_s = time.process_time()
        self._stalls = self._pauses = 0
        self._longest_stall_s = self._longest_pause_s = self._stalled_s = 0.0
        self._pause_began_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._expect_beat()

    def report(self) -> dict[str, float]:
        """Return the figures; the CPU share is of one core, over the time since then."""
        gc.callbacks.remove(self._collecting)
        self._beat.cancel()
        cpu_s = time.process_time() - self._cpu_s
        elapsed_s = max(time.monotonic() - self._began_s, 1e-9)
        return {
            "cpu_s": cpu_s,
            "cpu_share": cpu_s / elapsed_s,
            "gc_pauses": self._pauses,
            "gc_longest_s": self._longest_pause_s,
            "stalls": self._stalls,
            "stalled_s": self._stalled_s,
            "stalled_share": self._stalled_s / elapsed_s,
            "stall_longest_s": self._longest_stall_s,
        }

    def _expect_beat(self) -> None:
        self._due_s = time.monotonic() + _BEAT_S
        self._beat = self._loop.call_later(_BEAT_S, self._beaten)

    def _beaten(self) -> None:
        late_s = time.monotonic() - self._due_s
        if late_s > _STALL_S:
            self._stalls += 1
            self._stalled_s += late_s
            self._longest_stall_s = max(self._longest_stall_s, late_s)
        self._expect_beat()

    def _collecting(self, phase: str, _: dict[str, int]) -> None:
        """Time a collection by its CPU time: what others take of the CPU meanwhile shows as a stall."""
        if phase == "start":
            self._pause_began_s = time.thread_time()
            return
        self._pauses += 1
        self._longest_pause_s = max(self._longest_pause_s, time.thread_time() - self._pause_began_s)
