"""What notebook 12 states: the numbers behind its verdicts, from what a run has, each with its trials."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd

from lab.experiments.dispatch.answer import tail_name
from lab.experiments.failures import answer as failures
from lab.experiments.failures.trials import BLOCK
from lab.experiments.folk_rules import held_up, memory, replicas, throttled, workers
from lab.experiments.folk_rules.rules import EXPERIMENT, with_tail
from lab.experiments.folk_rules.trials import (
    BESIDE,
    CENTRAL,
    CLUSTER,
    FREE,
    HELD,
    INLINE,
    OVERLOAD,
    POOL,
    TAIL,
    THREAD,
    named,
)
from lab.experiments.other_servers.analysis import against
from lab.models.statistics import Estimate
from lab.study.estimates import Stated, stated
from lab.study.run import Run


def estimates(run: Run, trials: pd.DataFrame) -> list[Stated]:
    """State what became of each rule that this experiment of the run has trials or looks for."""
    parts = {str(part): mine.reset_index(drop=True) for part, mine in trials.groupby("part")}
    rows = []
    if TAIL in parts:
        n = int(parts[TAIL]["workers"].min())
        tails = replicas.beside_one_queue(run, parts[TAIL], n)
        rows += of_tails(tails, n)
        if OVERLOAD in parts:
            rows += of_work(workers.with_work(run, parts[OVERLOAD]), n)
    if "turns" in trials:
        rows += of_waiting(held_up.blocks(run, trials[trials["turns"].notna()]))
    if BESIDE in parts:
        rows += of_places(with_tail(parts[BESIDE]))
    if {HELD, FREE} <= set(parts):
        both = pd.concat([parts[HELD], parts[FREE]], ignore_index=True)
        rows += of_quota(throttled.with_delays(both, run.requests(both)))
    looks = run.newest(memory.KEPT)
    return rows if looks is None else rows + of_memory(looks)


def of_tails(tails: pd.DataFrame, n: int) -> list[Stated]:
    """State the tail of each server over that of one with n workers, and of 2 n + 1 workers over n."""
    pairs = [(server, CENTRAL) for server in replicas.shown(n) if server != CENTRAL]
    quantity = f"{tail_name(tails)} at one rate, over another server's"
    return _ratios(tails, [*pairs, (named(2 * n + 1), named(n))], TAIL, "over_ideal", quantity)


def of_work(rates: pd.DataFrame, n: int) -> list[Stated]:
    """State the work of 2 n + 1 workers over that of n, both overloaded."""
    pair = (named(2 * n + 1), named(n))
    return _ratios(rates, [pair], OVERLOAD, "work_cpus", "work in overload, over another server's")


def of_places(beside: pd.DataFrame) -> list[Stated]:
    """State the tail of quick requests beside a slow one, over that with the slow one in a pool."""
    pairs = [(place, POOL) for place in (INLINE, THREAD, CLUSTER)]
    quantity = f"{tail_name(beside)} beside a slow request, over another place's"
    return _ratios(beside, pairs, BESIDE, "tail_s", quantity)


def _ratios(
    trials: pd.DataFrame, pairs: Iterable[tuple[str, str]], part: str, column: str, quantity: str
) -> list[Stated]:
    return [
        stated(
            EXPERIMENT, quantity, found, compares=True, server=server, over=other,
            sources=_in_common(trials, "server", (server, other), column),
        )
        for server, other in pairs
        if (found := against(trials, server, other, part, column))
    ]  # fmt: skip


def _in_common(trials: pd.DataFrame, by: str, of: Sequence[str], column: str) -> "pd.Series[str]":
    """Return the ids of the trials of two kinds in the blocks that have both numbers."""
    mine = trials[trials[by].isin(of) & trials[column].notna()]
    return mine.loc[mine.groupby("block")[by].transform("nunique") == len(of), "trial_id"]


def of_waiting(events: pd.DataFrame) -> list[Stated]:
    """State the share that waited for a slow request, of each dispatch that notebook 06 did not measure."""
    measure = failures.MEASURES[BLOCK][0]
    return [
        stated(
            EXPERIMENT, f"slow request: {measure.quantity}", found, dispatch=dispatch,
            sources=measure.known(mine)["trial_id"],
        )
        for dispatch, _, mine, _ in failures.servers(events, BLOCK)
        if (found := measure.found(mine))
    ]  # fmt: skip


def of_quota(trials: pd.DataFrame) -> list[Stated]:
    """State how much of a quota was used, and how much larger the share held up is than without it."""
    held = trials[trials["part"] == HELD]
    quota: dict[str, Any] = {"quota": float(held["quota_cpus"].iloc[0])}
    numbers: dict[str, tuple[Callable[[pd.DataFrame], Estimate | None], pd.Series[str]]] = {
        "of a quota, used by loops": (throttled.used, held["trial_id"]),
        "share of requests that a quota holds up": (
            throttled.by_the_quota, _in_common(trials, "part", (HELD, FREE), "held_up"),
        ),
    }  # fmt: skip
    return [
        stated(EXPERIMENT, quantity, found, sources=sources, **quota)
        for quantity, (number, sources) in numbers.items()
        if (found := number(trials))
    ]


def of_memory(looks: pd.DataFrame) -> list[Stated]:
    """State how many times as large a worker is after its requests as when it was warm."""
    growth = memory.growth(looks)
    answered = int(looks["answered"].median())
    quantity = "memory of the largest worker, over that of a warm one"
    return [stated(EXPERIMENT, quantity, growth, compares=True, sources=[memory.KEPT], requests=answered)]
