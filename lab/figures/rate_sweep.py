"""Offered rate against throughput, latency and success, a server a series: where the knee is."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.figures.style import (
    DARK_TO_LIGHT,
    INK,
    QUIET,
    Look,
    canvas,
    cross_flagged,
    plain_log_ticks,
    reference_line,
)


def rate_sweep(trials: pd.DataFrame, capacity_rps: dict[str, float], loop_s: float, title: str) -> Figure:
    """Draw a sweep: `trials` has server, rate, throughput_rps, latency_p50_s, latency_p99_s, success, valid.

    A dot is one trial, a line joins the medians over blocks. `capacity_rps` maps each server to the rate
    that its loops alone would allow.
    """
    with canvas(title, rows=3, size=(7.4, 8.6), sharex=True) as (figure, (throughput, latency, success)):
        for server, look in zip(capacity_rps, DARK_TO_LIGHT, strict=False):
            mine = trials[trials["server"] == server]
            _series(throughput, mine, "throughput_rps", look, server)
            _series(latency, mine, "latency_p99_s", look, f"{server}: p99")
            _series(latency, mine, "latency_p50_s", look, f"{server}: p50", hollow=True)
            _series(success, mine, "success", look, server, percent=True)
            for axes in (throughput, latency, success):
                axes.axvline(capacity_rps[server], color=look.color, linewidth=1.0, linestyle=":", zorder=1)
        top_rps = float(trials["rate"].max())
        throughput.plot([0, top_rps], [0, top_rps], color=QUIET, linewidth=1.0, label="ideal: all answered")
        cross_flagged(throughput, trials, "rate", "throughput_rps")
        cross_flagged(latency, trials, "rate", "latency_p99_s")
        throughput.set_title("Throughput; dotted verticals: what the loop alone allows each server")
        throughput.set_ylabel("answered well, requests/s")
        throughput.set_ylim(bottom=0)
        throughput.legend(loc="upper left")
        latency.set_title("Latency from the due time")
        latency.set_yscale("log")
        plain_log_ticks(latency.yaxis)
        latency.set_ylabel("latency, s (log scale)")
        reference_line(latency, y=loop_s, text="the loop alone")
        latency.legend(loc="upper left", fontsize=9, ncols=2)
        success.set_title("Success")
        success.set_ylabel("answered well, % of planned")
        success.set_ylim(-4, 104)
        success.set_xlabel("offered rate, requests/s")
        success.set_xlim(left=0)
    return figure


def _series(
    axes: Axes,
    trials: pd.DataFrame,
    column: str,
    look: Look,
    label: str,
    *,
    hollow: bool = False,
    percent: bool = False,
) -> None:
    values = trials[column] * (100 if percent else 1)
    face = "white" if hollow else look.color
    axes.plot(
        trials["rate"], values, look.marker, color=look.color, markerfacecolor=face, alpha=0.7, markersize=5
    )
    medians = values.groupby(trials["rate"]).median()
    line = ":" if hollow else look.line
    axes.plot(medians.index, medians, linestyle=line, color=look.color, linewidth=1.6)
    axes.plot([], [], look.marker, linestyle=line, color=look.color, markerfacecolor=face, label=label)
    axes.tick_params(colors=INK)
