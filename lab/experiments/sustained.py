"""Sustained rates: a search for each server of a page, kept in the run, and what the page says of them."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
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
from lab.study.parameters import Parameters
from lab.study.plan import BEFORE, Condition, capacity_rps
from lab.study.rate_search import RateTrial, Search
from lab.study.run import Run
from lab.study.stability import between, measured_loop_s, snapshot
from lab.study.sustained import Precision, Sustained
from lab.study.trial import Attacked, Execute, serve_and_attack
from lab.units import counted, per_second

_USUAL_TRIALS = 7
_BEYOND = 1.5
"""Times the calibrated capacity: where a search begins, in overload."""
_MOST = 4.0
"""Times the calibrated capacity: where it ends, as no server of ours can be that fast."""
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
    """What a search asks: this percentile within so many times the loop's CPU time, measured before it."""

    percentile: Percentile = 95
    loops: Positive = 3.0
    precision: Precision = 0.05
    """How far apart the bounds may be, as a share of the upper."""

    def __str__(self) -> str:
        return f"p{self.percentile} within {self.loops:g} times the loop"

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
    as shares of the own limit, `reason`, `consistent`, and `loop_cpu_s`, the loop's CPU time as calibrated
    before each trial.
    """
    if not servers:
        raise UsageError("there is no server to search: name at least one")
    show = Told(run.path, "sustained")
    try:
        found = [_search_or_read(run, server, objective, seed, execute, show.show) for server in servers]
    finally:
        show.close()
    return pd.concat(found, ignore_index=True)


def _search_or_read(
    run: Run, server: Condition, objective: Objective, seed: int, execute: Execute, show: Any
) -> pd.DataFrame:
    identity = asdict(replace(server, rate=1.0, load=None)) | asdict(objective) | {"seed": seed}
    for name in _LATER:
        if identity[name] == BEFORE[name]:
            del identity[name]  # searches older than this factor keep their names
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    return _whole(
        run.table(f"sustained-{digest}", lambda: _search_now(server, objective, seed, execute, show))
    )


def _whole(trials: pd.DataFrame) -> pd.DataFrame:
    """Return trials with the columns that older ones lack."""
    return trials if "peer" in trials else trials.assign(peer="")


def _search_now(
    server: Condition, objective: Objective, seed: int, execute: Execute, show: Any
) -> pd.DataFrame:
    loop_s = measured_loop_s(server.kernel, server.iterations)
    limit_rps = capacity_rps(server.workers, loop_s, server.quota_cpus)
    duration_s = max(server.duration_s, objective.least_requests() / limit_rps)

    loops_cpu_s: list[float] = []

    def offer(rate_rps: float, asked_s: float, number: int) -> Attacked:
        loops_cpu_s.append(measured_loop_s(server.kernel, server.iterations))
        before = snapshot()
        offered = execute(replace(server, rate=rate_rps, load=None, duration_s=asked_s), seed + number)
        noise = [flag.to_dict() for flag in between(before, snapshot()).flags()]
        return Attacked(offered.requests, {**offered.summary, "flags": [*offered.summary["flags"], *noise]})

    def told(trial: RateTrial, trials: Sequence[RateTrial]) -> None:
        size = counted(server.workers, "worker")
        share = len(trials) / (len(trials) + _USUAL_TRIALS / 2)
        show(f"sustained rate of {size}: trial {len(trials)}, {per_second(trial.rate)}", share)

    slos = objective.slos(loop_s)
    searching = Search(
        offer, slos, duration_s=duration_s, arrivals=server.arrivals,
        workers=server.workers, cpus=_cpus(server), on_trial=told,
    )  # fmt: skip
    bounds = searching.run(_BEYOND * limit_rps, _MOST * limit_rps, objective.precision)
    found = Sustained("", tuple(slos), server.arrivals, *bounds, tuple(searching.trials))
    return _table(server, found, loops_cpu_s).assign(
        objective=str(objective), slo_percentile=objective.percentile, slo_loops=objective.loops
    )


def _cpus(server: Condition) -> float:
    """Return how many CPUs the workers share: as many as they are, if they only sleep."""
    return math.inf if server.kernel == "sleep" else min(available_cpus(), server.quota_cpus or math.inf)


def _table(server: Condition, found: Sustained, loops_cpu_s: list[float]) -> pd.DataFrame:
    rows = pd.DataFrame(
        [
            {name: getattr(server, name) for name in _SERVER}
            | {name: value for name, value in vars(trial).items() if name not in ("latency_s", "generator")}
            | {f"latency_{name}_s": value for name, value in trial.latency_s.items()}
            for trial in found.trials
        ]
    )
    rows["missed"] = [", ".join(trial.missed) for trial in found.trials]
    numbers = [name for name in rows.columns if name in _NUMBERS or name.startswith("latency_")]
    rows[numbers] = rows[numbers].astype(float)
    return rows.assign(
        iterations=server.iterations, arrivals=server.arrivals, loop_cpu_s=loops_cpu_s, reason=found.reason,
        held_rps=_or_nan(found.held_rps), failed_rps=_or_nan(found.failed_rps),
        lower_rps=_or_nan(found.lower_rps), upper_rps=_or_nan(found.upper_rps), consistent=found.consistent,
        lower_share=_or_nan(found.utilisation[0]), upper_share=_or_nan(found.utilisation[1]),
    )  # fmt: skip


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def bounds(trials: pd.DataFrame) -> pd.DataFrame:
    """Return what each search found, a row per server, fewest workers first.

    `lower_rps` and `upper_rps` depend on the machine's speed; `lower_share` and `upper_share`, the median own
    utilisation at them, do not: they are shares of what the server's own service times allow. `lower_cpus`
    and `upper_cpus` are the bounds x the loop as calibrated at each, the lesser first: how many CPUs' worth
    of loops was answered. `loop_s` is that loop at the lower bound.
    """
    rows = []
    for server, mine in _whole(trials).groupby(list(_SERVER), sort=False):
        first, sound = mine.iloc[0], mine[mine["flags"].map(len) == 0]
        row: dict[str, Any] = dict(zip(_SERVER, server, strict=True))
        for bound, at in (("lower", "held_rps"), ("upper", "failed_rps")):
            row[f"{bound}_rps"], row[f"{bound}_share"] = first[f"{bound}_rps"], first[f"{bound}_share"]
            tested_s = sound.loc[sound["rate"] == first[at], "loop_cpu_s"].median()
            row[f"{bound}_cpus"] = first[f"{bound}_rps"] * tested_s
            row.setdefault("loop_s", tested_s)
        if row["lower_cpus"] > row["upper_cpus"]:  # the machine was slower at the lower rate
            row["lower_cpus"], row["upper_cpus"] = row["upper_cpus"], row["lower_cpus"]
        row |= {name: first[name] for name in (*_ASKED, *_FOUND)}
        rows.append(row | {"trials": len(mine), "flagged": len(mine) - len(sound)})
    return pd.DataFrame(rows).sort_values(["workers", "topology"], ignore_index=True)


def times_as_much(less: "pd.Series[Any]", more: "pd.Series[Any]") -> tuple[float, float, float]:
    """Return how many times the work sustained in one search is that of another: middle, least and most.

    Work is rate x loop, by `lower_cpus` and `upper_cpus`: the machine's speed, which may differ between
    searches, is not in it. All are nan where a search has a reason to say: a bound is missing, or not
    confirmed.
    """
    if less["reason"] or more["reason"]:
        return math.nan, math.nan, math.nan
    low, high = more["lower_cpus"] / less["upper_cpus"], more["upper_cpus"] / less["lower_cpus"]
    return float(np.sqrt(low * high)), float(low), float(high)


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
        text += f" Counted in CPU time, as the machine's speed changes, that is {times}."
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
            "worth of calibrated CPUs": _between(row, "cpus", units.plain),
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


WORK = "sustained work, over that of one process"
"""What `times_as_much` says, as an estimate."""


def _compared(experiment: str, found: pd.DataFrame) -> Iterator[Stated]:
    """State how many times the work of one process each cluster sustains, where `times_as_much` can tell."""
    for one, row in _pairs(found):
        if not math.isnan((times := times_as_much(one, row))[0]):
            told = Estimate(*times, int(one["trials"] + row["trials"]), Interval.SEARCH)
            yield stated(experiment, WORK, told, sources=[table_name(experiment)], **about(row))


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
    """Say how many times the cluster's work is, in words; None if `times_as_much` cannot tell."""
    for one, row in _pairs(found)[-1:]:
        middle, low, high = times_as_much(one, row)
        if not math.isnan(middle):
            times = linked(units.digits(middle), WORK, **about(row))
            text = f"**{times} times as much** ({units.digits(low)} to {units.digits(high)}):"
            text += f" {worth(row)} CPUs' worth of loops over {worth(one)}"
            excess = ", more than its workers can: the machine changed its speed"
            return text + (excess if low > row["workers"] else "")
    return None


def worth(row: "pd.Series[Any]") -> str:
    """Write how much work a search found sustained, in CPUs' worth of loops: 1.70 to 1.80."""
    return _span(row, "cpus", units.digits)


def _between(row: "pd.Series[Any]", what: str, write: Callable[[float], units.Number]) -> units.Number:
    return units.between(row[f"lower_{what}"], row[f"upper_{what}"], write)


def _span(row: "pd.Series[Any]", what: str, write: Callable[[float], str]) -> str:
    return units.bounds(row[f"lower_{what}"], row[f"upper_{what}"], write)
