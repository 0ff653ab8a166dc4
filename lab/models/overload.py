"""What a constant rate does to workers of constant speed: a queue that grows linearly, or no queue.

Nothing here is random, so each request's latency is exact (a D/D/c queue, first come first served).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.checks import Count, Positive, checked

_EXACT = 1 - 1e-12
"""Makes 30.000000000000004 requests 30: rates are seldom exact in binary."""


@dataclass(frozen=True)
class Overload:
    """For each request: when it is due, the latency its client sees, and whether it is answered in time."""

    due_s: NDArray[np.float64]
    latency_s: NDArray[np.float64]
    ok: NDArray[np.bool_]


@checked
def overload(
    rate_rps: Positive,
    duration_s: Positive,
    service_s: Positive,
    workers: Count = 1,
    timeout_s: Positive | None = None,
) -> Overload:
    """Predict every request of a constant rate on `workers` that each take `service_s` per request.

    Request k = 0, 1, ... is due at k / rate_rps, before `duration_s`, and its latency is, in seconds,

        service_s + floor(k / workers) * max(0, service_s - workers / rate_rps):

    each worker takes every `workers`-th request, and falls behind by the same time with each.
    A client that gives up at `timeout_s` sees that as its latency; the worker still does the work.
    """
    k = np.arange(math.ceil(rate_rps * duration_s * _EXACT))
    latency_s = service_s + (k // workers) * max(0.0, service_s - workers / rate_rps)
    patience_s = math.inf if timeout_s is None else timeout_s
    return Overload(k / rate_rps, np.minimum(latency_s, patience_s), latency_s <= patience_s)


def stall_latency_s(due_s: NDArray[np.float64], stall_at_s: float, stall_s: float) -> NDArray[np.float64]:
    """Return each request's latency, in seconds, on a quick server that stands still once.

    A request due at t during the stall, from `stall_at_s` on, waits for its end: stall_at_s + stall_s - t.
    All others are answered at once. Omitting those waits is what Tene calls coordinated omission.
    """
    waits_s = stall_at_s + stall_s - due_s
    return np.where(due_s >= stall_at_s, np.maximum(waits_s, 0.0), 0.0)
