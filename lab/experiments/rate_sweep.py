"""How does latency grow with the offered rate, and where is the knee? One process and a cluster."""

import math
from typing import Annotated, Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field

from lab import units
from lab.checks import Count, Positive, Whole
from lab.errors import UsageError
from lab.experiments.common import Workers, resolve, with_server_names
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
from lab.hotloop import KernelName
from lab.load.arrivals import Arrivals
from lab.machine import available_cpus
from lab.servers.spec import DispatchName
from lab.study.parameters import ListOf
from lab.study.parameters import Parameters as _Parameters
from lab.study.plan import Condition

EXPERIMENT = "rate-sweep"


class Parameters(_Parameters):
    """What notebook 03 lets its reader set; `rates` (per second), if given, replace `loads`."""

    run: str
    loads: Annotated[ListOf[Positive], Field(min_length=1)]
    rates: ListOf[Positive]
    duration_s: Positive
    workers: Workers
    dispatch: DispatchName
    arrivals: Arrivals
    kernel: KernelName
    iterations: Whole
    timeout_s: Positive
    slo_loops: Positive
    blocks: Count
    seed: Whole


def conditions(p: Parameters, loop_s: float) -> list[Condition]:
    """Return each server at each rate; a load of 1 is what the loop alone would allow that server."""
    shared = p.model_dump(include={"duration_s", "arrivals", "kernel", "iterations", "timeout_s"})
    servers: list[dict[str, Any]] = [
        {"topology": "single", "workers": 1},
        {"topology": "cluster", "workers": resolve(p.workers), "dispatch": p.dispatch},
    ]
    return [
        Condition(rate=rate, labels={"load": rate / capacity_rps}, **shared, **server)
        for server in servers
        for capacity_rps in [capacity(server["workers"], loop_s)]
        for rate in p.rates or [load * capacity_rps for load in p.loads]
    ]


def capacity(workers: int, loop_s: float) -> float:
    """Return the requests a second that the loop alone allows: workers beyond the CPUs add nothing."""
    return min(workers, available_cpus()) / loop_s


def capacities(trials: pd.DataFrame, loop_s: float) -> dict[str, float]:
    """Return `capacity` for each server of the trials, by the name that figures use."""
    servers = with_server_names(trials).drop_duplicates("server").sort_values("workers")
    return {str(row["server"]): capacity(int(row["workers"]), loop_s) for _, row in servers.iterrows()}


def knees(trials: pd.DataFrame, slo_s: float) -> pd.DataFrame:
    """Find each server's knee: the highest rate of the sweep up to which every rate met the SLO.

    A rate meets it when, in the median over blocks, p99 is within `slo_s` and at least 99.9 % are answered.
    A row per server: server, workers, knee_rps (0 if not even the lowest rate met it), next_rps (the lowest
    rate that did not; nan if all did), highest_rps (the highest throughput of any trial).
    """
    if trials.empty:
        raise UsageError("there is no trial to find a knee in")
    rows = []
    for server, mine in with_server_names(trials).groupby("server", sort=False):
        medians = mine.groupby("rate")[["latency_p99_s", "success"]].median().sort_index()
        met = (medians["latency_p99_s"] <= slo_s) & (medians["success"] >= 0.999)
        kept = medians.index[met.cummin()]
        missed = medians.index[~met.cummin()]
        rows.append(
            {
                "server": server,
                "workers": int(mine["workers"].iloc[0]),
                "knee_rps": max(kept, default=0.0),
                "next_rps": min(missed, default=float("nan")),
                "highest_rps": mine["throughput_rps"].max(),
            }
        )
    return pd.DataFrame(rows).sort_values("workers", ignore_index=True)


def knee_table(knees: pd.DataFrame) -> pd.DataFrame:
    """Put the knees in words."""
    return pd.DataFrame(
        {
            "server": knees["server"],
            "highest rate within the SLO": knees["knee_rps"].map(units.per_second),
            "lowest rate beyond it": knees["next_rps"].map(units.per_second),
            "highest throughput of any trial": knees["highest_rps"].map(units.per_second),
        }
    )


def title(knees: pd.DataFrame) -> str:
    """Say in a figure's title between which rates of the sweep the knees are."""
    parts = [f"{str(row['server']).partition(',')[0]} {_bracket(row)}" for _, row in knees.iterrows()]
    return f"The knee: {', '.join(parts)}"


def _bracket(row: "pd.Series[float]") -> str:
    if not row["knee_rps"]:
        return f"below {units.per_second(row['next_rps'])}"
    if math.isnan(row["next_rps"]):
        return f"beyond {units.per_second(row['knee_rps'])}"
    return f"{units.digits(row['knee_rps'])} to {units.per_second(row['next_rps'])}"


def answer(knees: pd.DataFrame, slo_s: float) -> str:
    """Say which rates of the sweep meet the SLO with each server; the knee is between two of them."""
    parts = [f"with {row['server']} {_met(row)}" for _, row in knees.iterrows()]
    return f"**Answer.** The p99 stays within {units.seconds(slo_s)} {'; '.join(parts)}."


def _met(row: "pd.Series[float]") -> str:
    if not row["knee_rps"]:
        return f"at no rate of this sweep, whose lowest is {units.per_second(row['next_rps'])}"
    met = f"**up to {units.per_second(row['knee_rps'])}**"
    if math.isnan(row["next_rps"]):
        return f"{met}, the highest rate of this sweep"
    return f"{met}, and no longer at {units.per_second(row['next_rps'])}"


def reading(trials: pd.DataFrame, loop_s: float) -> str:
    """Read the sweep's ends: latency where it is quiet, and throughput where it is more than full."""
    named = with_server_names(trials)
    sentences = []
    for server, mine in named.groupby("server", sort=False):
        calm = mine[mine["rate"] == mine["rate"].min()]["latency_p50_s"].median()
        full = mine[mine["rate"] == mine["rate"].max()].median(numeric_only=True)
        sentences.append(
            f"*{server}*: at its lowest rate half of the requests are answered within "
            f"{units.digits(calm / loop_s)} loop times; "
            f"offered {units.per_second(full['rate'])}, "
            f"it answers {units.per_second(full['throughput_rps'])}, "
            f"half of them within {units.digits(full['latency_p50_s'] / loop_s)} loop times."
        )
    return " ".join(sentences)


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
