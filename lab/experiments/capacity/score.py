"""How the predictions came true: each trial beside its band, the likely cause of a miss, and the figure."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab import units
from lab.experiments.capacity.case import EXPERIMENT, Parameters, Sustained
from lab.experiments.capacity.prediction import (
    BAND,
    BANDS,
    PERCENTILES,
    SUSTAINED,
    latency,
    with_steady,
)
from lab.experiments.common import worded
from lab.experiments.dispatch.trials import played_as
from lab.figures import (
    LIGHTER,
    QUIET,
    SERVERS,
    SLO,
    Look,
    canvas,
    cross_flagged,
    legend_below,
    plain_log_ticks,
    reference_line,
)
from lab.models.statistics import Estimate, crossing, proportion
from lab.study.estimates import Stated, linked, stated
from lab.study.run import Run

SETTLED = 0.9
"""Predictions are scored up to this own utilisation: nearer to 1, a trial's queue has no time to settle."""

TRUE = 0.8
"""Predictions validate a plan if at least so many of them come true."""

INSIDE = "share of trials inside their predicted bands"
OWN_LIMIT = "sustained under random arrivals, of the own limit"
STEADY_LIMIT = "sustained under random arrivals at a steady speed, of the own limit"


def score(predicted: pd.DataFrame, trials: pd.DataFrame, requests: pd.DataFrame) -> pd.DataFrame:
    """Put each trial, which is `with_steady` latency, beside its band: a row per trial and percentile.

    The columns are those of the trial, percentile, low, middle and high at the trial's own utilisation,
    measured, and inside. scored: whether it counts: up to `SETTLED`, and if it began after its band was
    written. miss: how far beyond the nearer end, as a share of it; 0 inside. cause: of a miss, the likely
    one.
    """
    mine, rows = dict(list(requests.groupby("trial_id"))), []
    needed = ["service_mean_s", "utilisation", *(f"steady_p{percentile}" for percentile in PERCENTILES)]
    for _, trial in trials.dropna(subset=needed).iterrows():
        its_own = (predicted["load"] == trial["load"]) & (predicted["workers"] == trial["workers"])
        bands = predicted[its_own]
        for percentile, band in bands.groupby("percentile"):
            ends = {
                name: float(np.interp(trial["utilisation"], band["utilisation"], band[name]))
                for name in ("low", "middle", "high")
            }
            measured = trial[f"steady_p{percentile}"]
            miss = max(0.0, measured / ends["high"] - 1, ends["low"] / measured - 1)
            cause = ""
            if miss:
                occupied = float(band["occupied"].iloc[0])
                played = _played(trial, mine[trial["trial_id"]], int(percentile), occupied)
                cause = _cause(trial, measured, played, ends["middle"])
            known = trial["started_at"] <= band["written_at"].iloc[0]
            about = {"percentile": percentile, "measured": measured, "miss": miss, "cause": cause}
            rows.append({**trial, **ends, **about, "known": known})
    found = pd.DataFrame(rows, columns=[*trials.columns, *_SCORED, "known"])
    scored = (found["utilisation"] <= SETTLED) & ~found["known"].astype(bool)
    return found.drop(columns="known").assign(inside=found["miss"] == 0, scored=scored)


_SCORED = ("percentile", "low", "middle", "high", "measured", "miss", "cause")

_NEAR = 0.05
"""A replay explains a measurement if it comes as near as this share of it, and nearer than to the middle."""


def _cause(trial: "pd.Series[Any]", measured: float, played: float, middle: float) -> str:
    """Say why a trial is not in its band: by a replay of its own arrivals, and the middle of the band."""
    if not trial["valid"]:
        return "the trial is flagged"
    if abs(played - measured) <= min(_NEAR * measured, abs(played - middle)):
        return "chance in its arrivals"
    return "work beside the loops, or waits that no queue explains"


def _played(trial: "pd.Series[Any]", requests: pd.DataFrame, percentile: int, occupied: float) -> float:
    """Replay a trial with its own arrivals; return that percentile of latency."""
    loop_s, loops = float(trial["service_mean_s"]), np.ones(len(requests))
    beside_s = requests["latency_s"] - requests["service_s"]
    overhead = loops * float(beside_s.quantile(0.1).clip(min=0.0)) / loop_s
    due, queue = requests["due_s"].to_numpy() / loop_s, played_as(trial.to_dict())
    played = latency(due, loops, overhead, occupied, int(trial["workers"]), queue)
    return float(played[PERCENTILES.index(percentile)])


