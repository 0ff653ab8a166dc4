"""From trials to a number, and how far to trust it: quantiles, intervals over blocks, paired ratios.

The trial is the unit: its requests depend on each other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PlainValidator

from lab.checks import checked
from lab.errors import UsageError

QUANTILE_METHOD: Literal["linear"] = "linear"
"""numpy's name for the quantile method, stated wherever a quantile is printed."""

CONFIDENCE = 0.95

BETWEEN_RUNS = 0.02
"""How far off a number of the same machine was an hour later, beyond the scatter of its blocks, as a share.

It is twice the standard deviation of that part, over three `quick` runs of one machine within three hours.
`benchmarks/agreement.py` checks it on any two.
"""

Share = Annotated[float, Field(gt=0, lt=1)]


def _numbers(values: Any) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"must be a list of at least one number, but its shape is {numbers.shape}")
    if missing := np.count_nonzero(~np.isfinite(numbers)):
        raise ValueError(f"{missing} of {len(numbers)} values are not finite: leave them out")
    return numbers


Numbers = Annotated[Sequence[float] | NDArray[np.float64], PlainValidator(_numbers)]
"""A list of finite numbers, at least one."""


class Interval(StrEnum):
    """What `low` to `high` of an estimate is: an interval of `CONFIDENCE`, or less than one."""

    MEDIAN = "order statistics of the median"
    PROPORTION = "Clopper-Pearson"
    SEARCH = "bounds of a search"
    CROSSING = "bootstrap over trials"
    RANGE = "range, too few for an interval"
    EXTREMES = "the least and the most"
    FLAGGED = "most trials flagged: no interval"

    @property
    def covers(self) -> bool:
        """Whether it promises to hold the true value with `CONFIDENCE`."""
        return self in (Interval.MEDIAN, Interval.PROPORTION, Interval.CROSSING)


@dataclass(frozen=True)
class Estimate:
    """A number from `trials` independent ones; `low` to `high` is how far off it may be, as `interval` says.

    The ends of a range are the lowest and the highest of the numbers, which are too few for an interval.
    """

    value: float
    low: float
    high: float
    trials: int
    interval: Interval = Interval.RANGE

    @property
    def is_interval(self) -> bool:
        """Whether there were enough trials for an interval of `CONFIDENCE`."""
        return self.interval.covers

    @property
    def smallest_told(self) -> float | None:
        """The smallest difference from 1 that a ratio of this scatter would have shown, as a share.

        A true ratio nearer to 1 would have left 1 inside the interval. None without an interval, or if the
        interval reaches down to 0.
        """
        if not self.is_interval or self.low <= 0:
            return None
        return max(self.value / self.low, self.high / self.value) - 1


@checked
def quantile(values: Numbers, share: Annotated[float, Field(ge=0, le=1)]) -> float:
    """Return the value that this share of the values does not exceed, by `QUANTILE_METHOD`."""
    return float(np.quantile(values, share, method=QUANTILE_METHOD))


