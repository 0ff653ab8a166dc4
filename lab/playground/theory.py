"""What theory predicts of a server: from its arrangement, the rate, and its service times."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lab.experiments.dispatch.trials import Queue, latency, queue_of
from lab.study.plan import share_of_limit

_HIGHEST = 0.98
"""Nearer to 1, a queue settles too late for anybody to watch."""

_SHARES = [(k + 0.5) / 10 for k in range(10)]


@dataclass(frozen=True)
class Theory:
    """A prediction. Times count the loop and the wait for it, not what connections and dispatch cost.

    utilisation: offered rate x service time / workers, or by CPUs if they are fewer. throughput_rps: what is
    answered. p50_s, p99_s, in_flight: None if the queue never settles; then it grows by `grows_rps` requests
    per second. queue: where requests wait.
    """

    queue: Queue
    utilisation: float
    throughput_rps: float
    p50_s: float | None = None
    p99_s: float | None = None
    in_flight: float | None = None
    grows_rps: float = 0.0


def predict(
    factors: Mapping[str, Any], rate_rps: float, service_s: float, service_cpu_s: float | None, cpus: int
) -> Theory:
    """Predict latency and throughput at a rate above 0; `factors` say the arrangement, as a condition's do.

    Service times count as one length, their mean: exact for Poisson arrivals (M/D/c), for constant ones (no
    wait, except by a hash), simulated for a shared socket. Requests in flight are the rate times the mean
    latency (Little).
    """
    queue, workers, arrivals = queue_of(factors), factors["workers"], factors["arrivals"]
    cpu_s = math.nan if service_cpu_s is None else service_cpu_s
    utilisation = float(share_of_limit(rate_rps, service_s, cpu_s, workers, cpus))
    if utilisation >= 1:
        limit_rps = rate_rps / utilisation
        return Theory(queue, utilisation, limit_rps, grows_rps=rate_rps - limit_rps)
    if utilisation > _HIGHEST:
        return Theory(queue, utilisation, rate_rps)
    p50, p99, mean = _latency(queue, workers, _rounded(utilisation), arrivals)
    return Theory(queue, utilisation, rate_rps, service_s * p50, service_s * p99, rate_rps * service_s * mean)


@lru_cache(maxsize=512)
def _latency(queue: Queue, workers: int, utilisation: float, arrivals: str) -> tuple[float, float, float]:
    """Return the p50, p99 and mean of latency in service times, the mean by its quantiles."""
    p50, p99, *shares = (
        latency(queue, workers, utilisation, arrivals, share) for share in (0.5, 0.99, *_SHARES)
    )
    return p50, p99, sum(shares) / len(shares)


def _rounded(utilisation: float) -> float:
    """Round a utilisation so that 1 minus it keeps two digits: what follows from it is computed once."""
    return 1 - float(f"{1 - utilisation:.1e}")
