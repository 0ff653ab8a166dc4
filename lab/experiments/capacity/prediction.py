"""What one worker says beforehand of several: written to disk before they are measured, then scored.

Everything is in mean loops of the trial's own, against its own utilisation, and at a steady speed
(`own_search.steadied`), so that nothing depends on the machine's speed, nor on how it changes within a trial.
"""

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.cpus import available_cpus
from lab.errors import LabError, UsageError
from lab.experiments.capacity.case import EXPERIMENT, NEXT_TO_NOTHING, NOBODY, Parameters
from lab.experiments.common import resolve
from lab.experiments.dispatch.trials import played_as
from lab.load.summary import latency_of
from lab.models.capacity import highest_utilisation, is_exact
from lab.models.simulation import Dispatch, waits
from lab.study.own_search import steadied
from lab.study.plan import Condition
from lab.study.run import Run, table_name
from lab.study.trial import Attacked

BAND = 0.9
"""The probability that a trial as theory has it is in its band, which reaches a little further."""

PERCENTILES = (50, 99)

BANDS = "predicted-bands"
"""The kind of table that keeps the bands."""

SUSTAINED = "predicted-sustained"
"""The kind of table that keeps the predicted own utilisations, and the objective that they are for."""

_STEADY = (50, 90, 95, 99)

_LOW, _OVER = 0.5, 1.1
"""Loads of one worker, at a constant rate: at one hardly any request waits, at the other nearly all do."""

_OVER_S = 2.0
"""How long overload lasts, at most: some hundred requests tell what occupies a worker."""

RESOLUTION = 0.01
"""Bands reach so much further, as a share: nearer to 1, the speed of a trial is not known."""

_GRID = np.round(np.arange(0.1, 0.951, 0.05), 2)
_PLAYS, _FEWEST_PLAYS, _MOST_PLAYED = 500, 100, 1_000_000
"""Trials to simulate for a band; fewer if they would be more requests than the last.

A trial of more requests than even the fewest allow is played as one of so many: its band is too wide.
"""


def of_one_worker(p: Parameters) -> list[Condition]:
    """Return the trials of one worker at constant rates: at one hardly a request waits; one is overload."""
    shared = _shared(p)
    over = shared | {"duration_s": min(p.duration_s, _OVER_S)}
    return [Condition(workers=1, load=_LOW, **shared), Condition(workers=1, load=_OVER, **over)]


def of_several(p: Parameters) -> list[Condition]:
    """Return the trials that are predicted: several workers under random arrivals at each load."""
    workers = resolve(p.workers)
    return [Condition(workers=workers, load=load, arrivals="poisson", **_shared(p)) for load in p.loads]


def _shared(p: Parameters) -> dict[str, Any]:
    factors = {"duration_s", "dispatch", "kernel", "iterations", "timeout_s"}
    return p.model_dump(include=factors) | {"topology": "cluster"}


def calibration(run: Run, p: Parameters) -> pd.DataFrame:
    """Return what one worker shows, as `learnt` does.

    Service times that were given are taken as they are, as one block without overhead.
    """
    if p.service_s:
        given = pd.DataFrame({"block": 1, "service_s": list(p.service_s)})
        return given.assign(overhead_s=0.0, occupied_s=0.0)
    trials = run.measure(EXPERIMENT, of_one_worker(p), blocks=p.blocks, seed=p.seed)
    return learnt(run.requests(trials))


def measure(run: Run, p: Parameters) -> pd.DataFrame:
    """Measure what was predicted, a row per trial `with_steady` latency; none if service times were given."""
    if p.service_s:
        trials = run.trials(EXPERIMENT).head(0)
    else:
        trials = run.measure(EXPERIMENT, of_several(p), blocks=p.blocks, seed=p.seed)
    return with_steady(trials, run.requests(trials))


