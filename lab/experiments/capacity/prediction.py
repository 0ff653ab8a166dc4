"""What one worker says beforehand of several: written to disk before they are measured, then scored.

Everything is in mean service times of the trial's own, against its own utilisation, so that nothing depends
on the machine's speed.
"""

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.cpus import available_cpus
from lab.errors import UsageError
from lab.experiments.capacity.case import EXPERIMENT, Parameters
from lab.experiments.common import resolve
from lab.experiments.dispatch.trials import played_as
from lab.models.capacity import highest_utilisation, is_exact
from lab.models.simulation import Dispatch, waits
from lab.study.plan import Condition
from lab.study.run import Run, table_name

BAND = 0.9
"""The probability that a trial as theory has it is in its band."""

PERCENTILES = (50, 99)

SUSTAINED = "sustained-predicted"
"""The kind of table that keeps the predicted own utilisation, and the objective that it is for."""

_LOW = 0.5
"""The load of one worker at which hardly any request waits: they come at a constant rate."""

_GRID = np.round(np.arange(0.1, 0.951, 0.05), 2)
_PLAYS, _FEWEST_PLAYS, _MOST_PLAYED = 500, 100, 1_000_000
"""Trials to simulate for a band; fewer if they would be more requests than the last.

A trial of more requests than even the fewest allow is played as one of so many: its band is too wide.
"""


def of_one_worker(p: Parameters) -> Condition:
    """Return the trial of one worker, at a constant rate so low that hardly any request waits."""
    return Condition(workers=1, load=_LOW, **_shared(p))


def of_several(p: Parameters) -> list[Condition]:
    """Return the trials that are predicted: several workers under random arrivals at each load."""
    workers = resolve(p.workers)
    return [Condition(workers=workers, load=load, arrivals="poisson", **_shared(p)) for load in p.loads]


def _shared(p: Parameters) -> dict[str, Any]:
    factors = {"duration_s", "dispatch", "kernel", "iterations", "timeout_s"}
    return p.model_dump(include=factors) | {"topology": "cluster"}


def calibration(run: Run, p: Parameters) -> pd.DataFrame:
    """Return what one worker shows, a row per answer: block, service_s, overhead_s.

    Service times that were given are taken as they are, as one block without overhead.
    """
    if p.service_s:
        return pd.DataFrame({"block": 1, "service_s": list(p.service_s), "overhead_s": 0.0})
    trials = run.measure(EXPERIMENT, [of_one_worker(p)], blocks=p.blocks, seed=p.seed)
    return undelayed(run.requests(trials))


def measure(run: Run, p: Parameters) -> pd.DataFrame:
    """Measure what was predicted, a row per trial; nothing if service times were given."""
    if p.service_s:
        return run.trials(EXPERIMENT).head(0)
    return run.measure(EXPERIMENT, of_several(p), blocks=p.blocks, seed=p.seed)


def undelayed(requests: pd.DataFrame) -> pd.DataFrame:
    """Return the answers of one worker that did not wait for another: block, service_s, overhead_s.

    What such a request takes beside its loop is overhead, not a queue.
    """
    ordered = requests.sort_values(["trial_id", "due_s"])
    before_s = ordered.groupby("trial_id")["end_s"].transform(lambda end_s: end_s.cummax().shift())
    answered = ordered["service_s"].notna() & (ordered["outcome"] == "ok")
    alone = ordered[answered & ~(before_s > ordered["due_s"])]
    overhead_s = (alone["latency_s"] - alone["service_s"]).clip(lower=0.0)
    return alone[["block", "service_s"]].assign(overhead_s=overhead_s).reset_index(drop=True)


