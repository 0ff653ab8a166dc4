"""The article's own experiment: one process and a cluster under the same constant rate."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab import units
from lab.checks import Positive, Whole
from lab.experiments import sustained
from lab.experiments.claims import Verdict, Word, weighed
from lab.experiments.common import (
    Iterations,
    Workers,
    by_server,
    length,
    named_by,
    resolve,
    with_unflagged,
    worded,
)
from lab.figures import INK, THEORY, beside, canvas, reference_line, server_look
from lab.figures.timeline import MANY, draw_lanes, workers_apart
from lab.models.overload import overload
from lab.models.statistics import Estimate, estimate, fewest_trials, paired_ratio
from lab.study.estimates import Stated, stated
from lab.study.plan import Condition
from lab.study.run import Run
from lab.study.stability import offered_rps

EXPERIMENT = "single-vs-cluster"

_ARTICLE = pd.DataFrame(
    {
        "server": ["the article, plain", "the article, 8 workers"],
        "planned": ["1500", "1500"],
        "answered well": ["73.6 %", "100 %"],
        "throughput": ["27.04/s", "50/s"],
        "fastest": ["97 µs", "31.6 ms"],
        "slowest": ["21.7 s", "42.9 ms"],
    }
)
"""What the article reports for 50/s for 30 s on 8 CPUs; its fastest plain answer is a failure."""


class Parameters(sustained.Sought):
    """What notebook 02 lets its reader set."""

    rate: Positive
    workers: Workers
    iterations: Whole
    search_iterations: Iterations


def conditions(p: Parameters) -> list[Condition]:
    """Return the two conditions: one process, and the cluster, under the same load."""
    load = p.model_dump(include={"rate", "duration_s", "timeout_s", "kernel", "iterations"})
    cluster: dict[str, Any] = {"topology": "cluster", "workers": resolve(p.workers), "dispatch": p.dispatch}
    return [Condition(**load, topology="single"), Condition(**load, **cluster)]


def sustained_rates(run: Run, p: Parameters) -> pd.DataFrame:
    """Search for what one process and the cluster sustain, with shorter loops (`sustained.bounds`)."""
    load = p.model_dump(include={"kernel", "timeout_s"}) | {"duration_s": p.search_s}
    load["iterations"] = length(p.search_iterations, run, p.kernel)
    servers = sustained.pair(p.workers, p.dispatch, **load)
    return sustained.searched(run, EXPERIMENT, servers, p.objective, seed=p.seed)


def theory(trials: pd.DataFrame) -> pd.DataFrame:
    """Predict each server's latencies: topology, workers, dispatch, due_s, latency_s, ok.

    The inputs are only the rate, the timeout and the server's own mean loop time in the trials; for a server
    that answered nothing, the calibrated loop time.
    """
    predictions = []
    for _, mine in by_server(_with_service_times(trials)):
        first = mine.iloc[0]
        expected = overload(
            first["rate"], first["duration_s"], float(mine["service_mean_s"].median()),
            int(first["workers"]), first["timeout_s"],
        )  # fmt: skip
        columns = {"due_s": expected.due_s, "latency_s": expected.latency_s, "ok": expected.ok}
        server = {name: first[name] for name in ("topology", "workers", "dispatch")}
        predictions.append(pd.DataFrame(columns).assign(**server))
    return pd.concat(predictions, ignore_index=True)


def beside_the_article(trials: pd.DataFrame) -> pd.DataFrame:
    """Put our medians over blocks below the article's table, a row per server."""
    return pd.concat([_ARTICLE, with_unflagged(trials, _medians_in_words)], ignore_index=True)


def _medians_in_words(trials: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "server": f"here, {server}",
            "planned": f"{mine['planned'].median():.0f}",
            "answered well": units.in_percent(mine["success"].median()),
            "throughput": units.in_requests(mine["throughput_rps"].median()),
            "fastest": units.in_seconds(mine["latency_min_s"].median()),
            "slowest": units.in_seconds(mine["latency_max_s"].median()),
        }
        for server, mine in by_server(trials)
    )


def beside_theory(trials: pd.DataFrame) -> pd.DataFrame:
    """Put measured and predicted mean and slowest latency side by side, a row per server."""
    rows = []
    for (server, mine), (_, expected) in zip(by_server(trials), by_server(theory(trials)), strict=True):
        mean_s, slowest_s = mine["latency_mean_s"].median(), mine["latency_max_s"].median()
        rows.append(
            {
                "server": server,
                "mean, measured": units.in_seconds(mean_s),
                "mean, theory": units.in_seconds(expected["latency_s"].mean()),
                "slowest, measured": units.in_seconds(slowest_s),
                "slowest, theory": units.in_seconds(expected["latency_s"].max()),
                "mean, measured / theory": units.plain(mean_s / expected["latency_s"].mean()),
            }
        )
    return pd.DataFrame(rows)


def answer(trials: pd.DataFrame, found: pd.DataFrame | None = None) -> str:
    """Say what both servers sustain here, if that was searched, and which fell behind."""
    begun = "**Answer.**" if found is None else sustained.answer(found)
    return f"{begun} {_finding(trials, _loops(trials))}."


