"""What the bound of least-busy costs, and whether it buys less idle time.

With a bound of 1 a worker takes the next request from the one queue when it has answered the last. With more,
the supervisor passes requests on ahead: one waits for its worker even if another is free first; with equal
loops, none is.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from lab.experiments.common import worded
from lab.experiments.control import busy_share
from lab.experiments.dispatch.trials import AS_NONE, Parameters, arrangements, compared
from lab.models.simulation import waits
from lab.models.statistics import estimate
from lab.study.plan import Condition
from lab.study.run import Run
from lab.units import Number, in_percent

EXPERIMENT = "dispatch-bounds"

OVERLOAD = 1.25
"""The loops that are offered, as a multiple of those that the workers have time for: none need be idle."""

_SETTLED_LOOPS = 2.0
_SHOWN = (1, 2, AS_NONE)
_REQUESTS = 40_000


def conditions(p: Parameters) -> list[Condition]:
    """Return an overloaded server for each bound, if there are several to compare."""
    bounded = [one for one in arrangements(p) if one.get("dispatch") == "least-busy"]
    return [
        Condition(load=OVERLOAD, duration_s=p.duration_s, timeout_s=p.timeout_s, **one)
        for one in bounded
        if len(bounded) > 1
    ]


def measure(run: Run, p: Parameters) -> pd.DataFrame:
    """Overload each bound's server once in each block: a row per trial, with `idle`, a share of its time."""
    planned = conditions(p)
    if not planned:
        return pd.DataFrame(columns=["bound", "idle"])
    trials = run.measure(EXPERIMENT, planned, blocks=p.blocks, seed=p.seed)
    mine = dict(list(run.requests(trials).groupby("trial_id")))
    idle = [1 - _busy(row, mine[row["trial_id"]]) for row in trials.to_dict("records")]
    return trials.assign(idle=idle)


def _busy(trial: Mapping[Any, Any], requests: pd.DataFrame) -> float:
    settled_s = _SETTLED_LOOPS * trial["service_mean_s"]
    return busy_share(requests, int(trial["workers"]), settled_s, trial["duration_s"])


def table(overloaded: pd.DataFrame, trials: pd.DataFrame, p: Parameters) -> pd.DataFrame:
    """Put each bound's idle time beside its latency: measured with equal loops, simulated with unequal ones.

    Latencies are over those of one central queue of the same arrivals and loops. The unequal loops have
    exponential lengths.
    """
    of_bound = compared(trials).query("dispatch == 'least-busy' and not keepalive").groupby("bound")
    latency = dict(list(of_bound["over_ideal"]))
    idle = dict(list(overloaded.groupby("bound")["idle"]))
    workers, utilisation = int(arrangements(p)[0]["workers"]), max(p.poisson)
    rows = []
    for bound in dict.fromkeys(sorted([*_SHOWN, *p.bounds])):
        mean, tail = _simulated(bound, workers, utilisation)
        rows.append(
            {
                "bound": "none" if bound == AS_NONE else str(bound),
                "idle, overloaded": _estimated(idle.get(bound), in_percent, most=1),
                "mean over ideal, equal loops": _estimated(latency.get(bound), "{:.2f}".format),
                "mean over ideal, unequal loops, simulated": f"{mean:.2f}",
                "p99 over ideal, unequal loops, simulated": f"{tail:.2f}",
            }
        )
    return pd.DataFrame(rows)


def _estimated(
    values: "pd.Series[float] | None", write: "Callable[[float], Number | str]", most: float = math.inf
) -> Number | str:
    if values is None or values.dropna().empty:
        return "not measured"
    return worded(estimate(list(values.dropna()), within=(-math.inf, most)), write)


@lru_cache(maxsize=64)
def _simulated(bound: int, workers: int, utilisation: float) -> tuple[float, float]:
    """Return mean and p99 latency over those of one central queue: Poisson arrivals, exponential loops."""
    random = np.random.default_rng(0)
    due_s = np.cumsum(random.exponential(1 / (workers * utilisation), _REQUESTS))
    loops_s = random.exponential(1.0, _REQUESTS)
    held, ideal = (waits(due_s, loops_s, workers, "bounded", bound=one) + loops_s for one in (bound, 1))
    return float(held.mean() / ideal.mean()), float(np.quantile(held, 0.99) / np.quantile(ideal, 0.99))
