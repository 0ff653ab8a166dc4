"""How does latency grow with the offered rate, and up to which rate is it small?"""

import math
from dataclasses import replace
from typing import Annotated, Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field

from lab.checks import Positive
from lab.experiments import sustained
from lab.experiments.common import Iterations, Workers, by_server, named_by
from lab.figures import (
    IDEAL,
    QUIET,
    SLO,
    SMALL,
    Look,
    beside,
    canvas,
    cross_flagged,
    plain_log_ticks,
    reference_line,
    server_look,
)
from lab.load.arrivals import Arrivals
from lab.models.statistics import estimate
from lab.study.estimates import Stated, stated
from lab.study.parameters import ListOf
from lab.study.plan import Condition
from lab.study.stability import offered_rps

EXPERIMENT = "rate-sweep"


class Parameters(sustained.Sought):
    """What notebook 03 lets its reader set; `rates` (per second), if given, replace `loads`."""

    loads: Annotated[ListOf[Positive], Field(min_length=1)]
    rates: ListOf[Positive]
    workers: Workers
    arrivals: Arrivals
    iterations: Iterations


def servers(p: Parameters) -> list[Condition]:
    """Return the two servers: one process, and the cluster."""
    shared = p.model_dump(include={"arrivals", "kernel", "iterations", "timeout_s"})
    return sustained.pair(p.workers, p.dispatch, duration_s=p.search_s, **shared)


def conditions(p: Parameters) -> list[Condition]:
    """Return each server at each rate; a load of 1 is what the loop alone would allow that server."""
    offered: list[dict[str, Any]] = [{"rate": rate, "load": None} for rate in p.rates]
    offered = offered or [{"rate": None, "load": load} for load in p.loads]
    return [replace(server, duration_s=p.duration_s, **each) for server in servers(p) for each in offered]


def _step(trials: pd.DataFrame) -> "pd.Series[float]":
    """Return what tells a server's trials apart: the load, whose rate differs by block, or the rate."""
    return trials["load"].fillna(trials["rate"]).rename("step")


def estimates(trials: pd.DataFrame, found: pd.DataFrame | None = None) -> list[Stated]:
    """State each point of the sweep's lines; `found` says of which percentile the tail is."""
    rows, percentile = [], 95 if found is None else int(found["slo_percentile"].iloc[0])
    columns = _STATED | {f"latency in the sweep, p{percentile} in loops": "tail"}
    for _, server in by_server(_measures(trials, percentile)):
        for step, mine in server.groupby(_step(server)):
            offered: dict[str, Any] = {"load" if mine["load"].notna().all() else "rate": float(step)}
            rows += [
                stated(
                    EXPERIMENT, quantity, estimate(list(known), within=(0, most)),
                    sources=mine.loc[known.index, "trial_id"], **named_by(mine), **offered,
                )
                for quantity, column in columns.items()
                for most in [1 if column == "success" else math.inf]
                if len(known := mine[column].dropna())
            ]  # fmt: skip
    return rows


_STATED = {
    "own utilisation in the sweep": "utilisation",
    "throughput in the sweep, of the own limit": "share",
    "latency in the sweep, p50 in loops": "half",
    "share answered well in the sweep": "success",
}
"""What the sweep's figure draws: shares, and times in calibrated loops, which no machine's speed is in."""


def _measures(trials: pd.DataFrame, percentile: int) -> pd.DataFrame:
    """Add the columns of `_STATED` to trials of `common.accounted`; the tail is at this percentile."""
    return trials.assign(
        share=trials["utilisation"] * trials["busy_rps"] / offered_rps(trials),
        tail=trials[f"latency_p{percentile}_s"] / trials["loop_s"],
        half=trials["latency_p50_s"] / trials["loop_s"],
    )


def figure(trials: pd.DataFrame, found: pd.DataFrame) -> Figure:
    """Draw what was answered, and how long it took, against the own utilisation of each trial.

    A dot is one trial, a line joins the medians over blocks. `found` are the bounds of the sustained rates
    (`sustained.bounds`), drawn as bands. Nothing here depends on the machine's speed.
    """
    percentile, loops = int(found["slo_percentile"].iloc[0]), float(found["slo_loops"].iloc[0])
    with canvas(sustained.title(found), rows=2, height=5.8, sharex=True) as (figure, panels):
        answered, latency = panels
        known = _measures(trials, percentile).dropna(subset=["share", "tail", "half"])
        ends: list[tuple[float, float, str, str]] = []
        for server, mine in by_server(known):
            look = server_look(server)
            _series(answered, mine, "share", look, server)
            ends.append(
                (*_series(latency, mine, "tail", look, f"p{percentile}"), f"p{percentile}", look.color)
            )
            ends.append((*_series(latency, mine, "half", look, "p50", hollow=True), "p50", look.color))
        for server, bounds in by_server(found):
            for axes in (answered, latency):
                _band(axes, bounds.iloc[0], server_look(server))
        top = max(1.0, float(known["utilisation"].max()))
        answered.plot([0, 1, top], [0, 1, 1], **IDEAL)
        cross_flagged(answered, known, "utilisation", "share")
        cross_flagged(latency, known, "utilisation", "tail")
        answered.set_ylabel("throughput,\nshare of the own limit")
        answered.set_ylim(0, 1.12)
        answered.annotate(
            "ideal", (0.4, 0.4), xytext=(-4, 4), textcoords="offset points", ha="right",
            fontsize=SMALL, color=QUIET,
        )  # fmt: skip
        answered.legend(loc="lower right")
        latency.set_yscale("log")
        plain_log_ticks(latency.yaxis)
        latency.set_ylabel("latency, in loops (log scale)")
        reference_line(latency, y=loops, text=f"SLO for p{percentile}", left=True, **SLO)
        latency.set_ylim(bottom=0.8)
        latency.set_xlabel("offered, share of the own limit (own utilisation)")
        latency.set_xlim(left=0)
        beside(latency, ends)
    return figure


def _band(axes: Axes, bounds: "pd.Series[float]", look: Look) -> None:
    low, high = bounds["lower_share"], bounds["upper_share"]
    if not (pd.isna(low) or pd.isna(high)):
        axes.axvspan(low, high, color=look.color, alpha=0.18, linewidth=0, zorder=0)


def _series(
    axes: Axes, trials: pd.DataFrame, column: str, look: Look, label: str, *, hollow: bool = False
) -> tuple[float, float]:
    """Draw trials, and a line through the medians; return where its name has room: right of all trials."""
    style: dict[str, Any] = {
        "color": look.color, "markerfacecolor": "white" if hollow else look.color, "markersize": 5,
    }  # fmt: skip
    line = ":" if hollow else look.line
    medians = trials.groupby(_step(trials))[["utilisation", column]].median().sort_values("utilisation")
    axes.plot(trials["utilisation"], trials[column], look.marker, alpha=0.7, **style)
    axes.plot(medians["utilisation"], medians[column], linestyle=line, color=look.color, linewidth=1.6)
    axes.plot([], [], marker=look.marker, linestyle=line, label=label, **style)
    return float(trials["utilisation"].max()), float(medians[column].iloc[-1])