def inside(scored: pd.DataFrame, percentile: int) -> Estimate | None:
    """Return the share of the scored trials whose percentile fell into its band; None if none is scored.

    Each percentile is counted by itself: those of one trial depend on each other.
    """
    counts = scored[scored["scored"] & (scored["percentile"] == percentile)]
    return proportion(int(counts["inside"].sum()), len(counts)) if len(counts) else None


def validated(scored: pd.DataFrame) -> int:
    """Return the number of workers whose predictions came true, at least `TRUE` of them; 0 if not."""
    counts = scored[scored["scored"]]
    return int(counts["workers"].iloc[0]) if len(counts) and counts["inside"].mean() >= TRUE else 0


def sentence(scored: pd.DataFrame) -> str:
    """Say how many of the predictions came true, with links to the shares; "" if none is scored."""
    counts = scored[scored["scored"]]
    if counts.empty:
        return ""
    workers = int(counts["workers"].iloc[0])
    told = [
        f"{linked(str(mine['inside'].sum()), INSIDE, workers=workers, percentile=percentile)} of {len(mine)}"
        f" of p{percentile}"
        for percentile in PERCENTILES
        if len(mine := counts[counts["percentile"] == percentile])
    ]
    return f"Of the predictions for {units.counted(workers, 'worker')}, {' and '.join(told)} came true."


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
                "load": units.plain(load),
                "own utilisation": _range(mine["utilisation"]),
                "latency": f"p{percentile}",
                "band, in service times": _range(pd.concat([mine["low"], mine["high"]])),
                "measured": _range(mine["measured"]),
                "inside": f"{counts['inside'].sum()} of {len(counts)}",
                "largest miss": units.in_percent(worst["miss"]) if worst["miss"] else "none",
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
    ahead_s = (began - written).total_seconds()
    return pd.DataFrame(
        {
            "predictions written": [f"{written:%Y-%m-%d %H:%M:%S}"],
            "first trial began": [f"{began:%Y-%m-%d %H:%M:%S}"],
            "before": [units.in_seconds(ahead_s) if ahead_s > 0 else "no: these trials were known before"],
        }
    )


def title(scored: pd.DataFrame) -> str:
    """Say how many of the predictions came true."""
    if scored.empty:
        return "Predicted from given service times; nothing is measured for them"
    counts = scored[scored["scored"]]
    if counts.empty:
        return f"No prediction is scored: no new trial up to {units.percent(SETTLED)} of the own limit"
    return (
        f"Predicted from one worker: {counts['inside'].sum()} of {len(counts)} "
        f"in the {units.percent(BAND)} bands"
    )


_LOOKS = (SERVERS["round-robin"], Look(LIGHTER, "o"))


def figure(predicted: pd.DataFrame, scored: pd.DataFrame, sustained: Sustained, p: Parameters) -> Figure:
    """Draw the bands that were written first, then the trials as dots, against own utilisation."""
    with canvas(title(scored), height=4.0) as (figure, (axes,)):
        for percentile, look in zip(reversed(PERCENTILES), _LOOKS, strict=True):
            _band(axes, predicted[predicted["percentile"] == percentile], f"p{percentile}", look)
            mine = scored[scored["percentile"] == percentile]
            axes.plot(mine["utilisation"], mine["measured"], look.marker, color=look.color)
        cross_flagged(axes, scored, "utilisation", "measured")
        axes.set_yscale("log")
        plain_log_ticks(axes.yaxis)
        axes.set_ylim(bottom=0.9)
        axes.set_xlim(0, 1.02 * max(1.0, float(np.nan_to_num(scored["utilisation"].max()))))
        axes.set_xlabel("offered, share of the own limit (own utilisation)")
        axes.set_ylabel("steady latency, in own loops (log scale)")
        reference_line(axes, y=p.slo_loops, text=f"SLO for p{p.slo_percentile}", left=True, **SLO)
        reference_line(axes, x=sustained.steady_highest, text="sustained,\npredicted", color=SLO["color"])
        if sustained.steady:
            low, high = sustained.steady.low, sustained.steady.high
            shade: dict[str, Any] = {"color": SLO["color"], "alpha": 0.25, "linewidth": 0}
            axes.axvspan(low, high, label="sustained rate, measured", **shade)
        _key(axes)
        legend_below(figure, axes)
    return figure


def _band(axes: Axes, band: pd.DataFrame, name: str, look: Look) -> None:
    """Draw the widest of the bands of all loads, which differ by how many requests a trial has."""
    ends = band.groupby("utilisation").agg({"low": "min", "middle": "median", "high": "max"})
    axes.fill_between(ends.index, ends["low"], ends["high"], color=look.color, alpha=0.18, linewidth=0)
    axes.plot(ends.index, ends["middle"], linestyle=look.line, color=look.color, linewidth=1.2)
    axes.annotate(
        name, (ends.index[0], ends["middle"].iloc[0]), xytext=(-5, 0), textcoords="offset points",
        ha="right", va="center", fontweight="bold", color=look.color,
    )  # fmt: skip


