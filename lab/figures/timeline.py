"""What clients saw while things were done to a server: each request, what was done when, who was there."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lab import formats
from lab.figures.style import DARK_TO_LIGHT, GRID, INK, QUIET, canvas, plain_log_ticks

_LOST = DARK_TO_LIGHT[1].color
_LOOKS = (DARK_TO_LIGHT[0], DARK_TO_LIGHT[2])


@dataclass(frozen=True)
class Span:
    """A stretch of time in which something was going on, and what; seconds from the first request."""

    from_s: float
    to_s: float
    text: str


def timeline(
    requests: pd.DataFrame, events: pd.DataFrame, spans: Sequence[Span], kinds: tuple[str, str], title: str
) -> Figure:
    """Draw a trial: `requests` has due_s, latency_s, outcome and kind; `events` has at_s and workers.

    A mark is an answer; `kind` is 0 or 1, and says which of the `kinds` of workers gave it. Crosses along the
    bottom are requests that failed, where they were due: how long a failure takes means nothing here.
    """
    with canvas(title, rows=2, size=(8.6, 4.8), sharex=True, height_ratios=(4, 1)) as (figure, (top, bottom)):
        last_s = 1.02 * float(max(requests["due_s"].max(), *(span.to_s for span in spans)))
        _answers(top, requests[requests["outcome"] == "ok"], kinds)
        _losses(top, requests[requests["outcome"] != "ok"])
        _latency_axis(top, requests)
        figure.legend(*top.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
        _workers(bottom, events, last_s)
        bottom.set_xlabel("time from the first request, s")
        bottom.set_xlim(0, last_s)
        for span in spans:
            _shade(top, bottom, span, last_s)
    return figure


def _answers(axes: Axes, answered: pd.DataFrame, kinds: tuple[str, str]) -> None:
    for number, (look, kind) in enumerate(zip(_LOOKS, kinds, strict=True)):
        mine = answered[answered["kind"] == number]
        axes.plot(mine["due_s"], mine["latency_s"], look.marker, color=look.color, markersize=4.5, alpha=0.8,
                  label=f"answered by {kind}", rasterized=True)  # fmt: skip


def _losses(axes: Axes, lost: pd.DataFrame) -> None:
    if len(lost):
        axes.plot(lost["due_s"], [0.05] * len(lost), "X", color=_LOST, markersize=8, markeredgewidth=0,
                  transform=axes.get_xaxis_transform(), label=f"lost: {len(lost)}", zorder=5)  # fmt: skip


def _latency_axis(axes: Axes, requests: pd.DataFrame) -> None:
    answered = requests[requests["outcome"] == "ok"]
    latency_s = (answered if len(answered) else requests)["latency_s"]
    axes.set_yscale("log")
    axes.set_ylim(latency_s.min() / 2.2, latency_s.max() * 2.5)  # room for losses below and words above
    plain_log_ticks(axes.yaxis, formats.seconds)
    axes.set_ylabel("latency")


def _workers(axes: Axes, events: pd.DataFrame, last_s: float) -> None:
    at_s = [*events["at_s"].clip(lower=0), last_s]
    workers = [*events["workers"], events["workers"].iloc[-1]]
    axes.fill_between(at_s, workers, step="post", color=GRID)
    axes.step(at_s, workers, where="post", color=INK, linewidth=1.6)
    axes.set_ylim(0, max(workers) + 0.6)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
    axes.set_ylabel("workers")


def _shade(top: Axes, bottom: Axes, span: Span, last_s: float) -> None:
    for axes in (top, bottom):
        axes.axvspan(span.from_s, span.to_s, color=QUIET, alpha=0.16, linewidth=0, zorder=0)
        axes.axvline(span.from_s, color=QUIET, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    at_s, shift, side = (span.to_s, -4, "right") if span.from_s > 0.6 * last_s else (span.from_s, 4, "left")
    top.annotate(
        span.text, (at_s, 1), xycoords=("data", "axes fraction"), textcoords="offset points",
        xytext=(shift, -5), ha=side, va="top", fontsize=9.5, color=INK,
    )  # fmt: skip
