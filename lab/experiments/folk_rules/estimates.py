"""What notebook 12 states: the numbers behind its verdicts, from what a run has, each with its trials."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import pandas as pd

from lab.experiments.failures import answer as failures
from lab.experiments.failures.trials import BLOCK
from lab.experiments.folk_rules import counts, held_up, memory, replicas, throttled, workers
from lab.experiments.folk_rules.rules import EXPERIMENT, tail_over, with_tail
from lab.experiments.folk_rules.trials import (
    ALONE,
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
from lab.experiments.less_than_one_core.trials import quota_name
from lab.experiments.other_servers.analysis import against, estimated
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
        if len(overloads := workers.compared(run, trials, n)):
            rows += of_work(overloads, n)
    if "turns" in trials:
        rows += of_waiting(held_up.blocks(run, trials[trials["turns"].notna()]))
    if BESIDE in parts:
        rows += of_places(with_tail(parts[BESIDE]))
    if {HELD, FREE} <= set(parts):
        both = pd.concat([parts[HELD], parts[FREE]], ignore_index=True)
        rows += of_quota(throttled.with_delays(both, run.requests(both)))
    if (looks := run.newest(memory.KEPT)) is not None:
        rows += of_memory(looks)
    asked = [run.kept(name).assign(table=name) for name in run.by_age("cpu-counts-")]
    return [*rows, *(of_counts(pd.concat(asked)) if asked else ())]


def of_tails(tails: pd.DataFrame, n: int) -> list[Stated]:
    """State the tail of each server over that of one with n workers, and of 2 n + 1 workers over n."""
    pairs = [(server, CENTRAL) for server in replicas.shown(n) if server != CENTRAL]
    return _ratios(tails, [*pairs, (named(2 * n + 1), named(n))], TAIL, "over_ideal", tail_over(tails))


def of_work(rates: pd.DataFrame, n: int) -> list[Stated]:
    """State the work of 2 n + 1 workers over that of n, both overloaded."""
    pair = (named(2 * n + 1), named(n))
    return _ratios(rates, [pair], OVERLOAD, "work_cpus", workers.WORK_OVER)


def of_places(beside: pd.DataFrame) -> list[Stated]:
    """State the tail of quick requests beside a slow one in a pool, and its ratios to other places'."""
    pairs = [*((place, POOL) for place in (INLINE, THREAD, CLUSTER)), (POOL, ALONE)]
    rows = _ratios(beside, pairs, BESIDE, "tail_s", held_up.tail_beside_over(beside))
    if found := held_up.tail_of(beside, POOL):
        sources = beside.loc[(beside["server"] == POOL) & beside["tail_s"].notna(), "trial_id"]
        quantity = held_up.tail_beside(beside)
        rows.append(stated(EXPERIMENT, quantity, found, "s", server=POOL, sources=sources))
    return rows


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
            EXPERIMENT, held_up.WAITING, found, dispatch=dispatch,
            sources=measure.known(mine)["trial_id"],
        )
        for dispatch, _, mine, _ in failures.servers(events, BLOCK)
        if (found := measure.found(mine))
    ]  # fmt: skip


def of_quota(trials: pd.DataFrame) -> list[Stated]:
    """State how much of a quota was used, how often it stopped the server, and how many it holds up."""
    held = trials[trials["part"] == HELD]
    quota: dict[str, Any] = {"quota": float(held["quota_cpus"].iloc[0])}
    numbers: dict[str, tuple[Callable[[pd.DataFrame], Estimate | None], pd.Series[str]]] = {
        throttled.USED: (partial(throttled.of_the_quota, column="used"), held["trial_id"]),
        throttled.STOPPED: (partial(throttled.of_the_quota, column="stopped"), held["trial_id"]),
        throttled.LATE: (
            throttled.by_the_quota, _in_common(trials, "part", (HELD, FREE), "held_up"),
        ),
    }  # fmt: skip
    return [
        stated(EXPERIMENT, quantity, found, sources=sources, **quota)
        for quantity, (number, sources) in numbers.items()
        if (found := number(trials))
    ]


def of_memory(looks: pd.DataFrame) -> list[Stated]:
    """State what a fresh worker takes, and how many times as much when it is warm, and afterwards."""
    ratios: list[tuple[str, Estimate, dict[str, Any]]] = [
        (memory.WARMING, memory.warmed(looks), {}),
        (memory.GROWTH, memory.growth(looks), memory.about(looks)),
    ]
    rows = [
        stated(EXPERIMENT, quantity, found, compares=True, sources=[memory.KEPT], **about)
        for quantity, found, about in ratios
    ]
    if fresh := estimated(looks["fresh_bytes"] / 2**20):
        rows.append(stated(EXPERIMENT, memory.FRESH, fresh, "MiB", sources=[memory.KEPT]))
    return rows


def of_counts(asked: pd.DataFrame) -> list[Stated]:
    """State what a program is told of its CPUs under the tightest quota, and how many loops got there.

    `asked` are the run's tables below each other, each with its name as `table`.
    """
    rows: dict[str, Stated] = {}
    for said in counts.of_the_tightest(asked).to_dict("records"):
        quota = {"quota": quota_name(said["quota_cpus"])}
        for quantity, cpus, about in (
            (counts.RAN, said["ran"], quota),
            (counts.TOLD, said["cpus"], quota | {"api": said["api"]}),
        ):
            found = Estimate(cpus, cpus, cpus, 1)
            row = stated(EXPERIMENT, quantity, found, "CPUs", sources=[said["table"]], **about)
            rows[row.key] = row
    return [*rows.values()]