def predict(run: Run, p: Parameters, known: pd.DataFrame) -> pd.DataFrame:
    """Return the bands that follow from a calibration, or those that the run has: once written, they stay.

    A row per load, percentile and utilisation: low, middle and high of that percentile's latency in mean
    service times, and written_at. In all rows: sustained, the own utilisation up to which random arrivals
    meet the objective; and exact, the same if all loops were alike, by formula (nan if there is none, or the
    run does not have it).

    Raises UsageError for more workers than CPUs: those that are predicted have one each.
    """
    if resolve(p.workers) > available_cpus():
        raise UsageError(
            f"workers must be at most {available_cpus()}, one for each CPU here: the queue that is predicted"
            " has no other"
        )
    asked = ([condition.factors() for condition in of_several(p)], p.seed)
    calibrated = (p.service_s, p.blocks)
    objective = {"slo_percentile": p.slo_percentile, "slo_loops": p.slo_loops}
    rate = run.table(
        table_name(SUSTAINED, asked, calibrated, objective),
        lambda: pd.DataFrame([sustained_utilisations(p, known) | objective]),
    )
    bands = run.table(
        table_name("predictions", asked, calibrated),
        lambda: _bands(p, known).assign(written_at=datetime.now(UTC)),
    )
    foretold = rate.reindex(columns=["sustained", "exact"]).astype(float).iloc[0]
    return bands.assign(**foretold)


def sustained_utilisations(p: Parameters, known: pd.DataFrame) -> dict[str, float]:
    """Return the highest own utilisations at which the queue of several such workers meets the objective.

    `sustained` is of times as they vary, `exact` of all alike, by formula (M/D/c): nan if there is none for
    how the dispatch queues. A worker is occupied by a request's overhead, too; own utilisation counts loops
    alone. Times are in mean loops of their block: that blocks differ in speed is no variation that a queue
    sees.
    """
    loop_s = known.groupby("block")["service_s"].transform("mean")
    held = ((known["service_s"] + known["overhead_s"]) / loop_s).to_numpy()
    mean, dispatch = float(held.mean()), played_as(of_several(p)[0].factors())

    def highest(times: Any) -> float:
        asked: dict[str, Any] = {"slo_quantile": p.slo_percentile / 100, "slo_s": p.slo_loops}
        return highest_utilisation(resolve(p.workers), times, dispatch=dispatch, **asked) / mean

    has_formula = is_exact([mean], dispatch)
    return {"sustained": highest(held), "exact": highest([mean]) if has_formula else math.nan}


def _bands(p: Parameters, known: pd.DataFrame) -> pd.DataFrame:
    bands = []
    for condition in of_several(p):
        at_work = (condition.load or 0.0) * condition.workers
        requests = max(1, round(at_work * condition.duration_s / known["service_s"].mean()))
        queue = played_as(condition.factors())
        for utilisation in _GRID:
            found = foretold(known, float(utilisation), condition.workers, queue, requests, seed=p.seed)
            bands.append(found.assign(load=condition.load, workers=condition.workers))
    return pd.concat(bands, ignore_index=True)


def foretold(
    known: pd.DataFrame, utilisation: float, workers: int, queue: Dispatch, requests: int, *, seed: int
) -> pd.DataFrame:
    """Simulate trials of about so many requests; return low, middle and high of each percentile over them.

    Each lasts as long as a trial, so the number of its requests is random, too (Poisson). Each takes service
    times, with their overheads, from one block of the calibration, by chance.
    """
    random = np.random.default_rng([seed, workers, round(1000 * utilisation)])
    requests = min(requests, _MOST_PLAYED // _FEWEST_PLAYS)
    plays = min(_PLAYS, _MOST_PLAYED // requests)
    blocks = [block.to_numpy() for _, block in known.groupby("block")[["service_s", "overhead_s"]]]
    found = []
    for _ in range(plays):
        block = blocks[random.integers(len(blocks))]
        count = max(1, random.poisson(requests))
        due = np.sort(random.uniform(0, requests / (utilisation * workers), count))
        drawn = block[random.integers(len(block), size=count)]
        service, overhead = (drawn / drawn[:, 0].mean()).T
        found.append(latency(due, service, overhead, workers, queue, int(random.integers(2**31))))
    tails = [(1 - BAND) / 2, 0.5, (1 + BAND) / 2]
    low, middle, high = np.quantile(found, tails, axis=0)
    columns = {"percentile": PERCENTILES, "low": low, "middle": middle, "high": high}
    return pd.DataFrame(columns).assign(utilisation=utilisation)


def latency(
    due: NDArray[np.float64],
    service: NDArray[np.float64],
    overhead: NDArray[np.float64],
    workers: int,
    queue: Dispatch,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Play requests through a queue; return the latency at each of `PERCENTILES`."""
    held = service + overhead
    return np.percentile(waits(due, held, workers, queue, seed) + held, PERCENTILES)
