"""Highest throughput, speed-up and efficiency against the number of workers, and what more CPUs may bring."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from lab import units
from lab.errors import UsageError
from lab.experiments.common import worded
from lab.experiments.worker_scaling.trials import OVERLOADED, highest
from lab.models.scaling import Point, ScalingLaw, envelope, fit_law, speedups
from lab.models.statistics import Estimate, estimate, fewest_trials, paired_ratio


def points(trials: pd.DataFrame) -> list[Point]:
    """Return a point for each number of workers whose highest throughput is told, in order; perhaps none.

    Speed-up is relative to one worker in the same block. `trials` are those of `accounted`.
    """
    told = highest(trials)
    if 1 not in set(told["workers"]):
        return []
    return speedups(list(told["workers"]), list(told["block"]), list(told["highest_rps"]))


def per_cpu(points: Sequence[Point], cpus: int) -> Point | None:
    """Return the point to speak of: several workers, as near to one per CPU as was measured."""
    several = [point for point in points if point.workers > 1]
    return min(several, key=lambda point: (abs(point.workers - cpus), point.workers), default=None)


def ratio(trials: pd.DataFrame, many: int, few: int) -> Estimate | None:
    """Return the highest throughput of many workers over that of few, paired within blocks."""
    by_block = highest(trials).pivot(index="block", columns="workers", values="highest_rps")
    if not {many, few} <= set(by_block.columns):
        return None
    pairs = by_block[[many, few]].dropna()
    return paired_ratio(list(pairs[many]), list(pairs[few])) if len(pairs) else None


def table(trials: pd.DataFrame, found: pd.DataFrame | None = None) -> pd.DataFrame:
    """Put what is known of each number of workers in words, with intervals and the number of blocks.

    `found` are the sustained rates of `trials.search`, if they were searched. Raises UsageError without a
    trial.
    """
    if trials.empty:
        raise UsageError("there are no scaling trials to put in a table: measure some first")
    known = {point.workers: point for point in points(trials)}
    rows = pd.DataFrame(
        {"workers": workers} | _in_words(known.get(workers), mine) for workers, mine in _by_workers(trials)
    )
    if found is None:
        return rows
    sustained = {int(row["workers"]): row for _, row in found.iterrows()}
    searched = pd.DataFrame(_search_in_words(sustained.get(workers)) for workers in rows["workers"])
    return pd.concat([rows, searched], axis=1)


def _search_in_words(row: "pd.Series[Any] | None") -> dict[str, str]:
    names = ("sustained rate, requests/s", "as a share of the own limit")
    if row is None:
        return dict.fromkeys(names, "")
    if row["reason"]:
        return dict(zip(names, (row["reason"], ""), strict=True))
    bounds = ((row[f"lower_{kind}"], row[f"upper_{kind}"]) for kind in ("rps", "share"))
    cells = [f"{units.digits(lower)} to {units.digits(upper)}" for lower, upper in bounds]
    return dict(zip(names, cells, strict=True))


def _by_workers(trials: pd.DataFrame) -> list[tuple[int, pd.DataFrame]]:
    return [(int(mine["workers"].iloc[0]), mine) for _, mine in trials.groupby("workers")]


def _in_words(point: Point | None, trials: pd.DataFrame) -> dict[str, str]:
    names = ("highest throughput, requests/s", "speed-up", "efficiency")
    found = (point.throughput_rps, point.speedup, point.efficiency) if point else ()
    untold = f"was not overloaded (utilisation below {OVERLOADED:g}): cannot be told"
    cells = [worded(one) for one in found] or [untold, "", ""]
    blocks = point.speedup.trials if point else 0
    return dict(zip(names, cells, strict=True)) | {"blocks": f"{blocks} of {trials['block'].nunique()}"}


def beyond(trials: pd.DataFrame, cpus: int) -> pd.DataFrame:
    """Say which speed-up Gunther's law predicts for machines with more CPUs, with a worker for each.

    With three numbers of workers up to the CPUs, a block has one law. With two, it has the envelope of all
    that go through both points. The prediction runs from where the least of them may lie to where the most
    may.
    """
    blocks = [laws for _, block in highest(trials).groupby("block") if (laws := _laws(block, cpus))]
    if len(blocks) < fewest_trials():
        few = f"{units.counted(len(blocks), 'block')} with several workers within the number of CPUs"
        return pd.DataFrame({"": [f"Cannot be told from {few}: it takes {fewest_trials()}."]})
    more = [2 * cpus, 4 * cpus, 8 * cpus]
    least, most = ([_gain(blocks, end, n) for n in more] for end in (min, max))
    return pd.DataFrame(
        {
            "CPUs, and workers": more,
            "speed-up, at least": [units.digits(found.low) for found in least],
            "at most": [units.digits(found.high) for found in most],
        }
    )


def _laws(block: pd.DataFrame, cpus: int) -> Sequence[ScalingLaw]:
    known = block[block["workers"] <= cpus].sort_values("workers")
    workers, rates = list(known["workers"]), list(known["highest_rps"])
    if len(workers) < 2 or workers[0] != 1:
        return []
    if len(workers) == 2:
        return envelope(rates[0], rates[1], int(workers[1]))
    return [fit_law(workers, rates, cpus=cpus)]


def _gain(blocks: Sequence[Sequence[ScalingLaw]], end: Callable[[list[float]], float], n: int) -> Estimate:
    """Estimate the speed-up of n workers by one end of what each block's laws allow."""
    gains = [[float(law.throughput_rps(n) / law.one_worker_rps) for law in laws] for laws in blocks]
    return estimate([end(of_block) for of_block in gains])
