"""Workers or replicas: one queue before n workers, or n single workers behind somebody who chooses."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lab.experiments.claims import Word
from lab.experiments.dispatch.answer import tail_name
from lab.experiments.dispatch.trials import least_overhead_s
from lab.experiments.folk_rules import trials as planned
from lab.experiments.folk_rules.rules import (
    TAIL_MATTERS,
    Parameters,
    Ruling,
    by_trials,
    exceeds,
    nothing,
    times,
    with_tail,
    written,
)
from lab.experiments.folk_rules.trials import BALANCED, CENTRAL, HASHED, TAIL, named
from lab.experiments.other_servers.analysis import against, estimated
from lab.figures import DARK_TO_LIGHT, QUIET, canvas
from lab.models.queueing import mdc_wait_quantile
from lab.study.run import Run
from lab.units import counted

_STEADY = 0.9999
"""Above this utilisation, there is no law of waiting."""


def tails(run: Run, p: Parameters) -> pd.DataFrame:
    """Return the trials under random arrivals, with their tails, by `with_tail`, and what theory says."""
    if not p.asks("workers", "replicas"):
        return pd.DataFrame()
    found = with_tail(planned.measure(run, p, planned.tails(p)))
    return with_theory(found, run.requests(found), run.manifest.machine.available_cpus)


def with_theory(trials: pd.DataFrame, requests: pd.DataFrame, cpus: int) -> pd.DataFrame:
    """Add theory_loops: the tail by M/D/n, or by M/D/1 where each worker has a queue of its own, in loops.

    A request takes a worker for the trial's own mean loop, and for the least that any of these servers takes
    on top of one. It is nan where workers outnumber the CPUs, or cannot keep up.
    """
    mine = dict(list(requests.groupby("trial_id")))
    rows = trials.to_dict("records")
    extra_s = [_overhead_s(mine[trial["trial_id"]], int(trial["workers"])) for trial in rows]
    overhead_s = max(0.0, min((value for value in extra_s if math.isfinite(value)), default=0.0))
    theory = [_theory(trial, overhead_s, cpus) for trial in rows]
    return trials.assign(theory_loops=pd.Series(theory, trials.index, dtype=float))


def _overhead_s(requests: pd.DataFrame, workers: int) -> float:
    answered = requests[requests["outcome"] == "ok"]
    return (
        least_overhead_s(answered, answered["service_s"].to_numpy(float), workers)
        if len(answered)
        else math.nan
    )


def _theory(trial: Mapping[Any, Any], overhead_s: float, cpus: int) -> float:
    workers, loop_s = int(trial["workers"]), float(trial["service_mean_s"] or math.nan)
    takes_s = loop_s + overhead_s
    utilisation = trial["rate"] * takes_s / workers
    if not utilisation <= _STEADY or workers > cpus:
        return math.nan
    queue_of = 1 if trial["server"] == HASHED else workers
    loops = 1 + mdc_wait_quantile(float(trial["tail_share"]), queue_of, utilisation)
    return loops * takes_s / float(trial["service_cpu_mean_s"])


def shown(n: int) -> dict[str, str]:
    """Return what figures and tables call the servers that are compared."""
    return {
        CENTRAL: f"one server with {counted(n, 'worker')}",
        named(n): f"{n} single workers, in turn",
        HASHED: f"{n} single workers, at random",
        BALANCED: f"{n} single servers behind nginx, in turn",
    }


def ruling(tails: pd.DataFrame, n: int) -> Ruling:
    """Judge replicas: their tail behind a choice in turn, and behind one at random, over one queue's."""
    if tails.empty or CENTRAL not in set(tails["server"]):
        return nothing("replicas")
    if n < 2:
        return nothing("replicas", "one worker is one replica")
    compared = tails[tails["server"].isin(shown(n))]

    def judge(trials: pd.DataFrame) -> tuple[list[bool | None], str]:
        known = {
            server: beside
            for server in (named(n), HASHED, BALANCED)
            if (beside := against(trials, server, CENTRAL, TAIL, "tail_loops"))
        }
        longer = [exceeds(known.get(server), TAIL_MATTERS) for server in (named(n), HASHED)]
        told = [f"{times(beside)} as long with {shown(n)[server]}" for server, beside in known.items()]
        return ([None if more is None else not more for more in longer] if known else []), "; ".join(told)

    found = by_trials("replicas", compared, judge)
    if not found.evidence:
        return nothing("replicas", "no block has both")
    return Ruling(
        "replicas",
        f"Compared with {shown(n)[CENTRAL]}, the {tail_name(compared)} is {found.evidence}.",
        found,
    )


def table(tails: pd.DataFrame, n: int) -> pd.DataFrame:
    """Tabulate the tail of each server, in loops, beside what theory says."""
    if tails.empty or CENTRAL not in set(tails["server"]):
        return pd.DataFrame({"": ["not measured"]})
    of = {str(server): mine for server, mine in tails.groupby("server", sort=False)}
    return pd.DataFrame(
        {
            "": name,
            "own utilisation": written(estimated(of[server]["utilisation"])),
            f"{tail_name(tails)}, in loops": written(estimated(of[server]["tail_loops"])),
            "theory, in loops": written(estimated(of[server]["theory_loops"])),
            "over one queue": _over(tails, server),
        }
        for server, name in shown(n).items()
        if server in of
    )


def _over(tails: pd.DataFrame, server: str) -> str:
    return (
        "the reference" if server == CENTRAL else times(against(tails, server, CENTRAL, TAIL, "tail_loops"))
    )


_TITLES = {
    Word.HOLDS: "Replicas are as good as workers",
    Word.IN_PART: "Replicas are as good as workers by one way to choose, but not by the other",
    Word.NOT_HERE: "Replicas are worse than workers",
    Word.UNTOLD: "Whether replicas are as good as workers cannot be told",
}


def figure(tails: pd.DataFrame, n: int) -> Figure | None:
    """Draw the tail of each server beside theory; None if replicas were not measured."""
    judged = ruling(tails, n)
    if tails.empty or CENTRAL not in set(tails["server"]):
        return None
    names = {server: name for server, name in shown(n).items() if server in set(tails["server"])}
    with canvas(_TITLES[judged.verdict.word], size=(8.2, 1.7 + 0.5 * len(names))) as (figure, (axes,)):
        look = DARK_TO_LIGHT[0]
        for height, server in enumerate(names):
            mine = tails[tails["server"] == server]
            if theory := estimated(mine["theory_loops"]):
                axes.plot(
                    theory.value,
                    height,
                    "|",
                    color=DARK_TO_LIGHT[1].color,
                    markersize=26,
                    markeredgewidth=2.5,
                )
            axes.plot(mine["tail_loops"], [height] * len(mine), ".", color=look.color, alpha=0.4)
            if found := estimated(mine["tail_loops"]):
                axes.plot([found.low, found.high], [height, height], color=look.color)
                axes.plot(found.value, height, look.marker, color=look.color, markersize=8)
        axes.plot(
            [], [], look.marker, color=look.color, markersize=8, label="measured: median, interval, trials"
        )
        axes.plot(
            [], [], "|", color=DARK_TO_LIGHT[1].color, markersize=14, markeredgewidth=2.5,
            label="theory: M/D/n, or M/D/1 for each",
        )  # fmt: skip
        axes.set_yticks(range(len(names)), list(names.values()))
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 1.08 * axes.get_xlim()[1])
        axes.set_xlabel(f"{tail_name(tails)} of latency at one rate, in loops")
        axes.grid(visible=False, axis="y")
        axes.axvline(1, color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
