"""The work itself: the article's sum of atan(i) x tan(i), as kernels, and what one run costs.

Another kernel only sleeps: with it, few CPUs carry many workers, and show what their harness can feed.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from lab.errors import UsageError

Kernel = Callable[[int], float]

ITERATIONS = 7**7
"""Where the article's loop starts counting down; it counts to 0, both ends included."""

MOST_TIMES = 1000
"""How often one request may run the loop."""

REFERENCE_SUM = -4951863.097032076
"""The sum for `ITERATIONS` in IEEE double precision, added in the loop's order (V8 and CPython agree)."""


def python_loop(iterations: int) -> float:
    """Sum as the article does, in plain Python: the loop holds the GIL, and so holds up the whole process."""
    atan, tan = math.atan, math.tan
    total = 0.0
    for i in range(iterations, -1, -1):
        total += atan(i) * tan(i)
    return total


def _numpy_kernel() -> Kernel:
    import numpy as np

    def numpy_loop(iterations: int) -> float:
        """Sum the terms pairwise, as numpy does: another order, so other last digits."""
        i = np.arange(iterations, -1.0, -1.0)
        return float(np.sum(np.arctan(i) * np.tan(i)))

    return numpy_loop


def _numba_kernel() -> Kernel:
    import numba

    def compiled(*, cache: bool) -> Kernel:
        loop: Kernel = numba.njit("float64(int64)", nogil=True, cache=cache)(python_loop)
        return loop

    try:
        return compiled(cache=True)  # the next process need not compile it again
    except Exception:  # no writable folder, a full disk, a damaged cache
        return compiled(cache=False)


SLEEP_STEP_S = 1e-7
"""What the kernel `sleep` takes for one step: about what plain Python needs on a current CPU.

It is a constant, so that all workers of a server sleep equally long. Who needs the loop's own time on this
machine asks for as many steps as make it.
"""


def sleep_loop(iterations: int) -> float:
    """Block this thread, and so its event loop, but no CPU; compute nothing."""
    time.sleep(max(0.0, iterations * SLEEP_STEP_S))
    return 0.0


SummingName = Literal["python", "numpy", "numba"]
"""The kernels that do the work, unlike `sleep`."""
KernelName = Literal[SummingName, "sleep"]

_MAKERS: dict[str, Callable[[], Kernel]] = {
    "python": lambda: python_loop,
    "numpy": _numpy_kernel,
    "numba": _numba_kernel,
    "sleep": lambda: sleep_loop,
}

KERNELS = get_args(KernelName)

TOLERANCE = {"python": 1e-15, "numpy": 1e-9, "numba": 1e-12}
"""How far each kernel's sum may be from `REFERENCE_SUM`, relative to it."""


def kernel(name: str = "python") -> Kernel:
    """Return the kernel of that name, ready to run: imported and compiled here, not in the first call.

    Raises UsageError for an unknown name.
    """
    if name not in _MAKERS:
        raise UsageError(f"unknown kernel {name!r}: choose one of {', '.join(KERNELS)}")
    return _MAKERS[name]()


@dataclass(frozen=True)
class LoopRun:
    """One run of the hot loop: its sum, its wall and CPU time in seconds, and the process that ran it."""

    total: float
    duration_s: float
    cpu_s: float
    """Of its thread: less than the wall time where it had to wait for a CPU."""
    pid: int

    def server_timing(self) -> str:
        """Return the value of the header `Server-Timing`: wall and CPU time, in milliseconds."""
        return f"loop;dur={1000 * self.duration_s:.3f}, cpu;dur={1000 * self.cpu_s:.3f}"


def in_all(runs: Sequence[LoopRun]) -> LoopRun:
    """Return several runs of one request as one: the last, with the time that all of them took."""
    wall_s, cpu_s = sum(run.duration_s for run in runs), sum(run.cpu_s for run in runs)
    return replace(runs[-1], duration_s=wall_s, cpu_s=cpu_s)


def times_of(text: str) -> int:
    """Read how often a request asks for the loop. Raises UsageError if it cannot have that."""
    if not (text.isdecimal() and len(text) < 5 and 1 <= int(text) <= MOST_TIMES):
        raise UsageError(f"times must be a whole number from 1 to {MOST_TIMES}")
    return int(text)


def run(loop: Kernel, iterations: int) -> LoopRun:
    """Run the hot loop once, here and now."""
    wall_s, cpu_s = time.perf_counter(), time.thread_time()
    total = loop(iterations)
    return LoopRun(total, time.perf_counter() - wall_s, time.thread_time() - cpu_s, os.getpid())


@dataclass(frozen=True)
class LoopCost:
    """What one run of the hot loop took: seconds on the wall clock, and seconds of CPU time of its thread."""

    wall_s: float
    cpu_s: float


def measure(name: str = "python", iterations: int = ITERATIONS, repeats: int = 5) -> list[LoopCost]:
    """Run the loop `repeats` times back to back, after one run that is not counted."""
    loop = kernel(name)
    loop(iterations)
    runs = (run(loop, iterations) for _ in range(repeats))
    return [LoopCost(each.duration_s, each.cpu_s) for each in runs]
