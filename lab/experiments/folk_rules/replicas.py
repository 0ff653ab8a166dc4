"""Workers or replicas: one queue before n workers, or n single workers behind somebody who chooses."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lab.experiments.claims import Word
from lab.experiments.dispatch.answer import tail_name
from lab.experiments.dispatch.trials import least_overhead_s
from lab.experiments.folk_rules.rules import (
    MOST_SHOWN,
    TAIL_MATTERS,
    Ruling,
    at_any_speed,
    by_trials,
    exceeds,
    ideal_s,
    lead,
    loops_s,
    nothing,
    tail_over,
    times,
    with_tail,
    written,
)
from lab.experiments.folk_rules.trials import BALANCED, CENTRAL, HASHED, TAIL, named
from lab.experiments.other_servers.analysis import against, estimated
from lab.experiments.other_servers.servers import PEERS
from lab.figures import SERVERS, THEORY, canvas, legend_below, reference_line
from lab.models.queueing import mdc_wait_quantile
from lab.study.run import Run
from lab.units import counted

_STEADY = 0.9999
"""Above this utilisation, there is no law of waiting."""


def beside_one_queue(run: Run, tails: pd.DataFrame, n: int) -> pd.DataFrame:
    """Put the trials under random arrivals beside one ideal queue of n workers (`rules.ideal_s`).

    Its requests have the least overhead that any of these servers has, to connect, parse and answer; so a
    server's own costs count. over_ideal is the tail over that queue's; `with_tail` and `with_theory` say
    what else there is. over_ideal is nan for a trial of which no loop was told.
    """
    if tails.empty:
        return tails
    found, mine = with_tail(tails), dict(list(run.requests(tails).groupby("trial_id")))
    least_s = [least_overhead_s(of_trial, known_s, n) for of_trial, known_s in _known(mine.values())]
    overhead_s = max(0.0, min(filter(math.isfinite, least_s), default=0.0))
    ideal_tail_s = [
        _tail_s(ideal_s(mine[name], n, overhead_s), share)
        for name, share in zip(found["trial_id"], found["tail_share"], strict=True)
    ]
    return with_theory(found.assign(over_ideal=found["tail_s"] / ideal_tail_s))


def _known(requests: Iterable[pd.DataFrame]) -> Iterator[tuple[pd.DataFrame, NDArray[np.float64]]]:
    """Yield the requests of each trial with the CPU times of their loops, if any was told."""
    for of_trial in requests:
        if np.isfinite(known_s := loops_s(of_trial)).all():
            yield of_trial, known_s


def _tail_s(takes_s: NDArray[np.float64], share: float) -> float:
    return float(np.quantile(takes_s, share)) if np.isfinite(takes_s).all() else math.nan


def with_theory(trials: pd.DataFrame) -> pd.DataFrame:
    """Add theory: the tail by M/D/1 over that by M/D/n, at the trial's own utilisation, if chance chooses.

    It is 1 for a choice in turn, as for one queue, and nan for a trial whose queue never settles.
    """
    theory = [_theory(trial) for trial in trials.to_dict("records")]
    return trials.assign(theory=pd.Series(theory, trials.index, dtype=float))


def _theory(trial: Mapping[Any, Any]) -> float:
    share, utilisation = float(trial["tail_share"]), float(trial["utilisation"])
    if not utilisation <= _STEADY:
        return math.nan
    one, many = (
        1 + mdc_wait_quantile(share, workers, utilisation)
        for workers in (1 if trial["server"] == HASHED else int(trial["workers"]), int(trial["workers"]))
    )
    return one / many


def shown(n: int) -> dict[str, str]:
    """Return what figures and tables call the servers that are compared."""
    return {
        CENTRAL: f"one server with {counted(n, 'worker')}",
        named(n): f"{counted(n, 'single worker')}, in turn",
        HASHED: f"{counted(n, 'single worker')}, at random",
        BALANCED: f"{counted(n, 'single server')} behind nginx, in turn",
    }


def ruling(tails: pd.DataFrame, n: int) -> Ruling:
    """Judge replicas: their tail behind each that chooses, in turn or at random, over one server's."""
    if tails.empty or CENTRAL not in set(tails["server"]):
        return nothing("replicas")
    if n < 2:
        return nothing("replicas", "one worker is one replica")
    compared = tails[tails["server"].isin(shown(n))]
    choosing = [server for server in (named(n), HASHED, BALANCED) if server in set(compared["server"])]

    def judge(trials: pd.DataFrame) -> tuple[list[bool | None], str]:
        known = {
            server: beside
            for server in choosing
            if (beside := against(trials, server, CENTRAL, TAIL, "over_ideal"))
        }
        longer = [exceeds(known.get(server), TAIL_MATTERS) for server in choosing]
        told = [
            f"{times(beside, tail_over(tails), server=server, over=CENTRAL)} as long with {shown(n)[server]}"
            for server, beside in known.items()
        ]
        return ([None if more is None else not more for more in longer] if known else []), "; ".join(told)

    found = by_trials("replicas", at_any_speed(compared), judge)
    if not found.evidence:
        return nothing("replicas", "no block has both")
    what = f"Compared with {shown(n)[CENTRAL]}, the {tail_name(compared)} is"
    beside = {server: against(compared, server, CENTRAL, TAIL, "over_ideal") for server in choosing}
    most = max((one.value, server) for server, one in beside.items() if one)[1]
    longest = lead(beside[most], tail_over(tails), server=most, over=CENTRAL)
    number = f"up to {longest} times the {tail_name(compared)}"
    return Ruling("replicas", f"{what} {found.evidence}.", found, _left_out(choosing), number)


