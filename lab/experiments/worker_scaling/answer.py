"""What the scaling trials answer: in words, as the verdict on claim 3, and in two figures.

The figures are of throughput against workers, and for each number of them of where the ideal went.
"""

import math
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lab import units
from lab.experiments.claims import Verdict, Word, weighed
from lab.experiments.common import spread, worded
from lab.experiments.sustained import RATIO, about, times_as_much
from lab.experiments.worker_scaling import scaling
from lab.experiments.worker_scaling.scaling import EXPERIMENT, highest
from lab.figures import (
    HALO,
    IDEAL,
    INK,
    QUIET,
    SLO,
    beside,
    canvas,
    cross_flagged,
    reference_line,
    server_look,
)
from lab.models.scaling import LOSSES, Point
from lab.models.statistics import Estimate, estimate, fewest_trials
from lab.study.estimates import Stated, linked, stated

CPUS_AT_WORK = "highest throughput, in CPUs' worth of loops"
SPEEDUP = "speed-up over one worker"
"""What numbers are called where they are stated."""


def answer(trials: pd.DataFrame, cpus: int, found: pd.DataFrame | None = None) -> str:
    """Say how far clustering goes here, what is sustained, and what more workers than CPUs do.

    `found` are the sustained rates of `scaling.search`, if they were searched.
    """
    top = scaling.per_cpu(scaling.points(trials), cpus)
    if top is None:
        return "**Answer.** Cannot be told: no block overloaded both one worker and several."
    most = int(trials["workers"].max())
    parts = [
        _gain(top, cpus, trials["dispatch"].iloc[0]),
        _sustained(found, top.workers),
        _beyond(trials, top.workers, most),
    ]
    return " ".join(filter(None, ("**Answer.**", *parts)))


def _gain(top: Point, cpus: int, dispatch: str) -> str:
    value = linked(units.digits(top.speedup.value), SPEEDUP, workers=top.workers, dispatch=dispatch)
    gain = f"{_on(top.workers, cpus)} answer {value} times what one does"
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
    return f"{many} workers answer {worded(found)} times what {few} do." if found else ""


def _sustained(found: pd.DataFrame | None, workers: int) -> str:
    """Compare the work that several workers and one sustain, which leaves out the machine's speed."""
    known = {} if found is None else {int(row["workers"]): row for _, row in found.iterrows()}
    if not {1, workers} <= set(known):
        return ""
    found_times = times_as_much(known[1], known[workers])
    if math.isnan(found_times[0]):
        return ""
    middle, low, high = map(units.digits, found_times)
    times = linked(middle, RATIO, **about(known[workers]))
    return f"They sustain {times} times the rate of one process ({low} to {high})."


def estimates(trials: pd.DataFrame, cpus: int) -> list[Stated]:
    """State the highest throughput of each number of workers, its speed-up, and the factors of that."""
    dispatch, points, known = trials["dispatch"].iloc[0], scaling.points(trials), scaling.stacks(trials)
    told = scaling.highest(trials)

    def of(quantity: str, found: Estimate, sources: pd.DataFrame, **factors: Any) -> Stated:
        compared: dict[str, Any] = {"compares": True, "sources": sources["trial_id"], "dispatch": dispatch}
        return stated(EXPERIMENT, quantity, found, **compared, **factors)

    rates = [
        stated(
            EXPERIMENT, "highest throughput", point.throughput_rps, "requests/s", workers=point.workers,
            dispatch=dispatch, sources=_of(_paired(told, point.workers, 1), point.workers)["trial_id"],
        )
        for point in points
    ]  # fmt: skip
    cpus_at_work = [
        stated(
            EXPERIMENT, CPUS_AT_WORK, found, workers=workers, dispatch=dispatch,
            sources=_of(told, workers)["trial_id"],
        )
        for workers, found in scaling.cpus_at_work(trials).items()
    ]  # fmt: skip
    gains = [
        of(SPEEDUP, point.speedup, _paired(told, point.workers, 1), workers=point.workers)
        for point in points
        if point.workers > 1
    ]
    factors = [
        of(
            f"factor of the speed-up: {called}", estimate(list(mine[name])),
            _paired(told[told["block"].isin(mine["block"])], int(str(workers)), 1), workers=workers,
        )
        for workers, mine in known.groupby("workers")
        for name, called in scaling.FACTORS.items()
    ]  # fmt: skip
    top, most = scaling.per_cpu(points, cpus), int(trials["workers"].max())
    over = scaling.ratio(trials, most, top.workers) if top and top.workers < most else None
    more = [
        of(
            f"throughput of {most} workers over that of {one.workers}", ratio,
            _paired(told, most, one.workers),
        )
        for one, ratio in [(top, over)]
        if one and ratio
    ]  # fmt: skip
    return [*rates, *cpus_at_work, *gains, *factors, *more]


