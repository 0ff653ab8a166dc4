"""Which balancing policy keeps latency low: when service times vary, and when a node is slow. Simulated."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import gammaincinv, ndtri

from lab.checks import Count, Positive, Whole, checked
from lab.models.simulation import Dispatch, latencies

POLICIES: tuple[Dispatch, ...] = ("random", "round-robin", "two-choices", "shortest", "central")
"""From the one that knows nothing of the nodes to the one that lets requests wait until a node is free."""

VARIATIONS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Coefficients of variation: constant, Erlang of four stages, exponential, and two lognormal laws."""

Variation = Annotated[float, Field(ge=0, le=10)]
Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class Policy:
    """A policy's latency where service times vary by `variation`, and one node has `slowest` of full speed.

    `latencies` is the quantile of latency in each replication, in mean service times at full speed. All
    policies get the same arrivals and service times in a replication, so their latencies are pairs. Infinite:
    the policy sends the slow node more than it can do, or all nodes get more than they can: no queue settles.
    """

    policy: Dispatch
    variation: float
    slowest: float
    latencies: tuple[float, ...]


@checked
def policies(
    *,
    workers: Count = 8,
    utilisation: Share = 0.7,
    quantile: Share = 0.99,
    variations: Sequence[Variation] = VARIATIONS,
    slowest: Sequence[Positive] = (1.0, 0.5),
    replications: Count = 6,
    requests: Annotated[int, Field(ge=1000)] = 40_000,
    seed: Whole = 1,
) -> list[Policy]:
    """Return the latency of each of `POLICIES`, for each variation and each speed of the slowest node.

    `utilisation` is that of nodes of full speed. Arrivals are Poisson's. The first tenth of the requests of a
    replication does not count, as it begins with empty queues.
    """
    return [
        Policy(policy, variation, speed, found)
        for variation in variations
        for speed in slowest
        for policy, found in _side_by_side(
            workers, utilisation, quantile, variation, speed, replications, requests, seed
        ).items()
    ]


def _side_by_side(
    workers: int,
    utilisation: float,
    quantile: float,
    variation: float,
    speed: float,
    replications: int,
    requests: int,
    seed: int,
) -> dict[Dispatch, tuple[float, ...]]:
    speeds = np.array([*[1.0] * (workers - 1), speed])
    blind: set[Dispatch] = {"random", "round-robin"} if utilisation >= speed else set()
    overloaded = set(POLICIES) if workers * utilisation >= speeds.sum() else blind
    found: dict[Dispatch, list[float]] = {policy: [] for policy in POLICIES}
    for replication in range(replications):
        random = np.random.default_rng([seed, replication])
        due = np.cumsum(random.exponential(1 / (workers * utilisation), requests))
        works = varied(variation, requests, random)
        for policy, values in found.items():
            if policy in overloaded:
                values.append(math.inf)
                continue
            took = latencies(due, works, workers, policy, seed=replication, speeds=speeds)
            values.append(float(np.quantile(took[requests // 10 :], quantile)))
    return {policy: tuple(values) for policy, values in found.items()}


def varied(variation: float, count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Return service times with a mean of 1 and this coefficient of variation.

    0 is constant; up to 1, a gamma law, which at .5 is Erlang's of four stages and at 1 exponential; beyond,
    a lognormal law.
    """
    if variation == 0:
        return np.ones(count)
    if variation <= 1:
        return random.gamma(variation**-2, variation**2, count)
    return random.lognormal(*_lognormal(variation), count)


def alone(variation: float, quantile: float) -> float:
    """Return the exact quantile of the service times of `varied`: the latency of requests that never wait."""
    if variation == 0:
        return 1.0
    if variation <= 1:
        return float(gammaincinv(variation**-2, quantile) * variation**2)
    mean, deviation = _lognormal(variation)
    return math.exp(mean + deviation * float(ndtri(quantile)))


def _lognormal(variation: float) -> tuple[float, float]:
    """Return the mean and the standard deviation of the logarithm."""
    variance = math.log1p(variation**2)
    return -variance / 2, math.sqrt(variance)
