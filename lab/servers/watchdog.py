"""The end of a worker that hangs: a watchdog that needs neither the event loop nor the GIL to bite."""

import asyncio
import faulthandler

_BEATS = 4
"""How often the event loop shows that it is alive within the time that it may be blocked."""


class Watchdog:
    """Ends this process, with its stack in the log, when nothing has called `beat` for too long.

    The event loop does, and so does each request as it begins: a worker that goes from request to request
    without coming back to the loop is busy, not hung. One may take `timeout_s`; at 1.25 times that all ends.
    """

    def __init__(self, timeout_s: float) -> None:
        self._period_s = timeout_s / _BEATS
        self._timeout_s = timeout_s + self._period_s

    def watch(self) -> None:
        """Watch the running event loop from now on."""
        self.beat()
        asyncio.get_running_loop().call_later(self._period_s, self.watch)

    def beat(self) -> None:
        """Start counting again."""
        faulthandler.dump_traceback_later(self._timeout_s, exit=True)
