"""How far does adding workers take us? Highest throughput, speed-up and efficiency against their number."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pydantic import field_validator

from lab import units
from lab.checks import Count, Positive, Seconds, Whole
from lab.cpus import available_cpus
from lab.experiments.claims import Verdict, Word, weighed
from lab.figures.style import DARK_TO_LIGHT, QUIET, canvas, cross_flagged, reference_line
from lab.hotloop import KernelName
from lab.models.scaling import Point, ScalingLaw, envelope, fit_law, speedups
from lab.models.statistics import fewest_trials
from lab.servers.spec import DispatchName
from lab.study.estimates import Stated, stated
from lab.study.parameters import ListOf, WorkerCount
from lab.study.parameters import Parameters as _Parameters
from lab.study.plan import Condition

EXPERIMENT = "worker-scaling"


class Parameters(_Parameters):
    """What notebook 04 lets its reader set; no `workers` means those of `default_workers`."""

    run: str
    workers: ListOf[WorkerCount]
    overload: Positive
    duration_s: Seconds
    dispatch: DispatchName
    pin: bool
    kernel: KernelName
    iterations: Whole
    timeout_s: Seconds
    blocks: Count
    seed: Whole

    @field_validator("workers")
    @classmethod
    def _has_a_base(cls, workers: tuple[int, ...]) -> tuple[int, ...]:
        if workers and 1 not in workers:
            raise ValueError("must include 1, the base of every speed-up")
        if len(set(workers)) < len(workers):
            raise ValueError("must list each number once")
        return workers


def default_workers(cpus: int) -> list[int]:
    """Return 1, 2, ... 2 x cpus; beyond eight, only steps of about a quarter, and the number of CPUs."""
    counts = {cpus, 2 * cpus}
    n = 1
    while n < 2 * cpus:
        counts.add(n)
        n += max(1, n // 4) if n >= 8 else 1
    return sorted(counts)


def conditions(p: Parameters, loop_s: float) -> list[Condition]:
    """Return a condition per number of workers, at `overload` times the rate that its loops alone allow."""
    cpus = available_cpus()
    shared = p.model_dump(include={"duration_s", "dispatch", "pin", "kernel", "iterations", "timeout_s"})
    return [
        Condition(topology="cluster", workers=n, rate=p.overload * min(n, cpus) / loop_s, **shared)
        for n in p.workers or default_workers(cpus)
    ]


def scaling(trials: pd.DataFrame) -> pd.DataFrame:
    """Return a row per number of workers: workers, and the medians of throughput_rps, speedup and efficiency.

    Each has its interval in *_low and *_high (with too few blocks, the range). Speed-up is relative to one
    worker in the same block.
    """
    return pd.DataFrame({"workers": point.workers} | _columns(point) for point in _points(trials))


def estimates(trials: pd.DataFrame) -> list[Stated]:
    """State the highest throughput of each number of workers, and its speed-up over one."""
    points, dispatch = _points(trials), trials["dispatch"].iloc[0]
    throughputs = [
        stated(
            EXPERIMENT, "highest throughput", point.throughput_rps, "requests/s",
            workers=point.workers, dispatch=dispatch,
        )
        for point in points
    ]  # fmt: skip
    return throughputs + [
        stated(
            EXPERIMENT, "speed-up over one worker", point.speedup, compares=True,
            workers=point.workers, dispatch=dispatch,
        )
        for point in points
        if point.workers > 1
    ]  # fmt: skip


def _points(trials: pd.DataFrame) -> list[Point]:
    answered = trials[trials["throughput_rps"] > 0]
    return speedups(list(answered["workers"]), list(answered["block"]), list(answered["throughput_rps"]))


def _columns(point: Point) -> dict[str, float]:
    estimates = {name: getattr(point, name) for name in ("throughput_rps", "speedup", "efficiency")}
    return {
        f"{name}{which}": value
        for name, found in estimates.items()
        for which, value in (("", found.value), ("_low", found.low), ("_high", found.high))
    }


def scaling_table(scaling: pd.DataFrame) -> pd.DataFrame:
    """Put the scaling in words, each value with its interval."""

    def worded(name: str) -> "pd.Series[str]":
        return scaling.apply(lambda row: f"{units.digits(row[name])} ({_spread(row, name)})", axis=1)

    return pd.DataFrame(
        {
            "workers": scaling["workers"].astype(int),
            "highest throughput, requests/s": worded("throughput_rps"),
            "speed-up": worded("speedup"),
            "efficiency": worded("efficiency"),
        }
    )


def best(scaling: pd.DataFrame) -> dict[str, float]:
    """Return the fewest workers whose throughput is as good as the highest: more buy nothing.

    It is within 3 % of the highest, or its interval overlaps that of the highest.
    """
    highest = scaling.iloc[int(scaling["throughput_rps"].to_numpy().argmax())]
    near = scaling["throughput_rps"] >= 0.97 * highest["throughput_rps"]
    good = scaling[near | (scaling["throughput_rps_high"] >= highest["throughput_rps_low"])]
    return {str(name): float(value) for name, value in good.iloc[0].items()}


def answer(scaling: pd.DataFrame, cpus: int) -> str:
    """Say how far clustering goes on this machine, with its base and the spread of the blocks."""
    one, top, last = scaling.iloc[0], best(scaling), scaling.iloc[-1]
    text = f"**Answer.** One worker answers {units.per_second(one['throughput_rps'])} (the base)."
    if top["workers"] > 1:
        text += (
            f" **{int(top['workers'])} workers on {units.counted(cpus, 'CPU')} answer "
            f"{units.per_second(top['throughput_rps'])}: {units.digits(top['speedup'])} times as much** "
            f"({_spread(top, 'speedup')} over blocks), {units.percent(top['efficiency'])} of the ideal."
        )
    if last["workers"] > top["workers"]:
        more = "answer less" if _harm(scaling) else "make no clear difference"
        text += (
            f" More workers {more}: {int(last['workers'])} answer "
            f"{units.per_second(last['throughput_rps'])} ({_spread(last, 'throughput_rps')})."
        )
    return text


def _harm(scaling: pd.DataFrame) -> bool:
    """Say whether the largest number of workers answers less than the best one, beyond the spread."""
    return bool(scaling["throughput_rps_high"].iloc[-1] < best(scaling)["throughput_rps_low"])


def _spread(point: "Mapping[str, float] | pd.Series[float]", name: str) -> str:
    return f"{units.digits(point[f'{name}_low'])} to {units.digits(point[f'{name}_high'])}"


def verdict(trials: pd.DataFrame) -> Verdict:
    """Judge claim 3 by the speed-up of the best cluster of several, if its blocks give an interval."""
    return weighed(trials, _multiplies)


def _multiplies(trials: pd.DataFrame) -> Verdict:
    if 1 not in set(trials.loc[trials["throughput_rps"] > 0, "workers"]):
        return Verdict(3)
    several = scaling(trials)
    several = several[several["workers"] > 1]
    if several.empty:
        return Verdict(3)
    top = best(several)
    blocks = trials.loc[trials["workers"] == top["workers"], "block"].nunique()
    evidence = (
        f"{units.counted(int(top['workers']), 'worker')} over one: {units.digits(top['speedup'])} times "
        f"({_spread(top, 'speedup')} over {units.counted(blocks, 'block')})"
    )
    if blocks < fewest_trials():
        return Verdict(3, evidence)
    reached = _above(top, top["workers"])
    return Verdict(3, evidence, Word.of(_above(top, 1), None if reached is None else not reached))


def _above(top: dict[str, float], bound: float) -> bool | None:
    """Say whether the speed-up is above a bound; None if its interval contains the bound."""
    if top["speedup_low"] <= bound <= top["speedup_high"]:
        return None
    return top["speedup"] > bound


def beyond(trials: pd.DataFrame, cpus: int) -> pd.DataFrame:
    """Say which speed-up Gunther's law predicts for machines with more CPUs, with a worker for each.

    The prediction spans the least and the most that any block allows. With three numbers of workers up to the
    CPUs, it is a block's fit; with two, both ends of the envelope, as many laws go through two points.
    """
    laws = [law for _, block in trials.groupby("block") for law in _laws(block, cpus)]
    if not laws:
        return pd.DataFrame({"": ["Several workers within the number of CPUs were not measured."]})
    more = [2 * cpus, 4 * cpus, 8 * cpus]
    gains = [[float(law.throughput_rps(n) / law.one_worker_rps) for law in laws] for n in more]
    return pd.DataFrame(
        {
            "CPUs, and workers": more,
            "speed-up, at least": [units.digits(min(each)) for each in gains],
            "at most": [units.digits(max(each)) for each in gains],
        }
    )


def _laws(block: pd.DataFrame, cpus: int) -> Sequence[ScalingLaw]:
    known = block[(block["workers"] <= cpus) & (block["throughput_rps"] > 0)].sort_values("workers")
    workers, rates = list(known["workers"]), list(known["throughput_rps"])
    if len(workers) < 2 or workers[0] != 1:
        return []
    if len(workers) == 2:
        return envelope(rates[0], rates[1], int(workers[1]))
    return [fit_law(workers, rates, cpus=cpus)]


def figure(trials: pd.DataFrame, scaling: pd.DataFrame, cpus: float) -> Figure:
    """Draw the scaling curve; `cpus` is what this process may use."""
    look = DARK_TO_LIGHT[0]
    most = int(scaling["workers"].max())
    base_rps = float(scaling["throughput_rps"].iloc[0] / scaling["workers"].iloc[0])
    panels: dict[str, Any] = {"rows": 2, "sharex": True, "height_ratios": (2, 1)}
    with canvas(_title(scaling), size=(7.4, 6.6), **panels) as (figure, (rate, share)):
        ideal = [0, most]
        rate.plot(ideal, [base_rps * n for n in ideal], color=QUIET, linewidth=1.2)
        rate.annotate(
            "ideal: every worker adds as much as the first", (most, base_rps * most), ha="right", va="top",
            xytext=(-12, 4), textcoords="offset points", fontsize=8.5, color=QUIET,
        )  # fmt: skip
        rate.plot(
            trials["workers"], trials["throughput_rps"], ".", color=look.color, alpha=0.45, label="a trial"
        )
        _with_interval(rate, scaling, "throughput_rps", label="median over blocks")
        cross_flagged(rate, trials, "workers", "throughput_rps")
        rate.set_ylabel("highest throughput, requests/s")
        rate.set_ylim(bottom=0)
        rate.legend(loc="lower right")
        share.axhline(1, color=QUIET, linewidth=1.2)
        _with_interval(share, scaling, "efficiency")
        share.set_ylabel("efficiency: speed-up / workers")
        share.set_ylim(0, max(1.15, 1.05 * float(scaling["efficiency_high"].max())))
        share.set_xlabel("workers")
        share.set_xlim(0.5, most + 0.5)
        share.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (rate, share):
            reference_line(axes, x=cpus, text=f"{cpus:g} CPUs")
    return figure


def _title(scaling: pd.DataFrame) -> str:
    """Say how far more workers help."""
    top, last = best(scaling), scaling.iloc[-1]
    if top["workers"] == 1:
        return "One worker answers as much as any number of them"
    workers, times = units.counted(int(top["workers"]), "worker"), units.digits(top["speedup"])
    gain = f"{workers} answer {times} times what one does"
    if last["workers"] == top["workers"]:
        return gain
    return f"{gain}; more answer less" if _harm(scaling) else f"{gain}; no clear gain beyond"


def _with_interval(axes: Axes, scaling: pd.DataFrame, column: str, label: str = "") -> None:
    look = DARK_TO_LIGHT[0]
    values, low, high = scaling[column], scaling[f"{column}_low"], scaling[f"{column}_high"]
    axes.errorbar(
        scaling["workers"], values, yerr=[values - low, high - values], marker=look.marker,
        color=look.color, capsize=4, elinewidth=1.2, label=label or None,
    )  # fmt: skip