def _left_out(choosing: Collection[str]) -> str:
    """Say that nginx is not among those that choose, and why."""
    if BALANCED in choosing:
        return ""
    command = PEERS[BALANCED].missing
    why = f"`{command}` brings it" if command else "it is installed, but failed to start or to answer"
    return f"nginx is left out: {why}."


def table(tails: pd.DataFrame, n: int) -> pd.DataFrame:
    """Tabulate the tail of each server: in loops, over one ideal queue's, and what theory says of that."""
    if tails.empty or CENTRAL not in set(tails["server"]):
        return pd.DataFrame({"": ["not measured"]})
    of = {str(server): mine for server, mine in tails.groupby("server", sort=False)}
    tail = tail_name(tails)
    return pd.DataFrame(
        {
            "": name,
            "own utilisation": written(estimated(of[server]["utilisation"])),
            f"{tail}, in loops": written(estimated(of[server]["tail_loops"])),
            f"{tail} over one ideal queue's": written(estimated(of[server]["over_ideal"])),
            "by theory": written(estimated(of[server]["theory"])),
            "over one server's": _over(tails, server),
        }
        for server, name in shown(n).items()
        if server in of
    )


def _over(tails: pd.DataFrame, server: str) -> str:
    return (
        "the reference" if server == CENTRAL else times(against(tails, server, CENTRAL, TAIL, "over_ideal"))
    )


_TITLES = {
    Word.HOLDS: "Replicas are as good as workers",
    Word.IN_PART: "Replicas are as good as workers by some ways to choose, but not by others",
    Word.NOT_HERE: "Replicas are worse than workers",
    Word.UNTOLD: "Whether replicas are as good as workers cannot be told",
}


def figure(tails: pd.DataFrame, n: int) -> Figure | None:
    """Draw the tail of each server over one ideal queue's, beside theory; None if it was not measured."""
    if tails.empty or CENTRAL not in set(tails["server"]):
        return None
    names = {server: name for server, name in shown(n).items() if server in set(tails["server"])}
    title, look = _TITLES[ruling(tails, n).verdict.word], SERVERS["round-robin"]
    mark: dict[str, Any] = {"color": THEORY["color"], "markeredgewidth": 3}
    with canvas(title, height=1.4 + 0.5 * len(names)) as (figure, (axes,)):
        for height, server in enumerate(names):
            mine = tails[tails["server"] == server]
            if theory := estimated(mine["theory"]):
                axes.plot(theory.value, height, "|", markersize=26, **mark)
            axes.plot(mine["over_ideal"], [height] * len(mine), ".", color=look.color, alpha=0.4)
            if found := estimated(mine["over_ideal"]):
                axes.plot([found.low, found.high], [height, height], color=look.color)
                axes.plot(found.value, height, look.marker, color=look.color, markersize=8)
        axes.plot(
            [], [], look.marker, color=look.color, markersize=8,
            label="measured: median, interval, trials",
        )  # fmt: skip
        axes.plot([], [], "|", markersize=14, label="theory", **mark)
        reference_line(axes, x=1, text="one ideal queue")
        axes.set_yticks(range(len(names)), [name.replace(" behind", "\nbehind") for name in names.values()])
        axes.set_ylim(len(names) - 0.4, -0.8)
        largest = tails.groupby("server")["over_ideal"].median().max()
        axes.set_xlim(0, max(2.0, min(1.08 * axes.get_xlim()[1], MOST_SHOWN * largest)))
        axes.set_xlabel(f"{tail_name(tails)} over one ideal queue's")
        axes.grid(visible=False, axis="y")
        legend_below(figure, axes)
    return figure
