"""The trials of every arrangement, in figures whose titles say what can be told."""

import math
from collections.abc import Sequence
from typing import Any

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
from lab.figures import DARK_TO_LIGHT, GRID, INK, QUIET, Look, canvas, plain_log_ticks
from lab.models.statistics import Estimate

_MOST_COLUMNS = 4
_TAIL, _P50 = DARK_TO_LIGHT[1], DARK_TO_LIGHT[0]


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
    size = (max(7.4, 2.6 * columns), 2.9 * rows + 0.4)
    with canvas(_title(arrivals), rows, columns, size, sharex=True, sharey=True) as (figure, panels):
        for axes, (name, group) in zip(panels, groups, strict=False):
            _panel(axes, group, int(mine["workers"].max()), arrivals)
            axes.set_title(name)
        for axes in panels[len(groups) :]:
            axes.set_axis_off()
        panels[0].set_yscale("log")
        panels[0].set_ylim(0.8, 2.2 * max(10.0, float(mine["tail"].max())))
        panels[0].set_xlim(0, max(1.05, 1.05 * float(mine["utilisation"].max())))
        panels[0].xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))  # also far beyond 100 %
        plain_log_ticks(panels[0].yaxis)
        panels[0].xaxis.set_major_formatter(PercentFormatter(1))
        for axes in panels[::columns]:
            axes.set_ylabel("latency, service times")
        for axes in panels[len(groups) - columns : len(groups)]:  # those with none below them
            axes.set_xlabel("own utilisation")
            axes.tick_params(labelbottom=True)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _title(arrivals: str) -> str:
    kind = "Random arrivals" if arrivals == "poisson" else "A constant rate"
    return f"{kind}: does latency follow theory?"


def _panel(axes: Axes, trials: pd.DataFrame, workers: int, arrivals: str) -> None:
    queue, tail = trials["queue"].iloc[0], tail_name(trials)
    theory = curve(queue, workers, arrivals, float(trials["tail_share"].iloc[0]))
    axes.axvspan(1, 9, color=GRID, zorder=0)  # from here on, the queue grows without end
    axes.axhline(1, color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.text(0.03, 0.97, queue, transform=axes.transAxes, va="top", fontsize=8, color=QUIET, style="italic")
    drawn = {"tail": (tail, _TAIL, "-"), "p50": ("p50", _P50, (0, (2, 1)))}
    for column, (name, look, line) in drawn.items() if tail != "p50" else [("p50", drawn["p50"])]:
        axes.plot(theory["utilisation"], theory[column], color=look.color, linestyle=line, linewidth=1.3,
                  alpha=0.75, label=f"{name}, theory")  # fmt: skip
        axes.plot(trials["utilisation"], trials[column], look.marker, color=look.color,
                  markeredgecolor="white", markersize=7, label=f"{name}, a trial")  # fmt: skip


_RAW, _OVER_IDEAL = DARK_TO_LIGHT[0], DARK_TO_LIGHT[1]
_COINS: dict[str, Any] = {"color": DARK_TO_LIGHT[2].color, "alpha": 0.5}


def comparison_figure(trials: pd.DataFrame) -> Figure | None:
    """Draw mean latency over the reference's, and the busiest worker's share beside what fair coins give.

    A row per arrangement; None if there are no two to compare.
    """
    found = comparisons(trials)
    if len(found) < 2:
        return None
    reference, size = found[0].name, (10.4, 2.1 + 0.5 * len(found))
    with canvas(_finding(trials, reference), columns=2, size=size, sharey=True) as (figure, (left, right)):
        left.axvspan(1 / LATENCY_MATTERS, LATENCY_MATTERS, color=GRID, label="too little to matter")
        right.axvspan(1, SHARE_MATTERS, color=GRID)
        for height, one in enumerate(found):
            if height:
                _dots(left, height - 0.1, one.mean, _RAW, one.each)
                _dots(left, height + 0.1, one.over_ideal, _OVER_IDEAL)
            if shared := share(one.trials):
                usual, most = shared.by_chance
                right.barh(
                    height, most - usual, left=usual, height=0.6, color=DARK_TO_LIGHT[2].color, alpha=0.5
                )
                _dots(right, height, shared.found, _RAW, list(one.trials["busiest"]))
        left.plot(1, 0, "|", color=INK, markersize=16, markeredgewidth=2)
        left.annotate(
            "the reference", (1, 0), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9
        )
        left.set_yticks(range(len(found)), [one.name for one in found])
        left.set_ylim(len(found) - 0.4, -0.6)
        left.set_xscale("log")
        left.xaxis.set_major_locator(LogLocator(subs=(0.5, 0.7, 1, 1.5, 2, 3)))
        left.xaxis.set_major_formatter("{x:g}")
        left.xaxis.set_minor_locator(NullLocator())
        left.set_title("How long requests take")
        left.set_xlabel(f"mean latency, multiples of that with {reference}")
        right.set_title("Who answers")
        right.set_xlabel("answers of the busiest worker, multiples of its fair share")
        right.set_xlim(0.95, 1.02 * right.get_xlim()[1])
        for look, text in ((_RAW, "as measured"), (_OVER_IDEAL, "over an ideal queue of the same loops")):
            left.plot([], [], look.marker, color=look.color, label=text)
        left.bar(1, 0, **_COINS, label="fair coins: median to 95 %")
        for axes in (left, right):
            axes.grid(visible=False, axis="y")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _finding(trials: pd.DataFrame, reference: str) -> str:
    than = by_word({one.name: one.mean for one in comparisons(trials)[1:]})
    if than["more"]:
        return f"Random arrivals: requests take longer than with {reference} with {_names(than['more'])}"
    if than["less"]:
        return f"Random arrivals: requests take less time than with {reference} with {_names(than['less'])}"
    return f"Random arrivals: is any arrangement slower than {reference}, and who answers?"


def _names(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _dots(axes: Axes, height: float, median: Estimate, look: Look, each: Sequence[float] = ()) -> None:
    """Draw the median with its value and its interval, and a pale dot per block."""
    axes.plot(each, [height] * len(each), look.marker, color=look.color, alpha=0.3, markersize=5)
    axes.plot([median.low, median.high], [height, height], color=look.color, linewidth=2.0)
    axes.plot(median.value, height, look.marker, color=look.color, markersize=7)
    below = look is _OVER_IDEAL
    axes.annotate(f"{median.value:.2f}", (median.value, height), xytext=(0, -4 if below else 4), ha="center",
                  textcoords="offset points", va="top" if below else "bottom", fontsize=8.5)  # fmt: skip