def _of(trials: pd.DataFrame, workers: int) -> pd.DataFrame:
    return trials[trials["workers"] == workers]


def _paired(trials: pd.DataFrame, many: int, few: int) -> pd.DataFrame:
    """Return the trials of two numbers of workers in the blocks that have both."""
    both = trials[trials["workers"].isin([many, few])]
    return both[both.groupby("block")["workers"].transform("nunique") == len({many, few})]


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


def figure(trials: pd.DataFrame, cpus: float, found: pd.DataFrame | None = None) -> Figure | None:
    """Draw the scaling curve, and the sustained rates that were found; None if no throughput is told.

    `cpus` is what this process may use.
    """
    points = scaling.points(trials)
    if not points:
        return None
    look = server_look(str(trials["dispatch"].iloc[0]))
    told, workers = highest(trials), [point.workers for point in points]
    most, base_rps = workers[-1], points[0].throughput_rps.value
    rates = [point.throughput_rps for point in points]
    with canvas(_title(trials, points, cpus), height=3.7) as (figure, (axes,)):
        axes.plot([0, most], [0, base_rps * most], **IDEAL)
        axes.plot(told["workers"], told["highest_rps"], ".", color=look.color, alpha=0.45)
        axes.errorbar(
            workers, [rate.value for rate in rates],
            yerr=[[rate.value - rate.low for rate in rates], [rate.high - rate.value for rate in rates]],
            marker=look.marker, color=look.color, capsize=4, elinewidth=1.2,
            label="highest throughput; a dot is a trial",
        )  # fmt: skip
        cross_flagged(axes, told, "workers", "highest_rps")
        if found is not None:
            _draw_sustained(axes, found[found["reason"] == ""])
        axes.set_ylabel("requests/s")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("workers")
        axes.set_xlim(0.5, most + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="lower right")
        reference_line(axes, x=cpus, text=f"{cpus:g} CPUs")
        beside(axes, [(float(most), base_rps * most, "ideal", QUIET)])
    return figure


def _draw_sustained(axes: Axes, found: pd.DataFrame) -> None:
    """Draw each search as the stretch between its bounds, the held rate marked."""
    width_rps = found["upper_rps"] - found["lower_rps"]
    axes.errorbar(
        found["workers"], found["lower_rps"], yerr=[0 * width_rps, width_rps], marker="o", linestyle="-.",
        color=SLO["color"], capsize=6, elinewidth=2.4,
        label="sustained rate, between its bounds",
    )  # fmt: skip


def _title(trials: pd.DataFrame, points: list[Point], cpus: float) -> str:
    """Say how far more workers help, or that these trials cannot tell."""
    top, most = scaling.per_cpu(points, round(cpus)), points[-1].workers
    if top is None or not top.speedup.is_interval:
        blocks = units.counted(points[0].speedup.trials, "block")
        return f"Highest throughput of 1 to {most} workers, in {blocks}"
    gain = f"1 to {top.workers} workers: {units.digits(top.speedup.value)} times the throughput"
    over = scaling.ratio(trials, most, top.workers) if most > top.workers else None
    return f"{gain}; {top.workers} to {most}: {units.digits(over.value)} times" if over else gain


_REACHED = "#0b3c5d"

