"""Sustained rates: a search for each server of a page, kept in the run, and what the page says of them."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd

from lab import units
from lab.checks import Count, Positive, Seconds, Whole, checked
from lab.cpus import available_cpus
from lab.errors import UsageError
from lab.experiments.common import by_server, resolve
from lab.hotloop import KernelName
from lab.load.report import Slo
from lab.models.statistics import Estimate, Interval, samples_needed
from lab.progress import Told
from lab.servers.spec import DispatchName
from lab.study.estimates import Stated, linked, stated
from lab.study.own_search import OwnSearch, in_turns
from lab.study.parameters import Parameters
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
_SERVER = ("topology", "workers", "dispatch", "peer")
_LATER = ("peer", "bound")
"""Factors that came after the first searches."""
_ASKED = ("objective", "slo_percentile", "slo_loops", "iterations", "arrivals")
_FOUND = ("reason", "consistent")
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
    tables = [_whole(run.table(name, partial(searched.__getitem__, name))) for name in named]
    return pd.concat(tables, ignore_index=True)


def _name(server: Condition, objective: Objective, seed: int) -> str:
    identity = asdict(replace(server, rate=1.0, load=None)) | asdict(objective) | {"seed": seed}
    for name in _LATER:
        if identity[name] == BEFORE[name]:
            del identity[name]  # searches older than this factor keep their names
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    return f"sustained-{digest}"


def _whole(trials: pd.DataFrame) -> pd.DataFrame:
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
            {name: getattr(server, name) for name in _SERVER}
            | {name: value for name, value in vars(trial).items() if name not in ("latency_s", "generator")}
            | {f"latency_{name}_s": value for name, value in trial.latency_s.items()}
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


def bounds(trials: pd.DataFrame) -> pd.DataFrame:
    """Return what each search found, a row per server, fewest workers first.

    `lower_share` and `upper_share`, as own utilisation, do not depend on the machine's speed: they are shares
    of what the server's own service times allow. `lower_rps` and `upper_rps` are these at the usual speed of
    the search's trials, and `loop_s` is the CPU time of a loop then.
    """
    rows = []
    for server, mine in _whole(trials).groupby(list(_SERVER), sort=False):
        first, sound = mine.iloc[0], mine[mine["flags"].map(len) == 0]
        row: dict[str, Any] = dict(zip(_SERVER, server, strict=True))
        for bound in ("lower", "upper"):
            row[f"{bound}_rps"], row[f"{bound}_share"] = first[f"{bound}_rps"], first[f"{bound}_share"]
        row["loop_s"] = sound["service_cpu_s"].median()
        limits_rps = (mine["rate"] / mine["utilisation"]).where(mine["flags"].map(len) == 0)
        row["limits_rps"] = limits_rps.tolist()
        row |= {name: first[name] for name in (*_ASKED, *_FOUND)}
        rows.append(row | {"trials": len(mine), "flagged": len(mine) - len(sound)})
    return pd.DataFrame(rows).sort_values(["workers", "topology"], ignore_index=True)


def times_as_much(less: "pd.Series[Any]", more: "pd.Series[Any]") -> tuple[float, float, float]:
    """Return how many times the sustained rate of one search is that of another: middle, least and most.

    Their trials took turns, so that both met the machine at the same speeds: of the limits that the pairs of
    trials tell, the ratio is the geometric mean, give or take two standard errors. All are nan where a search
    has a reason to say: a bound is missing, or not confirmed.
    """
    if less["reason"] or more["reason"]:
        return math.nan, math.nan, math.nan
    pairs = zip(less["limits_rps"], more["limits_rps"], strict=False)
    logs = np.array([math.log(many / one) for one, many in pairs if one > 0 and many > 0])
    if len(logs) < 2:
        return math.nan, math.nan, math.nan
    times, error = math.exp(logs.mean()), math.exp(2 * float(logs.std(ddof=1)) / math.sqrt(len(logs)))
    low = more["lower_share"] / less["upper_share"] * times
    high = more["upper_share"] / less["lower_share"] * times
    return float(np.sqrt(low * high)), float(low / error), float(high * error)


KEPT = "sustained-rates"
"""The table in which a run keeps the searches of a page, before the name of its experiment."""


class Sought(Parameters):
    """What the notebooks that also search for sustained rates let their readers set alike."""

    run: str
    duration_s: Seconds
    dispatch: DispatchName
    kernel: KernelName
    timeout_s: Seconds
    blocks: Count
    seed: Whole
    slo_percentile: Percentile
    slo_loops: Positive
    precision: Precision
    search_s: Seconds

    @property
    def objective(self) -> Objective:
        """What a rate must meet to be sustained."""
        return Objective(self.slo_percentile, self.slo_loops, self.precision)


def pair(workers: int | str, dispatch: DispatchName, **load: Any) -> list[Condition]:
    """Return one process and a cluster, to be searched; `load` is what else a condition takes."""
    cluster: dict[str, Any] = {"topology": "cluster", "workers": resolve(workers), "dispatch": dispatch}
    return [Condition(rate=1.0, **load), Condition(rate=1.0, **load, **cluster)]


def searched(
    run: Run, experiment: str, servers: Sequence[Condition], objective: Objective, *, seed: int
) -> pd.DataFrame:
    """Search for the sustained rate of each server, and return `bounds` of them."""
    trials = search(run, servers, objective, seed=seed)
    run.keep(table_name(experiment), trials)
    return bounds(trials)


def table_name(experiment: str) -> str:
    """Name the table in which a run keeps the trials of a page's searches."""
    return f"{KEPT}-{experiment}"


def kept(run: Run, experiment: str) -> pd.DataFrame | None:
    """Return the bounds that an experiment of the run has found, or None."""
    trials = run.newest(table_name(experiment))
    return None if trials is None else bounds(trials)