def with_steady(trials: pd.DataFrame, requests: pd.DataFrame) -> pd.DataFrame:
    """Add percentiles of latency at a steady speed, in mean loops of the trial's own.

    The columns are steady_p50 to steady_p99; nan where nobody answered.
    """
    mine, rows = dict(list(requests.groupby("trial_id"))), []
    for trial_id, workers, loop_s in trials[["trial_id", "workers", "service_mean_s"]].itertuples(
        index=False
    ):
        steady = latency_of(steadied(Attacked(mine[trial_id], {}), workers, workers).requests)
        rows.append([(steady[f"p{percentile}"] or math.nan) / loop_s for percentile in _STEADY])
    names = [f"steady_p{percentile}" for percentile in _STEADY]
    return trials.join(pd.DataFrame(rows, index=trials.index, columns=names, dtype=float))


def learnt(requests: pd.DataFrame) -> pd.DataFrame:
    """Return the answers of one worker that did not wait: block, service_s, overhead_s, occupied_s.

    What such a request takes beside its loop is overhead, not a queue. Not all of it occupies the worker:
    some is the network's and the client's. What does is known from overload, where the worker begins a
    request as soon as it is done with the last: the mean time from one answer to the next in that block,
    beside the loop. In a block without overload, all of the overhead counts as occupying.
    """
    alone = _undelayed(requests[requests["load"] <= _LOW])
    beside_s = _occupied(requests[requests["load"] > _LOW])
    mean_s = alone.groupby("block")["overhead_s"].transform("mean")
    return alone.assign(occupied_s=alone["block"].map(beside_s).fillna(mean_s).clip(lower=0.0, upper=mean_s))


def _occupied(requests: pd.DataFrame) -> "pd.Series[float]":
    """Return how long a request of each block occupies a worker that always has another, beside its loop."""
    ordered = requests[requests["outcome"] == "ok"].sort_values(["trial_id", "end_s"])
    before_s = ordered.groupby("trial_id")["end_s"].shift()
    waited = ordered["due_s"] + ordered["service_s"] < before_s
    beside_s = ordered["end_s"] - before_s - ordered["service_s"]
    return beside_s[waited].groupby(ordered["block"]).mean()


def _undelayed(requests: pd.DataFrame) -> pd.DataFrame:
    ordered = requests.sort_values(["trial_id", "due_s"])
    before_s = ordered.groupby("trial_id")["end_s"].transform(lambda end_s: end_s.cummax().shift())
    answered = ordered["service_s"].notna() & (ordered["outcome"] == "ok")
    alone = ordered[answered & ~(before_s > ordered["due_s"])]
    overhead_s = (alone["latency_s"] - alone["service_s"]).clip(lower=0.0)
    return alone[["block", "service_s"]].assign(overhead_s=overhead_s).reset_index(drop=True)


def predict(run: Run, p: Parameters, known: pd.DataFrame) -> pd.DataFrame:
    """Return the bands that follow from a calibration, or those that the run has: once written, they stay.

    A row per load, percentile and utilisation: low, middle and high of that percentile's latency in mean
    loops, and written_at. In all rows: occupied, for how long a request occupies its worker beside its loop,
    in mean loops; and what `sustained_utilisations` returns.

    Raises UsageError for more workers than CPUs: those that are predicted have one each; LabError if no
    request of the calibration was answered.
    """
    if resolve(p.workers) > available_cpus():
        raise UsageError(
            f"workers must be at most {available_cpus()}, one for each CPU here: the queue that is predicted"
            " has no other"
        )
    if known.empty:
        raise LabError(NOBODY)
    asked = ([condition.factors() for condition in of_several(p)], p.seed)
    calibrated = (p.service_s, p.blocks)
    objective = {"slo_percentile": p.slo_percentile, "slo_loops": p.slo_loops}
    rate = run.table(
        table_name(SUSTAINED, asked, calibrated, objective),
        lambda: pd.DataFrame([sustained_utilisations(p, known) | objective]),
    )
    bands = run.table(
        table_name(BANDS, asked, calibrated),
        lambda: _bands(p, known).assign(written_at=datetime.now(UTC)),
    )
    return bands.assign(**rate.iloc[0])


