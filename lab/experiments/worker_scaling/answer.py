"""What the scaling trials answer, and the verdict on the claim that clustering multiplies throughput."""

import math
from functools import partial
from typing import Any

import pandas as pd

from lab import units
from lab.experiments.claims import Verdict, Word, weighed
from lab.experiments.common import spread, worded
from lab.experiments.worker_scaling import losses, scaling
from lab.experiments.worker_scaling.trials import EXPERIMENT
from lab.models.scaling import Point
from lab.models.statistics import Estimate, estimate, fewest_trials
from lab.study.estimates import Stated, stated
from lab.study.searches import times_as_much


def answer(trials: pd.DataFrame, cpus: int, found: pd.DataFrame | None = None) -> str:
    """Say how far clustering goes here, what more workers than CPUs do, and what was lost to what.

    `found` are the sustained rates of `trials.search`, if they were searched.
    """
    top = scaling.per_cpu(scaling.points(trials), cpus)
    if top is None:
        return "**Answer.** Cannot be told: no block overloaded both one worker and several."
    most = int(trials["workers"].max())
    parts = [
        _gain(top, cpus),
        _sustained(found, top.workers),
        _beyond(trials, top.workers, most),
        _lost(trials, most, cpus),
    ]
    return " ".join(filter(None, ("**Answer.**", *parts)))


def _gain(top: Point, cpus: int) -> str:
    gain = f"{_on(top.workers, cpus)} answer {units.digits(top.speedup.value)} times what one does"
    blocks = units.counted(top.speedup.trials, "block")
    if not top.speedup.is_interval:
        return f"Cannot be told from {blocks}: here, {gain} ({spread(top.speedup)}).{_doubt(top, cpus)}"
    share = f"{units.percent(top.efficiency.value)} of the ideal"
    return f"**{gain}** ({spread(top.speedup)} over {blocks}), {share}.{_doubt(top, cpus)}"


def _on(workers: int, cpus: int) -> str:
    return f"{units.counted(workers, 'worker')} on {units.counted(cpus, 'CPU')}"


def _doubt(point: Point, cpus: int) -> str:
    """Flag a ratio that no machine can have: whoever reads it must not believe it."""
    most = min(point.workers, cpus)
    if point.speedup.value <= most:
        return ""
    return (
        f" (That is more than {units.counted(most, 'CPU')} can give: the machine's speed changed in between.)"
    )


def _beyond(trials: pd.DataFrame, few: int, many: int) -> str:
    """Compare the most workers with those of the answer, by ratios within blocks."""
    found = scaling.ratio(trials, many, few) if many > few else None
    if found is None:
        return ""
    text = f"{many} workers answer {worded(found)} times what {few} do"
    return f"{text}: {difference(found)}." if found.is_interval else f"{text}."


def difference(found: Estimate) -> str:
    """Say whether a ratio differs from 1, and if not, the smallest difference that would have been seen."""
    if found.low > 1:
        return "more"
    if found.high < 1:
        return "less"
    if (told := found.smallest_told) is None:
        return "no clear difference"
    return f"no clear difference; one of {units.percent(told)} or more would have shown"


def _lost(trials: pd.DataFrame, workers: int, cpus: int) -> str:
    """Name the largest loss of the most workers, whose ideal is the furthest."""
    loss = losses.largest(losses.stacks(trials), workers)
    return f"With {_on(workers, cpus)}, {losses.in_words(loss)}." if loss else ""


def _sustained(found: pd.DataFrame | None, workers: int) -> str:
    """Compare the sustained rates of several workers and of one, at the machine's speed of each search."""
    known = {} if found is None else {int(row["workers"]): row for _, row in found.iterrows()}
    if not {1, workers} <= set(known):
        return ""
    times = times_as_much(known[1], known[workers])
    if math.isnan(times[0]):
        return ""
    middle, low, high = map(units.digits, times)
    return f"They sustain {middle} times the rate of a cluster of one ({low} to {high})."


def estimates(trials: pd.DataFrame, cpus: int) -> list[Stated]:
    """State the highest throughput and the speed-up of each number of workers, and the factors of that."""
    dispatch, points, known = trials["dispatch"].iloc[0], scaling.points(trials), losses.stacks(trials)

    def of(quantity: str, found: Estimate, **factors: Any) -> Stated:
        return stated(EXPERIMENT, quantity, found, compares=True, dispatch=dispatch, **factors)

    rates = [
        stated(
            EXPERIMENT, "highest throughput", point.throughput_rps, "requests/s", workers=point.workers,
            dispatch=dispatch,
        )
        for point in points
    ]  # fmt: skip
    gains = [
        of("speed-up over one worker", point.speedup, workers=point.workers)
        for point in points
        if point.workers > 1
    ]
    factors = [
        of(f"factor of the speed-up: {called}", estimate(list(mine[name])), workers=workers)
        for workers, mine in known.groupby("workers")
        for name, called in losses.FACTORS.items()
    ]
    top, most = scaling.per_cpu(points, cpus), int(trials["workers"].max())
    over = scaling.ratio(trials, most, top.workers) if top and top.workers < most else None
    more = [of(f"throughput of {most} workers over that of {top.workers}", over)] if top and over else []
    return [*rates, *gains, *factors, *more]


def verdict(trials: pd.DataFrame, cpus: int) -> Verdict:
    """Judge claim 3 by the speed-up of several workers, as near to one per CPU as was measured.

    It multiplies if the whole interval is above 1, and by less than the workers if it is below their number.
    """
    return weighed(trials, partial(_multiplies, cpus))


def _multiplies(cpus: int, trials: pd.DataFrame) -> Verdict:
    top = scaling.per_cpu(scaling.points(trials), cpus)
    if top is None:
        return Verdict(3)
    blocks = units.counted(top.speedup.trials, "block")
    workers, times = units.counted(top.workers, "worker"), units.digits(top.speedup.value)
    evidence = f"{workers} over one: {times} times ({spread(top.speedup)}"
    if not top.speedup.is_interval:
        return Verdict(3, f"{evidence}), fewer than {fewest_trials()}")
    evidence += f" over {blocks})"
    reached = _above(top.speedup, top.workers)
    return Verdict(3, evidence, Word.of(_above(top.speedup, 1), None if reached is None else not reached))


def _above(found: Estimate, bound: float) -> bool | None:
    """Say whether an estimate is above a bound; None if its interval contains the bound."""
    return None if found.low <= bound <= found.high else found.value > bound
