"""One process and clusters under CPU quotas: what is measured, and how they compare within blocks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import pandas as pd
from annotated_types import Ge
from pydantic import Field, field_validator

from lab import units
from lab.checks import Before, Count, Positive, Seconds, Whole, number
from lab.cpus import affinity_cpus, quota_cpus
from lab.experiments.common import accounted
from lab.hotloop import KernelName
from lab.load.arrivals import Arrivals
from lab.models.statistics import Estimate, paired_ratio
from lab.quota import QuotaError
from lab.servers.spec import DispatchName
from lab.study.parameters import DistinctOf, RunToAddTo, WorkerCount
from lab.study.parameters import Parameters as _Parameters
from lab.study.plan import Condition
from lab.study.run import Run

EXPERIMENT = "less-than-one-core"

_OVERLOADED = 1.1
"""A server's highest throughput is seen only when it is offered this much more than its CPUs allow."""

_HELD = 0.5
"""If the quota stops an overloaded server in fewer periods than this, something else held it back."""

OBSTACLE = "no-quota"
"""The table of a run that says why no quota could be set."""

_MIDWAY = 1.0
"""A load below this leaves time to spare: there latency is read, and above it throughput."""

Quota = Annotated[float, Before(number), Ge(0)]


class Parameters(_Parameters):
    """What notebook 13 lets its reader set; a quota of 0 is none: all CPUs."""

    run: RunToAddTo
    quotas: Annotated[DistinctOf[Quota], Field(min_length=1, max_length=4)]
    workers: DistinctOf[WorkerCount]
    load: Annotated[Positive, Field(lt=_MIDWAY)]
    overload: Annotated[Positive, Field(ge=_OVERLOADED)]
    duration_s: Seconds
    dispatch: DispatchName
    kernel: KernelName
    iterations: Whole
    timeout_s: Seconds
    blocks: Count
    seed: Whole

    @field_validator("workers")
    @classmethod
    def _compares(cls, workers: tuple[int, ...]) -> tuple[int, ...]:
        if 1 not in workers or len(workers) < 2:
            raise ValueError("must include 1, and another number to compare with it")
        return workers


def conditions(p: Parameters) -> list[Condition]:
    """Return each server under each quota at both loads; a quota that limits nothing here counts as none.

    Arrivals are Poisson's at the lower load, where bursts are what a second worker could help with.
    """
    cpus = min(affinity_cpus(), quota_cpus() or math.inf)
    limits = dict.fromkeys(quota if 0 < quota < cpus else None for quota in p.quotas)
    loads: list[tuple[float, Arrivals]] = [(p.load, "poisson"), (p.overload, "constant")]
    shared = p.model_dump(include={"duration_s", "kernel", "iterations", "timeout_s"})
    return [
        Condition(
            topology="single" if n == 1 else "cluster", workers=n, dispatch=p.dispatch, quota_cpus=limit,
            load=load, arrivals=arrivals, **shared,
        )
        for limit in limits
        for n in sorted(p.workers)
        for load, arrivals in loads
    ]  # fmt: skip


def measure(run: Run, p: Parameters) -> tuple[pd.DataFrame, str]:
    """Measure what is not yet in the run; return its trials, and why there are none under a quota, or ""."""
    try:
        return accounted(run, run.measure(EXPERIMENT, conditions(p), blocks=p.blocks, seed=p.seed)), ""
    except QuotaError as error:
        run.keep(OBSTACLE, pd.DataFrame({"because": [str(error)]}))
        return accounted(run, run.trials(EXPERIMENT).head(0)), str(error)


@dataclass(frozen=True)
class Compared:
    """A cluster beside one process under the same quota (None: all CPUs), by ratios within blocks.

    None where no block has both. `sources` are the ids of the trials behind each, by its name.
    """

    quota_cpus: float | None
    workers: int
    work: Estimate | None
    """Of the CPU time that answered loops took, per second: throughput, whatever the machine's speed was."""
    throughput: Estimate | None
    p50: Estimate | None
    p90: Estimate | None
    can_be_told: bool
    """Whether both were offered more than the quota allows, and the quota was what held them back."""
    sources: Mapping[str, tuple[str, ...]]


