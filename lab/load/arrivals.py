"""When each request is due: pure functions that give an array of seconds from the start, in closed form.

A profile is a rate over time, in straight stretches. Its integral counts the arrivals that are due by an
instant; due times are that count's inverse: at 0, 1, 2, ... for constant arrivals, at the points of a
unit-rate Poisson process for Poisson arrivals (time rescaling: Cinlar, Introduction to Stochastic Processes,
1975, ch. 4.7). Nothing is summed up step by step, so nothing drifts.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lab.errors import UsageError
from lab.units import parse_duration

Arrivals = Literal["constant", "poisson"]
ARRIVALS = get_args(Arrivals)
MOST = 50_000_000
"""Requests in one attack, at most: beyond this the due times alone would not fit a small machine's memory."""

Times = NDArray[np.float64]


@dataclass(frozen=True)
class Stretch:
    """A part of a profile: the rate goes from `start_rps` to `end_rps` straight, in `duration_s`."""

    start_rps: float
    end_rps: float
    duration_s: float

    def __post_init__(self) -> None:
        for rate in (self.start_rps, self.end_rps):
            if not (math.isfinite(rate) and rate >= 0):
                raise UsageError(f"a rate is a number of requests per second, zero or above, not {rate}")
        if not (math.isfinite(self.duration_s) and self.duration_s > 0):
            raise UsageError(f"a duration is above zero and finite, not {self.duration_s}")

    @property
    def count(self) -> float:
        """The integral of the rate: how many arrivals, as a real number."""
        return (self.start_rps + self.end_rps) / 2 * self.duration_s


Profile = Sequence[Stretch]


def total(profile: Profile) -> float:
    """Return the integral of a profile's rate: its arrivals, as a real number."""
    return math.fsum(stretch.count for stretch in profile)


def duration_s(profile: Profile) -> float:
    """Return how long a profile lasts."""
    return math.fsum(stretch.duration_s for stretch in profile)


def peak_rps(profile: Profile) -> float:
    """Return the highest rate of a profile."""
    return max(rate for stretch in profile for rate in (stretch.start_rps, stretch.end_rps))


def due_times(profile: Profile, arrivals: str = "constant", seed: int = 0) -> Times:
    """Return the due times of a profile, ascending, each before its end.

    Constant arrivals begin at 0. Poisson arrivals are a random number of them, the same for the same seed.
    Raises UsageError for unknown arrivals, or a profile with none or too many.
    """
    if arrivals not in ARRIVALS:
        raise UsageError(f"unknown arrivals {arrivals!r}: choose one of {', '.join(ARRIVALS)}")
    expected = total(profile)
    if not 0 < expected <= MOST:
        raise UsageError(f"a profile of {expected:.0f} requests cannot be offered: plan 1 to {MOST:,}")
    counts = _poisson_counts(expected, seed) if arrivals == "poisson" else _whole_counts(expected)
    if not len(counts):
        raise UsageError("no request falls due: offer more, or longer, or choose another seed")
    return _instants(profile, counts)


def _whole_counts(expected: float) -> Times:
    """0, 1, ... below `expected`, where 30.000000000000004 counts as 30: rates are seldom exact in binary."""
    return np.arange(math.ceil(expected * (1 - 1e-12)), dtype=np.float64)


def _poisson_counts(expected: float, seed: int) -> Times:
    """Points of a unit-rate Poisson process on [0, expected): given their number, they are uniform."""
    random = np.random.default_rng(seed)
    return np.sort(random.uniform(0, expected, random.poisson(expected)))


def _instants(profile: Profile, counts: Times) -> Times:
    """Invert the profile's integral: the instants at which it reaches each of `counts`.

    Within a stretch x arrivals take t with r0 t + (r1 - r0) t^2 / (2 d) = x; this root of it loses no digits
    and is x / r0, exactly, for a constant rate.
    """
    start, end, last = (
        np.array([getattr(s, name) for s in profile]) for name in ("start_rps", "end_rps", "duration_s")
    )
    before = np.concatenate([[0.0], np.cumsum([stretch.count for stretch in profile])[:-1]])
    began_s = np.concatenate([[0.0], np.cumsum(last)[:-1]])
    at = np.searchsorted(before, counts, side="right") - 1
    x, rate = counts - before[at], start[at]
    divisor = rate + np.sqrt(np.maximum(rate**2 + 2 * x * (end[at] - rate) / last[at], 0))
    within_s = np.divide(2 * x, divisor, out=np.zeros_like(x), where=divisor > 0)
    due_s: Times = began_s[at] + np.minimum(within_s, last[at])
    return due_s


_EXAMPLE = "10/s for 10s, ramp to 50/s over 30s"
_RATE = r"(\d+(?:\.\d+)?)/s"
_STEP = re.compile(rf"{_RATE} for (\S+)")
_RAMP = re.compile(rf"ramp (?:from {_RATE} )?to {_RATE} over (\S+)")


def parse(text: str) -> list[Stretch]:
    """Return the stretches of a profile; a ramp begins where the stretch before it ended, or at zero.

    Raises UsageError if it is malformed.
    """
    stretches: list[Stretch] = []
    for part in text.split(","):
        before_rps = stretches[-1].end_rps if stretches else 0.0
        stretches.append(_stretch(" ".join(part.split()), before_rps))
    return stretches


def _stretch(part: str, before_rps: float) -> Stretch:
    if step := _STEP.fullmatch(part):
        return Stretch(float(step[1]), float(step[1]), parse_duration(step[2]))
    if ramp := _RAMP.fullmatch(part):
        return Stretch(float(ramp[1] or before_rps), float(ramp[2]), parse_duration(ramp[3]))
    raise UsageError(f"malformed profile at {part!r}: write {_EXAMPLE}")
