"""The article's claims about failures, judged for each dispatch by what share of the requests was answered.

A share is held to its bar by its Clopper-Pearson bounds: where these lie on both sides of it, the data cannot
tell.
"""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
from scipy import stats

from lab.experiments.claims import Verdict, weighed
from lab.experiments.failure_facts import facts
from lab.experiments.failure_scene import Scene
from lab.experiments.failure_words import over_blocks
from lab.experiments.failures import BLOCK, KILL, RECYCLE
from lab.formats import counted, percent

MOST_LOST = 0.02
"""Up to this share of requests lost, a service goes on, and its downtime is minimal."""

PATIENCE_S = 5.0
"""Who is not replaced within this time is not replaced; in a shorter trial, that is not known."""

_INTERVAL = 0.9
"""The level at which each bound by itself holds with 95 % confidence."""

_HOLDS_IN_SPITE = (6, 7)
"""The claims that hardly anything was lost: contention can only have cost more."""

_ONLY_THAT_ONE = "A request that blocks its worker blocks only that one; others go on"
_REPLACED = "A worker that dies is replaced, and the service goes on"
_RECYCLED = "Workers can be recycled one at a time with minimal or no downtime"

Judged = tuple[str, bool | None]


def verdicts(scenes: list[Scene]) -> list[Verdict]:
    """Judge claims 5, 6 and 7, each for every dispatch that was measured, whatever its connections."""
    return [
        *_each(facts(scenes, BLOCK), _goes_on, 5, _ONLY_THAT_ONE),
        *_each(facts(scenes, KILL), _comes_back, 6, _REPLACED),
        *_each(facts(scenes, RECYCLE), _unnoticed, 7, _RECYCLED),
    ]


def _each(
    found: pd.DataFrame, judge: Callable[[pd.DataFrame], Judged], number: int, claim: str
) -> list[Verdict]:
    if found.empty:
        return [Verdict(number, claim)]

    servers = found.groupby("dispatch", sort=False)
    return [_weighed(mine, judge, Verdict(number, f"{claim} ({dispatch})")) for dispatch, mine in servers]


def _weighed(found: pd.DataFrame, judge: Callable[[pd.DataFrame], Judged], unknown: Verdict) -> Verdict:
    """Judge a claim so that it does not rest on trials whose counts are in doubt.

    That so little was lost in spite of contention holds all the more without it.
    """

    def judged(mine: pd.DataFrame) -> Verdict:
        evidence, holds = judge(mine) if len(mine) else ("", None)
        return replace(unknown, evidence=evidence, holds=holds)

    if unknown.number in _HOLDS_IN_SPITE and judged(found).holds:
        found = found.assign(valid=found["in_spite"])
    return replace(weighed(found, judged), flagged=int(found["flagged"].sum()))


def _goes_on(mine: pd.DataFrame) -> Judged:
    least = least_answered(int(mine["workers"].iloc[0]))
    share, holds = _held_to(least, mine["answered"].sum(), mine["due"].sum())
    return f"{share} due while one was blocked were answered meanwhile", holds


def _comes_back(mine: pd.DataFrame) -> Judged:
    share, holds = _held_to(1 - MOST_LOST, (mine["met"] - mine["met_lost"]).sum(), mine["met"].sum())
    evidence = f"{share} due after the kill were answered; replaced: {over_blocks(mine['full_again_s'])}"
    missing = mine.loc[mine["full_again_s"].isna(), "watched_s"]
    if len(missing) and holds is not False:
        holds = False if missing.max() >= PATIENCE_S else None
    return evidence, holds


def _unnoticed(mine: pd.DataFrame) -> Judged:
    share, holds = _held_to(1 - MOST_LOST, (mine["met"] - mine["met_lost"]).sum(), mine["met"].sum())
    evidence = f"{share} open meanwhile were answered; at least {counted(mine['fewest'].min(), 'worker')}"
    if mine["took_s"].isna().any():
        return f"{evidence}; not every worker could be replaced", False
    return evidence, holds


def least_answered(workers: int) -> float:
    """Return the share that is half-way between all but one worker's, and all but two workers'."""
    return 1 - 1.5 / workers


def _held_to(least: float, answered: float, of: float) -> Judged:
    """Write a share with its bounds, and say whether it is `least` or more: None if they do not tell."""
    if not of:
        return "none of 0", None
    low, high = stats.binomtest(int(answered), int(of)).proportion_ci(_INTERVAL, method="exact")
    holds = True if low >= least else False if high < least else None
    return f"{answered:,.0f} of {of:,.0f} ({percent(low)} to {percent(high)})", holds


def rules(workers: int) -> str:
    """Say when a claim holds here."""
    nearly_all = percent(1 - MOST_LOST)
    return (
        f"- Claim 5 holds where **{percent(least_answered(workers))}** or more of what was due was answered "
        f"meanwhile. With {counted(workers, 'worker')}, this is midway between the part of all "
        "but the blocked one, and what would be left if one more were blocked.\n"
        f"- Claim 6 holds where the worker was replaced, and **{nearly_all}** or more of what was due after "
        "the kill was answered.\n"
        f"- Claim 7 holds where every worker was replaced, and **{nearly_all}** or more of what was open "
        "meanwhile was answered.\n\n"
        "In brackets stand the shares that could well have given these counts (Clopper-Pearson, each bound "
        "with 95 % confidence). Where the bar lies between them, the data cannot tell. Requests are taken as "
        "independent; losses that come in bursts are not, and need more blocks. A flag because the generator "
        "fell behind, or the machine changed its speed, speaks against times, not against these counts. "
        "Where other processes or the hypervisor took CPU time, claims 6 and 7 hold all the more if they "
        "hold in spite of it; if they do not, it may be why, and the data cannot tell."
    )
