"""How often an interval holds the true value, simulated: a share of so many draws."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from helpers.simulated_servers import Simulated
from numpy.typing import NDArray

from lab.load.report import Slo
from lab.models.statistics import Estimate, estimate, paired_ratio, proportion
from lab.study.rate_search import Search
from lab.study.sustained import Sustained

Random = np.random.Generator

DRAWS: dict[str, tuple[Callable[[Random, int], NDArray[np.float64]], float]] = {
    "normal": (lambda random, n: random.normal(size=n), 0.0),
    "lognormal": (lambda random, n: random.lognormal(size=n), 1.0),
}
"""What trials may scatter like, and its median."""


def of_medians(trials: int, scatter: str, draws: int) -> float:
    """Return how often the interval of a median holds the true one."""
    draw, median = DRAWS[scatter]
    random = np.random.default_rng(5)
    return _share((estimate(draw(random, trials)) for _ in range(draws)), median)


def of_paired_ratios(blocks: int, draws: int) -> float:
    """Return how often the interval of a paired ratio holds the true one.

    The machine has two speeds, 1.6 apart; between and within blocks it scatters by 10 % besides.
    """
    random, true = np.random.default_rng(6), 1.9

    def ratio() -> Estimate:
        speed = random.choice([1.0, 1.6], blocks) * random.lognormal(0, 0.1, blocks)
        one, two = (speed * random.lognormal(0, 0.1, blocks) for _ in range(2))
        return paired_ratio(true * two, one)

    return _share((ratio() for _ in range(draws)), true)


def of_proportions(whole: int, share: float, draws: int) -> float:
    """Return how often the interval of a share of so many events holds the true one."""
    drawn = np.random.default_rng(7).binomial(whole, share, draws).tolist()
    known = {part: proportion(part, whole) for part in set(drawn)}
    return _share((known[part] for part in drawn), share)


def _share(found: Iterable[Estimate], true: float) -> float:
    return float(np.mean([one.low <= true <= one.high for one in found]))


@dataclass(frozen=True)
class Searches:
    """Searches on simulated servers: the share whose bounds hold the true limit, and the trials of each.

    `as_shares` is of the bounds as shares of the own limit, which is 1; `as_rates` of those in requests per
    second.
    """

    as_shares: float
    as_rates: float
    trials: Sequence[int]


def of_searches(searches: int, requests: int) -> Searches:
    """Search for the rate that servers sustain whose service time scatters by 20 %.

    A trial is as long as that many requests take at the server's capacity. The SLO is wide, so that capacity
    is what is found; the search begins at a rate that has nothing to do with it.
    """
    shares, rates, trials = [], [], []
    for seed in range(searches):
        random = np.random.default_rng(seed)
        server = Simulated(random=random, loop_s=random.uniform(0.008, 0.1))
        slos, limit_rps = Slo.parse_all([f"p95={10 * server.loop_s:.9f}s"]), server.capacity_rps
        search = Search(server, slos, duration_s=requests / limit_rps, arrivals="constant")
        bounds = search.run(random.uniform(1.3, 2.6) * limit_rps, 10 * limit_rps, 0.05)
        found = Sustained("", tuple(slos), "constant", *bounds, tuple(search.trials))
        shares.append(found.utilisation)
        rates.append([(rate or np.nan) / limit_rps for rate in (found.lower_rps, found.upper_rps)])
        trials.append(len(search.trials))
    return Searches(_around_1(shares), _around_1(rates), trials)


def _around_1(bounds: object) -> float:
    """Return how many of the bounds hold 1; one that is missing does not."""
    lower, upper = np.array(bounds, dtype=float).T
    return float(np.mean((lower <= 1) & (upper >= 1)))
