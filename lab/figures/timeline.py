"""What clients saw while things were done to a server: each request, what was done when, who was there."""

from itertools import cycle
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lab import formats
from lab.figures.style import DARK_TO_LIGHT, INK, QUIET, canvas

_LOST = DARK_TO_LIGHT[1].color
_WORKERS = (DARK_TO_LIGHT[0], DARK_TO_LIGHT[2], DARK_TO_LIGHT[3])
_MOST_NAMED = 6
"""Workers that the legend names; a crash loop makes more."""


def timeline(requests: pd.DataFrame, events: pd.DataFrame, title: str) -> Figure:
    """Draw a trial: `requests` has due_s, latency_s, outcome and worker; `events` at_s, event and workers.

    A dot is an answer, in the colour of the worker that gave it; a cross is a request that failed.
    """
    with canvas(title, rows=2, size=(8.6, 5.0), sharex=True, height_ratios=(4, 1)) as (figure, (top, bottom)):
        marks = events.loc[events["event"] != "", ["at_s", "event"]]
        last_s = 1.02 * float(max(requests["due_s"].max(), marks["at_s"].max()))
        _answers(top, requests[requests["outcome"] == "ok"])
        _losses(top, requests[requests["outcome"] != "ok"])
        top.set_yscale("log")
        low, high = requests["latency_s"].min(), requests["latency_s"].max()
        top.set_ylim(low / 2, high * 8)  # room for what the events say
        top.yaxis.set_major_formatter(FuncFormatter(lambda y, _: formats.seconds(y)))
        top.set_ylabel("latency")
        figure.legend(*top.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=9)
        bottom.step([*events["at_s"], last_s], [*events["workers"], events["workers"].iloc[-1]],
                    where="post", color=INK, linewidth=1.6)  # fmt: skip
        bottom.set_ylim(0, float(events["workers"].max()) + 0.6)
        bottom.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
        bottom.set_ylabel("workers")
        bottom.set_xlabel("seconds from the first request")
        bottom.set_xlim(0, last_s)
        for number, (at_s, text) in enumerate(zip(marks["at_s"], marks["event"], strict=True)):
            _mark(top, bottom, at_s, text, number, last_s)
    return figure


def _answers(axes: Axes, answered: pd.DataFrame) -> None:
    workers = answered.sort_values("end_s")["worker"].dropna().unique()
    for number, (worker, look) in enumerate(zip(workers, cycle(_WORKERS), strict=False), start=1):
        mine = answered[answered["worker"] == worker]
        axes.plot(mine["due_s"], mine["latency_s"], look.marker, color=look.color, markersize=4, alpha=0.7,
                  label=f"worker {number}" if number <= _MOST_NAMED else None, rasterized=True)  # fmt: skip


def _losses(axes: Axes, lost: pd.DataFrame) -> None:
    if len(lost):
        axes.plot(lost["due_s"], lost["latency_s"], "X", color=_LOST, markersize=8, markeredgecolor="white",
                  label="lost", zorder=5)  # fmt: skip


def _mark(top: Axes, bottom: Axes, at_s: float, text: str, number: int, last_s: float) -> None:
    for axes in (top, bottom):
        axes.axvline(at_s, color=QUIET, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    shift, side = (-4, "right") if at_s > 0.6 * last_s else (4, "left")
    top.annotate(
        fill(text, 48), (at_s, 1), xycoords=("data", "axes fraction"), textcoords="offset points",
        xytext=(shift, -4 - 13 * (number % 3)), ha=side, va="top", fontsize=9, color=INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85},
    )  # fmt: skip
