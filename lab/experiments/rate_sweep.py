"""How does latency grow with the offered rate, and up to which rate is it small?"""

import math
from typing import Annotated, Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field

from lab import units
from lab.checks import Count, Positive, Seconds, Whole
from lab.errors import UsageError
from lab.experiments.common import Workers, by_server, named_by, resolve
from lab.figures.style import (
    DARK_TO_LIGHT,
    QUIET,
    Look,
    canvas,
    cross_flagged,
    plain_log_ticks,
    reference_line,
)
from lab.hotloop import KernelName
from lab.load.arrivals import Arrivals
from lab.models.statistics import estimate
from lab.servers.spec import DispatchName
from lab.study.estimates import Stated, stated
from lab.study.parameters import ListOf
from lab.study.parameters import Parameters as _Parameters
from lab.study.plan import Condition, capacity_rps

EXPERIMENT = "rate-sweep"


class Parameters(_Parameters):
    """What notebook 03 lets its reader set; `rates` (per second), if given, replace `loads`."""

    run: str
    loads: Annotated[ListOf[Positive], Field(min_length=1)]
    rates: ListOf[Positive]
    duration_s: Seconds
    workers: Workers
    dispatch: DispatchName
    arrivals: Arrivals
    kernel: KernelName
    iterations: Whole
    timeout_s: Seconds
    slo_loops: Positive
    blocks: Count
    seed: Whole


def conditions(p: Parameters) -> list[Condition]:
    """Return each server at each rate; a load of 1 is what the loop alone would allow that server."""
    shared = p.model_dump(include={"duration_s", "arrivals", "kernel", "iterations", "timeout_s"})
    servers: list[dict[str, Any]] = [
        {"topology": "single", "workers": 1},
        {"topology": "cluster", "workers": resolve(p.workers), "dispatch": p.dispatch},
    ]
    offered: list[dict[str, Any]] = [{"rate": rate} for rate in p.rates] or [{"load": x} for x in p.loads]
    return [Condition(**each, **shared, **server) for server in servers for each in offered]


def loop_s(trials: pd.DataFrame) -> float:
    """Return the loop time that gave a sweep its rates, in seconds: the median over its blocks."""
    single = trials[trials["topology"] == "single"]
    return float((single["load"] / single["rate"]).fillna(single["loop_s"]).median())


def _step(trials: pd.DataFrame) -> "pd.Series[float]":
    """Return what tells a server's trials apart: the load, whose rate differs by block, or the rate."""
    return trials["load"].fillna(trials["rate"]).rename("step")


def brackets(trials: pd.DataFrame, slo_s: float) -> pd.DataFrame:
    """Find the rates of the sweep between which each server stops meeting the SLO.

    A rate meets it if, in the median over blocks, p99 is within `slo_s` and at least 99.9 % are answered.
    A row per server: server, workers, met_rps (the highest rate up to which every rate met it; 0 if even the
    lowest missed it), missed_rps (the lowest that missed it; nan if all met it), highest_rps (the highest
    throughput of any trial).
    """
    if trials.empty:
        raise UsageError("there are no trials to judge by an SLO: measure some first")
    rows = []
    for server, mine in by_server(trials):
        columns = ["rate", "latency_p99_s", "success"]
        medians = mine.groupby(_step(mine))[columns].median().set_index("rate").sort_index()
        met = ((medians["latency_p99_s"] <= slo_s) & (medians["success"] >= 0.999)).cummin()
        rows.append(
            {
                "server": server,
                "workers": int(mine["workers"].iloc[0]),
                "met_rps": max(medians.index[met], default=0.0),
                "missed_rps": min(medians.index[~met], default=math.nan),
                "highest_rps": mine["throughput_rps"].max(),
            }
        )
    return pd.DataFrame(rows)


def estimates(trials: pd.DataFrame) -> list[Stated]:
    """State each point of the sweep's lines: throughput, p99 and success of a server at a load or a rate."""
    rows = []
    for _, server in by_server(trials):
        for step, mine in server.groupby(_step(server)):
            offered: dict[str, Any] = {"load" if mine["load"].notna().all() else "rate": float(step)}
            rows += [
                stated(EXPERIMENT, quantity, estimate(list(known)), unit, **named_by(mine), **offered)
                for quantity, (column, unit) in _STATED.items()
                if len(known := mine[column].dropna())
            ]
    return rows


_STATED = {
    "throughput in the sweep": ("throughput_rps", "requests/s"),
    "latency in the sweep, p99": ("latency_p99_s", "s"),
    "latency in the sweep, p50": ("latency_p50_s", "s"),
    "share answered well in the sweep": ("success", ""),
}
"""What the sweep's figure draws: its columns and units."""


