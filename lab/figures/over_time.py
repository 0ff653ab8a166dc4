"""An attack second by second: throughput by outcome, latency quantiles, and requests in flight."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from lab import units
from lab.figures.style import DARK_TO_LIGHT, INK, canvas, reference_line

_FAILURES = ("http_error", "timeout", "refused", "reset", "client_error", "dropped")
_HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++")
_QUANTILES = ("p50_s", "p90_s", "p99_s")

Edges = NDArray[np.float64]


def over_time(rows: pd.DataFrame, title: str, stopped_s: float | None = None, subtitle: str = "") -> Figure:
    """Draw the rows that `lab.load.summary` makes: three panels over one axis of seconds.

    `stopped_s`, marked in the figure, is when the attack was interrupted.
    """
    bin_s = float(rows["start_s"].diff().iloc[1]) if len(rows) > 1 else 1.0
    edges_s = np.append(rows["start_s"], rows["start_s"].iloc[-1] + bin_s)
    with canvas(title, rows=3, size=(8.6, 7.0), sharex=True, height_ratios=(3, 3, 2)) as (figure, axes):
        _throughput(axes[0], rows, edges_s, bin_s)
        _latency(axes[1], rows, edges_s[:-1] + bin_s / 2)
        _in_flight(axes[2], rows, edges_s)
        if stopped_s is not None:
            for panel in axes:
                reference_line(panel, x=max(stopped_s, 0.0), text="interrupted" if panel is axes[0] else "")
        axes[0].set_title(subtitle, fontsize=9, fontweight="normal", parse_math=False)
        figure.align_ylabels()
    return figure


def _throughput(axes: Axes, rows: pd.DataFrame, edges_s: Edges, bin_s: float) -> None:
    """Stack what ended, good answers below and failures above, under the line of what fell due."""
    ok_look, bad_look = DARK_TO_LIGHT[2], DARK_TO_LIGHT[1]
    below = rows["ok"] / bin_s
    axes.bar(edges_s[:-1], below, 0.9 * bin_s, align="edge", color=ok_look.color, label="ok")
    for name, hatch in zip(_FAILURES, _HATCHES, strict=True):
        if rows[name].any():
            axes.bar(
                edges_s[:-1], rows[name] / bin_s, 0.9 * bin_s, bottom=below, align="edge",
                color=bad_look.color, hatch=hatch, edgecolor="white", linewidth=0, label=name,
            )  # fmt: skip
            below = below + rows[name] / bin_s
    due_rps = np.append(rows["due"], rows["due"].iloc[-1]) / bin_s
    axes.step(edges_s, due_rps, where="post", color=INK, linewidth=1.2, label="offered")
    axes.set_ylim(0, 1.25 * max(below.max(), due_rps.max()))
    axes.set_ylabel("requests per second")
    axes.legend(loc="upper right", ncols=len(_FAILURES) + 2, columnspacing=1.4)


def _latency(axes: Axes, rows: pd.DataFrame, at_s: Edges) -> None:
    """Draw the quantiles of what was due in each bin, and shade from the median to the slowest hundredth."""
    shade: dict[str, Any] = {"color": DARK_TO_LIGHT[2].color, "alpha": 0.18, "linewidth": 0}
    axes.fill_between(at_s, rows["p50_s"], rows["p99_s"], **shade)
    for name, look in zip(_QUANTILES, DARK_TO_LIGHT, strict=False):
        line = axes.plot(at_s, rows[name], look.marker + look.line, color=look.color, markersize=3.5)[0]
        line.set_label(name.removesuffix("_s"))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: units.seconds(y)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    if rows["p50_s"].notna().any():  # room for the legend, and no exaggerated wiggles
        axes.set_ylim(rows["p50_s"].min() / 2, 4 * rows["p99_s"].max())
    axes.set_ylabel("latency, by due time")
    axes.legend(loc="upper right", ncols=3)


def _in_flight(axes: Axes, rows: pd.DataFrame, edges_s: Edges) -> None:
    """Draw how many requests were unanswered at each edge of the bins."""
    unanswered = np.append(0, rows["in_flight"])
    axes.fill_between(edges_s, unanswered, color=INK, alpha=0.15, linewidth=0)
    axes.plot(edges_s, unanswered, color=INK)
    axes.set_ylim(0, max(1.0, 1.1 * unanswered.max()))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlim(0, edges_s[-1])
    axes.set_ylabel("requests in flight")
    axes.set_xlabel("seconds from the start")
