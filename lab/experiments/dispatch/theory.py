"""The theory of each arrangement: the queue that it forms, and how long requests wait there."""

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.models.queueing import mdc_wait_quantile
from lab.models.simulation import Dispatch, waits

_REQUESTS = 60_000
"""Requests in a simulated curve: enough for a p99 that is right within a few percent."""

_UNQUEUED = 0.1
"""At least this share of a trial's requests find an idle worker, unless it has more work than time."""

_HASHES = 20
"""Random hashes of a trial's arrivals to simulate, as the kernel's own is unknown."""


class Queue(StrEnum):
    """Where requests wait."""

    CENTRAL = "one central queue"
    TURNS = "workers take turns"
    BATCHES = "a free worker takes all that wait"
    HASHED = "a queue per worker, by hash"
    ONE = "one worker, one queue"
    GIL = "one at a time: the GIL"


_OF_CLUSTER = {
    "shared": Queue.BATCHES,
    "reuseport": Queue.HASHED,
    "round-robin": Queue.TURNS,
    "least-busy": Queue.CENTRAL,
}

_PLAYED: dict[Queue, Dispatch] = {
    Queue.BATCHES: "batches",
    Queue.HASHED: "random",
    Queue.TURNS: "round-robin",
}


def queue_of(factors: Mapping[Any, Any]) -> Queue:
    """Return the queue that an arrangement forms, by the factors of its condition."""
    match factors["topology"]:
        case "single":
            return Queue.ONE
        case "cluster":
            return _OF_CLUSTER[factors["dispatch"]]
    holds_gil = factors["pool"] == "thread" and factors["kernel"] == "python"
    return Queue.GIL if holds_gil else Queue.CENTRAL


def curve(queue: Queue, workers: int, arrivals: str, tail_share: float) -> pd.DataFrame:
    """Return a queue's latency: utilisation, p50 and tail in service times; no rows for the GIL.

    `tail` is the latency that a share of `tail_share` does not exceed. It is exact where there is a formula
    (Poisson arrivals: M/D/c for one central queue and for turns, M/D/1 for a hash and for one process;
    constant arrivals: no wait except by hash), else simulated.
    """
    rows = [
        (u, *(_latency(queue, workers, float(u), arrivals, q) for q in (0.5, tail_share)))
        for u in np.linspace(0.05, 0.95, 19)
        if queue != Queue.GIL
    ]
    return pd.DataFrame(rows, columns=["utilisation", "p50", "tail"])


def _latency(queue: Queue, workers: int, utilisation: float, arrivals: str, quantile: float) -> float:
    if arrivals == "poisson" and queue != Queue.BATCHES:
        sharing = 1 if queue in (Queue.HASHED, Queue.ONE) else workers
        return 1 + mdc_wait_quantile(quantile, sharing, utilisation)
    if arrivals == "constant" and queue != Queue.HASHED:
        return 1.0
    return 1 + float(np.quantile(_simulated(queue, workers, utilisation, arrivals), quantile))


@lru_cache(maxsize=64)
def _simulated(queue: Queue, workers: int, utilisation: float, arrivals: str) -> NDArray[np.float64]:
    rate = workers * utilisation
    random = np.random.default_rng(0)
    gaps = random.exponential(1 / rate, _REQUESTS) if arrivals == "poisson" else np.full(_REQUESTS, 1 / rate)
    return waits(np.cumsum(gaps), 1.0, workers, _PLAYED[queue])


def least_overhead_s(requests: pd.DataFrame) -> float:
    """Return the least that requests take on top of their loops, to connect, parse and answer; or nan.

    It is the latency minus the loop, as its worker reported it, of a request that found an idle worker.
    """
    over_s = requests["end_s"] - requests["due_s"] - requests["service_s"]
    return float(over_s.quantile(_UNQUEUED))


def played(
    requests: pd.DataFrame, workers: int, queue: Queue, loop_s: float, overhead_s: float, tail_share: float
) -> dict[str, float]:
    """Play the arrivals of a trial through its queue, and through one central queue, the ideal.

    Returns latencies in seconds: mean_theory_s, tail_theory_s (nan for the GIL) and mean_ideal_s. Each
    request occupies a worker for the loop that it reported, or `loop_s`, plus `overhead_s`. So chance in
    arrivals, the speed of loops and the cost of any request cannot explain a difference from the measurement.
    """
    own_s = np.full(len(requests), np.nan) if queue == Queue.GIL else requests["service_s"].to_numpy()
    service_s = np.where(np.isnan(own_s), loop_s, own_s) + overhead_s
    due_s = requests["due_s"].to_numpy()
    ideal_s = waits(due_s, service_s, workers) + service_s
    theory_s = np.array([np.nan]) if queue == Queue.GIL else _played(due_s, service_s, workers, queue)
    return {
        "mean_theory_s": float(theory_s.mean()),
        "tail_theory_s": float(np.quantile(theory_s, tail_share)),
        "mean_ideal_s": float(ideal_s.mean()),
    }


def _played(
    due_s: NDArray[np.float64], service_s: NDArray[np.float64], workers: int, queue: Queue
) -> NDArray[np.float64]:
    seeds = range(_HASHES if queue == Queue.HASHED else 1)
    dispatch = _PLAYED.get(queue, "central")
    return np.concatenate([waits(due_s, service_s, workers, dispatch, seed) + service_s for seed in seeds])
