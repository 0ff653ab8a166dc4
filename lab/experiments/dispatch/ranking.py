"""Which way to spread requests is nearest to one ideal queue, and whether the trials can tell.

Ways are compared by `excess`: mean latency over what one central queue makes of the same arrivals and the
same service times. That takes out chance, the machine's speed and what a way adds to every request alike;
and a mean needs far fewer requests than a percentile. Ratios are paired within blocks; fewer blocks than a
95 % interval needs decide nothing.
"""

import math
from dataclasses import dataclass

import pandas as pd

from lab.experiments.dispatch.trials import busiest, spread_over_processes, steady
from lab.models.statistics import estimate, fewest_trials

MATTERS = 1.1
"""A way whose requests take less than this many times as long is as good: no choice hangs on it."""


@dataclass(frozen=True)
class Spread:
    """The median of a ratio over blocks, and its 95 % interval, or its range where blocks are too few."""

    value: float
    low: float
    high: float
    blocks: int

    @property
    def exceeds(self) -> bool | None:
        """Say whether the ratio is above 1 by as much as matters; None: these blocks cannot tell."""
        if self.blocks < fewest_trials():
            return None
        if self.low > 1 and self.value > MATTERS:
            return True
        return False if self.high <= MATTERS else None


@dataclass(frozen=True)
class Standing:
    """A way's excess, and how many times that of the best way it is, block by block."""

    way: str
    excess: Spread
    over_best: Spread


def spread(values: "pd.Series[float]") -> Spread:
    """Return the median of a value per block and how far it spreads; missing values are left out."""
    known = values.dropna()
    if known.empty:
        return Spread(math.nan, math.nan, math.nan, 0)
    median = estimate(list(known))
    return Spread(median.value, median.low, median.high, median.trials)


def standings(trials: pd.DataFrame) -> list[Standing]:
    """Return how ways to spread over processes stand at the highest Poisson utilisation, the best first.

    New connections; only trials in a steady state. The best has the lowest median of those with blocks
    enough for an interval, if any has.
    """
    excess = by_block(_compared(trials), "excess")
    spreads = {str(way): spread(excess[way]) for way in excess}
    if not spreads:
        return []
    by_value = sorted(spreads, key=lambda way: spreads[way].value)
    best = min(by_value, key=lambda way: spreads[way].blocks < fewest_trials())
    order = [best, *(way for way in by_value if way != best)]
    return [Standing(way, spreads[way], spread(excess[way] / excess[best])) for way in order]


def kept_over_new(trials: pd.DataFrame) -> dict[str, Spread]:
    """Return how many times as long requests take with kept connections as with new ones, by way."""
    top = steady(spread_over_processes(busiest(trials)))
    kept, new = (by_block(top[top["keepalive"] == keeps], "excess") for keeps in (True, False))
    ratios = {str(way): spread(kept[way] / new[way]) for way in kept if way in new}
    return {way: ratio for way, ratio in ratios.items() if ratio.blocks}


def overloaded(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials that a comparison leaves out: their own loops took more time than workers have."""
    top = spread_over_processes(busiest(trials))
    return top.drop(steady(top).index)


def by_block(trials: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return a column with a row for each block and a column for each way."""
    return trials.pivot_table(index="block", columns="server", values=column, aggfunc="median")


def _compared(trials: pd.DataFrame) -> pd.DataFrame:
    top = steady(spread_over_processes(busiest(trials)))
    compared: pd.DataFrame = top[~top["keepalive"]]
    return compared
