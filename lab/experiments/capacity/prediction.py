"""What one worker foretells of several: written to disk before they are measured, then scored.

Everything is in mean service times of the trial's own, against its own utilisation, so that nothing depends
on the machine's speed.
"""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lab import units
from lab.experiments import sustained
from lab.experiments.capacity import Parameters
from lab.experiments.common import resolve
from lab.experiments.dispatch.trials import played_as
from lab.figures import DARK_TO_LIGHT, Look, canvas, cross_flagged, plain_log_ticks, reference_line
from lab.models.capacity import highest_utilisation
from lab.models.simulation import Dispatch, waits
from lab.models.statistics import Estimate, proportion
from lab.study.estimates import Stated, stated
from lab.study.plan import Condition
from lab.study.run import Run, table_name

EXPERIMENT = "capacity"

BAND = 0.9
"""The probability that a trial as theory has it is in its band."""

PERCENTILES = (50, 99)

STEADY = 0.9
"""Predictions are scored up to this own utilisation: nearer to 1, a trial's queue has no time to settle."""

_GRID = np.round(np.arange(0.1, 0.951, 0.05), 2)
_PLAYS = 500
"""Trials to simulate for a band."""


def of_one_worker(p: Parameters) -> Condition:
    """Return the trial of one worker, at a constant rate so low that hardly any request waits."""
    return Condition(workers=1, load=p.calibration_load, **_shared(p))


def of_several(p: Parameters) -> list[Condition]:
    """Return the trials that are predicted: several workers under random arrivals at each load."""
    workers = resolve(p.workers)
    return [Condition(workers=workers, load=load, arrivals="poisson", **_shared(p)) for load in p.loads]


def searched(p: Parameters) -> list[Condition]:
    """Return the server whose sustained rate is searched under random arrivals, if one is asked for."""
    return [replace(of_several(p)[0], load=None, rate=1.0, duration_s=p.search_s)] if p.search else []


def _shared(p: Parameters) -> dict[str, Any]:
    factors = {"duration_s", "dispatch", "kernel", "iterations", "timeout_s"}
    return p.model_dump(include=factors) | {"topology": "cluster"}


def calibration(run: Run, p: Parameters) -> pd.DataFrame:
    """Return what one worker shows, a row per answer: block, service_s, overhead_s.

    Service times that were given are taken as they are, as one block without overhead.
    """
    if p.service_s:
        return pd.DataFrame({"block": 1, "service_s": list(p.service_s), "overhead_s": 0.0})
    trials = run.measure(EXPERIMENT, [of_one_worker(p)], blocks=p.calibration_blocks, seed=p.seed)
    return undelayed(run.requests(trials))


def measure(run: Run, p: Parameters) -> pd.DataFrame:
    """Measure what was predicted, a row per trial; nothing if service times were given."""
    if p.service_s:
        return run.trials(EXPERIMENT).head(0)
    return run.measure(EXPERIMENT, of_several(p), blocks=p.blocks, seed=p.seed)


