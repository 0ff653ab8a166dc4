"""Given less than one core, does clustering make a difference? One process and clusters under CPU quotas."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pandas as pd
from annotated_types import Ge
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field, field_validator

from lab import units
from lab.checks import Before, Count, Positive, Seconds, Whole, number
from lab.cpus import affinity_cpus, quota_cpus
from lab.experiments.claims import Verdict, Word, weighed
from lab.experiments.common import accounted, mainly, spread
from lab.figures import DARK_TO_LIGHT, QUIET, Look, canvas, reference_line
from lab.hotloop import KernelName
from lab.load.arrivals import Arrivals
from lab.models.statistics import Estimate, estimate, paired_ratio
from lab.quota import QuotaError
from lab.servers.spec import DispatchName
from lab.study.estimates import Stated, linked, stated
from lab.study.parameters import DistinctOf, WorkerCount
from lab.study.parameters import Parameters as _Parameters
from lab.study.plan import Condition
from lab.study.run import Run

EXPERIMENT = "less-than-one-core"

DIFFERENCE = 1.2
"""Ratios between 1 / 1.2 and 1.2 are no difference: less than a fifth of what a second core would bring."""

_OVERLOADED = 1.1
"""A server's highest throughput is seen only when it is offered this much more than its CPUs allow."""

_HELD = 0.5
"""If the quota stops an overloaded server in fewer periods than this, something else held it back."""

_OBSTACLE = "no-quota"
"""The table of a run that says why no quota could be set."""

_MIDWAY = 1.0
"""A load below this leaves time to spare: there latency is read, and above it throughput."""

Quota = Annotated[float, Before(number), Ge(0)]


class Parameters(_Parameters):
    """What notebook 13 lets its reader set; a quota of 0 is none: all CPUs."""

    run: str
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
        run.keep(_OBSTACLE, pd.DataFrame({"because": [str(error)]}))
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
        for calm, full in [(_by_workers(mine[~_is_full(mine)]), _by_workers(mine[_is_full(mine)]))]
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


def _by_workers(trials: pd.DataFrame) -> dict[int, pd.DataFrame]:
    return {int(str(n)): mine for n, mine in trials.groupby("workers")}


def _is_full(trials: pd.DataFrame) -> "pd.Series[bool]":
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


def is_alike(ratio: Estimate | None) -> bool | None:
    """Say whether a ratio is no difference; None if its interval does not tell."""
    if ratio is None or not ratio.is_interval:
        return None
    if ratio.low >= 1 / DIFFERENCE and ratio.high <= DIFFERENCE:
        return True
    return False if ratio.high < 1 / DIFFERENCE or ratio.low > DIFFERENCE else None


def verdict(trials: pd.DataFrame) -> Verdict:
    """Judge claim 8 by the work done and the median latency of every cluster that has less than one core."""
    return weighed(trials[trials["quota_cpus"] < 1], _makes_no_difference)


def verdict_of(run: Run) -> Verdict:
    """Judge claim 8 by what a run measured; if nothing, say why, if the run knows."""
    found = verdict(accounted(run, run.trials(EXPERIMENT)))
    obstacle = None if found.evidence else run.newest(_OBSTACLE)
    return found if obstacle is None else Verdict(8, f"nothing: {obstacle['because'].iloc[0]}")


def _makes_no_difference(trials: pd.DataFrame) -> Verdict:
    if not (below := compared(trials)):
        return Verdict(8)
    parts = [
        part
        for found in below
        for part in (is_alike(found.work) if found.can_be_told else None, is_alike(found.p50))
    ]
    return Verdict(8, "; ".join(map(_evidence, below)), Word.of(*parts))


_QUANTITIES = {
    "work": "work over one process, overloaded",
    "throughput": "throughput over one process, overloaded",
    "p50": "p50 latency over one process",
    "p90": "p90 latency over one process",
}
"""What is stated of a cluster, by its name in `Compared`."""


def _evidence(found: Compared, *, leads: bool = False) -> str:
    """Write how a cluster compares with one process; each number `leads` to its estimate, if asked."""
    of = {"quota": quota_name(found.quota_cpus), "workers": found.workers}
    said = []
    for name, words in {"work": "work done", "throughput": "throughput", "p50": "median latency"}.items():
        value, times, rest = _times(getattr(found, name)).partition(" times")
        said.append(
            f"{words} {linked(value, _QUANTITIES[name], **of) if leads and times else value}{times}{rest}"
        )
    return f"{found.workers} workers over one process, {of['quota']}: {', '.join(said)}"


def quota_name(limit: float | None) -> str:
    """Name a quota in words."""
    return "all CPUs" if limit is None else units.counted(limit, "CPU")


def _times(ratio: Estimate | None) -> str:
    return "unknown" if ratio is None else f"{units.digits(ratio.value)} times ({spread(ratio)})"


_IN_WORDS = {
    Word.HOLDS: "Given less than one core, clustering makes no difference",
    Word.IN_PART: "Given less than one core, clustering makes a difference, but not to everything",
    Word.NOT_HERE: "Even given less than one core, clustering makes a difference",
    Word.UNTOLD: "Whether clustering makes a difference, given less than one core, cannot be told",
}


def answer(trials: pd.DataFrame, why_not: str) -> str:
    """Say whether clustering made a difference, or why not."""
    if why_not:
        return f"**Answer.** **{_IN_WORDS[Word.UNTOLD]} here**: {why_not}."
    found = verdict(trials)
    below = compared(trials[trials["quota_cpus"] < 1]) if found.evidence else []
    evidence = (
        "; ".join(_evidence(one, leads=True) for one in below) or "no quota below one core was measured"
    )
    return f"**Answer.** **{_IN_WORDS[found.word]} here** ({evidence})."