def bracket_table(brackets: pd.DataFrame) -> pd.DataFrame:
    """Put the brackets in words."""
    return pd.DataFrame(
        {
            "server": brackets["server"],
            "met up to": brackets["met_rps"].map(lambda rps: units.per_second(rps) if rps else "no rate"),
            "first missed at": brackets["missed_rps"].map(units.per_second),
            "highest throughput of any trial": brackets["highest_rps"].map(units.per_second),
        }
    )


def answer(brackets: pd.DataFrame, slo_s: float) -> str:
    """Say which rates of the sweep meet the SLO with each server."""
    parts = [f"with {row['server']} {_met(row)}" for _, row in brackets.iterrows()]
    return f"**Answer.** The p99 stays within {units.seconds(slo_s)} {'; '.join(parts)}."


def _met(row: "pd.Series[float]") -> str:
    if not row["met_rps"]:
        return f"at no rate of this sweep, whose lowest is {units.per_second(row['missed_rps'])}"
    met = f"**up to {units.per_second(row['met_rps'])}**"
    if math.isnan(row["missed_rps"]):
        return f"{met}, the highest rate of this sweep"
    return f"{met}, and no longer at {units.per_second(row['missed_rps'])}"


def figure(trials: pd.DataFrame, loop_s: float, slo_s: float) -> Figure:
    """Draw throughput, latency and success against the offered rate.

    A dot is one trial, a line joins the medians over blocks. `loop_s` is the calibrated loop time, which
    places a server's dotted line: the rate that its loops alone would allow.
    """
    title = _title(brackets(trials, slo_s))
    with canvas(title, rows=3, size=(7.4, 8.6), sharex=True) as (figure, (throughput, latency, success)):
        for (server, mine), look in zip(by_server(trials), DARK_TO_LIGHT, strict=False):
            _series(throughput, mine, "throughput_rps", look, server)
            _series(latency, mine, "latency_p99_s", look, f"{server}: p99")
            _series(latency, mine, "latency_p50_s", look, f"{server}: p50", hollow=True)
            _series(success, mine.assign(success=100 * mine["success"]), "success", look, server)
            allowed_rps = capacity_rps(int(mine["workers"].iloc[0]), loop_s)
            for axes in (throughput, latency, success):
                axes.axvline(allowed_rps, color=look.color, linewidth=1.0, linestyle=":", zorder=1)
        top_rps = float(trials["rate"].max())
        throughput.plot([0, top_rps], [0, top_rps], color=QUIET, linewidth=1.0, label="ideal: all answered")
        cross_flagged(throughput, trials, "rate", "throughput_rps")
        cross_flagged(latency, trials, "rate", "latency_p99_s")
        throughput.set_title("Throughput; dotted lines: what the loop alone allows each server")
        throughput.set_ylabel("answered well, requests/s")
        throughput.set_ylim(bottom=0)
        throughput.legend(loc="upper left")
        latency.set_title("Latency from the due time")
        latency.set_yscale("log")
        plain_log_ticks(latency.yaxis, units.seconds)
        latency.set_ylabel("latency (log scale)")
        reference_line(latency, y=loop_s, text="the loop alone")
        reference_line(latency, y=slo_s, text="SLO for p99")
        latency.set_ylim(top=12 * latency.get_ylim()[1])  # room for the legend
        latency.legend(loc="upper left", fontsize=9, ncols=2)
        success.set_title("Success")
        success.set_ylabel("answered well, % of planned")
        success.set_ylim(-4, 104)
        success.set_xlabel("offered rate, requests/s")
        success.set_xlim(left=0)
    return figure


def _title(brackets: pd.DataFrame) -> str:
    """Say between which rates of the sweep each server stops meeting the SLO."""
    parts = [f"{row['server'].partition(',')[0]} {_between(row)}" for _, row in brackets.iterrows()]
    return f"The SLO breaks: {', '.join(parts)}"


def _between(row: "pd.Series[float]") -> str:
    if not row["met_rps"]:
        return f"below {units.per_second(row['missed_rps'])}"
    if math.isnan(row["missed_rps"]):
        return f"beyond {units.per_second(row['met_rps'])}"
    return f"{units.digits(row['met_rps'])} to {units.per_second(row['missed_rps'])}"


def _series(
    axes: Axes, trials: pd.DataFrame, column: str, look: Look, label: str, *, hollow: bool = False
) -> None:
    style: dict[str, Any] = {
        "color": look.color, "markerfacecolor": "white" if hollow else look.color, "markersize": 5,
    }  # fmt: skip
    line = ":" if hollow else look.line
    medians = trials.groupby(_step(trials))[["rate", column]].median()
    axes.plot(trials["rate"], trials[column], look.marker, alpha=0.7, **style)
    axes.plot(medians["rate"], medians[column], linestyle=line, color=look.color, linewidth=1.6)
    axes.plot([], [], look.marker, linestyle=line, label=label, **style)
