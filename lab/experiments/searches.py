"""Searches for sustained rates, one for each of several servers: they take turns, and the run keeps them."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd

from lab.checks import Positive, checked
from lab.cpus import available_cpus
from lab.errors import UsageError
from lab.load.report import Slo
from lab.models.statistics import samples_needed
from lab.progress import Told
from lab.study.own_search import OwnSearch, in_turns
from lab.study.plan import BEFORE, Condition, capacity_rps
from lab.study.run import Run
from lab.study.stability import between, measured_loop_s, snapshot
from lab.study.sustained import Precision
from lab.study.trial import Attacked, Execute, serve_and_attack
from lab.units import counted

_USUAL_TRIALS = 7
_REQUESTS_PRECISELY = 6
"""Requests of a trial x precision, at least: with fewer than 120 at 5 %, simulated searches miss the capacity
more often than one time in twenty."""

SERVER = ("topology", "workers", "dispatch", "peer")
"""The columns that name a server."""

_LATER = ("peer", "bound")
"""Factors that came after the first searches."""
_NOT_KEPT = ("latency_s", "steady_s", "generator")
_NUMBERS = ("rate", "throughput", "service_s", "service_cpu_s", "share_of_limit", "utilisation")


Percentile = Literal[50, 90, 95, 99]


@checked
@dataclass(frozen=True)
class Objective:
    """What a search asks: this percentile within so many times the trial's own loops, at a steady speed."""

    percentile: Percentile = 95
    loops: Positive = 3.0
    precision: Precision = 0.05
    """How far apart the bounds may be, as a share of the upper."""

    def __str__(self) -> str:
        return f"p{self.percentile} within {self.loops:g} times the loop, at a steady speed"

    def slos(self, loop_s: float) -> list[Slo]:
        """Return it in seconds, and what it implies."""
        return Slo.parse_all([f"p{self.percentile}={self.loops * loop_s:.9f}s"])

    def least_requests(self) -> int:
        """Return how many requests of a trial tell the percentile with 95 % confidence, and the rate."""
        return max(math.ceil(_REQUESTS_PRECISELY / self.precision), samples_needed(self.percentile / 100))


def is_steady(objective: object) -> bool:
    """Say whether a search counted latency at a steady speed, by the objective that it keeps."""
    return "steady" in str(objective)


def search(
    run: Run,
    servers: Sequence[Condition],
    objective: Objective = Objective(),
    *,
    seed: int = 1,
    execute: Execute = serve_and_attack,
) -> pd.DataFrame:
    """Search for the sustained rate of each server, and return a row per trial.

    Of a condition, the rate does not matter; a trial lasts its `duration_s`, or as long as the objective
    needs requests. Searches that the run has are not repeated. The columns are the server (topology, workers,
    dispatch, peer), those of `RateTrial`, and of the search: `lower_rps`, `upper_rps` (nan where none), both
    as shares of the own limit, `reason` and `consistent`.
    """
    if not servers:
        raise UsageError("there is no server to search: name at least one")
    named = {_name(server, objective, seed): server for server in servers}
    kept = run.by_age("sustained-")
    missing = {name: server for name, server in named.items() if name not in kept}
    searched = _search_now(run, missing, objective, seed, execute)
    tables = [whole(run.table(name, partial(searched.__getitem__, name))) for name in named]
    return pd.concat(tables, ignore_index=True)


def _name(server: Condition, objective: Objective, seed: int) -> str:
    identity = asdict(replace(server, rate=1.0, load=None)) | asdict(objective) | {"seed": seed}
    for name in _LATER:
        if identity[name] == BEFORE[name]:
            del identity[name]  # searches older than this factor keep their names
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    return f"sustained-{digest}"


def whole(trials: pd.DataFrame) -> pd.DataFrame:
    """Return trials with the columns that older ones lack."""
    return trials if "peer" in trials else trials.assign(peer="")


def _search_now(
    run: Run, servers: Mapping[str, Condition], objective: Objective, seed: int, execute: Execute
) -> dict[str, pd.DataFrame]:
    """Search for the rates of several servers, which take turns; return the trials of each, by its name."""
    searches = {name: _search_of(server, objective, seed, execute) for name, server in servers.items()}
    show = Told(run.path, "sustained")

    def told(_: OwnSearch) -> None:
        done = [len(search.trials) for search in searches.values()]
        shares = [
            1.0 if search.is_over else count / (count + _USUAL_TRIALS / 2)
            for search, count in zip(searches.values(), done, strict=True)
        ]
        size = counted(len(searches), "server")
        show.show(f"sustained rate of {size}: trial {sum(done)}", sum(shares) / len(shares))

    try:
        in_turns([*searches.values()], told)
    finally:
        show.close()
    return {name: _table(servers[name], search, objective) for name, search in searches.items()}


def _search_of(server: Condition, objective: Objective, seed: int, execute: Execute) -> OwnSearch:
    limit_rps = capacity_rps(
        server.workers, measured_loop_s(server.kernel, server.iterations), server.quota_cpus
    )

    def offer(rate_rps: float, duration_s: float, number: int) -> Attacked:
        before = snapshot()
        offered = execute(replace(server, rate=rate_rps, load=None, duration_s=duration_s), seed + number)
        noise = [flag.to_dict() for flag in between(before, snapshot()).flags()]
        return Attacked(offered.requests, {**offered.summary, "flags": [*offered.summary["flags"], *noise]})

    return OwnSearch(
        offer, objective.slos, duration_s=max(server.duration_s, objective.least_requests() / limit_rps),
        arrivals=server.arrivals, workers=server.workers, cpus=_cpus(server), likely_rps=limit_rps,
        precision=objective.precision,
    )  # fmt: skip


def _cpus(server: Condition) -> float:
    """Return how many CPUs the workers share: as many as they are, if they only sleep."""
    return math.inf if server.kernel == "sleep" else min(available_cpus(), server.quota_cpus or math.inf)


def _table(server: Condition, search: OwnSearch, objective: Objective) -> pd.DataFrame:
    rows = pd.DataFrame(
        [
            {name: getattr(server, name) for name in SERVER}
            | {name: value for name, value in vars(trial).items() if name not in _NOT_KEPT}
            | {f"latency_{name}_s": value for name, value in (trial.steady_s or {}).items()}
            for trial in search.trials
        ]
    )
    rows["missed"] = [", ".join(trial.missed) for trial in search.trials]
    numbers = [name for name in rows.columns if name in _NUMBERS or name.startswith("latency_")]
    rows[numbers] = rows[numbers].astype(float)
    lower, upper = (_or_nan(share) for share in search.bounds)
    lower_rps, upper_rps = (_or_nan(rate_rps) for rate_rps in search.bounds_rps)
    return rows.assign(
        iterations=server.iterations, arrivals=server.arrivals, reason=search.reason,
        lower_rps=lower_rps, upper_rps=upper_rps,
        lower_share=lower, upper_share=upper, consistent=search.consistent,
        objective=str(objective), slo_percentile=objective.percentile, slo_loops=objective.loops,
    )  # fmt: skip


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value