def search(run: Run, p: Parameters) -> pd.DataFrame | None:
    """Search for the sustained rate under random arrivals (`sustained.bounds`); None if not asked for."""
    if p.service_s or not p.search:
        return None
    return sustained.searched(run, EXPERIMENT, searched(p), p.objective, seed=p.seed)


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
    service times. In all rows: sustained, the own utilisation up to which random arrivals meet the objective;
    and written_at.
    """
    asked = [condition.factors() for condition in of_several(p)]
    name = table_name(
        "predictions", asked, p.objective, p.service_s, p.calibration_load, p.calibration_blocks, p.seed
    )

    def now() -> pd.DataFrame:
        highest = sustained_utilisation(p, known)
        return _bands(p, known).assign(sustained=highest, written_at=datetime.now(UTC))

    return run.table(name, now)


def sustained_utilisation(p: Parameters, known: pd.DataFrame) -> float:
    """Return the highest own utilisation at which the queue of several such workers meets the objective.

    A worker is occupied by a request's overhead, too; own utilisation counts loops alone.
    """
    loop_s, held_s = known["service_s"], known["service_s"] + known["overhead_s"]
    occupied = highest_utilisation(
        resolve(p.workers),
        held_s.to_numpy(),
        slo_quantile=p.slo_percentile / 100,
        slo_s=p.slo_loops * float(loop_s.mean()),
        dispatch=played_as(of_several(p)[0].factors()),
    )
    return occupied * float(loop_s.mean() / held_s.mean())


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
    """Simulate trials of so many requests; return low, middle and high of each percentile over the trials.

    Each takes service times, with their overheads, from one block of the calibration, by chance.
    """
    random = np.random.default_rng([seed, workers, round(1000 * utilisation)])
    blocks = [block.to_numpy() for _, block in known.groupby("block")[["service_s", "overhead_s"]]]
    found = []
    for _ in range(_PLAYS):
        block = blocks[random.integers(len(blocks))]
        drawn = block[random.integers(len(block), size=requests)]
        gaps = random.exponential(1 / (utilisation * workers), size=requests)
        service, overhead = (drawn / drawn[:, 0].mean()).T
        found.append(
            _latency(np.cumsum(gaps), service, overhead, workers, queue, int(random.integers(2**31)))
        )
    tails = [(1 - BAND) / 2, 0.5, (1 + BAND) / 2]
    low, middle, high = np.quantile(found, tails, axis=0)
    columns = {"percentile": PERCENTILES, "low": low, "middle": middle, "high": high}
    return pd.DataFrame(columns).assign(utilisation=utilisation)


def _latency(
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


def score(predicted: pd.DataFrame, trials: pd.DataFrame, requests: pd.DataFrame) -> pd.DataFrame:
    """Put each trial beside its band: a row per trial and percentile.

    The columns are those of the trial, percentile, low, middle and high at the trial's own utilisation,
    measured, and inside. scored: whether it counts, up to `STEADY`. miss: how far beyond the nearer end, as a
    share of it; 0 inside. cause: of a miss, the likely one.
    """
    mine, rows = dict(list(requests.groupby("trial_id"))), []
    for _, trial in trials.dropna(subset=["service_mean_s", "utilisation"]).iterrows():
        bands = predicted[predicted["load"] == trial["load"]]
        for percentile, band in bands.groupby("percentile"):
            ends = {
                name: float(np.interp(trial["utilisation"], band["utilisation"], band[name]))
                for name in ("low", "middle", "high")
            }
            measured = trial[f"latency_p{percentile}_s"] / trial["service_mean_s"]
            miss = max(0.0, measured / ends["high"] - 1, ends["low"] / measured - 1)
            cause = _cause(trial, mine[trial["trial_id"]], int(percentile), measured) if miss else ""
            rows.append(
                {
                    **trial,
                    "percentile": percentile,
                    **ends,
                    "measured": measured,
                    "miss": miss,
                    "cause": cause,
                }
            )
    found = pd.DataFrame(rows, columns=[*trials.columns, *_SCORED])
    inside, scored = found["miss"] == 0, found["utilisation"] <= STEADY
    return found.assign(inside=inside, scored=scored)


_SCORED = ("percentile", "low", "middle", "high", "measured", "miss", "cause")

_NEAR = 0.05
"""A replay explains a measurement if it comes as near as this share of it."""


def _cause(trial: "pd.Series[Any]", requests: pd.DataFrame, percentile: int, measured: float) -> str:
    """Replay a trial with more and more of its own, until that explains what was measured."""
    if not trial["valid"]:
        return "the trial is flagged"
    due, service = requests["due_s"], requests["service_s"].fillna(trial["service_mean_s"])
    overhead_s = float((requests["latency_s"] - service).quantile(0.1).clip(min=0.0))
    mean_s, queue = float(service.mean()), played_as(trial.to_dict())
    replays = {
        "chance in its arrivals": np.full(len(service), mean_s),
        "its loops varied more than one worker's": service.to_numpy(),
    }
    for cause, services_s in replays.items():
        overhead = np.full(len(service), overhead_s / mean_s)
        played = _latency(
            due.to_numpy() / mean_s, services_s / mean_s, overhead, int(trial["workers"]), queue
        )  # fmt: skip
        if abs(played[PERCENTILES.index(percentile)] / measured - 1) <= _NEAR:
            return cause
    return "work beside the loops, or waits that no queue explains"


def inside(scored: pd.DataFrame) -> Estimate | None:
    """Return the share of the scored percentiles that fell into their bands; None if none is scored."""
    counted = scored[scored["scored"]]
    return proportion(int(counted["inside"].sum()), len(counted)) if len(counted) else None


def score_table(scored: pd.DataFrame) -> pd.DataFrame:
    """Say of each load and percentile how many trials were inside, the largest miss, and its likely cause."""
    if scored.empty:
        return pd.DataFrame({"": ["Nothing was measured, so no prediction is scored."]})
    rows = []
    for load, percentile in sorted({*zip(scored["load"], scored["percentile"], strict=True)}):
        mine = scored[(scored["load"] == load) & (scored["percentile"] == percentile)]
        counts = mine[mine["scored"]]
        worst = mine.sort_values("miss").iloc[-1]
        rows.append(
            {
                "load": units.digits(load),
                "own utilisation": _range(mine["utilisation"]),
                "latency": f"p{percentile}",
                "band, in service times": _range(pd.concat([mine["low"], mine["high"]])),
                "measured": _range(mine["measured"]),
                "inside": f"{counts['inside'].sum()} of {len(counts)}",
                "largest miss": units.percent(worst["miss"]) if worst["miss"] else "none",
                "likely cause": worst["cause"],
            }
        )
    return pd.DataFrame(rows)


def _range(values: "pd.Series[float]") -> str:
    return f"{units.digits(values.min())} to {units.digits(values.max())}"


def written_before(predicted: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Put when the predictions were written beside when the first trial began."""
    if trials.empty:
        return pd.DataFrame({"": ["Nothing was measured for these predictions."]})
    written, began = pd.Timestamp(predicted["written_at"].max()), pd.Timestamp(trials["started_at"].min())
    return pd.DataFrame(
        {
            "predictions written": [f"{written:%Y-%m-%d %H:%M:%S}"],
            "first trial began": [f"{began:%Y-%m-%d %H:%M:%S}"],
            "before": [units.seconds((began - written).total_seconds())],
        }
    )


