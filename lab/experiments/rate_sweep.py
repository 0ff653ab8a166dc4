"""How does latency grow with the offered rate, and where is the knee? One process and a cluster."""

import math
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from lab import formats
from lab.cpus import available_cpus
from lab.errors import UsageError
from lab.experiments.common import Workers, resolve, with_server_names
from lab.load.arrivals import ARRIVALS
from lab.study.parameters import Count, DispatchName, KernelName, ListOf, Positive, Whole, one_of
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
    arrivals: Annotated[str, one_of(*ARRIVALS)]
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
            "highest rate within the SLO": knees["knee_rps"].map(formats.per_second),
            "lowest rate beyond it": knees["next_rps"].map(formats.per_second),
            "highest throughput of any trial": knees["highest_rps"].map(formats.per_second),
        }
    )


def title(knees: pd.DataFrame) -> str:
    """Say in a figure's title between which rates of the sweep the knees are."""
    parts = [f"{str(row['server']).partition(',')[0]} {_bracket(row)}" for _, row in knees.iterrows()]
    return f"The knee: {', '.join(parts)}"


def _bracket(row: "pd.Series[float]") -> str:
    if not row["knee_rps"]:
        return f"below {formats.per_second(row['next_rps'])}"
    if math.isnan(row["next_rps"]):
        return f"beyond {formats.per_second(row['knee_rps'])}"
    return f"{formats.digits(row['knee_rps'])} to {formats.per_second(row['next_rps'])}"


def answer(knees: pd.DataFrame, slo_s: float) -> str:
    """Say which rates of the sweep meet the SLO with each server; the knee is between two of them."""
    parts = [f"with {row['server']} {_met(row)}" for _, row in knees.iterrows()]
    return f"**Answer.** The p99 stays within {formats.seconds(slo_s)} {'; '.join(parts)}."


def _met(row: "pd.Series[float]") -> str:
    if not row["knee_rps"]:
        return f"at no rate of this sweep, whose lowest is {formats.per_second(row['next_rps'])}"
    met = f"**up to {formats.per_second(row['knee_rps'])}**"
    if math.isnan(row["next_rps"]):
        return f"{met}, the highest rate of this sweep"
    return f"{met}, and no longer at {formats.per_second(row['next_rps'])}"


def reading(trials: pd.DataFrame, loop_s: float) -> str:
    """Read the sweep's ends: latency where it is quiet, and throughput where it is more than full."""
    named = with_server_names(trials)
    sentences = []
    for server, mine in named.groupby("server", sort=False):
        calm = mine[mine["rate"] == mine["rate"].min()]["latency_p50_s"].median()
        full = mine[mine["rate"] == mine["rate"].max()].median(numeric_only=True)
        sentences.append(
            f"*{server}*: at its lowest rate half of the requests are answered within "
            f"{formats.digits(calm / loop_s)} loop times; "
            f"offered {formats.per_second(full['rate'])}, "
            f"it answers {formats.per_second(full['throughput_rps'])}, "
            f"half of them within {formats.digits(full['latency_p50_s'] / loop_s)} loop times."
        )
    return " ".join(sentences)
