"""Every server in a row beside the ideal; and what a faster loop buys beside more workers."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from lab import units
from lab.experiments.dispatch.answer import told
from lab.experiments.other_servers.analysis import (
    HOW,
    MATTERS,
    Found,
    Speed,
    bought,
    speeds,
    tail_name,
)
from lab.experiments.other_servers.servers import is_ours
from lab.figures import IDEAL, INK, ONE, SERVERS, SMALL, Look, canvas, legend_below, plain_log_ticks
from lab.models.statistics import Estimate

_OURS, _PEER = SERVERS["round-robin"], Look("#8a97a3", "o")
_ONE, _ALL = ONE, SERVERS["round-robin"]
_MARKERS = dict(zip(HOW, "vs^", strict=True))


def servers_figure(servers: Sequence[Found], trials: pd.DataFrame) -> Figure | None:
    """Draw a row for each server, nearest to the ideal first; None if none was measured.

    The panels: the share of its own limit in overload, the tail over one ideal queue's, the busiest worker's
    share, and, if it was measured, the share of requests that a slow one delays. Ours are dark and bold.
    """
    shown = sorted((one for one in servers if one.limit or one.tail), key=_distance)
    if not shown:
        return None
    delays = any(one.delayed for one in shown)
    height = 2.2 + 2 * 0.27 * max(4, len(shown))
    with canvas(_title(shown), rows=2, columns=2, height=height, sharey=True) as (figure, panels):
        tail = tail_name(trials)
        _panel(panels[0], "In overload", "share of its\nown limit", 1.0)
        _panel(panels[1], "The slowest wait", f"{tail} over an\nideal queue's", 1.0)
        _panel(panels[2], "Who answers", "busiest worker over\nits fair share", 1.0)
        for height, one in enumerate(shown):
            look = _OURS if is_ours(one.server) else _PEER
            _dot(panels[0], height, one.limit, look)
            _dot(panels[1], height, one.tail, look)
            for offset, (how, marker) in zip((-0.22, 0.0, 0.22), _MARKERS.items(), strict=True):
                _dot(panels[2], height + offset, getattr(one, how), Look(look.color, marker), size=4)
            if delays:
                _dot(panels[3], height, one.delayed, look)
        if not delays:
            panels[3].set_axis_off()
        if delays:
            _panel(panels[3], "A slow request", "share of others\nthat it delays", 0.0)
            panels[3].set_xlim(-0.03, 1.03)
            panels[3].xaxis.set_major_formatter(PercentFormatter(1))
        panels[0].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        panels[0].xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        _log(panels[1])
        panels[0].set_yticks(range(len(shown)), [one.name for one in shown])
        for axes in panels[::2]:
            for tick, one in zip(axes.get_yticklabels(), shown, strict=True):
                tick.set_fontsize(SMALL)
                tick.set_fontweight("bold" if is_ours(one.server) else "normal")
        panels[0].set_ylim(len(shown) - 0.4, -0.6)
        for how, marker in _MARKERS.items():
            panels[2].plot([], [], marker, color=INK, markersize=4.5, label=f"connections: {HOW[how]}")
        for look, whose in ((_OURS, "ours"), (_PEER, "a server that others wrote")):
            panels[2].plot([], [], color=look.color, linewidth=5, label=whose)
        panels[2].plot([], [], **IDEAL, label="the ideal")
        legend_below(figure, panels[2])
    return figure


def _distance(one: Found) -> float:
    return one.tail.value if one.tail else np.inf


def _title(shown: Sequence[Found]) -> str:
    known = [one for one in shown if one.tail]
    if len(known) < 2:
        return "How far is each server from the ideal?"
    nearest, furthest = known[0], known[-1]
    first, last = nearest.tail, furthest.tail
    if first and last and first.is_interval and last.is_interval and first.high < last.low:
        return f"Nearest to one ideal queue: {nearest.name}; furthest: {furthest.name}"
    return "Which server comes nearest to one ideal queue of its own requests?"


def _panel(axes: Axes, title: str, name: str, ideal: float) -> None:
    axes.set_title(title)
    axes.set_xlabel(name)
    axes.axvline(ideal, **IDEAL)


def _dot(axes: Axes, height: float, found: Estimate | None, look: Look, size: float = 5.5) -> None:
    if found is None:
        return
    axes.plot([found.low, found.high], [height, height], color=look.color, linewidth=1.8, alpha=0.7)
    axes.plot(found.value, height, look.marker, color=look.color, markersize=size)


def _log(axes: Axes) -> None:
    """Ratios are alike on both sides of 1 on such an axis."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(0.5, 1, 2)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def speed_figure(servers: Sequence[Found], trials: pd.DataFrame) -> Figure | None:
    """Draw the requests per second of each loop, by one process and by all workers; None if not measured."""
    known = speeds(servers, trials)
    if not known:
        return None
    with canvas(_speed_title(known), height=1.4 + 0.65 * len(known)) as (figure, (axes,)):
        for height, speed in enumerate(known):
            for found, look, aside in ((speed.one, _ONE, 0.12), (speed.all, _ALL, -0.12)):
                _dot(axes, height + aside, found, look, size=8)
                axes.annotate(
                    units.per_second(found.value), (found.value, height + aside), ha="center", fontsize=SMALL,
                    xytext=(0, -7 if aside > 0 else 7), textcoords="offset points",
                    va="top" if aside > 0 else "bottom",
                )  # fmt: skip
        for look, name in ((_ONE, "one process"), (_ALL, "all workers")):
            axes.plot([], [], look.marker, color=look.color, markersize=8, label=name)
        axes.set_yticks(range(len(known)), [speed.loop for speed in known])
        axes.set_ylim(len(known) - 0.5, -0.7)
        axes.set_xscale("log")
        plain_log_ticks(axes.xaxis)
        axes.margins(x=0.12)
        axes.set_xlabel("requests per second in overload (log scale)")
        axes.grid(visible=False, axis="y")
        legend_below(figure, axes)
    return figure


def _speed_title(known: Sequence[Speed]) -> str:
    buys = bought(known)
    if not buys or not all(told(found, MATTERS) == "more" for found in buys[1:]):
        return "What does a faster loop buy, and what do more workers?"
    loop, faster, more = buys
    return f"A loop in {loop} answers {faster.value:.1f} times as much, more workers {more.value:.1f} times"
