"""How many workers and machines a rate needs so that latency stays within a limit, and what they cost.

Requests arrive at random (Poisson). Each occupies one worker for its service time; its latency is its wait
and its service. Every worker has a CPU of its own. Service times of nearly one length have exact waits
(M/D/c); others are drawn from the sample, and simulated.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from annotated_types import Le
from numpy.typing import NDArray
from pydantic import Field, PlainValidator
from scipy.special import gammainc, lambertw

from lab.checks import A_DAY_S, Count, Positive, Seconds, checked
from lab.models.queueing import mdc_wait_cdf
from lab.models.simulation import Dispatch, latencies

NEARLY_CONSTANT = 0.1
"""Service times count as one length up to this coefficient of variation.

Mean waits grow with 1 + its square: here by 1 %.
"""

MOST_SIMULATED = 64
"""With more workers, a simulated queue is taken to be no better than with so many: a safe error."""

_MOST_COMPUTED, _MOST_TERMS = 1000, 20_000
"""Workers, and terms of the law, up to which the wait in M/D/c is computed; beyond, it is bounded."""

_EXACT_ALIKE = ("central", "round-robin", "shortest")
"""With service of one length these are the same queue: it ends in the order in which it began."""

_HIGHEST, _HIGHEST_SIMULATED = 0.9999, 0.97
"""Nearer to 1, a queue takes too long to settle: for any use of it, or for a simulation."""

_TOLERANCE, _TOLERANCE_SIMULATED = 1e-6, 1e-3
_REQUESTS, _IN_TAIL = 300_000, 100
"""Simulated requests: so many, or as many as leave some beyond the quantile."""

_LENGTHS = 20
"""Service times of nearly one length are represented by so many quantiles of them."""

_SEED = 20_261_128
_MOST_RPS = 1e12

MOST_WORKERS = 10**9
"""On one queue: more would be a slip."""

Quantile = Annotated[float, Field(gt=0, le=0.9999)]
Headroom = Annotated[float, Field(ge=0, le=10)]
Rate = Annotated[Positive, Le(_MOST_RPS)]
Workers = Annotated[Count, Le(MOST_WORKERS)]


def service_times(values: Any) -> NDArray[np.float64]:
    """Return a sample of service times, in seconds, as an array.

    Raises ValueError unless there is at least one, and all are finite, above 0 and within a day.
    """
    try:
        times_s = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("give a list of numbers, in seconds") from None
    if times_s.ndim != 1 or not len(times_s):
        raise ValueError("give at least one service time, in seconds")
    wrongs = {"finite": ~np.isfinite(times_s), "above 0": times_s <= 0, "within a day": times_s > A_DAY_S}
    for what, wrong in wrongs.items():
        if count := np.count_nonzero(wrong):
            raise ValueError(f"{count:,} of {len(times_s):,} times are not {what}: leave them out")
    return times_s


ServiceTimes = Annotated[Sequence[float] | NDArray[np.float64], PlainValidator(service_times)]
"""How long requests occupy a worker, in seconds: a sample of at least one."""


@checked
def is_exact(service_s: ServiceTimes, dispatch: Dispatch) -> bool:
    """Return whether there is a formula for the waits, with service times of nearly one length (M/D/c).

    Else they are simulated.
    """
    times_s = np.asarray(service_s)
    nearly_constant = bool(times_s.std() <= NEARLY_CONSTANT * times_s.mean())
    return nearly_constant and dispatch in (*_EXACT_ALIKE, "random")


@checked
def highest_utilisation(
    workers: Workers,
    service_s: ServiceTimes,
    *,
    slo_quantile: Quantile = 0.99,
    slo_s: Seconds,
    dispatch: Dispatch = "central",
) -> float:
    """Return the highest utilisation at which this quantile of latency is at most `slo_s`.

    0 if there is none: the service times alone are longer. Beyond `MOST_SIMULATED` workers, simulated queues
    count as with so many.
    """
    return _Case(np.asarray(service_s), slo_quantile, slo_s, dispatch).highest(workers)


@dataclass(frozen=True)
class Needed:
    """How many workers a rate needs: None if no number is enough, and then `why`.

    `erlangs` is rate x mean service time, without headroom: the workers that are busy on average.
    """

    workers: int | None
    erlangs: float
    why: str = ""

    @property
    def utilisation(self) -> float:
        """The share of time that the workers are busy; nan if no number is enough."""
        return self.erlangs / self.workers if self.workers else math.nan


@checked
def workers_needed(
    rate_rps: Rate,
    service_s: ServiceTimes,
    *,
    slo_quantile: Quantile = 0.99,
    slo_s: Seconds,
    dispatch: Dispatch = "central",
    headroom: Headroom = 0.0,
) -> Needed:
    """Return the fewest workers that keep this quantile of latency within `slo_s`.

    They do so even if the rate grows by `headroom`, a share of it.
    """
    case = _Case(np.asarray(service_s), slo_quantile, slo_s, dispatch)
    erlangs = rate_rps * case.mean_s
    workers = _fewest(case, erlangs * (1 + headroom)) if case.is_possible else None
    return Needed(workers, erlangs, "" if workers else case.why_impossible)


@dataclass(frozen=True)
class Machines:
    """How many machines a rate needs: None if no number is enough, and then `why`.

    `workers` are those of all machines; `utilisation` is theirs at the rate, without headroom.
    """

    machines: int | None
    workers: int
    utilisation: float
    why: str = ""


@checked
def machines_needed(
    rate_rps: Rate,
    cpus_per_machine: Workers,
    service_s: ServiceTimes,
    *,
    slo_quantile: Quantile = 0.99,
    slo_s: Seconds,
    dispatch: Dispatch = "central",
    headroom: Headroom = 0.0,
) -> Machines:
    """Return the fewest machines, with a worker on each CPU, behind a balancer that chooses one at random.

    Poisson arrivals that are split at random stay Poisson arrivals: each machine is a queue by itself.
    `dispatch` is within a machine. What the balancer takes is not counted.
    """
    case = _Case(np.asarray(service_s), slo_quantile, slo_s, dispatch)
    erlangs = rate_rps * case.mean_s
    if not (highest := case.highest(cpus_per_machine)):
        return Machines(None, 0, math.nan, case.why_impossible)
    machines = _at_least(erlangs * (1 + headroom), highest * cpus_per_machine)
    workers = machines * cpus_per_machine
    return Machines(machines, workers, erlangs / workers)


@checked
def cost_per_million(
    rate_rps: Rate, cores: Count, price_per_core_hour: Annotated[float, Field(ge=0)]
) -> float:
    """Return what a million requests cost, in the price's currency, if `cores` are paid for all the time.

    A price of 0 is allowed, and gives 0: whoever owns the machines may have none.
    """
    return 1e6 * cores * price_per_core_hour / (3600 * rate_rps)


def _at_least(amount: float, each: float) -> int:
    """Return how many of `each` make the amount; 3.0000000001 are 3, as rates are seldom exact in binary."""
    return max(1, math.ceil(amount / each * (1 - 1e-12)))


@dataclass(frozen=True, eq=False)
class _Case:
    """What is asked of a queue: which quantile of latency may be how long, for which service times."""

    service_s: NDArray[np.float64]
    slo_quantile: float
    slo_s: float
    dispatch: Dispatch

    @cached_property
    def mean_s(self) -> float:
        return float(self.service_s.mean())

    @cached_property
    def is_exact(self) -> bool:
        return is_exact(self.service_s, self.dispatch)

    @cached_property
    def is_possible(self) -> bool:
        """Whether enough requests are in time if none ever waits."""
        return self.alone > self.slo_quantile

    @cached_property
    def alone(self) -> float:
        """The share of requests that are in time if none ever waits."""
        return float(np.mean(self.service_s <= self.slo_s * (1 + 1e-12)))

    @property
    def why_impossible(self) -> str:
        alone_s = float(np.quantile(self.service_s, self.slo_quantile))
        what = f"the {100 * self.slo_quantile:g}th percentile of the service times alone"
        then = (
            "and no more may be late: no request may wait"
            if self.alone >= self.slo_quantile
            else f"and {self.slo_s:.3g} s are allowed"
        )
        return f"{what} is {alone_s:.3g} s, {then}"

    @property
    def most(self) -> float:
        """The highest utilisation that is looked at."""
        return _HIGHEST if self.is_exact else _HIGHEST_SIMULATED

    @cached_property
    def waits(self) -> NDArray[np.float64]:
        """How long requests may wait, in mean service times, for service times of nearly one length."""
        shares = (np.arange(_LENGTHS) + 0.5) / _LENGTHS
        lengths_s = np.quantile(self.service_s, shares) if np.ptp(self.service_s) else self.service_s[:1]
        return np.round((self.slo_s - lengths_s) / self.mean_s, 9)

    @cached_property
    def seldom(self) -> float:
        """What to multiply by for the few that are too long by themselves, beyond those that `waits` has."""
        of_lengths = float(np.mean(self.waits >= 0))
        return min(1.0, self.alone / of_lengths) if of_lengths else 1.0

    @cached_property
    def most_computed(self) -> int:
        """The most workers for which the queue is computed, or simulated; 0 if even one takes too long."""
        if not self.is_exact:
            return MOST_SIMULATED
        return min(_MOST_COMPUTED, int(_MOST_TERMS / (1 + max(0.0, float(self.waits.max())))))

    def within(self, workers: int, utilisation: float) -> float:
        """Return the share of requests that are answered in time."""
        sharing = 1 if self.dispatch == "random" else workers  # by chance, each is a queue by itself
        if not self.is_exact:
            return self._simulated(min(sharing, MOST_SIMULATED), utilisation)
        if sharing > self.most_computed:
            return self.seldom * float(_least_share_waiting(self.waits, sharing, utilisation).mean())
        in_time = [mdc_wait_cdf(float(wait), sharing, utilisation) for wait in self.waits]
        return self.seldom * float(np.mean(in_time))

    def is_enough(self, workers: int, erlangs: float) -> bool:
        """Say whether so many workers are in time with this load."""
        utilisation = erlangs / workers
        return utilisation <= self.most and self.within(workers, utilisation) >= self.slo_quantile

    def highest(self, workers: int) -> float:
        """Return the highest utilisation that is in time, rounded down to the tolerance; 0 if none is."""
        if not self.is_possible:
            return 0.0
        low, high = 0.0, self.most  # near the highest, queues are long, and take long: only if need be
        while high - low > (_TOLERANCE if self.is_exact else _TOLERANCE_SIMULATED):
            middle = (low + high) / 2
            in_time = self.within(workers, middle) >= self.slo_quantile
            low, high = (middle, high) if in_time else (low, middle)
        return low

    @cached_property
    def _drawn(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Gaps and service times to simulate, both with a mean of 1."""
        random = np.random.default_rng(_SEED)
        count = max(_REQUESTS, math.ceil(_IN_TAIL / (1 - self.slo_quantile)))
        gaps, works = random.exponential(size=count), random.choice(self.service_s, count)
        return gaps / gaps.mean(), works / works.mean()

    def _simulated(self, workers: int, utilisation: float) -> float:
        gaps, works = self._drawn
        due = np.cumsum(gaps) / (workers * utilisation)
        took = latencies(due, works, workers, self.dispatch, seed=_SEED)
        settled = took[len(took) // 10 :]  # it begins with an empty queue
        return float(np.mean(settled <= self.slo_s / self.mean_s))


def _fewest(case: _Case, erlangs: float) -> int | None:
    """Return the fewest workers that are enough, by bisection, or None if no number is."""
    if case.dispatch == "random":
        highest = case.highest(1)
        return _at_least(erlangs, highest) if highest else None

    def enough(workers: int) -> bool:
        return case.is_enough(workers, erlangs)

    least, known = _at_least(erlangs, case.most), case.most_computed
    if least <= known and enough(known):
        return least + bisect_left(range(least, known + 1), True, key=enough)
    if not case.is_exact:
        highest = case.highest(known)
        return max(known + 1, _at_least(erlangs, highest)) if highest else None
    more = range(max(least, known + 1), 10 * max(least, known + 1) + 1)
    return more[bisect_left(more, True, key=enough)] if enough(more[-1]) else None


def _least_share_waiting(waits: NDArray[np.float64], workers: int, utilisation: float) -> NDArray[np.float64]:
    """Return a lower bound of P(W <= x) in M/D/c for each x in `waits`, in service times; close for large c.

    A worker that takes turns is a queue by itself, where a request comes after every c arrivals (E_c/D/1).
    So P(W > x) <= e^(-c x y) with 1 + y / rho = e^y (Kingman, 1970), and by Spitzer's identity
    P(W = 0) = exp(-sum over n >= 1 of P(Poisson(n c rho) >= n c) / n).
    """
    decay = -utilisation - lambertw(-utilisation * math.exp(-utilisation), -1).real
    some = -np.expm1(-workers * decay * np.maximum(waits, 0))
    return np.where(waits < 0, 0.0, np.maximum(some, _share_served_at_once(workers, utilisation)))


def _share_served_at_once(workers: int, utilisation: float) -> float:
    """Return P(W = 0) in M/D/c; 0 where it is small, and takes many terms."""
    spread = workers * (utilisation - 1 - math.log(utilisation))  # a term is below e^(-n spread) / n
    if spread < 1e-3:
        return 0.0
    n = np.arange(1, math.ceil(37 / spread) + 1)
    return math.exp(-float(np.sum(gammainc(n * workers, n * workers * utilisation) / n)))
