"""Under a quota that is far from used up: how many requests it holds up, how often it stops the server."""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from lab.experiments.claims import Word
from lab.experiments.folk_rules import trials as planned
from lab.experiments.folk_rules.rules import (
    FAR,
    HELD_UP,
    MOST_SLOW,
    Parameters,
    Ruling,
    at_any_speed,
    by_trials,
    exceeds,
    ideal_s,
    lead,
    nothing,
    told,
)
from lab.experiments.less_than_one_core.trials import quota_name, throttled_share
from lab.experiments.other_servers.analysis import estimated
from lab.figures import BAD, INK, SERVERS, canvas
from lab.models.statistics import Estimate
from lab.quota import QuotaError
from lab.study.run import Run
from lab.study.stability import offered_rps
from lab.units import percent


def measure(run: Run, p: Parameters) -> tuple[pd.DataFrame, str]:
    """Return the trials with and without the quota, their requests' delays, and why there are none, or "".

    delays: of each trial's requests, the latency over that in one queue of n workers without a quota, which
    meets the same arrivals and needs the same CPU times; infinite for one that was not answered. held_up: the
    share whose delay is above `HELD_UP`. stopped: the share of the quota's periods in which it stopped the
    server. used: the CPU time of loops over that which the quota allows.
    """
    if not p.asks("quota"):
        return pd.DataFrame(), ""
    if not (conditions := planned.held(p)):
        return pd.DataFrame(), f"a quota of {quota_name(p.quota)} limits nothing on these CPUs"
    try:
        trials = planned.measure(run, p, conditions)
    except QuotaError as error:
        return pd.DataFrame(), str(error)
    return with_delays(trials, run.requests(trials)), ""


def with_delays(trials: pd.DataFrame, requests: pd.DataFrame) -> pd.DataFrame:
    """Add to each trial what `measure` says."""
    mine = dict(list(requests.groupby("trial_id")))
    workers = dict(zip(trials["trial_id"], trials["workers"].astype(int), strict=True))
    delays = [_delays(mine[name], workers[name]) for name in trials["trial_id"]]
    cpu_s = offered_rps(trials) * trials["service_cpu_mean_s"].astype(float)
    return trials.assign(
        delays=pd.Series(delays, trials.index, dtype=object),
        held_up=[float(np.mean(one > HELD_UP)) for one in delays],
        stopped=throttled_share(trials),
        used=cpu_s / trials["quota_cpus"],
    )


def _delays(requests: pd.DataFrame, workers: int) -> NDArray[np.float64]:
    ideal, latency_s = ideal_s(requests, workers), (requests["end_s"] - requests["due_s"]).to_numpy(float)
    lost = (requests["outcome"] != "ok").to_numpy() | ~np.isfinite(ideal)
    return np.where(lost, np.inf, latency_s / ideal)


def ruling(trials: pd.DataFrame, why_not: str = "") -> Ruling:
    """Judge whether the quota makes the p99 bad: it holds up more than one request in a hundred.

    Those that are held up without it, too, do not count (`by_the_quota`). It cannot be told if the quota was
    not far from used up, as on a machine that became slower meanwhile.
    """
    if trials.empty:
        return nothing("quota", why_not) if why_not else nothing("quota")

    def judge(mine: pd.DataFrame) -> tuple[list[bool | None], str]:
        if not (share := by_the_quota(mine)):
            return [], ""
        far = exceeds(estimated(mine["used"]), FAR) is False
        return [exceeds(share, MOST_SLOW) if far else None], told(share, LATE, percent, **quota)

    quota = {"quota": float(trials["quota_cpus"].max())}
    found = by_trials("quota", at_any_speed(trials), judge)
    used, stopped = (
        told(of_the_quota(trials, name), quantity, percent, **quota)
        for name, quantity in (("used", USED), ("stopped", STOPPED))
    )
    text = (
        f"Of a quota of {quota_name(quota['quota'])}, {used} was used by loops. The kernel stopped the server"
        f" in {stopped} of the periods in which it ran, and {found.evidence or 'an unknown share'} of the"
        f" requests took {HELD_UP:g} times as long as in one ideal queue, beyond those that did without a"
        " quota."
    )
    late = by_the_quota(trials)
    number = f"{lead(late, LATE, percent, **quota)} more of the requests held up" if late else ""
    return Ruling("quota", text, found, number=number)


USED = "of a quota, used by loops"
STOPPED = "share of a quota's periods in which it stopped the server"
LATE = "share of requests that a quota holds up"


def of_the_quota(trials: pd.DataFrame, column: str) -> Estimate | None:
    """Return the estimate of a column of the trials under the quota: used, or stopped."""
    most = 1 if column == "stopped" else math.inf
    return estimated(trials.loc[trials["part"] == planned.HELD, column], within=(0, most))


def by_the_quota(trials: pd.DataFrame) -> Estimate | None:
    """Return how much larger the share that is held up is with the quota than without, within blocks."""
    shares = trials.pivot(index="block", columns="part", values="held_up")
    if not {planned.HELD, planned.FREE} <= set(shares.columns):
        return None
    return estimated(shares[planned.HELD] - shares[planned.FREE], within=(-1, 1))


_TITLES = {
    Word.HOLDS: "A quota far from used up holds up over 1 % of requests",
    Word.IN_PART: "A quota far from used up holds up some requests",
    Word.NOT_HERE: "A quota far from used up holds up at most 1 % of requests",
    Word.UNTOLD: "Does a quota hold up requests long before it is used up?",
}


def figure(trials: pd.DataFrame) -> Figure | None:
    """Draw how much of the quota was used, how often it stopped the server, and whom it held up."""
    if trials.empty:
        return None
    held, free = (trials[trials["part"] == part] for part in (planned.HELD, planned.FREE))
    rows = {
        "CPU time used,\nof what the quota allows": held["used"],
        "periods in which\nthe server was stopped": held["stopped"],
        f"requests that took\n{HELD_UP:g} times as long": held["held_up"],
        "the same,\nwithout a quota": free["held_up"],
    }
    halo = [withStroke(linewidth=3, foreground="white")]
    with canvas(_TITLES[ruling(trials).verdict.word], height=3.2) as (figure, (axes,)):
        for height, shares in enumerate(rows.values()):
            color = BAD if shares.name == "held_up" else SERVERS["round-robin"].color
            most = math.inf if shares.name == "used" else 100
            if (found := estimated(100 * shares, within=(0, most))) is None:
                continue
            axes.barh(height, found.value, 0.55, color=color)
            axes.plot([found.low, found.high], [height, height], color=INK, linewidth=1.4, path_effects=halo)
            axes.annotate(
                f"{found.value:.0f} %", (found.high, height), xytext=(6, 0), va="center",
                textcoords="offset points", fontweight="bold",
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel("share, %")
        axes.grid(visible=False, axis="y")
    return figure
