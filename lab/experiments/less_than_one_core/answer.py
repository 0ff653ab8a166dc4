"""Whether clustering makes a difference under a quota: the verdict, the table, the estimates, the figure."""

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab import units
from lab.experiments.claims import Verdict, Word, weighed
from lab.experiments.common import accounted, mainly, spread
from lab.experiments.less_than_one_core.trials import (
    EXPERIMENT,
    OBSTACLE,
    Compared,
    by_quota,
    by_workers,
    compared,
    is_full,
    offered_cpus,
    quota_name,
    throttled_share,
)
from lab.figures import DARK_TO_LIGHT, QUIET, Look, canvas, reference_line
from lab.models.statistics import Estimate, estimate
from lab.study.estimates import Stated, linked, stated
from lab.study.run import Run

DIFFERENCE = 1.2
"""Ratios between 1 / 1.2 and 1.2 are no difference: less than a fifth of what a second core would bring."""


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
    obstacle = None if found.evidence else run.newest(OBSTACLE)
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
    none = f"ratios from 1/{DIFFERENCE:g} to {DIFFERENCE:g} count as no difference"
    return f"**Answer.** **{_IN_WORDS[found.word]} here**; {none} ({evidence})."


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
        for n, both in by_workers(mine).items()
        for calm, full in [(both[~is_full(both)], both[is_full(both)])]
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
            calm, full = mine[~is_full(mine)], mine[is_full(mine)]
            _draw(rate, full, full["busy_rps"], places, look, label=quota_name(limit))
            for column, hollow in (("latency_p50_s", False), ("latency_p90_s", True)):
                _draw(latency, calm, 1000 * calm[column], places, look, hollow=hollow)
            for below, some in ((stopped, full), (stopped_calm, calm)):
                _draw(below, some, 100 * throttled_share(some), places, look, most=100)
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
        for above, columns in ((rate, 1), (latency, 2)):
            legend = above.legend(loc="upper left", ncols=columns)
            words = 0.04 + 0.075 * len(legend.get_texts()) / columns  # of the panel's height
            above.set_ylim(0, above.get_ylim()[1] / (1 - words))
        for below in (stopped, stopped_calm):
            below.set_ylabel("periods in which\nit was stopped, %")
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
    most: float = math.inf,
) -> None:
    """Draw the median over blocks for each number of workers, with its interval, which ends at `most`."""
    known = values.dropna()
    by_workers = known.groupby(trials["workers"])
    points = {int(str(n)): estimate(list(mine), within=(0, most)) for n, mine in by_workers}
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
