"""How long requests that arrive at random (Poisson) wait, in closed form.

Workers share a queue, or do not. `workers` is c, and `utilisation` is rho = arrival rate x mean service
time / workers, below 1. With constant service time (M/D/c), the same functions cover three arrangements:

- one central queue: M/D/c with `workers` = c;
- round robin: the same. Service of constant length ends in the order it began, so the next worker in
  turn is always the next one free: waits are equal, request by request;
- requests split by hash or by chance: c queues, each M/D/1. Use `workers` = 1 at the same utilisation.

With exponential service time (M/M/c), the first and the last of these hold too. Two more have only a mean
here: the shorter of two queues, and a processor that all requests share.
"""

import itertools
import math
from functools import lru_cache
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import gammaln, lambertw, pdtr, xlogy

from lab.checks import Count, Positive, checked

_NEGLIGIBLE = 1e-16
_HIGHEST_UTILISATION = 0.9999

Utilisation = Annotated[float, Field(gt=0, le=_HIGHEST_UTILISATION)]
"""At 1, the queue never settles (`lab.models.overload` says how it grows); near 1, it settles too late."""

Quantile = Annotated[float, Field(gt=0, le=0.999999)]

Wait = Annotated[float, Field(allow_inf_nan=False)]


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
def mdc_wait_cdf(wait_s: Wait, workers: Count, utilisation: Utilisation, service_s: Positive = 1.0) -> float:
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


@checked
def mmc_wait_probability(workers: Count, utilisation: Utilisation) -> float:
    """Return the probability that a request waits at all in M/M/c: Erlang's formula C.

    With B the share that would be lost if none could wait (formula B: the Poisson law of mean c rho at c
    over its sum up to c), it is B / (1 - rho (1 - B)). Sound for 100,000 workers and more.
    """
    erlangs = workers * utilisation
    law = math.exp(workers * math.log(erlangs) - erlangs - math.lgamma(workers + 1))
    lost = law / float(pdtr(workers, erlangs))
    return lost / (1 - utilisation * (1 - lost))


@checked
def mmc_mean_wait(workers: Count, utilisation: Utilisation, service_s: Positive = 1.0) -> float:
    """Return the exact mean wait in M/M/c, in seconds: those who wait do so for service_s / (c (1 - rho))."""
    return mmc_wait_probability(workers, utilisation) * service_s / (workers * (1 - utilisation))


@checked
def mmc_wait_cdf(wait_s: Wait, workers: Count, utilisation: Utilisation, service_s: Positive = 1.0) -> float:
    """Return the exact probability that a request waits at most `wait_s` in M/M/c.

    The wait of those who wait is exponential: 1 - C e^(-c (1 - rho) wait_s / service_s).
    """
    if wait_s < 0:
        return 0.0
    decay = math.exp(-workers * (1 - utilisation) * wait_s / service_s)
    return 1 - mmc_wait_probability(workers, utilisation) * decay


@checked
def mmc_wait_quantile(quantile: Quantile, workers: Count, utilisation: Utilisation) -> float:
    """Return the exact quantile of the wait in M/M/c, in mean service times."""
    exceeded = mmc_wait_probability(workers, utilisation) / (1 - quantile)
    return math.log(max(1.0, exceeded)) / (workers * (1 - utilisation))


@checked
def two_choices_mean_latency(utilisation: Utilisation, service_s: Positive = 1.0) -> float:
    """Return the mean latency, in seconds, if each request joins the shorter of two queues drawn by chance.

    Exact for exponential service as the number of workers grows: the sum over i >= 1 of rho^(2^i - 2), in
    service times. Source: Mitzenmacher, The power of two choices, IEEE TPDS 12 (2001).
    """
    return service_s * math.fsum(utilisation ** (2.0**i - 2) for i in range(1, 64))


@checked
def ps_mean_latency(utilisation: Utilisation, service_s: Positive = 1.0) -> float:
    """Return the mean latency on one processor that all requests share, in seconds (M/G/1-PS): S / (1 - rho).

    It depends on the mean service time S only, not on its law.
    """
    return service_s / (1 - utilisation)


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
