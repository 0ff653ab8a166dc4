"""The instrument itself: what it makes of a stall, and how far it lags behind its schedule."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from lab import units
from lab.figures.style import DARK_TO_LIGHT, INK, QUIET, Look, canvas, plain_log_ticks, reference_line


def stall(requests: pd.DataFrame, title: str) -> Figure:
    """Draw each request's latency where it was due, for each loop, over the known sawtooth.

    `requests` has columns loop, due_s, latency_s, known_s.
    """
    with canvas(title) as (figure, (axes,)):
        for (loop, mine), look in zip(requests.groupby("loop", sort=False), DARK_TO_LIGHT, strict=False):
            axes.plot(
                mine["due_s"], mine["latency_s"], look.marker, color=look.color, markersize=4.5,
                alpha=0.7, label=loop, rasterized=True,
            )  # fmt: skip
        known = requests[requests["loop"] == requests["loop"].iloc[0]].sort_values("due_s")
        axes.plot(known["due_s"], known["known_s"], color=INK, linewidth=1.2, label="known answer")
        axes.set_xlabel("when the request was due, s from the start")
        axes.set_ylabel("latency from the due time, s")
        axes.set_ylim(bottom=-0.02 * float(requests["latency_s"].max()))
        axes.legend(loc="upper right")
    return figure


def send_lag(lags: pd.DataFrame, limit_s: float, title: str) -> Figure:
    """Draw median and p99 of the send lag against the offered rate; a trial that did not hold is a cross.

    `lags` has columns connections, rate_rps, lag_p50_s, lag_p99_s, held; a row is a trial.
    """
    with canvas(title, size=(7.8, 4.6)) as (figure, (axes,)):
        for (name, mine), look in zip(lags.groupby("connections", sort=False), DARK_TO_LIGHT, strict=False):
            held = mine[mine["held"]]
            for column, line in (("lag_p99_s", look.line), ("lag_p50_s", ":")):
                hollow = column == "lag_p50_s"
                axes.plot(
                    held["rate_rps"], held[column], look.marker, linestyle=line, color=look.color,
                    markerfacecolor="white" if hollow else look.color,
                    label=f"{name}: {'median' if hollow else 'p99'}",
                )  # fmt: skip
            _lost(axes, str(name), mine, look)
        reference_line(axes, y=limit_s, text="p99 that is believed whatever the latency")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sorted(set(lags["rate_rps"])), minor=False)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        plain_log_ticks(axes.yaxis, units.seconds)
        axes.margins(x=0.1)
        axes.set_xlabel("offered rate, requests/s (log scale)")
        axes.set_ylabel("send lag: sent - due (log scale)")
        figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


def _lost(axes: Axes, name: str, trials: pd.DataFrame, look: Look) -> None:
    """Cross out the trials that did not hold, and write beside them how many of that rate did."""
    lost = trials[~trials["held"]]
    if lost.empty:
        return
    axes.plot(
        lost["rate_rps"], lost["lag_p99_s"], "x", color=look.color, markersize=8,
        label=f"{name}: did not hold (p99)",
    )  # fmt: skip
    for rate_rps, at_s in lost.groupby("rate_rps")["lag_p99_s"].max().items():
        held = trials.loc[trials["rate_rps"] == rate_rps, "held"]
        axes.annotate(
            f"{held.sum()} of {len(held)} held", (rate_rps, at_s), xytext=(0, 7), textcoords="offset points",
            ha="center", fontsize=8.5, color=look.color,
        )  # fmt: skip


_SHOWN = {"p50_s": -0.22, "p90_s": 0.0, "p99_s": 0.22}
"""Quantiles, and how far below its tool's line each is drawn."""


def peer_tools(seen: pd.DataFrame, title: str) -> Figure | None:
    """Draw p50, p90 and p99 of each tool, the first row on top; a bar spans what a tool rounds away.

    `seen` has columns tool, schedule, resolution_s, throughput_rps, p50_s, p90_s, p99_s. None for one tool.
    """
    told = seen[seen["p50_s"].notna()].reset_index(drop=True)
    if len(told) < 2:
        return None
    least_s = 0.7 * min(told[name].where(told[name] > told["resolution_s"]).min() for name in _SHOWN)
    with canvas(title, size=(7.8, 2.0 + 0.5 * len(told))) as (figure, (axes,)):
        for (name, below), look in zip(_SHOWN.items(), DARK_TO_LIGHT, strict=False):
            for place, (_, row) in enumerate(told.iterrows()):
                height = [place + below] * 2
                color = QUIET if row["schedule"] == "closed" else look.color
                span_s = np.array([-1, 1]) * row["resolution_s"] + row[name]
                axes.plot(span_s.clip(least_s), height, color=color, linewidth=4, alpha=0.35)
                axes.plot(max(row[name], least_s), height[0], look.marker, color=color, markersize=7)
            axes.axvline(told[name].iloc[0], color=look.color, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
            axes.plot([], [], look.marker, color=look.color, label=name.removesuffix("_s"))
        axes.set_yticks(range(len(told)), [_label(row) for _, row in told.iterrows()])
        axes.invert_yaxis()
        axes.set_xscale("log")
        plain_log_ticks(axes.xaxis, units.seconds)
        axes.set_xlabel("latency (log scale); dashed: ours; grey: a closed loop, at a rate of its own")
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside lower center", ncols=len(_SHOWN))
    return figure


def _label(row: "pd.Series[float]") -> str:
    return f"{row['tool']}, {units.per_second(row['throughput_rps'])}"
