"""When each request is due: pure functions that return an array of seconds from the start, in closed form.

A load is a rate over time, in stages: each has one rate, or one straight ramp. The integral of the rate
counts the arrivals due by an instant. Due times invert that count: at 0, 1, 2, ... for constant arrivals, at
the points of a unit-rate Poisson process for Poisson arrivals (time rescaling: Cinlar, Introduction to
Stochastic Processes, 1975, ch. 4.7). Nothing is summed up step by step, so nothing drifts.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lab.checks import Before, Duration, checked
from lab.errors import UsageError
from lab.units import parse_duration, parse_rate

Arrivals = Literal["constant", "poisson"]
ARRIVALS = get_args(Arrivals)
MOST = 50_000_000
"""The most requests in one attack: beyond it, the due times alone would overflow a small machine's memory."""

Times = NDArray[np.float64]


@checked
@dataclass(frozen=True)
class Stage:
    """A stage of a load: the rate goes in a straight line from `start_rps` to `end_rps` in `duration_s`."""

    start_rps: Annotated[float, Before(parse_rate)]
    end_rps: Annotated[float, Before(parse_rate)]
    duration_s: Duration

    @property
    def count(self) -> float:
        """The integral of the rate: the number of arrivals, as a real number."""
        return (self.start_rps + self.end_rps) / 2 * self.duration_s


Stages = Sequence[Stage]


def total(stages: Stages) -> float:
    """Return the integral of the rate: the arrivals of all stages, as a real number."""
    return math.fsum(stage.count for stage in stages)


def duration_s(stages: Stages) -> float:
    """Return how long all stages last."""
    return math.fsum(stage.duration_s for stage in stages)


def peak_rps(stages: Stages) -> float:
    """Return the highest rate."""
    return max(rate for stage in stages for rate in (stage.start_rps, stage.end_rps))


def due_times(stages: Stages, arrivals: str = "constant", seed: int = 0, warmup_s: float = 0.0) -> Times:
    """Return the due times of a load, ascending, each before its end.

    Constant arrivals begin at 0. Poisson arrivals are random in number, but the same for the same seed. A
    warm-up comes before 0, at the rate that the load begins with.
    Raises UsageError for unknown arrivals, or a load with no requests or too many.
    """
    if arrivals not in ARRIVALS:
        raise UsageError(f"arrivals must be {' or '.join(ARRIVALS)}, got {arrivals!r}")
    expected = total(stages)
    if not 0 < expected <= MOST:
        raise UsageError(f"a load of {expected:.0f} requests cannot be offered: plan 1 to {MOST:,}")
    counts = _poisson_counts(expected, seed) if arrivals == "poisson" else _whole_counts(expected)
    if not len(counts):
        raise UsageError("no request falls due: offer more, or longer, or choose another seed")
    due_s = _instants(stages, counts)
    if not warmup_s:
        return due_s
    first_rps = stages[0].start_rps or stages[0].end_rps
    warmup = [Stage(first_rps, first_rps, warmup_s)]
    return np.concatenate([due_times(warmup, arrivals, seed + 1) - warmup_s, due_s])


def _whole_counts(expected: float) -> Times:
    """0, 1, ... below `expected`, where 30.000000000000004 counts as 30: rates are seldom exact in binary."""
    return np.arange(math.ceil(expected * (1 - 1e-12)), dtype=np.float64)


def _poisson_counts(expected: float, seed: int) -> Times:
    """Points of a unit-rate Poisson process on [0, expected): given their number, they are uniform."""
    random = np.random.default_rng(seed)
    return np.sort(random.uniform(0, expected, random.poisson(expected)))


def _instants(stages: Stages, counts: Times) -> Times:
    """Invert the integral of the rate: the instants at which it reaches each of `counts`.

    Within a stage x arrivals take t with r0 t + (r1 - r0) t^2 / (2 d) = x; this root of it loses no digits
    and is x / r0, exactly, for a constant rate.
    """
    start, end, last = (
        np.array([getattr(stage, name) for stage in stages])
        for name in ("start_rps", "end_rps", "duration_s")
    )
    before = np.concatenate([[0.0], np.cumsum([stage.count for stage in stages])[:-1]])
    began_s = np.concatenate([[0.0], np.cumsum(last)[:-1]])
    at = np.searchsorted(before, counts, side="right") - 1
    x, rate = counts - before[at], start[at]
    divisor = rate + np.sqrt(np.maximum(rate**2 + 2 * x * (end[at] - rate) / last[at], 0))
    within_s = np.divide(2 * x, divisor, out=np.zeros_like(x), where=divisor > 0)
    due_s: Times = began_s[at] + np.minimum(within_s, last[at])
    return due_s


_EXAMPLE = "10/s for 10s, ramp to 50/s over 30s"
_COMMA = re.compile(r",(?!(?<=\d,)\d{3}(?!\d))")
"""A comma between stages, unlike the one in 1,500/s."""
_STEADY = re.compile(r"(.+/.+) for (.+)")
_RAMP = re.compile(r"ramp (?:from (.+/.+) )?to (.+/.+) over (.+)")


def parse_stages(text: str) -> list[Stage]:
    """Return the stages that a text describes; a ramp begins where the stage before it ended, or at zero.

    Raises UsageError if it is malformed.
    """
    stages: list[Stage] = []
    for part in _COMMA.split(text):
        before_rps = stages[-1].end_rps if stages else 0.0
        stages.append(_stage(" ".join(part.split()), before_rps))
    return stages


def _stage(part: str, before_rps: float) -> Stage:
    if ramp := _RAMP.fullmatch(part):
        start_rps = parse_rate(ramp[1]) if ramp[1] else before_rps
        return Stage(start_rps, parse_rate(ramp[2]), parse_duration(ramp[3]))
    if steady := _STEADY.fullmatch(part):
        rate_rps = parse_rate(steady[1])
        return Stage(rate_rps, rate_rps, parse_duration(steady[2]))
    raise UsageError(f"malformed stages at {part!r}: write {_EXAMPLE}")