def _loops(trials: pd.DataFrame) -> str:
    """Say how long the loops of this load took: those of a search for sustained rates are shorter."""
    loop_s = trials["service_cpu_mean_s"].astype(float).fillna(trials["service_mean_s"]).median()
    return f" with loops of {units.seconds(loop_s)}" if loop_s > 0 else ""


def _finding(trials: pd.DataFrame, loops: str = "") -> str:
    """Say in how many blocks each server fell behind, with which loops."""
    parts = [
        f"{name} in {behind.sum()} of {units.counted(len(behind), 'block')}"
        for topology, name in (("single", "one process"), ("cluster", "the cluster"))
        if len(behind := _behind(trials, topology))
    ]
    return f"Fell behind at {units.per_second(trials['rate'].median())}{loops}: {', '.join(parts)}"


def gain(trials: pd.DataFrame) -> Estimate | None:
    """Return the cluster's throughput over that of one process, paired within blocks; None without a base.

    Both are of the time in which all workers could be busy. `trials` are those of `common.accounted`.
    """
    rates = _paired(trials)
    return paired_ratio(list(rates["cluster"]), list(rates["single"])) if len(rates) else None


def _paired(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the throughput of both servers, a row per block that has both."""
    rates = trials.pivot_table(index="block", columns="topology", values="busy_rps", aggfunc="median")
    both = rates.reindex(columns=["single", "cluster"])
    return both[both["single"] > 0].dropna()


_STATED = {
    "share answered well": ("success", 1.0),
    "throughput, of the own limit": ("share", math.inf),
    "mean latency, in its own loops": ("mean_loops", math.inf),
    "slowest latency, in its own loops": ("slowest_loops", math.inf),
}
"""The numbers of a server that this page states, and the most each can be: no machine's speed is in them."""


def _measures(trials: pd.DataFrame) -> pd.DataFrame:
    """Add the columns of `_STATED`."""
    return trials.assign(
        share=trials["utilisation"] * trials["busy_rps"] / offered_rps(trials),
        mean_loops=trials["latency_mean_s"] / trials["service_mean_s"],
        slowest_loops=trials["latency_max_s"] / trials["service_mean_s"],
    )


def _named(mine: pd.DataFrame) -> dict[str, Any]:
    """Name a server and for how long it was loaded: overloaded, it answers later and later."""
    return {**named_by(mine), "duration": units.seconds(mine["duration_s"].iloc[0])}


def estimates(trials: pd.DataFrame) -> list[Stated]:
    """State what the article's load does to each server, and the ratio of their throughputs."""
    at = " at the article's load"
    rows = [
        stated(
            EXPERIMENT, quantity + at, estimate(list(known), within=(0, most)),
            sources=mine.loc[known.index, "trial_id"], **_named(mine),
        )
        for _, mine in by_server(_measures(trials))
        for quantity, (column, most) in _STATED.items()
        if len(known := mine[column].dropna())
    ]  # fmt: skip
    if (more := gain(trials)) is not None:
        cluster = _named(trials[trials["topology"] == "cluster"])
        paired = trials[trials["block"].isin(_paired(trials).index)]["trial_id"]
        rows.append(
            stated(
                EXPERIMENT, "throughput over one process" + at, more, compares=True, sources=paired, **cluster
            )
        )  # fmt: skip
    return rows


def _behind(trials: pd.DataFrame, topology: str) -> "pd.Series[bool]":
    """Say for each trial of a server whether it was offered more work than it can do, or lost requests."""
    mine = trials[trials["topology"] == topology]
    return (_cores(mine, "rate") > mine["workers"]) | (mine["success"] < 1)


def _told(behind: "pd.Series[bool]") -> bool | None:
    """Say whether a server falls behind: None if blocks disagree, or are too few to tell."""
    enough = len(behind) >= fewest_trials()
    return bool(behind.all()) if enough and behind.nunique() == 1 else None


def _cores(trials: pd.DataFrame, rate: str) -> "pd.Series[float]":
    """Return how many cores' work a column of rates was, by the trial's own service time."""
    return trials[rate] * trials["service_mean_s"].fillna(trials["loop_s"])


_NONE, _MIDWAY = 0.5, 1.5
"""Cores: between these, nearer to one than to none or two."""


def verdicts(trials: pd.DataFrame, cpus: int) -> list[Verdict]:
    """Judge claims 1 and 2 on a machine with this many CPUs."""
    single = trials[trials["topology"] == "single"]
    return [weighed(single, partial(_one_core, cpus)), weighed(trials, _plain_fails)]


def _one_core(cpus: int, single: pd.DataFrame) -> Verdict:
    """Compare the cores' work that one process was offered with the cores that all its threads used."""
    known = single[single["server_cpu_s"] / single["window_s"] > 0]
    if known.empty:
        return Verdict(1)
    offered = estimate(list(_cores(known, "rate")))
    used = estimate(list(known["server_cpu_s"] / known["window_s"]))
    has = f"{worded(offered)} cores, of {units.counted(cpus, 'core')}"
    evidence = f"offered the work of {has}; used {worded(used)} cores by the CPU time of its process"
    one_core = used.low > _NONE and used.high < _MIDWAY < offered.low and cpus > 1
    holds = False if used.low > _MIDWAY else True if one_core else None
    return Verdict(1, evidence, Word.of(holds if used.is_interval else None))


def _plain_fails(trials: pd.DataFrame) -> Verdict:
    if trials["topology"].nunique() < 2:
        return Verdict(2)
    single, cluster = _medians(trials)
    found = {"one process": single, "the cluster": cluster}
    answered = (f"{name}: {_share_answered(row)}" for name, row in found.items())
    behind, kept_up = _told(_behind(trials, "single")), _told(~_behind(trials, "cluster"))
    return Verdict(2, "; ".join(answered), Word.of(behind, kept_up))


def _share_answered(row: "pd.Series[float]") -> str:
    need = units.digits(row["rate"] * row["service_mean_s"])
    slowest = units.seconds(row["latency_max_s"])
    busy = f"needs {need} workers and has {int(row['workers'])}"
    return f"{busy}, {units.percent(row['success'])} answered, the slowest after {slowest}"


def _medians(trials: pd.DataFrame) -> tuple["pd.Series[float]", "pd.Series[float]"]:
    """Return the medians over blocks of every number, for one process and for the cluster."""
    known = _with_service_times(trials)
    single, cluster = (known[known["topology"] == name] for name in ("single", "cluster"))
    return single.median(numeric_only=True), cluster.median(numeric_only=True)


def _with_service_times(trials: pd.DataFrame) -> pd.DataFrame:
    """Use the calibrated loop time for a trial without a single answer, which reports none."""
    return trials.assign(service_mean_s=trials["service_mean_s"].fillna(trials["loop_s"]))


def figure(trials: pd.DataFrame, requests: pd.DataFrame) -> Figure:
    """Draw each request's latency where it was due, and the line that theory predicts for its server.

    A failed request is a cross, at the time it took to fail. Many requests are a heat map, with a lane for
    one process and for each worker of the cluster.
    """
    predicted = dict(by_server(theory(trials)))
    top_s = 1.12 * float(
        np.nanmax([*requests["latency_s"], *(each["latency_s"].max() for each in predicted.values())])
    )
    lanes = _lanes(requests) if len(requests) >= MANY else []
    rows, height = (len(lanes), 0.6 + 1.05 * len(lanes)) if lanes else (1, 3.5)
    with canvas(_finding(trials), rows=rows, height=height, sharex=True, sharey=True) as (figure, panels):
        if lanes:
            draw_lanes(panels, [(name, mine) for name, _, mine in lanes])
        else:
            _draw_dots(panels[0], by_server(requests))
        panels[0].set_ylim(0, top_s)
        panels[-1].set_xlabel("when the request was due, s from the start")
        for axes, (_, server, _) in zip(panels, lanes, strict=True) if lanes else ():
            axes.plot(predicted[server]["due_s"], predicted[server]["latency_s"], **THEORY)
            axes.set_ylabel("latency, s")
            beside(axes, [_end(predicted[server], "theory")])
        if not lanes:
            panels[0].set_ylabel("latency from the due time, s")
            for line in predicted.values():
                panels[0].plot(line["due_s"], line["latency_s"], **THEORY)
            reference_line(panels[0], y=float(trials["loop_s"].median()), text="the loop alone", below=True)
            beside(panels[0], [_end(line, f"theory:\n{name}") for name, line in predicted.items()])
    return figure


def _lanes(requests: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Split requests into lanes: each with its name, and that of its server."""
    return [
        (f"{server}: {worker}" if worker and server != "one process" else server, server, mine)
        for server, all_of_it in by_server(requests)
        for worker, mine in workers_apart(all_of_it, "trial_id")
    ]


_FAILED = ("x", "+", "1", "2")
"""The markers of failures: here, too, a server differs by shape and not by colour alone."""


def _draw_dots(axes: Axes, servers: Sequence[tuple[str, pd.DataFrame]]) -> None:
    drawn: dict[str, Any] = {"linestyle": "none", "alpha": 0.65, "clip_on": False}
    for (server, mine), failed in zip(servers, _FAILED, strict=False):
        look, ok = server_look(server), mine["outcome"] == "ok"
        axes.plot(
            mine.loc[ok, "due_s"], mine.loc[ok, "latency_s"], marker=look.marker, color=look.color,
            markersize=4.5, label=server, **drawn,
        )  # fmt: skip
        if not ok.all():
            axes.plot(
                mine.loc[~ok, "due_s"], mine.loc[~ok, "latency_s"], marker=failed, color=look.color,
                markersize=5, label=f"{server}: failed", **drawn,
            )  # fmt: skip
    axes.legend(loc="upper left")


def _end(line: pd.DataFrame, name: str) -> tuple[float, float, str, str]:
    last = line.iloc[-1]
    return float(last["due_s"]), float(last["latency_s"]), name, INK
