"""How far does adding workers take us? The trials, highest throughput, and where the ideal went."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from pydantic import field_validator

from lab import units
from lab.checks import Positive
from lab.cpus import available_cpus
from lab.errors import UsageError
from lab.experiments import common, sustained
from lab.experiments.common import Iterations, time_of, worded
from lab.models.scaling import LOSSES, Point, ScalingLaw, envelope, fit_law, speedup_stack, speedups
from lab.models.statistics import Estimate, estimate, fewest_trials, paired_ratio
from lab.study.parameters import DistinctOf, ListOf, WorkerCount
from lab.study.plan import Condition
from lab.study.run import Run

EXPERIMENT = "worker-scaling"

OVERLOADED = 1.1
"""From this own utilisation on, a trial tells the highest throughput: below, workers may have had time."""


class Parameters(sustained.Sought):
    """What notebook 04 lets its reader set; no `workers` means those of `default_workers`."""

    workers: DistinctOf[WorkerCount]
    growth: Positive
    overload: Positive
    pin: bool
    iterations: Iterations
    searched: ListOf[WorkerCount]
    search_beyond: bool

    @field_validator("workers")
    @classmethod
    def _has_a_base(cls, workers: tuple[int, ...]) -> tuple[int, ...]:
        if workers and 1 not in workers:
            raise ValueError("must include 1, the base of every speed-up")
        return workers

    @field_validator("growth")
    @classmethod
    def _grows(cls, growth: float) -> float:
        if growth <= 1:
            raise ValueError("must be above 1")
        return growth


def default_workers(cpus: int, growth: float) -> list[int]:
    """Return 1 to 2 x cpus, and `cpus`, each at most `growth` times or 1 above the one before."""
    return sorted({*_down(cpus, 1, growth), *_down(2 * cpus, cpus, growth)})


def _down(high: int, low: int, growth: float) -> Iterator[int]:
    while high > low:
        yield high
        high = max(low, min(high - 1, math.ceil(high / growth)))
    yield low


def conditions(p: Parameters) -> list[Condition]:
    """Return a condition per number of workers, at `overload` times the rate that its loops alone allow."""
    shared = p.model_dump(include={"duration_s", "dispatch", "pin", "kernel", "iterations", "timeout_s"})
    return [
        Condition(topology="cluster", workers=n, load=p.overload, **shared)
        for n in p.workers or default_workers(available_cpus(), p.growth)
    ]


def search(run: Run, p: Parameters) -> pd.DataFrame:
    """Search for the sustained rates of the `searched` servers; a row for each (`sustained.bounds`)."""
    return sustained.searched(run, EXPERIMENT, searched(p), p.objective, seed=p.seed)


def searched(p: Parameters) -> list[Condition]:
    """Return the servers whose sustained rate is searched; one worker is the single process of 02 and 03.

    If none are listed, they have one worker and one per CPU; with `search_beyond`, two per CPU, too.
    """
    cpus = available_cpus()
    shared = p.model_dump(include={"pin", "kernel", "iterations", "timeout_s"})
    single = Condition(rate=1, duration_s=p.search_s, **shared)
    return [
        single if n == 1 else replace(single, topology="cluster", workers=n, dispatch=p.dispatch)
        for n in p.searched or sorted({1, cpus, 2 * cpus if p.search_beyond else 1})
    ]


def accounted(run: Run, trials: pd.DataFrame) -> pd.DataFrame:
    """Add to each trial what `common.accounted` does, and highest_rps: the throughput of busy workers.

    It is nan if the trial's own utilisation was below `OVERLOADED`: it may then not be the highest.
    """
    found = common.accounted(run, trials)
    return found.assign(highest_rps=found["busy_rps"].where(found["utilisation"] >= OVERLOADED))


def highest(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials that tell the highest throughput of their number of workers."""
    told: pd.DataFrame = trials[trials["highest_rps"] > 0]
    return told


def points(trials: pd.DataFrame) -> list[Point]:
    """Return a point for each number of workers whose highest throughput is told, in order; perhaps none.

    Speed-up is relative to one worker in the same block. `trials` are those of `accounted`.
    """
    told = highest(trials)
    if 1 not in set(told["workers"]):
        return []
    return speedups(list(told["workers"]), list(told["block"]), list(told["highest_rps"]))