def compared(trials: pd.DataFrame) -> list[Compared]:
    """Compare each cluster with one process: work and throughput where overloaded, latency where not."""
    trials = trials.assign(work_cpus=trials["busy_rps"] * loop_cpu_s(trials))
    return [
        _compare(limit, n, calm, full)
        for limit, mine in by_quota(trials)
        for calm, full in [(by_workers(mine[~is_full(mine)]), by_workers(mine[is_full(mine)]))]
        for n in sorted(set(calm) & set(full) - {1})
        if 1 in calm and 1 in full
    ]


_ByWorkers = dict[int, pd.DataFrame]


def _compare(limit: float | None, n: int, calm: _ByWorkers, full: _ByWorkers) -> Compared:
    measures = {
        "work": (full, "work_cpus"), "throughput": (full, "busy_rps"), "p50": (calm, "latency_p50_s"),
        "p90": (calm, "latency_p90_s"),
    }  # fmt: skip
    paired = {name: _paired(of[n], of[1], column) for name, (of, column) in measures.items()}
    return Compared(
        limit, n, **{name: _ratio(pairs) for name, pairs in paired.items()},
        can_be_told=_was_limited(full[n]) and _was_limited(full[1]),
        sources={name: (*pairs["trial_id_over"], *pairs["trial_id_under"]) for name, pairs in paired.items()},
    )  # fmt: skip


def by_quota(trials: pd.DataFrame) -> list[tuple[float | None, pd.DataFrame]]:
    """Split trials by their quota, the smallest first, those without one (None) last."""
    quotas = sorted(trials["quota_cpus"].dropna().unique())
    limited = [(float(quota), trials[trials["quota_cpus"] == quota]) for quota in quotas]
    free = trials[trials["quota_cpus"].isna()]
    return [*limited, (None, free)] if len(free) else [*limited]


def by_workers(trials: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """Split trials by their number of workers."""
    return {int(str(n)): mine for n, mine in trials.groupby("workers")}


def is_full(trials: pd.DataFrame) -> "pd.Series[bool]":
    """Mark the trials that were overloaded."""
    return trials["load"] > _MIDWAY


def _paired(over: pd.DataFrame, under: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return both numbers of each block that has them, over and under, and the ids of their trials."""
    columns = ["block", "trial_id", column]
    pairs = over[columns].merge(under[columns], on="block", suffixes=("_over", "_under"))
    pairs = pairs.rename(columns={f"{column}_over": "over", f"{column}_under": "under"})
    return pairs[(pairs["over"] > 0) & (pairs["under"] > 0)]


def _ratio(pairs: pd.DataFrame) -> Estimate | None:
    return paired_ratio(list(pairs["over"]), list(pairs["under"])) if len(pairs) else None


def throttled_share(trials: pd.DataFrame) -> "pd.Series[float]":
    """Return, for each trial, the share of periods in which its quota stopped it; nan without a quota."""
    periods = trials["cpu_periods"].astype(float)
    return trials["cpu_periods_throttled"].astype(float) / periods.where(periods > 0)


def offered_cpus(trials: pd.DataFrame) -> "pd.Series[float]":
    """Return the CPUs' worth of loops offered; by CPU time, as a loop that is stopped takes no more of it."""
    return trials["rate"] * loop_cpu_s(trials)


def loop_cpu_s(trials: pd.DataFrame) -> "pd.Series[float]":
    """Return the mean CPU seconds of each trial's own loops; the calibrated loop's where unknown."""
    return trials["service_cpu_mean_s"].fillna(trials["loop_s"])


def _was_limited(overloaded: pd.DataFrame) -> bool:
    limit = overloaded["quota_cpus"].median()
    if math.isnan(limit):
        return True
    held = throttled_share(overloaded).median() >= _HELD
    return bool(held and offered_cpus(overloaded).median() >= _OVERLOADED * limit)


def quota_name(limit: float | None) -> str:
    """Name a quota in words."""
    return "all CPUs" if limit is None else units.counted(limit, "CPU")
