"""How throughput grows with workers: speed-up over one worker, and the laws of Amdahl and Gunther."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from lab.checks import Count, Positive, checked
from lab.errors import UsageError
from lab.models.statistics import Estimate, estimate, paired_ratio


@dataclass(frozen=True)
class Point:
    """One number of workers: throughput, speed-up over one worker of the same block, speed-up per worker."""

    workers: int
    throughput_rps: Estimate
    speedup: Estimate
    efficiency: Estimate


@checked
def speedups(
    workers: Sequence[Count], blocks: Sequence[Hashable], throughput_rps: Sequence[float]
) -> list[Point]:
    """Return a point for each number of workers, ascending; item i of the three lists is one trial.

    The first point is one worker: its throughput is the base, to be stated beside every speed-up. Values are
    medians over blocks. A block without a trial of one worker has no base, and is left out.
    Raises UsageError if a block has two trials of the same number of workers, or none has a base above zero.
    """
    trials = dict(zip(zip(workers, blocks, strict=True), throughput_rps, strict=True))
    if len(trials) != len(workers):
        raise UsageError("a block has two trials of the same number of workers: give only the best")
    base = {block: rate for (n, block), rate in trials.items() if n == 1}
    if not base:
        raise UsageError("speed-up is relative to one worker: add 1 to the numbers of workers")
    return [_point(n, trials, base) for n in sorted({n for n, block in trials if block in base})]


def _point(n: int, trials: Mapping[tuple[int, Hashable], float], base: Mapping[Hashable, float]) -> Point:
    blocks = [block for block in base if (n, block) in trials]
    rates = [trials[n, block] for block in blocks]
    ones = [base[block] for block in blocks]
    ideal = [n * one for one in ones]
    return Point(n, estimate(rates), paired_ratio(rates, ones), paired_ratio(rates, ideal))


@dataclass(frozen=True)
class ScalingLaw:
    """X(N) = g N / (1 + a (N-1) + b N (N-1)): Gunther's universal scalability law, Amdahl's when b = 0.

    g is the throughput of one worker in requests per second, a the contention, b the cost of coherency.
    Source: Gunther, Guerrilla Capacity Planning (2007), chapter 4.
    """

    one_worker_rps: float
    contention: float
    coherency: float

    def throughput_rps(self, workers: ArrayLike) -> NDArray[np.float64]:
        """Return the throughput that the law gives for each number of workers, in requests per second."""
        return _law(
            np.asarray(workers, dtype=np.float64), self.one_worker_rps, self.contention, self.coherency
        )


@checked
def fit_law(workers: Sequence[Positive], throughput_rps: Sequence[Positive], *, cpus: Positive) -> ScalingLaw:
    """Fit Gunther's law by least squares with 0 <= a <= 1 and b >= 0.

    Use only up to `cpus` workers: beyond, they share CPUs, and the curve has a kink unknown to the law.
    For an interval, fit each block by itself: normal theory is wrong at a bound.
    Raises UsageError if fewer than three numbers of workers are left: the law has three constants.
    """
    from scipy.optimize import curve_fit, nnls  # takes a moment to import

    n, rates = np.asarray(workers, dtype=np.float64), np.asarray(throughput_rps, dtype=np.float64)
    n, rates = n[n <= cpus], rates[n <= cpus]
    if (counts := len(np.unique(n))) < 3:
        raise UsageError(
            f"a law of three constants needs three numbers of workers up to {cpus:g} CPUs, "
            f"got {counts}: for two, draw the envelope"
        )
    best = float((rates / n).max())
    guess = nnls(_burdens(n), best * n / rates - 1)[0].clip(max=1)
    found, _ = curve_fit(_law, n, rates, [best, *guess], bounds=(0, [np.inf, 1, np.inf]), x_scale="jac")
    return ScalingLaw(*map(float, found))


@checked
def envelope(
    one_worker_rps: Positive, many_workers_rps: Positive, workers: Annotated[int, Field(ge=2)] = 2
) -> tuple[ScalingLaw, ScalingLaw]:
    """Return the two extremes of Gunther's laws that go through one worker and `workers` = n workers.

    Two throughputs of ratio r give only a + b n = (n/r - 1) / (n-1); for two workers, a + 2b = 2/r - 1.
    The first law has b = 0 (or a = 1, if that is not enough), the second a = 0. Those between fit equally
    well, so no peak is known. More than n-fold throughput counts as n-fold, the ideal line.
    """
    lost = max(0.0, (workers * one_worker_rps / many_workers_rps - 1) / (workers - 1))
    contention = min(1.0, lost)
    return (
        ScalingLaw(one_worker_rps, contention, (lost - contention) / workers),
        ScalingLaw(one_worker_rps, 0.0, lost / workers),
    )


def _law(n: NDArray[np.float64], g: float, a: float, b: float) -> NDArray[np.float64]:
    return np.asarray(g * n / (1 + _burdens(n) @ np.array([a, b])))


def _burdens(n: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([n - 1, n * (n - 1)], axis=-1)