def answer(found: pd.DataFrame, *, shares: bool = True) -> str:
    """Say which rates are sustained, how many times one process's the cluster's is, and as which share."""
    text = "; ".join(_sustains(server, row) for server, row in _each(found))
    text = f"**Answer.** {text[0].upper()}{text[1:]} ({found['objective'].iloc[0]})."
    if found["lower_rps"].isna().all():
        return text
    if (times := _times(found)) is not None:
        text += f" At the same speed of the machine, that is {times}."
    if shares:
        parts = [f"{_span(row, 'share', units.percent)} for {server}" for server, row in _each(found)]
        text += f" As shares of what their own service times allow: {', '.join(parts)}."
    if not found["consistent"].all():
        advice = ": trust the shares, not the rates" if shares else ""
        text += f" **The machine changed its speed during a search{advice}.**"
    return text


def title(found: pd.DataFrame) -> str:
    """Say up to which share of their own limit the servers hold the SLO."""
    known = _each(found.dropna(subset=["lower_share", "upper_share"], how="all"))
    parts = [f"{server} {_span(row, 'share', _whole_percent)}" for server, row in known]
    if not parts:
        return "No sustained rate was found"
    return f"Sustained: {', '.join(parts)} of the own limit".replace(" % to ", " to ")


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Put the bounds in words, a row per server."""
    return pd.DataFrame(
        {
            "server": server,
            "sustained rate": _between(row, "rps", units.in_requests),
            "of the own limit": _between(row, "share", units.in_percent),
            "trials": row["trials"],
            "flagged": row["flagged"],
            "doubts": row["reason"] or ("" if row["consistent"] else "the machine changed its speed"),
        }
        for server, row in _each(found)
    )


def estimates(experiment: str, found: pd.DataFrame) -> list[Stated]:
    """State the bounds of each server, in requests/s and as shares of its own limit.

    A search that ended with both bounds before it was done has confirmed neither: they are not stated.
    """
    unconfirmed = (found["reason"] != "") & found[["lower_rps", "upper_rps"]].notna().all(axis=1)
    rows = []
    for _, row in found[~unconfirmed].iterrows():
        for quantity, of, unit in _QUANTITIES:
            low, high = row[f"lower_{of}"], row[f"upper_{of}"]
            middle = float(pd.Series([low, high]).mean())
            bounds_ = Estimate(middle, low, high, row["trials"], Interval.SEARCH)
            rows.append(
                stated(experiment, quantity, bounds_, unit, sources=[table_name(experiment)], **about(row))
            )
    return [*rows, *_compared(experiment, found)]


RATIO = "sustained rate, over that of one process"
"""What `times_as_much` says, as an estimate."""


def _compared(experiment: str, found: pd.DataFrame) -> Iterator[Stated]:
    """State how many times the rate of one process each cluster sustains, where `times_as_much` can tell."""
    for one, row in _pairs(found):
        if not math.isnan((times := times_as_much(one, row))[0]):
            told = Estimate(*times, int(one["trials"] + row["trials"]), Interval.SEARCH)
            yield stated(experiment, RATIO, told, sources=[table_name(experiment)], **about(row))


def _pairs(found: pd.DataFrame) -> "list[tuple[pd.Series[Any], pd.Series[Any]]]":
    """Return the rows of one process and of each cluster."""
    single, several = (found[found["topology"] == topology] for topology in ("single", "cluster"))
    return [(one, row) for _, one in single.head(1).iterrows() for _, row in several.iterrows()]


def about(row: "pd.Series[Any]") -> dict[str, Any]:
    """Return the factors of a search: its server, and what it asked."""
    several = {} if row["topology"] == "single" else {"dispatch": row["dispatch"]}
    return several | {
        "topology": row["topology"], "workers": row["workers"], "slo": row["objective"],
        "loop": row["iterations"], "arrivals": row["arrivals"],
    }  # fmt: skip


_QUANTITIES = (("sustained rate", "rps", "requests/s"), ("sustained rate, of the own limit", "share", ""))


def _whole_percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def _each(found: pd.DataFrame) -> list[tuple[str, "pd.Series[Any]"]]:
    """Return each server's name, without its dispatch where all have the same, and its row."""
    return [(server.partition(",")[0], rows.iloc[0]) for server, rows in by_server(found)]


def _sustains(server: str, row: "pd.Series[Any]") -> str:
    if pd.isna(row["lower_rps"]):
        return f"for {server}, no sustained rate was found: {row['reason']}"
    does = "sustains" if row["topology"] == "single" or row["workers"] == 1 else "sustain"
    doubt = f" ({row['reason']})" if row["reason"] else ""
    rates = linked(_span(row, "rps", units.per_second), _QUANTITIES[0][0], **about(row))
    return f"{server} {does} **{rates}**{doubt}"


def _times(found: pd.DataFrame) -> str | None:
    """Say how many times the cluster's rate is, in words; None if `times_as_much` cannot tell."""
    for one, row in _pairs(found)[-1:]:
        middle, low, high = times_as_much(one, row)
        if not math.isnan(middle):
            times = linked(units.digits(middle), RATIO, **about(row))
            text = f"**{times} times as much** ({units.digits(low)} to {units.digits(high)})"
            excess = ", more than its workers can: the machine changed its speed"
            return text + (excess if low > row["workers"] else "")
    return None


def _between(row: "pd.Series[Any]", what: str, write: Callable[[float], units.Number]) -> units.Number:
    return units.between(row[f"lower_{what}"], row[f"upper_{what}"], write)


def _span(row: "pd.Series[Any]", what: str, write: Callable[[float], str]) -> str:
    return units.bounds(row[f"lower_{what}"], row[f"upper_{what}"], write)
