"""The staircase from a rate to its workers, and the latency of balancing policies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from lab import units
from lab.experiments.capacity.balancing import NAMES, latency, nodes, overtakes, pick, variations
from lab.experiments.capacity.case import Case, Sustained, rate_in_words
from lab.figures import (
    BAD,
    GRID,
    HALO,
    IDEAL,
    INK,
    QUIET,
    SERVERS,
    SLO,
    SMALL,
    Look,
    beside,
    canvas,
    legend_below,
    plain_log_ticks,
)
from lab.models.balancing import POLICIES, Policy, alone

_PLAN = SERVERS["round-robin"]
_MANY = 40
"""From so many workers on, axes are logarithmic."""


def staircase(
    steps: pd.DataFrame, case: Case, rate_rps: float, sustained: Sustained, *, validated: int, cpus: int
) -> Figure | None:
    """Draw the workers that each rate needs, without headroom, and the planned rate with it.

    `steps` are those of `plan.staircase`. Solid: up to as many workers as there are CPUs, `validated` of them
    by trials; dashed: theory alone; hatched: more workers than CPUs. None if no number of workers sustains
    any rate.
    """
    if not steps["usual"].max() > 0:
        return None
    needed = case.needed(rate_rps).workers if rate_rps else None
    title = f"{case.slo}: which rate needs how many workers"
    if needed:
        room = f" + {units.percent(case.headroom)}" if case.headroom else ""
        title = f"{rate_in_words(rate_rps)}{room}, {case.slo}: {units.counted(needed, 'worker')}"
    with canvas(title, height=4.6) as (figure, (axes,)):
        _scaled(axes, steps)
        _ground(axes, cpus, int(steps["workers"].max()))
        _stairs(axes, steps, validated, cpus)
        _measured(axes, sustained, case.loop_s)
        _band(axes, steps)
        if needed:
            _asked(axes, rate_rps, case.headroom, needed)
        axes.set_xlabel("offered rate, requests/s")
        axes.set_ylabel("workers")
        legend_below(figure, axes, columns=1)
        _ideal(axes, case)
    return figure


def _scaled(axes: Axes, steps: pd.DataFrame) -> None:
    most, top_rps = int(steps["workers"].max()), float(steps["usual"].max())
    if most <= _MANY:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(0, 1.15 * most + 0.4)
        axes.set_xlim(0, 1.02 * top_rps)
        return
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.8, 8 * most)
    axes.set_xlim(float(steps.loc[steps["usual"] > 0, "usual"].min()) / 3, 1.5 * top_rps)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _ground(axes: Axes, cpus: int, most: int) -> None:
    """Hatch where there are more workers than CPUs here."""
    if most <= cpus:
        return
    axes.axhspan(
        cpus + 0.5, axes.get_ylim()[1], facecolor="none", edgecolor=GRID, hatch="///", linewidth=0, zorder=0
    )
    axes.annotate(
        f"hatched: more workers than the {units.counted(cpus, 'CPU')} here",
        (0, 1), xycoords="axes fraction", xytext=(6, -6), textcoords="offset points",
        va="top", fontsize=SMALL, color=QUIET, bbox=HALO, zorder=5,
    )  # fmt: skip


def _line(steps: pd.DataFrame, name: str, start: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return rates and workers: the corners of a staircase if no number is left out, else a line."""
    rates, workers = steps[name].to_numpy(float), steps["workers"].to_numpy(float)
    if workers[-1] > len(workers):
        return rates, workers
    return np.repeat([start, *rates], 2)[1:-1], np.repeat(workers, 2)


def _stairs(axes: Axes, steps: pd.DataFrame, validated: int, cpus: int) -> None:
    x, y = _line(steps, "usual", axes.get_xlim()[0])
    here = int(np.count_nonzero(y <= cpus))
    style: dict[str, Any] = {"color": _PLAN.color, "linewidth": 2.4, "zorder": 3}
    by_trials = f"; {validated} validated by trials" if validated else ""
    axes.plot(x[:here], y[:here], label=f"workers needed here{by_trials}", **style)
    if here < len(x):
        beyond = slice(max(0, here - 1), None)
        axes.plot(
            x[beyond], y[beyond], linestyle=(0, (3, 1.5)), label="workers needed, extrapolated", **style
        )


def _band(axes: Axes, steps: pd.DataFrame) -> None:
    """Shade what service times as in the fastest and in the slowest block would give."""
    if np.allclose(steps["slowest"], steps["fastest"]):
        return
    (slow, workers), (fast, _) = (_line(steps, name, axes.get_xlim()[0]) for name in ("slowest", "fastest"))
    axes.fill_betweenx(
        workers, slow, fast, color=_PLAN.color, alpha=0.18, linewidth=0, zorder=2,
        label="at the fastest to the slowest speed seen here",
    )  # fmt: skip


def _ideal(axes: Axes, case: Case) -> None:
    """Draw the fewest workers that any arrangement could need."""
    low, high = axes.get_xlim()
    is_log = axes.get_xscale() == "log"
    rates = np.geomspace(low, high, 100) if is_log else np.linspace(low, high, 100)
    axes.plot(rates, rates * case.mean_s, **IDEAL)
    beside(axes, [(high, high * case.mean_s, "ideal:\nalways\nbusy", QUIET)])