@checked
def estimate(
    values: Numbers,
    between_runs: Annotated[float, Field(ge=0)] = BETWEEN_RUNS,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Summarise a number per trial by its median, which one odd trial does not move.

    The interval runs from the k-th lowest to the k-th highest number, with the largest k that covers the
    median of any distribution with `CONFIDENCE` (David & Nagaraja, Order Statistics, 7.1): of 6 to 8 numbers
    it is the range, of 9 to 11 the second lowest to the second highest. Each side is then longer by what the
    blocks of one sitting cannot show: `between_runs`, in quadrature, as a share (JCGM 100, 5.1.2 and 4.3; 0
    for what is simulated), but not beyond `within`, where the number can lie. A side without scatter stays.
    """
    ordered = np.sort(values)
    rank, middle = max(1, _rank(len(ordered))), float(np.median(ordered))
    low, high = float(ordered[rank - 1]), float(ordered[-rank])
    if len(ordered) < fewest_trials():
        return Estimate(middle, low, high, len(ordered), Interval.RANGE)
    low, high = (_further(end, middle, between_runs) for end in (low, high))
    least, most = min(within[0], middle), max(within[1], middle)  # by rounding, 1 may be 1 - 1e-16
    return Estimate(middle, max(low, least), min(high, most), len(ordered), Interval.MEDIAN)


def _further(end: float, middle: float, share: float) -> float:
    """Return an end as far off, in logarithms, as both its distance and this share; as it is beyond 0."""
    if not share or end == middle or end * middle <= 0:
        return end
    distance = math.log(end / middle)
    return middle * math.exp(math.copysign(math.hypot(distance, math.log1p(share)), distance))


def _rank(trials: int) -> int:
    """Return the largest k for which k or more of the trials are likely on each side of the median, or 0."""
    rank, tail = 0, 0.5**trials
    while 1 - 2 * tail >= CONFIDENCE:
        rank += 1
        tail += math.comb(trials, rank) * 0.5**trials
    return rank


@checked
def paired_ratio(
    numerators: Numbers, denominators: Numbers, between_runs: Annotated[float, Field(ge=0)] = BETWEEN_RUNS
) -> Estimate:
    """Return the median of the ratios of two conditions, each ratio taken within a block, by `estimate`.

    Item i of both belongs to block i, so whatever disturbed a whole block cancels out.
    """
    over, under = np.asarray(numerators), np.asarray(denominators)
    if len(over) != len(under):
        raise UsageError(f"pairs need as many values on both sides, got {len(over)} and {len(under)}")
    if under.min() <= 0:
        raise UsageError("a ratio needs a denominator above 0 in every block: leave the others out")
    return estimate(over / under, between_runs)


@checked
def proportion(part: Annotated[int, Field(ge=0)], whole: Annotated[int, Field(ge=1)]) -> Estimate:
    """Return the share of `whole` independent events of which `part` went one way.

    The interval holds the true share with at least `CONFIDENCE`, however few they are (Clopper & Pearson,
    Biometrika 26, 1934). Requests of one event are not independent: count the events.
    """
    from scipy.special import betaincinv  # takes a moment to import

    if part > whole:
        raise UsageError(f"a part is at most the whole, got {part} of {whole}")
    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(part, whole - part + 1, tail)) if part else 0.0
    high = float(betaincinv(part + 1, whole - part, 1 - tail)) if part < whole else 1.0
    return Estimate(part / whole, low, high, whole, Interval.PROPORTION)


_FEWEST_TO_CROSS = 8
_RESAMPLES = 1000
_STEPS = 400


@checked
def crossing(xs: Numbers, ys: Numbers, level: Annotated[float, Field(gt=0)]) -> Estimate | None:
    """Return the x at which a quantity above 0 that grows with x reaches a level, from trials at many x.

    The trend is the parabola of log y on x of least squares, looked at between the lowest and the highest x;
    the interval is of the percentile bootstrap over trials (Efron and Tibshirani, 1993, chapter 13). None if
    there are fewer than 8 trials, or if the trend does not rise through the level.
    """
    x, y = np.asarray(xs, float), np.log(np.asarray(ys, float) / level)
    if len(x) < _FEWEST_TO_CROSS or len(np.unique(x)) < 3:
        return None
    whole = np.ones((1, len(x)))
    middle = _rises_through_0(x, y, whole)
    if np.isnan(middle[0]):
        return None
    random = np.random.default_rng(len(x))
    drawn = random.multinomial(len(x), np.full(len(x), 1 / len(x)), size=_RESAMPLES)
    tail = (1 - CONFIDENCE) / 2
    ends = np.nanquantile(np.append(_rises_through_0(x, y, drawn), middle), [tail, 1 - tail])
    low, high = min(ends[0], middle[0]), max(ends[1], middle[0])
    return Estimate(float(middle[0]), float(low), float(high), len(x), Interval.CROSSING)


def _rises_through_0(
    x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[Any]
) -> NDArray[np.float64]:
    """Return where the parabola of y on x rises through 0, for each row of weights; nan where it does not."""
    middle = x.mean()
    powers = np.vander(x - middle, 3)
    squares = np.einsum("sn,ni,nj->sij", weights, powers, powers)
    products = np.einsum("sn,n,ni->si", weights, y, powers)
    steps = np.linspace(x.min(), x.max(), _STEPS)
    fitted = np.linalg.pinv(squares, hermitian=True) @ products[:, :, None]
    trend = fitted[:, :, 0] @ np.vander(steps - middle, 3).T
    rises = (trend[:, :-1] < 0) & (trend[:, 1:] >= 0)
    last = rises.shape[1] - np.argmax(rises[:, ::-1], axis=1)
    return np.where(rises.any(axis=1), steps[last], np.nan)


@checked
def fewest_trials(confidence: Share = CONFIDENCE) -> int:
    """Return the fewest trials that an interval of a median needs: 6 for 95 %.

    Even the range from the lowest to the highest of n covers the median only with probability 1 - 2^(1-n).
    Below this number, no interval made of the trials themselves can keep its promise.
    """
    return math.ceil(1 - math.log2(1 - confidence))


@checked
def samples_needed(share: Share, confidence: Share = CONFIDENCE) -> int:
    """Return how many independent samples an upper bound of this quantile needs: 299 for p99 at 95 %.

    It is the smallest n with 1 - share^n >= confidence: the highest sample is then a bound (Wilks, 1941).
    """
    return math.ceil(math.log(1 - confidence) / math.log(share))


@checked
def pairing_gain(numerators: Numbers, denominators: Numbers) -> float:
    """Return how many times the blocks an unpaired comparison would need, to tell as much as these pairs.

    It is the sum of both variances over the variance of the differences, all of logarithms, as `paired_ratio`
    compares ratios: 1 if blocks have nothing in common, nan if nothing varies.
    """
    over, under = np.log(numerators), np.log(denominators)
    paired = float(np.var(over - under))
    return float(np.var(over) + np.var(under)) / paired if paired else math.nan


@checked
def busiest_by_chance(
    sizes: Numbers, workers: Annotated[int, Field(ge=1)], draws: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Return the busiest worker's share if fair coins dealt out the connections: one per draw.

    `sizes` is how many requests each connection carries; they all go to the worker that has it.
    """
    random = np.random.default_rng(seed)
    alike = zip(*np.unique(np.asarray(sizes), return_counts=True), strict=True)
    dealt = sum(size * random.multinomial(many, [1 / workers] * workers, draws) for size, many in alike)
    return np.asarray(np.max(dealt, axis=1) / np.sum(sizes))