def cpus_at_work(trials: pd.DataFrame) -> dict[int, Estimate]:
    """Return the highest throughput of each number of workers x its own mean CPU time of a loop.

    That is how many CPUs' worth of loops were answered, which does not depend on the machine's speed. Numbers
    of workers with a loop of unknown CPU time are left out.
    """
    told = highest(trials)
    cpus = (told["loop_cpu_s"] / told["window_s"]).groupby(told["workers"])
    return {int(workers): estimate(list(mine)) for workers, mine in cpus if (mine > 0).all()}


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

    `found` are the sustained rates of `search`, if they were searched. Raises UsageError without a
    trial.
    """
    if trials.empty:
        raise UsageError("there are no scaling trials to put in a table: measure some first")
    known, cpus = {point.workers: point for point in points(trials)}, cpus_at_work(trials)
    rows = pd.DataFrame(
        {"workers": workers} | _point_in_words(known.get(workers), cpus.get(workers), mine)
        for workers, mine in _by_workers(trials)
    )
    if found is None:
        return rows
    sustained = {int(row["workers"]): row for _, row in found.iterrows()}
    searched = pd.DataFrame(_search_in_words(sustained.get(workers)) for workers in rows["workers"])
    both = pd.concat([rows, searched], axis=1)
    return common.mainly(both, "workers", rows.columns[1], "speed-up", searched.columns[0])


def _search_in_words(row: "pd.Series[Any] | None") -> dict[str, object]:
    names = ("sustained rate, requests/s", "as a share of the own limit")
    if row is None:
        return dict.fromkeys(names, "")
    if row["reason"]:
        return dict(zip(names, (row["reason"], ""), strict=True))
    bounds = ((row[f"lower_{kind}"], row[f"upper_{kind}"]) for kind in ("rps", "share"))
    cells = [units.between(lower, upper, units.plain) for lower, upper in bounds]
    return dict(zip(names, cells, strict=True))


def _by_workers(trials: pd.DataFrame) -> list[tuple[int, pd.DataFrame]]:
    return [(int(mine["workers"].iloc[0]), mine) for _, mine in trials.groupby("workers")]


def _point_in_words(point: Point | None, cpus: Estimate | None, trials: pd.DataFrame) -> dict[str, object]:
    names = ("highest throughput, requests/s", "in CPUs' worth of loops", "speed-up", "efficiency")
    found = (point.throughput_rps, cpus, point.speedup, point.efficiency) if point else ()
    untold = f"was not overloaded (utilisation below {OVERLOADED:g}): cannot be told"
    cells: list[object] = [worded(one) if one else "" for one in found] or [untold, "", "", ""]
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
            "speed-up, at least": [units.plain(found.low) for found in least],
            "at most": [units.plain(found.high) for found in most],
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
    return estimate([end(of_block) for of_block in gains], within=(0, n))  # no law of Gunther's allows more


FACTORS = {
    "busy": "busy (dispatch)",
    "in_loop": "in the loop (overhead)",
    "on_cpu": "on a CPU (waiting)",
    "cpu_speed": "speed of the CPU",
}
"""What each factor of a stack is called where it stands beside the others, and what its loss is."""

LOST_BY = {
    "busy": "lost while workers are idle",
    "in_loop": "lost to more overhead per request",
    "on_cpu": "waiting for a CPU",
    "cpu_speed": "lost to slower CPUs",
}
"""What becomes of the part of the ideal that each factor takes."""


def stacks(trials: pd.DataFrame) -> pd.DataFrame:
    """Return a row per block and number of workers above 1: workers, block, speedup, factors, losses.

    Factors and losses are those of `lab.models.scaling.Stack`; a loss is `lost_` and its factor's name, as a
    share of the ideal. There is no row where the CPU time of the loops is not known.
    """
    rows: list[dict[str, Any]] = []
    told = highest(trials)
    for block, mine in told[told["loop_cpu_s"] > 0].groupby("block"):
        times = {int(trial["workers"]): time_of(trial) for _, trial in mine.iterrows()}
        if (one := times.pop(1, None)) is None:
            continue
        for workers, many in sorted(times.items()):
            stack = speedup_stack(one, many)
            lost = {f"lost_{name}": loss / workers for name, loss in stack.losses.items()}
            rows.append(
                {"workers": workers, "block": block, "speedup": stack.speedup, **stack.factors, **lost}
            )
    columns = ["workers", "block", "speedup", *LOSSES, *(f"lost_{name}" for name in LOSSES)]
    return pd.DataFrame(rows, columns=columns)


def stack_table(stacks: pd.DataFrame) -> pd.DataFrame:
    """Put the factors of each number of workers in words, as medians over blocks with their intervals."""
    if stacks.empty:
        return pd.DataFrame(
            {"": ["Cannot be told: no block has the CPU time of loops with one worker and more."]}
        )
    return pd.DataFrame(
        {"workers": workers, "speed-up": worded(estimate(list(mine["speedup"])))}
        | {called: worded(estimate(list(mine[name]))) for name, called in FACTORS.items()}
        | {"blocks": len(mine)}
        for workers, mine in stacks.groupby("workers")
    )


def middle(stacks: pd.DataFrame) -> "pd.Series[float]":
    """Return the stack in the middle by speed-up, of one number of workers, or the mean of the middle two.

    So its speed-up is the median, and its losses add up to what the median lacks of the ideal: the median of
    each loss by itself would not.
    """
    ordered = stacks.sort_values("speedup", kind="stable")
    half = (len(ordered) - 1) // 2
    return ordered.iloc[half : len(ordered) - half].mean(numeric_only=True)


@dataclass(frozen=True)
class LargestLoss:
    """The largest loss of a number of workers: its name in `LOSSES`, and its share of the ideal.

    `is_told` is whether the blocks tell that it is a loss at all, and larger than each of the others.
    """

    workers: int
    name: str
    share: Estimate
    is_told: bool


def largest_loss(stacks: pd.DataFrame, workers: int) -> LargestLoss | None:
    """Return the largest loss with this many workers, by its median over blocks; None without a stack."""
    mine = stacks[stacks["workers"] == workers]
    if mine.empty:
        return None
    lost = {name: mine[f"lost_{name}"] for name in LOSSES}
    name = max(lost, key=lambda name: float(lost[name].median()))
    over = [lost[name], *(lost[name] - other for rival, other in lost.items() if rival != name)]
    left = [estimate(list(1 - lead)) for lead in over]  # in what is left, as in factors, runs differ
    is_told = all(without.is_interval and without.high < 1 for without in left)
    return LargestLoss(workers, name, estimate(list(lost[name])), is_told)