def _key(axes: Axes) -> None:
    """Say once for all percentiles what is drawn."""
    axes.fill_between([], [], [], color=QUIET, alpha=0.3, linewidth=0, label="predicted: nine of ten trials")
    axes.plot([], [], "o", color=QUIET, label="measured: a trial")


def sustained_in(
    trials: pd.DataFrame, predicted: pd.DataFrame, slo_percentile: int, slo_loops: float
) -> Sustained:
    """Return the own utilisation at which the objective is just met, from all trials of random arrivals.

    The trials are `with_steady` latency. Latency counts in the mean loops of its own trial, so the machine
    may change its speed between trials. Flagged trials do not count, nor those that were offered more than
    their limit: how late these are depends on how long they last.
    """
    counting = trials[_counts(trials, slo_percentile)]

    def met(latency: "pd.Series[Any]") -> Estimate | None:
        at, took = (column.to_numpy(np.float64) for column in (counting["utilisation"], latency))
        return crossing(at, took, slo_loops) if len(at) else None

    theory = predicted.iloc[0]
    return Sustained(
        int(theory["workers"]),
        met(counting[f"latency_p{slo_percentile}_s"] / counting["service_mean_s"]),
        float(theory["sustained"]),
        met(counting[f"steady_p{slo_percentile}"]),
        float(theory["steady"]),
        by_formula=bool(theory["by_formula"]),
    )


def _counts(trials: pd.DataFrame, percentile: int) -> "pd.Series[bool]":
    """Mark the trials that `sustained_in` counts."""
    known = trials[f"latency_p{percentile}_s"].notna() & trials["service_mean_s"].notna()
    return trials["valid"].astype(bool) & (trials["utilisation"] < 1) & known


def predicted_among(trials: pd.DataFrame, bands: pd.DataFrame) -> pd.DataFrame:
    """Return the trials of random arrivals of as many workers as the bands are for: a run may have others."""
    return trials[(trials["arrivals"] == "poisson") & trials["workers"].isin(bands["workers"])]


def estimates(run: Run, trials: pd.DataFrame) -> list[Stated]:
    """State the share of predictions that came true, and the sustained utilisation, by the run's trials."""
    bands, foretold = run.newest(BANDS), run.newest(SUSTAINED)
    if bands is None or foretold is None or (several := predicted_among(trials, bands)).empty:
        return []
    requests, workers = run.requests(several), int(several["workers"].iloc[0])
    several = with_steady(several, requests)
    bands = bands.assign(**foretold.iloc[0])
    scored = score(bands, several, requests)
    rows = [
        stated(
            EXPERIMENT, INSIDE, share, workers=workers, percentile=percentile,
            sources=scored.loc[scored["scored"], "trial_id"],
        )
        for percentile in PERCENTILES
        if (share := inside(scored, percentile)) is not None
    ]  # fmt: skip
    row = foretold.iloc[0]
    percentile, loops = int(row["slo_percentile"]), float(row["slo_loops"])
    found = sustained_in(several, bands, percentile, loops)
    asked: dict[str, Any] = {"workers": workers, "percentile": percentile, "loops": loops}
    sources = several.loc[_counts(several, percentile), "trial_id"]
    limits = {OWN_LIMIT: found.share, STEADY_LIMIT: found.steady}
    return rows + [
        stated(EXPERIMENT, name, share, sources=sources, **asked) for name, share in limits.items() if share
    ]


def sustained_table(sustained: Sustained, slo: str) -> pd.DataFrame:
    """Put the sustained rates that were predicted beside the measured, as own utilisation: a row for each."""
    how = "exact (M/D/c)" if sustained.by_formula else "simulated"
    both = [
        ("at a steady speed", how, sustained.steady_highest, sustained.steady),
        ("as clients got it", "for loops as they vary", sustained.highest, sustained.share),
    ]
    return pd.DataFrame(
        {
            "objective": slo,
            "latency": latency,
            "predicted": how,
            "of the own limit": units.in_percent(foretold),
            "measured": worded(found, units.percent) if found else _NOT_TOLD,
            "predicted / measured": units.digits(foretold / found.value) if found else "–",
        }
        for latency, how, foretold, found in both
    )


_NOT_TOLD = "too few trials, or none on one side of the objective"