def _stopped(trials: pd.DataFrame) -> str:
    return units.percent(float(throttled_share(trials).median()))


def table(trials: pd.DataFrame) -> pd.DataFrame:
    """Put every server under every quota in a row: medians over blocks, and ratios to one process."""
    ratios = {(found.quota_cpus, found.workers): found for found in compared(trials)}
    rows = pd.DataFrame(
        {
            "quota": quota_name(limit),
            "workers": n,
            "throughput, overloaded": units.in_requests(full["busy_rps"].median()),
            "over one process": _of_one(ratios.get((limit, n)), "throughput"),
            "work over one process": _of_one(ratios.get((limit, n)), "work"),
            "periods stopped, overloaded": _stopped(full),
            "p50 latency": units.in_seconds(calm["latency_p50_s"].median()),
            "p50 over one process": _of_one(ratios.get((limit, n)), "p50"),
            "p90 latency": units.in_seconds(calm["latency_p90_s"].median()),
            "p90 over one process": _of_one(ratios.get((limit, n)), "p90"),
            "periods stopped": _stopped(calm),
        }
        for limit, mine in by_quota(trials)
        for n, both in _by_workers(mine).items()
        for calm, full in [(both[~_is_full(both)], both[_is_full(both)])]
    )
    return mainly(rows, "quota", "workers", "work over one process", "p50 over one process")


def _of_one(found: Compared | None, measure: str) -> str:
    if found is None:
        return ""
    ratio: Estimate | None = getattr(found, measure)
    if ratio is None:
        return "unknown"
    seen = "" if ratio.smallest_told is None else f"; {units.percent(ratio.smallest_told)} would show"
    return f"{_times(ratio)}{seen}"


def estimates(trials: pd.DataFrame) -> list[Stated]:
    """State the ratios of each cluster to one process."""
    return [
        stated(
            EXPERIMENT, quantity, ratio, compares=True, sources=found.sources[name],
            quota=quota_name(found.quota_cpus), workers=found.workers,
        )
        for found in compared(trials)
        for name, quantity in _QUANTITIES.items()
        if (ratio := getattr(found, name)) is not None
    ]  # fmt: skip


def figure(trials: pd.DataFrame) -> Figure | None:
    """Draw throughput and latency against workers, and below each how often the quota stopped the server."""
    if trials.empty:
        return None
    panels: dict[str, Any] = {"rows": 2, "columns": 2, "sharex": True, "height_ratios": (2, 1)}
    title = _IN_WORDS[verdict(trials).word]
    with canvas(title, height=5.0, **panels) as (figure, (rate, latency, stopped, stopped_calm)):
        names = sorted(int(n) for n in trials["workers"].unique())
        quotas = by_quota(trials)
        for k, ((limit, mine), look) in enumerate(zip(quotas, DARK_TO_LIGHT, strict=False)):
            aside = 0.07 * (k - (len(quotas) - 1) / 2)  # so that no series hides another
            places = {n: place + aside for place, n in enumerate(names)}
            calm, full = mine[~_is_full(mine)], mine[_is_full(mine)]
            _draw(rate, full, full["busy_rps"], places, look, label=quota_name(limit))
            for column, hollow in (("latency_p50_s", False), ("latency_p90_s", True)):
                _draw(latency, calm, 1000 * calm[column], places, look, hollow=hollow)
            for below, some in ((stopped, full), (stopped_calm, calm)):
                _draw(below, some, 100 * throttled_share(some), places, look)
            if limit is not None:
                allowed_rps = (limit * full["rate"] / offered_cpus(full)).median()
                name = None if k else "ideal: quota used up"
                reference_line(rate, y=float(allowed_rps), text="", label=name)
        latency.plot([], [], "o-", color=QUIET, label="p50")
        latency.plot([], [], "o:", color=QUIET, label="p90", markerfacecolor="white")
        rate.set_title("Throughput, overloaded")
        rate.set_ylabel("requests/s")
        latency.set_title(f"Latency at {units.percent(trials['load'].min())} load")
        latency.set_ylabel("ms")
        for above in (rate, latency):
            above.set_ylim(0, 1.4 * above.get_ylim()[1])
            above.legend(loc="upper left", ncols=1 if above is rate else 2)
        for below in (stopped, stopped_calm):
            below.set_ylabel("periods in which\nit was stopped, %" if below is stopped else "")
            below.set_ylim(-5, 105)
            below.set_xlabel("workers")
            below.set_xticks(range(len(names)), [str(n) for n in names])
            below.set_xlim(-0.4, len(names) - 0.6)
    return figure


def _draw(
    axes: Axes,
    trials: pd.DataFrame,
    values: "pd.Series[float]",
    places: dict[int, float],
    look: Look,
    *,
    label: str | None = None,
    hollow: bool = False,
) -> None:
    """Draw the median over blocks for each number of workers, with its interval."""
    known = values.dropna()
    points = {int(str(n)): estimate(list(mine)) for n, mine in known.groupby(trials["workers"])}
    if not points:
        return
    below, above = (
        [found.value - found.low for found in points.values()],
        [found.high - found.value for found in points.values()],
    )
    axes.errorbar(
        [places[n] for n in points], [found.value for found in points.values()], yerr=[below, above],
        marker=look.marker, color=look.color, capsize=4, elinewidth=1.2, label=label,
        linestyle=":" if hollow else look.line, markerfacecolor="white" if hollow else look.color,
    )  # fmt: skip
