"""How often an interval holds the true value, simulated: a share of so many draws."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from helpers.simulated_servers import Simulated
from numpy.typing import NDArray

from lab.experiments.sustained import times_as_much
from lab.load.report import Slo
from lab.models.statistics import Estimate, estimate, paired_ratio, proportion
from lab.study.own_search import OwnSearch, in_turns
from lab.study.rate_search import Search
from lab.study.sustained import Sustained
from lab.study.trial import Attacked

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
    return _share((estimate(draw(random, trials), between_runs=0) for _ in range(draws)), median)


def of_paired_ratios(blocks: int, draws: int) -> float:
    """Return how often the interval of a paired ratio holds the true one.

    The machine has two speeds, 1.6 apart; between and within blocks it scatters by 10 % besides.
    """
    random, true = np.random.default_rng(6), 1.9

    def ratio() -> Estimate:
        speed = random.choice([1.0, 1.6], blocks) * random.lognormal(0, 0.1, blocks)
        one, two = (speed * random.lognormal(0, 0.1, blocks) for _ in range(2))
        return paired_ratio(true * two, one, between_runs=0)

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

    `as_rates` is of the bounds in requests per second; `as_shares` of those as shares of the own limit, which
    is 1; of a search that counts no shares, it is nan.
    """

    as_rates: float
    as_shares: float
    trials: Sequence[int]


def of_searches(searches: int, requests: int) -> Searches:
    """Search for the rate that servers sustain whose service time scatters by 20 %.

    A trial is as long as that many requests take at the server's capacity. The SLO is wide, so that capacity
    is what is found; the search begins at a rate that has nothing to do with it.
    """
    rates, trials = [], []
    for seed in range(searches):
        random = np.random.default_rng(seed)
        server = Simulated(random=random, loop_s=random.uniform(0.008, 0.1))
        slos, limit_rps = Slo.parse_all([f"p95={10 * server.loop_s:.9f}s"]), server.capacity_rps
        search = Search(server, slos, duration_s=requests / limit_rps, arrivals="constant")
        ended = search.run(random.uniform(1.3, 2.6) * limit_rps, 10 * limit_rps, 0.05)
        found = Sustained.by_rates("", slos, "constant", ended, search.trials)
        rates.append([(rate or np.nan) / limit_rps for rate in (found.lower_rps, found.upper_rps)])
        trials.append(len(search.trials))
    return Searches(_around_1(rates), np.nan, trials)


def of_own_searches(pairs: int, requests: int, speeds: float) -> Searches:
    """Search for the shares that one and two workers sustain, in turns, on a machine that changes its speed.

    Its speed scatters by `speeds` from trial to trial, service times by 20 % within them, and the calibration
    is off. `as_rates` is of the ratio of the two, which is 2.
    """
    shares: list[object] = []
    ratios: list[tuple[float, float]] = []
    trials: list[int] = []
    for seed in range(pairs):
        random = np.random.default_rng(seed)
        both = [_own_search(random, workers, requests, speeds) for workers in (1, 2)]
        in_turns(both, lambda _: None)
        one, two = (_row(search) for search in both)
        _, low, high = times_as_much(one, two)
        ratios.append((low / 2, high / 2))
        shares += [search.bounds for search in both]
        trials += [len(search.trials) for search in both]
    return Searches(_around_1(ratios), _around_1(shares), trials)


def _own_search(random: Random, workers: int, requests: int, speeds: float) -> OwnSearch:
    def offer(rate_rps: float, duration_s: float, number: int) -> Attacked:
        loop_s = 0.0128 * random.lognormal(sigma=speeds)
        return Simulated(random=random, loop_s=loop_s, workers=workers)(rate_rps, duration_s, number)

    likely_rps = random.uniform(0.7, 1.4) * workers / 0.0128
    return OwnSearch(
        offer, lambda loop_s: Slo.parse_all([f"p95={10 * loop_s:.9f}s"]), requests / likely_rps, "constant",
        workers, 2, likely_rps, 0.05,
    )  # fmt: skip


def _row(search: OwnSearch) -> "pd.Series[Any]":
    lower, upper = search.bounds
    limits_rps = [trial.rate / trial.utilisation for trial in search.trials if trial.utilisation]
    return pd.Series(
        {"reason": search.reason, "lower_share": lower, "upper_share": upper, "limits_rps": limits_rps}
    )


def _around_1(bounds: object) -> float:
    """Return how many of the bounds hold 1; one that is missing does not."""
    lower, upper = np.array(bounds, dtype=float).T
    return float(np.mean((lower <= 1) & (upper >= 1)))