def _measured(axes: Axes, sustained: Sustained, loop_s: float) -> None:
    """Draw the sustained rate that was measured: the ends of its interval."""
    if sustained.share is None:
        return
    ends = [sustained.rate_rps(share, loop_s) for share in (sustained.share.low, sustained.share.high)]
    axes.plot(
        ends, [sustained.workers] * 2, "|-", color=SLO["color"],
        linewidth=5, markersize=13, markeredgewidth=2.5, solid_capstyle="butt", zorder=6,
        label="measured here: the sustained rate lies in between",
    )  # fmt: skip


def _asked(axes: Axes, rate_rps: float, headroom: float, needed: int) -> None:
    """Mark the rate, and what it needs with headroom."""
    planned_rps, room = rate_rps * (1 + headroom), ""
    axes.vlines(rate_rps, 0, needed, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=4)
    if headroom:
        room = f"\n+ {units.percent(headroom)} headroom"
        axes.plot([rate_rps, planned_rps], [needed] * 2, color=INK, linewidth=1.4, zorder=7)
    axes.plot([planned_rps], [needed], "o", color=INK, markersize=9, zorder=8)
    axes.annotate(
        f"{rate_in_words(rate_rps)}{room}:\n{units.counted(needed, 'worker')}", (planned_rps, needed),
        xytext=(9, -7), textcoords="offset points", ha="left", va="top",
        fontweight="bold", bbox=HALO, zorder=9,
    )  # fmt: skip


_LOOKS: Mapping[str, Look] = {
    "random": SERVERS["reuseport"],
    "round-robin": SERVERS["round-robin"],
    "two-choices": Look("#c9a227", "P", "-."),
    "shortest": SERVERS["least-busy"],
    "central": Look(INK, "*", "-"),
}
_LAWS = {0.0: "constant", 1.0: "exponential"}


def policies(found: Sequence[Policy], percentile: int) -> Figure:
    """Draw the latency of each policy against the variation of service times, a panel per slowest node."""
    speeds = sorted({one.slowest for one in found}, reverse=True)
    height = 0.3 + 3.0 * len(speeds)
    with canvas(_finding(found), rows=len(speeds), height=height, sharex=True, sharey=True) as (
        figure,
        panels,
    ):
        labels = []
        for axes, slowest in zip(panels, speeds, strict=True):
            labels.append(_panel(axes, pick(found, slowest=slowest), percentile / 100))
            axes.set_title(f"Nodes: {nodes(slowest)}")
        panels[-1].set_xlabel("how much service times vary (coefficient of variation)")
        panels[0].set_yscale("log")
        panels[0].set_ylim(0.8, 4 * panels[0].get_ylim()[1])  # room for words
        plain_log_ticks(panels[0].yaxis)
        for axes, ends in zip(panels, labels, strict=True):
            axes.set_ylabel(f"p{percentile}, in mean service times")
            beside(axes, ends)
    return figure


def _finding(found: Sequence[Policy]) -> str:
    rows = overtakes(found)
    turns = rows[(rows["overtaken"] == NAMES["round-robin"]) & rows["where"].str.contains("vary")]
    if turns.empty:
        return "Simulated: which balancing policy keeps latency low?"
    return "Simulated: round robin does as well as one queue only while all requests take equally long"


def _panel(axes: Axes, found: Sequence[Policy], quantile: float) -> list[tuple[float, float, str, str]]:
    """Draw each policy; return the labels of the lines' ends."""
    places = {variation: place for place, variation in enumerate(variations(found))}
    least = [alone(variation, quantile) for variation in places]
    axes.plot(list(places.values()), least, **IDEAL)
    ends, lost = {"": least[-1]}, []
    for policy in POLICIES:
        known = {places[one.variation]: latency(one) for one in pick(found, policy=policy)}
        drawn = [(place, one) for place, one in known.items() if one is not None]
        if not drawn:
            lost.append(NAMES[policy])
            continue
        look, values = _LOOKS[policy], [one.value for _, one in drawn]
        axes.errorbar(
            [place for place, _ in drawn], values,
            yerr=[[one.value - one.low for _, one in drawn], [one.high - one.value for _, one in drawn]],
            marker=look.marker, color=look.color, linestyle=look.line, capsize=3, elinewidth=1.0,
            markersize=10 if look.marker == "*" else 6, linewidth=2.4 if policy == "central" else 1.8,
        )  # fmt: skip
        ends[policy] = values[-1]
    if lost:
        axes.annotate(
            f"not drawn: {' and '.join(lost)}.\n"
            "The slow node gets more than it can do,\nso its queue has no end.",
            (0.02, 0.98), xycoords="axes fraction", va="top", fontsize=SMALL, fontweight="bold",
            color=BAD,
        )  # fmt: skip
    axes.set_xticks(list(places.values()), [_named(variation) for variation in places])
    axes.set_xlim(-0.3, len(places) - 0.8)
    return [
        (len(places) - 1, value, NAMES.get(name, "ideal: no wait"), _LOOKS[name].color if name else QUIET)
        for name, value in ends.items()
    ]


def _named(variation: float) -> str:
    law = _LAWS.get(variation)
    return f"{variation:g}\n{law}" if law else f"{variation:g}"
