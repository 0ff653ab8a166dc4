"""How long requests wait: at a constant rate, and when they arrive at random (Poisson).

At a constant rate, workers of constant speed have a queue that grows linearly, or none (D/D/c, first come
first served): nothing is random, so each request's latency is exact.

At random, workers share a queue, or do not. `workers` is c, and `utilisation` is rho = arrival rate x service
time / workers, below 1. With constant service time (M/D/c), the same functions cover three arrangements:

- one central queue: M/D/c with `workers` = c;
- round robin: the same. Service of constant length ends in the order it began, so the next worker in
  turn is always the next one free: waits are equal, request by request;
- requests split by hash or by chance: c queues, each M/D/1. Use `workers` = 1 at the same utilisation.
"""

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import gammaln, lambertw, xlogy

from lab.checks import Count, Positive, checked

_NEGLIGIBLE = 1e-16
_HIGHEST_UTILISATION = 0.9999

Utilisation = Annotated[float, Field(gt=0, le=_HIGHEST_UTILISATION)]
"""At 1, the queue never settles (`overload` says how it grows); near 1, it settles too late."""

Quantile = Annotated[float, Field(gt=0, le=0.999999)]


@checked
def mdc_mean_wait(workers: Count, utilisation: Utilisation, service_s: Positive = 1.0) -> float:
    """Return the exact mean wait in M/D/c, in seconds.

    The derivative at 1 of the generating function of `_in_system` gives the mean number waiting,
    and Little's law the wait. For c = 1 it is rho / (2 (1 - rho)) x service_s (Pollaczek-Khinchine).
    """
    spread = (workers - 1 - workers * utilisation**2) / (2 * (1 - utilisation))
    waiting = float(np.sum(1 / (1 - _roots(workers, utilisation))).real) - spread
    return max(0.0, waiting) * service_s / (workers * utilisation)


@checked
def mdc_wait_cdf(wait_s: float, workers: Count, utilisation: Utilisation, service_s: Positive = 1.0) -> float:
    """Return the exact probability that a request waits at most `wait_s` in M/D/c.

    With the service time as the unit, x in [k-1, k), u = c rho (k - x) and N the number in the system,
    P(W <= x) = sum over j < kc of P(N <= c + kc - 1 - j) e^-u u^j / j!. Source: Franx, A simple
    solution for the M/D/c waiting time distribution, Operations Research Letters 29 (2001).
    """
    if wait_s < 0:
        return 0.0
    wait = wait_s / service_s
    k = math.floor(wait) + 1
    arrivals = workers * utilisation * (k - wait)
    j = np.arange(k * workers)
    at_most = _in_system(workers, utilisation)
    others = np.minimum(workers + k * workers - 1 - j, len(at_most) - 1)
    probability = at_most[others] @ np.exp(xlogy(j, arrivals) - arrivals - gammaln(j + 1))
    return min(1.0, float(probability))


@checked
def mdc_wait_quantile(quantile: Quantile, workers: Count, utilisation: Utilisation) -> float:
    """Return the exact quantile of the wait in M/D/c, in service times; one in 100 exceeds the p99."""
    from scipy.optimize import brentq  # takes a moment to import

    def excess(wait: float) -> float:
        return mdc_wait_cdf(wait, workers, utilisation) - quantile

    if excess(0) >= 0:
        return 0.0
    enough = next(x for x in (2.0**power for power in itertools.count()) if excess(x) >= 0)
    return float(brentq(excess, 0, enough, xtol=1e-12))


def _roots(workers: int, utilisation: float) -> NDArray[np.complex128]:
    """Return the c - 1 roots of z^c = e^(c rho (z-1)) inside the unit circle; the c-th is 1.

    Taking c-th roots gives z = w e^(rho (z-1)) for each c-th root of unity w; Lambert's W solves that.
    """
    unity = np.exp(2j * np.pi * np.arange(1, workers) / workers)
    return np.asarray(-lambertw(-utilisation * np.exp(-utilisation) * unity) / utilisation)


@lru_cache(maxsize=256)
def _in_system(workers: int, utilisation: float) -> NDArray[np.float64]:
    """Return P(N <= n) for n = 0, 1, ... until it is 1 in double precision, N the number in the system.

    One service time later, all that were in service are gone: N' = max(N - c, 0) + Poisson(c rho) (Crommelin,
    1932). Its stationary generating function, with A(z) = e^(c rho (z-1)) and the roots z_k of `_roots`, is
    c (1 - rho) (z-1) A(z) / (z^c - A(z)) x product of (z - z_k) / (1 - z_k); a Fourier transform inverts it.
    """
    size = 1 << (workers + _longest_queue(utilisation)).bit_length()
    z = np.exp(-2j * np.pi * np.arange(1, size // 2 + 1) / size)
    arrivals = np.exp(workers * utilisation * (z - 1))
    transform = workers * (1 - utilisation) * (z - 1) * arrivals / (z**workers - arrivals)
    for root in _roots(workers, utilisation):
        transform *= (z - root) / (1 - root)
    at_most = np.cumsum(np.fft.irfft(np.concatenate(([1], transform)), size))
    at_most.flags.writeable = False
    return at_most


def _longest_queue(utilisation: float) -> int:
    """Return m such that more than m waiting is negligible: P(N >= c + m) <= t^-m, Kingman's bound.

    Here t > 1 solves t = e^(rho (t-1)).
    """
    growth = -lambertw(-utilisation * np.exp(-utilisation), -1).real / utilisation
    return math.ceil(-math.log(_NEGLIGIBLE) / math.log(growth)) + 1


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