def title(scored: pd.DataFrame) -> str:
    """Say how many of the predictions came true."""
    if scored.empty:
        return "Foretold by given service times; nothing is measured for them"
    if inside(scored) is None:
        return f"No trial was steady: all above {STEADY:.0%} of the own limit".replace("%", " %")
    counts = scored[scored["scored"]]
    return (
        f"Foretold by one worker: {counts['inside'].sum()} of {len(counts)} in the {BAND:.0%} bands".replace(
            "%", " %"
        )
    )


def figure(
    predicted: pd.DataFrame, scored: pd.DataFrame, found: pd.DataFrame | None, p: Parameters
) -> Figure:
    """Draw the bands that were written first, then the trials as dots, against own utilisation.

    `found` are the bounds of the sustained rate, if it was searched.
    """
    with canvas(title(scored), size=(7.4, 4.8)) as (figure, (axes,)):
        for percentile, look in zip(reversed(PERCENTILES), DARK_TO_LIGHT, strict=False):
            _band(axes, predicted[predicted["percentile"] == percentile], look)
            mine = scored[scored["percentile"] == percentile]
            axes.plot(
                mine["utilisation"],
                mine["measured"],
                look.marker,
                color=look.color,
                label=f"p{percentile}: a trial",
            )
            cross_flagged(axes, mine, "utilisation", "measured")
        axes.set_yscale("log")
        plain_log_ticks(axes.yaxis)
        axes.set_ylim(bottom=0.9)
        axes.set_xlim(0, 1)
        axes.set_xlabel("offered, share of the own limit (own utilisation)")
        axes.set_ylabel("latency, in own service times (log scale)")
        reference_line(axes, y=p.slo_loops, text=f"SLO for p{p.slo_percentile}")
        reference_line(axes, x=float(predicted["sustained"].iloc[0]), text="sustained, foretold")
        if found is not None and found["reason"].iloc[0] == "":
            low, high = found["lower_share"].iloc[0], found["upper_share"].iloc[0]
            axes.axvspan(
                low, high, color=DARK_TO_LIGHT[2].color, alpha=0.3, linewidth=0, label="sustained, measured"
            )
        axes.legend(loc="upper left")
    return figure


def _bounds(axes: Axes, low: float, high: float) -> None:
    axes.axvspan(low, high, color=DARK_TO_LIGHT[2].color, alpha=0.3, linewidth=0, label="sustained, measured")


def _band(axes: Axes, band: pd.DataFrame, look: Look) -> None:
    """Draw the widest of the bands of all loads, which differ by how many requests a trial has."""
    ends = band.groupby("utilisation").agg({"low": "min", "middle": "median", "high": "max"})
    axes.fill_between(ends.index, ends["low"], ends["high"], color=look.color, alpha=0.18, linewidth=0)
    axes.plot(ends.index, ends["middle"], linestyle=look.line, color=look.color, linewidth=1.2)


def estimates(scored: pd.DataFrame, predicted: pd.DataFrame, found: pd.DataFrame | None) -> list[Stated]:
    """State the share of predictions that came true, and how far the sustained rate was from the foretold."""
    share, workers = inside(scored), int(predicted["workers"].iloc[0])
    rows = [] if found is None else sustained.estimates(EXPERIMENT, found)
    if share is None:
        return rows
    about: dict[str, Any] = {"workers": workers, "loop": int(scored["iterations"].iloc[0])}
    return [stated(EXPERIMENT, "share of percentiles inside their bands", share, **about), *rows]


def sustained_table(predicted: pd.DataFrame, found: pd.DataFrame | None) -> pd.DataFrame:
    """Put the sustained rate that was foretold beside the measured bounds, as own utilisation."""
    share = float(predicted["sustained"].iloc[0])
    cells = {"foretold, of the own limit": units.percent(share)}
    if found is None:
        return pd.DataFrame([cells | {"measured": "not searched in this run"}])
    row = found.iloc[0]
    low, high = row["lower_share"], row["upper_share"]
    cells["measured"] = row["reason"] or units.bounds(low, high, units.percent)
    cells["foretold / middle of the measured"] = units.digits(share / ((low + high) / 2))
    return pd.DataFrame([{"objective": f"{row['objective']}, {row['arrivals']} arrivals"} | cells])