def sustained_utilisations(p: Parameters, known: pd.DataFrame) -> dict[str, float | bool]:
    """Return the highest own utilisations at which the queue of several such workers meets the objective.

    `sustained` is of loops as they vary, `steady` of all alike: `by_formula` (M/D/c), if there is one for how
    the dispatch queues, else simulated. A request occupies its worker for longer than its loop; own
    utilisation counts loops alone. Times are in mean loops of their block: that blocks differ in speed is no
    variation that a queue sees. Given service times vary by themselves, at a steady speed too.
    """
    loop_s = known.groupby("block")["service_s"].transform("mean")
    held = ((known["service_s"] + known["occupied_s"]) / loop_s).to_numpy()
    beside = float(((known["overhead_s"] - known["occupied_s"]) / loop_s).mean())
    mean, dispatch = float(held.mean()), played_as(of_several(p)[0].factors())

    def highest(times: Any) -> float:
        within = max(p.slo_loops - beside, NEXT_TO_NOTHING)
        asked: dict[str, Any] = {"slo_quantile": p.slo_percentile / 100, "slo_s": within}
        return highest_utilisation(resolve(p.workers), times, dispatch=dispatch, **asked) / mean

    alike = held if p.service_s else [mean]
    by_formula = is_exact(alike, dispatch)
    return {"sustained": highest(held), "steady": highest(alike), "by_formula": by_formula}


def _bands(p: Parameters, known: pd.DataFrame) -> pd.DataFrame:
    if not p.service_s:
        known = _alike(known)
    bands = []
    for condition in of_several(p):
        at_work = (condition.load or 0.0) * condition.workers
        requests = max(1, round(at_work * condition.duration_s / known["service_s"].mean()))
        queue = played_as(condition.factors())
        for utilisation in _GRID:
            found = foretold(known, float(utilisation), condition.workers, queue, requests, seed=p.seed)
            bands.append(found.assign(load=condition.load, workers=condition.workers))
    occupied = known["occupied_s"] / known.groupby("block")["service_s"].transform("mean")
    return pd.concat(bands, ignore_index=True).assign(occupied=float(occupied.mean()))


def _alike(known: pd.DataFrame) -> pd.DataFrame:
    """Return answers as at a steady speed: all loops of a block take as long as their mean."""
    return known.assign(service_s=known.groupby("block")["service_s"].transform("mean"))


def foretold(
    known: pd.DataFrame, utilisation: float, workers: int, queue: Dispatch, requests: int, *, seed: int
) -> pd.DataFrame:
    """Simulate trials of so many requests; return low, middle and high of each percentile over them.

    Their arrivals are random in a time that gives just this utilisation: a trial's own counts the arrivals
    that it had. Each takes service times, with their overheads, from one block of the calibration, by chance.
    """
    random = np.random.default_rng([seed, workers, round(1000 * utilisation)])
    requests = min(requests, _MOST_PLAYED // _FEWEST_PLAYS)
    plays = min(_PLAYS, _MOST_PLAYED // requests)
    times = ["service_s", "overhead_s", "occupied_s"]
    blocks = [block.to_numpy() for _, block in known.groupby("block")[times]]
    found = []
    for _ in range(plays):
        block = blocks[random.integers(len(blocks))]
        due = np.sort(random.uniform(0, requests / (utilisation * workers), requests))
        drawn = block[random.integers(len(block), size=requests)]
        service, overhead, occupied = (drawn / drawn[:, 0].mean()).T
        found.append(latency(due, service, overhead, occupied, workers, queue, int(random.integers(2**31))))
    tails = [(1 - BAND) / 2, 0.5, (1 + BAND) / 2]
    low, middle, high = np.quantile(found, tails, axis=0)
    low, high = low / (1 + RESOLUTION), high * (1 + RESOLUTION)
    columns = {"percentile": PERCENTILES, "low": low, "middle": middle, "high": high}
    return pd.DataFrame(columns).assign(utilisation=utilisation)


def latency(
    due: NDArray[np.float64],
    service: NDArray[np.float64],
    overhead: NDArray[np.float64],
    occupied: NDArray[np.float64] | float,
    workers: int,
    queue: Dispatch,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Play requests through a queue; return the latency at each of `PERCENTILES`.

    Beside its service, each takes its overhead, of which it occupies its worker for `occupied`.
    """
    waited = waits(due, service + occupied, workers, queue, seed)
    return np.percentile(waited + service + np.maximum(overhead, occupied), PERCENTILES)
