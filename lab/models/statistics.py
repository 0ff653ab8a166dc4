"""From trials to a number and how far to trust it: quantiles, intervals over blocks, paired ratios.

The trial is the unit: requests within one depend on each other, so only whole trials are resampled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lab.errors import UsageError
from lab.models import checks

QUANTILE_METHOD: Literal["linear"] = "linear"
"""numpy's name of the quantile method; it stands wherever a quantile is printed."""

CONFIDENCE = 0.95

_RESAMPLES = 9999


@dataclass(frozen=True)
class Estimate:
    """The median of n trials and its interval, which is None when the trials are too few for one."""

    value: float
    interval: tuple[float, float] | None
    trials: int
    confidence: float

    @property
    def low(self) -> float:
        """The interval's lower end; nan without one, which figures draw as nothing."""
        return self.interval[0] if self.interval else math.nan

    @property
    def high(self) -> float:
        """The interval's upper end; nan without one."""
        return self.interval[1] if self.interval else math.nan


def quantile(values: Sequence[float] | NDArray[np.float64], share: float) -> float:
    """Return the value that this share of the values does not exceed, in their unit, by `QUANTILE_METHOD`."""
    if not 0 <= share <= 1:
        raise UsageError(f"a quantile is between 0 and 1, not {share!r}: p99 is 0.99")
    return float(np.quantile(_numbers(values), share, method=QUANTILE_METHOD))


def estimate(
    trials: Sequence[float] | NDArray[np.float64],
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Summarise a number per trial by its median, which one odd trial does not move.

    The interval is the percentile bootstrap's over trials, with this seed (Efron & Tibshirani, chapter 13),
    widened to hold the median where its rounding left that out. Below `fewest_trials` there is no interval.
    Raises UsageError if a value is missing: leave such trials out and say how many they were.
    """
    checks.share(confidence=confidence)
    values = _numbers(trials)
    median, interval = float(np.median(values)), None
    if len(values) >= fewest_trials(confidence):
        ends = stats.bootstrap(
            (values,), np.median, n_resamples=_RESAMPLES, confidence_level=confidence,
            method="percentile", rng=np.random.default_rng(seed),
        ).confidence_interval  # fmt: skip
        interval = min(float(ends.low), median), max(float(ends.high), median)
    return Estimate(median, interval, len(values), confidence)


def paired_ratio(
    numerators: Sequence[float] | NDArray[np.float64],
    denominators: Sequence[float] | NDArray[np.float64],
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Return the median of the ratios of two conditions, each ratio taken within a block, by `estimate`.

    Place i of both belongs to block i, so that what disturbed a whole block cancels.
    """
    over, under = _numbers(numerators), _numbers(denominators)
    if len(over) != len(under):
        raise UsageError(f"pairs need as many values on both sides, not {len(over)} and {len(under)}")
    if under.min() <= 0:
        raise UsageError("a ratio needs a denominator above zero in every block: leave the others out")
    return estimate(over / under, confidence, seed)


def fewest_trials(confidence: float = CONFIDENCE) -> int:
    """Return how many trials an interval of a median needs at least: 6 for 95 %.

    Even from the lowest to the highest of n it covers the median with probability 1 - 2^(1-n) only: below
    this number no interval made of the trials themselves can keep what it promises.
    """
    checks.share(confidence=confidence)
    return math.ceil(1 - math.log2(1 - confidence))


def samples_needed(share: float, confidence: float = CONFIDENCE) -> int:
    """Return how many independent samples an upper bound of this quantile needs: 299 for p99 at 95 %.

    The smallest n with 1 - share^n >= confidence: then the highest sample is such a bound (Wilks, 1941).
    """
    checks.share(share=share, confidence=confidence)
    return math.ceil(math.log(1 - confidence) / math.log(share))


def _numbers(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise UsageError(f"a list of at least one number is needed, not one of shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise UsageError(
            f"{(~np.isfinite(numbers)).sum()} of {len(numbers)} values are not finite: leave them out"
        )
    return numbers
