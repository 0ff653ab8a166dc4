"""The trials of every arrangement, in figures whose titles say what can be told."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from lab.experiments.dispatch.answer import (
    LATENCY_MATTERS,
    SHARE_MATTERS,
    by_word,
    comparisons,
    share,
    tail_name,
)
from lab.experiments.dispatch.trials import by_arrangement, curve
from lab.figures import (
    GRID,
    HALO,
    IDEAL,
    INK,
    LIGHTER,
    PALE,
    QUIET,
    SERVERS,
    SMALL,
    THEORY,
    Look,
    canvas,
    legend_below,
    plain_log_ticks,
    server_look,
)
from lab.models.statistics import Estimate
from lab.units import percent

_MOST_COLUMNS = 2


def latency_figure(trials: pd.DataFrame, arrivals: str) -> Figure | None:
    """Draw latency against utilisation, a panel per arrangement, beside its theory; a dot is one trial.

    It covers new connections and these arrivals; None if they were not measured.
    """
    mine = trials[(trials["arrivals"] == arrivals) & ~trials["keepalive"]]
    if mine.empty:
        return None
    mine = mine.assign(p50=mine["latency_p50_s"] / mine["own_s"], tail=mine["tail_s"] / mine["own_s"])
    groups = by_arrangement(mine)
    rows = math.ceil(len(groups) / _MOST_COLUMNS)
    columns = math.ceil(len(groups) / rows)
    with canvas(_title(mine, arrivals), rows, columns, 1.75 * rows + 0.7, sharex=True, sharey=True) as (
        figure,
        panels,
    ):
        for axes, (name, group) in zip(panels, groups, strict=False):
            _panel(axes, name, group, int(mine["workers"].max()), arrivals)
            axes.set_title(name)
        for axes in panels[len(groups) :]:
            axes.set_axis_off()
        panels[0].set_yscale("log")
        panels[0].set_ylim(0.8, 4 * max(10.0, float(mine["tail"].max())))
        panels[0].set_xlim(0, max(1.05, 1.05 * float(mine["utilisation"].max())))
        panels[0].xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))  # also far beyond 100 %
        plain_log_ticks(panels[0].yaxis)
        panels[0].xaxis.set_major_formatter(PercentFormatter(1))
        for axes in panels[::columns]:
            axes.set_ylabel("service times")
        for axes in panels[len(groups) - columns : len(groups)]:  # those with none below them
            axes.set_xlabel("own utilisation")
            axes.tick_params(labelbottom=True)
        legend_below(figure, panels[0])
    return figure


_NEAR = 1.25
"""A median latency so many times that of theory, or nearer, follows it."""


def _title(trials: pd.DataFrame, arrivals: str) -> str:
    """Say of how many steady trials the median latency is near theory."""
    kind = "Random arrivals" if arrivals == "poisson" else "A constant rate"
    near, known = _near_theory(trials, arrivals)
    if not known:
        return f"{kind}: does latency follow theory?"
    steady = f"{near} of {known} trials below {percent(_STEADY)}"
    return f"{kind}: in {steady}, the p50 is within {_NEAR:g} times theory's"


_STEADY = 0.9


def _near_theory(trials: pd.DataFrame, arrivals: str) -> tuple[int, int]:
    """Count the steady trials, and those whose median is near that of their queue in theory."""
    workers, ratios = int(trials["workers"].max()), []
    for _, mine in by_arrangement(trials):
        theory = curve(mine["queue"].iloc[0], workers, arrivals, float(mine["tail_share"].iloc[0]))
        known = mine[(mine["utilisation"] < _STEADY) & mine["p50"].notna()]
        if len(theory) and theory["p50"].notna().any():
            ratios += list(
                known["p50"] / np.interp(known["utilisation"], theory["utilisation"], theory["p50"])
            )
    return sum(1 / _NEAR <= ratio <= _NEAR for ratio in ratios), len(ratios)


def _panel(axes: Axes, name: str, trials: pd.DataFrame, workers: int, arrivals: str) -> None:
    queue, tail = trials["queue"].iloc[0], tail_name(trials)
    theory = curve(queue, workers, arrivals, float(trials["tail_share"].iloc[0]))
    look = server_look(name)
    axes.axvspan(1, 9, color=GRID, zorder=0)  # from here on, the queue grows without end
    axes.axhline(1, **IDEAL)
    axes.text(
        0.03, 0.97, queue, transform=axes.transAxes, va="top", fontsize=SMALL, color=QUIET, style="italic"
    )
    drawn: dict[str, tuple[str, str, Any]] = {
        "tail": (tail, look.color, "-"),
        "p50": ("p50", look.color if tail == "p50" else "white", (0, (4, 1.5))),
    }
    for column, (called, fill, line) in drawn.items() if tail != "p50" else [("p50", drawn["p50"])]:
        axes.plot(
            theory["utilisation"], theory[column], **THEORY | {"linestyle": line}, label=f"{called}, theory"
        )
        axes.plot(
            trials["utilisation"], trials[column], look.marker, color=fill, markeredgecolor=INK,
            markersize=6, alpha=0.9, label=f"{called}, a trial",
        )  # fmt: skip


_RAW, _OVER_IDEAL = SERVERS["round-robin"], Look(LIGHTER, "D")
_COINS: dict[str, Any] = {"color": PALE, "alpha": 0.6}


def comparison_figure(trials: pd.DataFrame) -> Figure | None:
    """Draw mean latency over the reference's, and the busiest worker's share beside what fair coins give.

    A row per arrangement; None if there are no two to compare.
    """
    found = comparisons(trials)
    if len(found) < 2:
        return None
    reference, each = found[0].name, 0.42 * len(found)
    grid: dict[str, Any] = {"height_ratios": (1.25, 1)}
    with canvas(_finding(trials, reference), rows=2, height=2.6 + 2.1 * each, **grid) as (
        figure,
        (above, below),
    ):
        above.axvspan(1 / LATENCY_MATTERS, LATENCY_MATTERS, color=GRID, label="too little to matter")
        below.axvspan(1, SHARE_MATTERS, color=GRID)
        for height, one in enumerate(found):
            if height:
                _dots(above, height - 0.13, one.mean, _RAW, one.each)
                _dots(above, height + 0.13, one.over_ideal, _OVER_IDEAL)
            if shared := share(one.trials):
                usual, most = shared.by_chance
                below.barh(height, most - usual, left=usual, height=0.6, **_COINS)
                _dots(below, height, shared.found, _RAW, list(one.trials["busiest"]))
        above.plot(1, 0, "|", color=INK, markersize=16, markeredgewidth=2)
        above.annotate(
            "the reference", (1, 0), xytext=(6, 0), textcoords="offset points", va="center", fontsize=SMALL
        )
        for axes in (above, below):
            axes.set_yticks(range(len(found)), [one.name for one in found])
            axes.set_ylim(len(found) - 0.4, -0.6)
            axes.grid(visible=False, axis="y")
        above.set_xscale("log")
        lowest, highest = above.get_xlim()
        ticks = (1, 2, 5) if highest > 8 * lowest else (0.5, 0.7, 1, 1.5, 2, 3)
        above.xaxis.set_major_locator(LogLocator(subs=ticks))
        above.xaxis.set_major_formatter("{x:g}")
        above.xaxis.set_minor_locator(NullLocator())
        above.set_title("How long requests take")
        above.set_xlabel(f"mean latency, multiples of that with {reference}")
        below.set_title("Who answers")
        below.set_xlabel("answers of the busiest worker over its fair share")
        below.set_xlim(0.95, 1.02 * below.get_xlim()[1])
        for look, text in ((_RAW, "as measured"), (_OVER_IDEAL, "over an ideal queue's")):
            above.plot([], [], look.marker, color=look.color, label=text)
        above.bar(1, 0, **_COINS, label="fair coins: median to 95 %")
        legend_below(figure, above)
    return figure


def _finding(trials: pd.DataFrame, reference: str) -> str:
    than = by_word({one.name: one.mean for one in comparisons(trials)[1:]})
    if than["more"]:
        return f"Random arrivals: requests take longer with {_names(than['more'])} than with {reference}"
    if than["less"]:
        return f"Random arrivals: requests take less time with {_names(than['less'])} than with {reference}"
    return f"Random arrivals: is any arrangement slower than {reference}, and who answers?"


def _names(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _dots(axes: Axes, height: float, median: Estimate, look: Look, each: Sequence[float] = ()) -> None:
    """Draw the median with its value and its interval, and a pale dot per block."""
    axes.plot(each, [height] * len(each), look.marker, color=look.color, alpha=0.3, markersize=5)
    axes.plot([median.low, median.high], [height, height], color=look.color, linewidth=2.0)
    axes.plot(median.value, height, look.marker, color=look.color, markersize=7)
    axes.annotate(f"{median.value:.2f}", (median.high, height), xytext=(6, 0), va="center", fontsize=SMALL,
                  textcoords="offset points", color=look.color, bbox=HALO)  # fmt: skip
