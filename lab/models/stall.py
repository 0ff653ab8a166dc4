"""What a server that stands still does to an open loop: a sawtooth, the known answer for load generators."""

import numpy as np
from numpy.typing import NDArray

from lab.models import checks


def stall_latency_s(due_s: NDArray[np.float64], stall_at_s: float, stall_s: float) -> NDArray[np.float64]:
    """Return each request's latency, in seconds, on a quick server that stands still once.

    What is due at t while it stands still, from `stall_at_s` on, waits for its end: stall_at_s + stall_s - t.
    All others are answered at once. To omit those waits is coordinated omission, as Tene calls it.
    """
    checks.above_zero(stall_s=stall_s)
    waits_s = stall_at_s + stall_s - due_s
    return np.where(due_s >= stall_at_s, np.maximum(waits_s, 0.0), 0.0)
