"""What overload does to each request: at a constant rate, and on a server that stands still once.

At a constant rate, workers of constant speed have a queue that grows linearly, or none (D/D/c, first come
first served): nothing is random, so each request's latency is exact. If only a few connections may wait, the
others try again, ever later.
"""

import heapq
import math
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from lab.checks import Count, Positive, checked

_EXACT = 1 - 1e-12
"""Makes 30.000000000000004 requests 30: rates are seldom exact in binary."""


def _ascending(times_s: tuple[float, ...]) -> tuple[float, ...]:
    if any(later <= earlier for earlier, later in pairwise(times_s)):
        raise ValueError("must be in ascending order")
    return times_s


Retries = Annotated[tuple[Positive, ...], AfterValidator(_ascending)]
"""When a connection is tried again, in seconds from the first try, in ascending order."""


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
    *,
    backlog: Count | None = None,
    retries_s: Retries = (1, 3, 7, 15, 31),
) -> Overload:
    """Predict every request of a constant rate on `workers` that each take `service_s` per request.

    Request k = 0, 1, ... is due at k / rate_rps, before `duration_s`, and its latency is, in seconds,

        service_s + floor(k / workers) * max(0, service_s - workers / rate_rps):

    each worker takes every `workers`-th request, and falls behind by the same time with each.
    A client that gives up at `timeout_s` sees that as its latency; the worker still does the work.

    With a `backlog`, at most so many connections wait to be accepted, beyond those in service. One that finds
    it full is dropped, and tried again `retries_s` after it was due (by default as Linux repeats a SYN); its
    latency counts from the due time all the same. After the last try it has failed: its latency is the
    time-out, or infinite without one. Linux lets one more wait than `listen` was told.
    """
    due_s = np.arange(math.ceil(rate_rps * duration_s * _EXACT)) / rate_rps
    patience_s = math.inf if timeout_s is None else timeout_s
    if backlog is None:
        rounds = np.arange(len(due_s)) // workers
        latency_s = service_s + rounds * max(0.0, service_s - workers / rate_rps)
    else:
        tries_s = [0.0, *(retry_s for retry_s in retries_s if retry_s < patience_s)]
        latency_s = _with_retries(due_s, service_s, workers, backlog, tries_s)
    ok = np.isfinite(latency_s) & (latency_s <= patience_s)
    return Overload(due_s, np.minimum(latency_s, patience_s), ok)


def _with_retries(
    due_s: NDArray[np.float64], service_s: float, workers: int, backlog: int, tries_s: list[float]
) -> NDArray[np.float64]:
    """Play the queue, one try at a time; the latency of a request that is never accepted is infinite."""
    latency_s = np.full(len(due_s), math.inf)
    free_s = [0.0] * workers
    starts_s: deque[float] = deque()  # of those that wait
    tries = [(due, request, 0) for request, due in enumerate(due_s.tolist())]
    while tries:
        now_s, request, tried = heapq.heappop(tries)
        while starts_s and starts_s[0] <= now_s:
            starts_s.popleft()
        if len(starts_s) < backlog:
            start_s = max(now_s, free_s[0])
            starts_s.append(start_s)
            heapq.heapreplace(free_s, start_s + service_s)
            latency_s[request] = start_s + service_s - due_s[request]
        elif tried + 1 < len(tries_s):
            again_s = float(due_s[request]) + tries_s[tried + 1]
            heapq.heappush(tries, (again_s, request, tried + 1))
    return latency_s


def stall_latency_s(due_s: NDArray[np.float64], stall_at_s: float, stall_s: float) -> NDArray[np.float64]:
    """Return each request's latency, in seconds, on a quick server that stands still once.

    A request due at t during the stall, from `stall_at_s` on, waits for its end: stall_at_s + stall_s - t.
    All others are answered at once. Omitting those waits is what Tene calls coordinated omission.
    """
    waits_s = stall_at_s + stall_s - due_s
    return np.where(due_s >= stall_at_s, np.maximum(waits_s, 0.0), 0.0)