SEGMENTS = {
    "on_cpu": "#cf5a6f",
    "cpu_speed": "#6cc4b8",
    "in_loop": "#f4d35e",
    "busy": "#eef2f5",
}
"""The colour of each loss, from the measured speed-up upwards: lighter and lighter."""

_LEAST_NAMED = 0.005
"""A loss below this share of the ideal is too thin to see, so it is not named."""


def stack_figure(stacks: pd.DataFrame, cpus: float) -> Figure | None:
    """Draw a bar per number of workers, from the measured speed-up up to the ideal; None without a stack."""
    if stacks.empty:
        return None
    one = pd.Series({"workers": 1.0, "speedup": 1.0} | {f"lost_{name}": 0.0 for name in LOSSES})
    bars = [one, *(scaling.middle(mine) for _, mine in stacks.groupby("workers"))]
    with canvas(_stack_title(stacks, cpus), height=4.2) as (figure, (axes,)):
        axes.grid(axis="x", visible=False)
        for place, bar in enumerate(bars):
            _bar(axes, place, bar)
        reference_line(axes, y=cpus, text="")
        axes.set_xticks(range(len(bars)), [f"{bar['workers']:g}" for bar in bars])
        axes.set_xlim(-0.5, len(bars) - 0.4)
        axes.set_ylim(0, 1.1 * max(axes.dataLim.ymax, float(bars[-1]["workers"])))
        axes.set_xlabel("workers")
        axes.set_ylabel("speed-up, in workers' worth")
        _names(axes, len(bars), bars[-1], cpus)
    return figure


def _stack_title(stacks: pd.DataFrame, cpus: float) -> str:
    """Name the largest loss of the most workers, if the blocks tell one."""
    loss = scaling.largest_loss(stacks, int(stacks["workers"].max()))
    if loss is None or not loss.is_told:
        return "Where the rest of the ideal speed-up went"
    whose = f"{loss.workers} workers on {units.counted(cpus, 'CPU')}"
    return f"{whose}: {100 * loss.share.value:.0f} % of the ideal is {scaling.LOST_BY[loss.name]}"


def _bar(axes: Axes, place: int, bar: "pd.Series[float]") -> None:
    """Draw the measured speed-up, the losses above it, and the ideal that they reach.

    A factor that gained has no segment: the stack then ends above the ideal by what it gained.
    """
    ideal, reached = bar["workers"], bar["speedup"]
    axes.bar(place, reached, 0.62, color=_REACHED)
    top = reached
    for name, color in SEGMENTS.items():
        lost = max(0.0, ideal * bar[f"lost_{name}"])
        axes.bar(place, lost, 0.62, bottom=top, color=color, edgecolor="white", linewidth=0.8)
        top += lost
    axes.plot([place - 0.36, place + 0.36], [ideal, ideal], color=INK, linewidth=1.6)
    axes.annotate(
        f"{units.digits(reached)}\nof {ideal:g}", (place, max(ideal, top)), xytext=(0, 4),
        textcoords="offset points", ha="center", fontweight="bold", bbox=HALO,
    )  # fmt: skip


def _names(axes: Axes, bars: int, bar: "pd.Series[float]", cpus: float) -> None:
    """Name the segments of the last bar beside it, far enough apart to read, each with what it took."""
    ideal, top, right = bar["workers"], bar["speedup"], bars - 1 + 0.31
    labels = [(right, top / 2, f"measured: {units.digits(top)}", _REACHED)]
    for name in SEGMENTS:
        share = bar[f"lost_{name}"]
        if share >= _LEAST_NAMED:
            height = top + ideal * share / 2
            labels.append((right, height, f"{LOSSES[name]}: {_plain(ideal * share)}", INK))
        top += max(0.0, ideal * share)
    if top - ideal >= _LEAST_NAMED * ideal:
        labels.append((right, top, f"gained elsewhere: {_plain(top - ideal)}", INK))
    most = f"{units.counted(cpus, 'CPU')} give{'s' if cpus == 1 else ''} no more"
    beside(axes, [*labels, (right, cpus, most, QUIET)])


def _plain(workers: float) -> str:
    return f"{workers:.2f}" if workers < 1 else units.digits(workers)
